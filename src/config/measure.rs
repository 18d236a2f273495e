//! Lengths of time and numbers of bytes, as a topology file writes them.
//!
//! Invariant: never zero, and never more than Kafka and RocksDB take. Absent on purpose: fractions, and arithmetic.

use std::fmt;
use std::time::Duration;

use super::leaf::{Leaf, leaf};

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);
leaf!(Interval);

const UNITS_MS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Interval {
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn days(days: u64) -> Self {
        Self::seconds(days * 86_400)
    }

    pub const fn get(self) -> Duration {
        self.0
    }

    /// Whole milliseconds, as Kafka settings take them.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Leaf for Interval {
    const FORMAT: &'static str = "interval";
    const EXAMPLE: &'static str = "100ms";

    fn parse(text: &str) -> Result<Self, String> {
        let (digits, unit) = split_number(text);
        let factor = UNITS_MS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor);
        let millis = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
        match millis {
            // librdkafka takes its times as 32-bit milliseconds, and Kafka its retention as 64-bit ones.
            Some(millis) if millis > 0 && i64::try_from(millis).is_ok() => Ok(Self::millis(millis)),
            Some(_) => Err("out of range; write a time above zero, such as \"100ms\"".to_owned()),
            None => Err("no length of time; write a whole number and ms, s, m, h or d, such as \"100ms\"".to_owned()),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.as_millis();
        let whole = UNITS_MS.iter().find(|(_, factor)| millis.is_multiple_of(*factor));
        let (unit, factor) = whole.copied().unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / factor)
    }
}

/// A number of bytes: a whole number and `B`, `KiB`, `MiB` or `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);
leaf!(ByteSize);

const UNITS_BYTES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Leaf for ByteSize {
    const FORMAT: &'static str = "byte-size";
    const EXAMPLE: &'static str = "64MiB";

    fn parse(text: &str) -> Result<Self, String> {
        let (digits, unit) = split_number(text);
        let factor = UNITS_BYTES
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor);
        let bytes = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
        bytes
            .filter(|bytes| *bytes > 0)
            .map(Self)
            .ok_or_else(|| "no size; write a whole number and B, KiB, MiB or GiB, such as \"64MiB\"".to_owned())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS_BYTES.iter().find(|(_, factor)| self.0.is_multiple_of(*factor));
        let (unit, factor) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// How long a topic keeps its records: an [`Interval`], or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    Forever,
    For(Interval),
}
leaf!(Retention);

impl Leaf for Retention {
    const FORMAT: &'static str = "retention";
    const EXAMPLE: &'static str = "forever";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        Interval::parse(text)
            .map(Self::For)
            .map_err(|_| "no retention; write \"forever\", or a length of time such as \"365d\"".to_owned())
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(interval) => interval.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_and_sizes_read_what_they_show() {
        for text in ["1ms", "100ms", "1500ms", "45s", "90s", "10m", "36h", "30d"] {
            assert_eq!(
                Interval::parse(text).map(|interval| interval.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(Interval::parse("60s"), Interval::parse("1m"));
        for text in [
            "",
            "ms",
            "1",
            "1 year",
            "1.5s",
            "-1s",
            "0s",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(Interval::parse(text).is_err(), "{text}");
        }
        for text in ["1B", "1000B", "3KiB", "64MiB", "2GiB"] {
            assert_eq!(ByteSize::parse(text).map(|size| size.to_string()), Ok(text.to_owned()));
        }
        for text in ["64", "64MB", "0MiB", "17179869184GiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }
}
