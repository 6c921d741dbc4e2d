//! Who is in the way of more: a verdict over what happened between two looks at a run, with the evidence that it rests on.
//!
//! The way of a frame is followed from its sender on, and the first stage that falls short is named: the generator's core, the driver or NIC that
//! did not take frames, the link, then what lies between the ports. "Nobody" and "cannot say" are answers too. No verdict is given
//! on less than [`SHORT`] of the frames.
//!
//! Deliberately absent: the CPU's own counters. What a core could still do is read off its polls: one that finds nothing had time.

use pmd::{BURST, Drops};
use serde::Serialize;

use crate::figures::{MarkedFigures, PortFigures, QueueFigures, Snapshot};
use crate::line_rate::OVERHEAD;
use crate::units::{bits, percent, pps};

/// The part of frames that has to be missing somewhere before somebody is blamed: what a rate is held within.
const SHORT: f64 = 0.005;
/// Loss is judged more finely.
const LOST: f64 = 0.0001;
/// A link this full is full.
const FULL: f64 = 0.99;
/// A NIC this near to its known ceiling is there.
const AT_CEILING: f64 = 0.9;

/// Who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// All that was asked for was done.
    Nobody,
    /// Our core made frames too late, or had no buffers for them.
    Generator,
    /// Our core cannot receive or forward more.
    Core,
    /// The driver, or the device behind it, did not take frames, or dropped them.
    Driver,
    /// The link carries no more.
    Link,
    /// The NIC is known to do no more.
    NicCeiling,
    /// Frames left one port and did not arrive at the other.
    DeviceUnderTest,
    /// There is not enough to tell.
    CannotSay,
}

impl Who {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Who::Nobody => "nobody",
            Who::Generator => "generator",
            Who::Core => "our core",
            Who::Driver => "driver or NIC",
            Who::Link => "link",
            Who::NicCeiling => "NIC's ceiling",
            Who::DeviceUnderTest => "device under test",
            Who::CannotSay => "cannot say",
        }
    }
}

/// Who it is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Who is in the way.
    pub who: Who,
    /// What it rests on, a sentence each.
    pub evidence: Vec<String>,
}

impl Verdict {
    fn new(who: Who, evidence: impl Into<String>) -> Verdict {
        Verdict { who, evidence: vec![evidence.into()] }
    }

    /// On one line.
    pub fn line(&self) -> String {
        format!("{}: {}", self.who.name(), self.evidence.join("; "))
    }
}

/// What a kind of NIC does at most, whatever its link could carry.
struct Ceiling {
    /// As the driver calls itself.
    driver: &'static str,
    /// Slower ports of the same kind are limited by their link.
    bits_per_second_min: u64,
    /// All ports of a card together.
    frames_per_second: f64,
    name: &'static str,
    source: &'static str,
}

/// Only what somebody else measured and published.
const CEILINGS: [Ceiling; 2] = [
    Ceiling {
        driver: "i40e",
        bits_per_second_min: 25_000_000_000,
        frames_per_second: 37.5e6,
        name: "an XL710 or XXV710",
        source: "FD.io CSIT's limit: 18.75 Mpps for each of two ports",
    },
    Ceiling {
        driver: "net_ice",
        bits_per_second_min: 100_000_000_000,
        frames_per_second: 117e6,
        name: "an E810",
        source: "FD.io CSIT's limit: 58.5 Mpps for each of two ports",
    },
];

/// Who was in the way between these two looks at the same run.
pub fn judge(before: &Snapshot, after: &Snapshot) -> Verdict {
    let seconds = after.elapsed.saturating_sub(before.elapsed).as_secs_f64();
    let ports: Vec<Delta<'_>> =
        before.ports.iter().zip(&after.ports).map(|(was, is)| Delta::between(was, is, seconds)).collect();
    let moved: u64 = ports.iter().map(|port| port.grown.rx_frames + port.due()).sum();
    if seconds <= 0.0 || moved == 0 {
        return Verdict::new(Who::CannotSay, "no frame was sent, received or due");
    }
    let marked = marked_between(&before.marked, &after.marked);
    let stages = [short(&ports), lost(&ports, &marked), full(&ports), refused(&ports)];
    stages.into_iter().flatten().next().unwrap_or_else(|| enough(&ports, &marked))
}

