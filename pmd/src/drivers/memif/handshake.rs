//! How a connection comes about, without sockets and clocks: messages go in, and come out.
//!
//! ```text
//! server: HELLO                         ACK  ACK ...              CONNECTED
//! client:       INIT, then one by one   ADD_REGION ADD_RING ...   CONNECT
//! ```
//!
//! The client lays out the memory: rings first, those towards the server before the others, then a buffer for each slot. Whatever a peer
//! does against the rules, or that we cannot serve, ends the connection with a sentence that it is told.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use super::bell::eventfd;
use super::interface::{Claim, Interface, Link};
use super::memory::{BYTES_MAX, Mapping, Memory, REGIONS_MAX};
use super::message::{AddRing, Direction, Hello, Init, MODE_ETHERNET, Message, VERSION};
use super::receive::Receiver;
use super::ring::{Desc, LOG2_SLOTS_MAX, Ring, ring_len};
use super::signal::Signal;
use super::slots::{Lent, Own};
use super::transmit::Sender;

/// Queues of an interface, as in DPDK.
pub(super) const QUEUES_MAX: usize = 255;

/// Why a connection cannot be: told to the peer.
pub(super) type Refusal = &'static str;

/// A message, with the file descriptor that goes along.
pub(super) type Outgoing = (Message, Option<OwnedFd>);

/// A connection that stands: rings for each queue, and what is to be kept and listened to.
pub(super) struct Connection {
    pub links: Vec<Link>,
    pub memory: Arc<Memory>,
    /// The eventfd of each queue's receiving ring.
    pub wakers: Vec<OwnedFd>,
}

fn program() -> String {
    concat!("rxline ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// The first message of a server.
pub(super) fn hello() -> Message {
    Message::Hello(Hello {
        name: program(),
        versions: [VERSION; 2],
        max_region: REGIONS_MAX as u16 - 1,
        max_s2c_ring: QUEUES_MAX as u16 - 1,
        max_c2s_ring: QUEUES_MAX as u16 - 1,
        max_log2_ring_size: LOG2_SLOTS_MAX,
    })
}

/// A client as its server sees it. The caller looks the interface up by the id in INIT.
pub(super) struct ServerSide {
    claim: Claim,
    memory: Memory,
    /// For each queue, rings from the client, and to it.
    rings: [Vec<Option<(AddRing, OwnedFd)>>; 2],
}

impl ServerSide {
    /// Accepts INIT, if it may be: the answer is ACK.
    pub(super) fn new(claim: Claim, init: &Init) -> Result<ServerSide, Refusal> {
        let interface = claim.interface();
        if init.version != VERSION {
            return Err("Incompatible memif version");
        }
        if init.mode != MODE_ETHERNET {
            return Err("Only ethernet mode supported");
        }
        if init.secret != interface.config.secret {
            return Err("Incorrect secret");
        }
        let none = || interface.queues().iter().map(|_| None).collect();
        let rings = [none(), none()];
        Ok(ServerSide { claim, memory: Memory::default(), rings })
    }

    pub(super) fn interface(&self) -> &Arc<Interface> {
        self.claim.interface()
    }

    /// ADD_REGION or ADD_RING; anything else does not belong here. The answer is ACK.
    pub(super) fn add(&mut self, message: Message, fd: Option<OwnedFd>) -> Result<(), Refusal> {
        match message {
            Message::AddRegion { index, size } => {
                let fd = fd.ok_or("Missing region fd")?;
                self.memory.add(index, Mapping::of_peer(fd, size)?)
            }
            Message::AddRing(ring) => {
                let fd = fd.ok_or("Missing interrupt fd")?;
                if !is_eventfd(&fd) {
                    return Err("interrupt fd must be an eventfd");
                }
                let rings = &mut self.rings[ring.direction as usize];
                let place = rings.get_mut(usize::from(ring.index)).ok_or("Invalid ring index")?;
                *place = Some((ring, fd));
                Ok(())
            }
            _ => Err("Unexpected message"),
        }
    }

    /// CONNECT: all rings must be there. The answer is CONNECTED.
    pub(super) fn connect(self) -> Result<(Claim, Connection), Refusal> {
        let memory = Arc::new(self.memory);
        let ring = |place: Option<(AddRing, OwnedFd)>| -> Result<(Ring, OwnedFd), Refusal> {
            let (told, fd) = place.ok_or("this interface wants as many rings each way as it has queues")?;
            let ring = Ring::new(&memory, told.region, told.offset, told.log2_ring_size)?;
            if !ring.has_cookie() {
                return Err("Wrong ring");
            }
            Ok((ring, fd))
        };
        let (mut links, mut wakers) = (Vec::new(), Vec::new());
        let [from_client, to_client] = self.rings;
        for (from, to) in from_client.into_iter().zip(to_client) {
            let ((from, waker), (to, interrupt)) = (ring(from)?, ring(to)?);
            let receiver = Receiver::new(from, Lent::new(&memory));
            let interrupt = signal(interrupt)?;
            links.push(Link::Server(receiver, Sender::new(to, Lent::new(&memory), interrupt)));
            wakers.push(waker);
        }
        Ok((self.claim, Connection { links, memory, wakers }))
    }
}

fn signal(interrupt: OwnedFd) -> Result<Signal, Refusal> {
    Signal::new(interrupt).map_err(|_| "no way to interrupt: not an eventfd, or fs.aio-max-nr is reached")
}

/// What else there is might do harm when it is listened to.
fn is_eventfd(fd: &OwnedFd) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    link.is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]")
}

