//! ACK packets: what the peer has, what it takes, how long it took.

use crate::call::Call;
use crate::endpoint::Endpoint;
use crate::loss::steer;
use crate::peer::Peer;
use crate::send_queue::{AckFault, Acked};
use crate::shared::Shared;
use crate::wire::{Ack, AckReason, Flags, Header};
use crate::{CallId, Completion, Role, RxDrop};
use pmd::Instant;
use std::time::Duration;

impl Endpoint {
    pub(crate) fn input_ack(
        &mut self,
        now: Instant,
        call_id: CallId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), RxDrop> {
        let ack = Ack::parse(body).map_err(|_| RxDrop::BadPacket)?;
        let call = self.calls.get_mut(call_id).ok_or(RxDrop::NoCall)?;
        let peer = self.peers.get_mut(call.peer).ok_or(RxDrop::NoConnection)?;
        let result = take_ack(now, call, peer, &mut self.shared, header, &ack);
        // Whoever asks is answered, also where the question's own news is stale.
        if (ack.reason == AckReason::Ping || header.flags.contains(Flags::REQUEST_ACK))
            && result != Err(RxDrop::BadAck)
        {
            call.ack.raise(AckReason::PingResponse, header.serial);
            call.schedule(&mut self.shared);
        }
        result?;
        self.after_ack(now, call_id);
        Ok(())
    }

    pub(crate) fn input_ack_all(&mut self, now: Instant, call_id: CallId) -> Result<(), RxDrop> {
        let call = self.calls.get_mut(call_id).ok_or(RxDrop::NoCall)?;
        let news = call.send.acked_all(now);
        call.deadlines.heard = now;
        self.shared.queued -= news.freed;
        self.after_ack(now, call_id);
        Ok(())
    }

    /// What follows when the peer has more of our data: the end of a service call, room for the user, more to send.
    fn after_ack(&mut self, now: Instant, call_id: CallId) {
        let Some(call) = self.calls.get_mut(call_id) else { return };
        if call.role == Role::Service && call.send_closed && call.send.all_acked() {
            self.finish(now, call_id, Completion::Succeeded);
            return;
        }
        if call.send.outstanding() == 0 {
            call.deadlines.resend = None;
        }
        call.notify_writable(&mut self.shared);
        call.schedule(&mut self.shared);
        call.rearm(&mut self.shared);
    }
}

/// Takes an ACK into its call.
fn take_ack(
    now: Instant,
    call: &mut Call,
    peer: &mut Peer,
    shared: &mut Shared,
    header: &Header,
    ack: &Ack<'_>,
) -> Result<(), RxDrop> {
    // The answer to our ping is new, even from a peer that was restarted and counts from one again.
    let pong = ack.reason == AckReason::PingResponse
        && call.ack.pinged.is_some_and(|(serial, _)| serial == ack.serial);
    let newer = pong
        || call.ack_serial.is_none_or(|seen| header.serial.wrapping_sub(seen).wrapping_sub(1) < u32::MAX / 2);
    let moves = ack.first.wrapping_sub(call.send.first()).wrapping_sub(1) < u32::MAX / 2;
    if !newer && !moves {
        return Err(RxDrop::OldAck);
    }
    // An ACK overtaken by a later one may still free what it acknowledges for good; its slots are out of date.
    let slots = newer.then_some(ack.slots);
    let news =
        call.send.acked(now, ack.first, slots, ack.serial, &peer.rtt).map_err(|fault| match fault {
            AckFault::Old => RxDrop::OldAck,
            AckFault::Beyond => RxDrop::BadAck,
        })?;
    if matches!(ack.reason, AckReason::ExceedsWindow | AckReason::NoSpace) {
        call.send.refused(ack.serial);
    }
    if ack.reason == AckReason::PingResponse
        && let Some(conn) = call.conn
    {
        peer.path_mtu.answered(conn, ack.serial);
    }
    call.deadlines.heard = now;
    call.deadlines.busy = None;
    shared.queued -= news.freed;
    if newer {
        call.ack_serial = Some(header.serial);
        peer.learn(&ack.trailer);
        if let Some(window) = ack.trailer.receive_window {
            call.peer_window = window.min(255);
        }
    }
    let rtt = measure(now, call, peer, shared, ack, &news);
    let duplicate = ack.reason == AckReason::Duplicate;
    if duplicate && call.retransmits > 0 {
        call.send.was_not_lost();
    }
    steer(now, call, peer, shared, &Acked { repaired: news.repaired && !duplicate, ..news }, rtt);
    Ok(())
}

/// Round trips: of the packet that the ACK names, unless the ACK was delayed, and of pings.
fn measure(
    now: Instant,
    call: &mut Call,
    peer: &mut Peer,
    shared: &mut Shared,
    ack: &Ack<'_>,
    news: &Acked,
) -> Option<Duration> {
    let ping = match call.ack.pinged {
        Some((serial, at)) if ack.reason == AckReason::PingResponse && serial == ack.serial => {
            call.ack.pinged = None;
            Some(now.saturating_duration_since(at))
        }
        _ => None,
    };
    let delayed = matches!(ack.reason, AckReason::Delay | AckReason::Idle);
    let sample = news.rtt.filter(|_| !delayed).or(ping)?;
    peer.rtt.sample(now, sample);
    shared.stats.rtt(sample);
    shared.trace_rtt(now, call, peer, sample);
    Some(sample)
}
