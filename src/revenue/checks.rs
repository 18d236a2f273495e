//! The invariants of the books, each a function by its own name.
//!
//! A check looks at what the books say, never at how they were made, so that it can be run over a replay, a restored
//! store or a warehouse extract alike. Invariant: an empty answer means that the check holds. Deliberately absent:
//! repair.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};

use super::books::Report;
use super::contract::{BillingRow, Status};
use super::ids::{DealId, ObligationId, TenantId};
use super::journal::{EntryLine, JournalEntry, Kind};
use super::ledger::Role;
use super::measures::waterfall;
use super::period::Period;
use super::reject::Code;
use super::view::View;

/// What does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub check: &'static str,
    pub subject: String,
    pub detail: String,
}

type Check = fn(&Report) -> Vec<Violation>;

/// Every check by its name.
pub const ALL: &[(&str, Check)] = &[
    ("entries_balance", entries_balance),
    ("entry_ids_are_unique", entry_ids_are_unique),
    ("schedule_sums_to_price", schedule_sums_to_price),
    (
        "recognised_and_remaining_make_the_price",
        recognised_and_remaining_make_the_price,
    ),
    ("one_position", one_position),
    ("nothing_below_zero", nothing_below_zero),
    ("ledger_meets_balances", ledger_meets_balances),
    ("credits_within_invoices", credits_within_invoices),
    ("waterfall_closes", waterfall_closes),
    ("nothing_is_left_at_the_end", nothing_is_left_at_the_end),
];

/// Runs all checks.
pub fn run(report: &Report) -> Vec<Violation> {
    ALL.iter().flat_map(|(_, check)| check(report)).collect()
}

/// Every entry balances in its currency and in functional currency, line by line on one side only.
pub fn entries_balance(report: &Report) -> Vec<Violation> {
    let broken = report.journals.iter().filter(|entry| {
        let lines = || entry.lines.iter();
        let sum: Decimal = lines().map(|line| line.debit - line.credit).sum();
        let functional: Decimal = lines().map(|line| line.functional_debit - line.functional_credit).sum();
        let two_sided = lines().any(|line| {
            !line.debit.is_zero() && !line.credit.is_zero()
                || !line.functional_debit.is_zero() && !line.functional_credit.is_zero()
                || line.debit.is_sign_negative() && !line.debit.is_zero()
                || line.credit.is_sign_negative() && !line.credit.is_zero()
        });
        !sum.is_zero() || !functional.is_zero() || two_sided || entry.lines.len() < 2
    });
    broken
        .map(|entry| violation("entries_balance", &entry.entry_id, lines_in_words(entry)))
        .collect()
}

/// No two entries share an id.
pub fn entry_ids_are_unique(report: &Report) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    let twice = report.journals.iter().filter(|entry| !seen.insert(&entry.entry_id));
    twice
        .map(|entry| violation("entry_ids_are_unique", &entry.entry_id, String::new()))
        .collect()
}

/// The rows of an obligation sum to its allocated price.
pub fn schedule_sums_to_price(report: &Report) -> Vec<Violation> {
    let mut sums = BTreeMap::new();
    for row in &report.schedule {
        *sums
            .entry((&row.tenant, &row.deal, &row.obligation))
            .or_insert(Decimal::ZERO) += row.amount;
    }
    let mut found = Vec::new();
    for view in &report.contracts {
        for obligation in view.contracts.iter().flat_map(|it| &it.obligations) {
            let key = (&view.tenant, &view.deal, &obligation.obligation);
            let sum = sums.get(&key).copied().unwrap_or_default();
            if sum != obligation.allocated {
                let detail = format!("rows {sum}, price {}", obligation.allocated);
                found.push(violation("schedule_sums_to_price", &obligation.obligation, detail));
            }
        }
    }
    found
}

