//! The single values of a topology file that have a grammar of their own: names, addresses, secrets; see also `measure`.
//!
//! Each type is a [`Leaf`]: one parser that serves the file reader, serde and the JSON Schema (as `format`).
//! Invariant: a leaf that exists is valid. Absent on purpose: words of accounting, which `tenants` and `mapping` read.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::measure::{ByteSize, Interval, Retention};
use super::tenants::{CurrencyCode, LineTypeName, TenantName, ZoneName};

/// A value written as one string.
pub(super) trait Leaf: Sized {
    /// The `format` of the JSON Schema, by which the reader finds the parser.
    const FORMAT: &'static str;
    /// What a reader of an error may write instead.
    const EXAMPLE: &'static str;

    /// The value, or what is wrong and what to write, to follow `"text" is `.
    fn parse(text: &str) -> Result<Self, String>;
}

type Check = fn(&str) -> Result<(), String>;

/// Every format a schema may name, with its parser and an example. A test keeps it complete.
pub(super) const FORMATS: &[(&str, Check)] = &[
    (Interval::FORMAT, check::<Interval>),
    (ByteSize::FORMAT, check::<ByteSize>),
    (Name::FORMAT, check::<Name>),
    (TopicName::FORMAT, check::<TopicName>),
    (TopicPrefix::FORMAT, check::<TopicPrefix>),
    (Brokers::FORMAT, check::<Brokers>),
    (HttpUrl::FORMAT, check::<HttpUrl>),
    (Listen::FORMAT, check::<Listen>),
    (Retention::FORMAT, check::<Retention>),
    (TenantName::FORMAT, check::<TenantName>),
    (CurrencyCode::FORMAT, check::<CurrencyCode>),
    (ZoneName::FORMAT, check::<ZoneName>),
    (LineTypeName::FORMAT, check::<LineTypeName>),
    (AccountName::FORMAT, check::<AccountName>),
];

fn check<T: Leaf>(text: &str) -> Result<(), String> {
    T::parse(text).map(drop)
}

/// serde and JSON Schema of a leaf, both from its parser and its `Display`.
macro_rules! leaf {
    ($type:ty) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                <$type as $crate::config::leaf::Leaf>::parse(&text)
                    .map_err(|wrong| serde::de::Error::custom(format!("{text:?} is {wrong}")))
            }
        }
        impl std::str::FromStr for $type {
            /// What is wrong and what to write, to follow `"text" is `.
            type Err = String;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <$type as $crate::config::leaf::Leaf>::parse(text)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "format": <$type as $crate::config::leaf::Leaf>::FORMAT,
                    "examples": [<$type as $crate::config::leaf::Leaf>::EXAMPLE],
                })
            }
        }
    };
}
pub(super) use leaf;

/// A leaf that is its own text.
macro_rules! text_leaf {
    ($(#[$doc:meta])* $type:ident, $format:literal, $example:literal, $valid:expr, $wrong:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);
        leaf!($type);

        impl Leaf for $type {
            const FORMAT: &'static str = $format;
            const EXAMPLE: &'static str = $example;

            fn parse(text: &str) -> Result<Self, String> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err($wrong.to_owned()) }
            }
        }

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Texts of this crate itself, for defaults; valid, as the test of the shipped file proves.
macro_rules! literals {
    ($($type:ident),*) => {$(
        impl $type {
            pub(super) fn literal(text: &'static str) -> Self {
                Self(text.to_owned())
            }
        }
    )*};
}
literals!(Name, TopicName, TopicPrefix);

fn is_name(text: &str, max_chars: usize) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=max_chars).contains(&text.len()) && text.chars().all(legal)
}

