//! A performance obligation: one distinct promise, and how its price is earned.
//!
//! An obligation is a list of segments, each a [`Curve`] that holds from a day on, plus lumps booked on one day. A
//! modification adds a segment; it never touches the days before it.
//!
//! ```text
//! level(day) = base + curve(day) - offset      of the last segment that begins before the day
//! booked     = level + lumps before the day
//! ```
//!
//! Invariant: the booked amount after all performance equals [`Obligation::expected`]. Deliberately absent: why a
//! segment was added (`modify`) and anything about invoices.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::curve::TimeCurve;
use super::fact::{Method, Milestone};
use super::ids::{ContractId, EstimateId, EventId, LineId, LineType, MilestoneId, ObligationId};
use super::money::{Currency, proportion};
use super::performance::{Performance, Reached};

#[derive(Clone, Debug, PartialEq)]
pub struct Obligation {
    pub id: ObligationId,
    pub contract: ContractId,
    pub line_id: LineId,
    pub line_type: LineType,
    pub method: Method,
    pub recurring: bool,
    pub start: Date,
    /// The last day of service.
    pub end: Date,
    pub currency: Currency,
    /// Never empty; sorted by `from`. The first holds since ever.
    pub segments: Vec<Segment>,
    pub lumps: Vec<Lump>,
    /// Credits that lowered the price of what remained, by day.
    pub credits: Vec<(Date, Decimal, EventId)>,
    /// The first day without service, after a cancellation, a removal or an early renewal.
    pub stop: Option<Date>,
    /// Whether what remains of it is distinct from what was delivered; `None` where the line does not say.
    pub distinct: Option<bool>,
    /// Units of the same line that belong to an earlier contract: deliveries are its before they are this one's.
    pub units_before: Decimal,
    /// The estimate of which this is a line's share; `None` for the line's own price.
    pub estimate: Option<EstimateId>,
    pub performance: Performance,
}

/// A stretch of days under one set of terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub from: Date,
    pub base: Decimal,
    pub offset: Decimal,
    pub curve: Curve,
    /// The whole price of the promise under these terms, before credits, after any pooling with other lines.
    pub price: Decimal,
    /// What the line promises under these terms; equal terms mean that nothing changed.
    pub terms: LineTerms,
    /// The fact that set them.
    pub cause: EventId,
    pub laid: Laid,
}

/// How a segment came about, so that it can be laid again over what a credit of an earlier day leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Laid {
    /// As sold.
    Sold,
    /// Over what remained (ASC 606-10-25-13(a)).
    Rest,
    /// Measured from the start (25-13(b)).
    Anew,
    /// Between the end of a line and its return nothing is promised.
    Pause,
    /// By a credit that lowered the price.
    Credit,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LineTerms {
    /// The line's price as sold, before credits.
    pub price: Decimal,
    pub start: Date,
    pub end: Date,
    pub method: Method,
    pub quantity: Option<Decimal>,
    pub milestones: Vec<Milestone>,
}