/// Recognised and remaining make the transaction price.
pub fn recognised_and_remaining_make_the_price(report: &Report) -> Vec<Violation> {
    let mut found = Vec::new();
    for view in &report.contracts {
        let price: Decimal = view.contracts.iter().map(|it| it.transaction_price).sum();
        if let Some(balances) = &view.balances
            && balances.recognised + balances.remaining != price
        {
            let detail = format!("{} + {} is not {price}", balances.recognised, balances.remaining);
            found.push(violation("recognised_and_remaining_make_the_price", &view.deal, detail));
        }
    }
    found
}

/// A deal shows a net liability or a net asset, never both (ASC 606-10-45-1).
pub fn one_position(report: &Report) -> Vec<Violation> {
    let both = report.contracts.iter().filter(|view| {
        view.balances
            .as_ref()
            .is_some_and(|it| it.contract_liability > Decimal::ZERO && it.contract_asset > Decimal::ZERO)
    });
    both.map(|view| violation("one_position", &view.deal, balances_in_words(view)))
        .collect()
}

/// No balance of a deal is below zero, and no transaction price.
pub fn nothing_below_zero(report: &Report) -> Vec<Violation> {
    let below = report.contracts.iter().filter(|view| {
        let balances = view
            .balances
            .iter()
            .flat_map(|it| [it.contract_liability, it.contract_asset, it.receivable]);
        let prices = view.contracts.iter().map(|it| it.transaction_price);
        balances.chain(prices).any(|amount| amount < Decimal::ZERO)
    });
    below
        .map(|view| violation("nothing_below_zero", &view.deal, balances_in_words(view)))
        .collect()
}

/// The accounts for liability and asset, over all entries of a deal, are the one position: neither is below zero, and
/// one of them is zero.
pub fn ledger_meets_balances(report: &Report) -> Vec<Violation> {
    let mut accounts: BTreeMap<(&TenantId, &DealId), (Decimal, Decimal)> = BTreeMap::new();
    for entry in &report.journals {
        let (liability, asset) = accounts.entry((&entry.tenant, &entry.deal)).or_default();
        for line in &entry.lines {
            match line.role {
                Role::ContractLiability => *liability += line.credit - line.debit,
                Role::ContractAsset => *asset += line.debit - line.credit,
                Role::AccountsReceivable
                | Role::Cash
                | Role::Revenue(_)
                | Role::TaxPayable
                | Role::FxGainLoss
                | Role::RefundLiability => {}
            }
        }
    }
    let broken = accounts.into_iter().filter(|(_, (liability, asset))| {
        *liability < Decimal::ZERO || *asset < Decimal::ZERO || !liability.is_zero() && !asset.is_zero()
    });
    broken
        .map(|((_, deal), (liability, asset))| {
            violation(
                "ledger_meets_balances",
                deal,
                format!("liability {liability}, asset {asset}"),
            )
        })
        .collect()
}

/// No deal is credited more than it was invoiced, whether the credit met a receivable or is owed back.
pub fn credits_within_invoices(report: &Report) -> Vec<Violation> {
    let mut invoiced: BTreeMap<(&TenantId, &DealId), Decimal> = BTreeMap::new();
    for entry in &report.journals {
        match entry.kind {
            Kind::Invoice | Kind::CreditMemo | Kind::Adjustment | Kind::Reversal => {}
            Kind::Payment | Kind::Recognition | Kind::FxRemeasurement => continue,
        }
        let owed = entry.lines.iter().filter(|line| match line.role {
            Role::AccountsReceivable | Role::RefundLiability => true,
            Role::Cash
            | Role::ContractLiability
            | Role::ContractAsset
            | Role::Revenue(_)
            | Role::TaxPayable
            | Role::FxGainLoss => false,
        });
        *invoiced.entry((&entry.tenant, &entry.deal)).or_default() +=
            owed.map(|line| line.debit - line.credit).sum::<Decimal>();
    }
    let below = invoiced.into_iter().filter(|(_, amount)| *amount < Decimal::ZERO);
    below
        .map(|((_, deal), amount)| violation("credits_within_invoices", deal, amount.to_string()))
        .collect()
}

