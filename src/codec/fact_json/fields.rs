//! Typed reading of a JSON object's fields, and the names of our choices on the wire.
//!
//! Invariant: every error names the path of its field, and no number passes through a float. Deliberately absent: which
//! fields an event has.

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, tz::TimeZone};
use rust_decimal::Decimal;
use serde_json::{Map, Value};

use crate::revenue::fact::{BillingCycle, EstimateMethod, Method};
use crate::revenue::money::Currency;
use crate::revenue::policy::Treatment;
use crate::revenue::reject::{Code, Rejection};

/// `; did you mean ...?` where one of the known words is near.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, word), name))
        .min()
        .filter(|(distance, _)| *distance <= 1 + word.len() / 4 && *distance < word.len() / 2 + 1)
        .map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// The fields of one JSON object, with the path that leads to it.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: String,
    pub(super) zone: TimeZone,
}

impl<'a> Fields<'a> {
    pub(super) fn new(value: &'a Value, path: &str, zone: TimeZone) -> Result<Fields<'a>, Rejection> {
        match value {
            Value::Object(map) => Ok(Fields {
                map,
                at: path.to_owned(),
                zone,
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Err(
                Rejection::new(Code::Malformed, path, value, "this must be a JSON object"),
            ),
        }
    }

    pub(super) fn rooted(self, path: &str) -> Fields<'a> {
        Fields {
            at: path.to_owned(),
            ..self
        }
    }

    pub(super) fn path(&self, field: &str) -> String {
        match self.at.is_empty() {
            true => field.to_owned(),
            false => format!("{}.{field}", self.at),
        }
    }

    /// Refuses fields outside a list, naming the nearest one inside it.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Rejection> {
        let Some(field) = self.map.keys().find(|field| !known.contains(&field.as_str())) else {
            return Ok(());
        };
        let nearest = did_you_mean(field, known);
        Err(Rejection::new(
            Code::UnknownField,
            &self.path(field),
            field,
            &format!("this event has no such field{nearest}"),
        ))
    }

    /// A field that is present and not null.
    pub(super) fn maybe(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn required(&self, field: &str) -> Result<&'a Value, Rejection> {
        self.maybe(field).ok_or_else(|| {
            Rejection::new(
                Code::MissingField,
                &self.path(field),
                "nothing",
                "this field is required here",
            )
        })
    }

    pub(super) fn wrong(&self, field: &str, value: &Value, expected: &str) -> Rejection {
        let message = format!("expected {expected}");
        Rejection::new(Code::Malformed, &self.path(field), value, &message)
    }

    pub(super) fn maybe_text(&self, field: &str) -> Result<Option<&'a str>, Rejection> {
        match self.maybe(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.wrong(field, value, "a text")),
        }
    }

    pub(super) fn text(&self, field: &str) -> Result<&'a str, Rejection> {
        self.required(field)?;
        Ok(self.maybe_text(field)?.unwrap_or_default())
    }

    pub(super) fn maybe_id<T>(&self, field: &str, parse: fn(String) -> Option<T>) -> Result<Option<T>, Rejection> {
        let text = match self.maybe(field) {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(value) => return Err(self.wrong(field, value, "a text")),
        };
        let shown = text.clone();
        parse(text).map(Some).ok_or_else(|| {
            Rejection::new(
                Code::InvalidId,
                &self.path(field),
                shown.escape_debug().take(80).collect::<String>(),
                "an id is 1 to 256 bytes without control characters or `/`; \
                 tenants and line types use letters, digits, `.`, `_` and `-`",
            )
        })
    }

    pub(super) fn id<T>(&self, field: &str, parse: fn(String) -> Option<T>) -> Result<T, Rejection> {
        let value = self.required(field)?;
        self.maybe_id(field, parse)?
            .ok_or_else(|| self.wrong(field, value, "a text"))
    }

    pub(super) fn maybe_decimal(&self, field: &str) -> Result<Option<Decimal>, Rejection> {
        self.maybe(field)
            .map(|value| decimal(value, &self.path(field)))
            .transpose()
    }

    pub(super) fn decimal(&self, field: &str) -> Result<Decimal, Rejection> {
        decimal(self.required(field)?, &self.path(field))
    }

    pub(super) fn maybe_count(&self, field: &str) -> Result<Option<u32>, Rejection> {
        let Some(value) = self.maybe(field) else {
            return Ok(None);
        };
        let count = match value {
            Value::Number(number) => number.to_string().parse().ok(),
            Value::String(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        count
            .map(Some)
            .ok_or_else(|| self.wrong(field, value, "a whole number, zero or more"))
    }

    pub(super) fn maybe_flag(&self, field: &str) -> Result<Option<bool>, Rejection> {
        match self.maybe(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => Err(self.wrong(field, value, "true or false")),
        }
    }

    pub(super) fn maybe_choice<T: Copy>(&self, field: &str, choices: Choices<T>) -> Result<Option<T>, Rejection> {
        let Some(text) = self.maybe_text(field)? else {
            return Ok(None);
        };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                let message = format!("expected one of {}", names.join(", "));
                Err(Rejection::new(Code::Malformed, &self.path(field), text, &message))
            }
        }
    }

    pub(super) fn choice<T: Copy>(&self, field: &str, choices: Choices<T>) -> Result<T, Rejection> {
        let value = self.required(field)?;
        self.maybe_choice(field, choices)?
            .ok_or_else(|| self.wrong(field, value, "a text"))
    }

    pub(super) fn currency(&self, field: &str) -> Result<Currency, Rejection> {
        let code = self.text(field)?;
        Currency::parse(code).ok_or_else(|| {
            Rejection::new(
                Code::UnknownCurrency,
                &self.path(field),
                code,
                "use an active ISO 4217 code in capitals, such as USD",
            )
        })
    }

    pub(super) fn instant(&self, field: &str) -> Result<Timestamp, Rejection> {
        let text = self.text(field)?;
        text.parse().map_err(|_| {
            Rejection::new(
                Code::InvalidDate,
                &self.path(field),
                text,
                "use an instant with its offset, such as 2026-01-17T10:22:33Z",
            )
        })
    }

    /// A day, or an instant that is converted to its day in the tenant's time zone.
    pub(super) fn maybe_day(&self, field: &str) -> Result<Option<Date>, Rejection> {
        let Some(text) = self.maybe_text(field)? else {
            return Ok(None);
        };
        let plain = || text.len() == 10;
        let instant = || text.parse::<Timestamp>().ok();
        let local = || text.parse::<DateTime>().ok().map(|it| it.date());
        let day = match plain() {
            true => text.parse::<Date>().ok(),
            false => instant()
                .map(|at| at.to_zoned_datetime(self.zone.clone()).date())
                .or_else(local),
        };
        day.map(Some).ok_or_else(|| {
            Rejection::new(
                Code::InvalidDate,
                &self.path(field),
                text,
                "use a day such as 2026-02-01, or an instant such as 2026-02-01T09:30:00Z",
            )
        })
    }

    pub(super) fn day(&self, field: &str) -> Result<Date, Rejection> {
        let value = self.required(field)?;
        self.maybe_day(field)?.ok_or_else(|| self.wrong(field, value, "a day"))
    }

    pub(super) fn maybe_object(&self, field: &str) -> Result<Option<Fields<'a>>, Rejection> {
        self.maybe(field)
            .map(|value| Fields::new(value, &self.path(field), self.zone.clone()))
            .transpose()
    }

    pub(super) fn maybe_list(&self, field: &str) -> Result<Vec<Fields<'a>>, Rejection> {
        match self.maybe(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(index, item)| Fields::new(item, &format!("{}[{index}]", self.path(field)), self.zone.clone()))
                .collect(),
            Some(value) => Err(self.wrong(field, value, "a list")),
        }
    }
}

