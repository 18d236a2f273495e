//! Amounts, days and instants as Avro's logical types, for the private serde structs of this room.
//!
//! Invariant: what is written is exactly what was given, or an error. An amount has 6 decimals on the wire, a rate, a
//! quantity or a unit price 12; both are `decimal(28, _)` in shortest bytes, so equal numbers have equal bytes.
//! Instants are kept to the microsecond, rounded towards the past.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::decimal;
use super::value::{EPOCH, day_from_epoch};
use crate::revenue::period::Period;

/// A decimal with `SCALE` decimals on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fixed<const SCALE: u32>(pub Decimal);

pub(super) type Amount = Fixed<6>;
pub(super) type Rate = Fixed<12>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day(pub Date);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instant(pub Timestamp);

/// A period, by its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(pub Period);

/// Text, borrowed from what is written and from the bytes that are read. A struct that has some says `serde(borrow)` at one
/// of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Bytes: serde's own `Vec<u8>` would be an array of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub Vec<u8>);

impl Text<'_> {
    pub(super) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        Text(Cow::Borrowed(text))
    }
}

impl<'a> From<Cow<'a, str>> for Text<'a> {
    fn from(text: Cow<'a, str>) -> Text<'a> {
        Text(text)
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text(Cow::Owned(text))
    }
}

impl<const SCALE: u32> Serialize for Fixed<SCALE> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&decimal::to_bytes(self.0, SCALE).map_err(S::Error::custom)?)
    }
}

impl<'de, const SCALE: u32> Deserialize<'de> for Fixed<SCALE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fixed<SCALE>, D::Error> {
        struct Unscaled<const SCALE: u32>;
        impl<const SCALE: u32> Visitor<'_> for Unscaled<SCALE> {
            type Value = Fixed<SCALE>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a decimal")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Fixed<SCALE>, E> {
                decimal::shortest_from_bytes(bytes, SCALE).map(Fixed).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Unscaled)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let days = self.0.duration_since(EPOCH).as_hours() / 24;
        serializer.serialize_i32(i32::try_from(days).map_err(S::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Day, D::Error> {
        let days = i32::deserialize(deserializer)?;
        day_from_epoch(i64::from(days)).map(Day).map_err(D::Error::custom)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.label())
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Label, D::Error> {
        let label = Text::deserialize(deserializer)?;
        let period = Period::parse(&label).ok_or_else(|| format!("{label:?} is no period that this version knows"));
        period.map(Label).map_err(D::Error::custom)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Seconds and nanoseconds have the same sign; the seconds of the calendar are far from the ends of an i64.
        let past = i64::from(self.0.subsec_nanosecond().div_euclid(1000));
        serializer.serialize_i64(self.0.as_second() * 1_000_000 + past)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        let micros = i64::deserialize(deserializer)?;
        Timestamp::from_microsecond(micros)
            .map(Instant)
            .map_err(D::Error::custom)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Buffer;
        impl Visitor<'_> for Buffer {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Buffer)
    }
}
