//! From a picture to facts: is it settled, and does it say something new?
//!
//! Owns: closed, amended, renewed, cancelled and milestone facts of a deal, their ids and instants, and the parking of
//! deals whose rows do not agree in time.
//! Invariant: a fact is announced once; its id counts the deal's facts, its instant is that of the newest row, later than
//! the fact before it.
//! Absent: rows (`rows`), reading them (`picture`).

use jiff::SignedDuration;

use super::place::CustomerName;
use super::{At, Canonicalize, Mappings, STORE, expiry, joined};
use crate::codec::crm_store::DealPicture;
use crate::codec::trace::Trace;
use crate::config::{Mapping, Stage};
use crate::pipeline::emit::{self, incoming};
use crate::pipeline::picture::{self, Told, Unreadable};
use crate::revenue::fact::{Body, Customer, Deal, Fact, MilestoneAccepted};
use crate::revenue::ids::{DealId, EventId, TenantId};
use crate::stream::fault::Fault;
use crate::stream::processor::{Context, Failure, Rejected};
use crate::stream::record::{Offset, Partition, Record, Timestamp, Topic, TopicPartition};

impl Canonicalize {
    /// The heart: does the picture say something new, and is it settled? Stores the picture either way. `own_row`: the
    /// deal's own row has changed.
    pub(super) fn judge(
        &self,
        key: &[u8],
        picture: &mut DealPicture,
        own_row: bool,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        let mapping = Mappings::get(&self.mappings.by_name, &picture.mapping)?;
        let tenant = tenant_of(key)?;
        let told = match self.read(&mapping, &tenant, picture, at.cx)? {
            Ok(told) => told,
            Err(unreadable) => {
                // The rows are kept, the record is a dead letter; a corrected row mends the picture. What else arrives
                // for a deal that is parked already says nothing new.
                if own_row || !picture.parked {
                    at.cx.reject(about(key, &unreadable));
                }
                picture.parked = true;
                return self.keep(key, picture, at.cx);
            }
        };
        match told {
            Told::Nothing => self.settle(key, picture, at.cx)?,
            Told::Unsettled { .. } => {
                self.wait(key, picture, &mapping, at)?;
                return self.keep(key, picture, at.cx);
            }
            Told::Cancelled(mut cancellation) => {
                self.settle(key, picture, at.cx)?;
                if (picture.announced.is_some() || picture.baseline) && !picture.cancelled {
                    picture.cancelled = true;
                    if let Some(known) = announced_as(picture) {
                        cancellation.deal_id = known;
                    }
                    let fact = self.fact(key, &tenant, picture, Body::DealCancelled(cancellation), None, at)?;
                    self.tell(key, picture, &fact, at)?;
                }
            }
            Told::Terms {
                stage,
                deal,
                closed_at,
                renewed_from,
            } => {
                self.settle(key, picture, at.cx)?;
                self.announce(key, picture, &tenant, stage, *deal, closed_at, renewed_from, at)?;
            }
        }
        self.announce_milestones(key, picture, &mapping, &tenant, at)?;
        self.keep(key, picture, at.cx)
    }

    fn read(
        &self,
        mapping: &Mapping,
        tenant: &TenantId,
        picture: &DealPicture,
        cx: &Context<'_>,
    ) -> Result<Result<Told, Unreadable>, Failure> {
        let customer = match picture::customer_of(picture, mapping) {
            Ok(Some(id)) => {
                let tenant = Some(tenant.to_string());
                let known = self.known_customer(mapping, &CustomerName { tenant, id }, cx)?;
                known.and_then(|known| known.row)
            }
            // The reading says what is wrong with the column, once it needs it.
            Ok(None) | Err(_) => None,
        };
        let zone = &self.settings.tenant(tenant).time_zone;
        Ok(picture::read(picture, customer.as_ref(), mapping, zone))
    }

    #[expect(clippy::too_many_arguments, reason = "one settled reading, taken apart once")]
    fn announce(
        &self,
        key: &[u8],
        picture: &mut DealPicture,
        tenant: &TenantId,
        stage: Stage,
        mut deal: Deal,
        closed_at: Option<jiff::Timestamp>,
        renewed_from: Option<DealId>,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        if picture.cancelled {
            at.cx.reject(Rejected {
                code: "deal_reopened".to_owned(),
                message: format!(
                    "deal {} was cancelled and now stands at {stage:?} again; the books keep the cancellation. Sell it as a new deal",
                    String::from_utf8_lossy(key)
                ),
            });
            return Ok(());
        }
        // Where a renewal is a row of its own, the books go on with the contract of the deal that it renews, also in all that
        // the row says later.
        let renews = renewed_from.filter(|_| stage == Stage::Renewed);
        if let Some(known) = announced_as(picture).or_else(|| renews.clone()) {
            deal.deal_id = known;
        }
        let last = picture.announced.as_ref().and_then(|fact| fact.body.terms());
        let body = match (last, stage, renews) {
            (Some(last), _, _) if same_terms(last, &deal) => return Ok(()),
            (Some(last), Stage::Renewed, _) if last.contract_start != deal.contract_start => Body::DealRenewed(deal),
            (Some(_), _, _) => Body::DealAmended(deal),
            (None, Stage::Renewed, Some(_)) => Body::DealRenewed(deal),
            (None, _, _) => Body::DealClosed(deal),
        };
        let first = picture.announced.is_none();
        let fact = self.fact(key, tenant, picture, body, closed_at.filter(|_| first), at)?;
        if let Err(rejection) = fact.validate() {
            at.cx.reject(emit::rejected(fact.event_id.as_str(), &rejection));
            return Ok(());
        }
        picture.announced = Some(fact.clone());
        // The baseline has it already, however many rows state it; and of a deal with a new id, people were told when it got
        // that.
        if picture.baseline && (first || at.baseline) || picture.renamed && first {
            return Ok(());
        }
        self.tell(key, picture, &fact, at)
    }

