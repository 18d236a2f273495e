//! Content as canonical bytes: what hashes and derived ids are made of.
//!
//! Invariant: every field has its length before it, and equal amounts have equal bytes, however they are held. So the
//! same content has the same hash in every run and version. Deliberately absent: any use of `Debug`, and storage.

use jiff::civil::Date;
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};

/// A hash in the making.
pub struct Content(Sha256);

impl Content {
    pub fn new() -> Content {
        Content(Sha256::new())
    }

    pub fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text);
    }

    pub fn day(&mut self, day: Date) {
        let (year, month, day) = (day.year().to_be_bytes(), day.month() as u8, day.day() as u8);
        self.0.update([year[0], year[1], month, day]);
    }

    pub fn number(&mut self, number: i64) {
        self.0.update(number.to_be_bytes());
    }

    /// An amount without the zeros at its end.
    pub fn amount(&mut self, amount: Decimal) {
        self.0.update(amount.normalize().serialize());
    }

    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl Default for Content {
    fn default() -> Content {
        Content::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fill: impl Fn(&mut Content)) -> [u8; 32] {
        let mut content = Content::new();
        fill(&mut content);
        content.finish()
    }

    #[test]
    fn equal_amounts_hash_alike_and_fields_do_not_run_together() {
        let amount = |text: &str| hash(|content| content.amount(text.parse().unwrap()));
        assert_eq!(amount("1.50"), amount("1.5"));
        assert_eq!(amount("-0"), amount("0.00"));
        assert_ne!(amount("1.5"), amount("15"));
        let texts = |a: &str, b: &str| {
            hash(|content| {
                content.text(a);
                content.text(b);
            })
        };
        assert_ne!(texts("ab", "c"), texts("a", "bc"));
    }
}
