//! QEMU's monitor: one JSON object a line in both directions (docs/interop/qmp-spec.rst of QEMU).

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::line::Line;
use crate::fault::{Fault, Result};
use crate::proc::Running;
use crate::step::Cx;

const LIMIT: Duration = Duration::from_secs(10);

/// One connection, ready for commands.
pub struct Monitor {
    line: Line,
}

impl Monitor {
    /// Connects and leaves the negotiation behind.
    pub fn connect(cx: &Cx<'_>, qemu: &mut Running, path: &Path) -> Result<Monitor> {
        let mut line = Line::connect(cx, qemu, path)?;
        line.receive(cx, qemu, LIMIT)?; // the greeting
        let mut monitor = Monitor { line };
        monitor.execute(cx, qemu, "qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// One command that returns nothing of interest. Events that come meanwhile are passed over.
    pub fn execute(&mut self, cx: &Cx<'_>, qemu: &mut Running, command: &str, arguments: Value) -> Result {
        let told = json!({ "execute": command, "arguments": arguments });
        cx.log.line(format!("monitor: {told}"));
        self.line.send(&told.to_string())?;
        loop {
            let answer = self.line.receive(cx, qemu, LIMIT)?;
            let parsed: Value = serde_json::from_str(&answer)
                .map_err(|error| Fault::Check(format!("QEMU's monitor said {answer:?}: {error}")))?;
            if parsed.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = parsed.get("error") {
                return Err(Fault::Check(format!("QEMU refuses {command}: {error}")));
            }
        }
    }
}
