//! Printing that ends quietly when nobody reads on, as in `accrue ... | head`.
//!
//! The macros of this file take the place of those of the standard library in every command: theirs panic when the
//! reader of standard output has gone. Deliberately absent: the default action of SIGPIPE, which would end a process
//! without a word when a broker or a registry closes a connection.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};

/// For whom a command prints what it found: people, or programs.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

macro_rules! print {
    ($($arg:tt)*) => { $crate::cli::out::write(format_args!($($arg)*)) };
}

macro_rules! println {
    () => { $crate::cli::out::write(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Writes to standard output. A reader that has gone has seen enough: the process ends, successfully.
pub(super) fn write(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        // At once, without destructors: other threads may be at work, and whatever they write is safe against a kill.
        match error.kind() {
            ErrorKind::BrokenPipe => signal_hook::low_level::exit(0),
            _ => {
                let _ = writeln!(io::stderr(), "error: standard output cannot be written: {error}");
                signal_hook::low_level::exit(1)
            }
        }
    }
}
