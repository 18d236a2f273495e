//! Facts: what happened, what is planned, what was booked and delivered.
//!
//! Invariant: a fact is never changed but by the record that says the same again.

use super::super::table::From::{Days, Inner, Item, Number, Record};
use super::super::table::Kind::{Amount, Boolean, Day, Instant, Integer, Rate, Text};
use super::super::table::{Table, column};
use super::{DEAL, OFFSET, PARTITION, TENANT};
use crate::codec::schemas::Product;

pub const FACT_DEAL_EVENT: Table = Table {
    name: "fact_deal_event",
    doc: "What happened to deals.",
    grain: "event of a deal",
    feed: Product::DealCanonical,
    explode: &[],
    only: None,
    order: None,
    columns: &[
        TENANT,
        DEAL,
        column("event_id", Text, Record("event_id"), "The event.").key(),
        column(
            "type",
            Text,
            Record("type"),
            "deal.closed, deal.amended, deal.renewed, deal.cancelled, milestone.accepted, payment.received, ...",
        ),
        column("source", Text, Record("source"), "Who said it."),
        column("occurred_at", Instant, Record("occurred_at"), "When it happened."),
        column(
            "deal_amount",
            Amount,
            Record("deal.amount"),
            "The whole price, where the event states a deal.",
        )
        .nullable(),
        column(
            "currency",
            Text,
            Record("deal.currency"),
            "ISO 4217 code of deal_amount.",
        )
        .nullable(),
        column(
            "term_months",
            Integer,
            Record("deal.term_months"),
            "Length of the term.",
        )
        .nullable(),
        column(
            "billing_cycle",
            Text,
            Record("deal.billing_cycle"),
            "monthly, quarterly, annual, upfront, milestone.",
        )
        .nullable(),
        column(
            "contract_start",
            Day,
            Record("deal.contract_start"),
            "First day of service.",
        )
        .nullable(),
        column("contract_end", Day, Record("deal.contract_end"), "Last day of service.").nullable(),
        column(
            "effective_date",
            Day,
            Record("deal.effective_date"),
            "First day on which the new state holds.",
        )
        .nullable(),
        column("customer_id", Text, Record("deal.customer.customer_id"), "Who bought.").nullable(),
        column(
            "cancelled_on",
            Day,
            Record("cancellation.effective_date"),
            "First day without service, of a cancellation.",
        )
        .nullable(),
        column(
            "refund",
            Text,
            Record("cancellation.refund"),
            "The kind of refund of a cancellation.",
        )
        .nullable(),
        column("credit_amount", Amount, Record("credit.amount"), "Amount of a credit.").nullable(),
        column(
            "payment_amount",
            Amount,
            Record("payment.amount"),
            "Amount of a payment.",
        )
        .nullable(),
        column(
            "payment_currency",
            Text,
            Record("payment.currency"),
            "ISO 4217 code of payment_amount.",
        )
        .nullable(),
        column("payment_date", Day, Record("payment.date"), "Day of a payment.").nullable(),
        PARTITION,
        OFFSET,
    ],
};

pub const FACT_CONTRACT_VERSION: Table = Table {
    name: "fact_contract_version",
    doc: "Contracts by version of their terms. contract.state is a compacted topic: versions that it no longer held when \
          the table was filled are not there.",
    grain: "contract and version",
    feed: Product::ContractState,
    explode: &["contracts"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        DEAL,
        column("contract_id", Text, Item("contract_id"), "The contract.").key(),
        column(
            "version",
            Integer,
            Record("version"),
            "The version of the deal's terms.",
        )
        .key(),
        column(
            "status",
            Text,
            Record("status"),
            "The deal's status while this was the version: active, completed, cancelled.",
        ),
        column("currency", Text, Record("currency"), "ISO 4217 code."),
        column(
            "transaction_price",
            Amount,
            Item("transaction_price"),
            "Sum of what is allocated (ASC 606-10-32-28), in currency.",
        ),
        PARTITION,
        OFFSET,
    ],
};

