//! The running balances of a contract, and what one movement does to them.
//!
//! ```text
//! invoice       Dr receivable            Cr contract asset, then liability; tax
//! recognition   Dr liability, then asset Cr revenue
//! credit memo   Dr liability; tax        Cr receivable, then refund liability
//! payment       Dr cash                  Cr receivable, then contract liability (a deposit)
//! application   Dr liability             Cr receivable      (a deposit meets its invoice)
//! ended         Dr liability             Cr refund liability (a deposit that meets none any more, ASC 606-10-32-10)
//! remeasurement Dr/Cr receivable         Cr/Dr exchange result
//! ```
//!
//! One signed position per deal: above zero it is a liability, below zero an asset, never both (ASC 606-10-45-1). In
//! functional currency the position keeps its historic rate (IFRIC 22); the receivable is monetary (ASC 830-20-35-1),
//! is remeasured, and its differences go to the exchange result.
//!
//! Invariant: the lines of every movement balance in both currencies. Deliberately absent: when a movement is due, and
//! which ledger accounts the roles are.

use std::borrow::Cow;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::ids::LineType;
use super::money::Currency;
use super::reference::{Context, RateNeeded};

/// Balances after everything issued, in the order of issue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Liability above zero, asset below.
    pub position: Decimal,
    pub position_functional: Decimal,
    pub receivable: Decimal,
    pub receivable_functional: Decimal,
    /// The part of the position that was paid before it was invoiced.
    pub deposit: Decimal,
    /// Receivables are remeasured up to this day.
    pub remeasured: Option<Date>,
}

/// Whose account a line is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    AccountsReceivable,
    Cash,
    ContractLiability,
    ContractAsset,
    Revenue(LineType),
    TaxPayable,
    FxGainLoss,
    RefundLiability,
}

impl Role {
    /// The role's name: `revenue.subscription`.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Role::AccountsReceivable => "accounts_receivable".into(),
            Role::Cash => "cash".into(),
            Role::ContractLiability => "contract_liability".into(),
            Role::ContractAsset => "contract_asset".into(),
            Role::Revenue(line_type) => format!("revenue.{line_type}").into(),
            Role::TaxPayable => "tax_payable".into(),
            Role::FxGainLoss => "fx_gain_loss".into(),
            Role::RefundLiability => "refund_liability".into(),
        }
    }

    /// The role of a name; `None` when there is none of that name.
    pub fn parse(name: &str) -> Option<Role> {
        match name {
            "accounts_receivable" => Some(Role::AccountsReceivable),
            "cash" => Some(Role::Cash),
            "contract_liability" => Some(Role::ContractLiability),
            "contract_asset" => Some(Role::ContractAsset),
            "tax_payable" => Some(Role::TaxPayable),
            "fx_gain_loss" => Some(Role::FxGainLoss),
            "refund_liability" => Some(Role::RefundLiability),
            revenue => LineType::parse(revenue.strip_prefix("revenue.")?).map(Role::Revenue),
        }
    }
}

/// A line before its account is known: debit above zero, credit below.
#[derive(Clone, Debug, PartialEq)]
pub struct Posting {
    pub role: Role,
    pub amount: Decimal,
    pub functional: Decimal,
}

/// Exchange from the contract's currency to the functional one.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    pub cx: Context<'a>,
    pub currency: Currency,
    pub functional: Currency,
    /// Oldest rate that serves, in days before the day asked for; `None` for estimates.
    pub within_days: Option<i64>,
}

impl Exchange<'_> {
    pub fn is_foreign(&self) -> bool {
        self.currency != self.functional
    }

    /// Functional amount on a day; the rate that is missing otherwise.
    fn convert(&self, amount: Decimal, day: Date) -> Result<Decimal, RateNeeded> {
        if amount.is_zero() {
            return Ok(Decimal::ZERO);
        }
        let needed = RateNeeded {
            base: self.currency,
            quote: self.functional,
            date: day,
        };
        let rate = self
            .cx
            .reference
            .rate(self.currency, self.functional, day, self.within_days)
            .ok_or(needed)?;
        // A product beyond all bounds waits for a rate that makes sense, rather than stopping the program.
        amount
            .checked_mul(rate)
            .map(|exact| self.functional.round(exact))
            .ok_or(needed)
    }
}

