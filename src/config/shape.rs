//! Questions the reader asks of the JSON Schema: which keys, which kind, which choices, what example.
//!
//! Owns the small part of JSON Schema that our text types produce. Invariant: a [`Shape`] is never a `$ref`; it was
//! followed when the shape was made. Absent on purpose: a general validator.

use std::iter;

use serde_json::{Map, Value as Json};
use toml::de::DeValue;

use super::leaf::FORMATS;

/// One place in the schema.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    root: &'a Json,
    /// Where a key refers to the shape; its example and default are the key's own.
    key: &'a Json,
    /// The shape itself.
    at: &'a Json,
}

impl<'a> Shape<'a> {
    pub fn root(schema: &'a Json) -> Self {
        Self {
            root: schema,
            key: schema,
            at: schema,
        }
    }

    /// Follows `$ref`, also where it stands alone in an `allOf` so that a description may stand beside it.
    fn at(&self, key: &'a Json) -> Self {
        let mut at = key;
        loop {
            let inner = match at.get("allOf").and_then(Json::as_array).map(Vec::as_slice) {
                Some([only]) => only,
                _ => at,
            };
            let pointer = inner
                .get("$ref")
                .and_then(Json::as_str)
                .and_then(|text| text.strip_prefix('#'));
            match pointer.and_then(|pointer| self.root.pointer(pointer)) {
                Some(target) => at = target,
                None => {
                    return Self {
                        root: self.root,
                        key,
                        at,
                    };
                }
            }
        }
    }

    fn child(&self, key: &str) -> Option<Self> {
        self.at
            .get(key)
            .filter(|child| child.is_object())
            .map(|child| self.at(child))
    }

