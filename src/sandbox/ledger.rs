//! What the doubles check alike: amounts, days, accounts, closed periods; and ids.
//!
//! Invariant: amounts are decimals; a document that is kept balances.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::Value;

use super::room::Settings;

/// The company that a double keeps books for.
#[derive(Clone, Debug, Default)]
pub struct Company {
    pub closed_until: Option<String>,
    accounts: Option<Vec<String>>,
    made: u64,
}

impl Company {
    pub fn set(&mut self, settings: &Settings) {
        if let Some(day) = &settings.closed_until {
            self.closed_until = Some(day.clone()).filter(|day| !day.is_empty());
        }
        if let Some(accounts) = &settings.accounts {
            self.accounts = Some(accounts.clone());
        }
    }

    pub fn knows(&self, account: &str) -> bool {
        !account.is_empty()
            && self
                .accounts
                .as_ref()
                .is_none_or(|known| known.iter().any(|one| one == account))
    }

    pub fn is_closed(&self, day: &str) -> bool {
        self.closed_until.as_deref().is_some_and(|until| day <= until)
    }

    /// 1, 2, 3.
    pub fn next_number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// A number in the form of a UUID.
    pub fn next_uuid(&mut self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.next_number())
    }
}

/// An amount written as a JSON number.
pub fn number(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            text.parse().ok().or_else(|| Decimal::from_scientific(&text).ok())
        }
        _ => None,
    }
}

/// `2026-02-28`, and no other form.
pub fn is_day(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// Answers that are repeated for a key (idempotency), for a time.
#[derive(Clone, Debug)]
pub struct Memory<T> {
    keeps: Duration,
    known: Vec<(String, Duration, T)>,
}

impl<T: Clone> Memory<T> {
    pub fn new(keeps: Duration) -> Memory<T> {
        Memory {
            keeps,
            known: Vec::new(),
        }
    }

    pub fn get(&mut self, key: &str, now: Duration) -> Option<T> {
        let keeps = self.keeps;
        self.known.retain(|(_, at, _)| now < *at + keeps);
        self.known
            .iter()
            .find(|(known, _, _)| known == key)
            .map(|(_, _, value)| value.clone())
    }

    pub fn put(&mut self, key: &str, now: Duration, value: T) {
        self.known.push((key.to_owned(), now, value));
    }
}
