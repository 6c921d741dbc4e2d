//! `rxline rx` and `rxline top`: what a running rxline is doing, asked over its control socket.
//!
//! Deliberately absent: anything that changes the process looked at.
#![forbid(unsafe_code)]

mod rates;
pub mod rx;
mod screen;
mod table;
pub mod top;

use cli::Exit;
use control::AskError;
use control::protocol::RefusalCode;

/// How a command ends that got no answer.
fn exit_for(error: &AskError) -> Exit {
    match error {
        AskError::Refused { refusal, .. } if refusal.code == RefusalCode::NotAllowed => Exit::Environment,
        AskError::Ambiguous { .. } => Exit::Usage,
        AskError::NotRunning { .. } | AskError::Connect { .. } | AskError::Place(_) => Exit::Environment,
        AskError::Lost { .. } | AskError::Refused { .. } | AskError::Garbled { .. } => Exit::Failed,
    }
}
