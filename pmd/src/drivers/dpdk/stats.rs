//! What the device itself counted: frames that it lost or refused, by its own names (xstats) where it has any.
//!
//! Ethdevs count errors in sum (`ierrors`, `oerrors`, `imissed`, `rx_nombuf`) and, by names of each driver's own, in detail. The details are
//! listed by name, and what the sums have beyond them under the sums' names, so that nothing is counted twice.

use std::collections::HashSet;
use std::ffi::CStr;
use std::sync::{Mutex, PoisonError};

use dpdk_sys as sys;

use crate::counters::{Drops, QueueStats};

/// A driver's counters that tell of lost frames.
#[derive(Debug, Default)]
pub(super) struct Details {
    names: Vec<(u64, &'static str, Direction)>,
    count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Receive,
    Transmit,
}

/// Names that ethdev gives the sums, and each queue's share of them.
const SUMS: &[&str] = &["rx_missed_errors", "rx_errors", "tx_errors", "rx_mbuf_allocation_errors"];
/// Words that a counter of lost frames has in its name.
const WORDS: &[&str] = &["err", "drop", "discard", "miss"];

impl Details {
    /// Asks the driver for its names.
    pub(super) fn of(port: u16) -> Details {
        // SAFETY: without a place for names it returns how many there are.
        let count = unsafe { sys::rte_eth_xstats_get_names(port, std::ptr::null_mut(), 0) };
        let Ok(count) = usize::try_from(count) else { return Details::default() };
        let mut names = vec![sys::rte_eth_xstat_name::default(); count];
        // SAFETY: room for as many as there are.
        let got = unsafe { sys::rte_eth_xstats_get_names(port, names.as_mut_ptr(), count as u32) };
        if usize::try_from(got) != Ok(count) {
            return Details::default();
        }
        let detail = |(id, name): (usize, &sys::rte_eth_xstat_name)| {
            // SAFETY: a string that ends within its array, as ethdev has it.
            let name = unsafe { CStr::from_ptr(name.name.as_ptr()) }.to_str().ok()?;
            Some((id as u64, intern(name), direction(name)?))
        };
        Details { names: names.iter().enumerate().filter_map(detail).collect(), count }
    }

    fn read(&self, port: u16) -> Vec<(&'static str, Direction, u64)> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let mut values = vec![sys::rte_eth_xstat::default(); self.count];
        // SAFETY: room for as many as there are.
        let got = unsafe { sys::rte_eth_xstats_get(port, values.as_mut_ptr(), self.count as u32) };
        if usize::try_from(got) != Ok(self.count) {
            return Vec::new();
        }
        let value = |id: u64| values.iter().find(|value| value.id == id).map_or(0, |value| value.value);
        self.names.iter().map(|&(id, name, direction)| (name, direction, value(id))).collect()
    }
}

/// Whether a counter of this name is a detail, and of what.
fn direction(name: &str) -> Option<Direction> {
    let of_a_queue = name.get(2..4) == Some("_q") && name.as_bytes().get(4).is_some_and(u8::is_ascii_digit);
    if SUMS.contains(&name) || of_a_queue || !WORDS.iter().any(|word| name.contains(word)) {
        return None;
    }
    match name.starts_with("tx") {
        true => Some(Direction::Transmit),
        false => Some(Direction::Receive),
    }
}

/// The same text, forever: there are as many as drivers of DPDK have names, however often ports are opened.
fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(name) {
        return known;
    }
    let text: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(text);
    text
}

/// What the device dropped. Zeroes are left out.
pub(super) fn of_the_device(port: u16, details: &Details) -> Option<QueueStats> {
    let mut sums = sys::rte_eth_stats::default();
    // SAFETY: a place for the counters.
    if unsafe { sys::rte_eth_stats_get(port, &mut sums) } != 0 {
        return None;
    }
    let mut drops = Drops::default();
    let (mut received, mut transmitted) = (0, 0);
    for (name, direction, count) in details.read(port).into_iter().filter(|detail| detail.2 > 0) {
        match direction {
            Direction::Receive => received += count,
            Direction::Transmit => transmitted += count,
        }
        drops.add(name, count);
    }
    let rest = [
        ("rx_missed", sums.imissed),
        ("rx_errors", sums.ierrors.saturating_sub(received)),
        ("tx_errors", sums.oerrors.saturating_sub(transmitted)),
    ];
    for (name, count) in rest.into_iter().filter(|rest| rest.1 > 0) {
        drops.add(name, count);
    }
    Some(QueueStats { rx_no_buffer: sums.rx_nombuf, drops, ..QueueStats::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_told_from_sums_and_from_what_is_no_loss() {
        assert_eq!(direction("rx_crc_errors"), Some(Direction::Receive));
        assert_eq!(direction("tx_dropped"), Some(Direction::Transmit));
        for name in ["rx_good_packets", "rx_errors", "rx_missed_errors", "rx_q0_errors", "tx_q12_dropped"] {
            assert_eq!(direction(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_is_kept_once() {
        let text = String::from("rx_length_errors");
        assert!(std::ptr::eq(intern(&text), intern("rx_length_errors")));
    }
}
