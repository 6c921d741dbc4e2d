//! Opens an `af_xdp:` port as root and runs a program without privileges that has it: as `af_xdp:IFACE,from=0`, for the port comes
//! over the program's standard input.
//!
//! ```text
//! sudo hand_over af_xdp:eth0 --user 65534 --address 192.0.2.10 -- rxline gateway --config gateway.toml
//! ```
//!
//! This process becomes the program: nothing privileged is left, and the port ends with it.

use std::error::Error;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Parser;
use pmd::OpenOptions;

/// Give a port to a program without privileges.
#[derive(Parser)]
struct Args {
    /// `af_xdp:IFACE`, with its options
    port: String,
    /// User and group to become, by number
    #[arg(long)]
    user: u32,
    /// The engine's addresses; frames for others stay the kernel's. Without any, all frames are taken
    #[arg(long, value_delimiter = ',')]
    address: Vec<IpAddr>,
    /// Queues
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// Buffers of each queue's pool
    #[arg(long, default_value_t = 16384)]
    buffers: usize,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let options = OpenOptions { queues: args.queues, addresses: args.address, ..OpenOptions::default() };
    let (ours, theirs) = UnixStream::pair()?;
    pmd::hand_over(&args.port, &options, args.buffers, &ours)?;
    drop(ours);
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]).stdin(OwnedFd::from(theirs)).gid(args.user).uid(args.user);
    // Returns only when it failed.
    Err(format!("{}: {}", args.command[0], command.exec()).into())
}
