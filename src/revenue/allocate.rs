//! From a deal's lines to prices: what each line promises, and its share of the transaction price.
//!
//! The price is net of tax. Where every line states a standalone selling price, shares are relative to it (ASC
//! 606-10-32-31); a discount goes to all lines, or to those that are regularly sold together (32-37): the lines of a
//! `bundle`, each bundle's to its own lines, or the only ones that state a `discount`, when it explains the whole difference. One line with an
//! `ssp_range` and no `ssp` takes the residual, if its price is highly variable (the range is at least half its middle
//! wide) and the residual lies inside the range (32-34(c)). Otherwise the line amounts are the shares.
//!
//! Invariant: shares are multiples of the minor unit and sum to the price exactly. Deliberately absent: time, and
//! everything that happens after the sale.

use std::collections::BTreeSet;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::fact::{Deal, Line, Method, MilestoneShare, SspRange, Tax, TaxBasis};
use super::ids::{LineId, LineType};
use super::money::{Currency, largest_remainder, proportion};
use super::obligation::LineTerms;
use super::period::{add_days, add_months};
use super::policy::{Policy, SetupFees};
use super::reject::{Code, Rejection};

/// A line as sold.
#[derive(Clone, Debug, PartialEq)]
pub struct Sold {
    pub line_id: LineId,
    pub line_type: LineType,
    pub terms: LineTerms,
    pub distinct: Option<bool>,
    /// Whether the line names its start itself.
    pub start_stated: bool,
    /// Whether it counts as annual recurring revenue: as stated, else service over time that is no setup.
    pub recurring: bool,
    /// Standalone selling price of the whole line.
    pub ssp: Option<Decimal>,
    /// How the share was found, for the explanation.
    pub rule: &'static str,
}

pub const BY_AMOUNT: &str = "line amount (no standalone selling prices given)";
pub const BY_SSP: &str = "ASC 606-10-32-31 relative standalone selling price";
pub const BY_BUNDLE: &str = "ASC 606-10-32-37 discount of goods regularly sold together";
pub const BY_RESIDUAL: &str = "ASC 606-10-32-34(c) residual approach";

/// Splits the deal into priced lines; service runs from `start` to `end` where a line says nothing else.
pub fn sell(deal: &Deal, start: Date, end: Date, policy: &Policy) -> Result<Vec<Sold>, Rejection> {
    let whole = [whole_deal_line(deal)];
    let lines: Vec<&Line> = match deal.lines.is_empty() {
        true => whole.iter().collect(),
        false => deal.lines.iter().filter(|line| !line.is_discount()).collect(),
    };
    if lines.is_empty() {
        return Err(Rejection::new(
            Code::InvalidAmount,
            "payload.line_items",
            "only discounts",
            "a deal needs a line that promises something",
        ));
    }
    let total = net_of_tax(deal);
    let shares = share(&lines, total, deal)?;
    Ok(lines
        .iter()
        .zip(shares)
        .map(|(line, (price, rule))| Sold {
            line_id: line.id.clone(),
            line_type: line.line_type.clone(),
            terms: terms(line, deal, price, start, end, policy),
            distinct: line.distinct,
            start_stated: line.start.is_some(),
            recurring: line
                .recurring
                .unwrap_or(method_of(line, deal, policy) == Method::StraightLine && !line.is_setup()),
            ssp: line_ssp(line),
            rule,
        })
        .collect())
}

/// How a line's progress is measured: by its own word, by its milestones, or by the deal's.
pub fn method_of(line: &Line, deal: &Deal, policy: &Policy) -> Method {
    let stated = match (line.method, line.milestones.is_empty()) {
        (Some(method), _) => method,
        (None, false) => Method::Milestone,
        (None, true) => match deal.recognition.method.unwrap_or(Method::StraightLine) {
            Method::Milestone | Method::Units if line.quantity.is_none() => Method::PointInTime,
            Method::Milestone => Method::PointInTime,
            method
            @ (Method::StraightLine | Method::PointInTime | Method::Units | Method::Progress | Method::Usage) => method,
        },
    };
    match (stated, line.is_setup().then(|| setup_treatment(deal, policy))) {
        (Method::StraightLine, Some(SetupFees::Immediately)) => Method::PointInTime,
        (method, Some(_) | None) => method,
    }
}

