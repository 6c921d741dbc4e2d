//! Child processes: each in a group of its own, with a time limit, ended with everything it started.
//!
//! [`Cmd::run`] waits and captures; [`Cmd::run_to_log`] lets the child write into the step's log; [`Cmd::start`] leaves it
//! running until the [`Running`] goes. Deliberately absent: shells, except where a caller asks for one by name.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use crate::fault::{Context, Fault, Result, tail};
use crate::host::User;
use crate::pids;
use crate::step::Cx;

/// What a command may take when nobody says otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// A program, its arguments, and how long it may run.
#[derive(Clone)]
pub struct Cmd {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Vec<u8>,
    limit: Duration,
    quiet: bool,
}

/// What came of a program that ended by itself.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Cmd {
    /// A program without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        let argv = vec![program.as_ref().into()];
        Cmd { argv, env: Vec::new(), cwd: None, stdin: Vec::new(), limit: LIMIT, quiet: false }
    }

    /// From a line without quoting: words are separated by spaces.
    pub fn line(line: &str) -> Cmd {
        let mut words = line.split_whitespace();
        Cmd::new(words.next().unwrap_or_default()).args(words)
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.argv.push(arg.as_ref().into());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_os_string()));
        self
    }

    /// Puts words before the command: a program that runs it in some other way.
    pub fn under<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Cmd {
        self.argv.splice(0..0, words.into_iter().map(|word| word.as_ref().to_os_string()));
        self
    }

    /// The words of its command line.
    pub fn words(&self) -> &[OsString] {
        &self.argv
    }

    /// As an ordinary user without any privilege, and without a way to one.
    pub fn unprivileged(self, user: User) -> Cmd {
        let ids = [format!("--reuid={}", user.uid), format!("--regid={}", user.gid)];
        let rest = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"];
        self.under(rest).under(ids).under(["setpriv"])
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Cmd {
        self.env.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Where to run.
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Cmd {
        self.cwd = Some(dir.into());
        self
    }

    /// What it reads.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Cmd {
        self.stdin = text.into();
        self
    }

    /// What it may take.
    pub fn limit(mut self, limit: Duration) -> Cmd {
        self.limit = limit;
        self
    }

    /// Keeps the command and what it prints out of the log, for those that run by the hundred.
    pub fn quiet(mut self) -> Cmd {
        self.quiet = true;
        self
    }

    /// Runs it, whatever its status.
    pub fn run(&self, cx: &Cx<'_>) -> Result<Output> {
        if !self.quiet {
            cx.log.line(format!("$ {self}"));
        }
        let mut child = Group(self.spawn(Stdio::piped(), Stdio::piped())?);
        let readers = (read(child.0.stdout.take()), read(child.0.stderr.take()));
        let feeder = feed(child.0.stdin.take(), self.stdin.clone());
        let waited = self.wait(cx, &mut child.0);
        drop(child); // with whatever still holds the pipes
        let _ = feeder.join();
        let (stdout, stderr) = (join(readers.0), join(readers.1));
        if !self.quiet || !matches!(&waited, Ok(status) if status.success()) {
            cx.log.block(&stdout);
            cx.log.block(&stderr);
        }
        match waited {
            Ok(status) => {
                if !self.quiet && !status.success() {
                    cx.log.line(format!("ended with {}", words(status)));
                }
                Ok(Output { status, stdout, stderr })
            }
            Err(Fault::TimedOut { command, limit, .. }) => {
                let tail = tail(&format!("{stdout}{stderr}"), 15);
                Err(Fault::TimedOut { command, limit, tail })
            }
            Err(fault) => Err(fault),
        }
    }

    /// Runs it and wants status 0.
    pub fn ok(&self, cx: &Cx<'_>) -> Result<Output> {
        let output = self.run(cx)?;
        if output.status.success() {
            return Ok(output);
        }
        let tail = tail(&format!("{}{}", output.stdout, output.stderr), 15);
        Err(Fault::Status { command: self.to_string(), status: words(output.status), tail })
    }

    /// Runs it and wants status 0; what it prints goes into the log as it comes.
    pub fn run_to_log(&self, cx: &Cx<'_>) -> Result {
        cx.log.line(format!("$ {self}"));
        let (out, err) = (cx.log.file()?, cx.log.file()?);
        let from = file_len(cx.log.path());
        let mut child = Group(self.spawn(out.into(), err.into())?);
        let feeder = feed(child.0.stdin.take(), self.stdin.clone());
        let waited = self.wait(cx, &mut child.0);
        drop(child);
        let _ = feeder.join();
        let status = waited?;
        if status.success() {
            return Ok(());
        }
        let printed = read_from(cx.log.path(), from);
        Err(Fault::Status { command: self.to_string(), status: words(status), tail: tail(&printed, 30) })
    }

    /// Starts it; what it prints goes to `NAME.out` and `NAME.err` in the step's folder.
    pub fn start(&self, cx: &Cx<'_>, name: &str) -> Result<Running> {
        cx.log.line(format!("{name}: $ {self} &"));
        let (out, err) = (cx.dir.join(format!("{name}.out")), cx.dir.join(format!("{name}.err")));
        let create = |path: &Path| File::create(path).context(|| format!("create {}", path.display()));
        let mut child = self.spawn(create(&out)?.into(), create(&err)?.into())?;
        let pid_file = pids::remember(cx.host, child.id());
        drop(feed(child.stdin.take(), self.stdin.clone()));
        Ok(Running { name: name.into(), child, status: None, out, err, pid_file })
    }

    fn spawn(&self, out: Stdio, err: Stdio) -> Result<Child> {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env.iter().cloned()).process_group(0);
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        let stdin = if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.stdin(stdin).stdout(out).stderr(err);
        command.spawn().context(|| format!("start `{}`", self.argv[0].to_string_lossy()))
    }

    fn wait(&self, cx: &Cx<'_>, child: &mut Child) -> Result<ExitStatus> {
        let limit = cx.limit(self.limit);
        match wait(child, limit, || cx.host.check())? {
            Some(status) => Ok(status),
            None => Err(Fault::TimedOut { command: self.to_string(), limit, tail: String::new() }),
        }
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.argv.iter().map(|word| word.to_string_lossy()).collect();
        let line = words.join(" ");
        match line.char_indices().nth(300) {
            Some((at, _)) => write!(f, "{} .. ({} words)", &line[..at], words.len()),
            None => write!(f, "{line}"),
        }
    }
}

