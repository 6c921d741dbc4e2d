//! `rxline capture`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cli::{Exit, Live};
use control::protocol::RefusalCode;
use control::{AskArgs, AskError, Asker, CaptureStarted, CaptureWish};

use crate::pcapng::{Figures, PcapngFile};

/// How long nothing is asked for when nothing came.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the figures on the terminal change, and what was written is flushed.
const REPORT: Duration = Duration::from_millis(500);

/// Write frames of a running rxline to a pcapng file, with the reason of each that it drops
///
/// Shows what the process itself received, sent and threw away, also where tcpdump sees nothing: on DPDK, memif and native
/// drivers. Each frame appears once; one that was dropped has the reason as its comment (Wireshark: `frame.comment`).
/// Cores never wait for a capture: what does not fit into a core's ring (4 MiB) is counted as missed, here and in the file's
/// interface statistics. It ends with --count, --seconds, Ctrl-C, or the process.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the engine, where the process has several: `rxline top` shows them
    engine: Option<String>,

    #[command(flatten)]
    ask: AskArgs,

    /// Only this port: its URL, or its number from 0
    #[arg(long, value_name = "N|URL")]
    port: Option<String>,

    /// Only these frames; see below
    #[arg(long, value_name = "EXPR", value_parser = filter)]
    filter: Option<String>,

    /// Frames that were received and not dropped. Without --rx, --tx and --drops: all three
    #[arg(long)]
    rx: bool,

    /// Frames that were sent
    #[arg(long)]
    tx: bool,

    /// Frames that were dropped, and datagrams that were not sent, with the reason
    #[arg(long)]
    drops: bool,

    /// End after so many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after so many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// Bytes kept of each frame, 96 to 65535
    #[arg(long, value_name = "S", default_value_t = 65_535, value_parser = clap::value_parser!(u32).range(96..=65_535))]
    snaplen: u32,

    /// Where to; - for stdout, which is meant too if it is no terminal
    #[arg(short, long, value_name = "FILE|-")]
    output: Option<PathBuf>,

    /// No figures on stderr while it runs
    #[arg(long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Filters:
  [src|dst] host ADDRESS, [src|dst] net ADDRESS/BITS, [src|dst] port N, udp, tcp, icmp, icmp6, arp, ip, ip6,
  vlan [N], proto N, longer BYTES, shorter BYTES; joined by and, or, not and ( ). `and` binds closer than `or`.

Examples:
  rxline capture -o all.pcapng --seconds 10
  rxline capture --drops -o - | tshark -r - -T fields -e ip.src -e frame.comment
  rxline capture gateway --port af_packet:eth1 --filter 'host 192.0.2.7 and not port 7001' -o one.pcapng
  rxline capture --control /run/rxline/gateway-4711.sock --snaplen 128 --count 100000 -o head.pcapng

Exits 0 when the file is whole, 1 if frames were missed or somebody else captures, 2 for wrong arguments, 3 without a running rxline, or a place to write.";

fn filter(text: &str) -> Result<String, control::filter::FilterError> {
    text.parse::<control::filter::Filter>().map(|_| text.to_owned())
}

/// Captures until the end.
pub fn run(args: Args) -> ExitCode {
    let stdout = Path::new("-");
    let path = match &args.output {
        Some(path) => path.as_path(),
        None if io::stdout().is_terminal() => {
            return Exit::Usage.because("capture", "stdout is a terminal: give a file with -o FILE");
        }
        None => stdout,
    };
    let mut asker = match Asker::find(args.ask.control.as_deref()) {
        Ok(asker) => asker,
        Err(error) => return refused(error),
    };
    let started = match asker.capture(args.wish()) {
        Ok(started) => started,
        Err(error) => return refused(error),
    };
    let to: Box<dyn Write> = if path == stdout {
        Box::new(io::stdout())
    } else {
        match File::create(path) {
            Ok(file) => Box::new(file),
            Err(error) => {
                return Exit::Environment.because("capture", format_args!("{}: {error}", path.display()));
            }
        }
    };
    match write(&args, &mut asker, &started, BufWriter::new(to)) {
        Ok(figures) => {
            if !args.quiet {
                eprintln!("{}", summary(&started, figures));
            }
            if figures.missed == 0 { Exit::Ok.into() } else { Exit::Failed.into() }
        }
        Err(End::Ask(error)) => refused(error),
        Err(End::Write(error)) => {
            Exit::Environment.because("capture", format_args!("{}: {error}", path.display()))
        }
    }
}

