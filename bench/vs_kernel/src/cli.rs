//! The command line, and how a run ends: one JSON object on stdout, why not on stderr, an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cli::Exit;
use serde::Serialize;

use crate::args::{LoadArgs, PairArgs, ServeArgs};
use crate::figures::{Loaded, Served};
use crate::stop::Stop;
use crate::{Trouble, meter, run};

/// One side of one way to do UDP echo or Rx calls: on kernel sockets, or on our ports.
///
/// A server on one machine, namespace or CPU, a load on the other:
///
///   vs_kernel serve udp mmsg --address 198.18.0.2 --cpus 1
///   vs_kernel load udp mmsg 198.18.0.2 --cpu 0 --mode open --rate 100000
///
/// prints what the load saw as one JSON object, and what the server did as another once it gets SIGINT or SIGTERM. Each field has its unit
/// in its name. Any load may drive any server of the same workload that it can reach: what is to be compared is the server, so give all
/// servers the same load; for round trips give both ends the same way.
#[derive(Parser)]
#[command(name = "vs_kernel", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

const AFTER_HELP: &str = "\
Ways (ARM):
  blocking     kernel: one recvfrom and one sendto a datagram
  mmsg         kernel: epoll, then recvmmsg and sendmmsg
  busy-poll    kernel: the same with SO_BUSY_POLL and SO_PREFER_BUSY_POLL (CAP_NET_ADMIN; on veth: ethtool -K IF gro on)
  gso          kernel: the same with UDP_SEGMENT and UDP_GRO (on veth: leave its offloads on, and no XDP at its peer)
  uring        kernel: io_uring, multishot receive into provided buffers, sends in batches
  reuseport    kernel: mmsg on a socket and thread for each of --cpus, by SO_REUSEPORT; load it with --flows 8 or more
  DRIVER:...   ours: memory:NAME (pair only), memif:PATH, af_packet:IF, af_xdp:IF, dpdk:DEVARGS (built with --features dpdk)

Exit codes:
  0  done, and every reply was what it should be
  1  it ran, and the result is bad: a wrong reply, a failed call, no answer
  2  wrong arguments
  3  the machine lacks something (interface, permission, kernel feature); the message says what and the mend";

#[derive(Subcommand)]
enum What {
    /// Serve until SIGINT or SIGTERM; says `ready` on stderr once it answers
    Serve(ServeArgs),
    /// Load a server and say what came of it
    Load(LoadArgs),
    /// Both in this process, a CPU each, joined by a `memory:` port
    Pair(PairArgs),
    /// Which ways of the kernel's this machine has: {"arms":[{"arm","available","why"}]}
    Arms,
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    meter::executed();
    let said = match Cli::parse().what {
        What::Serve(args) => serve(&args),
        What::Load(args) => load(&args),
        What::Pair(args) => pair(&args),
        What::Arms => Ok((json(&run::arms()), Exit::Ok)),
    };
    match said {
        Ok((figures, exit)) => {
            cli::say(format_args!("{figures}\n"));
            exit.into()
        }
        Err(trouble) => {
            eprintln!("vs_kernel: {trouble}");
            trouble.into()
        }
    }
}

fn serve(args: &ServeArgs) -> Result<(String, Exit), Trouble> {
    let ready = || {
        eprintln!(
            "vs_kernel: ready: {} {} at {}, UDP port {}",
            args.arm,
            args.wait.name(),
            args.address,
            args.udp_port
        )
    };
    let served = run::serve(args, &Stop::on_signals()?, ready)?;
    Ok((json(&served), verdict_of_server(&served)))
}

fn load(args: &LoadArgs) -> Result<(String, Exit), Trouble> {
    let loaded = run::load(args, &Stop::on_signals()?)?;
    Ok((json(&loaded), verdict(&loaded)))
}

fn pair(args: &PairArgs) -> Result<(String, Exit), Trouble> {
    let paired = run::pair(args, &Stop::on_signals()?)?;
    let (load, server) = (verdict(&paired.load), verdict_of_server(&paired.server));
    Ok((json(&paired), if load == Exit::Ok { server } else { load }))
}

/// Whether every reply was what it should be, and there was one.
fn verdict(loaded: &Loaded) -> Exit {
    if let Some(error) = &loaded.first_error {
        eprintln!("vs_kernel: {} errors, the first: {error}", loaded.errors);
    }
    if loaded.errors == 0 && loaded.calls > 0 { Exit::Ok } else { Exit::Failed }
}

fn verdict_of_server(served: &Served) -> Exit {
    served.leaks.iter().for_each(|leak| eprintln!("vs_kernel: {leak}"));
    if served.leaks.is_empty() { Exit::Ok } else { Exit::Failed }
}

fn json(figures: &impl Serialize) -> String {
    serde_json::to_string(figures).expect("finite numbers")
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
