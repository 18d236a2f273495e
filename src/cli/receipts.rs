//! `accrue receipts`: what was written where, and whether that record is whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Failure, TopologyFile, connect, look};
use crate::codec::receipt::{ChainEnd, Receipt, from_line, to_line};
use crate::codec::schemas::Schemas;
use crate::config::Topology;
use crate::observe::logs;
use crate::sink::reading;
use crate::sink::receipt::{Broken, Chains};
use crate::stream::log::Log;

#[derive(Subcommand)]
pub enum Command {
    /// Recompute every chain of receipts: finds receipts that were changed, left out or moved
    Verify(Verify),
    /// Write all receipts to files, to be kept and verified elsewhere
    Export(Export),
}

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    file: TopologyFile,
    /// Verify an export instead of the topic; needs nothing else
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    file: TopologyFile,
    /// The folder to write; it must not exist
    #[arg(long)]
    dir: PathBuf,
}

/// The file that says how each chain ended when it was exported.
const ENDS: &str = "chains.jsonl";

pub fn run(command: &Command) -> Result<(), Failure> {
    logs::init("error");
    match command {
        Command::Verify(arguments) => verify(arguments),
        Command::Export(arguments) => export(arguments),
    }
}

fn verify(arguments: &Verify) -> Result<(), Failure> {
    let proof = match &arguments.dir {
        Some(dir) => {
            let mut proof = Proof::default();
            for file in files(dir)? {
                read(&file)?.iter().for_each(|receipt| proof.add(receipt));
            }
            proof.end(&read_ends(&dir.join(ENDS))?);
            proof
        }
        None => {
            let topology = arguments.file.load()?;
            let log = look::log(&topology)?;
            let (registry, _) = connect::registry(&topology)?;
            proof(&topology, log.as_ref(), &connect::schemas(&topology, &registry)?)?
        }
    };
    println!("{}", proof.verdict()?);
    Ok(())
}

/// Every receipt of the topic, held against its chain.
pub fn proof(topology: &Topology, log: &dyn Log, schemas: &Schemas) -> Result<Proof, Failure> {
    // Before the receipts: a sink that runs may add more meanwhile.
    let ends = known_ends(topology, log)?;
    let mut proof = Proof::default();
    reading::receipts(log, topology, schemas, |receipt| {
        proof.add(&receipt);
        Ok(())
    })?;
    proof.end(&ends);
    Ok(proof)
}

/// What a look at receipts found.
#[derive(Default)]
pub struct Proof {
    chains: Chains,
    broken: Vec<Broken>,
    count: u64,
}

impl Proof {
    fn add(&mut self, receipt: &Receipt) {
        self.count += 1;
        self.broken.extend(self.chains.add(receipt));
    }

    fn end(&mut self, ends: &Ends) {
        self.broken.extend(self.chains.end(ends));
    }

    pub fn problems(&self) -> impl Iterator<Item = &Broken> {
        self.broken.iter()
    }

    /// The verdict in words; each problem is printed before.
    ///
    /// # Errors
    /// A receipt was changed, left out or moved.
    pub fn verdict(&self) -> Result<String, anyhow::Error> {
        for problem in &self.broken {
            println!("{problem}");
        }
        match self.broken.len() {
            0 => Ok(format!("{self}: whole")),
            problems => Err(anyhow::anyhow!("{self}: {problems} problems")),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} receipts in {} chains", self.count, self.chains.ends().len())
    }
}

fn export(arguments: &Export) -> Result<(), Failure> {
    let topology = arguments.file.load()?;
    let log = look::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let schemas = connect::schemas(&topology, &registry)?;
    let dir = &arguments.dir;
    fs::create_dir(dir).with_context(|| dir.display().to_string())?;
    let mut files: BTreeMap<(String, u32), BufWriter<fs::File>> = BTreeMap::new();
    let mut failed: Option<anyhow::Error> = None;
    let mut chains = Chains::default();
    let mut count = 0_u64;
    reading::receipts(log.as_ref(), &topology, &schemas, |receipt| {
        let written = (|| -> anyhow::Result<()> {
            let chain = (receipt.sink.clone(), receipt.chain);
            let file = match files.entry(chain) {
                std::collections::btree_map::Entry::Occupied(file) => file.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let path = dir.join(format!("{}-{}.jsonl", receipt.sink, receipt.chain));
                    place.insert(BufWriter::new(fs::File::create(path)?))
                }
            };
            writeln!(file, "{}", to_line(&receipt)?)?;
            Ok(())
        })();
        failed = failed.take().or(written.err());
        chains.add(&receipt);
        count += 1;
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    for file in files.values_mut() {
        file.flush()?;
    }
    let mut ends = fs::File::create(dir.join(ENDS))?;
    for ((sink, chain), end) in chains.ends() {
        let line = ChainEnd {
            sink: sink.clone(),
            chain: *chain,
            number: end.number,
            hash: end.hash.clone(),
        };
        writeln!(ends, "{}", line.to_line())?;
    }
    println!("{count} receipts in {} files of {}", files.len(), dir.display());
    Ok(())
}

type Ends = BTreeMap<crate::sink::receipt::ChainName, crate::codec::delivery::ChainRow>;

/// How each chain ends, as the sinks themselves say.
fn known_ends(topology: &Topology, log: &dyn Log) -> Result<Ends, Failure> {
    let mut ends = Ends::new();
    for sink in topology.sinks.values() {
        match reading::holdings(log, topology, sink) {
            Ok(holdings) => ends.extend(holdings.chains),
            // A sink that never ran.
            Err(reading::ReadError::NoTopic(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ends)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let is_receipts = path.extension().is_some_and(|extension| extension == "jsonl");
        if is_receipts && path.file_name().is_some_and(|name| name != ENDS) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<Receipt>, Failure> {
    let name = file.display();
    let lines = BufReader::new(fs::File::open(file).with_context(|| name.to_string())?).lines();
    let mut receipts = Vec::new();
    for (n, line) in lines.enumerate() {
        let receipt = from_line(&line?).with_context(|| format!("{name} line {}", n + 1))?;
        receipts.push(receipt);
    }
    Ok(receipts)
}

fn read_ends(file: &Path) -> Result<Ends, Failure> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| name.clone())?;
    let mut ends = Ends::new();
    for line in text.lines() {
        let end = ChainEnd::from_line(line).with_context(|| name.clone())?;
        ends.insert(
            (end.sink, end.chain),
            crate::codec::delivery::ChainRow {
                number: end.number,
                hash: end.hash,
            },
        );
    }
    Ok(ends)
}
