//! Security class 2: rxkad, on both sides.
//!
//! A client begins to send sealed packets at once. A service that sees a new connection sends a CHALLENGE, and again while no answer comes;
//! the RESPONSE brings a ticket, which one of the service's keys opens, and proves that whoever sends it knows the session key in it.
//! From then on both sides know that key, and the service learns how much the client wants protected.
//!
//! What a connection costs before its RESPONSE is the few words of [`Challenge`]. It is answered once: whatever the judgement, nothing
//! but packets is looked at afterwards. Files: `session` seals and opens packets, `handshake` is CHALLENGE and RESPONSE,
//! `ticket` and `ticket5` are tickets by their forms, `fcrypt` is the cipher, `des_key` what DES is needed for.
//!
//! Deliberately absent: the protocol before packets had checksums (version 0), and addresses in tickets, which mean nothing behind
//! translators.

pub mod code;
mod der;
mod des_key;
mod fcrypt;
#[cfg(test)]
mod golden;
mod handshake;
mod level;
mod sboxes;
mod session;
pub(crate) mod ticket;
pub(crate) mod ticket5;

pub use des_key::DesKey;
pub(crate) use handshake::{Place, TICKET_MAX};
pub use level::{Level, UnknownLevel};
pub(crate) use ticket::{KVNO_KRB5, KVNO_KRB5_ENCPART};

use super::credentials::Accepts;
use super::{Credentials, Identity, NotOpened, Sealing, ServerKeys};
use crate::RxDrop;
use crate::wire::{Cid, Header};
use handshake::{CHALLENGE_LEN, FIXED_LEN, Proved, Refused};
use pmd::{Instant, Mbuf, Pool};
use session::Session;
use std::sync::Arc;
use std::time::Duration;

/// Its number on the wire.
pub const INDEX: u8 = 2;
/// Packets that are encrypted side by side.
pub const LANES: usize = 4;
/// The longest RESPONSE that is looked at; OpenAFS pads a little.
pub const RESPONSE_MAX: usize = 64 + TICKET_MAX;

/// A connection's state.
#[derive(Debug)]
pub enum Rxkad {
    /// A service's connection: the client has not proved anything yet.
    Challenging(Challenge),
    /// The client's proof was refused. The connection is ending.
    Refused,
    /// A service's connection whose client is known.
    Service(Box<(Session, Arc<Identity>)>),
    /// A client's connection.
    Client(Box<ClientSide>),
}

/// A client's side of a connection.
#[derive(Debug)]
pub struct ClientSide {
    session: Session,
    credentials: Credentials,
    /// The nonce of a CHALLENGE that is to be answered.
    asked: Option<u32>,
}

/// A CHALLENGE that waits for its RESPONSE.
#[derive(Debug)]
pub struct Challenge {
    keys: Arc<ServerKeys>,
    min_level: Level,
    nonce: u32,
    /// How often it was sent, and when first and last.
    sent: u32,
    first: Instant,
    last: Instant,
    due: bool,
}

/// The first repetition of a CHALLENGE; each later one waits twice as long.
const REPEAT: Duration = Duration::from_millis(500);
/// Doublings of that.
const BACKOFF_MAX: u32 = 3;
/// A client that has not answered for so long is not there.
const PATIENCE: Duration = Duration::from_secs(15);

impl Challenge {
    fn pause(&self) -> Duration {
        REPEAT * (1 << self.sent.saturating_sub(1).min(BACKOFF_MAX))
    }

    /// When there is something to do if nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        (self.sent > 0 && !self.due).then(|| (self.last + self.pause()).min(self.first + PATIENCE))
    }

    /// Whether the client has had time enough.
    pub fn is_over(&self, now: Instant) -> bool {
        self.sent > 0 && self.first + PATIENCE <= now
    }

    /// The timer: another CHALLENGE falls due.
    pub fn expire(&mut self, now: Instant) {
        self.due |= self.deadline().is_some_and(|at| at <= now);
    }

    /// The client sends again what it sent before: it may not have been asked, or not been heard. Asked again, but not for
    /// every packet, and ever more rarely.
    pub fn repeat(&mut self, now: Instant) {
        self.due |= self.sent > 0 && self.last + self.pause() / 4 <= now;
    }

    /// The body of a CHALLENGE that is sent now.
    pub fn send(&mut self, now: Instant) -> [u8; CHALLENGE_LEN] {
        if self.sent == 0 {
            self.first = now;
        }
        (self.sent, self.last, self.due) = (self.sent + 1, now, false);
        handshake::challenge(self.nonce, self.min_level)
    }
}

impl Rxkad {
    pub fn for_service(accepts: &Accepts, nonce: u32) -> Self {
        let (keys, min_level, at) = (accepts.keys.clone(), accepts.min_level, Instant::default());
        Self::Challenging(Challenge { keys, min_level, nonce, sent: 0, first: at, last: at, due: true })
    }

