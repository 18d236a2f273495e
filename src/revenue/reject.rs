//! Rejections: the one reason a fact has no effect, and what to do about it.
//!
//! Invariant: a fact has at most one rejection. A record that cannot be read has the first fault met in reading it (the
//! codes up to [`Code::InvalidDate`]). A fact that can be read has the first [`Code`] that applies, in the order in which
//! the enum lists them: what the fact itself shows first, then its identity, then what its deal says. Two codes say that a deal waits and
//! will go on by itself: [`Code::DealNotClosed`] and [`Code::RateMissing`]. One says that a part of the fact has effect:
//! [`Code::CreditInPart`].
//! Deliberately absent: errors of the machinery, which are not the fact's.

use std::fmt;

/// A refused fact. `field` is a path such as `payload.line_items[1].amount`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message} (found {value})")]
pub struct Rejection {
    pub code: Code,
    pub field: String,
    /// The offending value as text.
    pub value: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Rejection {
    pub fn new(code: Code, field: &str, value: impl fmt::Display, message: &str) -> Rejection {
        Rejection {
            code,
            field: field.to_owned(),
            value: value.to_string(),
            message: message.to_owned(),
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a fact was refused, in order of precedence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, in order of precedence.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The code on the wire: `unknown_currency`.
            pub fn as_str(&self) -> &'static str {
                match self {
                    $(Code::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    /// Not a JSON object of the canonical event, or a field of the wrong type.
    Malformed = "malformed",
    UnknownType = "unknown_type",
    MissingField = "missing_field",
    UnknownField = "unknown_field",
    /// An empty, too long or ill-formed id.
    InvalidId = "invalid_id",
    UnknownCurrency = "unknown_currency",
    /// A day outside 1970 to 2200, or an end before its start.
    InvalidDate = "invalid_date",
    InvalidTerm = "invalid_term",
    /// Beyond the bounds of `money`.
    Overflow = "overflow",
    /// Negative, or zero where that says nothing.
    InvalidAmount = "invalid_amount",
    /// More decimals than the currency has.
    TooPrecise = "too_precise",
    InvalidQuantity = "invalid_quantity",
    InvalidPercent = "invalid_percent",
    InvalidRate = "invalid_rate",
    DuplicateLine = "duplicate_line",
    LinesDoNotAddUp = "lines_do_not_add_up",
    /// Duplicate milestones, or shares that do not sum to the line.
    InvalidMilestones = "invalid_milestones",
    /// Stated invoices that do not sum to the deal, or beside the cycle `milestone`.
    InvalidInstalments = "invalid_instalments",
    InvalidSsp = "invalid_ssp",
    /// Probabilities that do not sum to 100, or more included than was estimated.
    InvalidEstimate = "invalid_estimate",
    /// The same event id with other content.
    ConflictingDuplicate = "conflicting_duplicate",
    UnknownPeriod = "unknown_period",
    /// The close of a period whose last day has not ended by the clock.
    PeriodNotOver = "period_not_over",
    /// A second first publication of a rate; a correction needs a higher version.
    RateConflict = "rate_conflict",
    /// The deal has no `deal.closed` yet; the fact waits for it.
    DealNotClosed = "deal_not_closed",
    /// A second `deal.closed` under another event id.
    AlreadyClosed = "already_closed",
    AlreadyCancelled = "already_cancelled",
    CurrencyMismatch = "currency_mismatch",
    /// The effective date lies before the term or after its end.
    OutsideTerm = "outside_term",
    /// The residual approach is not allowed for these prices (ASC 606-10-32-34(c)).
    ResidualRefused = "residual_refused",
    UnknownLine = "unknown_line",
    UnknownMilestone = "unknown_milestone",
    /// The fact measures a line that is not recognised by that measure, or estimates by another method than before.
    WrongMethod = "wrong_method",
    AlreadyAccepted = "already_accepted",
    /// The uncertainty was resolved by an earlier event.
    AlreadyResolved = "already_resolved",
    OverDelivery = "over_delivery",
    /// More credit than was billed, or a price below zero.
    OverCredit = "over_credit",
    /// A part of the credit is refused, because no more is billed or left of the price; the other part stands.
    CreditInPart = "credit_in_part",
    /// Nothing is wrong with the deal, but it waits for a rate.
    RateMissing = "rate_missing",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
