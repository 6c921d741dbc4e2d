//! Congestion control of one call.
//!
//! The send queue decides what is lost; a controller only turns what it is told into a window and a pace. Windows are in
//! packets, as everything in Rx is. [`Cubic`] is the default; `EndpointConfig::congestion` chooses.

mod cubic;

pub use cubic::Cubic;
use pmd::Instant;
use std::time::Duration;

/// The largest window that Rx's acknowledgements can describe.
pub const WINDOW_MAX: u32 = 255;
/// Packets sent before anything is known (RFC 6928).
const INITIAL_WINDOW: u32 = 10;

/// What one ACK shows of the network.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub now: Instant,
    /// Packets newly acknowledged, softly or for good.
    pub packets: u32,
    /// The window or the pace, and not a lack of data, is what holds the sender back.
    pub limited: bool,
    /// A loss was found in the window that is being acknowledged.
    pub recovering: bool,
    /// The peer's smoothed round trip; zero before the first measurement.
    pub smoothed_rtt: Duration,
}

/// What a controller is told, and what it answers.
pub trait CongestionControl {
    /// The most packets that may be in flight.
    fn window(&self) -> u32;
    /// An ACK brought news.
    fn on_ack(&mut self, delivery: &Delivery);
    /// A loss was found: called once for each window of data.
    fn on_loss(&mut self);
    /// Nothing was heard for a retransmission timeout.
    fn on_timeout(&mut self);
}
