//! Control messages of memif 2.0: 128 bytes each, packed, in the machine's byte order.
//!
//! The layouts are those of DPDK's `drivers/net/memif/memif.h` and VPP's `memif.h`. A message comes from another process, so
//! decoding believes nothing: what has no meaning is `None`, and texts end at their first zero or at their field's end.

/// Bytes of a message.
pub(super) const MESSAGE_LEN: usize = 128;
/// Version 2.0.
pub(super) const VERSION: u16 = 2 << 8;
/// Bytes of a secret.
pub(super) const SECRET_LEN: usize = 24;
const NAME_LEN: usize = 32;
const REASON_LEN: usize = 96;
/// Packets begin with an Ethernet header; the other modes (IP, punt/inject) are absent.
pub(super) const MODE_ETHERNET: u8 = 0;
const RING_FLAG_C2S: u16 = 1;

/// Which way a ring's frames go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    /// From the client (slave) to the server (master).
    C2s,
    /// From the server to the client.
    S2c,
}

/// A message. The comments say who sends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// Both: the last message was understood.
    Ack,
    /// Server: what it can do.
    Hello(Hello),
    /// Client: what it wants to talk to.
    Init(Init),
    /// Client: memory; its file descriptor comes along.
    AddRegion { index: u16, size: u64 },
    /// Client: a ring; its eventfd comes along.
    AddRing(AddRing),
    /// Client: that was all.
    Connect { interface: String },
    /// Server: frames can pass.
    Connected { interface: String },
    /// Both: it is over, and why.
    Disconnect { reason: String },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub name: String,
    pub versions: [u16; 2],
    /// Highest indexes, and the largest ring as a power of two.
    pub max_region: u16,
    pub max_s2c_ring: u16,
    pub max_c2s_ring: u16,
    pub max_log2_ring_size: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Init {
    pub version: u16,
    pub id: u32,
    pub mode: u8,
    pub secret: [u8; SECRET_LEN],
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AddRing {
    pub direction: Direction,
    pub index: u16,
    pub region: u16,
    pub offset: u32,
    pub log2_ring_size: u8,
}

impl Message {
    pub(super) fn encode(&self) -> [u8; MESSAGE_LEN] {
        let mut out = Writer { bytes: [0; MESSAGE_LEN], at: 0 };
        match self {
            Message::Ack => out.u16(1),
            Message::Hello(hello) => {
                out.u16(2);
                out.text(&hello.name, NAME_LEN);
                hello.versions.iter().for_each(|version| out.u16(*version));
                out.u16(hello.max_region);
                out.u16(hello.max_s2c_ring);
                out.u16(hello.max_c2s_ring);
                out.put(&[hello.max_log2_ring_size]);
            }
            Message::Init(init) => {
                out.u16(3);
                out.u16(init.version);
                out.put(&init.id.to_ne_bytes());
                out.put(&[init.mode]);
                out.put(&init.secret);
                out.text(&init.name, NAME_LEN);
            }
            Message::AddRegion { index, size } => {
                out.u16(4);
                out.u16(*index);
                out.put(&size.to_ne_bytes());
            }
            Message::AddRing(ring) => {
                out.u16(5);
                out.u16(if ring.direction == Direction::C2s { RING_FLAG_C2S } else { 0 });
                out.u16(ring.index);
                out.u16(ring.region);
                out.put(&ring.offset.to_ne_bytes());
                out.put(&[ring.log2_ring_size]);
                out.u16(0); // no private header
            }
            Message::Connect { interface } => {
                out.u16(6);
                out.text(interface, NAME_LEN);
            }
            Message::Connected { interface } => {
                out.u16(7);
                out.text(interface, NAME_LEN);
            }
            Message::Disconnect { reason } => {
                out.u16(8);
                out.put(&0u32.to_ne_bytes());
                out.text(reason, REASON_LEN);
            }
        }
        out.bytes
    }

    /// `None` for a type that there is not.
    pub(super) fn decode(bytes: &[u8; MESSAGE_LEN]) -> Option<Message> {
        let mut from = Reader { bytes, at: 0 };
        Some(match from.u16() {
            1 => Message::Ack,
            2 => Message::Hello(Hello {
                name: from.text(NAME_LEN),
                versions: [from.u16(), from.u16()],
                max_region: from.u16(),
                max_s2c_ring: from.u16(),
                max_c2s_ring: from.u16(),
                max_log2_ring_size: from.u8(),
            }),
            3 => Message::Init(Init {
                version: from.u16(),
                id: u32::from_ne_bytes(from.take()),
                mode: from.u8(),
                secret: from.take(),
                name: from.text(NAME_LEN),
            }),
            4 => Message::AddRegion { index: from.u16(), size: u64::from_ne_bytes(from.take()) },
            5 => {
                let c2s = from.u16() & RING_FLAG_C2S != 0;
                Message::AddRing(AddRing {
                    direction: if c2s { Direction::C2s } else { Direction::S2c },
                    index: from.u16(),
                    region: from.u16(),
                    offset: u32::from_ne_bytes(from.take()),
                    log2_ring_size: from.u8(),
                })
            }
            6 => Message::Connect { interface: from.text(NAME_LEN) },
            7 => Message::Connected { interface: from.text(NAME_LEN) },
            8 => {
                let _code: [u8; 4] = from.take();
                Message::Disconnect { reason: from.text(REASON_LEN) }
            }
            _ => return None,
        })
    }
}

/// Fills a message from the front; no message is longer than the 128 bytes.
struct Writer {
    bytes: [u8; MESSAGE_LEN],
    at: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_ne_bytes());
    }

    /// Cut so that the field's last byte stays zero, as C's strings want it.
    fn text(&mut self, text: &str, len: usize) {
        let bytes = text.as_bytes();
        let kept = bytes.len().min(len - 1);
        self.bytes[self.at..self.at + kept].copy_from_slice(&bytes[..kept]);
        self.at += len;
    }
}

