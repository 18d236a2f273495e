//! The columns of the CRM's tables that a mapping names.
//!
//! Owns which column of the CRM is which field of the deal. What is not named is not read, so a column nobody asked
//! for never enters the books. Invariant: each table has the columns without which its rows mean nothing.
//! Absent on purpose: column types; the codec reads a value as what its field asks for.

use schemars::JsonSchema;
use serde::Deserialize;

/// A column: its name, or `{ column = "amount", scale = 4 }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(from = "ColumnText")]
pub struct Column {
    pub name: String,
    /// Decimals of the column, where records carry base64 numbers without their scale; else the mapping's
    /// `decimal_scale`.
    pub scale: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum ColumnText {
    Name(#[schemars(length(min = 1), example = &"amount")] String),
    Scaled(ScaledColumn),
}

/// A decimal column and its scale.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScaledColumn {
    /// Name of the column.
    #[schemars(length(min = 1))]
    column: String,
    /// Decimals of the column.
    #[schemars(range(min = 0, max = 28))]
    scale: u32,
}

impl From<ColumnText> for Column {
    fn from(text: ColumnText) -> Self {
        match text {
            ColumnText::Name(name) => Self { name, scale: None },
            ColumnText::Scaled(ScaledColumn { column, scale }) => Self {
                name: column,
                scale: Some(scale),
            },
        }
    }
}

/// One table's columns, with a list of those that are named.
macro_rules! columns {
    ($(#[$doc:meta])* $type:ident {
        required { $($(#[$need_doc:meta])* $need:ident $(= $need_key:literal)?,)* }
        optional { $($(#[$may_doc:meta])* $may:ident $(= $may_key:literal)?,)* }
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $type {
            $($(#[$need_doc])* $(#[serde(rename = $need_key)])? #[schemars(example = stringify!($need))]
            pub $need: Column,)*
            $($(#[$may_doc])* $(#[serde(rename = $may_key)])? pub $may: Option<Column>,)*
        }

        impl $type {
            /// Every column named.
            pub fn named(&self) -> impl Iterator<Item = &Column> {
                [$(Some(&self.$need),)* $(self.$may.as_ref(),)*].into_iter().flatten()
            }
        }
    };
}

columns! {
    /// Columns of the table of deals.
    DealColumns {
        required {
            /// Id of the deal; may not contain `/`.
            id,
            /// Stage, translated by `stages`.
            stage,
            /// The whole price.
            amount,
            /// First day of the contract.
            contract_start,
        }
        optional {
            /// Currency code; else the mapping's `currency`.
            currency,
            /// Months of the term. This or `contract_end` must be given.
            term_months,
            /// Last day of the contract. This or `term_months` must be given.
            contract_end,
            /// Billing cycle, translated by `billing_cycles`; else the mapping's `billing_cycle`.
            billing_cycle,
            /// First day on which an amendment or cancellation holds; else the day of the change.
            effective_date,
            /// When the deal was won; else the time of the change.
            closed_at,
            /// Id of the customer's row.
            customer_id,
            /// Recognition method, translated by `methods`.
            method,
            /// Whether setup fees are deferred: a boolean column.
            defer_setup,
            /// Id of the deal that this one renews, for CRMs that renew by a new row: the first of all, where one renewal
            /// follows another.
            renewed_from,
            /// Treatment of an amendment: `auto`, `separate_contract`, `prospective` or `cumulative_catch_up`.
            treatment,
            /// Refund of a cancellation: `unused`, `none` or an amount.
            refund,
        }
    }
}

columns! {
    /// Columns of the table of deal lines.
    LineColumns {
        required {
            /// Id of the line; may not contain `/`.
            id,
            /// Id of the line's deal.
            deal_id,
            /// The line's share of the deal's amount.
            amount,
        }
        optional {
            /// Type of the line, translated by `line_types`; else `default_line_type`.
            line_type = "type",
            /// What is sold, in words.
            name,
            /// Units sold.
            quantity,
            /// Price of one unit.
            unit_price,
            /// Standalone selling price.
            ssp,
            /// First day of the line's service; else the contract's.
            start,
            /// Last day of the line's service; else the contract's.
            end,
            /// Recognition method, translated by `methods`; else the deal's.
            method,
        }
    }
}

columns! {
    /// Columns of the table of customers.
    CustomerColumns {
        required {
            /// Id of the customer.
            id,
        }
        optional {
            /// Name of the customer.
            name,
            /// The customer's receivable account in the ledger.
            accounting_id,
        }
    }
}

columns! {
    /// Columns of the table of milestones. `percent` or `amount` must be given; a row uses the one it fills.
    MilestoneColumns {
        required {
            /// Id of the milestone, unique within its line; may not contain `/`.
            id,
            /// Id of the milestone's deal.
            deal_id,
            /// Id of the milestone's line.
            line_item_id,
            /// Day of acceptance; empty until then.
            accepted_on,
        }
        optional {
            /// Share of the line's price, 0 to 100.
            percent,
            /// Share of the line's price, as an amount.
            amount,
        }
    }
}
