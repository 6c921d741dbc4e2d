//! Puts a run together from what was asked for.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use pmd::Clock;
use rxperf::Work;

use crate::Trouble;
use crate::args::{LoadArgs, ModeName, PairArgs, ServeArgs, ShapeArgs, Wait, Workload};
use crate::arm::{Arm, Kernel};
use crate::figures::{Arms, Loaded, Paired, Probed, Served};
use crate::generator::{Mode, Plan};
use crate::loading::{self, Load, Measured, drive};
use crate::rx::{self, RxLoad};
use crate::serving::{Server, Threads, pin, watch};
use crate::stop::{SetOnDrop, Stop};
use crate::udp::{self, UdpLoad};
use crate::wire::{self, Bind, PAYLOAD_MAX, Wire};
use crate::{engines, meter};

/// The memory wire's addresses.
const PAIR_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PAIR_CLIENT: &str = "192.0.2.2/24";
/// A call has failed after so many times the patience for a datagram.
const CALL_PATIENCE: u32 = 100;

/// Serves until it shall stop.
pub fn serve(args: &ServeArgs, stop: &Stop, ready: impl FnOnce()) -> Result<Served, Trouble> {
    let server = start(args, stop)?;
    let at = Clock::now();
    ready();
    watch(server, args, at, stop)
}

fn start(args: &ServeArgs, stop: &Stop) -> Result<Box<dyn Server>, Trouble> {
    match &args.arm {
        Arm::Port(url) => engines::start(url, args),
        Arm::Kernel(kernel) if *kernel != Kernel::ReusePort && args.cpus.len() > 1 => Err(Trouble::Usage(
            format!("{} has one socket, on one CPU; several share a port with reuseport", kernel.name()),
        )),
        Arm::Kernel(_) => Ok(Box::new(Threads::start(args, stop)?)),
    }
}

/// Loads a server.
pub fn load(args: &LoadArgs, stop: &Stop) -> Result<Loaded, Trouble> {
    let shape = Shape::new(args.workload, &args.shape)?;
    check(args, &shape)?;
    let server = SocketAddrV4::new(args.server, args.udp_port);
    pin(args.cpu)?;
    let mut load = open(args, &shape, server)?;
    let measured = drive(&mut *load, shape.plan, &[args.cpu], stop)?;
    Ok(shape.loaded(args, measured))
}

fn check(args: &LoadArgs, shape: &Shape) -> Result<(), Trouble> {
    let usage = |what: &str| Err(Trouble::Usage(what.into()));
    match (&args.arm, args.workload) {
        (Arm::Port(_), Workload::Rx) if args.flows > 1 => {
            usage("Rx calls from several source ports need a load on the kernel's sockets: mmsg, say")
        }
        (Arm::Port(url), _) if args.address.is_none() => Err(Trouble::Usage(format!(
            "{url} has no address of its own: add --address, as in 198.18.0.11/24"
        ))),
        _ if args.wait == Wait::Sleep && (shape.plan.mode != Mode::Closed || args.flows > 1) => usage(
            "a load that sleeps can keep neither the times of an open loop nor several flows: --wait spin",
        ),
        _ => Ok(()),
    }
}

fn open(args: &LoadArgs, shape: &Shape, server: SocketAddrV4) -> Result<Box<dyn Load>, Trouble> {
    let (local, _) = wire::address(args.address.as_deref().unwrap_or("0.0.0.0"), 0)?;
    let lanes = if matches!(args.arm, Arm::Port(_)) { 1 } else { args.flows };
    let buffers = match (&args.arm, args.workload) {
        // Of a port, the device may hold a ring full of them.
        (Arm::Port(_), _) | (_, Workload::Rx) => rx::BUFFERS,
        (Arm::Kernel(_), Workload::Udp) => udp::BUFFERS,
    };
    let bind =
        Bind { arm: &args.arm, local, peer: Some(server), wait: args.wait, buffers, flows: args.flows };
    let wires = (0..lanes).map(|_| wire::open(&bind)).collect::<Result<Vec<Box<dyn Wire>>, _>>()?;
    let Shape { plan, work, .. } = *shape;
    Ok(match args.workload {
        Workload::Udp => Box::new(UdpLoad::new(wires, server.into(), work.request_bytes as usize, plan.seed)),
        Workload::Rx => {
            Box::new(RxLoad::new(wires, server, work, plan.in_flight, shape.call_patience, plan.seed))
        }
    })
}