text_leaf!(
    /// The name of a source, a mapping, a policy or the application.
    Name, "name", "crm", |text| is_name(text, 100),
    "no name; write 1 to 100 letters, digits, dots, dashes or underscores"
);
text_leaf!(
    /// The name of a Kafka topic, as brokers accept it.
    TopicName, "topic-name", "crm.public.deals", |text| is_name(text, 249) && text != "." && text != "..",
    "no topic name; write 1 to 249 letters, digits, dots, dashes or underscores"
);
text_leaf!(
    /// What every topic name of ours starts with; may be empty.
    TopicPrefix, "topic-prefix", "finance.", |text| text.is_empty() || is_name(text, 100),
    "no topic prefix; write letters, digits, dots, dashes or underscores"
);
text_leaf!(
    /// An account of a ledger, as the ledger calls it: a number, a code or a name.
    AccountName, "account", "1100", |text| {
        (1..=200).contains(&text.chars().count()) && text.trim() == text && !text.contains(char::is_control)
    },
    "no account; write its number, code or name in the ledger, such as \"1100\", in 1 to 200 characters"
);
text_leaf!(
    /// The first brokers to ask: `host:port`, several with commas between.
    Brokers, "brokers", "kafka-1:9092,kafka-2:9092", |text| text.split(',').all(is_host_port),
    "no list of brokers; write host:port, several with commas between, such as \"kafka-1:9092,kafka-2:9092\""
);
text_leaf!(
    /// An address that starts with http:// or https://, without a user or password in it.
    HttpUrl, "http-url", "https://registry:8081", is_http_url,
    "no address; write http:// or https:// and a host, with the user and password in keys of their own"
);

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.trim().rsplit_once(':') else {
        return false;
    };
    let host_ok = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@');
    host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_http_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    !host.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '@')
}

/// The address a server listens on: `ip:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);
leaf!(Listen);

impl Leaf for Listen {
    const FORMAT: &'static str = "listen";
    const EXAMPLE: &'static str = "127.0.0.1:8080";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            "no address to listen on; write ip:port, such as \"127.0.0.1:8080\" or \"0.0.0.0:8080\"".to_owned()
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A path as others may write it too: without `.` and without what ends it.
pub(super) fn plain(path: &Path) -> PathBuf {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.collect()
}

/// A password or token. Only [`Secret::reveal`] gives it away; `Debug` and `Display` do not.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(description = "A password or token, best taken from `${NAME}` or `${file:/path}`.")]
pub struct Secret(String);

/// What is shown in place of a secret.
pub(super) const MASK: &str = "***";

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::walk_schema;

    #[test]
    fn every_format_of_the_schema_is_known_and_its_examples_are_valid() {
        let schema = walk_schema();
        let mut seen = Vec::new();
        let mut open = vec![&schema];
        while let Some(shape) = open.pop() {
            open.extend(shape.as_object().into_iter().flat_map(|map| map.values()));
            open.extend(shape.as_array().into_iter().flatten());
            let (Some("string"), Some(format)) = (shape["type"].as_str(), shape["format"].as_str()) else {
                continue;
            };
            let (_, check) = FORMATS.iter().find(|(known, _)| *known == format).expect(format);
            let examples = shape["examples"].as_array().into_iter().flatten();
            for text in examples.chain(shape.get("default")) {
                assert_eq!(check(text.as_str().expect("text")), Ok(()), "{format} {text}");
            }
            seen.push(format);
        }
        for (format, _) in FORMATS {
            assert!(seen.contains(format), "no key has the format {format}");
        }
    }

    #[test]
    fn addresses_are_checked_before_anything_connects() {
        for text in ["kafka:9092", "a:1,b:2", "[::1]:9092", "10.0.0.1:9092, b:9092"] {
            assert!(Brokers::parse(text).is_ok(), "{text}");
        }
        for text in [
            "kafka",
            "kafka:",
            "kafka:0",
            "kafka:99999",
            ":9092",
            "a:1,",
            "http://a:1",
            "u@a:1",
        ] {
            assert!(Brokers::parse(text).is_err(), "{text}");
        }
        for text in ["http://a", "https://registry:8081/apis/ccompat/v7"] {
            assert!(HttpUrl::parse(text).is_ok(), "{text}");
        }
        for text in ["a", "ftp://a", "http://", "http:///x", "http://u:p@a", "http://a b"] {
            assert!(HttpUrl::parse(text).is_err(), "{text}");
        }
        for text in [".", "..", "", "a/b", "a b"] {
            assert!(TopicName::parse(text).is_err(), "{text}");
        }
    }
}
