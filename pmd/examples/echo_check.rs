//! Sends numbered frames to a peer that sends them back, on any port, and looks at each that returns: in order on its queue, every byte
//! as it was, but for the addresses, which the peer may swap.
//!
//! `cargo run --release -p pmd --example echo_check -- URL [frames=N] [queues=N] [mtu=N] [window=N] [passes=N]`. With several passes, the
//! peer has to go and to come back between them. Prints a line a pass; ends with 1 when anything is missing or wrong.

use std::process::ExitCode;
use std::time::{Duration, Instant as Wall};

use pmd::{Burst, Clock, LinkState, Mbuf, OpenOptions, Pool, PoolConfig, Port, Queue};

/// How long to wait for a peer, and for the next frame.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ethertype for local experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

struct Options {
    url: String,
    frames: usize,
    queues: usize,
    mtu: usize,
    window: usize,
    passes: usize,
}

impl Options {
    fn read() -> Option<Options> {
        let mut words = std::env::args().skip(1);
        let url = words.next()?;
        let mut options = Options { url, frames: 50_000, queues: 1, mtu: 1500, window: 256, passes: 1 };
        for word in words {
            let (key, value) = word.split_once('=')?;
            let place = match key {
                "frames" => &mut options.frames,
                "queues" => &mut options.queues,
                "mtu" => &mut options.mtu,
                "window" => &mut options.window,
                "passes" => &mut options.passes,
                _ => return None,
            };
            *place = value.parse().ok()?;
        }
        Some(options)
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::read() else {
        eprintln!("usage: echo_check URL [frames=N] [queues=N] [mtu=N] [window=N] [passes=N]");
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let config = PoolConfig::new("echo", 16_384);
    let mut pool = config.build().map_err(|error| error.to_string())?.claim();
    let capacity = pool.capacity();
    let open = OpenOptions { queues: options.queues, mtu: Some(options.mtu), ..OpenOptions::default() };
    let mut port = pmd::open(&options.url, &open).map_err(|error| error.to_string())?;
    let pools = vec![pool.handle(); options.queues];
    let mut queues = port.open_queues(&pools).map_err(|error| error.to_string())?;
    for pass in 1..=options.passes {
        wait_for(&*port, LinkState::Up)?;
        let mut flows: Vec<Flow> =
            (0..options.queues).map(|queue| Flow { queue, sent: 0, returned: 0 }).collect();
        let done = |flows: &[Flow]| flows.iter().map(|flow| flow.returned).sum::<usize>();
        let (begun, mut last) = (Wall::now(), Wall::now());
        while done(&flows) < options.frames * options.queues {
            let before = done(&flows);
            for (flow, queue) in flows.iter_mut().zip(&mut queues) {
                flow.send(&mut **queue, &mut pool, options);
                flow.receive(&mut **queue, &mut pool, options)?;
            }
            if done(&flows) > before {
                last = Wall::now();
            } else if last.elapsed() > PATIENCE {
                return Err(format!("pass {pass}: nothing returns any more: {flows:?}; {:?}", port.stats()));
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!("pass={pass} sent={0} returned={0} seconds={seconds:.2}", done(&flows));
        if pool.available() != capacity {
            return Err(format!("{} buffers are not home", capacity - pool.available()));
        }
        if pass < options.passes {
            wait_for(&*port, LinkState::Down)?;
        }
    }
    println!("stats={:?}", port.stats());
    Ok(())
}

fn wait_for(port: &dyn Port, link: LinkState) -> Result<(), String> {
    let begun = Wall::now();
    while port.link() != link {
        if begun.elapsed() > PATIENCE {
            return Err(format!("the link is not {link:?} after {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The frames of one queue.
#[derive(Debug)]
struct Flow {
    queue: usize,
    sent: usize,
    returned: usize,
}

impl Flow {
    fn send(&mut self, queue: &mut dyn Queue, pool: &mut Pool, options: &Options) {
        let mut burst = Burst::new();
        while !burst.is_full()
            && self.sent + burst.len() < options.frames
            && self.sent + burst.len() - self.returned < options.window
        {
            let number = self.sent + burst.len();
            let Some(mbuf) = pool.copy_from(&self.frame(number, options.mtu)) else { break };
            burst.push(mbuf);
        }
        self.sent += queue.tx_burst(Clock::now(), &mut burst);
    }

    fn receive(&mut self, queue: &mut dyn Queue, pool: &mut Pool, options: &Options) -> Result<(), String> {
        let mut burst = Burst::new();
        queue.rx_burst(Clock::now(), pool, &mut burst);
        for mbuf in burst {
            let (got, wanted) = (bytes(&mbuf), self.frame(self.returned, options.mtu));
            if got.get(12..14) != Some(&ETHERTYPE) {
                continue; // somebody else's
            }
            let swapped = [&wanted[6..12], &wanted[..6], &wanted[12..]].concat();
            if got != wanted && got != swapped {
                let tell =
                    |bytes: &[u8]| format!("{} bytes {:02x?}", bytes.len(), &bytes[..bytes.len().min(24)]);
                let (got, wanted) = (tell(&got), tell(&wanted));
                return Err(format!(
                    "frame {} of queue {}: {got} instead of {wanted}",
                    self.returned, self.queue
                ));
            }
            self.returned += 1;
        }
        Ok(())
    }

    /// Frame `number`: of every length from 60 up to the MTU's, and its bytes follow from its number.
    fn frame(&self, number: usize, mtu: usize) -> Vec<u8> {
        let len = 60 + number * 37 % (mtu + 14 - 59);
        let mut frame = vec![0x02, 0, 0, 0, 0, self.queue as u8, 0x02, 0, 0, 0, 1, self.queue as u8];
        frame.extend(ETHERTYPE);
        frame.extend((number as u64).to_be_bytes());
        frame.extend((frame.len()..len).map(|i| (i * 7 + number * 13) as u8));
        frame
    }
}

fn bytes(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}
