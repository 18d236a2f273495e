//! Accounting policy: which of the legal answers a tenant has chosen.
//!
//! One contract has several right answers (ASC 606 leaves the measure of progress, the rounding and the treatment of
//! setup fees to judgement); each choice is a closed enum here, and every decision names the policy it used.
//! Invariant: policy is data, given from outside; nothing in this room reads a file or has a hidden default beyond
//! [`Policy::default`]. Deliberately absent: parsing of names (config) and validation of files.

/// One named set of choices. The default is the set of defaults documented in `topology.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The policy's own name, quoted by explanations: `default`.
    pub name: String,
    pub straight_line: StraightLine,
    pub rounding: Rounding,
    pub setup_fees: SetupFees,
    /// Customer life in months, used only by [`SetupFees::OverCustomerLife`] (ASC 340-40-35-1, ASC 606-10-55-51).
    pub customer_life_months: u32,
    pub modification: Treatment,
    pub late_events: LateEvents,
    pub recognition_posting: RecognitionPosting,
    pub billing: BillingTiming,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            name: "default".to_owned(),
            straight_line: StraightLine::Monthly,
            rounding: Rounding::Cumulative,
            setup_fees: SetupFees::OverTerm,
            customer_life_months: 36,
            modification: Treatment::Auto,
            late_events: LateEvents::FirstOpenPeriod,
            recognition_posting: RecognitionPosting::PeriodEnd,
            billing: BillingTiming::InAdvance,
        }
    }
}

/// How a price is spread evenly over a service period. Both ends of the period count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StraightLine {
    /// Equal months; a partial first or last month weighs its days over the days of that month.
    Monthly,
    /// Equal service months counted from the start day, each booked in the month where it starts.
    MonthlyEven,
    /// Actual days.
    Daily,
    /// A first month entered on the 16th or later counts half, as does a last month left before the 16th.
    HalfMonth,
    /// Twelve months of thirty days (30E/360: the 31st counts as the 30th).
    Thirty360,
}

/// Where the fractions of a minor unit go. Half-up at the currency's exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rounding {
    /// Round the running total: a cut at any date disturbs no earlier period.
    Cumulative,
    /// Round each period; the last takes the rest.
    LastPeriod,
    /// Round each later period; the first takes the rest.
    FirstPeriod,
    /// Floor each, then one unit each to the largest fractions, earlier periods first.
    LargestRemainder,
}

/// Setup fees that are no distinct good (ASC 606-10-55-50 to 55-53).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetupFees {
    OverTerm,
    Immediately,
    OverCustomerLife,
}

/// How a modification is accounted for (ASC 606-10-25-12, 25-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// Decide from the lines, and say why.
    Auto,
    /// 25-12: added distinct goods at their standalone selling price.
    SeparateContract,
    /// 25-13(a): the remaining goods are distinct; the unrecognised price is spread over what remains.
    Prospective,
    /// 25-13(b): the remaining goods are not distinct; revenue to date is brought up to the new measure at once.
    CumulativeCatchUp,
}

/// What a fact does that concerns a closed period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LateEvents {
    /// It lands in the first open period, with a reference to the period it concerns.
    FirstOpenPeriod,
}

/// When a recognition entry is issued; its date is the end of its period in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecognitionPosting {
    /// Once the clock has passed the end of the period.
    PeriodEnd,
    /// When the period is closed.
    AtClose,
    /// All of a schedule at once, dated ahead, as soon as the clock has passed the day of the deal's own fact.
    Upfront,
}

/// Which end of a billing cycle is invoiced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BillingTiming {
    /// On the first day of the cycle.
    InAdvance,
    /// On the last day of the cycle.
    InArrears,
}
