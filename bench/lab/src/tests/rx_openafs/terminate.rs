//! The gateway with the service's key between OpenAFS's programs and servers: clients prove to it who they are, and it does to the servers.

use super::cell::{self, Proof, Seen};
use super::{can_be_read, must_be_secured};
use crate::fault::{Result, ensure};
use crate::gateway::{Plan, Security};
use crate::net::server;
use crate::openafs::keys::{Keys, REALM};
use crate::openafs::script;
use crate::step::Cx;

/// `-localauth` and `-encrypt` end at the gateway, which has the key in a KeyFile and in a KeyFileExt; the servers see all of it
/// encrypted, and those who prove nothing as such.
pub fn rxkad(cx: &Cx<'_>) -> Result {
    // And whether what they say can be read on their side of the gateway, and on the other.
    const PROOFS: [(Proof, bool, bool); 3] = [
        (&["-noauth"], true, true),
        (&["-localauth"], true, false),
        (&["-localauth", "-encrypt"], false, false),
    ];
    for keys in [Keys::des(cx)?, Keys::ext(cx)?] {
        let security = Security {
            listener: format!("{}level = \"clear\"\nanonymous = true\n", keys.toml()),
            pool: format!("{}level = \"encrypt\"\n", keys.toml()),
        };
        let plan = Plan { security: Some(security), ..Plan::openafs(&[server(0)]) };
        let seen =
            cell::compare(cx, &plan, Some(&keys), &PROOFS.map(|(proof, ..)| proof), script::few_changes)?;
        for (number, (proof, front, back)) in PROOFS.into_iter().enumerate() {
            ensure!(can_be_read(cx, &seen.front, number)? == front, "{proof:?} in front of the gateway");
            ensure!(can_be_read(cx, &seen.back, number)? == back, "{proof:?} behind the gateway");
        }
        must_be_secured(cx, &seen.front, 20, 40)?;
        // The gateway keeps its connections.
        must_be_secured(cx, &seen.back, 2, 40)?;
        judge(&seen, 0)?;
    }
    Ok(())
}

/// Tickets from a real KDC. The gateway takes its own out of a credential cache, so that servers see `admin` behind every call
/// that it lets pass; `guest`, whose ticket is as good, it refuses.
pub fn kdc(cx: &Cx<'_>) -> Result {
    let (seen, owner) = cell::people(cx, |keys, kdc| {
        let cache = kdc.cache("admin");
        let security = Security {
            listener: format!(
                "{}level = \"clear\"\nusers = [\"admin@{REALM}\"]\nanonymous = true\n",
                keys.toml()
            ),
            pool: format!("ccache = {cache:?}\nprincipal = \"afs/lab.test\"\nlevel = \"encrypt\"\n"),
        };
        Plan { security: Some(security), ..Plan::openafs(&[server(0)]) }
    })?;
    ensure!(owner == "admin", "the group that admin made belongs to {owner:?}");
    for captured in [&seen.front, &seen.back] {
        captured.must_be_clean(cx)?;
        let tickets = captured.fields(cx, "rx.type == 7", &["rx.kvno"])?;
        ensure!(
            !tickets.is_empty() && tickets.iter().flatten().all(|kvno| kvno == "256"),
            "tickets {tickets:?}"
        );
    }
    // RXKADNOAUTH, once at each level.
    let (front, back) = (seen.front.aborts(cx)?, seen.back.aborts(cx)?);
    ensure!(front == [(19_270_405, 3)].into() && back.is_empty(), "aborts {front:?} and {back:?}");
    judge(&seen, 3)
}

/// Every call was passed on and answered, but for those of users whom the listener does not admit.
fn judge(seen: &Seen, strangers: u64) -> Result {
    seen.figures.must_close()?;
    let calls = &seen.figures.calls;
    ensure!(calls.accepted > 10, "only {} calls came through: {calls:?}", calls.accepted);
    ensure!(calls.refused_user == strangers, "{} strangers: {calls:?}", calls.refused_user);
    ensure!(calls.unwell() == strangers, "calls were lost or refused: {calls:?}");
    Ok(())
}
