//! What every driver must do on a NIC in a guest, asked on its cable.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pmd::{Rss, Toeplitz};

use super::forward::{Checksums, Forward};

use crate::fault::{Fault, Result, ensure};
use crate::guest::echo::{Echoes, Load, echo};
use crate::guest::wire::{FRAME_MAX, Wire};
use crate::guest::{Guest, mac};
use crate::step::Cx;

/// One NIC of a guest, the driver that has it, and the end of its cable.
pub struct Nic<'g, 'c> {
    cx: &'c Cx<'c>,
    guest: &'g mut Guest<'c>,
    wire: Wire,
    index: usize,
    url: String,
}

/// The kernel's drivers look at a link that went down within two seconds.
const NOTICED: Duration = Duration::from_millis(2500);
/// Frames of each kind in [`Nic::offloads`]: tagged, ordinary, with a wrong checksum.
pub const EACH: u64 = 500;

impl<'g, 'c> Nic<'g, 'c> {
    /// NIC `index`, as forward is to open it.
    pub fn new(
        cx: &'c Cx<'c>,
        guest: &'g mut Guest<'c>,
        index: usize,
        url: impl Into<String>,
    ) -> Nic<'g, 'c> {
        let wire = guest.wire(index);
        Nic { cx, guest, wire, index, url: url.into() }
    }

    fn forward(&mut self, name: &str, words: &str) -> Result<Forward> {
        Forward::start(self.cx, self.guest, name, &format!("{} {words}", self.url))
    }

    fn load(&self, frames: u64) -> Load {
        Load { frames, ..Load::short(mac(self.index)) }
    }

    fn echo(&self, load: &Load) -> Result<Echoes> {
        echo(self.cx, &self.wire, load)
    }

    /// Frames there and back, and the driver's counters say so.
    pub fn echoes(&mut self, frames: u64) -> Result {
        let forward = self.forward("echoes", "")?;
        self.echo(&self.load(frames))?.must_be_complete()?;
        let report = forward.stop(self.guest)?;
        ensure!(report.up == [true], "the port's link is down, and yet frames pass");
        let counted = &report.ports[0];
        let right = counted.rx_frames == frames && counted.tx_frames == frames;
        ensure!(right, "{frames} frames went in and out, and the port counted {counted:?}");
        Ok(())
    }

    /// Flows spread over `queues`: evenly, and each frame to the queue that software foretells.
    pub fn spread(&mut self, queues: usize) -> Result {
        let forward = self.forward("spread", &format!("--queues {queues}"))?;
        let load = Load { frames_per_flow: 2, ..self.load(20_000) };
        self.echo(&load)?.must_be_complete()?;
        let report = forward.stop(self.guest)?;
        let counted: Vec<u64> = report.queues.iter().map(|queue| queue.ports[0].rx_frames).collect();
        let rss = report.rss[0].as_ref();
        let rss =
            rss.ok_or_else(|| Fault::Check("the port does not say how it chooses a queue".into()))?.rss()?;
        let foretold = foretell(&rss, &load, queues);
        self.cx.log.line(format!("frames by queue: {counted:?}; foretold: {foretold:?}"));
        even(&counted, 0.10)?;
        ensure!(counted == foretold, "the queues got {counted:?} frames, and {foretold:?} were foretold");
        Ok(())
    }

    /// The cable is pulled and plugged: nothing passes, then everything does again; and the port says so.
    pub fn cable(&mut self) -> Result {
        let forward = self.forward("cable", "")?;
        self.echo(&self.load(500))?.must_be_complete()?;
        self.guest.set_link(self.index, false)?;
        let pulled = self.echo(&Load { silence: NOTICED, ..self.load(500) })?;
        ensure!(pulled.returned + pulled.damaged == 0, "frames came over a pulled cable: {pulled:?}");
        self.guest.set_link(self.index, true)?;
        self.answers()?;
        self.echo(&self.load(500))?.must_be_complete()?;
        self.guest.set_link(self.index, false)?;
        self.cx.pause(NOTICED)?;
        let report = forward.stop(self.guest)?;
        self.guest.set_link(self.index, true)?;
        ensure!(report.up == [false], "the cable is pulled, and the port's link is up");
        Ok(())
    }

