//! `accrue deadletters`: records that could not be used; list, show, retry, drop.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::out::Format;
use super::{Failure, TopologyFile, connect, look};
use crate::codec::dead_letter::DeadLetter;
use crate::codec::registry::Registry;
use crate::codec::schemas::AnyReader;
use crate::config::Topology;
use crate::observe::logs;
use crate::pipeline::dead_letters::{Clerk, Filed, LetterId, read};
use crate::revenue::ids::DealId;
use crate::stream::record::Topic;

#[derive(Subcommand)]
pub enum Command {
    /// Letters that nobody has dealt with, and how many there are of each reason
    List(List),
    /// One letter, whole: why, where from, its record decoded as far as possible
    Show(Show),
    /// Send records round again, each once, perhaps corrected
    Retry(Retry),
    /// Mark letters as needing nothing
    Drop(Drop),
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    file: TopologyFile,
    /// Only this reason
    #[arg(long)]
    code: Option<String>,
    /// Only those about this deal, as far as a letter or its record in JSON names one
    #[arg(long, value_name = "ID")]
    deal: Option<String>,
    /// Also those that were retried or dropped
    #[arg(long)]
    all: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Args)]
pub struct Show {
    /// The letter, as `list` names it: partition:offset
    id: String,
    #[command(flatten)]
    file: TopologyFile,
}

#[derive(Args)]
pub struct Retry {
    /// Letters, as `list` names them: partition:offset
    ids: Vec<String>,
    #[command(flatten)]
    file: TopologyFile,
    /// All open letters of this reason
    #[arg(long, conflicts_with = "ids")]
    code: Option<String>,
    /// The corrected value of the one record, from a file or, with -, from stdin; byte for byte
    #[arg(long, conflicts_with = "code")]
    value: Option<PathBuf>,
}

#[derive(Args)]
pub struct Drop {
    /// Letters, as `list` names them: partition:offset
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    file: TopologyFile,
}

pub fn run(command: &Command) -> Result<(), Failure> {
    logs::init("warn");
    match command {
        Command::List(arguments) => list(arguments),
        Command::Show(arguments) => show(arguments),
        Command::Retry(arguments) => retry(arguments),
        Command::Drop(arguments) => drop_letters(arguments),
    }
}

fn list(arguments: &List) -> Result<(), Failure> {
    let topology = arguments.file.load()?;
    let log = look::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let schemas = connect::schemas(&topology, &registry)?;
    let topic = Topic::new(topology.outputs.dead_letters.as_str());
    let letters = read(log.as_ref(), &topic, &schemas)?;
    let wanted: Vec<(&LetterId, &Filed)> = letters
        .iter()
        .filter(|(_, filed)| arguments.all || filed.resolution.is_none())
        .filter(|(_, filed)| arguments.code.as_ref().is_none_or(|code| *code == filed.letter.code))
        .filter(|(_, filed)| arguments.deal.as_ref().is_none_or(|deal| is_about(&filed.letter, deal)))
        .collect();
    match arguments.format {
        Format::Json => {
            for (id, filed) in wanted {
                println!("{}", summary(*id, filed));
            }
        }
        Format::Text => {
            let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
            for (id, filed) in wanted {
                let letter = &filed.letter;
                *counts.entry((&letter.stage, &letter.code)).or_default() += 1;
                let done = filed.resolution.map_or("", |how| how.as_str());
                let from = format!("{}-{}@{}", letter.topic, letter.partition, letter.offset);
                println!(
                    "{:<8} {:<13} {:<24} {from}  {} {done}",
                    id.to_string(),
                    letter.stage,
                    letter.code,
                    letter.message
                );
            }
            if counts.is_empty() {
                println!("no dead letters");
            }
            for ((stage, code), count) in counts {
                println!("{count:>8} {stage:<13} {code}");
            }
        }
    }
    Ok(())
}

/// How many letters that nobody has dealt with are about a deal.
pub(super) fn open_about(topology: &Topology, deal: &DealId) -> Result<usize, Failure> {
    let log = look::log(topology)?;
    let (registry, _) = connect::registry(topology)?;
    let schemas = connect::schemas(topology, &registry)?;
    let topic = Topic::new(topology.outputs.dead_letters.as_str());
    let letters = read(log.as_ref(), &topic, &schemas)?;
    let open = letters.values().filter(|filed| filed.resolution.is_none());
    Ok(open.filter(|filed| is_about(&filed.letter, deal.as_str())).count())
}