/// A JSON number or a string of digits, exactly.
pub(super) fn decimal(value: &Value, path: &str) -> Result<Decimal, Rejection> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            let message = "expected a number, as a JSON number or a string";
            return Err(Rejection::new(Code::Malformed, path, value, message));
        }
    };
    let parsed = match text.contains(['e', 'E']) {
        true => Decimal::from_scientific(&text),
        false => Decimal::from_str_exact(&text),
    };
    parsed.map_err(|error| {
        let shown: String = text.chars().take(80).collect();
        let (code, message) = match error {
            rust_decimal::Error::Underflow => (Code::TooPrecise, "too many decimals"),
            rust_decimal::Error::ExceedsMaximumPossibleValue
            | rust_decimal::Error::LessThanMinimumPossibleValue
            | rust_decimal::Error::ScaleExceedsMaximumPrecision(_) => {
                (Code::Overflow, "beyond the numbers this program holds")
            }
            _other if text.len() > 25 && text.chars().all(|c| "0123456789.-+eE".contains(c)) => {
                (Code::Overflow, "beyond the numbers this program holds")
            }
            _other => (Code::Malformed, "expected a number, as a JSON number or a string"),
        };
        Rejection::new(code, path, shown, message)
    })
}

pub(super) type Choices<T> = &'static [(&'static str, T)];

pub(super) const METHODS: Choices<Method> = &[
    ("straight_line", Method::StraightLine),
    ("linear", Method::StraightLine),
    ("point_in_time", Method::PointInTime),
    ("units", Method::Units),
    ("milestone", Method::Milestone),
    ("progress", Method::Progress),
    ("usage", Method::Usage),
];

pub(super) const CYCLES: Choices<BillingCycle> = &[
    ("monthly", BillingCycle::Monthly),
    ("quarterly", BillingCycle::Quarterly),
    ("annual", BillingCycle::Annual),
    ("upfront", BillingCycle::Upfront),
    ("milestone", BillingCycle::Milestone),
];

pub(super) const TREATMENTS: Choices<Treatment> = &[
    ("auto", Treatment::Auto),
    ("separate_contract", Treatment::SeparateContract),
    ("prospective", Treatment::Prospective),
    ("cumulative_catch_up", Treatment::CumulativeCatchUp),
];

pub(super) const ESTIMATE_METHODS: Choices<EstimateMethod> = &[
    ("expected_value", EstimateMethod::ExpectedValue),
    ("most_likely_amount", EstimateMethod::MostLikelyAmount),
];

/// The name of a value in its list of choices.
pub(super) fn name_of<T: PartialEq>(choices: Choices<T>, value: &T) -> &'static str {
    choices
        .iter()
        .find(|(_, choice)| choice == value)
        .map_or("", |(name, _)| name)
}

/// The method's name on the wire.
pub fn method_name(method: Method) -> &'static str {
    name_of(METHODS, &method)
}
