//! What the tests of accounting systems share: documents, and a writer that follows the rules of the delivery.
#![allow(dead_code)] // each test binary uses its part

pub mod relay;
pub mod steps;
pub mod worker;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use accrue::config::Secret;
use accrue::revenue::ids::{CustomerId, DealId, EntryId, LineType, TenantId};
use accrue::revenue::journal::EntryLine;
use accrue::revenue::ledger::Role;
use accrue::revenue::money::Currency;
use accrue::revenue::period::Period;
use accrue::sandbox::room::Settings;
use accrue::sandbox::{Options, Sandbox, Vendor, tokens};
use accrue::sink::accounting::http::Url;
use accrue::sink::accounting::oauth::{Client, Grant};
use accrue::sink::destination::{Certainty, Destination, Found, Outcome, Plan, Tries};
use accrue::sink::document::{Document, Form, Key, Party};
use rust_decimal::Decimal;

pub fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

pub fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// Role, account, debit; negative is credit.
pub type Row<'a> = (Role, &'a str, &'a str);

pub fn revenue(line_type: &str) -> Role {
    Role::Revenue(LineType::parse(line_type).unwrap())
}

/// A document in US dollars.
pub fn document(key: &str, form: Form, date: &str, rows: &[Row]) -> Document {
    foreign(
        key,
        form,
        date,
        "USD",
        &rows
            .iter()
            .map(|(role, account, amount)| (role.clone(), *account, *amount, *amount))
            .collect::<Vec<_>>(),
    )
}

/// A document in a currency: role, account, debit, debit in US dollars.
pub fn foreign(key: &str, form: Form, date: &str, currency: &str, rows: &[(Role, &str, &str, &str)]) -> Document {
    let side = |amount: Decimal| amount.max(Decimal::ZERO);
    let line = |(role, account, amount, functional): &(Role, &str, &str, &str)| EntryLine {
        role: role.clone(),
        account: (*account).to_owned(),
        debit: side(dec(amount)),
        credit: side(-dec(amount)),
        functional_debit: side(dec(functional)),
        functional_credit: side(-dec(functional)),
    };
    Document {
        key: Key::parse(key).unwrap(),
        form,
        tenant: TenantId::parse("acme").unwrap(),
        deal: DealId::parse("D-98765"),
        customer: Some(Party {
            id: CustomerId::parse("C-1").unwrap(),
            name: "Globex Corporation".to_owned(),
        }),
        date: date.parse().unwrap(),
        period: Period::parse(&date[..7]).unwrap(),
        currency: Currency::parse(currency).unwrap(),
        functional_currency: Currency::parse("USD").unwrap(),
        lines: rows.iter().map(line).collect(),
        entries: vec![EntryId::parse(key).unwrap()],
        narration: "D-98765 recognition 2026-02".to_owned(),
    }
}

/// A month of revenue.
pub fn recognition(key: &str, date: &str, amount: &str) -> Document {
    let credit = format!("-{amount}");
    let rows = [
        (Role::ContractLiability, "2400", amount),
        (revenue("subscription"), "4000", credit.as_str()),
    ];
    document(key, Form::Journal, date, &rows)
}

/// An invoice over 10,000.00 and 700.00 of tax.
pub fn invoice(key: &str, date: &str) -> Document {
    let rows = [
        (Role::AccountsReceivable, "1100", "10700.00"),
        (Role::ContractLiability, "2400", "-10000.00"),
        (Role::TaxPayable, "2300", "-700.00"),
    ];
    document(key, Form::Invoice, date, &rows)
}

/// A credit of 2,500.00.
pub fn credit_note(key: &str, date: &str) -> Document {
    let rows = [
        (Role::ContractLiability, "2400", "2500.00"),
        (Role::AccountsReceivable, "1100", "-2500.00"),
    ];
    document(key, Form::CreditNote, date, &rows)
}

pub fn client(token_url: &str) -> Client {
    Client {
        token_url: url(token_url),
        id: tokens::CLIENT_ID.to_owned(),
        secret: secret(tokens::CLIENT_SECRET),
        grant: Grant::ClientCredentials { scope: None },
    }
}

pub fn rotating(token_url: &str, file: &Path) -> Client {
    Client {
        grant: Grant::Refresh {
            first: secret(tokens::REFRESH_TOKEN),
            file: file.to_owned(),
        },
        ..client(token_url)
    }
}

pub async fn sandbox(vendor: impl Vendor + 'static, options: Options) -> Sandbox {
    let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
    Sandbox::start(vec![Box::new(vendor)], listen, options).await.unwrap()
}

pub fn closed(until: &str) -> Settings {
    Settings {
        closed_until: Some(until.to_owned()),
        ..Settings::default()
    }
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Acknowledged(String),
    Refused(String),
    Parked(String),
}

/// After a try that left something unfinished.
pub fn resumed(external_id: &str) -> Tries {
    Tries {
        resume: Some(external_id.to_owned()),
        ..Tries::default()
    }
}

/// Delivers one document by the rules of `destination`: an uncertain write is repeated only under a key that is still
/// remembered, and otherwise looked up first.
pub async fn deliver(system: &dyn Destination, document: &Document) -> End {
    let plan = match system.plan(document) {
        Ok(plan) => plan,
        Err(refusal) => return End::Refused(refusal.code),
    };
    deliver_plan(system, &document.key, &plan).await
}

pub async fn deliver_plan(system: &dyn Destination, key: &Key, plan: &Plan) -> End {
    let (started, mut tries) = (Instant::now(), Tries::default());
    for _ in 0..200 {
        match system.send(key, plan, &std::mem::take(&mut tries)).await {
            Outcome::Acknowledged(there) => return End::Acknowledged(there.external_id),
            Outcome::Refused(refusal) => return End::Refused(refusal.code),
            Outcome::Throttled { retry_after } => {
                tokio::time::sleep(retry_after.unwrap_or(Duration::from_millis(50))).await
            }
            Outcome::Unavailable(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            lost @ (Outcome::Uncertain(_) | Outcome::Taken(_)) => {
                let after = match system.certainty() {
                    _ if matches!(lost, Outcome::Taken(_)) => Duration::ZERO,
                    Certainty::Key { remembered, .. } if started.elapsed() < remembered => continue,
                    Certainty::Key { look_up_after, .. } => look_up_after.unwrap_or_default(),
                    Certainty::LookUp { after } => after,
                    Certainty::None => return End::Parked("no way to be sure".to_owned()),
                };
                tokio::time::sleep(after).await;
                loop {
                    match system.look_up(key, plan).await {
                        Found::Same(there) => return End::Acknowledged(there.external_id),
                        Found::Different { what, .. } => return End::Parked(what),
                        Found::Several(ids) => return End::Parked(format!("{} documents", ids.len())),
                        Found::Unfinished { external_id } => tries = resumed(&external_id),
                        Found::Nothing => {}
                        Found::Unknown(_) | Found::Throttled { .. } => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    }
                    break;
                }
            }
        }
    }
    panic!("{} did not end", plan.reference);
}