/// A setup fee is no promise of its own (ASC 606-10-55-51): `defer_setup` decides, then the policy.
pub fn setup_treatment(deal: &Deal, policy: &Policy) -> SetupFees {
    match (deal.recognition.defer_setup, policy.setup_fees) {
        (Some(false), _) => SetupFees::Immediately,
        (Some(true), SetupFees::OverCustomerLife) => SetupFees::OverCustomerLife,
        (Some(true), SetupFees::OverTerm | SetupFees::Immediately) => SetupFees::OverTerm,
        (None, policy) => policy,
    }
}

/// The deal's price without tax.
pub fn net_of_tax(deal: &Deal) -> Decimal {
    match deal.tax {
        Some(Tax {
            basis: TaxBasis::Rate(rate),
            inclusive: true,
        }) => deal.currency.round(deal.amount / (Decimal::ONE + rate)),
        Some(Tax {
            basis: TaxBasis::Amount(tax),
            inclusive: true,
        }) => (deal.amount - tax).max(Decimal::ZERO),
        Some(Tax { inclusive: false, .. }) | None => deal.amount,
    }
}

impl Deal {
    /// The tax of the same terms at another price: a rate as it is, an amount in proportion.
    pub fn tax_for(&self, amount: Decimal) -> Option<Tax> {
        let tax = self.tax?;
        let basis = match tax.basis {
            TaxBasis::Amount(whole) => TaxBasis::Amount(self.currency.share(whole, amount, self.amount)),
            TaxBasis::Rate(rate) => TaxBasis::Rate(rate),
        };
        Some(Tax { basis, ..tax })
    }
}

/// How a deal is taxed from a day on: by the terms that hold then, whatever they say later.
#[derive(Clone, Debug, PartialEq)]
pub struct Taxed {
    pub from: Date,
    tax: Option<Tax>,
    /// The tax of the whole price, as far as that is agreed.
    pub whole: Decimal,
    /// The price without tax.
    pub net: Decimal,
    currency: Currency,
}

impl Taxed {
    /// `net`: the price without tax, where invoices of earlier terms make it another than [`net_of_tax`].
    pub fn new(deal: &Deal, net: Decimal, from: Date) -> Taxed {
        let whole = match deal.tax {
            Some(Tax { inclusive: true, .. }) => deal.amount - net,
            Some(Tax {
                basis: TaxBasis::Amount(tax),
                inclusive: false,
            }) => tax,
            Some(Tax {
                basis: TaxBasis::Rate(rate),
                inclusive: false,
            }) => deal.currency.round(net * rate),
            None => Decimal::ZERO,
        };
        Taxed {
            from,
            tax: deal.tax,
            whole,
            net,
            currency: deal.currency,
        }
    }

    /// The rate by which each invoice is taxed on its own. `None` where the tax of the whole price is agreed, by an amount
    /// or because the price includes it, so that the taxes of the invoices must sum to it.
    pub fn rate(&self) -> Option<Decimal> {
        match self.tax {
            Some(Tax {
                basis: TaxBasis::Rate(rate),
                inclusive: false,
            }) => Some(rate),
            Some(_) => None,
            None => Some(Decimal::ZERO),
        }
    }

    /// The rate inside a price, where one is stated.
    pub fn rate_inside(&self) -> Option<Decimal> {
        match self.tax {
            Some(Tax {
                basis: TaxBasis::Rate(rate),
                inclusive: true,
            }) => Some(rate),
            Some(_) | None => None,
        }
    }