    fn properties(&self) -> Option<&'a Map<String, Json>> {
        self.at.get("properties").and_then(Json::as_object)
    }

    /// The keys this table names, in the schema's order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.properties().into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// The shape of a key this table names.
    pub fn property(&self, key: &str) -> Option<Self> {
        self.properties()?.get(key).map(|shape| self.at(shape))
    }

    /// The shape of every other key, where the user chooses the names.
    pub fn others(&self) -> Option<Self> {
        self.child("additionalProperties")
    }

    /// The shape of those names themselves.
    pub fn names(&self) -> Option<Self> {
        self.child("propertyNames")
    }

    pub fn items(&self) -> Option<Self> {
        self.child("items")
    }

    pub fn required(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.at
            .get("required")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
    }

    /// The texts to choose from, where there is a choice.
    pub fn choices(&self) -> Option<Vec<&'a str>> {
        let each = self.at.get("oneOf").and_then(Json::as_array)?;
        each.iter()
            .map(|choice| choice.get("const").and_then(Json::as_str))
            .collect()
    }

    fn alternatives(&self) -> Option<impl Iterator<Item = Self> + use<'a>> {
        let this = *self;
        let each = self.at.get("anyOf").and_then(Json::as_array)?;
        Some(each.iter().map(move |shape| this.at(shape)))
    }

    /// The JSON type: `string`, `integer`, `boolean`, `array` or `object`.
    fn kind(&self) -> &'a str {
        match self.at.get("type").and_then(Json::as_str) {
            Some(kind) => kind,
            None if self.choices().is_some() => "string",
            None => "",
        }
    }

    fn format(&self) -> Option<&'a str> {
        self.at.get("format").and_then(Json::as_str)
    }

    fn bound(&self, key: &str) -> Option<i64> {
        self.at.get(key).and_then(Json::as_i64)
    }

    pub fn admits(&self, number: i64) -> bool {
        self.bound("minimum").is_none_or(|low| number >= low) && self.bound("maximum").is_none_or(|high| number <= high)
    }

    /// This shape, or the one of its alternatives, that takes such a value.
    pub fn taking(self, value: &DeValue<'_>) -> Option<Self> {
        if let Some(mut alternatives) = self.alternatives() {
            return alternatives.find_map(|shape| shape.taking(value));
        }
        let kind = match value {
            DeValue::String(_) => "string",
            DeValue::Integer(_) => "integer",
            DeValue::Boolean(_) => "boolean",
            DeValue::Array(_) => "array",
            DeValue::Table(_) => "object",
            // Neither money nor rates nor days are configured.
            DeValue::Float(_) | DeValue::Datetime(_) => return None,
        };
        (kind == self.kind()).then_some(self)
    }

    /// What is wrong with a text of this shape; `shown` is how a message may quote it.
    pub fn wrong_text(&self, text: &str, shown: &str) -> Option<String> {
        if let Some(choices) = self.choices() {
            if choices.contains(&text) {
                return None;
            }
            return Some(match nearest(text, choices.iter().copied()) {
                Some(near) => format!("unknown value {shown:?}; did you mean {near:?}?"),
                None => format!("unknown value {shown:?}; write one of {}", quoted(choices.into_iter())),
            });
        }
        if text.is_empty() && self.bound("minLength").is_some_and(|low| low > 0) {
            return Some("must not be empty; write some text, or leave the key out".to_owned());
        }
        let (_, check) = FORMATS.iter().find(|(format, _)| Some(*format) == self.format())?;
        // An address may hold a user and password; the place says which value is meant.
        let shown = if shown.contains('@') {
            "this".to_owned()
        } else {
            format!("{shown:?}")
        };
        check(text).err().map(|wrong| format!("{shown} is {wrong}"))
    }

    /// "a whole number from 1 to 64", for a message.
    pub fn expected(&self) -> String {
        if let Some(alternatives) = self.alternatives() {
            let each: Vec<String> = alternatives.map(|shape| shape.expected()).collect();
            return each.join(" or ");
        }
        match self.kind() {
            "string" => match (self.choices(), self.example()) {
                (Some(choices), _) => format!("one of {}", quoted(choices.into_iter())),
                (None, Some(example)) => format!("text in quotes such as {example}"),
                (None, None) => "text in quotes".to_owned(),
            },
            "integer" => match (self.bound("minimum"), self.bound("maximum")) {
                (Some(low), Some(high)) => format!("a whole number from {low} to {high}"),
                (Some(low), None) => format!("a whole number, {low} or more"),
                (None, _) => "a whole number".to_owned(),
            },
            "boolean" => "true or false".to_owned(),
            "array" => "a list in [ ]".to_owned(),
            "object" => format!("a table such as {}", self.sample()),
            other => format!("a value of kind {other}"),
        }
    }

    fn example(&self) -> Option<&'a Json> {
        [self.key, self.at].into_iter().find_map(|shape| {
            let examples = shape.get("examples").and_then(Json::as_array);
            shape
                .get("default")
                .or_else(|| examples.and_then(|examples| examples.first()))
        })
    }

    /// A valid value of this shape as TOML, to show in a message.
    pub fn sample(&self) -> String {
        self.stand_in()
            .map_or_else(|| "...".to_owned(), |value| value.to_string())
    }

    /// A valid value of this shape, to stand in for a refused one.
    pub fn stand_in(&self) -> Option<toml::Value> {
        if let Some(example) = self.example() {
            return toml::Value::try_from(example).ok();
        }
        if let Some(mut alternatives) = self.alternatives() {
            return alternatives.find_map(|shape| shape.stand_in());
        }
        let text = |text: &str| toml::Value::String(text.to_owned());
        match self.kind() {
            "string" => Some(text(
                self.choices()
                    .and_then(|choices| choices.first().copied())
                    .unwrap_or("text"),
            )),
            "integer" => Some(toml::Value::Integer(self.bound("minimum").unwrap_or(1).max(1))),
            "boolean" => Some(toml::Value::Boolean(true)),
            "array" => Some(toml::Value::Array(Vec::new())),
            "object" => {
                let pairs = self
                    .required()
                    .map(|key| Some((key.to_owned(), self.property(key)?.stand_in()?)));
                pairs.collect::<Option<toml::Table>>().map(toml::Value::Table)
            }
            _ => None,
        }
    }
}

/// What kind of value the file has, for a message.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "text".to_owned(),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The Jaro-Winkler similarity from which two words count as alike; 1 is equal.
const ALIKE: f64 = 0.9;

/// The known word that a misspelt one most likely means.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&word, &known.to_lowercase());
    let limit = (word.chars().count() / 3).max(1);
    let (distance, near) = known.map(|known| (distance(known), known)).min()?;
    // A word that begins alike may be far away in letters: `deal_lines` for `deal_line_items`.
    (distance <= limit || strsim::jaro_winkler(&word, near) >= ALIKE).then_some(near)
}

/// `"a", "b", "c"`.
pub(super) fn quoted<'k>(words: impl Iterator<Item = &'k str>) -> String {
    let each: Vec<String> = words
        .zip(iter::repeat('"'))
        .map(|(word, q)| format!("{q}{word}{q}"))
        .collect();
    each.join(", ")
}
