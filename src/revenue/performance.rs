//! What was measured of a line: deliveries, acceptances, progress, usage.
//!
//! A line is measured once; every obligation made of it sees the same measurements through a window of days. Invariant:
//! sorted by day, with running totals, so that a question about any stretch of days is a search, never a walk over the
//! history. Deliberately absent: which facts count (`derive::measured`) and what they earn (`obligation`).

use std::sync::Arc;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::ids::{EventId, MilestoneId};

/// The measurements of a line from a day on, before another.
#[derive(Clone, Debug, PartialEq)]
pub struct Performance {
    of: Arc<Measurements>,
    from: Date,
    until: Date,
}

/// Everything that was measured of a line, pushed in the order of days.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements {
    pub deliveries: Totals,
    pub accepted: Vec<(Date, MilestoneId, EventId)>,
    pub progress: Vec<(Date, Reached, EventId)>,
    pub usage: Totals,
}

/// How far an undertaking has come since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reached {
    /// The ratio of the work complete, 0 to 1.
    pub ratio: Decimal,
    /// Cost of uninstalled materials in all; they earn their own cost, at no margin (ASC 606-10-55-21).
    pub materials: Decimal,
    /// The part of it that was handed over.
    pub handed_over: Decimal,
}

/// Amounts by day, as running totals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals(Vec<Total>);

#[derive(Clone, Debug, PartialEq)]
pub struct Total {
    pub date: Date,
    /// All amounts up to this one, itself included.
    pub until: Decimal,
    pub event: EventId,
}

impl Totals {
    pub fn push(&mut self, date: Date, amount: Decimal, event: EventId) {
        let until = self.all() + amount;
        self.0.push(Total { date, until, event });
    }

    pub fn all(&self) -> Decimal {
        self.0.last().map_or(Decimal::ZERO, |last| last.until)
    }

    fn before(&self, day: Date) -> Decimal {
        match self.0.partition_point(|it| it.date < day) {
            0 => Decimal::ZERO,
            over => self.0[over - 1].until,
        }
    }
}

impl Performance {
    /// What was measured from a day on, before another if one is given.
    pub fn window(of: &Arc<Measurements>, from: Date, until: Option<Date>) -> Performance {
        Performance {
            of: of.clone(),
            from,
            until: until.unwrap_or(Date::MAX),
        }
    }

    /// Lets what is measured from a day on belong to another promise. False when it did so before.
    pub fn close(&mut self, day: Date) -> bool {
        let open = self.until == Date::MAX;
        if open {
            self.until = day;
        }
        open
    }

    /// Other measurements, through the same window.
    pub fn attach(&mut self, of: &Arc<Measurements>) {
        self.of = of.clone();
    }

    /// The same with progress that is of the work alone: materials earn their own cost, and nothing else.
    pub fn without_materials(&self) -> Performance {
        let has = |reached: &Reached| !reached.materials.is_zero() || !reached.handed_over.is_zero();
        if !self.of.progress.iter().any(|(_, reached, _)| has(reached)) {
            return self.clone();
        }
        let mut of = Measurements::clone(&self.of);
        for (_, reached, _) in &mut of.progress {
            (reached.materials, reached.handed_over) = (Decimal::ZERO, Decimal::ZERO);
        }
        Performance {
            of: Arc::new(of),
            ..*self
        }
    }

    pub fn has_deliveries(&self) -> bool {
        !self.inside(&self.of.deliveries.0, |it| it.date).is_empty()
    }

    pub fn units_before(&self, day: Date) -> Decimal {
        self.total_before(&self.of.deliveries, day)
    }

    pub fn usage_before(&self, day: Date) -> Decimal {
        self.total_before(&self.of.usage, day)
    }

    /// Usage by day; the totals count from `Total::until` of the usage before the window, see [`Self::usage_before`].
    pub fn usage(&self) -> &[Total] {
        self.inside(&self.of.usage.0, |it| it.date)
    }

    pub fn reached_before(&self, day: Date) -> Reached {
        let inside = self.inside(&self.of.progress, |it| it.0);
        match inside.partition_point(|(date, ..)| *date < day) {
            0 => Reached::default(),
            over => inside[over - 1].1,
        }
    }

    pub fn accepted(&self) -> &[(Date, MilestoneId, EventId)] {
        self.inside(&self.of.accepted, |it| it.0)
    }

    pub fn accepted_before(&self, id: &MilestoneId, day: Date) -> bool {
        let mut accepted = self.accepted().iter();
        accepted.any(|(date, accepted, _)| accepted == id && *date < day)
    }

    /// The first and the last day on which anything was measured.
    pub fn days(&self) -> Option<(Date, Date)> {
        let ends = |first: Option<Date>, last: Option<Date>| first.zip(last);
        let totals = |of: &[Total]| ends(of.first().map(|it| it.date), of.last().map(|it| it.date));
        let accepted = self.accepted();
        let progress = self.inside(&self.of.progress, |it| it.0);
        [
            totals(self.inside(&self.of.deliveries.0, |it| it.date)),
            ends(accepted.first().map(|it| it.0), accepted.last().map(|it| it.0)),
            ends(progress.first().map(|it| it.0), progress.last().map(|it| it.0)),
            totals(self.usage()),
        ]
        .into_iter()
        .flatten()
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// The facts of the days `first` to `last`: deliveries, acceptances, progress, usage.
    pub fn between(&self, first: Date, last: Date) -> impl Iterator<Item = &EventId> {
        let (from, until) = (self.from.max(first), self.until);
        let inside = move |date: Date| date >= from && date < until && date <= last;
        let totals = move |of: &'_ Totals| -> std::ops::Range<usize> {
            of.0.partition_point(|it| it.date < from)..of.0.partition_point(|it| it.date < until && it.date <= last)
        };
        let slice = |of: &'_ Totals| {
            let range = totals(of);
            range.start..range.end.max(range.start)
        };
        let deliveries = self.of.deliveries.0[slice(&self.of.deliveries)].iter();
        let usage = self.of.usage.0[slice(&self.of.usage)].iter();
        let accepted = self.of.accepted.iter().filter(move |(date, ..)| inside(*date));
        let progress = self.of.progress.iter().filter(move |(date, ..)| inside(*date));
        deliveries
            .map(|it| &it.event)
            .chain(accepted.map(|(.., event)| event))
            .chain(progress.map(|(.., event)| event))
            .chain(usage.map(|it| &it.event))
    }

    fn total_before(&self, of: &Totals, day: Date) -> Decimal {
        match day <= self.from {
            true => Decimal::ZERO,
            false => of.before(day.min(self.until)) - of.before(self.from),
        }
    }

    fn inside<'a, T>(&self, all: &'a [T], day: impl Fn(&T) -> Date) -> &'a [T] {
        let first = all.partition_point(|it| day(it) < self.from);
        let last = all.partition_point(|it| day(it) < self.until);
        &all[first..last.max(first)]
    }
}