impl Ledger {
    /// An invoice of `net` and `tax`, both above zero or zero.
    pub fn invoice(&mut self, net: Decimal, tax: Decimal, day: Date, fx: Exchange) -> Result<Vec<Posting>, RateNeeded> {
        let gross = fx.convert(net + tax, day)?;
        let tax_functional = fx.convert(tax, day)?;
        let mut lines = vec![line(Role::AccountsReceivable, net + tax, gross)];
        lines.extend(self.shift(net, Some(gross - tax_functional), day, fx)?);
        lines.push(line(Role::TaxPayable, -tax, -tax_functional));
        self.receivable += net + tax;
        self.receivable_functional += gross;
        Ok(balance(lines))
    }

    /// Meets open deposits with what is receivable; empty when there is none of either.
    pub fn apply_deposit(&mut self, day: Date, fx: Exchange) -> Result<Vec<Posting>, RateNeeded> {
        let amount = self.deposit.min(self.receivable);
        if amount <= Decimal::ZERO {
            return Ok(Vec::new());
        }
        let mut after = self.clone();
        let settled = after.take_receivable(amount, fx);
        let mut lines = after.shift(-amount, Some(-settled), day, fx)?;
        lines.push(line(Role::AccountsReceivable, -amount, -settled));
        after.deposit -= amount;
        *self = after;
        Ok(balance(lines))
    }

    /// What is left of deposits when the contract has ended is owed back (ASC 606-10-32-10): a monetary item from then on, at
    /// the rate of that day. Empty when nothing is left.
    pub fn owe_back(&mut self, day: Date, fx: Exchange) -> Result<Vec<Posting>, RateNeeded> {
        let amount = self.deposit;
        if amount <= Decimal::ZERO {
            return Ok(Vec::new());
        }
        let mut after = self.clone();
        let owed = fx.convert(amount, day)?;
        let mut lines = after.shift(-amount, None, day, fx)?;
        lines.push(line(Role::RefundLiability, -amount, -owed));
        after.deposit = Decimal::ZERO;
        *self = after;
        Ok(balance(lines))
    }

    /// Revenue of an amount; below zero it is taken back, at `exactly` the functional amount where one is given.
    pub fn recognise(
        &mut self,
        amount: Decimal,
        line_type: &LineType,
        day: Date,
        exactly: Option<Decimal>,
        fx: Exchange,
    ) -> Result<Vec<Posting>, RateNeeded> {
        let mut lines = match exactly {
            Some(functional) => self.shift(-amount, Some(-functional), day, fx)?,
            None => self.shift(-amount, None, day, fx)?,
        };
        let functional: Decimal = match exactly {
            Some(functional) => functional,
            None => lines.iter().map(|line| line.functional).sum(),
        };
        lines.push(line(Role::Revenue(line_type.clone()), -amount, -functional));
        Ok(balance(lines))
    }

    /// A credit memo of `net` and `tax`, both above zero or zero.
    pub fn credit(&mut self, net: Decimal, tax: Decimal, day: Date, fx: Exchange) -> Result<Vec<Posting>, RateNeeded> {
        let mut after = self.clone();
        let open = (net + tax).min(after.receivable.max(Decimal::ZERO));
        let settled = after.take_receivable(open, fx);
        let refund = net + tax - open;
        let refund_functional = fx.convert(refund, day)?;
        let mut lines = after.shift(-net, None, day, fx)?;
        lines.push(line(Role::TaxPayable, tax, fx.convert(tax, day)?));
        lines.push(line(Role::AccountsReceivable, -open, -settled));
        lines.push(line(Role::RefundLiability, -refund, -refund_functional));
        *self = after;
        Ok(balance(lines))
    }

    /// Cash received. What is more than receivable is a deposit, or after the contract's end owed back.
    pub fn pay(&mut self, amount: Decimal, ended: bool, day: Date, fx: Exchange) -> Result<Vec<Posting>, RateNeeded> {
        let mut after = self.clone();
        let cash = fx.convert(amount, day)?;
        let settles = amount.min(after.receivable.max(Decimal::ZERO));
        let settled = after.take_receivable(settles, fx);
        let excess = amount - settles;
        let excess_functional = fx.convert(excess, day)?;
        let mut lines = vec![
            line(Role::Cash, amount, cash),
            line(Role::AccountsReceivable, -settles, -settled),
        ];
        match ended {
            true => lines.push(line(Role::RefundLiability, -excess, -excess_functional)),
            false => {
                lines.extend(after.shift(excess, Some(excess_functional), day, fx)?);
                after.deposit += excess;
            }
        }
        *self = after;
        Ok(balance(lines))
    }

