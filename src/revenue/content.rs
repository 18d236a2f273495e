//! Content as canonical bytes: what hashes and derived ids are made of.
//!
//! Invariant: every field has its length before it, and equal amounts have equal bytes, however they are held. So the
//! same content has the same hash in every run and version. Deliberately absent: any use of `Debug`, and storage.

use jiff::civil::Date;
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};

/// What is to be hashed: gathered first, since a hash that is fed a few bytes at a time takes several times as long.
#[derive(Default)]
pub struct Content(Vec<u8>);

impl Content {
    /// Nothing yet, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Content {
        Content(Vec::with_capacity(bytes))
    }

    pub fn text(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u64).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub fn day(&mut self, day: Date) {
        let (year, month, day) = (day.year().to_be_bytes(), day.month() as u8, day.day() as u8);
        self.0.extend_from_slice(&[year[0], year[1], month, day]);
    }

    pub fn number(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// An amount without the zeros at its end.
    pub fn amount(&mut self, amount: Decimal) {
        self.0.extend_from_slice(&normalized(amount).serialize());
    }

    pub fn finish(self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// What `Decimal::normalize` gives, with the processor's own division where the digits fit.
fn normalized(amount: Decimal) -> Decimal {
    let Ok(mut digits) = i64::try_from(amount.mantissa()) else {
        return amount.normalize();
    };
    let mut scale = amount.scale();
    while scale > 0 && digits % 10 == 0 {
        digits /= 10;
        scale -= 1;
    }
    Decimal::new(digits, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fill: impl Fn(&mut Content)) -> [u8; 32] {
        let mut content = Content::default();
        fill(&mut content);
        content.finish()
    }

    #[test]
    fn amounts_lose_the_zeros_at_their_end() {
        for text in [
            "0",
            "-0.00",
            "10",
            "1.50",
            "-1.500",
            "100.00",
            "0.0010",
            "79228162514264337593543950335",
            "12345678901234567890.10",
        ] {
            let amount: Decimal = text.parse().unwrap();
            assert_eq!(normalized(amount).serialize(), amount.normalize().serialize(), "{text}");
        }
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
