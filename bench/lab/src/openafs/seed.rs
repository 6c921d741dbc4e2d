//! The databases every check begins with: made once by real servers, then copied.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::fault::{Context, Result};
use crate::net::{Net, Wire, server};
use crate::openafs::client::Client;
use crate::openafs::script::Line;
use crate::openafs::servers::Servers;
use crate::step::Cx;

/// Volumes whose locations the database knows.
const VOLUMES: usize = 150;
/// Part of the cache's name: goes up when what is in it changes.
const VERSION: u32 = 2;

/// The folder with the databases; made when it is not there yet.
pub fn databases(cx: &Cx<'_>) -> Result<PathBuf> {
    let kept = cx.host.work.join(format!("cache/databases-{VERSION}"));
    if kept.is_dir() {
        return Ok(kept);
    }
    cx.log.line("making the databases that every check begins with");
    let net = Net::build(cx, Wire::AfPacket, 1)?;
    let mut servers = Servers::start(cx, &net.servers[0], "seed", server(0), None)?;
    servers.ready(cx)?;
    let file_server = servers.start_file_server(cx)?;
    let client = Client::new(cx, &net.direct, "seed", server(0))?;
    let create = |number: usize| {
        let args = ["create".into(), server(0).to_string(), "a".into(), format!("vol.{number}")];
        client.cmd(&Line { tool: "vos", args: args.into(), stdin: String::new() })
    };
    // The file server takes a while to attach its partition and to say where it is.
    cx.wait_for("the first volume is created", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        Ok(create(1).run(cx)?.status.success().then_some(()))
    })?;
    for number in 2..=VOLUMES {
        create(number).ok(cx)?;
    }
    drop(file_server);
    let from = servers.databases();
    drop(servers);
    let making = kept.with_extension("making");
    let _ = fs::remove_dir_all(&making);
    fs::create_dir_all(&making).context(|| format!("create {}", making.display()))?;
    for entry in fs::read_dir(&from).context(|| format!("read {}", from.display()))?.flatten() {
        fs::copy(entry.path(), making.join(entry.file_name())).context(|| "copy the databases".into())?;
    }
    fs::rename(&making, &kept).context(|| format!("rename to {}", kept.display()))?;
    Ok(kept)
}