pub const FACT_OBLIGATION: Table = Table {
    name: "fact_obligation",
    doc: "Performance obligations by version of the terms; join dim_deal on version for those that stand. What \
          fact_contract_version says about versions holds here.",
    grain: "performance obligation and version",
    feed: Product::ContractState,
    explode: &["contracts", "obligations"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        DEAL,
        column(
            "obligation_id",
            Text,
            Inner("obligation_id"),
            "The obligation (ASC 606-10-25-19).",
        )
        .key(),
        column(
            "version",
            Integer,
            Record("version"),
            "The version of the deal's terms.",
        )
        .key(),
        column("contract_id", Text, Item("contract_id"), "The contract."),
        column("line_item_id", Text, Inner("line_item_id"), "The deal's line."),
        column(
            "method",
            Text,
            Inner("method"),
            "straight_line, point_in_time, units, milestone, progress, usage.",
        ),
        column("start_date", Day, Inner("start"), "First day."),
        column("end_date", Day, Inner("end"), "Last day."),
        column(
            "days",
            Integer,
            Days("start", "end"),
            "Days from first to last, both counted.",
        ),
        column("currency", Text, Record("currency"), "ISO 4217 code."),
        column(
            "allocated",
            Amount,
            Inner("allocated"),
            "Allocated transaction price, in currency.",
        ),
        PARTITION,
        OFFSET,
    ],
};

pub const FACT_RECURRING: Table = Table {
    name: "fact_recurring",
    doc: "Recurring revenue: straight-line obligations of lines that recur, a row for each stretch of days at one price. \
          Join dim_deal on schedule_revision for what stands; what fact_recognition says about revisions holds here.",
    grain: "stretch of days of an obligation, and revision of the recognition schedule",
    feed: Product::ContractState,
    explode: &["recurring"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        DEAL,
        column(
            "schedule_revision",
            Integer,
            Record("schedule_revision"),
            "As in dim_deal.",
        )
        .key(),
        column(
            "row_number",
            Integer,
            Number,
            "The row's place in its revision, from 1.",
        )
        .key(),
        column("obligation_id", Text, Item("obligation_id"), "The obligation."),
        column("start_date", Day, Item("from"), "First day of the stretch."),
        column("end_date", Day, Item("to"), "Last day of the stretch."),
        column("currency", Text, Record("currency"), "ISO 4217 code."),
        column(
            "annual_amount",
            Amount,
            Item("annual_amount"),
            "What it brings in twelve months, in currency.",
        ),
        PARTITION,
        OFFSET,
    ],
};

pub const FACT_RECOGNITION: Table = Table {
    name: "fact_recognition",
    doc: "Recognition schedules by revision. recognition.schedule is a compacted topic: revisions that it no longer held \
          when the table was filled are not there. The plan that stands is the view recognition_current: sum that one, \
          not this table.",
    grain: "deal, revision, obligation and period",
    feed: Product::RecognitionSchedule,
    explode: &["obligations", "rows"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        DEAL,
        column("revision", Integer, Record("revision"), "Counts every change of the deal's plan.").key(),
        column("obligation_id", Text, Item("obligation_id"), "The obligation.").key(),
        column("period", Text, Inner("period"), "The period of the revenue.").key(),
        column("contract_id", Text, Item("contract_id"), "The contract."),
        column("line_item_id", Text, Item("line_item_id"), "The deal's line."),
        column("amount", Amount, Inner("amount"), "Revenue of the period, in currency."),
        column("currency", Text, Record("currency"), "ISO 4217 code."),
        column("functional_amount", Amount, Inner("functional_amount"), "The same in functional currency; where not posted, an estimate from the day on which the plan last changed or was posted from; null while no rate is known.").nullable(),
        column("functional_currency", Text, Record("functional_currency"), "ISO 4217 code."),
        column("rate", Rate, Inner("rate"), "functional_amount over amount, for information.").nullable(),
        column("version", Integer, Record("version"), "The version of the terms."),
        column("posted", Boolean, Inner("posted"), "Whether all of it is in issued journal entries."),
        PARTITION,
        OFFSET,
    ],
};

pub const FACT_BILLING: Table = Table {
    name: "fact_billing",
    doc: "Billing schedules by revision; what fact_recognition says about revisions holds here. The plan that stands is \
          the view billing_current.",
    grain: "planned invoice and revision",
    feed: Product::BillingSchedule,
    explode: &["rows"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        DEAL,
        column(
            "revision",
            Integer,
            Record("revision"),
            "Counts every change of the deal's billing plan.",
        )
        .key(),
        column(
            "row_number",
            Integer,
            Number,
            "The row's place in its revision, from 1.",
        )
        .key(),
        column("invoice_date", Day, Item("date"), "When to invoice."),
        column(
            "amount",
            Amount,
            Item("amount"),
            "Without tax, in currency; below zero a credit.",
        ),
        column("tax", Amount, Item("tax"), "Tax, in currency."),
        column("currency", Text, Record("currency"), "ISO 4217 code."),
        column(
            "firm",
            Boolean,
            Item("firm"),
            "False while the date is only expected, such as a milestone's.",
        ),
        PARTITION,
        OFFSET,
    ],
};

