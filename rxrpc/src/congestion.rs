//! Congestion control of one call.
//!
//! The send queue decides what is lost; a controller only turns that into a window. Windows are in packets, as
//! everything in Rx is. [`Reno`] is RFC 5681's slow start, congestion avoidance and halving.

/// What a controller is told, and what it answers.
pub trait CongestionControl {
    /// The most packets that may be in flight.
    fn window(&self) -> u32;
    /// Whether the window still grows by a packet for each packet acknowledged.
    fn in_slow_start(&self) -> bool;
    /// `packets` were newly acknowledged, outside of a recovery. `limited`: the window, and not the sender's lack of
    /// data, was what held the sender back.
    fn on_acked(&mut self, packets: u32, limited: bool);
    /// ACKs showed a loss: called once for each window of data.
    fn on_loss(&mut self, in_flight: u32);
    /// Nothing was heard for a retransmission timeout.
    fn on_timeout(&mut self, in_flight: u32);
}

/// The largest window that Rx's acknowledgements can describe.
pub const WINDOW_MAX: u32 = 255;
/// Packets sent before anything is known (RFC 6928).
const INITIAL_WINDOW: u32 = 10;

/// RFC 5681.
#[derive(Clone, Copy, Debug)]
pub struct Reno {
    window: u32,
    threshold: u32,
    /// Packets acknowledged since the window last grew, in congestion avoidance.
    acked: u32,
}

impl Default for Reno {
    fn default() -> Self {
        Self { window: INITIAL_WINDOW, threshold: WINDOW_MAX, acked: 0 }
    }
}

impl CongestionControl for Reno {
    fn window(&self) -> u32 {
        self.window
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    fn on_acked(&mut self, packets: u32, limited: bool) {
        if !limited {
            return;
        }
        if self.in_slow_start() {
            self.window = (self.window + packets).min(self.threshold);
            return;
        }
        self.acked += packets;
        if self.acked >= self.window {
            self.acked -= self.window;
            self.window = (self.window + 1).min(WINDOW_MAX);
        }
    }

    fn on_loss(&mut self, in_flight: u32) {
        self.threshold = (in_flight / 2).max(2);
        self.window = self.threshold;
        self.acked = 0;
    }

    fn on_timeout(&mut self, in_flight: u32) {
        self.threshold = (in_flight / 2).max(2);
        self.window = 1;
        self.acked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_then_grows_by_one_and_halves() {
        let mut reno = Reno::default();
        reno.on_acked(10, true);
        assert_eq!(reno.window(), 20);
        reno.on_acked(5, false);
        assert_eq!(reno.window(), 20, "a sender short of data proves nothing");
        reno.on_loss(20);
        assert_eq!(reno.window(), 10);
        reno.on_acked(10, true);
        assert_eq!(reno.window(), 11);
        reno.on_timeout(11);
        assert_eq!((reno.window(), reno.in_slow_start()), (1, true));
        for _ in 0..100_000 {
            reno.on_acked(2, true);
        }
        assert_eq!(reno.window(), WINDOW_MAX);
    }
}
