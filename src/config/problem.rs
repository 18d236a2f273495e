//! What is wrong with a topology file, and where.
//!
//! Owns [`Problem`], the key paths problems are named by, and the collector that gathers all of them. Invariant: one
//! mistake is reported once, so a rule that looks at a key which was already refused stays silent. Text that came in
//! through `${...}` never reaches a message. Absent on purpose: any rule; rules live beside what they are about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One mistake in a topology file, ready to print:
/// `topology.toml:12:5: source[0].topc: unknown key; did you mean "topic"?`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as the caller named it.
    pub file: String,
    /// Line, counted from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// Column in characters, counted from 1; 0 when the file could not be read at all.
    pub column: usize,
    /// The key the problem is about, as `mapping.crm.deal.id`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// A problem with the file itself, before any line of it was read.
    pub(super) fn unreadable(file: &str, message: String) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            message,
        }
    }
}

/// The way to a key: `source`, `[0]`, `topic`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// A path of keys: `["kafka", "properties"]`.
    pub fn of<const N: usize>(keys: [&str; N]) -> Self {
        Self(keys.iter().map(|key| Segment::Key((*key).to_owned())).collect())
    }

    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut path = self.0.clone();
        path.push(segment);
        Self(path)
    }

    /// The path itself, then each table around it, outermost last.
    fn outward(&self) -> impl Iterator<Item = KeyPath> + '_ {
        (0..=self.0.len())
            .rev()
            .map(|length| KeyPath(self.0[..length].to_vec()))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if !key.is_empty() && key.chars().all(bare) {
                        f.write_str(key)?;
                    } else {
                        write!(f, "{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Gathers every problem of one file.
pub(super) struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    /// Byte offset of every key that is in the file.
    places: BTreeMap<KeyPath, usize>,
    /// The text of values that hold `${...}`, as the file has it.
    written: BTreeMap<KeyPath, String>,
    /// Keys already refused, or standing in for a misspelt one.
    refused: BTreeSet<KeyPath>,
    /// Lines the TOML parser stumbled over.
    broken_lines: BTreeSet<usize>,
    found: Vec<(usize, Problem)>,
}

impl<'a> Problems<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            places: BTreeMap::new(),
            written: BTreeMap::new(),
            refused: BTreeSet::new(),
            broken_lines: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    pub fn place(&mut self, path: KeyPath, offset: usize) {
        self.places.insert(path, offset);
    }

    pub fn remember_written(&mut self, path: KeyPath, text: &str) {
        self.written.insert(path, text.to_owned());
    }

    /// Is this key in the file, right or wrong?
    pub fn has(&self, path: &KeyPath) -> bool {
        self.places.contains_key(path)
    }

    /// How a message may show the value of a key: what `${...}` brought in stays out of it.
    pub fn shown<'s>(&'s self, path: &KeyPath, value: &'s str) -> &'s str {
        self.written.get(path).map_or(value, String::as_str)
    }

    /// Reports a problem of this key, unless the key was refused before, or may only look wrong because the file is
    /// no TOML: then what is missing, and what shares a line with a mistake of syntax, says nothing.
    pub fn report(&mut self, path: &KeyPath, message: impl Into<String>) {
        let known = |known: &KeyPath| self.refused.contains(known);
        if path.outward().any(|path| known(&path)) {
            return;
        }
        let offset = path
            .outward()
            .find_map(|known| self.places.get(&known))
            .copied()
            .unwrap_or(0);
        self.refused.insert(path.clone());
        let (line, _) = position(self.text, offset);
        if !self.has_broken_syntax() || self.has(path) && !self.broken_lines.contains(&line) {
            self.push(offset, path.to_string(), message.into());
        }
    }

    /// Reports that the text at a byte offset is no TOML.
    pub fn report_syntax(&mut self, offset: usize, message: &str) {
        let (line, _) = position(self.text, offset);
        self.broken_lines.insert(line);
        self.push(offset, String::new(), format!("not TOML: {message}"));
    }

    pub fn has_broken_syntax(&self) -> bool {
        !self.broken_lines.is_empty()
    }

    fn push(&mut self, offset: usize, key: String, message: String) {
        let (line, column) = position(self.text, offset);
        let file = self.file.to_owned();
        self.found.push((
            offset,
            Problem {
                file,
                line,
                column,
                key,
                message,
            },
        ));
    }

    /// Keeps later rules silent about this key.
    pub fn refuse(&mut self, path: KeyPath) {
        self.refused.insert(path);
    }

    pub fn is_refused(&self, path: &KeyPath) -> bool {
        self.refused.contains(path)
    }

    /// The value, if nothing was found; else everything found, in file order.
    pub fn or<T>(mut self, value: Option<T>) -> Result<T, Vec<Problem>> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => {
                self.found.sort_by_key(|(offset, _)| *offset);
                Err(self.found.into_iter().map(|(_, problem)| problem).collect())
            }
        }
    }
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    (line, column)
}