/// A server as its client sees it.
pub(super) enum ClientSide {
    /// Nothing was said yet.
    Expecting(Arc<Interface>),
    /// Said one by one, each after an ACK; then the server says CONNECTED.
    Telling { interface: Arc<Interface>, messages: VecDeque<Outgoing>, connection: Connection },
}

/// What a server's message leads to.
pub(super) enum Progress {
    Say(Outgoing),
    Connected(Arc<Interface>, Connection),
}

impl ClientSide {
    pub(super) fn input(self, message: Message) -> Result<(Option<ClientSide>, Progress), Refusal> {
        match (self, message) {
            (ClientSide::Expecting(interface), Message::Hello(hello)) => {
                let (connection, messages) = lay_out(&interface, &hello)?;
                let config = &interface.config;
                let init = Init {
                    version: VERSION,
                    id: config.id,
                    mode: MODE_ETHERNET,
                    secret: config.secret,
                    name: program(),
                };
                let next = ClientSide::Telling { interface, messages, connection };
                Ok((Some(next), Progress::Say((Message::Init(init), None))))
            }
            (ClientSide::Telling { interface, mut messages, connection }, Message::Ack) => {
                let next = messages.pop_front().ok_or("Unexpected message")?;
                Ok((Some(ClientSide::Telling { interface, messages, connection }), Progress::Say(next)))
            }
            (ClientSide::Telling { interface, messages, connection }, Message::Connected { .. })
                if messages.is_empty() =>
            {
                Ok((None, Progress::Connected(interface, connection)))
            }
            _ => Err("Unexpected message"),
        }
    }
}

/// Bytes of a client's region.
pub(super) fn memory_len(queues: usize, log2_slots: u8, buffer_len: u32) -> usize {
    2 * queues * (ring_len(log2_slots) + ((buffer_len as usize) << log2_slots))
}

/// Makes memory, rings and buffers, and what the server has to be told of them.
fn lay_out(interface: &Interface, hello: &Hello) -> Result<(Connection, VecDeque<Outgoing>), Refusal> {
    let (config, queues) = (&interface.config, interface.queues().len());
    if !(hello.versions[0]..=hello.versions[1]).contains(&VERSION) {
        return Err("Incompatible memif version");
    }
    let rings_max = usize::from(hello.max_c2s_ring.min(hello.max_s2c_ring)) + 1;
    if queues > rings_max {
        return Err("the server has fewer rings than this interface has queues");
    }
    let log2_slots = config.log2_slots.min(hello.max_log2_ring_size);
    let buffers = 2 * queues * ring_len(log2_slots);
    let len = memory_len(queues, log2_slots, config.buffer_len);
    if len as u64 > BYTES_MAX {
        return Err("rings and buffers are longer than 4 GiB");
    }
    let each = config.buffer_len << log2_slots;
    let failed = |_| "no memory";
    let (mapping, fd) = Mapping::create(len).map_err(failed)?;
    let mut messages = VecDeque::new();
    messages.push_back((Message::AddRegion { index: 0, size: mapping.len() as u64 }, Some(fd)));
    let mut memory = Memory::default();
    memory.add(0, mapping)?;
    let memory = Arc::new(memory);
    let mut make = |direction: Direction| -> Result<Vec<(Ring, Own, OwnedFd)>, Refusal> {
        let mut rings = Vec::new();
        for index in 0..queues {
            let number = direction as usize * queues + index;
            let offset = (number * ring_len(log2_slots)) as u32;
            let ring = Ring::new(&memory, 0, offset, log2_slots)?;
            let at = buffers as u32 + number as u32 * each;
            let own = lay_buffers(&ring, &memory, at, config.buffer_len);
            let event = eventfd().map_err(failed)?;
            let told =
                AddRing { direction, index: index as u16, region: 0, offset, log2_ring_size: log2_slots };
            messages.push_back((Message::AddRing(told), Some(event.try_clone().map_err(failed)?)));
            rings.push((ring, own, event));
        }
        Ok(rings)
    };
    let (to_server, from_server) = (make(Direction::C2s)?, make(Direction::S2c)?);
    messages.push_back((Message::Connect { interface: program() }, None));
    let (mut links, mut wakers) = (Vec::new(), Vec::new());
    for ((to, to_slots, interrupt), (from, from_slots, waker)) in to_server.into_iter().zip(from_server) {
        links.push(Link::Client(
            Receiver::new(from, from_slots),
            Sender::new(to, to_slots, signal(interrupt)?),
        ));
        wakers.push(waker);
    }
    Ok((Connection { links, memory, wakers }, messages))
}

/// Writes the descriptors of a ring whose buffers begin at `offset`.
fn lay_buffers(ring: &Ring, memory: &Memory, offset: u32, len: u32) -> Own {
    ring.initialise();
    for number in 0..ring.slots() {
        ring.lay_desc(
            number,
            Desc { flags: 0, region: 0, length: len, offset: offset + u32::from(number) * len },
        );
    }
    let bytes = usize::from(ring.slots()) * len as usize;
    Own { base: memory.range(0, offset, bytes).expect("the region was made for it"), len }
}
