//! `[tenants.NAME]`: the books of each tenant.
//!
//! Owns how currencies, time zones, line types and fiscal calendars are written. Invariant: each tenant has a policy
//! that exists. Absent on purpose: what the choices mean; see `revenue`.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::{Leaf, Name, leaf};
use super::policy::{PolicyText, words};
use super::problem::{KeyPath, Problems};
use super::shape::{nearest, quoted};
use crate::revenue::ids::{LineType, TenantId};
use crate::revenue::money::Currency;
use crate::revenue::period::{FiscalCalendar, YearEnd};
use crate::revenue::policy::Policy;
use crate::revenue::reference::{Settings, Tenant};

/// A leaf around a type that the revenue room, or jiff, reads.
macro_rules! wrapped_leaf {
    ($(#[$doc:meta])* $type:ident($inner:ty), $format:literal, $example:literal, $read:expr, $shown:expr, $wrong:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub(super) struct $type($inner);
        leaf!($type);

        impl Leaf for $type {
            const FORMAT: &'static str = $format;
            const EXAMPLE: &'static str = $example;

            fn parse(text: &str) -> Result<Self, String> {
                let read: fn(&str) -> Option<$inner> = $read;
                read(text).map(Self).ok_or_else(|| $wrong.to_owned())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown: fn(&$inner) -> Option<&str> = $shown;
                f.write_str(shown(&self.0).unwrap_or_default())
            }
        }

        impl From<$type> for $inner {
            fn from(text: $type) -> Self {
                text.0
            }
        }
    };
}

wrapped_leaf!(
    /// A tenant id, the first half of every record key.
    #[derive(Eq, PartialOrd, Ord)]
    TenantName(TenantId), "tenant", "acme-corp", |text| TenantId::parse(text), |tenant| Some(tenant.as_str()),
    "no tenant id; write up to 256 letters, digits, dots, dashes or underscores"
);
wrapped_leaf!(
    /// A line type, the tail of the role `revenue.<line type>`.
    #[derive(Eq, PartialOrd, Ord)]
    LineTypeName(LineType), "line-type", "subscription", |text| LineType::parse(text), |kind| Some(kind.as_str()),
    "no line type; write letters, digits, dots, dashes or underscores, such as \"subscription\""
);
wrapped_leaf!(
    /// An ISO 4217 code.
    CurrencyCode(Currency), "currency", "USD", Currency::parse, |currency| Some(currency.code()),
    "no currency; write an ISO 4217 code, such as \"USD\""
);
wrapped_leaf!(
    /// A name of the time zone database.
    ZoneName(TimeZone), "time-zone", "Europe/Berlin", |text| TimeZone::get(text).ok(), |zone| zone.iana_name(),
    "no time zone; write a name of the time zone database, such as \"UTC\" or \"Europe/Berlin\""
);

/// The books of one tenant. A tenant without this section gets the defaults.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TenantText {
    /// Currency of the books; without it, each deal's own.
    functional_currency: Option<CurrencyCode>,
    /// Where the tenant's days begin and end.
    time_zone: ZoneName,
    /// The NAME of the tenant's `[policies.NAME]`.
    policy: Name,
    /// `calendar`, `4-4-5`, or a table for other years of whole weeks.
    fiscal_calendar: FiscalText,
}

impl Default for TenantText {
    fn default() -> Self {
        Self {
            functional_currency: None,
            time_zone: ZoneName(TimeZone::UTC),
            policy: Name::literal(DEFAULT_POLICY),
            fiscal_calendar: FiscalText::Named(FiscalName::Calendar),
        }
    }
}

/// The policy of tenants that name none. It may be in the file; else every choice is the default.
const DEFAULT_POLICY: &str = "default";

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum FiscalText {
    Named(FiscalName),
    Weeks(WeeksText),
}

/// A calendar by its name.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
enum FiscalName {
    /// Calendar months.
    #[serde(rename = "calendar")]
    Calendar,
    /// Quarters of 4, 4 and 5 weeks; the year ends on the last Saturday of December.
    #[serde(rename = "4-4-5")]
    FourFourFive,
}

/// A year of 52 or 53 whole weeks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WeeksText {
    /// Weeks of the three periods of each quarter.
    pattern: Pattern,
    /// Month in which the year ends, 1 to 12.
    #[schemars(range(min = 1, max = 12))]
    year_end_month: i8,
    /// Day of the week on which the year ends.
    year_end_weekday: WeekdayText,
    /// Which such day ends the year.
    year_end: YearEndText,
}

