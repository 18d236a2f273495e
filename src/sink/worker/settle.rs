//! What is left behind: receipts and tickets.
//!
//! Invariant: a document leaves its queue in the transaction that writes its receipt, and every entry in it then points
//! to that receipt.

use super::Deliver;
use crate::codec::delivery::DoneRow;
use crate::codec::delivery_command::{Ticket, TicketState};
use crate::codec::receipt::{Receipt, hex};
use crate::sink::breaker::Change;
use crate::sink::delivery::{How, State};
use crate::sink::receipt::append;
use crate::sink::store::{Known, Place, Row, Store};
use crate::stream::fault::Fault;
use crate::stream::processor::{Context, Emission, Route};
use crate::stream::record::Timestamp as RecordTime;
use sha2::{Digest, Sha256};

impl Deliver {
    /// Writes the receipt of a document, and lets the next one of its deal go.
    pub(super) fn settle(&mut self, place: &Place, row: &Row, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(receipt) = self.receipt(row) else {
            return Err(Fault::Fatal(format!("document {} is not settled", row.key)));
        };
        let (chain, receipt) = append(&self.chain, receipt);
        let value = self
            .shared
            .schemas
            .encode_receipt(&receipt)
            .map_err(|refused| Fault::Fatal(refused.to_string()))?;
        cx.emit(Emission {
            topic: self.shared.topics.receipts.clone(),
            // A chain is one partition's, in its order.
            route: Route::To(self.partition),
            timestamp: RecordTime(receipt.settled_at.as_millisecond()),
            key: Some(row.queue().into_bytes()),
            value: Some(value),
            headers: Vec::new(),
        })?;
        let done = DoneRow {
            key: receipt.key.clone(),
            outcome: receipt.outcome.clone(),
            external_id: receipt.external_id.clone(),
            receipt: receipt.hash.clone(),
        };
        let mut store = Store(cx);
        store.put_chain(&chain)?;
        store.delete(place)?;
        store.delete_entries(&row.source, row.entries.len())?;
        store.put_known(row.key.as_str(), Known::Done(done.clone()))?;
        for entry in row.entries.iter().filter(|entry| *entry != row.key.as_str()) {
            store.put_known(entry, Known::Done(done.clone()))?;
        }
        self.chain = chain;
        self.uncommitted = true;
        if self.is_head(place, row) {
            let queue = row.queue();
            self.forget(&queue);
            if let Some((place, row)) = Store(cx).head(&queue)? {
                self.note(place, &row);
            }
        }
        self.observe(&receipt);
        Ok(())
    }

    /// The receipt of a settled document, without its place in the chain.
    fn receipt(&self, row: &Row) -> Option<Receipt> {
        let (outcome, acknowledgement, person) = match &row.track.state {
            State::Acknowledged { acknowledgement, how } => match how {
                How::Answered => ("acknowledged", Some(acknowledgement), None),
                How::Found => ("found", Some(acknowledgement), None),
                How::Confirmed(person) => ("confirmed", Some(acknowledgement), Some(person)),
            },
            State::Cancelled(person) => ("cancelled", None, Some(person)),
            State::Planned { .. } | State::Sent { .. } | State::Uncertain { .. } | State::Parked(_) => return None,
        };
        let digest = acknowledgement.map(|it| it.response_digest.clone());
        Some(Receipt {
            sink: self.shared.sink.name.as_str().to_owned(),
            chain: self.partition.0,
            number: 0,
            previous: Vec::new(),
            hash: Vec::new(),
            key: row.key.as_str().to_owned(),
            form: row.form.as_str().to_owned(),
            outcome: outcome.to_owned(),
            tenant: row.tenant.as_str().to_owned(),
            deal: row.deal.as_ref().map(ToString::to_string),
            entries: row.entries.clone(),
            reference: row.plan.as_ref().map(|plan| plan.reference.clone()),
            body_sha256: row.plan.as_ref().map(|plan| hex(&Sha256::digest(&plan.body))),
            external_id: acknowledgement.map(|it| it.external_id.clone()),
            response_digest: digest.filter(|digest| !digest.is_empty()),
            by: person.map(|person| person.by.clone()),
            note: person.map(|person| person.note.clone()),
            attempts: row.track.attempts,
            source_at: row.source_at,
            planned_at: row.planned_at,
            sent_at: row.track.first_sent_at,
            settled_at: row.track.since,
        })
    }

    fn observe(&self, receipt: &Receipt) {
        let sink = self.shared.sink.name.as_str();
        let metrics = &self.shared.metrics;
        metrics.settled.with_label_values(&[sink, &receipt.outcome]).inc();
        let took = receipt.settled_at.duration_since(receipt.source_at);
        metrics
            .latency
            .with_label_values(&[sink])
            .observe(took.as_secs_f64().max(0.0));
        if took > jiff::SignedDuration::try_from(self.shared.sink.sla.get()).unwrap_or(jiff::SignedDuration::MAX) {
            metrics.breaches.with_label_values(&[sink]).inc();
        }
    }

    /// Writes down what the breaker did.
    pub(super) fn write_tickets(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        for change in self.shared.gate.take_changes() {
            let sink = self.shared.sink.name.as_str().to_owned();
            let ticket = match &change {
                Change::Opened { at, why } => Ticket {
                    id: format!("{sink}/{at}"),
                    sink,
                    state: TicketState::Opened,
                    at: *at,
                    reason: format!("nothing is sent until a probe succeeds; last: {why}"),
                },
                Change::Closed { opened_at, at } => Ticket {
                    id: format!("{sink}/{opened_at}"),
                    sink,
                    state: TicketState::Closed,
                    at: *at,
                    reason: "a probe succeeded".to_owned(),
                },
            };
            tracing::warn!(
                ticket = ticket.id,
                state = ticket.state.as_str(),
                reason = ticket.reason,
                "breaker"
            );
            // Given back if this is not committed.
            self.tickets.push(change);
            let value = self
                .shared
                .schemas
                .encode_ticket(&ticket)
                .map_err(|refused| Fault::Fatal(refused.to_string()))?;
            cx.emit(Emission {
                topic: self.shared.topics.tickets.clone(),
                route: Route::ByKey,
                timestamp: RecordTime(ticket.at.as_millisecond()),
                key: Some(ticket.sink.clone().into_bytes()),
                value: Some(value),
                headers: Vec::new(),
            })?;
            self.uncommitted = true;
        }
        Ok(())
    }
}