/// A deal of which all is earned and all is invoiced has no position left but a deposit, and none at all once it is
/// cancelled: what is owed then is a receivable, or a refund liability (ASC 606-10-32-10). No invoice waits for an event
/// that cannot come any more.
///
/// Left out: deals with estimates, which are resolved when somebody says so, and deals that wait for a rate.
pub fn nothing_is_left_at_the_end(report: &Report) -> Vec<Violation> {
    let mut entries: BTreeMap<(&TenantId, &DealId), Vec<&JournalEntry>> = BTreeMap::new();
    for entry in &report.journals {
        entries.entry((&entry.tenant, &entry.deal)).or_default().push(entry);
    }
    let mut invoices: BTreeMap<(&TenantId, &DealId), Vec<&BillingRow>> = BTreeMap::new();
    for row in &report.billing {
        invoices.entry((&row.tenant, &row.deal)).or_default().push(row);
    }
    let rejections = report.rejections.iter();
    let parked: BTreeSet<_> = rejections
        .filter(|(_, rejection)| rejection.code == Code::RateMissing)
        .map(|(event, _)| event)
        .collect();
    let mut found = Vec::new();
    for view in report.contracts.iter().filter(|view| is_done(view)) {
        let key = (&view.tenant, &view.deal);
        let entries = entries.remove(&key).unwrap_or_default();
        let invoices = invoices.remove(&key).unwrap_or_default();
        let terms = view.history.iter().map(|(event, _)| event);
        let mut facts = terms.chain(entries.iter().flat_map(|entry| &entry.provenance));
        if facts.any(|event| parked.contains(event)) {
            continue;
        }
        if let Some(row) = invoices.iter().find(|row| !row.firm) {
            let detail = format!("{} is to be invoiced on an event that cannot come", row.amount);
            found.push(violation("nothing_is_left_at_the_end", &view.deal, detail));
        }
        // What the clock has passed is posted: an entry of a day says that it has passed that day.
        let last = entries.iter().map(|entry| entry.date).max();
        let passed = |day: Date| last.is_some_and(|last| last >= day);
        let cancelled = view.status == Status::Cancelled;
        let settled = !cancelled || view.history.last().is_some_and(|(_, since)| passed(*since));
        if !settled || !invoices.iter().all(|row| passed(row.date)) {
            continue;
        }
        let (mut deposit, mut position) = (Decimal::ZERO, Decimal::ZERO);
        for entry in &entries {
            let lines = entry.lines.iter();
            let lines = lines.filter(|line| matches!(line.role, Role::ContractLiability | Role::ContractAsset));
            let change: Decimal = lines.map(|line| line.credit - line.debit).sum();
            position += change;
            if entry.kind == Kind::Payment {
                deposit += change;
            }
        }
        if position != deposit || cancelled && !deposit.is_zero() {
            let detail = format!("a position of {position}, {deposit} of it paid before it was invoiced");
            found.push(violation("nothing_is_left_at_the_end", &view.deal, detail));
        }
    }
    found
}

/// Whether all that a deal promised is earned, and no part of its price is uncertain.
fn is_done(view: &View) -> bool {
    let estimated = |id: &ObligationId| id.as_str().contains('~');
    let mut obligations = view.contracts.iter().flat_map(|it| &it.obligations);
    matches!(view.status, Status::Completed | Status::Cancelled)
        && view.balances.as_ref().is_some_and(|it| it.remaining.is_zero())
        && !obligations.any(|it| estimated(&it.obligation))
}

