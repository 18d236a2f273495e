//! The `accrue` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    accrue::cli::main()
}
