//! Line rate: what a link of a given speed carries at most, with all that Ethernet puts around a frame.

/// Bytes on the wire that no frame here contains: preamble and start delimiter (8), FCS (4), the gap between frames (12).
pub const OVERHEAD: usize = 24;

/// Bytes of the smallest frame as RFC 2544 counts it: with FCS.
pub const FRAME_MIN: usize = 64;

/// Frames a second of `frame` bytes (RFC 2544's count: FCS included) that a link of `bits_per_second` carries at most.
pub fn frames_per_second(bits_per_second: u64, frame: usize) -> f64 {
    bits_per_second as f64 / bits_on_the_wire(frame)
}

/// Bits that a frame of `frame` bytes (FCS included) takes from the wire.
pub fn bits_on_the_wire(frame: usize) -> f64 {
    ((frame.max(FRAME_MIN) + OVERHEAD - 4) * 8) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2544's table and every vendor's: 14.88 Mpps of 64-byte frames at 10 Gbit/s.
    #[test]
    fn the_well_known_rates() {
        for (gigabits, frame, frames) in [
            (1, 64, 1_488_095.0),
            (10, 64, 14_880_952.0),
            (10, 1518, 812_743.0),
            (40, 64, 59_523_809.0),
            (100, 1518, 8_127_438.0),
        ] {
            let rate = frames_per_second(gigabits * 1_000_000_000, frame);
            assert!((rate - frames).abs() < 1.0, "{gigabits}G, {frame} bytes: {rate}");
        }
    }
}
