//! Why a run has no figures, or none that count.

use std::io;
use std::process::ExitCode;

use cli::Exit;

/// Why it ended without figures.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// The machine lacks something; the mend is in the words.
    #[error("{0}")]
    Machine(String),
    /// The system refused while it ran.
    #[error("{0}")]
    Failed(String),
}

impl Trouble {
    /// The system refused: what was tried, with the mend where the reason has a usual one.
    pub fn system(what: String, error: io::Error) -> Trouble {
        let mend = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program has it: end that one, or choose another --udp-port"
            }
            io::ErrorKind::AddrNotAvailable => {
                "; no interface has this address: ip address add, or choose another --address"
            }
            io::ErrorKind::NetworkUnreachable => "; there is no route: ip route",
            io::ErrorKind::PermissionDenied => "; run as root",
            _ => "",
        };
        Trouble::Machine(format!("cannot {what}: {error}{mend}"))
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Trouble::Usage(_) => Exit::Usage,
            Trouble::Machine(_) => Exit::Environment,
            Trouble::Failed(_) => Exit::Failed,
        }
    }
}

impl From<io::Error> for Trouble {
    /// While it ran.
    fn from(error: io::Error) -> Trouble {
        Trouble::Failed(format!("the wire: {error}"))
    }
}

impl From<Trouble> for ExitCode {
    fn from(trouble: Trouble) -> ExitCode {
        trouble.exit().into()
    }
}
