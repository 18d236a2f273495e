//! `accrue books`: facts through the accounting core, without a log.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use jiff::civil::Date;

use super::Failure;
use crate::codec::replay;
use crate::config;
use crate::revenue::reference::Settings;

#[derive(Subcommand)]
pub enum Command {
    /// Fold a file of facts, one JSON object a line, and print the books
    Replay(Replay),
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
    }
}

fn replay(arguments: &Replay) -> Result<(), Failure> {
    let settings = match &arguments.topology {
        Some(path) => config::load_settings(path).map_err(Failure::Configuration)?,
        None => Settings::default(),
    };
    let events: Box<dyn BufRead> = if arguments.events.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let path = arguments.events.display();
        Box::new(BufReader::new(
            File::open(&arguments.events).with_context(|| format!("--events {path}"))?,
        ))
    };
    match arguments.format {
        Format::Json => println!("{}", replay::replay(events, &settings, arguments.as_of)),
    }
    Ok(())
}
