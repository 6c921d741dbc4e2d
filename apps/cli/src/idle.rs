//! `--idle`, the same for every command that polls.

use engine::Idle;

/// How cores idle.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct IdleArgs {
    /// What a core does when there is nothing to do: spin, pause, or sleep[:SPINS]
    ///
    /// spin polls on: the lowest latency, and the whole CPU. pause polls on with pauses of up to some microseconds, in which other threads
    /// may have the CPU. sleep polls for SPINS idle turns of some 100 ns each (500 if not given), pauses for 100 more, then blocks until a
    /// frame, a timer or a command comes: an idle core costs nothing, and whatever finds it asleep waits 10 to 50 us longer.
    /// `rxline demo --idle all` measures what each costs on this machine.
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub idle: Idle,
}
