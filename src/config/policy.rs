//! `[policies.NAME]`: which of the legal answers a tenant has chosen, in the words of the file.
//!
//! Owns the names of the choices; their meaning is `revenue::policy`'s. Invariant: the text types and the accounting
//! ones have the same variants, which the two `match`es of `words!` make the compiler check, and the same defaults,
//! which are taken from [`Policy::default`]. Absent on purpose: any accounting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::Name;
use crate::revenue::policy::{
    BillingTiming, LateEvents, Policy, RecognitionPosting, Rounding, SetupFees, StraightLine, Treatment,
};

/// The words that a file uses for an enum of the revenue room, which itself knows no serde.
macro_rules! words {
    ($(#[$doc:meta])* $text:ident for $type:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub(in crate::config) enum $text {
            $($(#[$about])* #[serde(rename = $word)] $variant,)+
        }

        impl From<$text> for $type {
            fn from(text: $text) -> Self {
                match text {
                    $($text::$variant => $type::$variant,)+
                }
            }
        }

        impl From<$type> for $text {
            fn from(value: $type) -> Self {
                match value {
                    $($type::$variant => $text::$variant,)+
                }
            }
        }
    };
}
pub(super) use words;

words! {
    /// How a price is spread evenly over a service period. Both ends of the period count.
    StraightLineText for StraightLine {
        /// Equal months; a partial first or last month weighs its days over the days of that month.
        Monthly = "monthly",
        /// Equal periods counted from the start day.
        MonthlyEven = "monthly_even",
        /// Actual days.
        Daily = "daily",
        /// A first month from the 16th on counts half.
        HalfMonth = "half_month",
        /// Twelve months of thirty days.
        Thirty360 = "thirty_360",
    }
}

words! {
    /// Where the fractions of a minor unit go.
    RoundingText for Rounding {
        /// Round the running total: a cut at any date disturbs no earlier period.
        Cumulative = "cumulative",
        /// Round each period; the last takes the rest.
        LastPeriod = "last_period",
        /// Round each later period; the first takes the rest.
        FirstPeriod = "first_period",
        /// Floor each, then one unit each to the largest fractions.
        LargestRemainder = "largest_remainder",
    }
}

words! {
    /// When a setup fee becomes revenue (ASC 606-10-55-50 to 55-53).
    SetupFeesText for SetupFees {
        /// Over the term of the contract.
        OverTerm = "over_term",
        /// At the start.
        Immediately = "immediately",
        /// Over `customer_life_months`.
        OverCustomerLife = "over_customer_life",
    }
}

words! {
    /// How a modification is accounted for (ASC 606-10-25-12, 25-13).
    TreatmentText for Treatment {
        /// Decide from the lines, and say why.
        Auto = "auto",
        /// Added distinct goods at their standalone selling price.
        SeparateContract = "separate_contract",
        /// The unrecognised price is spread over what remains.
        Prospective = "prospective",
        /// Revenue to date is brought up to the new measure at once.
        CumulativeCatchUp = "cumulative_catch_up",
    }
}

words! {
    /// What becomes of a fact that concerns a closed period.
    LateEventsText for LateEvents {
        /// It lands in the first open period, with a reference to the one it concerns.
        FirstOpenPeriod = "first_open_period",
    }
}

words! {
    /// When recognition entries are issued.
    RecognitionPostingText for RecognitionPosting {
        /// Once the clock has passed the end of the period.
        PeriodEnd = "period_end",
        /// When the period is closed.
        AtClose = "at_close",
        /// All of a schedule at once, dated ahead.
        Upfront = "upfront",
    }
}

words! {
    /// Which end of a billing cycle is invoiced.
    BillingText for BillingTiming {
        /// On its first day.
        InAdvance = "in_advance",
        /// On its last day.
        InArrears = "in_arrears",
    }
}

/// One named set of accounting choices.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PolicyText {
    straight_line: StraightLineText,
    rounding: RoundingText,
    setup_fees: SetupFeesText,
    /// How long a customer stays, in months; used when `setup_fees` is `over_customer_life`.
    #[schemars(range(min = 1, max = 600))]
    customer_life_months: u32,
    modification: TreatmentText,
    late_events: LateEventsText,
    recognition_posting: RecognitionPostingText,
    billing: BillingText,
}

impl Default for PolicyText {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            straight_line: policy.straight_line.into(),
            rounding: policy.rounding.into(),
            setup_fees: policy.setup_fees.into(),
            customer_life_months: policy.customer_life_months,
            modification: policy.modification.into(),
            late_events: policy.late_events.into(),
            recognition_posting: policy.recognition_posting.into(),
            billing: policy.billing.into(),
        }
    }
}

impl PolicyText {
    pub(super) fn named(self, name: &Name) -> Policy {
        Policy {
            name: name.to_string(),
            straight_line: self.straight_line.into(),
            rounding: self.rounding.into(),
            setup_fees: self.setup_fees.into(),
            customer_life_months: self.customer_life_months,
            modification: self.modification.into(),
            late_events: self.late_events.into(),
            recognition_posting: self.recognition_posting.into(),
            billing: self.billing.into(),
        }
    }
}
