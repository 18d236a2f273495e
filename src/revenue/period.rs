//! Accounting periods: calendar months, or the 52/53-week year in 4-4-5 months.
//!
//! Invariant: the periods of a calendar tile the days without gap or overlap, and [`Period`] orders them by time.
//! Deliberately absent: whether a period is open (that is a fact, see `reference`).

use std::fmt;
use std::ops::Deref;

use jiff::SignedDuration;
use jiff::civil::{Date, Weekday, date};

/// One period. Its label is `2026-02` in a calendar of months, `FY2026-P02` in a fiscal calendar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    year: i16,
    number: i8,
    fiscal: bool,
}

impl Period {
    /// How many periods of the same calendar it comes after another.
    pub fn since(&self, other: Period) -> i64 {
        12 * (i64::from(self.year) - i64::from(other.year)) + i64::from(self.number) - i64::from(other.number)
    }

    /// Reads `2026-02` or `FY2026-P02`; `None` for anything else.
    pub fn parse(label: &str) -> Option<Period> {
        let digits = |text: &str, length: usize| {
            (text.len() == length && text.bytes().all(|b| b.is_ascii_digit()))
                .then(|| text.parse::<i16>().ok())
                .flatten()
        };
        let (head, tail) = label.split_once('-')?;
        let fiscal = head.starts_with("FY");
        let (year, number) = match fiscal {
            true => (
                digits(head.strip_prefix("FY")?, 4)?,
                digits(tail.strip_prefix('P')?, 2)?,
            ),
            false => (digits(head, 4)?, digits(tail, 2)?),
        };
        let number = i8::try_from(number).ok()?;
        ((1..=12).contains(&number) && (1900..=9000).contains(&year)).then_some(Period { year, number, fiscal })
    }

    pub fn year(&self) -> i16 {
        self.year
    }

    /// 1 to 12.
    pub fn number(&self) -> i8 {
        self.number
    }

    pub fn is_fiscal(&self) -> bool {
        self.fiscal
    }

    /// Its label, for a year of four digits.
    pub fn label(&self) -> Label {
        let digit = |number: i16, of: i16| b'0' + (number / of % 10).unsigned_abs() as u8;
        let (year, number) = (self.year, i16::from(self.number));
        let years = [digit(year, 1000), digit(year, 100), digit(year, 10), digit(year, 1)];
        let (tens, ones) = (digit(number, 10), digit(number, 1));
        let [a, b, c, d] = years;
        match self.fiscal {
            true => Label([b'F', b'Y', a, b, c, d, b'-', b'P', tens, ones], 10),
            false => Label([a, b, c, d, b'-', tens, ones, 0, 0, 0], 7),
        }
    }

    fn next(self) -> Period {
        match self.number {
            12 => Period {
                year: self.year + 1,
                number: 1,
                ..self
            },
            _ => Period {
                number: self.number + 1,
                ..self
            },
        }
    }
}

/// The text of a period, and how long it is: many are written, and none needs memory of its own.
#[derive(Clone, Copy)]
pub struct Label([u8; 10], usize);

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0[..self.1]).unwrap_or_default()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How a tenant cuts its year.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FiscalCalendar {
    #[default]
    Months,
    /// Twelve periods of weeks; the year ends on a weekday, so a year has 52 or 53 weeks. The 53rd week belongs to
    /// the twelfth period. A year is named after the calendar year of `year_end_month` in which it ends.
    Weeks {
        /// Weeks of the three periods of each quarter, such as 4-4-5; they sum to 13.
        pattern: [u8; 3],
        year_end_month: i8,
        year_end_weekday: Weekday,
        year_end: YearEnd,
    },
}

/// Which weekday ends a 52/53-week year (US Treasury Regulation 1.441-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YearEnd {
    /// The last such weekday of the month.
    LastInMonth,
    /// The one nearest to the end of the month.
    NearestMonthEnd,
}

impl FiscalCalendar {
    /// The usual 4-4-5: the year ends on the last Saturday of December.
    pub const FOUR_FOUR_FIVE: FiscalCalendar = FiscalCalendar::Weeks {
        pattern: [4, 4, 5],
        year_end_month: 12,
        year_end_weekday: Weekday::Saturday,
        year_end: YearEnd::LastInMonth,
    };

    /// The period that holds a day.
    pub fn of(&self, day: Date) -> Period {
        match self {
            FiscalCalendar::Months => Period {
                year: day.year(),
                number: day.month(),
                fiscal: false,
            },
            FiscalCalendar::Weeks { .. } => {
                let mut year = day.year() - 1;
                while self.year_end(year) < day {
                    year += 1;
                }
                let mut period = Period {
                    year,
                    number: 1,
                    fiscal: true,
                };
                while self.last_day(period) < day {
                    period = period.next();
                }
                period
            }
        }
    }