fn refused(error: AskError) -> ExitCode {
    let exit = match &error {
        AskError::Refused { refusal, .. } => match refusal.code {
            RefusalCode::BadRequest => Exit::Usage,
            RefusalCode::NotAllowed => Exit::Environment,
            _ => Exit::Failed,
        },
        _ => Exit::Environment,
    };
    exit.because("capture", error)
}

/// Why it ended early.
enum End {
    Ask(AskError),
    Write(io::Error),
}

impl Args {
    fn wish(&self) -> CaptureWish {
        let all = !(self.rx || self.tx || self.drops);
        CaptureWish {
            engine: self.engine.clone(),
            port: self.port.clone(),
            received: self.rx || all,
            sent: self.tx || all,
            drops: self.drops || all,
            snaplen: self.snaplen as usize,
            filter: self.filter.clone(),
        }
    }
}

fn write(args: &Args, asker: &mut Asker, started: &CaptureStarted, to: impl Write) -> Result<Figures, End> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(End::Write)?;
    }
    let mut file = PcapngFile::new(to, started, args.filter.as_deref()).map_err(End::Write)?;
    file.flush().map_err(End::Write)?;
    let mut live = Live::new(args.quiet || !io::stderr().is_terminal());
    let begun = Instant::now();
    let mut report_at = begun + REPORT;
    loop {
        let stop = interrupted.load(Ordering::Relaxed)
            || args.seconds.is_some_and(|seconds| begun.elapsed() >= Duration::from_secs(seconds));
        let page = match asker.captured() {
            Ok(page) => page,
            // The process has ended: what was written is whole.
            Err(AskError::Lost { .. }) => break,
            Err(error) => return Err(End::Ask(error)),
        };
        let left = args.count.map_or(u64::MAX, |count| count - file.figures().frames().min(count));
        if let Err(error) = file.write(&page, left) {
            // A reader that has enough (`| head`) is no failure.
            return if is_gone(&error) { Ok(file.figures()) } else { Err(End::Write(error)) };
        }
        let now = Instant::now();
        if now >= report_at {
            report_at = now + REPORT;
            live.show(&summary(started, file.figures()));
            match file.flush() {
                Err(error) if is_gone(&error) => return Ok(file.figures()),
                flushed => flushed.map_err(End::Write)?,
            }
        }
        let enough = args.count.is_some_and(|count| file.figures().frames() >= count);
        if stop || enough || page.over {
            break;
        }
        if page.frames.is_empty() {
            thread::sleep(PAUSE);
        }
    }
    let figures = file.figures();
    match file.finish() {
        Err(error) if is_gone(&error) => Ok(figures),
        finished => finished.map_err(End::Write),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

fn summary(started: &CaptureStarted, figures: Figures) -> String {
    let Figures { received, sent, dropped, not_sent, missed, frameless, unwanted } = figures;
    let mut text = format!(
        "{}: {} frames: {received} received, {sent} sent, {dropped} dropped, {not_sent} not sent",
        started.engine,
        figures.frames()
    );
    for (n, what) in [
        (missed, "missed"),
        (unwanted, "not wanted by the filter"),
        (frameless, "drops without a frame to show"),
    ] {
        if n > 0 {
            text += &format!("; {n} {what}");
        }
    }
    text
}
