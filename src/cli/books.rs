//! `accrue books`: facts through the accounting core, and what finance makes of them.
//!
//! Every command but `replay` takes its facts from a file or from the log (`known`). Invariant: what is printed is
//! folded from facts, never read from an output, so that a report can be checked against the topics.

mod close;
mod diff;
mod export;
pub(super) mod known;
mod report;
pub(super) mod table;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::civil::Date;

pub(super) use self::report::waterfall;
use super::Failure;
use crate::codec::replay;
use crate::config;
use crate::revenue::ids::TenantId;
use crate::revenue::period::Period;
use crate::revenue::reference::Settings;

#[derive(Subcommand)]
pub enum Command {
    /// Fold a file of facts, one JSON object a line, and print the books as one JSON document
    Replay(Replay),
    /// Deferred revenue, remaining obligations, recurring revenue and its movement, forecast, trial balance
    Report(report::Arguments),
    /// The journal for hledger, Beancount or a spreadsheet
    Export(export::Arguments),
    /// Check every invariant of the books; exit code 1 when one does not hold
    Verify(close::Verify),
    /// The hash of a period's entries; it never changes once the period is closed
    Hash(close::Hash),
    /// Close a period: verify, print its hash, and say `period.closed` to the log
    Close(close::Close),
    /// What two sets of policies make of the same facts, by account, period and deal
    Diff(diff::Arguments),
}

#[derive(Args)]
pub struct Replay {
    /// The facts; `-` reads standard input
    #[arg(long)]
    events: PathBuf,
    /// Tenants and policies; without it every tenant gets the defaults
    #[arg(long)]
    topology: Option<PathBuf>,
    /// Books as of this day: a clock tick after the last fact
    #[arg(long, value_name = "DATE")]
    as_of: Option<Date>,
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Json,
}

pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Replay(arguments) => replay(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Verify(arguments) => close::verify(arguments),
        Command::Hash(arguments) => close::hash(arguments),
        Command::Close(arguments) => close::close(arguments),
        Command::Diff(arguments) => diff::run(arguments),
    }
}

fn replay(arguments: &Replay) -> Result<(), Failure> {
    let settings = match &arguments.topology {
        Some(path) => config::load_settings(path).map_err(Failure::Configuration)?,
        None => Settings::default(),
    };
    let events = known::open(&arguments.events)?;
    match arguments.format {
        Format::Json => println!("{}", replay::replay(events, &settings, arguments.as_of)),
    }
    Ok(())
}

/// Reads `--period`.
pub(super) fn period(label: &str) -> Result<Period, String> {
    Period::parse(label).ok_or_else(|| "write a period as 2026-02, or FY2026-P02 in a fiscal calendar".to_owned())
}

/// Reads `--tenant`.
pub(super) fn tenant(text: &str) -> Result<TenantId, String> {
    TenantId::parse(text).ok_or_else(|| "a tenant id is letters, digits, dots, dashes and underscores".to_owned())
}
