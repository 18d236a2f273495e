//! The manifest of a folder of documents: one JSON object a line.
//!
//! Invariant: a line holds no line feed of its own, so a line cut short by a crash is known by its missing end.

use serde::Deserialize;

/// A document that is there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ManifestLine {
    pub key: String,
    /// Relative to the folder.
    pub file: String,
    pub sha256: String,
    /// `journal`, `invoice` or `credit_note`.
    pub form: String,
}

impl ManifestLine {
    /// With its line feed.
    pub fn text(&self) -> String {
        let object = serde_json::json!({
            "key": self.key, "file": self.file, "sha256": self.sha256, "form": self.form,
        });
        format!("{object}\n")
    }

    /// # Errors
    /// The line is not ours, or damaged.
    pub fn parse(line: &[u8]) -> Result<ManifestLine, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }
}
