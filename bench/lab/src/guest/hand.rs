//! `cargo lab guest`: one guest, one script, for trying things by hand.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::{Guest, Kit, Nic, Peer};
use crate::fault::{Context, Result, ensure};
use crate::host::Host;
use crate::step::Cx;

/// What to boot and run.
#[derive(clap::Args)]
pub struct Args {
    /// Shell script (busybox) to run in the guest; NICs are already bound to vfio-pci, at 0000:01:00.0, 0000:02:00.0, ..
    script: PathBuf,
    /// Programs and files that it finds in /share
    files: Vec<PathBuf>,
    /// Each NIC's model; all of them are on one hub
    #[arg(long = "nic", value_enum, default_values_t = [Model::Igb, Model::Igb])]
    nics: Vec<Model>,
    /// What the script may take
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
}

/// As QEMU calls them.
#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// 82576
    Igb,
    /// 82574L
    E1000e,
}

/// Boots, runs, prints what the script printed.
pub fn run(host: &Host, args: &Args) -> Result {
    let script = fs::read_to_string(&args.script).context(|| format!("read {}", args.script.display()))?;
    let cx = Cx::new(host, "guest", Duration::from_secs(600 + args.seconds))?;
    let kit = Kit::obtain(&cx)?;
    let nic = |model: &Model| {
        let model = match model {
            Model::Igb => "igb",
            Model::E1000e => "e1000e",
        };
        Nic { model, peer: Peer::Hub(0) }
    };
    let nics: Vec<Nic> = args.nics.iter().map(nic).collect();
    let mut guest = Guest::boot(&cx, &kit, &nics)?;
    args.files.iter().try_for_each(|file| guest.give(file))?;
    (0..nics.len()).try_for_each(|index| guest.bind_vfio(index))?;
    let (status, printed) = guest.run(&script, Duration::from_secs(args.seconds))?;
    print!("{printed}");
    println!("log: {}", cx.log.path().display());
    guest.stop()?;
    ensure!(status == 0, "the script ended with {status}");
    Ok(())
}
