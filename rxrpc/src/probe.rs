//! VERSION and DEBUG: questions that need no connection, asked and answered.

use crate::endpoint::Endpoint;
use crate::shared::Reply;
use crate::wire::debug::{DebugKind, DebugReply, DebugRequest, REPLY_LEN_MAX};
use crate::wire::{HEADER_LEN, Header, PacketType, VERSION_LEN, encode_version, parse_version};
use crate::{Event, LocalId, RxDrop};
use pmd::{Instant, Mbuf, Pool};
use std::net::SocketAddr;
use std::time::Duration;

/// A question that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    local: LocalId,
    peer: SocketAddr,
    number: u32,
    /// What was asked; `None` is a version.
    kind: Option<DebugKind>,
    asked: Instant,
    sent: bool,
    request: [u8; DebugRequest::LEN],
}

/// The most questions that may be open.
const QUESTIONS_MAX: usize = 1_024;
/// An answer that takes longer is nobody's.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most events of answers that may wait for the user.
const ANSWERS_MAX: usize = 4_096;

impl Endpoint {
    pub(crate) fn input_probe(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        local: LocalId,
        peer: SocketAddr,
        header: &Header,
        mut payload: Mbuf,
    ) -> Result<(), RxDrop> {
        payload.pull_up(payload.len().min(HEADER_LEN + REPLY_LEN_MAX), pool);
        let body = &payload.data()[HEADER_LEN..];
        if !header.from_client() {
            return self.input_answer(now, local, peer, header, body);
        }
        let answered = if header.packet_type == PacketType::Version {
            let version = encode_version(&self.shared.config.version);
            self.reply_probe(pool, local, peer, header, &version)
        } else {
            let request = DebugRequest::parse(body).map_err(|_| RxDrop::BadPacket)?;
            let reply = self.debug_reply(pool, &request);
            let mut out = [0; REPLY_LEN_MAX];
            let len = reply.encode(&mut out).expect("the longest reply fits");
            self.reply_probe(pool, local, peer, header, &out[..len])
        };
        if answered { Ok(()) } else { Err(RxDrop::NoReplyRoom) }
    }

    fn reply_probe(
        &mut self,
        pool: &mut Pool,
        local: LocalId,
        to: SocketAddr,
        request: &Header,
        body: &[u8],
    ) -> bool {
        let Some(header) = request.probe_reply() else { return false };
        let Some(from) = self.locals.get(local).map(|local| local.addr) else { return false };
        let room = self.shared.replies.len() < self.shared.config.replies_max;
        let Some(packet) = room.then(|| pool.alloc()).flatten() else {
            self.shared.stats.replies_lost += 1;
            return false;
        };
        self.shared.stats.sent[header.packet_type as usize] += 1;
        let packet = crate::output::with_body(packet, &header, body);
        self.shared.replies.push_back(Reply { local, from, to, packet });
        true
    }

    /// The answer to a question of ours.
    fn input_answer(
        &mut self,
        now: Instant,
        local: LocalId,
        peer: SocketAddr,
        header: &Header,
        body: &[u8],
    ) -> Result<(), RxDrop> {
        let version = header.packet_type == PacketType::Version;
        if version && header.call == 0 {
            // Somebody's keep-alive.
            return Ok(());
        }
        let at = self.questions.iter().position(|question| {
            question.local == local
                && question.peer == peer
                && question.number == header.call
                && question.kind.is_none() == version
        });
        let question = self.questions.swap_remove(at.ok_or(RxDrop::Unexpected)?);
        if question.asked + PATIENCE < now || self.shared.events.len() >= self.events_max() {
            return Err(RxDrop::Unexpected);
        }
        self.shared.events.push_back(match question.kind {
            None => Event::Version { local, peer, text: parse_version(&body[..body.len().min(VERSION_LEN)]) },
            Some(kind) => Event::Debug {
                local,
                peer,
                probe: header.call,
                reply: Box::new(DebugReply::parse(kind, body)),
            },
        });
        Ok(())
    }

    fn events_max(&self) -> usize {
        4 * self.shared.config.calls_max + ANSWERS_MAX
    }

    /// Remembers a question; it is sent with the next `transmit`.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        local: LocalId,
        peer: SocketAddr,
        request: Option<DebugRequest>,
    ) -> Option<u32> {
        if self.questions.len() >= QUESTIONS_MAX {
            self.questions.retain(|question| question.asked + PATIENCE >= now);
        }
        if self.questions.len() >= QUESTIONS_MAX || self.locals.get(local).is_none() {
            return None;
        }
        self.question_number = self.question_number.wrapping_add(1).max(1);
        let number = self.question_number;
        let kind = request.and_then(|request| request.kind.ok());
        let request = request.map_or([0; DebugRequest::LEN], |request| request.to_bytes());
        self.questions.push(Question { local, peer, number, kind, asked: now, sent: false, request });
        self.unsent_questions += 1;
        Some(number)
    }

    /// Turns new questions into packets.
    pub(crate) fn send_questions(&mut self, pool: &mut Pool) {
        if self.unsent_questions == 0 {
            return;
        }
        for question in self.questions.iter_mut().filter(|question| !question.sent) {
            let Some(from) = self.locals.get(question.local).map(|local| local.addr) else {
                question.sent = true;
                self.unsent_questions -= 1;
                continue;
            };
            let Some(packet) = pool.alloc() else { return };
            let kind = if question.kind.is_some() { PacketType::Debug } else { PacketType::Version };
            let header = DebugRequest::header(kind, question.number);
            // OpenAFS's rxdebug sends the same eight bytes with both.
            let packet = crate::output::with_body(packet, &header, &question.request);
            self.shared.stats.sent[kind as usize] += 1;
            question.sent = true;
            self.unsent_questions -= 1;
            let (local, to) = (question.local, question.peer);
            self.shared.replies.push_back(Reply { local, from, to, packet });
        }
    }
}