pub const FACT_JOURNAL_LINE: Table = Table {
    name: "fact_journal_line",
    doc: "Lines of issued journal entries. Entries are immutable; debits equal credits in both currencies.",
    grain: "line of a journal entry",
    feed: Product::JournalEntries,
    explode: &["lines"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        DEAL,
        column(
            "entry_id",
            Text,
            Record("entry_id"),
            "The entry: the idempotency key in ledgers.",
        )
        .key(),
        column("line_number", Integer, Number, "The line within the entry, from 1.").key(),
        column("contract_id", Text, Record("contract_id"), "The contract."),
        column(
            "obligation_id",
            Text,
            Record("obligation_id"),
            "The obligation, where the entry is about one.",
        )
        .nullable(),
        column(
            "kind",
            Text,
            Record("kind"),
            "invoice, recognition, credit_memo, adjustment, payment, fx_remeasurement, reversal.",
        ),
        column("posting_date", Day, Record("date"), "The posting day."),
        column("period", Text, Record("period"), "The period of the posting day."),
        column("concerns", Text, Record("concerns"), "The period whose business it is."),
        column(
            "account",
            Text,
            Item("account"),
            "The mapped ledger account, or the role where none is mapped.",
        ),
        column("role", Text, Item("role"), "As in dim_account."),
        column("debit", Amount, Item("debit"), "In currency; zero or more."),
        column("credit", Amount, Item("credit"), "In currency; zero or more."),
        column("currency", Text, Record("currency"), "ISO 4217 code."),
        column(
            "functional_debit",
            Amount,
            Item("functional_debit"),
            "In functional currency; zero or more.",
        ),
        column(
            "functional_credit",
            Amount,
            Item("functional_credit"),
            "In functional currency; zero or more.",
        ),
        column(
            "functional_currency",
            Text,
            Record("functional_currency"),
            "ISO 4217 code.",
        ),
        column("cause_event_id", Text, Record("cause"), "The event behind it."),
        column("reverses", Text, Record("reverses"), "The entry it reverses.").nullable(),
        PARTITION,
        OFFSET,
    ],
};

pub const FACT_RECEIPT: Table = Table {
    name: "fact_receipt",
    doc: "What was delivered to ledgers, entry by entry.",
    grain: "journal entry of a receipt",
    feed: Product::Receipts,
    explode: &["entries"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        column("sink", Text, Record("sink"), "The sink of topology.toml.").key(),
        column("chain", Integer, Record("chain"), "The chain of receipts.").key(),
        column(
            "number",
            Integer,
            Record("number"),
            "The receipt's place in its chain, from 1.",
        )
        .key(),
        column("entry_id", Text, Item(""), "The journal entry.").key(),
        column(
            "deal_id",
            Text,
            Record("deal_id"),
            "The deal; null for a summary of several.",
        )
        .nullable(),
        column(
            "document_key",
            Text,
            Record("key"),
            "The document's key: the idempotency key of the write.",
        ),
        column("form", Text, Record("form"), "journal, invoice, credit_note."),
        column(
            "outcome",
            Text,
            Record("outcome"),
            "acknowledged, found, confirmed: the ledger has it; cancelled: a person decided that it is not written.",
        ),
        column(
            "reference",
            Text,
            Record("reference"),
            "The text under which the system can find it.",
        )
        .nullable(),
        column(
            "external_id",
            Text,
            Record("external_id"),
            "The system's own name for it.",
        )
        .nullable(),
        column("attempts", Integer, Record("attempts"), "How often it was sent."),
        column(
            "source_at",
            Instant,
            Record("source_at"),
            "The time of the source event.",
        ),
        column(
            "settled_at",
            Instant,
            Record("settled_at"),
            "When its outcome was known.",
        ),
        PARTITION,
        OFFSET,
    ],
};