/// Both sides on a `memory:` wire.
pub fn pair(args: &PairArgs, stop: &Stop) -> Result<Paired, Trouble> {
    let arm = Arm::Port(format!("memory:vs_kernel-{}", std::process::id()));
    let serve = ServeArgs {
        workload: args.workload,
        arm: arm.clone(),
        address: format!("{PAIR_SERVER}/24"),
        udp_port: rxperf::UDP_PORT,
        cpus: vec![args.server_cpu],
        wait: args.wait,
    };
    let server = start(&serve, stop)?;
    let ready = Clock::now();
    let load_args = LoadArgs {
        workload: args.workload,
        arm,
        server: PAIR_SERVER,
        udp_port: rxperf::UDP_PORT,
        address: Some(PAIR_CLIENT.into()),
        cpu: args.client_cpu,
        flows: 1,
        wait: if args.shape.mode == ModeName::Open { Wait::Spin } else { args.wait },
        shape: args.shape.clone(),
    };
    let server_stop = Stop::default();
    let loading = {
        let (stop, server_stop) = (stop.clone(), server_stop.clone());
        thread::spawn(move || {
            // However the load ends, the server does.
            let _server_stop = SetOnDrop(server_stop);
            load(&load_args, &stop)
        })
    };
    let served = watch(server, &serve, ready, &server_stop);
    let loaded = loading.join().map_err(|_| Trouble::Failed("the load panicked".into()))?;
    Ok(Paired { load: loaded?, server: served? })
}

/// Which ways of the kernel's there are here.
pub fn arms() -> Arms {
    let probe = |kernel: Kernel| {
        let arm = Arm::Kernel(kernel);
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let bind = Bind { arm: &arm, local, peer: None, wait: Wait::Sleep, buffers: udp::BUFFERS, flows: 1 };
        let why = wire::open(&bind).err().map(|trouble| trouble.to_string());
        Probed { arm: kernel.name().into(), available: why.is_none(), why }
    };
    Arms { arms: Kernel::ALL.map(probe).into() }
}

/// What is to be asked for.
struct Shape {
    plan: Plan,
    work: Work,
    call_patience: Duration,
    mode: ModeName,
    rate: Option<f64>,
}

impl Shape {
    fn new(workload: Workload, args: &ShapeArgs) -> Result<Shape, Trouble> {
        let (udp, bulk) = (workload == Workload::Udp, args.mode == ModeName::Bulk);
        let request = args.payload_bytes.unwrap_or(if udp && bulk { 1400 } else { 64 });
        let reply = match udp {
            true => request,
            false => args.reply_bytes.unwrap_or(if bulk { 1_000_000 } else { 64 }),
        };
        if udp && !(udp::PAYLOAD_MIN..=PAYLOAD_MAX).contains(&(request as usize)) {
            return Err(Trouble::Usage(format!(
                "--payload-bytes {request}: a datagram has {} to {PAYLOAD_MAX}",
                udp::PAYLOAD_MIN
            )));
        }
        let rate = args.rate.filter(|_| args.mode == ModeName::Open);
        let mode = match rate {
            Some(rate) if rate.is_finite() && (1e-3..=1e9).contains(&rate) => Mode::Open { rate },
            Some(rate) => {
                return Err(Trouble::Usage(format!(
                    "--rate {rate}: from 0.001 to a thousand million a second"
                )));
            }
            None => Mode::Closed,
        };
        let in_flight = match (args.in_flight, args.mode) {
            (_, ModeName::RoundTrip) => 1,
            (Some(in_flight), _) => in_flight,
            (None, ModeName::Open) => {
                if udp {
                    4096
                } else {
                    1024
                }
            }
            (None, ModeName::Closed) => 64,
            (None, ModeName::Bulk) => {
                if udp {
                    16
                } else {
                    2
                }
            }
        };
        let patience = Duration::from_millis(args.patience_ms);
        let plan = Plan {
            mode,
            in_flight,
            warm_up: seconds("--warm-up-seconds", args.warm_up_seconds)?,
            measure: seconds("--seconds", args.seconds)?,
            // A call says itself that it has failed.
            patience: udp.then_some(patience),
            connect: seconds("--connect-seconds", args.connect_seconds)?,
            seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        };
        let work = Work::rpc(request, reply);
        Ok(Shape { plan, work, call_patience: patience * CALL_PATIENCE, mode: args.mode, rate })
    }

    fn loaded(&self, args: &LoadArgs, measured: Measured) -> Loaded {
        let Measured { tally, cpu, machine } = measured;
        let (seconds, cpu_seconds) = (self.plan.measure.as_secs_f64(), cpu.as_secs_f64());
        let latency = loading::latency(&tally);
        Loaded {
            workload: args.workload,
            arm: args.arm.to_string(),
            mode: self.mode,
            wait: args.wait,
            payload_bytes: self.work.request_bytes,
            reply_bytes: self.work.reply_bytes,
            in_flight: self.plan.in_flight,
            flows: args.flows,
            seed: self.plan.seed,
            offered_per_second: self.rate,
            seconds,
            calls: tally.calls,
            calls_per_second: tally.calls as f64 / seconds,
            bytes_per_second: tally.bytes as f64 / seconds,
            unsent: tally.unsent,
            lost: tally.lost,
            errors: tally.errors,
            first_error: tally.first_error,
            latency,
            cpu_seconds,
            cpu_seconds_per_million_calls: meter::per_million(cpu_seconds, tally.calls),
            machine,
            cold_start_seconds: tally.first_answer.map_or(0.0, |at| (at - meter::executed()).as_secs_f64()),
        }
    }
}

/// A length of time from the command line: up to an hour.
fn seconds(name: &str, seconds: f64) -> Result<Duration, Trouble> {
    match seconds {
        0.0..=3600.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(Trouble::Usage(format!("{name} {seconds}: from 0 to 3600"))),
    }
}