/// A program in the background. Going out of scope ends it and its whole group at once.
pub struct Running {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    out: PathBuf,
    err: PathBuf,
    pid_file: PathBuf,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) -> Result {
        let pid = pid(&self.child);
        if self.status.is_some() {
            return Err(Fault::Check(format!("{} ended before it was to get {signal:?}", self.name)));
        }
        kill_process(pid, signal).context(|| format!("signal {}", self.name))
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().context(|| format!("wait for {}", self.name))?;
        }
        Ok(self.status)
    }

    /// An error if it ended.
    pub fn must_live(&mut self) -> Result {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(Fault::Status {
                command: self.name.clone(),
                status: words(status),
                tail: tail(&format!("{}{}", self.stdout(), self.stderr()), 20),
            }),
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self, cx: &Cx<'_>, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let limit = cx.limit(limit);
        match wait(&mut self.child, limit, || cx.host.check())? {
            Some(status) => {
                self.status = Some(status);
                Ok(status)
            }
            None => {
                let tail = tail(&format!("{}{}", self.stdout(), self.stderr()), 20);
                Err(Fault::TimedOut { command: self.name.clone(), limit, tail })
            }
        }
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        read_from(&self.out, 0)
    }

    /// What it complained about so far.
    pub fn stderr(&self) -> String {
        read_from(&self.err, 0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end_group(&mut self.child);
        let _ = std::fs::remove_file(&self.pid_file);
    }
}

/// Ends the whole group of a child that is waited for.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        end_group(&mut self.0);
    }
}

fn end_group(child: &mut Child) {
    // The group may outlive its leader; without members this does nothing.
    let _ = kill_process_group(pid(child), Signal::KILL);
    let _ = child.wait();
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).expect("a child's id is positive")
}

/// None: still running at the limit.
fn wait(child: &mut Child, limit: Duration, check: impl Fn() -> Result) -> Result<Option<ExitStatus>> {
    let until = Instant::now() + limit;
    let fd = pidfd_open(pid(child), PidfdFlags::empty()).context(|| "pidfd_open".into())?;
    loop {
        if let Some(status) = child.try_wait().context(|| "wait for a child".into())? {
            return Ok(Some(status));
        }
        check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let slice = left.min(Duration::from_millis(100));
        let slice = Timespec { tv_sec: 0, tv_nsec: slice.as_nanos() as i64 };
        let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&slice));
    }
}

fn read<R: Read + Send + 'static>(from: Option<R>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn feed<W: Write + Send + 'static>(to: Option<W>, bytes: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        if let Some(mut to) = to {
            let _ = to.write_all(&bytes);
        }
    })
}

fn join(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

fn file_len(path: &Path) -> usize {
    path.metadata().map_or(0, |meta| meta.len() as usize)
}

fn read_from(path: &Path, from: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}

/// `exit code 1`, `signal 9`.
pub fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
