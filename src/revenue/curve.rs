//! Straight line over time: how much of a price is earned by a day, under each convention and rounding.
//!
//! Invariant: the rows of a curve sum to its amount exactly. Weights are whole numbers of [`MONTH`]ths of a month, so
//! that no fraction is lost before the one rounding. Under cumulative rounding a cut at any day leaves every earlier
//! row as it was. Deliberately absent: facts, obligations, modifications.

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::money::{Currency, largest_remainder};
use super::period::{FiscalCalendar, Period, add_days, add_months, days_between};
use super::policy::{Rounding, StraightLine};

/// One month as a weight: a multiple of every month length (28 to 31 days, 35 and 42 in a fiscal year) and of two.
pub const MONTH: i64 = 755_160;

/// How prices are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub convention: StraightLine,
    pub rounding: Rounding,
    pub calendar: FiscalCalendar,
    pub currency: Currency,
}

/// A price spread over the days `from` to `to`, both included.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeCurve {
    pub from: Date,
    pub to: Date,
    pub amount: Decimal,
    rows: Vec<Row>,
    spread: Spread,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    period: Period,
    last: Date,
    weight: i64,
    /// All weights up to this row.
    weighed: i64,
    amount: Decimal,
    /// All amounts up to this row.
    until: Decimal,
}

impl TimeCurve {
    /// A `to` before `from` is taken as a single day.
    pub fn new(amount: Decimal, from: Date, to: Date, spread: Spread) -> TimeCurve {
        let to = to.max(from);
        let mut rows = Vec::new();
        let mut period = spread.calendar.of(from);
        loop {
            let last = spread.calendar.last_day(period);
            let (weight, weighed) = (0, 0);
            let (amount, until) = (Decimal::ZERO, Decimal::ZERO);
            rows.push(Row {
                period,
                last,
                weight,
                weighed,
                amount,
                until,
            });
            if last >= to {
                break;
            }
            period = spread.calendar.next(period);
        }
        let mut curve = TimeCurve {
            from,
            to,
            amount,
            rows,
            spread,
        };
        curve.weigh();
        curve.round();
        let mut until = Decimal::ZERO;
        for row in &mut curve.rows {
            until += row.amount;
            row.until = until;
        }
        curve
    }

    /// What is booked in periods that end before a day. Meant for days that begin a period.
    pub fn booked_before(&self, day: Date) -> Decimal {
        match self.rows.partition_point(|row| row.last < day) {
            0 => Decimal::ZERO,
            over => self.rows[over - 1].until,
        }
    }

    /// What is earned on the days before a day, wherever in a period it lies.
    pub fn earned_before(&self, day: Date) -> Decimal {
        if day > self.to {
            return self.amount;
        }
        if day <= self.from {
            return Decimal::ZERO;
        }
        let weight = self.weight_before(day);
        let part = |weight: i64| {
            let total = self.total_weight();
            self.spread.currency.share(self.amount, weight.into(), total.into())
        };
        match self.spread.rounding {
            Rounding::Cumulative => part(weight),
            Rounding::LastPeriod | Rounding::FirstPeriod | Rounding::LargestRemainder => {
                let whole = match self.rows.partition_point(|row| row.last < day) {
                    0 => 0,
                    over => self.rows[over - 1].weighed,
                };
                self.booked_before(day) + part(weight - whole)
            }
        }
    }

    /// The weight of the days before a day, of [`Self::total_weight`].
    pub fn weight_before(&self, day: Date) -> i64 {
        if day > self.to {
            return self.total_weight();
        }
        if day <= self.from {
            return 0;
        }
        let calendar = self.spread.calendar;
        match self.spread.convention {
            StraightLine::Daily => days_between(self.from, day),
            StraightLine::Thirty360 => days_360(self.from, day),
            StraightLine::Monthly => {
                let cut = self.rows.partition_point(|row| row.last < day);
                let whole = if cut == 0 { 0 } else { self.rows[cut - 1].weighed };
                let part = self.rows.get(cut);
                whole + part.map_or(0, |row| month_share(calendar, row.period, self.from, add_days(day, -1)))
            }
            StraightLine::MonthlyEven => service_months(self.from, self.to)
                .map(|(start, next)| {
                    let days = days_between(start, next.min(day)).max(0);
                    days * MONTH / days_between(start, next).max(1)
                })
                .sum(),
            StraightLine::HalfMonth => self
                .rows
                .iter()
                .map(|row| match row.last < day {
                    true => row.weight,
                    false if calendar.first_day(row.period) < day => {
                        (row.weight - half_month(calendar, row.period, day)).max(0)
                    }
                    false => 0,
                })
                .sum(),
        }
    }

    pub fn total_weight(&self) -> i64 {
        self.rows.last().map_or(0, |row| row.weighed)
    }

