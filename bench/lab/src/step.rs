//! Steps: named, timed, each with a log of its own and a time limit; and the run over them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::fault::{Context, Fault, Result};
use crate::host::Host;
use crate::log::Log;

/// One check.
pub struct Step {
    /// `group/name`; naming the group runs all of it.
    pub name: &'static str,
    /// What holds when it passes.
    pub about: &'static str,
    /// What it may take.
    pub limit: Duration,
    /// Does it.
    pub run: fn(&Cx<'_>) -> Result,
}

impl Step {
    /// A step that may take so many minutes.
    pub const fn new(name: &'static str, minutes: u64, run: fn(&Cx<'_>) -> Result) -> Step {
        Step { name, about: "", limit: Duration::from_secs(60 * minutes), run }
    }

    /// What holds when it passes.
    pub const fn about(self, about: &'static str) -> Step {
        Step { about, ..self }
    }

    /// Whether `word` asks for this step: its name, its group, or what is behind the slash.
    pub fn is_meant_by(&self, word: &str) -> bool {
        self.name == word || self.name.split('/').any(|part| part == word)
    }
}

/// What a step works with.
pub struct Cx<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The step's log.
    pub log: Log,
    /// The step's folder, empty at its start and kept after it: logs, captures, configurations.
    pub dir: PathBuf,
    limit: Duration,
    begun: Instant,
}

impl<'a> Cx<'a> {
    /// Empties the folder of the step `name` and starts its log.
    pub fn new(host: &'a Host, name: &str, limit: Duration) -> Result<Cx<'a>> {
        let dir = host.work.join("logs").join(name.replace('/', "-"));
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("empty {}", dir.display()))
            }
            _ => Ok(()),
        }?;
        let log = Log::create(&dir.join("log"))?;
        Ok(Cx { host, log, dir, limit, begun: Instant::now() })
    }

    /// An error once the step is to stop.
    pub fn check(&self) -> Result {
        self.host.check()?;
        if self.begun.elapsed() > self.limit { Err(Fault::StepTimedOut(self.limit)) } else { Ok(()) }
    }

    /// What is left of the step's time, at most `limit`.
    pub fn limit(&self, limit: Duration) -> Duration {
        limit.min(self.limit.saturating_sub(self.begun.elapsed()))
    }

    /// Tries `probe` until it yields something, for at most `limit`.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let until = Instant::now() + limit;
        loop {
            self.check()?;
            if let Some(value) = probe()? {
                return Ok(value);
            }
            if Instant::now() > until {
                return Err(Fault::Check(format!("waited {} s in vain: {what}", limit.as_secs_f32())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sleeps, unless the step is to stop.
    pub fn pause(&self, time: Duration) -> Result {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }
}

/// How a run went.
#[derive(Default)]
pub struct Tally {
    /// Steps that held.
    pub passed: usize,
    /// Steps that did not, or were not reached.
    pub failed: usize,
}

/// Runs the steps in order and says how each went.
pub fn run_all(host: &Host, steps: &[&Step]) -> Tally {
    let mut tally = Tally::default();
    for (at, step) in steps.iter().enumerate() {
        if host.check().is_err() {
            tally.failed += steps.len() - at;
            println!("interrupted; {} steps were not reached", steps.len() - at);
            break;
        }
        if run(host, step) { tally.passed += 1 } else { tally.failed += 1 }
    }
    tally
}

fn run(host: &Host, step: &Step) -> bool {
    use std::io::Write;
    print!("{:<22} ", step.name);
    let _ = std::io::stdout().flush();
    let begun = Instant::now();
    let outcome = Cx::new(host, step.name, step.limit).and_then(|cx| {
        cx.log.line(format!("{}: {}", step.name, step.about));
        let result = catch_unwind(AssertUnwindSafe(|| (step.run)(&cx))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Fault::Check(format!("the check itself panicked: {text}")))
        });
        match &result {
            Ok(()) => cx.log.line("passed"),
            Err(fault) => cx.log.line(format!("FAILED: {fault}")),
        }
        result
    });
    let seconds = begun.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => println!("ok      {seconds:7.1} s"),
        Err(fault) => {
            let log = host.work.join("logs").join(step.name.replace('/', "-"));
            println!("FAILED  {seconds:7.1} s\n  {fault}\n  log: {}", log.join("log").display());
            return false;
        }
    }
    true
}
