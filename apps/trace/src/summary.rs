//! What a log comes to, in words.

use crate::line::Event;
use crate::read::{Trace, TracedCallLog};
use std::collections::BTreeMap;
use std::fmt;

/// Calls that are listed, those with the most packets first.
const LISTED: usize = 20;

/// See the module.
#[derive(Debug, Default)]
pub struct Summary {
    program: String,
    seconds: f64,
    calls: usize,
    /// How calls ended, in words.
    ends: BTreeMap<String, usize>,
    /// Datagrams by type: sent, received.
    packets: BTreeMap<String, [usize; 2]>,
    again: usize,
    lost: u64,
    timeouts: usize,
    /// Reasons of refusals.
    refused: BTreeMap<String, usize>,
    /// Round trips in microseconds, sorted.
    rtts: Vec<f64>,
    missing: u64,
    listed: Vec<Row>,
}

/// A call.
#[derive(Debug)]
struct Row {
    name: String,
    who: String,
    sent: usize,
    received: usize,
    again: usize,
    seconds: f64,
    end: String,
}

impl Summary {
    /// Of a log.
    pub fn of(trace: &Trace) -> Self {
        let mut summary = Self {
            program: trace.program.clone(),
            calls: trace.calls.len(),
            missing: trace.missing,
            ..Self::default()
        };
        let all = trace.calls.iter().flat_map(|call| &call.events).chain(&trace.others);
        for (t, event) in all {
            summary.seconds = summary.seconds.max(*t as f64 / 1e9);
            summary.count(event);
        }
        summary.rtts.sort_by(f64::total_cmp);
        for call in &trace.calls {
            *summary.ends.entry(end(call)).or_default() += 1;
        }
        let mut calls: Vec<&TracedCallLog> = trace.calls.iter().collect();
        calls.sort_by_key(|call| std::cmp::Reverse(call.data()));
        summary.listed = calls.into_iter().take(LISTED).map(Row::new).collect();
        summary
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Sent(packet) => {
                self.packets.entry(packet.kind.clone()).or_default()[0] += 1;
                self.again += usize::from(packet.again);
            }
            Event::Received(packet) => self.packets.entry(packet.kind.clone()).or_default()[1] += 1,
            Event::Refused { reason } => *self.refused.entry(reason.clone()).or_default() += 1,
            Event::Lost { packets } => self.lost += u64::from(*packets),
            Event::TimedOut { .. } => self.timeouts += 1,
            Event::Rtt { sample_us, .. } => self.rtts.push(*sample_us),
            _ => {}
        }
    }
}

fn end(call: &TracedCallLog) -> String {
    let ended = call.events.iter().find_map(|(_, event)| match event {
        Event::Ended { completion, .. } => Some(completion.clone()),
        _ => None,
    });
    ended.unwrap_or_else(|| "not ended".into())
}

impl Row {
    fn new(call: &TracedCallLog) -> Self {
        let who = call.events.iter().find_map(|(_, event)| match event {
            Event::Begun { role, peer, service } => Some(format!("{role}, {peer}, service {service}")),
            _ => None,
        });
        let first = call.events.first().map_or(0, |(t, _)| *t);
        let last = call.events.last().map_or(0, |(t, _)| *t);
        let (mut sent, mut received, mut again) = (0, 0, 0);
        for (_, event) in &call.events {
            match event {
                Event::Sent(packet) if packet.is_data() => {
                    sent += 1;
                    again += usize::from(packet.again);
                }
                Event::Received(packet) if packet.is_data() => received += 1,
                _ => {}
            }
        }
        Self {
            name: call.name.to_string(),
            who: who.unwrap_or_else(|| "begun before the log".into()),
            sent,
            received,
            again,
            seconds: (last - first) as f64 / 1e9,
            end: end(call),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} calls in {:.3} s", self.program, self.calls, self.seconds)?;
        for (end, count) in &self.ends {
            writeln!(f, "  {count:>8} {end}")?;
        }
        writeln!(f, "datagrams        sent  received")?;
        for (kind, [sent, received]) in &self.packets {
            writeln!(f, "  {kind:<10} {sent:>8}  {received:>8}")?;
        }
        let Self { again, lost, timeouts, .. } = self;
        writeln!(f, "{again} sent again, {lost} found lost by ACKs, {timeouts} retransmission timeouts")?;
        for (reason, count) in &self.refused {
            writeln!(f, "  {count:>8} refused: {reason}")?;
        }
        if let (Some(least), Some(most)) = (self.rtts.first(), self.rtts.last()) {
            let median = self.rtts[self.rtts.len() / 2];
            let count = self.rtts.len();
            writeln!(
                f,
                "round trips: {count}, {least:.0} / {median:.0} / {most:.0} us (least, median, most)"
            )?;
        }
        if self.missing > 0 {
            writeln!(f, "{} events are missing: they came faster than they were written", self.missing)?;
        }
        if !self.listed.is_empty() {
            writeln!(f, "calls with the most payload (packets sent, of these again, received):")?;
        }
        for Row { name, who, sent, received, again, seconds, end } in &self.listed {
            writeln!(f, "  {name}  {who}: {sent}, {again}, {received} in {seconds:.4} s, {end}")?;
        }
        Ok(())
    }
}