    fn weigh(&mut self) {
        let (from, to, calendar) = (self.from, self.to, self.spread.calendar);
        let convention = self.spread.convention;
        for row in &mut self.rows {
            let first = calendar.first_day(row.period).max(from);
            let after = add_days(row.last.min(to), 1);
            row.weight = match convention {
                StraightLine::Monthly => month_share(calendar, row.period, from, to),
                StraightLine::MonthlyEven => {
                    let starts = service_months(from, to)
                        .filter(|(start, _)| calendar.of(*start) == row.period)
                        .count();
                    MONTH * starts as i64
                }
                StraightLine::Daily => days_between(first, after),
                StraightLine::Thirty360 => days_360(first, after),
                StraightLine::HalfMonth => MONTH,
            };
        }
        if convention == StraightLine::HalfMonth && self.rows.len() > 1 {
            let last = self.rows.len() - 1;
            self.rows[0].weight = half_month(calendar, self.rows[0].period, from);
            let others: i64 = self.rows[..last].iter().map(|row| row.weight).sum();
            self.rows[last].weight = match whole_months(from, to) {
                Some(months) if calendar == FiscalCalendar::Months => (months * MONTH - others).max(0),
                Some(_) | None => match half_month(calendar, self.rows[last].period, to) {
                    MONTH => MONTH / 2,
                    _ => MONTH,
                },
            };
        }
        if self.rows.iter().all(|row| row.weight == 0) {
            self.rows[0].weight = 1;
        }
        let mut weighed = 0;
        for row in &mut self.rows {
            weighed += row.weight;
            row.weighed = weighed;
        }
    }

    fn round(&mut self) {
        let currency = self.spread.currency;
        let total = Decimal::from(self.total_weight());
        let amount = self.amount;
        let exact = |weight: i64| currency.share(amount, weight.into(), total);
        match self.spread.rounding {
            Rounding::Cumulative => {
                let (mut weight, mut booked) = (0, Decimal::ZERO);
                for row in &mut self.rows {
                    weight += row.weight;
                    let until = exact(weight);
                    row.amount = until - booked;
                    booked = until;
                }
            }
            Rounding::LastPeriod => {
                let rows = self.rows.iter_mut();
                plug_last(amount, rows, exact);
            }
            Rounding::FirstPeriod => {
                let rows = self.rows.iter_mut().rev();
                plug_last(amount, rows, exact);
            }
            Rounding::LargestRemainder => {
                let weights: Vec<Decimal> = self.rows.iter().map(|row| row.weight.into()).collect();
                let parts = largest_remainder(amount, &weights, currency);
                for (row, part) in self.rows.iter_mut().zip(parts) {
                    row.amount = part;
                }
            }
        }
    }
}

/// Rounds each row, none past the total; the last one with a weight takes the rest.
fn plug_last<'a>(amount: Decimal, rows: impl Iterator<Item = &'a mut Row>, exact: impl Fn(i64) -> Decimal) {
    let mut rows: Vec<&mut Row> = rows.filter(|row| row.weight > 0).collect();
    let mut left = amount;
    let last = rows.len().saturating_sub(1);
    for (index, row) in rows.iter_mut().enumerate() {
        let part = exact(row.weight);
        row.amount = if index == last || part.abs() > left.abs() {
            left
        } else {
            part
        };
        left -= row.amount;
    }
}

/// The share of a period's days that lie in `from` to `to`, as a weight.
fn month_share(calendar: FiscalCalendar, period: Period, from: Date, to: Date) -> i64 {
    let (first, last) = (calendar.first_day(period), calendar.last_day(period));
    let length = days_between(first, last) + 1;
    let days = days_between(first.max(from), last.min(to)) + 1;
    days.max(0) * MONTH / length
}

/// The months of the days `from` to `to`, as a weight: the total of a curve under [`StraightLine::Monthly`].
pub fn months(calendar: FiscalCalendar, from: Date, to: Date) -> i64 {
    let to = to.max(from);
    let (first, last) = (calendar.of(from), calendar.of(to));
    let share = |period| month_share(calendar, period, from, to);
    let weight = match last.since(first) {
        0 => share(first),
        later => share(first) + (later - 1) * MONTH + share(last),
    };
    weight.max(1)
}

/// Service months from the start day, each with the day after it; the last may be cut short by `to`.
fn service_months(from: Date, to: Date) -> impl Iterator<Item = (Date, Date)> {
    (0..)
        .map(move |month| (add_months(from, month), add_months(from, month + 1)))
        .take_while(move |(start, next)| *start <= to && start < next)
}

/// The number of whole service months in `from` to `to`; `None` when a part of a month is left.
pub fn whole_months(from: Date, to: Date) -> Option<i64> {
    let count = service_months(from, to).count() as i64;
    (add_months(from, count) == add_days(to, 1)).then_some(count)
}

/// What a service entered on a day counts of its first month: all until the 15th, half from the 16th.
fn half_month(calendar: FiscalCalendar, period: Period, day: Date) -> i64 {
    match days_between(calendar.first_day(period), day) < 15 {
        true => MONTH,
        false => MONTH / 2,
    }
}

