//! One walk over the parsed file against the JSON Schema of the text types.
//!
//! serde stops at its first error; this does not. The schema that editors use is the table that drives the walk, so the
//! editor and `accrue check` cannot disagree. Invariant: what comes out deserialises into the text types. A refused
//! value is left out or, where the schema requires it, replaced by an example, so that the rules after this one can
//! still look at everything else; the problem on record keeps a stand-in from ever being used.
//! Absent on purpose: anything that compares two keys; see `rules`.

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::interpolate::{interpolate, is_interpolated};
use super::problem::{KeyPath, Problems};
use super::shape::{Shape, found, nearest, quoted};

/// Checks a whole document, and gives it back with every string interpolated.
pub(super) fn walk(
    schema: &Json,
    document: &Spanned<DeTable<'_>>,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems<'_>,
) -> toml::Table {
    let mut walk = Walk { env, problems };
    walk.table(Shape::root(schema), document.get_ref(), &KeyPath::default())
}

struct Walk<'a, 'p> {
    env: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a mut Problems<'p>,
}

impl Walk<'_, '_> {
    fn table(&mut self, shape: Shape<'_>, table: &DeTable<'_>, path: &KeyPath) -> toml::Table {
        let mut out = toml::Table::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let at = path.key(name);
            self.problems.place(at.clone(), key.span().start);
            if let Some(shape) = shape.property(name) {
                out.extend(
                    self.value(shape, value.get_ref(), &at)
                        .map(|value| (name.to_owned(), value)),
                );
            } else if let Some(others) = shape.others() {
                // The name exists whatever its value, so that what refers to it is not refused as well.
                let value = self
                    .value(others, value.get_ref(), &at)
                    .or_else(|| self.instead(others, &at));
                match shape.names().and_then(|names| names.wrong_text(name, name)) {
                    Some(wrong) => self.problems.report(&at, wrong),
                    None => out.extend(value.map(|value| (name.to_owned(), value))),
                }
            } else {
                self.unknown_key(shape, name, path);
            }
        }
        for name in shape.required() {
            if let (false, Some(shape)) = (out.contains_key(name), shape.property(name)) {
                let at = path.key(name);
                let state = if self.problems.has(&at) { "empty" } else { "missing" };
                self.problems
                    .report(&at, format!("{state}; write {name} = {}", shape.sample()));
                out.extend(shape.stand_in().map(|value| (name.to_owned(), value)));
            }
        }
        out
    }

    fn unknown_key(&mut self, shape: Shape<'_>, name: &str, path: &KeyPath) {
        let at = path.key(name);
        match nearest(name, shape.keys()) {
            Some(near) => {
                self.problems
                    .report(&at, format!("unknown key; did you mean {near:?}?"));
                self.problems.refuse(path.key(near));
            }
            None => {
                let keys = quoted(shape.keys());
                self.problems
                    .report(&at, format!("unknown key; the keys here are {keys}"));
            }
        }
    }

    /// The checked value; `None` when it was refused, or interpolates to nothing.
    fn value(&mut self, shape: Shape<'_>, value: &DeValue<'_>, path: &KeyPath) -> Option<toml::Value> {
        let Some(shape) = shape.taking(value) else {
            let message = format!("expected {}; found {}", shape.expected(), found(value));
            self.problems.report(path, message);
            return None;
        };
        match value {
            DeValue::String(text) => self.text(shape, text, path),
            DeValue::Boolean(boolean) => Some(toml::Value::Boolean(*boolean)),
            DeValue::Table(table) => Some(toml::Value::Table(self.table(shape, table, path))),
            DeValue::Array(items) => {
                let item_shape = shape.items()?;
                let mut out = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    let at = path.index(index);
                    self.problems.place(at.clone(), item.span().start);
                    let item = self.value(item_shape, item.get_ref(), &at);
                    out.extend(item.or_else(|| self.instead(item_shape, &at)));
                }
                Some(toml::Value::Array(out))
            }
            DeValue::Integer(digits) => {
                let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
                let number = number.filter(|number| shape.admits(*number));
                if number.is_none() {
                    let message = format!("{digits} is out of range; write {}", shape.expected());
                    self.problems.report(path, message);
                }
                number.map(toml::Value::Integer)
            }
            // No shape takes these.
            DeValue::Float(_) | DeValue::Datetime(_) => None,
        }
    }

    fn text(&mut self, shape: Shape<'_>, written: &str, path: &KeyPath) -> Option<toml::Value> {
        let text = match interpolate(written, self.env) {
            Ok(text) => text,
            Err(message) => {
                self.problems.report(path, message);
                return None;
            }
        };
        if is_interpolated(written) {
            self.problems.remember_written(path.clone(), written);
            // An empty variable leaves the key out: one file serves with and without it.
            if text.is_empty() {
                return None;
            }
        }
        match shape.wrong_text(&text, written) {
            Some(message) => {
                self.problems.report(path, message);
                None
            }
            None => Some(toml::Value::String(text)),
        }
    }

    /// A stand-in that keeps names and positions of a refused value; nothing for one that is merely empty.
    fn instead(&self, shape: Shape<'_>, path: &KeyPath) -> Option<toml::Value> {
        self.problems.is_refused(path).then(|| shape.stand_in()).flatten()
    }
}
