//! The command line: one file per subcommand.
//!
//! Owns: arguments, wiring, exit codes (0 done, 1 failed, 2 bad usage or configuration, 3 stuck).
//! Invariant: a command prints its result on stdout and everything else on stderr.
//! Absent: logic that a test would want without a process; that lives in the room it belongs to.

#[macro_use]
mod out;

mod apply;
mod books;
mod budget;
mod check;
mod connect;
mod deadletters;
mod deal;
mod deliveries;
mod describe;
mod facts;
mod look;
mod offsets;
mod quickstart;
mod receipts;
mod reset;
mod run;
mod sandbox;
mod sink;
mod sla;
mod status;
mod topics;
mod verify;
mod warehouse;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Name, Problem, Topology, Unfit};
use crate::stream::log::kafka::{SettingError, check_setting};

/// Carries closed deals from the CRM to the books, exactly once.
#[derive(Parser)]
#[command(name = "accrue", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything in one process: loads a sample CRM history, prints the books
    Quickstart(quickstart::Arguments),
    /// Validate topology.toml: every error, with its line
    Check(TopologyFile),
    /// Print what reads and writes what
    Describe(describe::Arguments),
    /// Create topics, schemas and warehouse tables: a plan first, then do it
    Apply(apply::Arguments),
    /// The stream processor
    Run(TopologyFile),
    /// Begin again: empty the stream processor's state, to be filled from what it has read
    Reset(reset::Arguments),
    /// Where the stream processor and the sinks read next: show, rewind
    #[command(subcommand)]
    Offsets(offsets::Command),
    /// Deliver documents of the books to ledgers
    Sink(sink::Arguments),
    /// Documents on their way to ledgers: list, explain, decide
    #[command(subcommand)]
    Deliveries(deliveries::Command),
    /// What was written where, verified
    #[command(subcommand)]
    Receipts(receipts::Command),
    /// How long events took to reach their ledgers
    #[command(subcommand)]
    Sla(sla::Command),
    /// Carry the books into a warehouse's tables
    Warehouse(warehouse::Arguments),
    /// Publish what is planned for each month, for planning systems
    Budget(budget::Arguments),
    /// How many records the stream processor has still to process
    Status(status::Arguments),
    /// Whether log, stores, journal, books and receipts fit together
    Verify(verify::Arguments),
    /// Say something to the books: rates, period closes, the clock
    #[command(subcommand)]
    Facts(facts::Command),
    /// One deal: what it is, and why
    #[command(subcommand)]
    Deal(deal::Command),
    /// The books: reports, exports, checks, period closes
    #[command(subcommand)]
    Books(books::Command),
    /// Records that could not be used: list, show, retry, drop
    #[command(subcommand)]
    Deadletters(deadletters::Command),
    /// Play accounting systems, to see what would be posted
    Sandbox(sandbox::Arguments),
    /// Look into topics
    #[command(subcommand)]
    Topics(topics::Command),
}

/// Which topology file.
#[derive(Args)]
pub struct TopologyFile {
    /// The topology file
    #[arg(long, short, default_value = "topology.toml", env = "ACCRUE_TOPOLOGY")]
    topology: PathBuf,
}

impl TopologyFile {
    fn load(&self) -> Result<Topology, Failure> {
        load(&self.topology)
    }
}

/// Reads a topology file; what the Kafka client would refuse later is refused here, with its line.
fn load(path: &Path) -> Result<Topology, Failure> {
    let judge = |name: &str, value: &str| {
        check_setting(name, value).map_err(|error| match error {
            SettingError::Unknown => Unfit::Name,
            SettingError::Value(why) => Unfit::Value(why),
        })
    };
    config::load_with(path, &judge).map_err(Failure::Configuration)
}

/// What the topology has under `[TABLE.NAME]`.
fn named<'t, T>(table: &str, entries: &'t BTreeMap<Name, T>, name: &str) -> Result<&'t T, Failure> {
    let found = entries.iter().find(|(known, _)| known.as_str() == name);
    found.map(|(_, entry)| entry).ok_or_else(|| {
        let known: Vec<&str> = entries.keys().map(Name::as_str).collect();
        let known = match known.is_empty() {
            true => "none".to_owned(),
            false => known.join(", "),
        };
        Failure::Usage(format!("there is no [{table}.{name}]; there are: {known}"))
    })
}

/// Asks whether to go on, unless `yes` says so.
fn confirm(yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "nothing was changed: add --yes where nobody can be asked".to_owned(),
        ));
    }
    eprint!("Go on? Type yes: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::Usage("nothing was changed".to_owned())),
    }
}

/// Why a command failed, and so its exit code.
pub enum Failure {
    /// Exit code 2: each problem of the topology file.
    Configuration(Vec<Problem>),
    /// Exit code 2: arguments that cannot be right.
    Usage(String),
    /// Exit code 1.
    Failed(anyhow::Error),
    /// Exit code 3: a call into a client library that never returns; a new start goes on from the last commit.
    Stuck(String),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.into())
    }
}

/// Runs one command to its end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Quickstart(arguments) => quickstart::run(&arguments),
        Command::Check(file) => check::run(&file),
        Command::Describe(arguments) => describe::run(&arguments),
        Command::Apply(arguments) => apply::run(&arguments),
        Command::Run(file) => run::run(&file),
        Command::Reset(arguments) => reset::run(&arguments),
        Command::Offsets(command) => offsets::run(&command),
        Command::Sink(arguments) => sink::run(&arguments),
        Command::Deliveries(command) => deliveries::run(&command),
        Command::Receipts(command) => receipts::run(&command),
        Command::Sla(command) => sla::run(&command),
        Command::Warehouse(arguments) => warehouse::run(&arguments),
        Command::Budget(arguments) => budget::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Facts(command) => facts::run(&command),
        Command::Deal(command) => deal::run(&command),
        Command::Books(command) => books::run(&command),
        Command::Deadletters(command) => deadletters::run(&command),
        Command::Sandbox(arguments) => sandbox::run(&arguments),
        Command::Topics(command) => topics::run(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(problems)) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            let s = if problems.len() == 1 { "" } else { "s" };
            eprintln!("{} problem{s}; nothing was started", problems.len());
            ExitCode::from(2)
        }
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
        Err(Failure::Stuck(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(3)
        }
    }
}
