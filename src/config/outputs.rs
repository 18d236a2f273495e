//! `[outputs]`: the topics accrue writes.
//!
//! Owns their names. Invariant: all differ. Absent on purpose: changelog topics, which the runtime names after the
//! application and its stores.

use schemars::JsonSchema;
use serde::Deserialize;

use super::leaf::{Leaf, TopicName, TopicPrefix};
use super::measure::Retention;
use super::problem::{KeyPath, Problems};

/// The topics accrue writes, with their full names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    pub crm_changes: TopicName,
    pub deal_canonical: TopicName,
    pub contract_facts: TopicName,
    pub contract_state: TopicName,
    pub recognition_schedule: TopicName,
    pub billing_schedule: TopicName,
    pub journal_entries: TopicName,
    pub receipts: TopicName,
    pub tickets: TopicName,
    pub sink_commands: TopicName,
    pub dead_letters: TopicName,
    pub retention: Retention,
    pub dead_letter_retention: Retention,
}

impl Outputs {
    /// Every topic with the key that names it, in the order records flow.
    pub fn topics(&self) -> [(&'static str, &TopicName); 11] {
        [
            ("crm_changes", &self.crm_changes),
            ("deal_canonical", &self.deal_canonical),
            ("contract_facts", &self.contract_facts),
            ("contract_state", &self.contract_state),
            ("recognition_schedule", &self.recognition_schedule),
            ("billing_schedule", &self.billing_schedule),
            ("journal_entries", &self.journal_entries),
            ("receipts", &self.receipts),
            ("tickets", &self.tickets),
            ("sink_commands", &self.sink_commands),
            ("dead_letters", &self.dead_letters),
        ]
    }
}

/// The topics accrue writes. All are Avro, and all but the dead letters are keyed `tenant/deal`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct OutputsText {
    /// What every name below starts with in Kafka, such as `finance.`.
    prefix: TopicPrefix,
    /// Internal: row changes and facts, keyed by deal.
    crm_changes: TopicName,
    /// The public product: what happened to each deal.
    deal_canonical: TopicName,
    /// Every fact that decides, in the one order that decides.
    contract_facts: TopicName,
    /// The present state of each contract; compacted.
    contract_state: TopicName,
    /// Rows of each version of each recognition schedule.
    recognition_schedule: TopicName,
    /// What to invoice when.
    billing_schedule: TopicName,
    /// Journal entries as issued.
    journal_entries: TopicName,
    /// What was written to which system outside, each receipt chained to the one before.
    receipts: TopicName,
    /// What operators have to look at: destinations that stopped serving, and that serve again.
    tickets: TopicName,
    /// What operators decided about deliveries: retry, cancel.
    sink_commands: TopicName,
    /// Records that could not be used, with the reason.
    dead_letters: TopicName,
    /// How long the topics keep their records, apart from dead letters and the compacted ones (`contract_state` and the
    /// schedules), which keep the last record of each deal.
    retention: Retention,
    /// How long dead letters are kept, by the time of the record they are about: a replay of last year's records writes
    /// letters that are a year old.
    dead_letter_retention: Retention,
}

impl Default for OutputsText {
    fn default() -> Self {
        Self {
            prefix: TopicPrefix::literal(""),
            crm_changes: TopicName::literal("crm.changes"),
            deal_canonical: TopicName::literal("deal.canonical"),
            contract_facts: TopicName::literal("contract.facts"),
            contract_state: TopicName::literal("contract.state"),
            recognition_schedule: TopicName::literal("recognition.schedule"),
            billing_schedule: TopicName::literal("billing.schedule"),
            journal_entries: TopicName::literal("journal.entries"),
            receipts: TopicName::literal("receipts"),
            tickets: TopicName::literal("tickets"),
            sink_commands: TopicName::literal("sink.commands"),
            dead_letters: TopicName::literal("accrue.dead-letters"),
            retention: Retention::Forever,
            dead_letter_retention: Retention::Forever,
        }
    }
}

pub(super) fn outputs(text: OutputsText, problems: &mut Problems<'_>) -> Outputs {
    let table = KeyPath::of(["outputs"]);
    let mut full = |key: &str, name: TopicName| {
        let full = format!("{}{name}", text.prefix.as_str());
        TopicName::parse(&full).unwrap_or_else(|wrong| {
            problems.report(&table.key(key), format!("{full:?} is {wrong}"));
            name
        })
    };
    let outputs = Outputs {
        crm_changes: full("crm_changes", text.crm_changes),
        deal_canonical: full("deal_canonical", text.deal_canonical),
        contract_facts: full("contract_facts", text.contract_facts),
        contract_state: full("contract_state", text.contract_state),
        recognition_schedule: full("recognition_schedule", text.recognition_schedule),
        billing_schedule: full("billing_schedule", text.billing_schedule),
        journal_entries: full("journal_entries", text.journal_entries),
        receipts: full("receipts", text.receipts),
        tickets: full("tickets", text.tickets),
        sink_commands: full("sink_commands", text.sink_commands),
        dead_letters: full("dead_letters", text.dead_letters),
        retention: text.retention,
        dead_letter_retention: text.dead_letter_retention,
    };
    let topics = outputs.topics();
    for (position, (key, topic)) in topics.iter().enumerate() {
        let Some((first, _)) = topics[..position].iter().find(|(_, other)| other == topic) else {
            continue;
        };
        // Reported at the key that is in the file, which need not be the later one.
        let (at, other) = if problems.has(&table.key(key)) {
            (key, first)
        } else {
            (first, key)
        };
        let message = format!("the topic of outputs.{other} as well; give each its own");
        problems.report(&table.key(at), message);
    }
    outputs
}
