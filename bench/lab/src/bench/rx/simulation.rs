//! What the simulation of rxrpc (`rxrpc/tests/sim`) says of the same paths, in virtual time.
//!
//! Its table is a file beside it, and a test that computes it anew fails if a digit differs: that test is run first.

use crate::cargo::cargo;
use crate::fault::{Context, Fault, Result, ensure};
use crate::step::Cx;

/// A congestion control, as the table calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Cubic,
    Bbr,
}

/// The table.
pub struct Simulation {
    flows: Vec<Flow>,
    /// Two flows through one bottleneck.
    pub shares: Vec<Share>,
}

/// One call with a window of 255.
struct Flow {
    control: Control,
    rtt_ms: u64,
    loss_percent: f64,
    megabytes_per_second: f64,
}

/// Two calls through one bottleneck.
#[derive(Debug, PartialEq)]
pub struct Share {
    /// Of both.
    pub control: Control,
    /// Without the queue.
    pub rtt_ms: u64,
    /// Of the slower one's half: 1 is fair.
    pub fairness: f64,
}

impl Simulation {
    /// Computes it, and reads it.
    pub fn run(cx: &Cx<'_>) -> Result<Simulation> {
        let test = ["test", "--locked", "--package", "rxrpc", "--test", "sim", "table_is_as_written"];
        cargo(cx).args(test).run_to_log(cx)?;
        let path = cx.host.root.join("rxrpc/tests/sim/throughput.txt");
        let text = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        let simulation = read(&text)?;
        ensure!(
            !simulation.flows.is_empty() && !simulation.shares.is_empty(),
            "{} says nothing",
            path.display()
        );
        Ok(simulation)
    }

    /// MB/s of one call; none where it was not computed.
    pub fn rate(&self, control: Control, rtt_ms: u64, loss_percent: f64) -> Option<f64> {
        let of_path =
            |flow: &&Flow| (flow.control, flow.rtt_ms, flow.loss_percent) == (control, rtt_ms, loss_percent);
        self.flows.iter().find(of_path).map(|flow| flow.megabytes_per_second)
    }
}

fn read(text: &str) -> Result<Simulation> {
    let mut simulation = Simulation { flows: Vec::new(), shares: Vec::new() };
    for line in text.lines() {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let control = match name {
            "cubic" => Control::Cubic,
            "bbr" => Control::Bbr,
            _ => continue,
        };
        let numbers: Vec<f64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [rtt_ms, loss_percent, window, megabytes_per_second, _, _, _] => {
                if window == 255.0 {
                    let rtt_ms = rtt_ms as u64;
                    simulation.flows.push(Flow { control, rtt_ms, loss_percent, megabytes_per_second });
                }
            }
            [rtt_ms, _, _, _, fairness, _] => {
                simulation.shares.push(Share { control, rtt_ms: rtt_ms as u64, fairness });
            }
            _ => return Err(Fault::Check(format!("the simulation's table has a line {line:?}"))),
        }
    }
    Ok(simulation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let table = include_str!("../../../../../rxrpc/tests/sim/throughput.txt");
        let simulation = read(table).unwrap();
        let rate = simulation.rate(Control::Cubic, 10, 0.0).unwrap();
        assert!((30.0..36.2).contains(&rate), "{rate} MB/s");
        assert!(
            simulation.rate(Control::Bbr, 50, 1.0).is_some()
                && simulation.rate(Control::Bbr, 7, 1.0).is_none()
        );
        assert_eq!(simulation.shares.len(), 12);
        assert!(simulation.shares.iter().all(|share| (0.5..=1.0).contains(&share.fairness)));
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error() {
        assert!(read("cubic 1 2\n").is_err());
    }
}
