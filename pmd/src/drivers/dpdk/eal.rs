//! DPDK's Environment Abstraction Layer: set up once in a process, when the first port of DPDK is opened.
//!
//! From what is known here, and not from a command line: the CPUs are those that the opening thread may use (EAL starts no threads on
//! them: ours poll); memory is hugepages when some are free and ordinary pages otherwise; and no device is probed but those that
//! URLs name, one by one. Memory is anonymous (`--in-memory`, or `--no-huge --no-shconf`): no hugetlbfs has to be mounted, no hugepage file can stay
//! behind even after SIGKILL, and any number of processes run side by side. What EAL keeps in its runtime directory has a
//! name of this process's own; directories of processes that are gone are removed.
//!
//! Deliberately absent: secondary processes, telemetry, and setting EAL up twice, which DPDK cannot.

use std::ffi::{CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use super::log;
use super::mempool;
use crate::header::Header;
use crate::port::PortError;

/// Control operations of DPDK, one at a time.
pub(super) struct Eal {
    state: State,
    /// Ports that are open.
    pub devices: usize,
    /// Mempools that were made.
    pub pools: Vec<std::sync::Arc<mempool::Mempool>>,
    pub pools_made: u64,
    /// One line: CPUs and memory.
    pub note: String,
}

enum State {
    Down,
    Up,
    /// It could not be set up, and DPDK does not try twice.
    Failed(String, String),
}

static EAL: Mutex<Eal> =
    Mutex::new(Eal { state: State::Down, devices: 0, pools: Vec::new(), pools_made: 0, note: String::new() });

// SAFETY: the mempools inside are used by any thread that holds the lock, and by cores that hold them open.
unsafe impl Send for Eal {}

/// Set up or not.
pub(super) fn lock() -> MutexGuard<'static, Eal> {
    EAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets it up, unless it is.
pub(super) fn lock_up(url: &str) -> Result<MutexGuard<'static, Eal>, PortError> {
    let mut eal = lock();
    if let State::Down = eal.state {
        log::catch();
        let config = Config::of_this_process(url);
        eal.note = config.note();
        match std::thread::scope(|scope| scope.spawn(|| set_up(url, &config)).join()) {
            Ok(Ok(())) => eal.state = State::Up,
            Ok(Err(PortError::Dpdk { said, mend, .. })) => eal.state = State::Failed(said, mend),
            Ok(Err(other)) => return Err(other),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    if let State::Failed(said, mend) = &eal.state {
        let (said, mend) = (said.clone(), format!("{mend}; then start this program again"));
        return Err(PortError::Dpdk { url: url.into(), what: "DPDK does not start".into(), said, mend });
    }
    log::forget();
    Ok(eal)
}

/// What EAL is told.
struct Config {
    cpus: Vec<usize>,
    hugepages: bool,
    /// Devices address memory as this process does. Without an IOMMU they need physical addresses, and EAL finds out.
    virtual_addresses: bool,
}

/// Hugepages have to be free in this number, or DPDK runs without.
const HUGEPAGES_MIN: usize = 16;
/// What it has without, in MiB. Packets are not in it: their pools are ours.
const ORDINARY_MIB: usize = 64;

impl Config {
    fn of_this_process(url: &str) -> Config {
        let iommu =
            std::fs::read_dir("/sys/kernel/iommu_groups").is_ok_and(|mut groups| groups.next().is_some());
        Config {
            cpus: allowed_cpus(),
            hugepages: free_hugepages() >= HUGEPAGES_MIN,
            virtual_addresses: iommu || !super::device::is_pci(url),
        }
    }

    fn note(&self) -> String {
        let cpus: Vec<String> = self.cpus.iter().map(ToString::to_string).collect();
        let memory = match self.hugepages {
            true => "its own memory on hugepages".to_owned(),
            false => {
                format!("its own memory on ordinary pages ({HUGEPAGES_MIN} free hugepages would be used)")
            }
        };
        format!("DPDK on CPUs {}, {memory}", cpus.join(","))
    }

    fn arguments(&self) -> Vec<String> {
        let cpus: Vec<String> = self.cpus.iter().map(ToString::to_string).collect();
        let mut words = vec![
            "rxline".to_owned(),
            // One lcore for all CPUs: EAL pins no thread and starts none.
            format!("--lcores=0@({})", cpus.join(",")),
            "--no-telemetry".to_owned(),
            format!("--file-prefix={PREFIX}{}", std::process::id()),
            // A list of allowed devices that names a host bridge, which no driver takes: devices are probed when a URL names them.
            "--allow=0000:00:00.0".to_owned(),
        ];
        match self.hugepages {
            true => words.push("--in-memory".to_owned()),
            false => words.extend(["--no-huge", "--no-shconf", "-m"].map(String::from)),
        }
        if !self.hugepages {
            words.push(ORDINARY_MIB.to_string());
        }
        if self.virtual_addresses {
            words.push("--iova-mode=va".to_owned());
        }
        words
    }
}

/// On a thread that ends with it: EAL makes its caller its main lcore and pins it.
fn set_up(url: &str, config: &Config) -> Result<(), PortError> {
    remove_leftovers();
    let refused = |what: &str, code: i32| log::refused(url, what, code);
    mempool::register_ops().map_err(|code| refused("registering a kind of mempool", code))?;
    let arguments = config.arguments().into_iter().map(|word| CString::new(word).expect("no zero bytes"));
    let arguments: Vec<CString> = arguments.collect();
    let mut argv: Vec<*mut c_char> = arguments.iter().map(|word| word.as_ptr().cast_mut()).collect();
    // SAFETY: an argument vector as main has it. EAL keeps copies, and permutes the vector only.
    let parsed = unsafe { dpdk_sys::rte_eal_init(argv.len() as c_int, argv.as_mut_ptr()) };
    if parsed < 0 {
        // SAFETY: it reads a variable of this thread.
        return Err(refused("rte_eal_init", unsafe { dpdk_sys::rxl_errno() }));
    }
    keep_our_fields().map_err(|code| refused("keeping a field of rte_mbuf", code))?;
    // SAFETY: a function that takes nothing and does not unwind. Failing means that only the runtime directory stays.
    unsafe { libc::atexit(take_down) };
    Ok(())
}

/// Runs `work` on DPDK's interrupt thread, and waits for its end.
pub(super) fn on_interrupt_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let (done, end) = mpsc::sync_channel(1);
    let job: Job<'_> = Box::new(move || {
        // There is nobody but us to whom it could matter, and we go on panicking below.
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    });
    let job = Box::into_raw(Box::new(job));
    // SAFETY: `run` takes the job over, once. What it borrows outlives it, because this thread waits for its end.
    let refused = unsafe { dpdk_sys::rte_eal_alarm_set(1, Some(run), job.cast()) } != 0;
    if refused {
        // SAFETY: as it was not accepted, it is still ours.
        unsafe { run(job.cast()) };
    }
    end.recv().expect("a job says how it ended").unwrap_or_else(|panic| resume_unwind(panic))
}