/// Days from `from` up to `after`, not included, in months of thirty days.
fn days_360(from: Date, after: Date) -> i64 {
    let months = 12 * i64::from(after.year() - from.year()) + i64::from(after.month()) - i64::from(from.month());
    30 * months + i64::from(after.day().min(30)) - i64::from(from.day().min(30))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn rows(amount: &str, from: Date, to: Date, convention: StraightLine, rounding: Rounding) -> Vec<String> {
        let currency = Currency::parse("USD").unwrap();
        let spread = Spread {
            convention,
            rounding,
            calendar: FiscalCalendar::Months,
            currency,
        };
        let curve = TimeCurve::new(amount.parse().unwrap(), from, to, spread);
        curve.rows.iter().map(|row| currency.format(row.amount)).collect()
    }

    #[test]
    fn the_same_days_under_each_rounding() {
        let of = |rounding| {
            rows(
                "100",
                date(2019, 1, 10),
                date(2019, 3, 15),
                StraightLine::Daily,
                rounding,
            )
        };
        assert_eq!(of(Rounding::Cumulative), ["33.85", "43.07", "23.08"]);
        assert_eq!(of(Rounding::LastPeriod), ["33.85", "43.08", "23.07"]);
        assert_eq!(of(Rounding::FirstPeriod), ["33.84", "43.08", "23.08"]);
        assert_eq!(of(Rounding::LargestRemainder), ["33.84", "43.08", "23.08"]);
    }

    #[test]
    fn a_thousand_over_twelve_months() {
        let of = |rounding| {
            rows(
                "1000",
                date(2017, 2, 1),
                date(2018, 1, 31),
                StraightLine::Monthly,
                rounding,
            )
        };
        let cumulative = "83.33 83.34 83.33 83.33 83.34 83.33 83.33 83.34 83.33 83.33 83.34 83.33";
        assert_eq!(of(Rounding::Cumulative).join(" "), cumulative);
        assert_eq!(of(Rounding::LastPeriod)[11], "83.37");
        assert_eq!(of(Rounding::FirstPeriod)[0], "83.37");
        assert_eq!(of(Rounding::LargestRemainder)[3..5], ["83.34", "83.33"]);
    }

    #[test]
    fn each_convention_from_the_middle_of_a_month() {
        let of = |convention| {
            rows(
                "1200",
                date(2026, 1, 15),
                date(2027, 1, 14),
                convention,
                Rounding::Cumulative,
            )
            .join(" ")
        };
        assert_eq!(
            of(StraightLine::Daily),
            "55.89 92.06 101.91 98.63 101.92 98.63 101.92 101.92 98.63 101.91 98.63 101.92 46.03"
        );
        assert!(of(StraightLine::Monthly).starts_with("54.84 100.00 100.00"));
        assert!(of(StraightLine::Monthly).ends_with("100.00 45.16"));
        assert_eq!(of(StraightLine::MonthlyEven), format!("{}0.00", "100.00 ".repeat(12)));
        assert_eq!(of(StraightLine::HalfMonth), format!("{}0.00", "100.00 ".repeat(12)));
        assert!(of(StraightLine::Thirty360).starts_with("53.33 100.00"));
    }

    #[test]
    fn months_are_the_weight_of_a_monthly_curve() {
        for calendar in [FiscalCalendar::Months, FiscalCalendar::FOUR_FOUR_FIVE] {
            for (start, days) in (0..400).step_by(7).zip((0..800).step_by(13)) {
                let from = add_days(date(2023, 11, 3), start);
                let to = add_days(from, days - 1);
                let spread = Spread {
                    convention: StraightLine::Monthly,
                    rounding: Rounding::Cumulative,
                    calendar,
                    currency: Currency::parse("USD").unwrap(),
                };
                let curve = TimeCurve::new(Decimal::ONE, from, to, spread);
                assert_eq!(months(calendar, from, to), curve.total_weight(), "{from} {to}");
            }
        }
    }

    #[test]
    fn a_month_entered_on_the_16th_counts_half() {
        let got = rows(
            "1200",
            date(2026, 1, 16),
            date(2027, 1, 15),
            StraightLine::HalfMonth,
            Rounding::Cumulative,
        );
        assert_eq!(
            (got[0].as_str(), got[1].as_str(), got[12].as_str()),
            ("50.00", "100.00", "50.00")
        );
    }

    #[test]
    fn equal_periods_are_counted_from_the_start_day() {
        let (from, to) = (date(2026, 6, 15), date(2026, 10, 13));
        let even = rows("120", from, to, StraightLine::MonthlyEven, Rounding::Cumulative);
        assert_eq!(even, ["30.00", "30.00", "30.00", "30.00", "0.00"]);
        let anchored = rows(
            "1200",
            date(2026, 1, 31),
            date(2027, 1, 30),
            StraightLine::MonthlyEven,
            Rounding::Cumulative,
        );
        assert_eq!(anchored[..12], ["100.00"; 12]);
    }
}