    fn tell(&self, key: &[u8], picture: &DealPicture, fact: &Fact, at: &mut At<'_, '_>) -> Result<(), Failure> {
        if !picture.renamed {
            return self.pass(fact, at);
        }
        at.cx.reject(Rejected {
            code: "deal_renamed".to_owned(),
            message: format!(
                "the books keep deal {} under the id that it had before; its {} was not announced. Send the event under the old id",
                String::from_utf8_lossy(key),
                fact.body.type_name()
            ),
        });
        Ok(())
    }

    fn announce_milestones(
        &self,
        key: &[u8],
        picture: &mut DealPicture,
        mapping: &Mapping,
        tenant: &TenantId,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        let (Some(columns), Some(announced)) = (&mapping.milestone, &picture.announced) else {
            return Ok(());
        };
        let deal_id = announced.body.deal_id().cloned();
        let zone = &self.settings.tenant(tenant).time_zone;
        let mut accepted = Vec::new();
        for (id, known) in &picture.milestones {
            if let (Some(row), false) = (&known.row, picture.accepted.contains(id)) {
                match picture::accepted(id, row, columns, zone) {
                    Ok(Some(found)) => accepted.push((id.clone(), found)),
                    Ok(None) => {}
                    Err(unreadable) => at.cx.reject(about(key, &unreadable)),
                }
            }
        }
        for (id, (line_id, milestone_id, date)) in accepted {
            picture.accepted.push(id);
            let Some(deal_id) = &deal_id else {
                continue;
            };
            let body = Body::MilestoneAccepted(MilestoneAccepted {
                deal_id: deal_id.clone(),
                line_id,
                milestone_id,
                date,
            });
            let fact = self.fact(key, tenant, picture, body, None, at)?;
            self.tell(key, picture, &fact, at)?;
        }
        Ok(())
    }

