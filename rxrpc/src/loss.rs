//! What follows from a loss, and from its absence: the congestion window, and the retransmission timer.
//!
//! The send queue finds what is lost (by RACK, rack.rs); here the controller hears of it.

use crate::call::{Call, Resend};
use crate::congestion::{CongestionControl, Delivery};
use crate::peer::Peer;
use crate::send_queue::Acked;
use crate::shared::Shared;
use crate::trace::Happened;
use pmd::Instant;
use std::time::Duration;

/// An ACK was taken in; `rtt` is the round trip that it measured.
pub fn steer(
    now: Instant,
    call: &mut Call,
    peer: &mut Peer,
    shared: &mut Shared,
    news: &Acked,
    rtt: Option<Duration>,
) {
    if news.packets > 0 {
        call.congestion.on_ack(&Delivery {
            now,
            packets: news.packets,
            limited: call.limited,
            starved: call.send.unsent() == 0,
            round: news.round,
            rtt,
            lost: news.lost,
            in_flight: call.send.in_flight(),
            recovering: news.lost > 0 || call.send.recovering(),
            smoothed_rtt: peer.rtt.smoothed().unwrap_or_default(),
        });
        (call.deadlines.backoff, call.deadlines.probed) = (0, false);
    }
    if news.jumbo {
        peer.path_mtu.jumbo_arrived();
    }
    if news.lost > 0 || news.repaired {
        lost(now, call, peer, shared, news.lost);
    }
    if news.packets > 0 {
        call.arm_resend(now, &peer.rtt, &shared.config, true);
    }
    shared.trace_windows(now, call);
}

/// Packets were lost. The controller hears of it once for each window of data.
fn lost(now: Instant, call: &mut Call, peer: &mut Peer, shared: &mut Shared, packets: u32) {
    peer.path_mtu.jumbo_packets_lost(now, call.send.take_jumbo_lost());
    shared.stats.fast_retransmits += u64::from(packets);
    if packets > 0 {
        shared.trace(now, call, || Happened::Lost { packets });
    }
    if !call.send.in_recovery() {
        call.congestion.on_loss();
    }
}

/// The retransmission timer fired.
pub fn resend(now: Instant, call: &mut Call, peer: &mut Peer, shared: &mut Shared) {
    let d = &mut call.deadlines;
    d.resend = None;
    match d.resend_for {
        Resend::Reorder => {
            let packets = call.send.overdue(now);
            if packets > 0 {
                lost(now, call, peer, shared, packets);
                shared.trace_windows(now, call);
            }
            call.arm_resend(now, &peer.rtt, &shared.config, true);
        }
        Resend::Probe => {
            // One probe for each silence: the next firing is a timeout.
            d.probe = call.send.in_flight() > 0;
            d.probed = true;
        }
        Resend::Timeout => {
            d.backoff += 1;
            let packets = call.send.in_flight();
            if packets > 0 {
                shared.stats.timeouts += 1;
                call.send.timed_out();
                peer.path_mtu.jumbo_packets_lost(now, call.send.take_jumbo_lost());
                call.congestion.on_timeout();
                shared.trace(now, call, || Happened::TimedOut { packets });
                shared.trace_windows(now, call);
            } else {
                // The peer's window holds everything back, or it has all of it and has not taken it for good: ask.
                call.ack.ping = true;
            }
        }
    }
}
