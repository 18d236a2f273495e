//! Reference facts and the context of a decision: rates, account mappings, period locks, the clock, the policy.
//!
//! Invariant: what was learned first stands. A rate is replaced only by a higher version, a tick never turns the clock
//! back, and learning a fact twice changes nothing. Deliberately absent: any wall clock and any table outside the log.
//!
//! A rate holds from its day on until the next published one, for at most [`RATE_HOLDS_DAYS`]: markets publish none on
//! weekends and holidays. Past that, the rate is missing, and whoever needs it waits.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::difference::first_difference;
use super::fact::{Body, Fact, FxRate, MappedSubject};
use super::ids::{CustomerId, EventId, TenantId};
use super::money::Currency;
use super::period::{FiscalCalendar, Period, add_days};
use super::policy::Policy;
use super::reject::{Code, Rejection};

/// How many days a published rate serves for later days without a rate of their own.
pub const RATE_HOLDS_DAYS: i64 = 7;

/// Everything the reference facts of all tenants said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reference {
    tenants: BTreeMap<TenantId, TenantReference>,
}

/// Whether a fact was news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    New,
    Already,
}

impl Reference {
    /// Takes in a reference fact. A fact that belongs to a deal is not one and changes nothing.
    pub fn learn(&mut self, fact: &Fact) -> Result<Learned, Rejection> {
        fact.validate()?;
        if fact.body.deal_id().is_some() {
            return Ok(Learned::Already);
        }
        self.tenants.entry(fact.tenant.clone()).or_default().learn(fact)
    }

    /// Whether a fact of this id was taken in, news or not.
    pub fn has_seen(&self, fact: &Fact) -> bool {
        self.tenant(&fact.tenant).seen.contains_key(&fact.event_id)
    }

    /// What is known of a tenant; empty when nothing was said.
    pub fn tenant(&self, tenant: &TenantId) -> &TenantReference {
        static EMPTY: TenantReference = TenantReference::EMPTY;
        self.tenants.get(tenant).unwrap_or(&EMPTY)
    }

    /// Moves one tenant's clock forward, never back, without a fact: `--as-of` and tests.
    pub fn tick(&mut self, tenant: &TenantId, day: Date) -> Learned {
        self.tenants.entry(tenant.clone()).or_default().tick(day)
    }

    pub fn tenants(&self) -> impl Iterator<Item = (&TenantId, &TenantReference)> {
        self.tenants.iter()
    }
}

/// What the reference facts of one tenant said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantReference {
    rates: BTreeMap<(Currency, Currency), BTreeMap<Date, (u32, Decimal)>>,
    /// By first day; of two mappings from the same day the later one said holds, whichever arrived first.
    accounts: BTreeMap<MappedSubject, BTreeMap<(Date, Timestamp, EventId), String>>,
    closed: BTreeSet<Period>,
    clock: Option<Date>,
    seen: BTreeMap<EventId, Fact>,
}

impl TenantReference {
    const EMPTY: TenantReference = TenantReference {
        rates: BTreeMap::new(),
        accounts: BTreeMap::new(),
        closed: BTreeSet::new(),
        clock: None,
        seen: BTreeMap::new(),
    };

    /// All days before this one have ended.
    pub fn clock(&self) -> Option<Date> {
        self.clock
    }

    pub fn closed_periods(&self) -> &BTreeSet<Period> {
        &self.closed
    }

    /// Units of `quote` for one of `base` on a day: that day's rate, or the last one before it within `within_days`
    /// (any age when `None`). A pair published the other way round serves by its inverse.
    pub fn rate(&self, base: Currency, quote: Currency, day: Date, within_days: Option<i64>) -> Option<Decimal> {
        if base == quote {
            return Some(Decimal::ONE);
        }
        let latest = |pair: (Currency, Currency)| {
            let (date, (_, rate)) = self.rates.get(&pair)?.range(..=day).next_back()?;
            let oldest = within_days.map(|days| add_days(day, -days));
            oldest.is_none_or(|oldest| *date >= oldest).then_some((*date, *rate))
        };
        match (latest((base, quote)), latest((quote, base))) {
            (Some((direct, rate)), Some((inverse, _))) if direct >= inverse => Some(rate),
            (_, Some((_, rate))) => Decimal::ONE.checked_div(rate),
            (Some((_, rate)), None) => Some(rate),
            (None, None) => None,
        }
    }

    /// The ledger account mapped to a customer or role on a day.
    pub fn account(&self, subject: &MappedSubject, day: Date) -> Option<&str> {
        let mappings = self.accounts.get(subject)?;
        let (_, account) = mappings.iter().rev().find(|((from, ..), _)| *from <= day)?;
        Some(account)
    }

    fn learn(&mut self, fact: &Fact) -> Result<Learned, Rejection> {
        if let Some(known) = self.seen.get(&fact.event_id) {
            return match first_difference(known, fact) {
                None => Ok(Learned::Already),
                Some(field) => Err(conflict(&field, fact)),
            };
        }
        let learned = match &fact.body {
            Body::FxRate(rate) => self.learn_rate(rate)?,
            Body::AccountMapped(mapped) => {
                let days = self.accounts.entry(mapped.subject.clone()).or_default();
                let key = (mapped.from, fact.occurred_at, fact.event_id.clone());
                days.insert(key, mapped.accounting_id.clone());
                Learned::New
            }
            Body::PeriodClosed(period) => match self.closed.insert(*period) {
                true => Learned::New,
                false => Learned::Already,
            },
            Body::PeriodReopened(period) => match self.closed.remove(period) {
                true => Learned::New,
                false => Learned::Already,
            },
            Body::ClockTicked(day) => self.tick(*day),
            Body::DealClosed(_)
            | Body::DealAmended(_)
            | Body::DealRenewed(_)
            | Body::DealCancelled(_)
            | Body::MilestoneAccepted(_)
            | Body::DeliveryRecorded(_)
            | Body::ProgressMeasured(_)
            | Body::UsageReported(_)
            | Body::CreditGranted(_)
            | Body::ConsiderationEstimated(_)
            | Body::PaymentReceived(_) => Learned::Already,
        };
        self.seen.insert(fact.event_id.clone(), fact.clone());
        Ok(learned)
    }

