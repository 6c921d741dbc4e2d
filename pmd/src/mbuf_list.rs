//! An intrusive FIFO of packets: no memory of its own, so that a million empty queues cost what their heads cost.

use std::fmt;
use std::ptr::NonNull;

use crate::header::Header;
use crate::mbuf::Mbuf;

/// A FIFO of packets, linked through their headers. It counts packets, buffers and bytes so that its owner can
/// bound it; it sets no bound itself.
#[derive(Default)]
pub struct MbufList {
    ends: Option<(NonNull<Header>, NonNull<Header>)>,
    len: usize,
    bytes: usize,
    segments: usize,
}

// SAFETY: the list owns its packets, which are Send.
unsafe impl Send for MbufList {}
// SAFETY: through `&MbufList` everything is read only.
unsafe impl Sync for MbufList {}

impl MbufList {
    /// An empty list.
    pub const fn new() -> MbufList {
        MbufList { ends: None, len: 0, bytes: 0, segments: 0 }
    }

    /// Packets in the list.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no packet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Buffers of all packets: what a budget counts.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// The oldest packet.
    pub fn front(&self) -> Option<&Mbuf> {
        let (head, _) = self.ends.as_ref()?;
        // SAFETY: an Mbuf is a pointer to its header and nothing else, so that a reference to the pointer that the list
        // keeps is one to the packet; the list owns the packet and is borrowed.
        Some(unsafe { &*std::ptr::from_ref(head).cast::<Mbuf>() })
    }

    /// Adds a packet at the end.
    pub fn push_back(&mut self, mbuf: Mbuf) {
        self.count(&mbuf);
        let header = mbuf.into_header();
        // SAFETY: the packet and the old tail belong to this list.
        unsafe {
            (*header.as_ptr()).link = std::ptr::null_mut();
            self.ends = Some(match self.ends {
                None => (header, header),
                Some((head, tail)) => {
                    (*tail.as_ptr()).link = header.as_ptr();
                    (head, header)
                }
            });
        }
    }

    /// Puts a packet back at the front.
    pub fn push_front(&mut self, mbuf: Mbuf) {
        self.count(&mbuf);
        let header = mbuf.into_header();
        let old = self.ends;
        // SAFETY: the packet belongs to this list.
        unsafe { (*header.as_ptr()).link = old.map_or(std::ptr::null_mut(), |(head, _)| head.as_ptr()) };
        self.ends = Some((header, old.map_or(header, |(_, tail)| tail)));
    }

    /// Takes the oldest packet.
    pub fn pop_front(&mut self) -> Option<Mbuf> {
        let (head, tail) = self.ends?;
        // SAFETY: the list owns `head`, and gives it up here.
        let mbuf = unsafe {
            self.ends = NonNull::new((*head.as_ptr()).link).map(|next| (next, tail));
            Mbuf::from_header(head)
        };
        self.len -= 1;
        self.bytes -= mbuf.len();
        self.segments -= mbuf.segment_count();
        Some(mbuf)
    }

    /// Moves all packets of `other` to the end of this list.
    pub fn append(&mut self, other: &mut MbufList) {
        let other = std::mem::take(other);
        let Some((other_head, other_tail)) = other.ends else { return };
        self.ends = Some(match self.ends {
            None => (other_head, other_tail),
            Some((head, tail)) => {
                // SAFETY: both lists are ours, and distinct.
                unsafe { (*tail.as_ptr()).link = other_head.as_ptr() };
                (head, other_tail)
            }
        });
        self.len += other.len;
        self.bytes += other.bytes;
        self.segments += other.segments;
        std::mem::forget(other);
    }

    /// Drops all packets.
    pub fn clear(&mut self) {
        while self.pop_front().is_some() {}
    }

    fn count(&mut self, mbuf: &Mbuf) {
        self.len += 1;
        self.bytes += mbuf.len();
        self.segments += mbuf.segment_count();
    }
}

impl Drop for MbufList {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for MbufList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MbufList {{ {} packets, {} bytes }}", self.len, self.bytes)
    }
}
