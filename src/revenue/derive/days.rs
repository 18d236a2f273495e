//! From which day on a fact's terms hold, and which days the term then has.
//!
//! Owns: these rules, for what is sold ([`super::amend`], [`super::ending`]) and for what is measured
//! ([`super::measured`]), which has to know a unit price's first day before anything is sold. Invariant: pure dates.
//! Deliberately absent: what holds from a day on.

use jiff::civil::Date;

use super::super::fact::Deal;
use super::super::period::{add_days, add_months};
use super::super::reject::{Code, Rejection};

/// The days of the running term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TermDays {
    pub start: Date,
    pub end: Date,
    /// As its last terms state them.
    pub months: Option<u32>,
    /// Whether it follows another term.
    pub follows: bool,
}

/// What an amendment makes of a term's days.
pub(super) struct Amended {
    /// The first day on which its terms hold.
    pub from: Date,
    /// The start that it states, or else the term's.
    pub stated: Date,
    /// Whether it begins the price anew: its start is the effective date itself. A later start puts service off, and the
    /// stated price is still the whole one: no price may appear that nobody stated.
    pub restarts: bool,
    pub start: Date,
    pub end: Date,
}

impl TermDays {
    /// Of a deal as it closes; `said` is the day of the fact.
    pub fn closed(deal: &Deal, said: Date) -> TermDays {
        let start = deal.contract_start.unwrap_or(said);
        TermDays {
            start,
            end: deal.contract_end.unwrap_or_else(|| term_end(start, deal.term_months)),
            months: deal.term_months,
            follows: false,
        }
    }

    /// `said`: the day of the fact. Errors: the amendment is of no day of the term.
    pub fn amended(&self, deal: &Deal, said: Date) -> Result<Amended, Rejection> {
        let mut from = deal.effective_date.unwrap_or(said);
        if self.follows && from < self.start {
            // Said before the new term begins, and of that term by its start.
            if deal.effective_date.is_some() || deal.contract_start != Some(self.start) {
                let message = format!(
                    "the term of that day was renewed from {} on; state that day or a later one, or date the amendment before \
                     the renewal",
                    self.start
                );
                return Err(outside_term(from, &message));
            }
            from = self.start;
        }
        let stated = deal.contract_start.unwrap_or(self.start);
        let restarts = stated == from && from > self.start;
        let end = match (deal.contract_end, deal.term_months) {
            (Some(end), _) => end,
            (None, Some(_)) => term_end(stated, deal.term_months),
            (None, None) => self.end,
        };
        if from > add_days(self.end, 1).max(end) {
            return Err(outside_term(from, "the contract has ended by then; send deal.renewed"));
        }
        let start = if restarts { self.start } else { stated };
        Ok(Amended {
            from,
            stated,
            restarts,
            start,
            end,
        })
    }

    /// The term that follows by a renewal. Errors: it starts no later than this one.
    pub fn renewed(&self, deal: &Deal) -> Result<TermDays, Rejection> {
        let stated = deal.contract_start.filter(|start| *start > self.start);
        let start = stated.or(deal.effective_date).unwrap_or(add_days(self.end, 1));
        if start <= self.start {
            return Err(outside_term(
                start,
                "a renewal starts after the running term has started",
            ));
        }
        let months = deal.term_months.or(self.months);
        let end = deal.contract_end.unwrap_or_else(|| term_end(start, months));
        Ok(TermDays {
            start,
            end: end.max(start),
            months: deal.term_months,
            follows: true,
        })
    }
}

fn term_end(start: Date, months: Option<u32>) -> Date {
    add_days(add_months(start, i64::from(months.unwrap_or(12))), -1)
}

pub(super) fn outside_term(day: Date, message: &str) -> Rejection {
    Rejection::new(Code::OutsideTerm, "payload.effective_date", day, message)
}
