//! The words that stand for the closed enums of `revenue` in canonical events and on our topics.
//!
//! Invariant: each table is a bijection; a word, once published, is never given another meaning.

use crate::revenue::fact::{BillingCycle, EstimateMethod, Method};
use crate::revenue::policy::Treatment;

/// An enum with one word for each value.
pub(super) trait Named: Copy + PartialEq + 'static {
    const ALL: &'static [Self];
    fn name(self) -> &'static str;

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.name() == name)
    }
}

macro_rules! named {
    ($type:ident: $($value:ident = $name:literal,)*) => {
        impl Named for $type {
            const ALL: &'static [$type] = &[$($type::$value),*];

            fn name(self) -> &'static str {
                match self {
                    $($type::$value => $name,)*
                }
            }
        }
    };
}
pub(super) use named;

named! { BillingCycle:
    Monthly = "monthly",
    Quarterly = "quarterly",
    Annual = "annual",
    Upfront = "upfront",
    Milestone = "milestone",
}

named! { Method:
    StraightLine = "straight_line",
    PointInTime = "point_in_time",
    Units = "units",
    Milestone = "milestone",
    Progress = "progress",
    Usage = "usage",
}

named! { Treatment:
    Auto = "auto",
    SeparateContract = "separate_contract",
    Prospective = "prospective",
    CumulativeCatchUp = "cumulative_catch_up",
}

named! { EstimateMethod:
    ExpectedValue = "expected_value",
    MostLikelyAmount = "most_likely_amount",
}
