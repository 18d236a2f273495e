//! The first stage: from sources' records to changes on their deal's partition. Stateless.
//!
//! Owns: which partition a change concerns. A deal's own row, its lines and milestones go to the deal's partition; what
//! concerns many deals, or names none (customers, the end of a database transaction, a delete that carries only a line's
//! own key, rates, accounts, periods, the clock), goes to every partition, as a Kafka Streams global table would.
//!
//! Invariant: reference facts take the same way as deal changes, so that the order in which this stage read them is the
//! order in every partition of `contract.facts`; a tick never overtakes the changes that were read before it.
//! Absent: state, and what a change means.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::emit::{self, deal_key, incoming};
use crate::codec::change::{Change, Origin, Said};
use crate::codec::debezium::{Op, RowChange};
use crate::codec::schemas::Schemas;
use crate::codec::source;
use crate::codec::trace::Trace;
use crate::codec::value::Row;
use crate::config::{Input, Mapping, Source, TableRole, TenantOf};
use crate::revenue::ids::{DealId, TenantId};
use crate::revenue::reference::Settings;
use crate::stream::processor::{Context, Emission, Failure, Processor, Progress, Rejected, Route};
use crate::stream::record::{Header, Record, Topic};

/// What a broker takes by default, less the headers. One that is larger would stop the task.
const LARGEST_CHANGE_BYTES: usize = 1_000_000;

/// See the module.
pub struct Rekey {
    schemas: Arc<Schemas>,
    settings: Arc<Settings>,
    /// By topic.
    sources: Arc<BTreeMap<Topic, Source>>,
    changes: Topic,
}

impl Rekey {
    pub fn new(
        schemas: Arc<Schemas>,
        settings: Arc<Settings>,
        sources: Arc<BTreeMap<Topic, Source>>,
        changes: Topic,
    ) -> Rekey {
        Rekey {
            schemas,
            settings,
            sources,
            changes,
        }
    }
}

impl Processor for Rekey {
    fn process(&mut self, record: &Record, cx: &mut Context<'_>) -> Result<Progress, Failure> {
        let Some(source) = self.sources.get(&record.at.topic) else {
            return Ok(Progress::Done);
        };
        let said = incoming(record, |record| {
            source::read(&self.schemas, source, &self.settings, record)
        })?;
        let Some(said) = said else {
            return Ok(Progress::Done);
        };
        let (route, key) = route(source, &said)?;
        let change = Change {
            source: source.name.as_str().to_owned(),
            origin: Origin {
                topic: record.at.topic.as_str().to_owned(),
                partition: record.at.partition.0,
                offset: record.offset.0,
            },
            said,
        };
        let value = self.schemas.encode_change(&change)?;
        if value.len() > LARGEST_CHANGE_BYTES {
            return Err(Failure::Record(Rejected {
                code: "too_large".to_owned(),
                message: format!(
                    "the columns that the mapping names are {} bytes, and at most {LARGEST_CHANGE_BYTES} can go on",
                    value.len()
                ),
            }));
        }
        let trace = incoming(record, Trace::of);
        cx.emit(Emission {
            topic: self.changes.clone(),
            route,
            timestamp: record.timestamp,
            key: Some(key),
            value: Some(value),
            headers: trace.headers().map(|(name, value)| Header::new(name, value)).collect(),
        })?;
        Ok(Progress::Done)
    }
}

/// Where a change goes, under which key.
fn route(source: &Source, said: &Said) -> Result<(Route, Vec<u8>), Failure> {
    match said {
        Said::Fact(fact) => {
            fact.validate()
                .map_err(|rejection| emit::rejected(fact.event_id.as_str(), &rejection))?;
            Ok(match fact.body.deal_id() {
                Some(deal) => (Route::ByKey, deal_key(&fact.tenant, deal)),
                None => (
                    Route::Everywhere,
                    format!("{}/{}", fact.tenant, fact.body.type_name()).into_bytes(),
                ),
            })
        }
        Said::TransactionEnd { id, .. } => Ok((Route::Everywhere, format!("transaction {id}").into_bytes())),
        Said::Row { table, change } => match &source.input {
            Input::Debezium { mapping, .. } => row_route(mapping, *table, change),
            Input::Canonical => Err(broken("a row change came from a source of facts")),
        },
    }
}

fn row_route(mapping: &Mapping, table: TableRole, change: &RowChange) -> Result<(Route, Vec<u8>), Failure> {
    match change.op {
        Op::Create | Op::Update | Op::Read | Op::Delete => {}
        Op::Truncate => {
            return Err(Failure::Record(Rejected {
                code: "table_truncated".to_owned(),
                message: format!(
                    "the CRM emptied its table of {table:?}; nothing was changed in the books. Cancel the deals that ended"
                ),
            }));
        }
    }
    let everywhere = || (Route::Everywhere, row_key(mapping, table, &change.key));
    let deal_column = match table {
        TableRole::Customers | TableRole::Transaction => return Ok(everywhere()),
        TableRole::Deals => &mapping.deal.id,
        TableRole::DealLineItems => match &mapping.line {
            Some(columns) => &columns.deal_id,
            None => return Err(broken("a line came, but the mapping describes none")),
        },
        TableRole::Milestones => match &mapping.milestone {
            Some(columns) => &columns.deal_id,
            None => return Err(broken("a milestone came, but the mapping describes none")),
        },
    };
    let Some(row) = &change.after else {
        return Ok(everywhere());
    };
    let deal = required_id(row, &deal_column.name)?;
    let deal = DealId::parse(deal.clone()).ok_or_else(|| {
        bad_column(
            &deal_column.name,
            format!("{deal:?} cannot be a deal id: it may not be empty or contain /"),
        )
    })?;
    Ok((Route::ByKey, deal_key(&tenant(mapping, row)?, &deal)))
}

/// Whose row it is.
pub fn tenant(mapping: &Mapping, row: &Row) -> Result<TenantId, Failure> {
    match &mapping.tenant {
        TenantOf::Fixed(tenant) => Ok(tenant.clone()),
        TenantOf::Column(column) => {
            let id = required_id(row, column)?;
            TenantId::parse(id.clone()).ok_or_else(|| {
                bad_column(
                    column,
                    format!("{id:?} cannot be a tenant id; use letters, digits, dot, dash and underscore"),
                )
            })
        }
    }
}

/// A column that must be filled.
pub fn required_id(row: &Row, column: &str) -> Result<String, Failure> {
    match row.text(column) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(Failure::Record(Rejected {
            code: "missing_field".to_owned(),
            message: format!("column {column}: is empty or absent, and the row cannot be placed without it"),
        })),
        Err(error) => Err(Failure::Record(Rejected {
            code: "bad_column".to_owned(),
            message: error.to_string(),
        })),
    }
}

fn bad_column(column: &str, message: impl std::fmt::Display) -> Failure {
    Failure::Record(Rejected {
        code: "bad_column".to_owned(),
        message: format!("column {column}: {message}"),
    })
}

fn broken(message: &str) -> Failure {
    Failure::Fault(crate::stream::fault::Fault::Fatal(message.to_owned()))
}

/// A row's own key, for people who read the topic.
fn row_key(mapping: &Mapping, table: TableRole, key: &Row) -> Vec<u8> {
    let columns: Vec<String> = key
        .columns()
        .map(|(name, _)| key.text(name).ok().flatten().unwrap_or_default())
        .collect();
    format!("{} {table:?} {}", mapping.name, columns.join(",")).into_bytes()
}
