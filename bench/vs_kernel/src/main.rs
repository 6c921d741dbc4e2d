//! The program: see the library's head for what it measures, `vs_kernel --help` for how to ask.

use std::process::ExitCode;

fn main() -> ExitCode {
    vs_kernel::cli::main()
}