    pub fn is_inclusive(&self) -> bool {
        self.tax.is_some_and(|tax| tax.inclusive)
    }

    /// The tax on a part of the price, so that the tax on all of it is what was agreed.
    pub fn on(&self, net: Decimal) -> Decimal {
        match self.rate() {
            Some(rate) => self.currency.round(net * rate),
            None => self.currency.share(self.whole, net, self.net),
        }
    }

    /// The tax on what comes on top of the price, such as usage.
    pub fn on_more(&self, net: Decimal) -> Decimal {
        match self.rate().or(self.rate_inside()) {
            Some(rate) => self.currency.round(net * rate),
            None => self.currency.share(self.whole, net, self.net),
        }
    }
}

/// Standalone selling price of the whole line. A price that is nearer to the price of one unit is meant for one unit.
pub fn line_ssp(line: &Line) -> Option<Decimal> {
    let ssp = line.ssp?;
    let Some(quantity) = line.quantity else {
        return Some(ssp);
    };
    let unit = line.unit_price.unwrap_or(line.amount / quantity);
    match (ssp - unit).abs() < (ssp - line.amount).abs() {
        true => Some(ssp * quantity),
        false => Some(ssp),
    }
}

fn whole_deal_line(deal: &Deal) -> Line {
    Line {
        id: LineId::trusted("deal"),
        line_type: LineType::trusted("subscription"),
        name: None,
        amount: deal.amount,
        quantity: None,
        unit_price: None,
        ssp: None,
        ssp_range: None,
        discount: None,
        start: None,
        end: None,
        method: None,
        milestones: Vec::new(),
        distinct: None,
        recurring: None,
        bundle: None,
    }
}

fn share(lines: &[&Line], total: Decimal, deal: &Deal) -> Result<Vec<(Decimal, &'static str)>, Rejection> {
    let currency = deal.currency;
    let priced = |line: &&Line| line.ssp.is_some() || line.ssp_range.is_some();
    if !lines.iter().all(priced) {
        return Ok(by_amount(lines, total, deal));
    }
    let residual: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].ssp.is_none()).collect();
    match residual.as_slice() {
        [] => Ok(by_ssp(lines, total, currency)),
        [index] => by_residual(lines, *index, total, currency),
        [_, ..] => Err(residual_refused("more than one line has no observable price", "")),
    }
}

fn by_amount(lines: &[&Line], total: Decimal, deal: &Deal) -> Vec<(Decimal, &'static str)> {
    let gross: Decimal = lines.iter().map(|line| line.amount).sum();
    let prices: Vec<Decimal> = match gross == deal.amount || deal.lines.is_empty() {
        true => lines.iter().map(|line| line.amount).collect(),
        false => lines
            .iter()
            .map(|line| (line.amount - line.discount.unwrap_or_default()).max(Decimal::ZERO))
            .collect(),
    };
    let sum: Decimal = prices.iter().sum();
    match sum == total {
        true => prices.into_iter().map(|price| (price, BY_AMOUNT)).collect(),
        false => largest_remainder(total, &prices, deal.currency)
            .into_iter()
            .map(|price| (price, BY_AMOUNT))
            .collect(),
    }
}