struct Reader<'a> {
    bytes: &'a [u8; MESSAGE_LEN],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let taken = std::array::from_fn(|i| self.bytes[self.at + i]);
        self.at += N;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }

    fn text(&mut self, len: usize) -> String {
        let field = &self.bytes[self.at..self.at + len];
        self.at += len;
        String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn each() -> Vec<Message> {
        let hello = Hello {
            name: "DPDK 22.11.11".into(),
            versions: [VERSION; 2],
            max_region: 255,
            max_s2c_ring: 254,
            max_c2s_ring: 253,
            max_log2_ring_size: 14,
        };
        let secret = *b"0123456789abcdefghijklmn";
        let init = Init { version: VERSION, id: 7, mode: MODE_ETHERNET, secret, name: "x".into() };
        let ring = AddRing {
            direction: Direction::C2s,
            index: 3,
            region: 1,
            offset: 0x1234_5678,
            log2_ring_size: 10,
        };
        vec![
            Message::Ack,
            Message::Hello(hello),
            Message::Init(init),
            Message::AddRegion { index: 2, size: 1 << 40 },
            Message::AddRing(ring.clone()),
            Message::AddRing(AddRing { direction: Direction::S2c, ..ring }),
            Message::Connect { interface: "net_memif0".into() },
            Message::Connected { interface: "rxline".into() },
            Message::Disconnect { reason: "Incorrect secret".into() },
        ]
    }

    #[test]
    fn messages_survive_the_wire() {
        for message in each() {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    /// Offsets counted by hand from the packed structs of DPDK 22.11's memif.h.
    #[test]
    fn fields_stand_where_dpdk_has_them() {
        let of = |n: usize| each()[n].encode();
        assert_eq!(of(1)[34..45], [0, 2, 0, 2, 255, 0, 254, 0, 253, 0, 14]);
        assert_eq!(
            (&of(2)[2..9], &of(2)[9..33], of(2)[33]),
            (&[0, 2, 7, 0, 0, 0, 0][..], &b"0123456789abcdefghijklmn"[..], b'x')
        );
        assert_eq!(of(3)[2..12], [2, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(of(4)[2..15], [1, 0, 3, 0, 1, 0, 0x78, 0x56, 0x34, 0x12, 10, 0, 0]);
        assert_eq!(&of(8)[6..22], b"Incorrect secret");
    }

    #[test]
    fn a_text_that_is_too_long_is_cut() {
        let message = Message::Connect { interface: "n".repeat(100) };
        let Some(Message::Connect { interface }) = Message::decode(&message.encode()) else { panic!() };
        assert_eq!(interface.len(), 31);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_something_that_encodes(bytes in proptest::collection::vec(any::<u8>(), MESSAGE_LEN), kind in 0u16..12) {
            let mut bytes: [u8; MESSAGE_LEN] = bytes.try_into().unwrap();
            bytes[..2].copy_from_slice(&kind.to_ne_bytes());
            prop_assert_eq!(Message::decode(&bytes).is_some(), (1..=8).contains(&kind));
            if let Some(message) = Message::decode(&bytes) {
                message.encode();
            }
        }
    }
}
