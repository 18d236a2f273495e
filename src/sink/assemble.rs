//! From entries of the journal to documents.
//!
//! Owns: which form an entry takes, the accounts of its roles, the sums of a summary. Pure.
//! Invariant: debits equal credits as they do in the entries; no amount is changed, only summed. Deliberately absent:
//! any system's format.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use sha2::{Digest, Sha256};

use super::destination::Refusal;
use super::document::{Document, Form, Key, Party};
use crate::codec::receipt::hex;
use crate::config::{Accounts, Documents};
use crate::revenue::journal::{EntryLine, JournalEntry, Kind};
use crate::revenue::ledger::Role;

/// What an entry is to the ledger.
pub fn form(entry: &JournalEntry, documents: Documents) -> Form {
    match (documents, entry.kind) {
        (Documents::Invoices, Kind::Invoice) => Form::Invoice,
        (Documents::Invoices, Kind::CreditMemo) => Form::CreditNote,
        (
            Documents::Invoices,
            Kind::Payment | Kind::Adjustment | Kind::Reversal | Kind::Recognition | Kind::FxRemeasurement,
        )
        | (Documents::Journals, _) => Form::Journal,
    }
}

/// The code of a refusal whose cure is a line in the topology.
pub const NOT_MAPPED: &str = "account_not_mapped";

/// The document of one entry, or of several of one tenant, day and pair of currencies.
///
/// # Errors
/// A role without an account: the refusal says which line to add.
pub fn document(
    sink: &str,
    key: &Key,
    form: Form,
    entries: &[JournalEntry],
    accounts: &Accounts,
) -> Result<Document, Refusal> {
    let Some(first) = entries.first() else {
        return Err(Refusal {
            code: "no_entries".to_owned(),
            words: String::new(),
            advice: "the document carries no entry; cancel it".to_owned(),
        });
    };
    let alone = entries.len() == 1;
    let mut lines: Vec<EntryLine> = Vec::new();
    for entry in entries {
        for line in &entry.lines {
            let account = account(sink, first, &line.role, &line.account, accounts)?;
            lines.push(EntryLine {
                role: line.role.clone(),
                account,
                debit: line.debit,
                credit: line.credit,
                functional_debit: line.functional_debit,
                functional_credit: line.functional_credit,
            });
        }
    }
    let customer = match (&first.customer_id, alone) {
        (Some(id), true) => Some(Party {
            id: id.clone(),
            name: first.customer_name.clone().unwrap_or_default(),
        }),
        (Some(_) | None, _) => None,
    };
    Ok(Document {
        key: key.clone(),
        form,
        tenant: first.tenant.clone(),
        deal: alone.then(|| first.deal.clone()),
        customer,
        date: first.date,
        period: first.period,
        currency: first.currency,
        functional_currency: first.functional_currency,
        lines: if alone { lines } else { summed(lines) },
        entries: entries.iter().map(|entry| entry.entry_id.clone()).collect(),
        narration: narration(entries),
    })
}

/// The destination's account for a role; where it has none, the one that a fact has mapped.
fn account(
    sink: &str,
    entry: &JournalEntry,
    role: &Role,
    of_entry: &str,
    accounts: &Accounts,
) -> Result<String, Refusal> {
    if let Some(account) = accounts.account(&entry.tenant, role) {
        return Ok(account.to_owned());
    }
    let name = role.name();
    if of_entry != name {
        return Ok(of_entry.to_owned());
    }
    let key = match role {
        // A line type with a dot is no bare key.
        Role::Revenue(line_type) if line_type.as_str().contains('.') => format!("revenue.\"{line_type}\"").into(),
        Role::Revenue(_)
        | Role::AccountsReceivable
        | Role::Cash
        | Role::ContractLiability
        | Role::ContractAsset
        | Role::TaxPayable
        | Role::FxGainLoss
        | Role::RefundLiability => name.clone(),
    };
    Err(Refusal {
        code: NOT_MAPPED.to_owned(),
        words: String::new(),
        advice: format!(
            "no account for {name} of tenant {}: add the line  {key} = \"ACCOUNT\"  to [sinks.{sink}.accounts] in the topology and start the sink again",
            entry.tenant
        ),
    })
}

/// One line for each account and role, the two sides set off against one another.
fn summed(lines: Vec<EntryLine>) -> Vec<EntryLine> {
    let mut sums: BTreeMap<(String, Role), (Decimal, Decimal)> = BTreeMap::new();
    for line in lines {
        let (amount, functional) = sums.entry((line.account, line.role)).or_default();
        *amount += line.debit - line.credit;
        *functional += line.functional_debit - line.functional_credit;
    }
    let side = |amount: Decimal| (amount.max(Decimal::ZERO), (-amount).max(Decimal::ZERO));
    sums.into_iter()
        .filter(|(_, (amount, functional))| !amount.is_zero() || !functional.is_zero())
        .map(|((account, role), (amount, functional))| {
            let (debit, credit) = side(amount);
            let (functional_debit, functional_credit) = side(functional);
            EntryLine {
                role,
                account,
                debit,
                credit,
                functional_debit,
                functional_credit,
            }
        })
        .collect()
}

fn narration(entries: &[JournalEntry]) -> String {
    const LONGEST_CHARS: usize = 200;
    let text = match entries {
        [entry] => {
            let kind = entry.kind.as_str().replace('_', " ");
            let concerns = match entry.concerns == entry.period {
                true => String::new(),
                false => format!(" for {}", entry.concerns),
            };
            format!("{} {kind}{concerns}", entry.deal)
        }
        entries => {
            let deals: std::collections::BTreeSet<_> = entries.iter().map(|entry| &entry.deal).collect();
            format!("{} entries of {} deals", entries.len(), deals.len())
        }
    };
    text.chars().take(LONGEST_CHARS).collect()
}

/// The key of a summary: a hash of the ids of its entries, in order.
pub fn summary_key(entries: &[String]) -> String {
    let mut hash = Sha256::new();
    for entry in entries {
        hash.update((entry.len() as u64).to_be_bytes());
        hash.update(entry);
    }
    format!("sum_{}", &hex(&hash.finalize())[..24])
}