    /// Receivables at the rate of a day (ASC 830-20-35-1). A rate that is too old for a booking is too old for this as well:
    /// whoever has something receivable waits for one. Where nothing is, no rate is needed.
    pub fn remeasure(&mut self, day: Date, fx: Exchange) -> Result<Vec<Posting>, RateNeeded> {
        let value = fx.convert(self.receivable, day)?;
        let change = value - self.receivable_functional;
        self.receivable_functional = value;
        self.remeasured = Some(day);
        Ok(balance(vec![line(Role::AccountsReceivable, Decimal::ZERO, change)]))
    }

    fn take_receivable(&mut self, amount: Decimal, fx: Exchange) -> Decimal {
        let share = fx.functional.share(self.receivable_functional, amount, self.receivable);
        self.receivable -= amount;
        self.receivable_functional -= share;
        share
    }

    /// Moves the position: towards zero at its historic rate, away from zero at the rate of the day, or at `functional`.
    fn shift(
        &mut self,
        delta: Decimal,
        functional: Option<Decimal>,
        day: Date,
        fx: Exchange,
    ) -> Result<Vec<Posting>, RateNeeded> {
        let (before, before_functional) = (self.position, self.position_functional);
        let opposite = before.is_sign_negative() != delta.is_sign_negative();
        let release = match opposite && !before.is_zero() {
            true if delta.abs() >= before.abs() => -before,
            true => delta,
            false => Decimal::ZERO,
        };
        let build = delta - release;
        let historic = fx.functional.share(before_functional, release, before);
        let (release_functional, build_functional) = match functional {
            Some(all) if build.is_zero() && before.is_sign_positive() => (all, Decimal::ZERO),
            Some(all) if release.is_zero() => (Decimal::ZERO, all),
            Some(all) => (historic, fx.functional.share(all, build, delta)),
            None if build.is_zero() => (historic, Decimal::ZERO),
            // Revenue taken back where the position is still a liability returns at its historic rate.
            None if release.is_zero() && delta > Decimal::ZERO && before > Decimal::ZERO => {
                (Decimal::ZERO, fx.functional.share(before_functional, build, before))
            }
            None => (historic, fx.convert(build, day)?),
        };
        self.position += delta;
        self.position_functional += release_functional + build_functional;
        let was = if before > Decimal::ZERO {
            Role::ContractLiability
        } else {
            Role::ContractAsset
        };
        let is = match self.position > Decimal::ZERO || build > Decimal::ZERO {
            true => Role::ContractLiability,
            false => Role::ContractAsset,
        };
        let mut lines = vec![
            line(was, -release, -release_functional),
            line(is, -build, -build_functional),
        ];
        if self.position.is_zero() && !self.position_functional.is_zero() {
            // Nothing is left of the position, so nothing may be left of its functional value.
            let rest = std::mem::take(&mut self.position_functional);
            lines[0].functional += rest;
        }
        Ok(lines)
    }
}

fn line(role: Role, amount: Decimal, functional: Decimal) -> Posting {
    Posting {
        role,
        amount,
        functional,
    }
}

/// Puts what is missing in functional currency on the exchange result, joins lines of one role, drops empty ones.
fn balance(lines: Vec<Posting>) -> Vec<Posting> {
    let difference: Decimal = lines.iter().map(|line| line.functional).sum();
    let mut joined: Vec<Posting> = Vec::new();
    let balancing = line(Role::FxGainLoss, Decimal::ZERO, -difference);
    for line in lines.into_iter().chain([balancing]) {
        match joined.iter_mut().find(|known| known.role == line.role) {
            Some(known) => {
                known.amount += line.amount;
                known.functional += line.functional;
            }
            None => joined.push(line),
        }
    }
    joined.retain(|line| !line.amount.is_zero() || !line.functional.is_zero());
    joined
}
