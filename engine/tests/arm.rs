//! A frame that comes while a core goes to sleep: the queue says so when it is armed, and no file descriptor will ever tell. A process of its
//! own: cores of other tests would keep the thread awake.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use engine::pmd::{
    Capabilities, LinkState, MacAddr, PoolHandle, Port, PortError, PortInfo, PortStats, Queue, QueueStats,
};
use engine::{Burst, Cx, Datagram, Engine, Handler, Idle, Outcome, Pool, Socket};
use rustix::event::{EventfdFlags, eventfd};

/// What the test and the device share.
#[derive(Default)]
struct Device {
    waiting: AtomicU32,
    arms: AtomicU32,
    disarms: AtomicU32,
}

struct ModelPort(Arc<Device>, Arc<OwnedFd>);

/// A frame arrives with the first call of `arm`, as it may on a wire: after the last look, before the sleep.
struct ModelQueue(Arc<Device>, Arc<OwnedFd>);

impl Port for ModelPort {
    fn info(&self) -> PortInfo {
        PortInfo {
            url: "model".into(),
            driver: "model",
            mac: MacAddr::local_from("model"),
            mtu: 1500,
            queues_max: 1,
            speed_mbps: None,
            capabilities: Capabilities { wait_fd: true, ..Capabilities::default() },
            address_bits: 64,
            notes: Vec::new(),
        }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        assert_eq!(pools.len(), 1);
        Ok(vec![Box::new(ModelQueue(self.0.clone(), self.1.clone()))])
    }

    fn link(&self) -> LinkState {
        LinkState::Up
    }

    fn stats(&self) -> PortStats {
        PortStats::default()
    }
}

impl Queue for ModelQueue {
    fn rx_burst(&mut self, _now: engine::Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        if self.0.waiting.swap(0, SeqCst) == 0 {
            return 0;
        }
        burst.push(pool.copy_from(&[7; 60]).unwrap());
        1
    }

    fn tx_burst(&mut self, _now: engine::Instant, burst: &mut Burst) -> usize {
        let n = burst.len();
        burst.clear();
        n
    }

    fn arm(&mut self) -> bool {
        if self.0.arms.fetch_add(1, SeqCst) == 0 {
            self.0.waiting.store(1, SeqCst);
        }
        self.0.waiting.load(SeqCst) == 0
    }

    fn disarm(&mut self) {
        self.0.disarms.fetch_add(1, SeqCst);
        let _ = rustix::io::read(&*self.1, &mut [0; 8]);
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some((*self.1).as_fd())
    }

    fn stats(&self) -> QueueStats {
        QueueStats::default()
    }
}

struct Teller(mpsc::Sender<usize>);

impl Handler for Teller {
    type Command = ();
    const RAW: bool = true;

    fn raw(&mut self, _cx: &mut Cx<'_>, _port: usize, burst: &mut Burst) {
        self.0.send(burst.drain(..).count()).unwrap();
    }

    fn input(&mut self, _cx: &mut Cx<'_>, _socket: &Socket, _datagram: Datagram) -> Outcome {
        unreachable!("a raw handler gets frames")
    }

    fn command(&mut self, _cx: &mut Cx<'_>, (): ()) {}
}

#[test]
fn a_frame_that_races_with_going_to_sleep_is_not_slept_on() {
    let (device, fd) = (Arc::new(Device::default()), Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap()));
    let (told, frames) = mpsc::channel();
    let engine = Engine::builder()
        .open_port(Box::new(ModelPort(device.clone(), fd.clone())))
        .idle(Idle::Sleep { spins: 3, pauses: 3 })
        .start_with(move |_| Teller(told.clone()))
        .unwrap();
    assert_eq!(frames.recv_timeout(Duration::from_secs(20)), Ok(1), "the core slept on a frame that waited");

    // Now nothing waits, so it sleeps for good; a frame of which the descriptor tells wakes it.
    let stats = || engine.stats().cores[0].clone();
    let deadline = Instant::now() + Duration::from_secs(20);
    while stats().sleeps > 0 || device.arms.load(SeqCst) < 2 {
        assert!(Instant::now() < deadline, "it never went to sleep");
        thread::sleep(Duration::from_millis(1));
    }
    // `sleeps` counts on waking, and turns stand still meanwhile.
    let before = stats().turns;
    thread::sleep(Duration::from_millis(100));
    assert_eq!(stats().turns, before, "a core asleep turns");
    device.waiting.store(1, SeqCst);
    rustix::io::write(&*fd, &1u64.to_ne_bytes()).unwrap();
    assert_eq!(frames.recv_timeout(Duration::from_secs(20)), Ok(1), "the descriptor did not wake it");

    // Each arm was followed by a disarm, the last of which comes with the end.
    let report = engine.shutdown();
    assert_eq!(report.leaks(), Vec::<String>::new());
    assert!(report.stats.cores[0].sleeps >= 1);
    assert!(device.disarms.load(SeqCst) >= device.arms.load(SeqCst));
}