    fn learn_rate(&mut self, rate: &FxRate) -> Result<Learned, Rejection> {
        let days = self.rates.entry((rate.base, rate.quote)).or_default();
        match days.get(&rate.date) {
            Some((version, known)) if *version == rate.version && *known != rate.rate => Err(Rejection::new(
                Code::RateConflict,
                "payload.rate",
                rate.rate,
                "a rate for this pair and day was published before and stands; \
                     send a correction with a higher version",
            )),
            Some((version, _)) if *version >= rate.version => Ok(Learned::Already),
            Some(_) | None => {
                days.insert(rate.date, (rate.version, rate.rate));
                Ok(Learned::New)
            }
        }
    }

    /// Moves the clock forward, never back.
    fn tick(&mut self, day: Date) -> Learned {
        match self.clock {
            Some(clock) if clock >= day => Learned::Already,
            Some(_) | None => {
                self.clock = Some(day);
                Learned::New
            }
        }
    }
}

/// The rejection for an event id that comes back with other content.
pub fn conflict(field: &str, fact: &Fact) -> Rejection {
    Rejection::new(
        Code::ConflictingDuplicate,
        field,
        &fact.event_id,
        "this event id was seen before with another value in this field; send a new event id",
    )
}

/// Accounting choices per tenant. A tenant that is not listed gets the defaults.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub tenants: BTreeMap<TenantId, Tenant>,
    pub default: Tenant,
}

impl Settings {
    pub fn tenant(&self, tenant: &TenantId) -> &Tenant {
        self.tenants.get(tenant).unwrap_or(&self.default)
    }

    /// Takes in a reference fact where it enters the books, and where they are restored from what they took in. A close that
    /// comes too early is refused for good: come again after the clock moved on, it changes nothing.
    pub fn learn(&self, fact: &Fact, reference: &mut Reference) -> Result<Learned, Rejection> {
        let checked = self.check_period(fact, reference);
        if checked.as_ref().is_err_and(|it| it.code == Code::PeriodNotOver) {
            let tenant = reference.tenants.entry(fact.tenant.clone()).or_default();
            tenant.seen.insert(fact.event_id.clone(), fact.clone());
        }
        checked?;
        reference.learn(fact)
    }

    /// Whether a fact about a period names one that the tenant's calendar has, and closes none that is not over by the
    /// clock: closing is posting all that is the period's, so that a slip of the year would post what nobody earned yet.
    /// Where no clock is known, nothing says that a period is not over.
    ///
    /// `known` is what was learned before.
    pub fn check_period(&self, fact: &Fact, known: &Reference) -> Result<(), Rejection> {
        let (Body::PeriodClosed(period) | Body::PeriodReopened(period)) = &fact.body else {
            return Ok(());
        };
        let fiscal = self.tenant(&fact.tenant).fiscal;
        if !fiscal.knows(*period) {
            return Err(Rejection::new(
                Code::UnknownPeriod,
                "payload.period",
                period,
                "the tenant's calendar has no such period; use 2026-02 or FY2026-P02 as it does",
            ));
        }
        let known = known.tenant(&fact.tenant);
        let repeated = known.seen.contains_key(&fact.event_id);
        let last = fiscal.last_day(*period);
        match known.clock.filter(|clock| *clock <= last) {
            Some(clock) if fact.body == Body::PeriodClosed(*period) && !repeated => Err(Rejection::new(
                Code::PeriodNotOver,
                "payload.period",
                period,
                &format!(
                    "its last day is {last}, and the clock stands at {clock}; close it once the clock is past its last day, \
                     by an event of a new id"
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// `None`: each deal's own currency.
    pub functional_currency: Option<Currency>,
    pub time_zone: TimeZone,
    pub policy: Policy,
    pub fiscal: FiscalCalendar,
}

impl Default for Tenant {
    fn default() -> Tenant {
        Tenant {
            functional_currency: None,
            time_zone: TimeZone::UTC,
            policy: Policy::default(),
            fiscal: FiscalCalendar::Months,
        }
    }
}

/// Everything a decision may rest on besides the deal's own facts.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub tenant: &'a Tenant,
    pub reference: &'a TenantReference,
}

impl<'a> Context<'a> {
    pub fn new(settings: &'a Settings, reference: &'a Reference, tenant: &TenantId) -> Context<'a> {
        Context {
            tenant: settings.tenant(tenant),
            reference: reference.tenant(tenant),
        }
    }

    /// The day of an instant in the tenant's time zone.
    pub fn day(&self, instant: jiff::Timestamp) -> Date {
        instant.to_zoned_datetime(self.tenant.time_zone.clone()).date()
    }

    pub fn functional(&self, currency: Currency) -> Currency {
        self.tenant.functional_currency.unwrap_or(currency)
    }

    /// The account of a customer, where one is mapped by a fact.
    pub fn customer_account(&self, customer: &CustomerId, day: Date) -> Option<&'a str> {
        self.reference.account(&MappedSubject::Customer(customer.clone()), day)
    }

    pub fn role_account(&self, role: &str, day: Date) -> Option<&'a str> {
        self.reference.account(&MappedSubject::Role(role.to_owned()), day)
    }
}

/// The rate a parked deal waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RateNeeded {
    pub base: Currency,
    pub quote: Currency,
    pub date: Date,
}
