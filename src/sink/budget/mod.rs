//! Budget feeds: what is planned for each month, as CSV files that planning systems read.
//!
//! Owns: the tables that a feed folds in memory, and what is published when. Invariant: a month is published whole, and
//! only when it differs from what the manifest says lies there; the manifest is written last, so what it names is there.
//! The same positions in the topics give the same bytes. A feed whose positions lie behind the manifest's publishes
//! nothing: another one is ahead of it.
//! Absent: state of its own. A restart folds the topics from their start, up to their end, before it publishes.
//!
//! * [`lines`]: from rows to months; [`outlet`]: a folder, SFTP, HTTP.

pub mod lines;
pub mod outlet;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::warehouse::row::Precedence;
use super::warehouse::table::Table;
use super::warehouse::{Held, TableBatch, Warehouse, WarehouseError, tables};
use crate::codec::receipt::hex;
use lines::{Feed, Rows};
use outlet::Outlet;

/// Says what lies in the feed: for each month its file, the SHA-256 of its bytes, its lines and its sums; and up to where
/// each topic is in it.
pub const MANIFEST: &str = "manifest.json";

/// The tables that a feed by recognition folds.
pub const BY_RECOGNITION: &[Table] = &[
    tables::DIM_DEAL,
    tables::DIM_DEAL_LINE,
    tables::DIM_PERIOD,
    tables::FACT_RECOGNITION,
];
/// The tables that a feed by billing folds.
pub const BY_BILLING: &[Table] = &[tables::DIM_DEAL, tables::FACT_BILLING];

/// See the module.
pub struct Budget {
    feed: Feed,
    outlet: Box<dyn Outlet>,
    rows: Rows,
    held: Held,
    /// Our positions when the manifest was last found ahead of us.
    behind_at: Option<Held>,
}

impl Budget {
    pub fn new(feed: Feed, outlet: Box<dyn Outlet>) -> Budget {
        Budget {
            feed,
            outlet,
            rows: Rows::default(),
            held: Held::new(),
            behind_at: None,
        }
    }

    /// The position of each partition that all tables have reached.
    fn positions_by_partition(&self) -> BTreeMap<String, u64> {
        let mut positions = BTreeMap::new();
        for ((_, at), next) in &self.held {
            let lowest = positions.entry(at.to_string()).or_insert(next.0);
            *lowest = (*lowest).min(next.0);
        }
        positions
    }

    fn manifest(&self) -> Result<Option<Json>, WarehouseError> {
        let Some(bytes) = self.outlet.get(MANIFEST)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            WarehouseError::Refused(format!(
                "{MANIFEST} there is not one of ours ({error}); remove it and every month is published again"
            ))
        })
    }

    /// Whether another feed has read further than we.
    fn behind(&mut self, manifest: &Json, ours: &BTreeMap<String, u64>) -> Result<(), WarehouseError> {
        let theirs = manifest["positions"].as_object();
        let ahead = theirs
            .into_iter()
            .flatten()
            .find(|(at, next)| next.as_u64().unwrap_or(0) > ours.get(at.as_str()).copied().unwrap_or(0));
        let Some((at, next)) = ahead else {
            self.behind_at = None;
            return Ok(());
        };
        let what = format!(
            "{MANIFEST} there holds {at} up to {next}, this feed up to {:?}",
            ours.get(at.as_str())
        );
        if self.behind_at.as_ref() == Some(&self.held) {
            return Err(WarehouseError::Refused(format!(
                "{what}, and the topic has no more; was it made anew? Then write \"positions\": {{}} in {MANIFEST} there: the months it lists are published again, and emptied where the plan has them no more"
            )));
        }
        self.behind_at = Some(self.held.clone());
        Err(WarehouseError::Fenced(what))
    }

    fn publish(&mut self) -> Result<(), WarehouseError> {
        let ours = self.positions_by_partition();
        let manifest = self.manifest()?.unwrap_or(Json::Null);
        // What another feed left is to be emptied or replaced; how far that one had read says nothing of this one.
        if manifest["feed"] == self.feed.describe().as_str() {
            self.behind(&manifest, &ours)?;
        }
        let mut months = self.feed.months(&self.rows)?;
        // A month that was published and has nothing any more is published as empty.
        for known in manifest["months"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(month, _)| month)
        {
            months.entry(known.clone()).or_default();
        }
        let mut said = Map::new();
        let mut published = 0;
        for (month, lines) in &months {
            let file = format!("budget-{month}.csv");
            let text = lines::csv(lines);
            let digest = hex(&Sha256::digest(&text));
            if manifest["months"][month]["sha256"] != digest.as_str() {
                self.outlet.put(&file, text.as_bytes())?;
                published += 1;
            }
            let totals: Map<String, Json> = lines::totals(lines)
                .into_iter()
                .map(|(currency, sum)| (currency, sum.to_string().into()))
                .collect();
            said.insert(
                month.clone(),
                json!({"file": file, "sha256": digest, "lines": lines.len(), "totals": totals}),
            );
        }
        let fresh = json!({"feed": self.feed.describe(), "positions": ours, "months": said});
        if published > 0 || manifest != fresh {
            self.outlet.put(MANIFEST, format!("{fresh:#}\n").as_bytes())?;
        }
        if published > 0 {
            tracing::info!(published, months = months.len(), "budget months published");
        }
        Ok(())
    }
}

impl Warehouse for Budget {
    fn prepare(&mut self, _: bool) -> Result<Vec<String>, WarehouseError> {
        Ok(Vec::new())
    }

    fn positions(&mut self) -> Result<Held, WarehouseError> {
        Ok(self.held.clone())
    }

    fn commit(&mut self, batch: &[TableBatch]) -> Result<(), WarehouseError> {
        for TableBatch { table, rows, moves } in batch {
            let precedence = Precedence::of(table);
            let kept = self.rows.of(table.name);
            for row in rows {
                precedence.keep(kept, row.clone());
            }
            for moved in moves {
                self.held.insert((table.name, moved.at.clone()), moved.to);
            }
        }
        self.rows.forget_old_revisions();
        Ok(())
    }

    fn clear(&mut self) -> Result<(), WarehouseError> {
        self.rows = Rows::default();
        self.held.clear();
        Ok(())
    }

    fn live(&mut self) -> Result<(), WarehouseError> {
        self.publish()
    }
}