    pub fn for_client(credentials: &Credentials, epoch: u32, cid: Cid) -> Self {
        let session = Session::new(&credentials.token().session_key, credentials.level(), epoch, cid);
        Self::Client(Box::new(ClientSide { session, credentials: credentials.clone(), asked: None }))
    }

    fn session(&self) -> Option<&Session> {
        match self {
            Self::Challenging(_) | Self::Refused => None,
            Self::Service(service) => Some(&service.0),
            Self::Client(client) => Some(&client.session),
        }
    }

    pub fn secured(&self) -> bool {
        self.session().is_some()
    }

    pub fn level(&self) -> Option<Level> {
        self.session().map(Session::level)
    }

    pub fn challenge(&self) -> Option<&Challenge> {
        match self {
            Self::Challenging(challenge) => Some(challenge),
            _ => None,
        }
    }

    pub fn challenge_mut(&mut self) -> Option<&mut Challenge> {
        match self {
            Self::Challenging(challenge) => Some(challenge),
            _ => None,
        }
    }

    pub fn owes(&self) -> bool {
        match self {
            Self::Challenging(challenge) => challenge.due,
            Self::Client(client) => client.asked.is_some(),
            _ => false,
        }
    }

    /// Whether the proof was refused.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused)
    }

    /// Who called.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Service(service) => Some(&service.1),
            _ => None,
        }
    }

    /// A client is asked who it is. `Ok` with an abort code: it does not answer, but ends the connection.
    pub fn challenged(&mut self, body: &[u8]) -> Result<Option<i32>, RxDrop> {
        let Self::Client(client) = self else { return Err(RxDrop::Unexpected) };
        let (nonce, min_level) = handshake::read_challenge(body)?;
        if min_level > client.session.level() as u32 {
            return Ok(Some(code::LEVEL_FAIL));
        }
        client.asked = Some(nonce);
        Ok(None)
    }

    /// The answer that a client owes, as fixed part and ticket.
    pub fn response(&self, place: &Place) -> Option<([u8; FIXED_LEN], &[u8])> {
        let Self::Client(client) = self else { return None };
        let token = client.credentials.token();
        let fixed = handshake::respond(&client.session, place, client.asked?, token.kvno, token.ticket.len());
        Some((fixed, &token.ticket))
    }

    /// It is on its way.
    pub fn answered(&mut self) {
        if let Self::Client(client) = self {
            client.asked = None;
        }
    }

    /// A RESPONSE came in. Returns the client's call numbers. One that was refused with an abort code leaves nothing that could be
    /// answered again.
    pub fn respond(&mut self, body: &[u8], place: &Place, unix: Option<u64>) -> Result<[u32; 4], Refused> {
        let unasked = Refused { reason: RxDrop::ResponseUnasked, code: None };
        let Self::Challenging(challenge) = self else { return Err(unasked) };
        if challenge.sent == 0 {
            return Err(unasked);
        }
        let Challenge { keys, min_level, nonce, .. } = challenge;
        match handshake::judge(body, place, *nonce, *min_level, keys, unix) {
            Ok(Proved { session, identity, calls }) => {
                *self = Self::Service(Box::new((session, Arc::new(identity))));
                Ok(calls)
            }
            Err(refused) => {
                if refused.code.is_some() {
                    *self = Self::Refused;
                }
                Err(refused)
            }
        }
    }

    /// Seals packets; see [`Session::seal`].
    pub fn seal(&self, packets: &mut [Sealing<'_>]) {
        debug_assert!(self.secured(), "nothing is sent on a connection before it is secured");
        if let Some(session) = self.session() {
            session.seal(packets);
        }
    }

    /// Opens a DATA packet.
    pub fn open(&self, header: &Header, data: &mut Mbuf, pool: &mut Pool) -> Result<(), NotOpened> {
        // In the clear nothing but the header is looked at. Otherwise the packet is brought into one buffer: it is ours alone.
        if self.level() != Some(Level::Clear) && !data.pull_up(data.len(), pool) {
            return Err(NotOpened::NoBuffers);
        }
        self.open_held(header, data).map_err(NotOpened::Abort)
    }

    /// Opens a DATA packet that is in one buffer, or in the clear. The error is an abort code.
    pub fn open_held(&self, header: &Header, data: &mut Mbuf) -> Result<(), i32> {
        let session = self.session().ok_or(code::NO_AUTH)?;
        if session.level() == Level::Clear {
            return session.open(header, &mut []).map(|_| ());
        }
        debug_assert_eq!(data.segment_count(), 1);
        let payload = session.open(header, data.data_mut())?;
        data.truncate(payload.end);
        data.advance(payload.start);
        Ok(())
    }
}
