//! io_uring(7): one multishot recvmsg into provided buffers, and sends handed over in batches; one system call a turn does both.
//!
//! The ring is this thread's alone, and completions are made when it enters the kernel (DEFER_TASKRUN). A datagram that came is copied into a
//! buffer of the pool, and its provided buffer goes back at once; what is sent stays in its place until the kernel is done with it.

mod buffers;

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use pmd::{Instant, Mbuf};
use rustix::io::Errno;

use self::buffers::{Buffers, GROUP};
use super::mmsg::SEGMENTS;
use super::socket::{SleepIn, Socket, is_full, is_idle};
use super::{Batch, Bind, End, Wire};
use crate::Trouble;

/// Sends that the kernel may have at once.
const SENDS: usize = 256;
/// Completions that may wait: those of all sends and of all provided buffers, and then as many again.
const COMPLETIONS: u32 = 4096;
/// The user data of the receive; sends have the numbers of their places.
const RECEIVE: u64 = u64::MAX;

/// See the module's head.
pub struct Uring {
    // The ring goes first: once it is closed, the kernel uses nothing of what follows.
    ring: IoUring,
    buffers: Buffers,
    /// What the receive says about names; the kernel reads it while the request lives.
    template: Box<libc::msghdr>,
    sends: Box<[Sending]>,
    free: Vec<u16>,
    /// The receive is in progress.
    armed: bool,
    socket: Socket,
}

/// One datagram on its way out. It stays where it is while the kernel has it.
struct Sending {
    message: libc::msghdr,
    name: libc::sockaddr_in,
    parts: [libc::iovec; SEGMENTS],
    packet: Option<Mbuf>,
}

impl Uring {
    /// A ring and a socket of this thread's.
    pub fn bind(to: &Bind<'_>) -> Result<Uring, Trouble> {
        let socket = Socket::bind(to, SleepIn::Receive)?;
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_single_issuer().setup_defer_taskrun();
        let ring: IoUring =
            builder.build(2 * SENDS as u32).map_err(|error| absent("io_uring_setup", &error))?;
        if !ring.params().is_feature_ext_arg() {
            return Err(Trouble::Machine(
                "uring: waiting with an end needs a kernel of 5.11 or later".into(),
            ));
        }
        let buffers = Buffers::register(&ring).map_err(|error| absent("provided buffers", &error))?;
        // SAFETY: all zeros is an msghdr without name, parts and control data.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        template.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        // SAFETY: all zeros are such structures without contents.
        let empty = || unsafe {
            Sending { message: mem::zeroed(), name: mem::zeroed(), parts: mem::zeroed(), packet: None }
        };
        let sends = (0..SENDS).map(|_| empty()).collect();
        let free = (0..SENDS as u16).rev().collect();
        Ok(Uring { ring, buffers, template, sends, free, armed: false, socket })
    }