/// Whether a letter names the deal, or its record does as a text in JSON: what could not be read names none itself.
fn is_about(letter: &DeadLetter, deal: &str) -> bool {
    let text = json!(deal).to_string();
    let mentions = |bytes: &Option<Vec<u8>>| {
        let bytes = bytes.as_deref().unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    letter.deal.as_ref().is_some_and(|of| of.as_str() == deal) || mentions(&letter.key) || mentions(&letter.value)
}

fn summary(id: LetterId, filed: &Filed) -> Value {
    let letter = &filed.letter;
    json!({
        "id": id.to_string(),
        "stage": letter.stage,
        "code": letter.code,
        "message": letter.message,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "tenant": letter.tenant.as_ref().map(|tenant| tenant.as_str()),
        "deal": letter.deal.as_ref().map(|deal| deal.as_str()),
        "resolution": filed.resolution.map(|how| how.as_str()),
    })
}

fn show(arguments: &Show) -> Result<(), Failure> {
    let id = id(&arguments.id)?;
    let topology = arguments.file.load()?;
    let log = look::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let schemas = connect::schemas(&topology, &registry)?;
    let topic = Topic::new(topology.outputs.dead_letters.as_str());
    let letters = read(log.as_ref(), &topic, &schemas)?;
    let Some(filed) = letters.get(&id) else {
        return Err(Failure::Usage(format!(
            "there is no dead letter {id}; `accrue deadletters list` names them"
        )));
    };
    let values = AnyReader::new(registry.clone() as std::sync::Arc<dyn Registry>);
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let mut whole = summary(id, filed);
    if let Value::Object(fields) = &mut whole {
        let headers: serde_json::Map<String, Value> = filed
            .letter
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        fields.insert("headers".to_owned(), headers.into());
        fields.insert("key".to_owned(), filed.letter.key.as_deref().map(text).into());
        let value = filed.letter.value.as_deref().map(|bytes| values.json(bytes));
        fields.insert("value".to_owned(), value.into());
    }
    let pretty = serde_json::to_string_pretty(&whole).context("printing")?;
    println!("{pretty}");
    Ok(())
}

fn retry(arguments: &Retry) -> Result<(), Failure> {
    let value = match &arguments.value {
        None => None,
        Some(_) if arguments.ids.len() != 1 => {
            return Err(Failure::Usage(
                "--value corrects one letter; name exactly one".to_owned(),
            ));
        }
        Some(file) if file.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).context("reading stdin")?;
            Some(bytes)
        }
        Some(file) => Some(std::fs::read(file).with_context(|| format!("reading {}", file.display()))?),
    };
    if arguments.ids.is_empty() && arguments.code.is_none() {
        return Err(Failure::Usage("name letters, or a reason with --code".to_owned()));
    }
    let named = ids(&arguments.ids)?;
    deal_with(&arguments.file, |clerk| {
        let wanted = match &arguments.code {
            None => named.clone(),
            Some(code) => clerk
                .letters()
                .iter()
                .filter(|(_, filed)| filed.resolution.is_none() && filed.letter.code == *code)
                .map(|(id, _)| *id)
                .collect(),
        };
        for id in &wanted {
            clerk.retry(*id, value.clone())?;
            println!("{id} sent round again");
        }
        println!("{} retried", wanted.len());
        Ok(())
    })
}

fn drop_letters(arguments: &Drop) -> Result<(), Failure> {
    let named = ids(&arguments.ids)?;
    deal_with(&arguments.file, |clerk| {
        for id in &named {
            clerk.drop_letter(*id)?;
            println!("{id} dropped");
        }
        Ok(())
    })
}

fn deal_with(file: &TopologyFile, work: impl FnOnce(&mut Clerk<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let topology = file.load()?;
    let log = look::log(&topology)?;
    let (registry, _) = connect::registry(&topology)?;
    let schemas = connect::schemas(&topology, &registry)?;
    let topic = Topic::new(topology.outputs.dead_letters.as_str());
    let mut clerk = Clerk::new(log.as_ref(), topology.application_id.as_str(), &topic, &schemas)?;
    work(&mut clerk)
}

fn ids(texts: &[String]) -> Result<Vec<LetterId>, Failure> {
    texts.iter().map(|text| id(text)).collect()
}

fn id(text: &str) -> Result<LetterId, Failure> {
    LetterId::parse(text).ok_or_else(|| {
        Failure::Usage(format!(
            "{text} is not the name of a dead letter; write partition:offset, such as 0:17"
        ))
    })
}