    /// A fact of this deal's rows. Its id counts their facts, under the deal's own id; its instant is the newest change of the picture, and later
    /// than that of the fact before it.
    fn fact(
        &self,
        key: &[u8],
        tenant: &TenantId,
        picture: &mut DealPicture,
        body: Body,
        occurred_at: Option<jiff::Timestamp>,
        at: &At<'_, '_>,
    ) -> Result<Fact, Failure> {
        let rows = [&picture.deal]
            .into_iter()
            .chain(picture.lines.values())
            .chain(picture.milestones.values());
        let newest = rows.filter_map(|row| row.at).max();
        let mut occurred_at = match occurred_at.or(newest) {
            Some(instant) => instant,
            None => jiff::Timestamp::from_millisecond(at.record.timestamp.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        };
        if let Some(last) = &picture.announced
            && occurred_at <= last.occurred_at
        {
            occurred_at = last
                .occurred_at
                .checked_add(SignedDuration::from_micros(1))
                .unwrap_or(last.occurred_at);
        }
        let own = key.splitn(2, |byte| *byte == b'/').last().unwrap_or_default();
        let deal = String::from_utf8_lossy(own);
        picture.announcements += 1;
        let id = format!("{}:{deal}:{:06}", picture.mapping, picture.announcements);
        Ok(Fact {
            event_id: EventId::parse(id.clone()).ok_or_else(|| Rejected {
                code: "invalid_id".to_owned(),
                message: format!("{id:?} cannot be an event id; shorten the deal's id"),
            })?,
            source: picture.mapping.clone(),
            occurred_at,
            tenant: tenant.clone(),
            body,
        })
    }

    pub(super) fn wait(
        &self,
        key: &[u8],
        picture: &mut DealPicture,
        mapping: &Mapping,
        at: &mut At<'_, '_>,
    ) -> Result<(), Failure> {
        if let Ok(Some(customer)) = picture::customer_of(picture, mapping) {
            let waiting = joined(&format!("w {} {customer} ", mapping.name.as_str()), key);
            at.cx.put(STORE, waiting, Vec::new())?;
        }
        // Each change of an unsettled deal starts its time anew: it is the silence after it that parks it.
        self.settle(key, picture, at.cx)?;
        let now = at.record.timestamp.0;
        picture.unsettled_since = Some(now);
        let until = now.saturating_add(mapping.settle_timeout.as_millis() as i64);
        at.cx.put(STORE, expiry(until, key), joined("d ", key))?;
        Ok(())
    }

    /// The deal waits for nothing any more.
    fn settle(&self, key: &[u8], picture: &mut DealPicture, cx: &mut Context<'_>) -> Result<(), Failure> {
        if let Some(since) = picture.unsettled_since.take() {
            let mapping = Mappings::get(&self.mappings.by_name, &picture.mapping)?;
            let until = since.saturating_add(mapping.settle_timeout.as_millis() as i64);
            cx.delete(STORE, expiry(until, key))?;
        }
        picture.parked = false;
        Ok(())
    }

    /// A deal has waited its time. The record that moved time on has nothing to do with it: a deal that cannot be judged is
    /// parked with a letter of its own, or it would fail with every record to come.
    pub(super) fn timed_out(&self, value: &[u8], now: Timestamp, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(key) = value.strip_prefix(b"d ") else {
            return Ok(());
        };
        match self.out_of_time(key, now, cx) {
            Err(Failure::Record(why)) => {
                if let Ok(Some(mut picture)) = self.picture(key, cx) {
                    picture.unsettled_since = None;
                    picture.parked = true;
                    self.keep(key, &picture, cx)?;
                }
                cx.reject(Rejected {
                    code: why.code,
                    message: format!(
                        "deal {} is parked, its time to settle is over: {}",
                        String::from_utf8_lossy(key),
                        why.message
                    ),
                });
                Ok(())
            }
            done => done,
        }
    }

    /// If only the end of a transaction is missing, the deal's rows agree, and they count.
    fn out_of_time(&self, key: &[u8], now: Timestamp, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(mut picture) = self.picture(key, cx)? else {
            return Ok(());
        };
        let mapping = Mappings::get(&self.mappings.by_name, &picture.mapping)?;
        let record = timer_record(key, now);
        let trace = incoming(&record, Trace::of);
        let mut at = At {
            record: &record,
            trace,
            baseline: false,
            cx,
        };
        for open in std::mem::take(&mut picture.open_transactions) {
            at.cx.delete(STORE, joined(&format!("o {open} "), key))?;
        }
        picture.unsettled_since = None;
        match self.read(&mapping, &tenant_of(key)?, &picture, at.cx)? {
            Ok(Told::Unsettled { why }) => {
                picture.parked = true;
                at.cx.reject(Rejected {
                    code: "deal_unsettled".to_owned(),
                    message: format!(
                        "deal {} is parked: for {} its rows have not agreed: {why}. It goes on with the next change that makes them agree",
                        String::from_utf8_lossy(key),
                        mapping.settle_timeout,
                    ),
                });
                self.keep(key, &picture, at.cx)?;
            }
            Ok(Told::Nothing | Told::Terms { .. } | Told::Cancelled(_)) | Err(_) => {
                self.judge(key, &mut picture, false, &mut at)?;
            }
        }
        self.release_held(key, &mut at)
    }
}

/// The deal of the books that the picture's facts are about.
fn announced_as(picture: &DealPicture) -> Option<DealId> {
    picture.announced.as_ref()?.body.deal_id().cloned()
}

/// Whether two readings of a deal are the same bargain: since when a change holds, how it is treated, and what the
/// customer is called, is no change.
fn same_terms(last: &Deal, now: &Deal) -> bool {
    let bargain = |deal: &Deal| Deal {
        deal_id: now.deal_id.clone(),
        customer: deal.customer.as_ref().map(|customer| Customer {
            customer_id: customer.customer_id.clone(),
            name: None,
            accounting_id: None,
        }),
        effective_date: None,
        treatment: None,
        ..deal.clone()
    };
    bargain(last) == bargain(now)
}

fn tenant_of(key: &[u8]) -> Result<TenantId, Failure> {
    let tenant = key.split(|byte| *byte == b'/').next().unwrap_or_default();
    std::str::from_utf8(tenant)
        .ok()
        .and_then(TenantId::parse)
        .ok_or_else(|| Failure::Fault(Fault::Fatal("a deal's key in the store has no tenant".to_owned())))
}

fn about(key: &[u8], unreadable: &Unreadable) -> Rejected {
    Rejected {
        code: unreadable.code.to_owned(),
        message: format!("deal {}: {}", String::from_utf8_lossy(key), unreadable.message),
    }
}

/// A stand-in for the record that a timer has not: facts that a timeout announces derive from the deal and the time.
fn timer_record(key: &[u8], now: Timestamp) -> Record {
    Record {
        at: TopicPartition::new(
            &Topic::new(format!("timer/{}", String::from_utf8_lossy(key))),
            Partition(0),
        ),
        offset: Offset(now.0.max(0) as u64),
        timestamp: now,
        key: None,
        value: None,
        headers: Vec::new(),
    }
}
