//! Dimensions: what facts are looked up by.
//!
//! Invariant: a dimension holds the latest statement, and no history.

use super::super::table::From::{Inner, Item, Period, Record};
use super::super::table::Kind::{Amount, Boolean, Day, Instant, Integer, Rate, Text};
use super::super::table::{PeriodPart, Table, column};
use super::{DEAL, OFFSET, PARTITION, TENANT};
use crate::codec::schemas::Product;

pub const DIM_DEAL: Table = Table {
    name: "dim_deal",
    doc: "Deals as they stand: status, balances, and which revision of each plan is the current one.",
    grain: "deal",
    feed: Product::ContractState,
    explode: &[],
    only: None,
    order: None,
    columns: &[
        TENANT,
        DEAL,
        column("status", Text, Record("status"), "draft, active, completed, cancelled."),
        column(
            "version",
            Integer,
            Record("version"),
            "Counts changes of terms, from 1; 0 for a draft.",
        ),
        column("currency", Text, Record("currency"), "ISO 4217 code; null for a draft.").nullable(),
        column(
            "customer_id",
            Text,
            Record("terms.customer.customer_id"),
            "The customer of the latest terms.",
        )
        .nullable(),
        column(
            "deal_amount",
            Amount,
            Record("terms.amount"),
            "The price of the latest terms, in currency.",
        )
        .nullable(),
        column(
            "billing_cycle",
            Text,
            Record("terms.billing_cycle"),
            "monthly, quarterly, annual, upfront, milestone.",
        )
        .nullable(),
        column(
            "contract_start",
            Day,
            Record("terms.contract_start"),
            "First day of service of the latest terms.",
        )
        .nullable(),
        column(
            "contract_end",
            Day,
            Record("terms.contract_end"),
            "Last day of service of the latest terms, where stated.",
        )
        .nullable(),
        column(
            "contract_liability",
            Amount,
            Record("balances.contract_liability"),
            "Deferred revenue on the books' clock, in currency.",
        )
        .nullable(),
        column(
            "contract_asset",
            Amount,
            Record("balances.contract_asset"),
            "Unbilled revenue on the books' clock, in currency.",
        )
        .nullable(),
        column(
            "receivable",
            Amount,
            Record("balances.receivable"),
            "Invoiced and not paid on the books' clock, in currency.",
        )
        .nullable(),
        column(
            "recognised",
            Amount,
            Record("balances.recognised"),
            "Revenue recognised up to the books' clock, in currency.",
        )
        .nullable(),
        column(
            "remaining",
            Amount,
            Record("balances.remaining"),
            "Transaction price less recognised, in currency.",
        )
        .nullable(),
        column(
            "schedule_revision",
            Integer,
            Record("schedule_revision"),
            "The rows of fact_recognition with this revision are the plan.",
        ),
        column(
            "billing_revision",
            Integer,
            Record("billing_revision"),
            "The rows of fact_billing with this revision are the plan.",
        ),
        column(
            "waits_for_rate",
            Day,
            Record("waits_for.date"),
            "The day whose exchange rate the deal waits for; null when it waits for none.",
        )
        .nullable(),
        PARTITION,
        OFFSET,
    ],
};

pub const DIM_DEAL_LINE: Table = Table {
    name: "dim_deal_line",
    doc: "Lines of deals, as the CRM last stated them.",
    grain: "line of a deal",
    feed: Product::DealCanonical,
    explode: &["deal.line_items"],
    only: None,
    order: Some("occurred_at"),
    columns: &[
        TENANT,
        DEAL,
        column("line_item_id", Text, Item("id"), "The line.").key(),
        column(
            "line_type",
            Text,
            Item("type"),
            "subscription, setup, services, usage, ...: the tail of the role revenue.<line type>.",
        ),
        column("name", Text, Item("name"), "What the customer reads on the order.").nullable(),
        column(
            "amount",
            Amount,
            Item("amount"),
            "The line's share of the deal's amount, in the deal's currency.",
        ),
        column("quantity", Rate, Item("quantity"), "Units sold.").nullable(),
        column("unit_price", Rate, Item("unit_price"), "Price of one unit.").nullable(),
        column("ssp", Rate, Item("ssp"), "Standalone selling price.").nullable(),
        column(
            "start_date",
            Day,
            Item("start"),
            "First day of service, where it differs from the deal's.",
        )
        .nullable(),
        column(
            "end_date",
            Day,
            Item("end"),
            "Last day of service, where it differs from the deal's.",
        )
        .nullable(),
        column(
            "recurring",
            Boolean,
            Item("recurring"),
            "Whether the line recurs, where the CRM says so.",
        )
        .nullable(),
        column(
            "occurred_at",
            Instant,
            Record("occurred_at"),
            "When this was stated; the latest statement holds.",
        ),
        PARTITION,
        OFFSET,
    ],
};

pub const DIM_CUSTOMER: Table = Table {
    name: "dim_customer",
    doc: "Customers, as the latest deal event that names them describes them.",
    grain: "customer of a tenant",
    feed: Product::DealCanonical,
    explode: &[],
    only: Some("deal.customer.customer_id"),
    order: Some("occurred_at"),
    columns: &[
        TENANT,
        column(
            "customer_id",
            Text,
            Record("deal.customer.customer_id"),
            "The customer's id in the CRM.",
        )
        .key(),
        column("name", Text, Record("deal.customer.name"), "The customer's name.").nullable(),
        column(
            "accounting_id",
            Text,
            Record("deal.customer.accounting_id"),
            "The customer's name in the accounting system.",
        )
        .nullable(),
        column(
            "occurred_at",
            Instant,
            Record("occurred_at"),
            "When this was stated; the latest statement holds.",
        ),
        PARTITION,
        OFFSET,
    ],
};

pub const DIM_ACCOUNT: Table = Table {
    name: "dim_account",
    doc: "Ledger accounts that entries were posted to, with the role each plays.",
    grain: "account and role of a tenant",
    feed: Product::JournalEntries,
    explode: &["lines"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        column("account", Text, Item("account"), "The mapped ledger account, or the role where none is mapped.").key(),
        column("role", Text, Item("role"), "accounts_receivable, cash, contract_liability, contract_asset, revenue.<line type>, tax_payable, fx_gain_loss, refund_liability.").key(),
        PARTITION,
        OFFSET,
    ],
};

pub const DIM_PERIOD: Table = Table {
    name: "dim_period",
    doc: "Periods that revenue is planned in, by the tenant's fiscal calendar.",
    grain: "period of a tenant",
    feed: Product::RecognitionSchedule,
    explode: &["obligations", "rows"],
    only: None,
    order: None,
    columns: &[
        TENANT,
        column(
            "period",
            Text,
            Inner("period"),
            "2026-02, or a fiscal label such as FY2026-P02.",
        )
        .key(),
        column("first_day", Day, Period(PeriodPart::FirstDay), "First day."),
        column("last_day", Day, Period(PeriodPart::LastDay), "Last day."),
        column("fiscal_year", Integer, Period(PeriodPart::Year), "The fiscal year."),
        column("fiscal_quarter", Integer, Period(PeriodPart::Quarter), "1 to 4."),
        column("period_number", Integer, Period(PeriodPart::Number), "1 to 12."),
        column(
            "period_index",
            Integer,
            Period(PeriodPart::Index),
            "Twelve times the year, plus the number: consecutive periods differ by one.",
        ),
        PARTITION,
        OFFSET,
    ],
};
