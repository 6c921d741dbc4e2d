//! How many datagrams a second one core echoes over `memory:`, through the whole stack and the socket table.
//!
//! The generator is an engine of its own with a raw handler. It keeps a window of 64-byte frames (60 without FCS) in flight and checks
//! that each frame that comes back is the answer to what it sent. `udp_echo_memory [same|apart] [SECONDS] [WINDOW]`: both on one CPU and
//! one polling thread, so that the figure includes the generator's cost, or each on its own CPU, so that it includes moving
//! every cache line between the CPUs.

use std::time::Duration;

use engine::pmd::Burst;
use engine::{BURST, Cx, Datagram, Engine, Handler, Outcome, Socket};

const SERVER: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 2];
const CLIENT_PORT: u16 = 40_000;
const FRAME: usize = 60;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |n: usize| std::env::args().nth(n);
    let apart = argument(1).is_some_and(|how| how == "apart");
    let seconds = argument(2).map_or(Ok(3), |text| text.parse())?;
    let window = argument(3).map_or(Ok(256), |text| text.parse())?;
    let cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let serving = *cpus.first().ok_or("no CPU")?;
    let generating = if apart { *cpus.last().ok_or("no CPU")? } else { serving };

    let server = Engine::builder().port("memory:echo").address("192.0.2.1/24").cores([serving]).start()?;
    let _echo = server.udp().serve("192.0.2.1:7".parse()?, |cx, _, datagram| {
        match cx.send(datagram.local, datagram.peer, datagram.payload) {
            Ok(()) => Outcome::Delivered,
            Err(reason) => Outcome::Dropped(reason),
        }
    })?;
    let port = engine::pmd::open("memory:echo", &Default::default())?;
    let (client_mac, server_mac) = (port.info().mac.0, server.ports()[0].mac.0);
    let client = Engine::builder().open_port(port).cores([generating]).start_with(move |core| Generator {
        request: request(server_mac, client_mac),
        mac: client_mac,
        in_flight: 0,
        heard: core.now,
        window,
        burst: Burst::new(),
    })?;
    std::thread::sleep(Duration::from_millis(300));
    let (before, start) = (server.stats().ledger(), std::time::Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (after, elapsed) = (server.stats().ledger(), start.elapsed().as_secs_f64());
    let rate = (after.delivered - before.delivered) as f64 / elapsed / 1e6;
    println!("{rate:.2} Mpps echoed, generator {}", if apart { "on another CPU" } else { "on the same CPU" });
    let reports = [client.shutdown(), server.shutdown()];
    for report in &reports {
        println!("{}", report.stats.ledger());
        report.leaks().iter().for_each(|leak| println!("LEAK: {leak}"));
    }
    Ok(())
}

struct Generator {
    request: [u8; FRAME],
    mac: [u8; 6],
    in_flight: usize,
    /// When something last came back: what is lost does not come back, so the window opens anew after a while.
    heard: engine::Instant,
    window: usize,
    burst: Burst,
}

impl Handler for Generator {
    type Command = ();
    const RAW: bool = true;

    fn raw(&mut self, cx: &mut Cx<'_>, _: usize, burst: &mut Burst) {
        self.heard = cx.now;
        for mut frame in burst.drain(..) {
            let data = frame.data_mut();
            if data[12..14] == [8, 6] {
                self.answer_arp(cx, &data[..42]);
                continue;
            }
            if data[12..14] != [8, 0] {
                // The server announces its IPv6 address.
                continue;
            }
            assert_eq!(data[36..38], CLIENT_PORT.to_be_bytes(), "not an echo: {data:x?}");
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    fn transmit(&mut self, cx: &mut Cx<'_>) {
        if cx.now - self.heard > Duration::from_millis(100) {
            (self.in_flight, self.heard) = (0, cx.now);
        }
        let wanted = self.window.saturating_sub(self.in_flight).min(BURST);
        self.in_flight += cx.pool.alloc_burst(&mut self.burst, wanted);
        for frame in &mut self.burst {
            if let Some(bytes) = frame.append(FRAME) {
                bytes.copy_from_slice(&self.request);
            }
        }
        cx.send_burst(0, &mut self.burst);
    }

    fn input(&mut self, _: &mut Cx<'_>, _: &Socket, _: Datagram) -> Outcome {
        unreachable!("a raw handler is given no datagrams")
    }

    fn command(&mut self, _: &mut Cx<'_>, (): ()) {}
}

impl Generator {
    /// Sends the answer.
    fn answer_arp(&mut self, cx: &mut Cx<'_>, question: &[u8]) {
        let mut reply = [0; 42];
        reply.copy_from_slice(question);
        reply[..6].copy_from_slice(&question[6..12]);
        reply[6..12].copy_from_slice(&self.mac);
        reply[21] = 2;
        reply[22..28].copy_from_slice(&self.mac);
        reply[28..32].copy_from_slice(&CLIENT);
        reply[32..42].copy_from_slice(&question[22..32]);
        if let Some(reply) = cx.pool.copy_from(&reply) {
            cx.send_frame(0, reply);
        }
    }
}

/// A UDP datagram from the client's port to port 7, checksums filled in.
fn request(server: [u8; 6], client: [u8; 6]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&server);
    frame[6..12].copy_from_slice(&client);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip_len = (FRAME - 14) as u16;
    frame[14..18].copy_from_slice(&[0x45, 0, (ip_len >> 8) as u8, ip_len as u8]);
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..30].copy_from_slice(&CLIENT);
    frame[30..34].copy_from_slice(&SERVER);
    frame[34..36].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    frame[36..38].copy_from_slice(&7u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
    let checksum = fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&checksum);
    let checksum = fold(sum(&frame[26..]) + 17 + u32::from(ip_len - 20));
    frame[40..42].copy_from_slice(&checksum);
    frame
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn fold(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}