impl Default for WeeksText {
    fn default() -> Self {
        Self {
            pattern: Pattern::FourFourFive,
            year_end_month: 12,
            year_end_weekday: WeekdayText::Saturday,
            year_end: YearEndText::LastInMonth,
        }
    }
}

/// Weeks of the three periods of each quarter.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
enum Pattern {
    /// The last period is the long one.
    #[serde(rename = "4-4-5")]
    FourFourFive,
    /// The second period is the long one.
    #[serde(rename = "4-5-4")]
    FourFiveFour,
    /// The first period is the long one.
    #[serde(rename = "5-4-4")]
    FiveFourFour,
}

words! {
    /// A day of the week.
    WeekdayText for Weekday {
        /// Monday.
        Monday = "monday",
        /// Tuesday.
        Tuesday = "tuesday",
        /// Wednesday.
        Wednesday = "wednesday",
        /// Thursday.
        Thursday = "thursday",
        /// Friday.
        Friday = "friday",
        /// Saturday.
        Saturday = "saturday",
        /// Sunday.
        Sunday = "sunday",
    }
}

words! {
    /// Which weekday ends a 52/53-week year (US Treasury Regulation 1.441-2).
    YearEndText for YearEnd {
        /// The last such day of the month.
        LastInMonth = "last_in_month",
        /// The one nearest to the end of the month.
        NearestMonthEnd = "nearest_month_end",
    }
}

impl From<FiscalText> for FiscalCalendar {
    fn from(text: FiscalText) -> Self {
        match text {
            FiscalText::Named(FiscalName::Calendar) => Self::Months,
            FiscalText::Named(FiscalName::FourFourFive) => Self::FOUR_FOUR_FIVE,
            FiscalText::Weeks(weeks) => Self::Weeks {
                pattern: match weeks.pattern {
                    Pattern::FourFourFive => [4, 4, 5],
                    Pattern::FourFiveFour => [4, 5, 4],
                    Pattern::FiveFourFour => [5, 4, 4],
                },
                year_end_month: weeks.year_end_month,
                year_end_weekday: weeks.year_end_weekday.into(),
                year_end: weeks.year_end.into(),
            },
        }
    }
}

/// The tenants of a file, each with its policy. A tenant that the file does not list, or that names no policy, has the
/// policy called `default`.
pub(super) fn settings(
    tenants: BTreeMap<TenantName, TenantText>,
    policies: BTreeMap<Name, PolicyText>,
    problems: &mut Problems<'_>,
) -> Settings {
    let policies: BTreeMap<Name, Policy> = policies
        .into_iter()
        .map(|(name, text)| (name.clone(), text.named(&name)))
        .collect();
    let default = TenantText::default().books(policies.get(&Name::literal(DEFAULT_POLICY)).cloned());
    let tenants = tenants.into_iter().map(|(tenant, text)| {
        let policy = policies.get(&text.policy).cloned();
        if policy.is_none() && text.policy.as_str() != DEFAULT_POLICY {
            unknown_policy(&tenant, &text.policy, &policies, problems);
        }
        (TenantId::from(tenant), text.books(policy))
    });
    Settings {
        tenants: tenants.collect(),
        default,
    }
}

impl TenantText {
    fn books(self, policy: Option<Policy>) -> Tenant {
        Tenant {
            functional_currency: self.functional_currency.map(Currency::from),
            time_zone: self.time_zone.into(),
            policy: policy.unwrap_or_default(),
            fiscal: self.fiscal_calendar.into(),
        }
    }
}

fn unknown_policy(tenant: &TenantName, name: &Name, policies: &BTreeMap<Name, Policy>, problems: &mut Problems<'_>) {
    let at = KeyPath::of(["tenants", tenant.0.as_str(), "policy"]);
    let names = || policies.keys().map(Name::as_str);
    let shown = problems.shown(&at, name.as_str());
    let message = match nearest(name.as_str(), names()) {
        Some(near) => format!("there is no [policies.{shown}]; did you mean {near:?}?"),
        None if policies.is_empty() => format!("there is no [policies.{shown}]; add it"),
        None => format!(
            "there is no [policies.{shown}]; add it, or write one of {}",
            quoted(names())
        ),
    };
    problems.report(&at, message);
}
