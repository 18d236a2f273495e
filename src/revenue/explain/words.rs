//! The words of explanations for choices that the accounting holds as enums.
//!
//! Invariant: every choice has a phrase of its own. Deliberately absent: names on the wire, which are the codec's.

use super::super::fact::Method;
use super::super::policy::{Policy, Rounding, StraightLine};

/// How an obligation's revenue is measured, with the policy where it matters (ASC 606-10-25-31 to 25-37).
pub(super) fn recognition(method: Method, policy: &Policy) -> String {
    match method {
        Method::StraightLine => format!(
            "ASC 606-10-25-31 over time, {}; {} (policy {})",
            convention(policy.straight_line),
            rounding(policy.rounding),
            policy.name
        ),
        Method::PointInTime => "ASC 606-10-25-30 at the point in time when control passes".to_owned(),
        Method::Units => "ASC 606-10-55-17 output method: units delivered".to_owned(),
        Method::Milestone => "ASC 606-10-55-17 output method: milestones accepted".to_owned(),
        Method::Progress => "ASC 606-10-25-31 over time, by measured progress".to_owned(),
        Method::Usage => "ASC 606-10-55-18 as invoiced: usage reported".to_owned(),
    }
}

pub(super) fn convention(straight_line: StraightLine) -> &'static str {
    match straight_line {
        StraightLine::Monthly => "in equal months, partial months by their days",
        StraightLine::MonthlyEven => "in equal service months from the start day",
        StraightLine::Daily => "by actual days",
        StraightLine::HalfMonth => "by months and half months",
        StraightLine::Thirty360 => "by months of thirty days",
    }
}

fn rounding(rounding: Rounding) -> &'static str {
    match rounding {
        Rounding::Cumulative => "the running total is rounded",
        Rounding::LastPeriod => "each period is rounded, and the last takes the rest",
        Rounding::FirstPeriod => "each period is rounded, and the first takes the rest",
        Rounding::LargestRemainder => "rounded down, and the largest fractions take the rest",
    }
}

/// What a source said, or that it did not.
pub(super) fn stated(flag: Option<bool>) -> String {
    match flag {
        Some(true) => "stated to be so",
        Some(false) => "stated not to be so",
        None => "not stated",
    }
    .to_owned()
}
