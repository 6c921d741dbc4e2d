//! The rings, inboxes and bells that connect the cores of an engine with each other and with other threads.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;

use crate::control::{CommandSender, CoreLink};
use crate::cx::HandOver;
use crate::inbox::{CREDITS, CoreInbox};
use crate::ring::{Bell, Inbox, WakeOnDrop};
use crate::wq::SocketWq;

const COMMANDS: usize = 1024;
const OPS: usize = 1024;
const HAND_OVERS: usize = 1024;

/// Everything that connects cores with each other and with other threads.
pub(crate) struct Wires<C> {
    pub links: Vec<CoreLink>,
    pub inboxes: Vec<CoreInbox<C>>,
    pub commands: Vec<CommandSender<C>>,
    pub peers: Vec<Vec<Option<rtrb::Producer<HandOver>>>>,
}

pub(crate) fn wires<C>(cores: usize) -> io::Result<Wires<C>> {
    let mut wires = Wires { links: Vec::new(), inboxes: Vec::new(), commands: Vec::new(), peers: Vec::new() };
    let mut handed: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    for from in 0..cores {
        let mut out = Vec::new();
        for (to, inbound) in handed.iter_mut().enumerate() {
            out.push((from != to).then(|| {
                let (producer, consumer) = rtrb::RingBuffer::new(HAND_OVERS);
                inbound.push(consumer);
                producer
            }));
        }
        wires.peers.push(out);
    }
    for handed in handed {
        let bell = Arc::new(Bell::new()?);
        let (commands_in, commands) = Inbox::new(COMMANDS, bell.clone());
        let (ops_in, ops) = Inbox::new(OPS, bell.clone());
        let (credits, credits_out) = rtrb::RingBuffer::new(CREDITS);
        let credits_wq: Arc<SocketWq> = Arc::default();
        wires.commands.push(CommandSender { inbox: Arc::new(commands_in) });
        wires.inboxes.push(CoreInbox {
            commands,
            ops,
            handed,
            credits,
            credits_wq: WakeOnDrop(credits_wq.clone()),
            stopping: false,
        });
        let taken = CachePadded::new(AtomicU64::new(0));
        wires.links.push(CoreLink { ops: ops_in, bell, credits: Mutex::new(credits_out), credits_wq, taken });
    }
    Ok(wires)
}
