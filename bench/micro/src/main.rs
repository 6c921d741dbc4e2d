//! The Rust arms of `cargo lab bench rcu`, `rx` and `cost-curve`. Each run measures one thing one way, and prints a JSON object of figures.
//!
//! The lab builds it, gives it its CPUs and draws the order of the runs; by hand it is good for looking at one figure. The arms in C
//! are in `bench/arms`. Deliberately absent: comparisons, bars, and anything that decides what a figure means.

mod calls;
mod cost;
mod dispatch;
mod grace;
mod guard;
mod hold;
mod lookup;
mod measure;
mod read;
mod rx;
mod source;

use clap::{Parser, Subcommand};

/// One figure of one arm.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// ns to read a shared word, on one CPU or on several at once
    Read {
        /// Who protects it
        arm: read::Arm,
        /// CPUs, a thread on each
        #[arg(value_delimiter = ',', required = true)]
        cpus: Vec<usize>,
    },
    /// ns of a quiescent state, while nobody waits for one
    Quiescent {
        /// Whose
        arm: read::Quiescent,
        /// CPUs, a thread on each
        #[arg(value_delimiter = ',', required = true)]
        cpus: Vec<usize>,
    },
    /// ns until a grace period has passed, with one busy reader
    Grace {
        /// Whose
        arm: grace::Arm,
        /// The writer's CPU
        writer: usize,
        /// The reader's CPU
        reader: usize,
    },
    /// ns of a core for each packet from rx_burst to the wake-up, into one socket
    Dispatch {
        /// What keeps the socket's object meanwhile
        held: hold::Held,
        /// CPUs, a core on each
        #[arg(value_delimiter = ',', required = true)]
        cpus: Vec<usize>,
    },
    /// Rx calls a second to one socket
    Calls {
        /// What keeps the socket's object while a packet is taken
        held: hold::Held,
        /// CPUs, a core of the client and one of the server on each
        #[arg(value_delimiter = ',', required = true)]
        cpus: Vec<usize>,
    },
    /// ns to find, bind and close sockets, among many
    Lookup {
        /// Plain sockets, and as many connected ones
        #[arg(value_parser = clap::value_parser!(u32).range(32..=2_000_000))]
        pairs: u32,
        /// Where
        cpu: usize,
    },
    /// Rx calls a second that one core serves, to a client on another CPU
    Serve {
        /// The server's CPU
        server: usize,
        /// The client's CPU
        client: usize,
    },
    /// Bytes of an idle Rx connection, and calls a second beside so many of them
    Idle {
        /// Connections
        #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(..=4_000_000))]
        connections: usize,
        /// Where
        cpu: usize,
    },
    /// Rx calls a second and memory, with so many connections, calls in flight, bytes, cores
    CostCalls(cost::calls::Load),
    /// UDP echoes a second and memory, through so many sockets
    CostSockets {
        /// Sockets
        #[arg(value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
        sockets: u32,
        /// The server's CPU
        server: usize,
        /// The client's CPU
        client: usize,
        /// For so long it is measured
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// ns of a load that waits for the one before it, anywhere in so much memory
    Chase {
        /// So much
        #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(128..=1 << 37))]
        bytes: usize,
        /// Where
        cpu: usize,
    },
    /// Does one hot thing so often, to have its instructions counted
    Guard {
        /// Which
        what: guard::What,
        /// About so often
        count: usize,
    },
}

fn main() {
    let figures = match Args::parse().what {
        What::Read { arm, cpus } => serde_json::to_string(&read::read(arm, &cpus)),
        What::Quiescent { arm, cpus } => serde_json::to_string(&read::quiescent(arm, &cpus)),
        What::Grace { arm, writer, reader } => serde_json::to_string(&grace::grace(arm, writer, reader)),
        What::Dispatch { held, cpus } => serde_json::to_string(&dispatch::dispatch(held, &cpus)),
        What::Calls { held, cpus } => serde_json::to_string(&calls::calls(held, &cpus)),
        What::Lookup { pairs, cpu } => serde_json::to_string(&lookup::lookup(pairs, cpu)),
        What::Serve { server, client } => serde_json::to_string(&rx::serve::serve(server, client)),
        What::Idle { connections, cpu } => serde_json::to_string(&rx::idle::idle(connections, cpu)),
        What::CostCalls(load) => serde_json::to_string(&cost::calls::calls(&load)),
        What::CostSockets { sockets, server, client, seconds } => {
            serde_json::to_string(&cost::sockets::sockets(sockets, server, client, seconds))
        }
        What::Chase { bytes, cpu } => serde_json::to_string(&cost::chase::chase(bytes, cpu)),
        What::Guard { what, count } => serde_json::to_string(&guard::guard(what, count)),
    };
    println!("{}", figures.expect("finite numbers"));
}