/// An amount booked on one day.
#[derive(Clone, Debug, PartialEq)]
pub struct Lump {
    pub date: Date,
    pub amount: Decimal,
    pub cause: EventId,
    pub reason: LumpReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LumpReason {
    /// Revenue to date brought up to a new measure (ASC 606-10-25-13(b)).
    CatchUp,
    /// Price already earned and credited (ASC 606-10-55-114 to 55-116).
    Credit,
    /// Billed, not refundable and no longer owed: earned when the contract ends.
    Forfeit,
    /// Refunded beyond the unused part.
    Refund,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Curve {
    Time(TimeCurve),
    /// All on one day; on delivery where deliveries are recorded, by quantity where there is one.
    Point {
        amount: Decimal,
        date: Date,
        quantity: Option<Decimal>,
    },
    /// Units `base` to `full` earn the amount.
    Units {
        amount: Decimal,
        base: Decimal,
        full: Decimal,
    },
    /// The weights of the milestones still open earn the amount.
    Milestones {
        amount: Decimal,
        open: Vec<(MilestoneId, Decimal)>,
    },
    /// Progress from `base` to 1 earns the amount.
    Progress {
        amount: Decimal,
        base: Reached,
    },
    /// Usage earns itself; a prepaid amount that is not used expires after `end`.
    Usage {
        prepaid: Decimal,
        end: Date,
    },
}

impl Obligation {
    /// Earned on the days before a day, without lumps, as a cut on that day finds it.
    pub fn level_before(&self, day: Date) -> Decimal {
        self.level(day, Curve::earned_before)
    }

    /// Booked in the periods before a day that begins a period.
    pub fn booked_before(&self, day: Date) -> Decimal {
        self.level(day, Curve::booked_before)
            + self
                .lumps
                .iter()
                .filter(|lump| lump.date < day)
                .map(|lump| lump.amount)
                .sum::<Decimal>()
    }

    /// The same without lumps, which are entries of their own.
    pub fn flow_before(&self, day: Date) -> Decimal {
        self.level(day, Curve::booked_before)
    }

    fn level(&self, day: Date, of: fn(&Curve, Date, &Performance, Currency) -> Decimal) -> Decimal {
        let last = self.segment_before(day);
        let value = |day: Date, of: fn(&Curve, Date, &Performance, Currency) -> Decimal| {
            last.base - last.offset + of(&last.curve, day, &self.performance, self.currency)
        };
        match self.stop {
            Some(stop) if stop <= day => {
                let last = self.segment_before(stop);
                last.base - last.offset + last.curve.earned_before(stop, &self.performance, self.currency)
            }
            Some(_) | None => value(day, of),
        }
    }

    /// The segment that governs the day before a day.
    pub fn segment_before(&self, day: Date) -> &Segment {
        self.segments
            .iter()
            .rev()
            .find(|segment| segment.from < day)
            .unwrap_or(&self.segments[0])
    }

    pub fn last_segment(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    /// Earned until service ends, with what was caught up.
    pub fn earned_until(&self, stop: Date) -> Decimal {
        self.level_before(stop) + self.lump_sum(LumpReason::CatchUp)
    }

    /// The price of the promise before credits: what is invoiced for it.
    pub fn gross_price(&self) -> Decimal {
        if let Some(stop) = self.stop {
            return self.earned_until(stop) + self.credited();
        }
        let price = self.last_segment().price;
        match &self.last_segment().curve {
            Curve::Usage { .. } => (price - self.credited()).max(self.used()) + self.credited(),
            Curve::Time(_)
            | Curve::Point { .. }
            | Curve::Units { .. }
            | Curve::Milestones { .. }
            | Curve::Progress { .. } => price,
        }
    }

    /// Its share of the transaction price: everything it has earned and will.
    pub fn expected(&self) -> Decimal {
        let lumps: Decimal = [LumpReason::Credit, LumpReason::Forfeit, LumpReason::Refund]
            .into_iter()
            .map(|reason| self.lump_sum(reason))
            .sum();
        self.gross_price() - self.credited() + lumps
    }

    /// Credits that lowered the price of what remained.
    pub fn credited(&self) -> Decimal {
        self.credits.iter().map(|(_, amount, _)| amount).sum()
    }

    pub fn lump_sum(&self, reason: LumpReason) -> Decimal {
        self.lumps
            .iter()
            .filter(|lump| lump.reason == reason)
            .map(|lump| lump.amount)
            .sum()
    }

    /// All usage reported of it.
    pub fn used(&self) -> Decimal {
        self.performance.usage_before(Date::MAX)
    }

    /// The last day on which anything is booked.
    pub fn last_day(&self) -> Date {
        let performed = self.performance.days().map(|(_, last)| last);
        let lump = self.lumps.iter().map(|lump| lump.date).max();
        let curve = self
            .segments
            .iter()
            .map(|segment| segment.curve.last_day(self.end).max(segment.from))
            .max();
        [performed, lump, curve, Some(self.end)]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(self.end)
    }

    /// The first day on which anything is booked.
    pub fn first_day(&self) -> Date {
        let performed = self.performance.days().map(|(first, _)| first);
        let lump = self.lumps.iter().map(|lump| lump.date).min();
        [performed, lump].into_iter().flatten().fold(self.start, Date::min)
    }

    /// The facts behind what is booked from `first` to `last`: terms, then performance.
    pub fn provenance(&self, first: Date, last: Date) -> Vec<EventId> {
        let mut facts: Vec<EventId> = self
            .segments
            .iter()
            .enumerate()
            .filter(|(index, segment)| {
                let next = self.segments.get(index + 1);
                segment.from <= last && next.is_none_or(|next| next.from > first)
                    || *index == 0 && self.segments.len() == 1
            })
            .map(|(_, segment)| segment.cause.clone())
            .collect();
        if facts.is_empty() {
            facts.push(self.segments[0].cause.clone());
        }
        facts.extend(self.performance.between(first, last).cloned());
        facts
    }
}

impl Curve {
    /// Earns nothing.
    pub const NOTHING: Curve = Curve::Point {
        amount: Decimal::ZERO,
        date: Date::MAX,
        quantity: None,
    };

    pub fn earned_before(&self, day: Date, performance: &Performance, currency: Currency) -> Decimal {
        match self {
            Curve::Time(time) => time.earned_before(day),
            Curve::Point { amount, date, quantity } => match (performance.has_deliveries(), quantity) {
                (false, _) if *date < day => *amount,
                (false, _) => Decimal::ZERO,
                (true, Some(quantity)) => {
                    let share = performance.units_before(day).min(*quantity);
                    currency.share(*amount, share, *quantity)
                }
                (true, None) if performance.units_before(day) > Decimal::ZERO => *amount,
                (true, None) => Decimal::ZERO,
            },
            Curve::Units { amount, base, full } => {
                let units = performance.units_before(day).clamp(*base, (*full).max(*base));
                currency.share(*amount, units - base, full - base)
            }
            Curve::Milestones { amount, open } => {
                let all: Decimal = open.iter().map(|(_, weight)| weight).sum();
                let done: Decimal = open
                    .iter()
                    .filter(|(id, _)| performance.accepted_before(id, day))
                    .map(|(_, weight)| weight)
                    .sum();
                currency.share(*amount, done, all)
            }
            Curve::Progress { amount, base } => {
                let now = performance.reached_before(day);
                let most = (*amount).max(Decimal::ZERO);
                let materials = (now.materials - base.handed_over).clamp(Decimal::ZERO, most);
                let handed_over = (now.handed_over - base.handed_over).clamp(Decimal::ZERO, materials);
                let work = proportion(amount - materials, now.ratio - base.ratio, Decimal::ONE - base.ratio);
                currency.round(work + handed_over)
            }
            Curve::Usage { prepaid, end } => {
                let used = performance.usage_before(day);
                if day > *end { used.max(*prepaid) } else { used }
            }
        }
    }

    pub fn booked_before(&self, day: Date, performance: &Performance, currency: Currency) -> Decimal {
        match self {
            Curve::Time(time) => time.booked_before(day),
            Curve::Point { .. }
            | Curve::Units { .. }
            | Curve::Milestones { .. }
            | Curve::Progress { .. }
            | Curve::Usage { .. } => self.earned_before(day, performance, currency),
        }
    }

    fn last_day(&self, end: Date) -> Date {
        match self {
            Curve::Time(time) => time.to,
            Curve::Point { date, .. } if *date < Date::MAX => *date,
            Curve::Point { .. } | Curve::Units { .. } | Curve::Milestones { .. } | Curve::Progress { .. } => end,
            Curve::Usage { end, .. } => *end,
        }
    }
}
