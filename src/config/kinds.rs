//! Keys that mean something for some kinds of a table only.
//!
//! Owns the words for a key that its kind lacks, and for one that means nothing for it. Absent: which keys those are.

use super::problem::{KeyPath, Problems};

/// A key of a table, and whether it is written.
pub(super) struct Key {
    pub name: &'static str,
    pub given: bool,
    /// What to write where it is needed.
    pub example: &'static str,
}

/// Reports every key that the kind must have and lacks, and every one that it has no use for. `of` names the kind, to
/// follow "means nothing for". Whether nothing is missing.
pub(super) fn fit(
    keys: &[Key],
    table: &KeyPath,
    (of, must, may): (&str, &[&str], &[&str]),
    problems: &mut Problems<'_>,
) -> bool {
    let mut whole = true;
    for key in keys {
        if must.contains(&key.name) {
            if !key.given {
                whole = false;
                let said = format!("missing; write {} = {:?}", key.name, key.example);
                problems.report(&table.key(key.name), said);
            }
        } else if key.given && !may.contains(&key.name) {
            problems.report(&table.key(key.name), format!("means nothing for {of}; remove it"));
        }
    }
    whole
}