    /// With nothing to do it sleeps, and a frame wakes it at once.
    pub fn sleeps(&mut self) -> Result {
        /// A thread that nothing wakes looks by itself after 100 ms.
        const WOKEN: Duration = Duration::from_millis(50);
        let forward = self.forward("sleeps", "--idle sleep")?;
        self.echo(&self.load(500))?.must_be_complete()?;
        let before = forward.cpu_seconds(self.guest)?;
        let begun = Instant::now();
        self.cx.pause(Duration::from_secs(2))?;
        let busy = (forward.cpu_seconds(self.guest)? - before) / begun.elapsed().as_secs_f64();
        let mut delays: Vec<Duration> = (0..21).map(|number| self.wake(number)).collect::<Result<_>>()?;
        delays.sort();
        let middle = delays[delays.len() / 2];
        self.cx.log.line(format!("asleep it used {busy:.3} of a CPU; woken within {delays:?}"));
        ensure!(busy < 0.25, "with nothing to do it used {busy:.2} of a CPU");
        ensure!(middle < WOKEN, "a frame for a sleeping thread came back after {middle:?}");
        self.echo(&self.load(5_000))?.must_be_complete()?;
        let report = forward.stop(self.guest)?;
        ensure!(report.sleeps > 21, "it slept {} times", report.sleeps);
        Ok(())
    }

    /// One frame, while the thread sleeps: how long until it is back.
    fn wake(&self, number: u64) -> Result<Duration> {
        self.cx.pause(Duration::from_millis(20))?;
        let load = self.load(1);
        let mut frame = vec![0; FRAME_MAX];
        let begun = Instant::now();
        ensure!(self.wire.send(&load.frame(number))?, "the NIC has no room for a frame");
        let back = self.wire.receive(&mut frame, Duration::from_secs(1))?;
        ensure!(back.is_some(), "a frame for a sleeping thread did not come back");
        Ok(begun.elapsed())
    }

    /// Killed in the middle of a load, and started again.
    pub fn killed(&mut self) -> Result {
        let forward = self.forward("killed", "")?;
        let load = self.load(300);
        self.echo(&load)?.must_be_complete()?;
        for number in 0..load.window {
            self.wire.send(&load.frame(number))?;
        }
        forward.kill(self.guest)?;
        let forward = self.forward("again", "")?;
        self.answers()?;
        self.echo(&self.load(5_000))?.must_be_complete()?;
        forward.stop(self.guest).map(drop)
    }

    /// Tags come back; right checksums are told from wrong ones. What was counted. `options` go behind the URL.
    pub fn offloads(&mut self, options: &str) -> Result<(u64, Checksums)> {
        let words = format!("{}{options}", self.url);
        let forward = Forward::start(self.cx, self.guest, "offloads", &words)?;
        let tagged = Load { tag: Some(0x6123), ..self.load(EACH) };
        self.echo(&tagged)?.must_be_complete()?;
        let load = self.load(EACH);
        self.echo(&load)?.must_be_complete()?;
        let wrong = Load { wrong: true, ..load };
        self.echo(&wrong)?.must_be_complete()?;
        let report = forward.stop(self.guest)?;
        let queue = &report.queues[0];
        self.cx.log.line(format!("{} tags taken off, checksums: {:?}", queue.vlans, queue.checksums));
        Ok((queue.vlans, queue.checksums))
    }

    /// Waits until a frame comes back at all: a link that was down comes up in its own time.
    fn answers(&self) -> Result {
        let load = Load { silence: Duration::from_millis(300), ..self.load(8) };
        self.cx.wait_for("frames come back", Duration::from_secs(15), || {
            Ok((self.echo(&load)?.returned > 0).then_some(()))
        })
    }
}

/// Frames of each queue, by the hash in software.
fn foretell(rss: &Rss, load: &Load, queues: usize) -> Vec<u64> {
    let hash = Toeplitz::new(&rss.key);
    let mut counts = vec![0; queues];
    for number in 0..load.frames {
        let (source, destination, from, to) = Load::tuple(load.flow(number));
        let (peer, local) = (SocketAddr::from((source, from)), SocketAddr::from((destination, to)));
        counts[rss.queue(hash.hash(peer, local, rss.udp_ports))] += 1;
    }
    counts
}

/// Each within a share of the mean.
fn even(counts: &[u64], share: f64) -> Result {
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let off = counts.iter().find(|count| (**count as f64 - mean).abs() > share * mean);
    ensure!(mean > 0.0 && off.is_none(), "the queues do not share evenly: {counts:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uneven_share_is_noticed() {
        even(&[1000, 1090, 910, 1000], 0.10).unwrap();
        assert!(even(&[1000, 1120, 880, 1000], 0.10).is_err());
        assert!(even(&[4000, 0, 0, 0], 0.10).is_err());
        assert!(even(&[0, 0], 0.10).is_err());
    }

    #[test]
    fn the_load_spreads_evenly_over_four_queues_with_any_key() {
        let load = Load { frames: 20_000, frames_per_flow: 2, ..Load::short([2; 6]) };
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let rss = Rss::spread(pmd::rss_key(|| random.u64(..)), 4);
            let counts = foretell(&rss, &load, 4);
            even(&counts, 0.10).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        }
    }
}