fn by_ssp(lines: &[&Line], total: Decimal, currency: Currency) -> Vec<(Decimal, &'static str)> {
    let ssp: Vec<Decimal> = lines.iter().map(|line| line_ssp(line).unwrap_or_default()).collect();
    let discount = ssp.iter().sum::<Decimal>() - total;
    let together = together(lines, discount);
    let outside: Decimal = (0..lines.len())
        .filter(|i| together[*i].is_none())
        .map(|i| ssp[i])
        .sum();
    if discount <= Decimal::ZERO || together.iter().all(|it| *it == together[0]) || outside > total {
        let parts = largest_remainder(total, &ssp, currency);
        return parts.into_iter().map(|part| (part, BY_SSP)).collect();
    }
    let alone = |i: usize| (currency.round(ssp[i]), BY_SSP);
    let rounded: Decimal = (0..lines.len())
        .filter(|i| together[*i].is_none())
        .map(|i| alone(i).0)
        .sum();
    let mut shares: Vec<(Decimal, &'static str)> = (0..lines.len()).map(alone).collect();
    for (group, price) in bundles(lines, &ssp, &together, (total - rounded, total), currency) {
        let of_group = |i: usize| together[i] == Some(group);
        let weights: Vec<Decimal> = (0..lines.len())
            .map(|i| if of_group(i) { ssp[i] } else { Decimal::ZERO })
            .collect();
        let parts = largest_remainder(price, &weights, currency);
        for i in (0..lines.len()).filter(|i| of_group(*i)) {
            shares[i] = (parts[i], BY_BUNDLE);
        }
    }
    shares
}

/// Which lines own the discount, by bundle: those of a bundle, or those whose stated discounts explain all of it, as one.
fn together<'l>(lines: &[&'l Line], discount: Decimal) -> Vec<Option<&'l str>> {
    if lines.iter().any(|line| line.bundle.is_some()) {
        return lines.iter().map(|line| line.bundle.as_deref()).collect();
    }
    let stated: Decimal = lines.iter().filter_map(|line| line.discount).sum();
    let owns = |line: &&Line| line.discount.is_some_and(|amount| amount > Decimal::ZERO);
    match stated == discount {
        true => lines.iter().map(|line| owns(line).then_some("")).collect(),
        false => vec![None; lines.len()],
    }
}

/// The price of each bundle, of what all of them are sold for: each has its own discount, and none of another's (ASC
/// 606-10-32-37). Where the amounts of no bundle are below its selling prices, they share the discount by those.
fn bundles<'l>(
    lines: &[&Line],
    ssp: &[Decimal],
    together: &[Option<&'l str>],
    (price, total): (Decimal, Decimal),
    currency: Currency,
) -> Vec<(&'l str, Decimal)> {
    let names: BTreeSet<&str> = together.iter().flatten().copied().collect();
    let discounted = lines.iter().map(|line| line.amount).sum::<Decimal>() != total;
    let sold_for = |i: usize| match discounted {
        true => lines[i].amount - lines[i].discount.unwrap_or_default(),
        false => lines[i].amount,
    };
    let sum = |of: &dyn Fn(usize) -> Decimal, name: &str| -> Decimal {
        let of_bundle = (0..lines.len()).filter(|i| together[*i] == Some(name));
        of_bundle.map(of).sum()
    };
    let whole: Vec<Decimal> = names.iter().map(|name| sum(&|i| ssp[i], name)).collect();
    let less = names.iter().zip(&whole);
    let less: Vec<Decimal> = less
        .map(|(name, whole)| (whole - sum(&sold_for, name)).max(Decimal::ZERO))
        .collect();
    let (discount, all) = (whole.iter().sum::<Decimal>() - price, less.iter().sum::<Decimal>());
    let own = whole.iter().zip(&less);
    let own: Vec<Decimal> = own
        .map(|(whole, less)| whole - proportion(discount, *less, all))
        .collect();
    let weights = match all.is_zero() || own.iter().any(|price| *price < Decimal::ZERO) {
        true => whole,
        false => own,
    };
    names
        .into_iter()
        .zip(largest_remainder(price, &weights, currency))
        .collect()
}