type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// On DPDK's interrupt thread.
unsafe extern "C" fn run(job: *mut c_void) {
    // SAFETY: `on_interrupt_thread` made it, and gives it away once.
    let job = unsafe { Box::from_raw(job.cast::<Job<'_>>()) };
    job();
}

/// Our header has the buffer's number where rte_mbuf has room for dynamic fields: no driver may be given that place.
fn keep_our_fields() -> Result<(), i32> {
    let offset = std::mem::offset_of!(Header, index);
    let mut field = dpdk_sys::rte_mbuf_dynfield { size: 4, align: 4, ..Default::default() };
    for (to, from) in field.name.iter_mut().zip(b"rxline_index") {
        *to = *from as c_char;
    }
    // SAFETY: the description is whole, with a name that ends in zero.
    match unsafe { dpdk_sys::rte_mbuf_dynfield_register_offset(&field, offset) } {
        at if at >= 0 => Ok(()),
        // SAFETY: it reads a variable of this thread.
        _ => Err(unsafe { dpdk_sys::rxl_errno() }),
    }
}

/// As the process ends. EAL's memory is this process's own pages, and left to the kernel: rte_eal_cleanup unmaps it under the feet of DPDK's
/// interrupt thread, which it does not stop, and which may just be rebuilding its list of descriptors.
extern "C" fn take_down() {
    if let Some(parent) = runtime_parent() {
        let _ = std::fs::remove_dir_all(parent.join(format!("{PREFIX}{}", std::process::id())));
    }
}

const PREFIX: &str = "rxline-";

/// The folder of EAL's runtime directories, as eal_create_runtime_dir chooses it.
fn runtime_parent() -> Option<PathBuf> {
    // SAFETY: it reads the process's credentials.
    let base = match unsafe { libc::getuid() } {
        0 => PathBuf::from("/var/run"),
        _ => std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from),
    };
    Some(base.join("dpdk")).filter(|path| path.is_dir())
}

/// Removes the runtime directories of processes that were killed.
fn remove_leftovers() {
    let Some(entries) = runtime_parent().and_then(|parent| std::fs::read_dir(parent).ok()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a set of bits, for which zeroes are valid; the call writes no more than its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        set
    };
    // SAFETY: the index is below the number of bits.
    let cpus = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) });
    let cpus: Vec<usize> = cpus.collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

fn free_hugepages() -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    };
    let reserved = field("HugePages_Rsvd:").unwrap_or(0);
    field("HugePages_Free:").unwrap_or(0).saturating_sub(reserved)
}

/// This thread as DPDK knows it: with an lcore number, which its libraries use for what each thread has of its own.
struct Registered(bool);

impl Drop for Registered {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: this thread was registered; it polls no more.
            unsafe { dpdk_sys::rte_thread_unregister() };
        }
    }
}

/// Registers the current thread once; from then on it costs a look. Without a free lcore number it polls all the same.
#[inline]
pub(super) fn register_thread() {
    thread_local! {
        static THREAD: Registered = {
            // SAFETY: EAL is set up: whoever polls has a queue.
            Registered(unsafe { dpdk_sys::rte_thread_register() } == 0)
        };
    }
    THREAD.with(|_| {});
}