    pub fn first_day(&self, period: Period) -> Date {
        match self {
            FiscalCalendar::Months => date(period.year, period.number, 1),
            FiscalCalendar::Weeks { pattern, .. } => {
                let weeks: i64 = (1..period.number)
                    .map(|number| i64::from(pattern[(number as usize - 1) % 3]))
                    .sum();
                add_days(self.year_end(period.year - 1), 1 + 7 * weeks)
            }
        }
    }

    pub fn last_day(&self, period: Period) -> Date {
        match self {
            FiscalCalendar::Months => date(period.year, period.number, 1).last_of_month(),
            FiscalCalendar::Weeks { .. } => match period.number {
                12 => self.year_end(period.year),
                _ => add_days(self.first_day(period.next()), -1),
            },
        }
    }

    pub fn next(&self, period: Period) -> Period {
        period.next()
    }

    /// True when the label belongs to this calendar.
    pub fn knows(&self, period: Period) -> bool {
        match self {
            FiscalCalendar::Months => !period.fiscal,
            FiscalCalendar::Weeks { .. } => period.fiscal,
        }
    }

    fn year_end(&self, year: i16) -> Date {
        match self {
            FiscalCalendar::Months => date(year, 12, 31),
            FiscalCalendar::Weeks {
                year_end_month,
                year_end_weekday,
                year_end,
                ..
            } => {
                let month_end = date(year, *year_end_month, 1).last_of_month();
                let last = (0..7)
                    .map(|back| add_days(month_end, -back))
                    .find(|day| day.weekday() == *year_end_weekday)
                    .unwrap_or(month_end);
                match year_end {
                    YearEnd::LastInMonth => last,
                    YearEnd::NearestMonthEnd if days_between(last, month_end) > 3 => add_days(last, 7),
                    YearEnd::NearestMonthEnd => last,
                }
            }
        }
    }
}

/// More days than `Date` has.
const MAX_DAYS: u64 = 10_000_000;

/// The day `days` later (earlier when negative). Facts keep days between 1970 and 2200, far from the ends of `Date`;
/// beyond them the day stays where it is.
pub fn add_days(day: Date, days: i64) -> Date {
    match days {
        1 => day.tomorrow().unwrap_or(day),
        -1 => day.yesterday().unwrap_or(day),
        _ if days.unsigned_abs() > MAX_DAYS => day,
        _ => day.checked_add(SignedDuration::from_hours(24 * days)).unwrap_or(day),
    }
}

/// The day `months` later with the anchor's own day of month, or the month's last day where it has no such day:
/// one month after 31 January is 28 or 29 February, two months after it is 31 March.
pub fn add_months(anchor: Date, months: i64) -> Date {
    let month = i64::from(anchor.year()) * 12 + i64::from(anchor.month()) - 1 + months;
    let first = i16::try_from(month.div_euclid(12))
        .ok()
        .zip(i8::try_from(month.rem_euclid(12) + 1).ok())
        .and_then(|(year, month)| Date::new(year, month, 1).ok());
    let Some(first) = first else {
        return anchor;
    };
    let day = anchor.day().min(first.days_in_month());
    Date::new(first.year(), first.month(), day).unwrap_or(anchor)
}

/// Days from `from` to `to`, zero when they are the same day.
pub fn days_between(from: Date, to: Date) -> i64 {
    from.duration_until(to).as_hours() / 24
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_round_trip_and_refuse_the_rest() {
        for label in ["2026-02", "FY2026-P12", "1999-12"] {
            assert_eq!(Period::parse(label).map(|p| p.to_string()).as_deref(), Some(label));
        }
        for label in [
            "2026-13",
            "2026-00",
            "2026",
            "FY26-P01",
            "2026-2",
            "FY2026-01",
            "2026-+2",
            "x",
        ] {
            assert_eq!(Period::parse(label), None, "{label}");
        }
    }

    #[test]
    fn four_four_five_tiles_the_days() {
        let calendar = FiscalCalendar::FOUR_FOUR_FIVE;
        let mut period = calendar.of(date(2020, 1, 1));
        for _ in 0..240 {
            let last = calendar.last_day(period);
            let next = calendar.next(period);
            assert_eq!(add_days(last, 1), calendar.first_day(next), "{period}");
            assert_eq!(calendar.of(last), period);
            assert_eq!(calendar.of(add_days(last, 1)), next);
            let weeks = (days_between(calendar.first_day(period), last) + 1) / 7;
            assert!([4, 5, 6].contains(&weeks), "{period} has {weeks} weeks");
            period = next;
        }
    }

    #[test]
    fn anchors_survive_short_months() {
        let anchor = date(2024, 1, 31);
        let days: Vec<String> = (1..4).map(|m| add_months(anchor, m).to_string()).collect();
        assert_eq!(days, ["2024-02-29", "2024-03-31", "2024-04-30"]);
    }
}