fn by_residual(
    lines: &[&Line],
    index: usize,
    total: Decimal,
    currency: Currency,
) -> Result<Vec<(Decimal, &'static str)>, Rejection> {
    let observed = observed(lines, currency);
    let residual = total - observed.iter().sum::<Decimal>();
    let Some(SspRange { low, high }) = lines[index].ssp_range else {
        return Err(residual_refused("no range is given", residual));
    };
    let middle = (low + high) / Decimal::TWO;
    if (high - low) * Decimal::TWO < middle {
        return Err(residual_refused(
            "the price is not highly variable",
            format!("{low} to {high}"),
        ));
    }
    if residual < low || residual > high {
        return Err(residual_refused("the residual lies outside the range", residual));
    }
    Ok((0..lines.len())
        .map(|i| match i == index {
            true => (residual, BY_RESIDUAL),
            false => (observed[i], if lines[i].bundle.is_some() { BY_BUNDLE } else { BY_SSP }),
        })
        .collect())
}

/// Prices of the lines with a selling price. Those that are sold for less together share what they are sold for, each bundle
/// by itself, before the residual is taken (ASC 606-10-32-35).
fn observed(lines: &[&Line], currency: Currency) -> Vec<Decimal> {
    let ssp: Vec<Decimal> = lines.iter().map(|line| line_ssp(line).unwrap_or_default()).collect();
    let prices: Vec<Decimal> = lines.iter().zip(&ssp).map(|(line, ssp)| sold_for(line, *ssp)).collect();
    let mut shares: Vec<Decimal> = ssp.iter().map(|ssp| currency.round(*ssp)).collect();
    let bundles: BTreeSet<Option<&str>> = lines.iter().map(|line| line.bundle.as_deref()).collect();
    for bundle in bundles {
        let of_bundle = |i: &usize| prices[*i] < ssp[*i] && lines[*i].bundle.as_deref() == bundle;
        let weight = |i: usize| if of_bundle(&i) { ssp[i] } else { Decimal::ZERO };
        let weights: Vec<Decimal> = (0..lines.len()).map(weight).collect();
        let price: Decimal = (0..lines.len()).filter(of_bundle).map(|i| prices[i]).sum();
        let parts = largest_remainder(currency.round(price), &weights, currency);
        for i in (0..lines.len()).filter(of_bundle) {
            shares[i] = parts[i];
        }
    }
    shares
}

/// What a line is sold for beside a residual: its selling price less its discount, or its amount within a bundle.
fn sold_for(line: &Line, ssp: Decimal) -> Decimal {
    match (line.discount, &line.bundle) {
        (Some(discount), _) => (ssp - discount).max(Decimal::ZERO),
        (None, Some(_)) => line.amount.min(ssp),
        (None, None) => ssp,
    }
}

fn residual_refused(why: &str, value: impl std::fmt::Display) -> Rejection {
    Rejection::new(
        Code::ResidualRefused,
        "payload.line_items.ssp_range",
        value,
        &format!("{why}; give an observable or estimated ssp (ASC 606-10-32-34)"),
    )
}

fn terms(line: &Line, deal: &Deal, price: Decimal, start: Date, end: Date, policy: &Policy) -> LineTerms {
    let method = method_of(line, deal, policy);
    let start = line.start.unwrap_or(start);
    let life = line.is_setup()
        && method == Method::StraightLine
        && setup_treatment(deal, policy) == SetupFees::OverCustomerLife;
    let end = match (line.end, life) {
        (Some(end), _) => end,
        (None, true) => add_days(add_months(start, i64::from(policy.customer_life_months.max(1))), -1).max(end),
        (None, false) => end,
    };
    LineTerms {
        price,
        start,
        end: end.max(start),
        method,
        quantity: line.quantity.or((method == Method::Units).then_some(Decimal::ONE)),
        milestones: line.milestones.clone(),
    }
}

/// The weights of milestones: amounts as they are, percents of the line's price.
pub fn milestone_weight(share: MilestoneShare, price: Decimal) -> Decimal {
    match share {
        MilestoneShare::Amount(amount) => amount,
        MilestoneShare::Percent(percent) if price.is_zero() => percent,
        MilestoneShare::Percent(percent) => price * percent / Decimal::ONE_HUNDRED,
    }
}