/// Opening, billed, recognised and exchange make closing, and closing is the next opening.
pub fn waterfall_closes(report: &Report) -> Vec<Violation> {
    let mut last: BTreeMap<_, Decimal> = BTreeMap::new();
    let mut found = Vec::new();
    for row in waterfall(&report.journals) {
        let key = (row.tenant.clone(), row.currency);
        let opening = last.get(&key).copied().unwrap_or_default();
        let amounts = row.amounts;
        let closes = amounts.opening + amounts.billed - amounts.recognised + amounts.fx == amounts.closing;
        if amounts.opening != opening || !closes {
            let detail = format!(
                "{} in {}: opening {} after a closing of {opening}; {} + {} billed - {} recognised + {} exchange is not {}",
                row.tenant,
                row.currency,
                amounts.opening,
                amounts.opening,
                amounts.billed,
                amounts.recognised,
                amounts.fx,
                amounts.closing
            );
            found.push(violation("waterfall_closes", row.period, detail));
        }
        last.insert(key, amounts.closing);
    }
    let mut accounts: BTreeMap<_, Decimal> = BTreeMap::new();
    for entry in &report.journals {
        let lines = entry.lines.iter().filter(|line| line.role == Role::ContractLiability);
        *accounts.entry((entry.tenant.clone(), entry.currency)).or_default() +=
            lines.map(|line| line.credit - line.debit).sum::<Decimal>();
    }
    for ((tenant, currency), account) in &accounts {
        let closing = last.get(&(tenant.clone(), *currency)).copied().unwrap_or_default();
        if *account != closing {
            let detail =
                format!("{tenant} in {currency}: the accounts hold {account}, the waterfall ends at {closing}");
            found.push(violation("waterfall_closes", "the last period", detail));
        }
    }
    found
}

/// A hash over all entries of a tenant's period, in the order of their ids.
/// It must not change once the period is closed.
pub fn period_hash(entries: &[JournalEntry], tenant: &TenantId, period: Period) -> [u8; 32] {
    let mut of: Vec<&JournalEntry> = entries
        .iter()
        .filter(|it| it.tenant == *tenant && it.period == period)
        .collect();
    of.sort_by_key(|entry| &entry.entry_id);
    let mut hash = Sha256::new();
    for entry in of {
        hash.update(content(entry));
    }
    hash.finalize().into()
}

/// An entry as text that does not depend on how decimals are held.
fn content(entry: &JournalEntry) -> String {
    let mut text = format!(
        "{} {} {} {} {} {}\n",
        entry.entry_id,
        entry.deal,
        entry.kind.as_str(),
        entry.date,
        entry.currency,
        entry.functional_currency
    );
    for line in &entry.lines {
        let amount = entry.currency.format(line.debit - line.credit);
        let difference = line.functional_debit - line.functional_credit;
        let functional = entry.functional_currency.format(difference);
        text += &format!("{} {} {amount} {functional}\n", line.account, line.role.name());
    }
    text
}

/// Each line with its account, its sides, and its sides in functional currency.
fn lines_in_words(entry: &JournalEntry) -> String {
    let line = |it: &EntryLine| {
        format!(
            "{} debit {} credit {} (functional {} and {})",
            it.account, it.debit, it.credit, it.functional_debit, it.functional_credit
        )
    };
    let lines: Vec<String> = entry.lines.iter().map(line).collect();
    lines.join("; ")
}

fn balances_in_words(view: &View) -> String {
    let prices: Vec<String> = view
        .contracts
        .iter()
        .map(|it| format!("{} priced {}", it.contract, it.transaction_price))
        .collect();
    let balances = view.balances.as_ref().map(|it| {
        format!(
            ": liability {}, asset {}, receivable {}, recognised {}, remaining {} {}",
            it.contract_liability, it.contract_asset, it.receivable, it.recognised, it.remaining, it.currency
        )
    });
    prices.join(", ") + &balances.unwrap_or_default()
}

fn violation(check: &'static str, subject: impl std::fmt::Display, detail: String) -> Violation {
    Violation {
        check,
        subject: subject.to_string(),
        detail,
    }
}
