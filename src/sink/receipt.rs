//! Receipts: what became of each document, chained by hash.
//!
//! Owns: the hash, and the check of a chain. Each partition of a sink has one chain: a receipt has the number after, and
//! the hash of, the receipt before it. The hash is SHA-256 over the name and value of each field that is set, each with
//! its length before it, so it depends on no encoding and a field that is added later leaves old hashes valid.
//! Invariant: a receipt that was changed, left out or moved makes [`Chains::add`] or [`Chains::end`] say so.
//! Deliberately absent: signatures. Who can write the topic can write a whole new chain; keep an export elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::codec::delivery::ChainRow;
use crate::codec::receipt::{Receipt, hex};

/// The hash of a receipt, its own `hash` left out.
pub fn hash(receipt: &Receipt) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut field = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    };
    let time = |at: Timestamp| at.as_microsecond().to_be_bytes();
    field("sink", receipt.sink.as_bytes());
    field("chain", &receipt.chain.to_be_bytes());
    field("number", &receipt.number.to_be_bytes());
    field("previous", &receipt.previous);
    field("key", receipt.key.as_bytes());
    field("form", receipt.form.as_bytes());
    field("outcome", receipt.outcome.as_bytes());
    field("tenant_id", receipt.tenant.as_bytes());
    for entry in &receipt.entries {
        field("entry", entry.as_bytes());
    }
    let texts = [
        ("deal_id", &receipt.deal),
        ("reference", &receipt.reference),
        ("body_sha256", &receipt.body_sha256),
        ("external_id", &receipt.external_id),
        ("response_digest", &receipt.response_digest),
        ("by", &receipt.by),
        ("note", &receipt.note),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            field(name, text.as_bytes());
        }
    }
    field("attempts", &receipt.attempts.to_be_bytes());
    field("source_at", &time(receipt.source_at));
    field("planned_at", &time(receipt.planned_at));
    if let Some(at) = receipt.sent_at {
        field("sent_at", &time(at));
    }
    field("settled_at", &time(receipt.settled_at));
    hash.finalize().to_vec()
}

/// Puts a receipt at the end of its chain.
pub fn append(chain: &ChainRow, mut receipt: Receipt) -> (ChainRow, Receipt) {
    receipt.number = chain.number + 1;
    receipt.previous = chain.hash.clone();
    receipt.hash = hash(&receipt);
    let chain = ChainRow {
        number: receipt.number,
        hash: receipt.hash.clone(),
    };
    (chain, receipt)
}

/// A sink and a partition.
pub type ChainName = (String, u32);

/// Something that is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub chain: ChainName,
    pub number: u64,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sink, partition) = &self.chain;
        write!(f, "{sink}, chain {partition}, receipt {}: {}", self.number, self.what)
    }
}

/// Checks receipts as they come.
#[derive(Default)]
pub struct Chains(BTreeMap<ChainName, ChainRow>);

impl Chains {
    /// Checks the next receipt against the ones before it.
    pub fn add(&mut self, receipt: &Receipt) -> Vec<Broken> {
        let name = (receipt.sink.clone(), receipt.chain);
        let end = self.0.entry(name.clone()).or_default();
        let mut found = Vec::new();
        let mut broken = |what: String| {
            found.push(Broken {
                chain: name.clone(),
                number: receipt.number,
                what,
            });
        };
        if hash(receipt) != receipt.hash {
            broken(format!(
                "changed: its fields do not have the hash {}",
                hex(&receipt.hash)
            ));
        }
        let wanted = end.number + 1;
        if receipt.number > wanted {
            broken(format!("missing before it: {wanted} to {}", receipt.number - 1));
        } else if receipt.number < wanted {
            broken(format!("out of order or twice: it comes after {}", end.number));
        } else if receipt.previous != end.hash {
            broken("it does not follow the one before it: that one was replaced".to_owned());
        }
        if receipt.number >= wanted {
            *end = ChainRow {
                number: receipt.number,
                hash: receipt.hash.clone(),
            };
        }
        found
    }

    /// Compares the ends of the chains with what the sinks themselves say they are.
    pub fn end(&self, known: &BTreeMap<ChainName, ChainRow>) -> Vec<Broken> {
        let none = ChainRow::default();
        let mut found = Vec::new();
        for (name, end) in known {
            let read = self.0.get(name).unwrap_or(&none);
            // A sink that went on since may have written more than was read, never less than it says.
            if read.number < end.number {
                found.push(Broken {
                    chain: name.clone(),
                    number: end.number,
                    what: format!("missing at the end: {} to {}", read.number + 1, end.number),
                });
            } else if read.number == end.number && read.hash != end.hash {
                found.push(Broken {
                    chain: name.clone(),
                    number: end.number,
                    what: "it is not the one that the sink wrote last".to_owned(),
                });
            }
        }
        found
    }

    /// The end of each chain.
    pub fn ends(&self) -> &BTreeMap<ChainName, ChainRow> {
        &self.0
    }
}
