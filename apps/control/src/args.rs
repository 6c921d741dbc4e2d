//! The options about control sockets that commands share.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::place;
use crate::server::{Control, ServeError};
use crate::sources::Sources;

/// Of a command that can be looked into.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Where `rxline rx`, `top` and `capture` reach this process: a path for a Unix socket, or none
    ///
    /// Without it: COMMAND-PID.sock in /run/rxline (root) or $XDG_RUNTIME_DIR/rxline.
    #[arg(long, value_name = "PATH|none")]
    pub control: Option<OsString>,

    /// Serve Prometheus metrics at http://ADDR:PORT/metrics; a port alone means 127.0.0.1
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = metrics_address)]
    pub metrics: Option<SocketAddr>,
}

/// Of a command that looks into another.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct AskArgs {
    /// Control socket of the process to look into; the only one that is running if not given
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => {
            text.parse().map_err(|_| "neither a port nor an address and port such as 127.0.0.1:9464".into())
        }
    }
}

impl ServeArgs {
    /// Serves what was asked for. A socket that nobody asked for is no reason not to run: then stderr says why there is
    /// none.
    pub fn serve(&self, command: &str, sources: Sources) -> Result<Option<Control>, ServeError> {
        let (path, asked_for) = match &self.control {
            Some(none) if none == "none" => (None, true),
            Some(path) => (Some(PathBuf::from(path)), true),
            None => (self.default_path(command), false),
        };
        if path.is_none() && self.metrics.is_none() {
            return Ok(None);
        }
        match Control::serve(path.as_deref(), self.metrics, sources) {
            Ok(control) => {
                control.announce(command);
                Ok(Some(control))
            }
            Err(error @ ServeError::Place(_)) if !asked_for && self.metrics.is_none() => {
                eprintln!("rxline {command}: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn default_path(&self, command: &str) -> Option<PathBuf> {
        let directory = place::default_directory();
        // What dead processes left is removed on the way.
        let made = place::make_private(&directory).and_then(|()| place::living(&directory));
        match made {
            Ok(_) => Some(place::default_path(&directory, command)),
            Err(error) => {
                eprintln!("rxline {command}: no control socket: {error}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback() {
        assert_eq!(metrics_address("9464").unwrap().to_string(), "127.0.0.1:9464");
        assert_eq!(metrics_address("[::]:9464").unwrap().to_string(), "[::]:9464");
        assert!(metrics_address("localhost").is_err() && metrics_address("99999").is_err());
    }
}