    /// Enters the kernel: hands over what is queued, and has completions made. Waits for one for up to `wait`.
    fn enter(&mut self, wait: Duration) -> io::Result<()> {
        if !self.armed {
            let receive =
                opcode::RecvMsgMulti::new(Fd(self.socket.fd.as_raw_fd()), &raw const *self.template, GROUP);
            // SAFETY: the template is boxed and lives until the ring is closed; the socket as well.
            let pushed = unsafe { self.ring.submission().push(&receive.build().user_data(RECEIVE)) };
            self.armed = pushed.is_ok();
        }
        let done = if self.socket.may_sleep && !wait.is_zero() {
            let timeout = Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
            self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
        } else {
            let queued = self.ring.submission().len() as u32;
            // Without GETEVENTS nobody would make completions.
            const GETEVENTS: u32 = 1;
            // SAFETY: as many entries as were pushed, each of which stays valid until its completion; no argument.
            unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) }
        };
        match done {
            Ok(_) => Ok(()),
            // The time is up, a signal came, or completions have to be taken first.
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes completions: what came goes into `into` as far as there is room.
    fn complete(&mut self, into: &mut Batch) -> io::Result<()> {
        while !into.is_full() {
            let Some(entry) = self.ring.completion().next() else { break };
            let (result, flags) = (entry.result(), entry.flags());
            match entry.user_data() {
                RECEIVE => {
                    self.armed = cqueue::more(flags);
                    self.received(result, flags, into)?;
                }
                place => {
                    self.sends[place as usize].packet = None;
                    self.free.push(place as u16);
                    // What was not sent because the device was full is lost, as on any full queue; peers ask again.
                    check(result, |error| is_full(error) || is_idle(error))?;
                }
            }
        }
        self.buffers.publish();
        Ok(())
    }

    fn received(&mut self, result: i32, flags: u32, into: &mut Batch) -> io::Result<()> {
        // Out of buffers, it ends, and begins again at the next turn.
        check(result, |error| error == Errno::NOBUFS || is_idle(error))?;
        let Some(buffer) = cqueue::buffer_select(flags) else { return Ok(()) };
        let bytes = self.buffers.bytes(buffer, result.max(0) as usize);
        if let Ok(message) = RecvMsgOut::parse(bytes, &self.template)
            && let Some(from) = from(message.name_data())
            && let Some(packet) = self.socket.pool.copy_from(message.payload_data())
        {
            into.push((from, packet));
        }
        self.buffers.give(buffer);
        Ok(())
    }

    /// Queues one datagram in a free place.
    fn push(&mut self, place: u16, to: SocketAddr, packet: Mbuf) {
        let sending = &mut self.sends[usize::from(place)];
        let packet = sending.packet.insert(packet);
        debug_assert!(packet.segment_count() <= SEGMENTS);
        let parts = packet
            .segments()
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        sending.message.msg_iovlen =
            sending.parts.iter_mut().zip(parts).map(|(place, part)| *place = part).count() as _;
        sending.message.msg_iov = sending.parts.as_mut_ptr();
        if let SocketAddr::V4(to) = to
            && !self.socket.connected
        {
            sending.name.sin_family = libc::AF_INET as libc::sa_family_t;
            sending.name.sin_port = to.port().to_be();
            sending.name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
            sending.message.msg_name = (&raw mut sending.name).cast();
            sending.message.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        let send = opcode::SendMsg::new(Fd(self.socket.fd.as_raw_fd()), &raw const sending.message);
        // SAFETY: the message, its name, parts and packet stay in their boxed place until its completion was taken, or the ring is closed.
        let pushed = unsafe { self.ring.submission().push(&send.build().user_data(u64::from(place))) };
        pushed.expect("the queue has room for every send at once");
    }
}

impl Wire for Uring {
    fn end(&mut self) -> &mut dyn End {
        &mut self.socket
    }

    fn receive(&mut self, _: Instant, wait: Duration, into: &mut Batch) -> io::Result<()> {
        let came = into.len();
        self.complete(into)?;
        // What was queued since the last turn goes with the same call that looks for more.
        if into.len() == came || !self.ring.submission().is_empty() {
            self.enter(if into.len() == came { wait } else { Duration::ZERO })?;
            self.complete(into)?;
        }
        Ok(())
    }

    fn send(&mut self, _: Instant, batch: &mut Batch) -> io::Result<()> {
        let sent = batch.len().min(self.free.len());
        for (to, packet) in batch.drain(..sent) {
            let place = self.free.pop().expect("as many as are free");
            self.push(place, to, packet);
        }
        // At once, not when something has come: a reply that waits for the next request would never be asked for.
        self.enter(Duration::ZERO)
    }
}

impl Drop for Uring {
    /// Ends what the kernel has in progress, before anything that it points at goes.
    fn drop(&mut self) {
        // Sends of UDP end when they are handed over; a look or two finds the last of them.
        for _ in 0..SENDS {
            if self.free.len() == SENDS || self.enter(Duration::ZERO).is_err() {
                break;
            }
            let _ = self.complete(&mut Batch::new());
        }
        let cancel = io_uring::types::CancelBuilder::any().all();
        let _ = self.ring.submitter().register_sync_cancel(None, cancel);
    }
}

/// An error of the kernel's, unless it is none to us.
fn check(result: i32, harmless: impl Fn(Errno) -> bool) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ if harmless(Errno::from_raw_os_error(-result)) => Ok(()),
        _ => Err(io::Error::from_raw_os_error(-result)),
    }
}

/// The address in a sockaddr_in.
fn from(name: &[u8]) -> Option<SocketAddr> {
    let [_, _, port0, port1, a, b, c, d, ..] = *name else { return None };
    Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([port0, port1])).into())
}

fn absent(what: &str, error: &io::Error) -> Trouble {
    Trouble::Machine(format!(
        "uring: {what}: {error}; it needs a kernel of 6.1 or later, sysctl kernel.io_uring_disabled=0, and no sandbox that forbids it"
    ))
}