/// What a port did meanwhile.
struct Delta<'a> {
    port: &'a PortFigures,
    seconds: f64,
    /// All its queues.
    grown: QueueFigures,
    drops: Drops,
}

impl<'a> Delta<'a> {
    fn between(was: &PortFigures, is: &'a PortFigures, seconds: f64) -> Delta<'a> {
        let mut drops = Drops::default();
        for (name, n) in is.drops.iter() {
            drops.add(name, n.saturating_sub(was.drops.get(name)));
        }
        let grown = QueueFigures::sum(&is.queues).since(&QueueFigures::sum(&was.queues));
        Delta { port: is, seconds, grown, drops }
    }

    fn due(&self) -> u64 {
        self.grown.tx_frames + self.grown.unsent + self.grown.behind
    }

    /// How full the link is, each way, if it has a speed.
    fn fill(&self) -> Option<(f64, f64)> {
        let speed = self.port.bits_per_second? as f64;
        let part =
            |bytes: u64, frames: u64| ((bytes + frames * OVERHEAD as u64) * 8) as f64 / self.seconds / speed;
        Some((
            part(self.grown.rx_bytes, self.grown.rx_frames),
            part(self.grown.tx_bytes, self.grown.tx_frames),
        ))
    }

    /// Tx bursts of which the device took nothing, of all.
    fn refused(&self) -> (u64, u64) {
        (self.grown.tx_bursts[0], self.grown.tx_bursts.iter().sum())
    }

    /// Polls that found nothing, and polls that found a full burst, of all.
    fn polls(&self) -> (u64, u64, u64) {
        (self.grown.rx_bursts[0], self.grown.rx_bursts[BURST], self.grown.rx_bursts.iter().sum())
    }

    /// What our port dropped. What `sim:` drops is the device's doing: it plays the wire.
    fn own_drops(&self) -> u64 {
        self.drops.iter().filter(|(name, _)| !name.starts_with("sim_")).map(|(_, n)| n).sum()
    }

    fn url(&self) -> &str {
        &self.port.url
    }
}

fn part(of: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { of as f64 / all as f64 }
}

fn marked_between(was: &MarkedFigures, is: &MarkedFigures) -> MarkedFigures {
    MarkedFigures {
        sent: is.sent.saturating_sub(was.sent),
        received: is.received.saturating_sub(was.received),
        missing: is.missing.saturating_sub(was.missing),
        corrupted: is.corrupted.saturating_sub(was.corrupted),
        ..*is
    }
}

/// The sending side: frames were due and not sent.
fn short(ports: &[Delta<'_>]) -> Option<Verdict> {
    let port = ports.iter().max_by_key(|port| port.grown.unsent + port.grown.behind)?;
    let missing = port.grown.unsent + port.grown.behind;
    let share = part(missing, port.due());
    if share < SHORT {
        return None;
    }
    let what = format!(
        "{}: of {} frames due {} ({}) were not sent",
        port.url(),
        port.due(),
        missing,
        percent(share * 100.0)
    );
    let (who, why) = if let Some((_, tx)) = port.fill().filter(|(_, tx)| *tx >= FULL) {
        (Who::Link, format!("the link carries {} of line rate", percent(tx * 100.0)))
    } else if let Some(why) = ceiling(ports, port) {
        (Who::NicCeiling, why)
    } else if port.grown.unsent >= port.grown.behind {
        let (refused, bursts) = port.refused();
        (
            Who::Driver,
            format!(
                "for {} of them the device had no room; it took nothing of {refused} of {bursts} bursts, at {}",
                port.grown.unsent,
                pps(port.grown.tx_frames as f64 / port.seconds)
            ),
        )
    } else {
        (
            Who::Generator,
            format!(
                "{} of them were made too late or had no buffers; the device refused {}",
                port.grown.behind, port.grown.unsent
            ),
        )
    };
    Some(Verdict { who, evidence: vec![what, why] })
}

/// Whether all ports of this one's kind together are where their NIC is known to end.
fn ceiling(ports: &[Delta<'_>], port: &Delta<'_>) -> Option<String> {
    let is = |port: &PortFigures, ceiling: &Ceiling| {
        port.bits_per_second.is_some_and(|speed| speed >= ceiling.bits_per_second_min)
            && std::iter::once(port.driver)
                .chain(port.notes.iter().map(String::as_str))
                .any(|text| text.contains(ceiling.driver))
    };
    let known = CEILINGS.iter().find(|ceiling| is(port.port, ceiling))?;
    let alike = ports.iter().filter(|other| is(other.port, known));
    let rate = alike
        .map(|other| other.grown.tx_frames.max(other.grown.rx_frames) as f64 / other.seconds)
        .sum::<f64>();
    (rate >= known.frames_per_second * AT_CEILING).then(|| {
        format!(
            "{} ends near {} a card ({}); here {} pass",
            known.name,
            pps(known.frames_per_second),
            known.source,
            pps(rate)
        )
    })
}

/// Between the ports: frames were sent and did not arrive.
fn lost(ports: &[Delta<'_>], marked: &MarkedFigures) -> Option<Verdict> {
    let missing = marked.missing + marked.corrupted;
    let share = part(missing, marked.sent);
    if share < LOST {
        return None;
    }
    let what =
        format!("of {} frames sent {missing} ({}) did not arrive whole", marked.sent, percent(share * 100.0));
    let own: u64 = ports.iter().map(Delta::own_drops).sum();
    if own * 2 < missing {
        let why = format!("our own ports dropped {own}");
        return Some(Verdict { who: Who::DeviceUnderTest, evidence: vec![what, why] });
    }
    let port = ports.iter().max_by_key(|port| port.own_drops())?;
    let why = format!("our own ports dropped {own}; {}: {}", port.url(), names(&port.drops));
    let who = if saturated(port).is_some() { Who::Core } else { Who::Driver };
    Some(Verdict { who, evidence: [what, why].into_iter().chain(saturated(port)).collect() })
}

fn names(drops: &Drops) -> String {
    let named = drops.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}"));
    named.collect::<Vec<_>>().join(", ")
}

/// A link that is full, although nothing is missing.
fn full(ports: &[Delta<'_>]) -> Option<Verdict> {
    ports.iter().find_map(|port| {
        let (rx, tx) = port.fill()?;
        let speed = bits(port.port.bits_per_second? as f64);
        let (way, fill) = if tx >= rx { ("sends", tx) } else { ("receives", rx) };
        (fill >= FULL).then(|| {
            let fill = percent(fill * 100.0);
            Verdict::new(Who::Link, format!("{} {way} {fill} of its line rate, {speed}", port.url()))
        })
    })
}

/// A sender without a rate: what the device leaves is not missing, and limits all the same.
fn refused(ports: &[Delta<'_>]) -> Option<Verdict> {
    let port = ports.iter().max_by_key(|port| port.grown.tx_frames)?;
    let (refused, bursts) = port.refused();
    if part(refused, bursts) < 0.1 {
        return None;
    }
    let what = format!("{}: the device took nothing of {refused} of {bursts} bursts", port.url());
    match ceiling(ports, port) {
        Some(why) => Some(Verdict { who: Who::NicCeiling, evidence: vec![what, why] }),
        None => Some(Verdict::new(Who::Driver, what)),
    }
}

/// Whether a port's core finds full bursts whenever it looks.
fn saturated(port: &Delta<'_>) -> Option<String> {
    let (nothing, all, polls) = port.polls();
    let saturated = polls > 0 && part(nothing, polls) < 0.01 && part(all, polls) > 0.9;
    saturated.then(|| {
        format!("{}: {} of {polls} polls found a full burst, and {nothing} nothing", port.url(), all)
    })
}

/// Nothing is missing.
fn enough(ports: &[Delta<'_>], marked: &MarkedFigures) -> Verdict {
    if marked.sent > 0 {
        return Verdict::new(
            Who::Nobody,
            format!("all {} frames due were sent, and what was sent arrived", marked.sent),
        );
    }
    let receiving =
        ports.iter().max_by_key(|port| port.grown.rx_frames).filter(|port| port.grown.rx_frames > 0);
    let Some(port) = receiving else {
        let sent: u64 = ports.iter().map(|port| port.grown.tx_frames).sum();
        return Verdict::new(Who::Nobody, format!("the devices took all {sent} frames that were due"));
    };
    if let Some(why) = saturated(port) {
        return Verdict::new(Who::Core, why);
    }
    let own: u64 = ports.iter().map(Delta::own_drops).sum();
    if part(own, port.grown.rx_frames + own) >= SHORT {
        let why = format!(
            "our own ports dropped {own} of {} frames; {}",
            port.grown.rx_frames + own,
            names(&port.drops)
        );
        return Verdict::new(Who::Driver, why);
    }
    let (nothing, _, polls) = port.polls();
    match part(nothing, polls) {
        idle if idle >= 0.05 => Verdict::new(
            Who::Nobody,
            format!(
                "{}: {} of the polls found nothing, so more could come",
                port.url(),
                percent(idle * 100.0)
            ),
        ),
        _ => Verdict::new(
            Who::CannotSay,
            "nothing was dropped; the core is rarely idle, and its bursts are not full",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use std::time::Duration;

    fn queue() -> QueueFigures {
        QueueFigures {
            cpu: 0,
            rx_frames: 0,
            rx_bytes: 0,
            tx_frames: 0,
            tx_bytes: 0,
            unsent: 0,
            behind: 0,
            rx_bursts: [0; BURST + 1],
            tx_bursts: [0; BURST + 1],
            busy_cycles: 0,
        }
    }

    /// One port with one queue, after a second. `set` makes the second look; the first has nothing.
    fn verdict(set: impl FnOnce(&mut PortFigures, &mut MarkedFigures)) -> Verdict {
        let port = PortFigures {
            url: "p0".into(),
            driver: "null",
            bits_per_second: None,
            notes: Vec::new(),
            queues: vec![queue()],
            drops: Drops::default(),
        };
        let before = Snapshot {
            elapsed: Duration::from_secs(1),
            ports: vec![port],
            marked: MarkedFigures::default(),
            latency: Histogram::new(3).unwrap(),
        };
        let mut after = before.clone();
        after.elapsed = Duration::from_secs(2);
        set(&mut after.ports[0], &mut after.marked);
        judge(&before, &after)
    }

    fn sent(port: &mut PortFigures, frames: u64) {
        port.queues[0].tx_frames = frames;
        port.queues[0].tx_bytes = frames * 60;
        port.queues[0].tx_bursts[BURST] = frames / BURST as u64;
    }

    #[track_caller]
    fn expect(verdict: &Verdict, who: Who, evidence: &str) {
        assert_eq!(verdict.who, who, "{}", verdict.line());
        assert!(verdict.line().contains(evidence), "{}", verdict.line());
    }

    #[test]
    fn nothing_moved() {
        expect(&verdict(|_, _| {}), Who::CannotSay, "no frame");
    }

    #[test]
    fn a_core_that_is_late_is_the_generators() {
        let verdict = verdict(|port, _| {
            sent(port, 900_000);
            port.queues[0].behind = 90_000;
            port.queues[0].unsent = 10_000;
        });
        expect(&verdict, Who::Generator, "100000 (10.0 %) were not sent; 90000 of them were made too late");
    }

    #[test]
    fn a_device_without_room_is_the_drivers() {
        let verdict = verdict(|port, _| {
            sent(port, 900_000);
            port.queues[0].unsent = 100_000;
            port.queues[0].tx_bursts[0] = 5000;
        });
        expect(&verdict, Who::Driver, "it took nothing of 5000 of 33125 bursts, at 900 kpps");
    }

    #[test]
    fn a_little_short_is_within_what_a_rate_is_held() {
        let verdict = verdict(|port, marked| {
            sent(port, 997_000);
            port.queues[0].unsent = 3000;
            (marked.sent, marked.received) = (997_000, 997_000);
        });
        expect(&verdict, Who::Nobody, "997000");
    }

    #[test]
    fn a_full_link_is_named_whether_or_not_more_was_due() {
        for unsent in [0, 100_000] {
            let verdict = verdict(|port, _| {
                port.bits_per_second = Some(1_000_000_000);
                sent(port, 1_488_000);
                port.queues[0].unsent = unsent;
            });
            expect(&verdict, Who::Link, "of");
            assert!(verdict.line().contains("line rate"), "{}", verdict.line());
        }
    }

    #[test]
    fn an_xl710_ends_where_others_measured_it_and_only_there() {
        let at = |frames: u64, speed: u64| {
            verdict(|port, _| {
                port.driver = "dpdk";
                port.notes = vec!["the driver is DPDK's net_i40e".into()];
                port.bits_per_second = Some(speed);
                sent(port, frames);
                port.queues[0].unsent = frames / 10;
                port.queues[0].tx_bursts[0] = frames / 100;
            })
        };
        expect(&at(37_000_000, 40_000_000_000), Who::NicCeiling, "FD.io CSIT");
        // Far below it something else is short; a 10G port of the kind is limited by its link.
        expect(&at(20_000_000, 40_000_000_000), Who::Driver, "no room");
        expect(&at(14_800_000, 10_000_000_000), Who::Link, "line rate");
    }

    #[test]
    fn without_a_rate_the_device_that_refuses_bursts_is_the_limit() {
        let verdict = verdict(|port, marked| {
            sent(port, 1_000_000);
            port.queues[0].tx_bursts[0] = 20_000;
            (marked.sent, marked.received) = (1_000_000, 1_000_000);
        });
        expect(&verdict, Who::Driver, "took nothing of 20000 of 51250 bursts");
    }

    #[test]
    fn what_left_and_did_not_arrive_is_the_devices() {
        let verdict = verdict(|port, marked| {
            sent(port, 1_000_000);
            (marked.sent, marked.received, marked.missing) = (1_000_000, 999_000, 1000);
            // What `sim:` drops, the device drops.
            port.drops.add("sim_tx_queue_full", 1000);
        });
        expect(&verdict, Who::DeviceUnderTest, "1000 (0.10 %) did not arrive whole; our own ports dropped 0");
    }

    #[test]
    fn what_our_own_port_dropped_is_not_the_devices() {
        let dropped = |polls: fn(&mut QueueFigures)| {
            verdict(|port, marked| {
                sent(port, 1_000_000);
                (marked.sent, marked.received, marked.missing) = (1_000_000, 900_000, 100_000);
                port.drops.add("rx_ring_full", 80_000);
                polls(&mut port.queues[0]);
            })
        };
        expect(&dropped(|queue| queue.rx_bursts[0] = 1000), Who::Driver, "rx_ring_full 80000");
        expect(
            &dropped(|queue| queue.rx_bursts[BURST] = 1000),
            Who::Core,
            "1000 of 1000 polls found a full burst",
        );
    }

    #[test]
    fn a_receiver_with_time_left_is_in_nobodys_way() {
        let receiving = |nothing: u64, some: u64, full: u64| {
            verdict(|port, _| {
                port.queues[0].rx_frames = some * 5 + full * 32;
                let bursts = &mut port.queues[0].rx_bursts;
                (bursts[0], bursts[5], bursts[BURST]) = (nothing, some, full);
            })
        };
        expect(&receiving(5000, 5000, 0), Who::Nobody, "50.0 % of the polls found nothing");
        expect(&receiving(0, 0, 1000), Who::Core, "full burst");
        expect(&receiving(0, 1000, 0), Who::CannotSay, "rarely idle");
    }
}
