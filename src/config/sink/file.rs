//! `[sinks.NAME.file]`: a folder of journal files.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    pub format: FileFormat,
    pub dir: PathBuf,
}

/// What the files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileFormat {
    /// Rows for a journal import.
    Csv,
    /// A journal that hledger reads.
    Hledger,
    /// A journal that Beancount reads.
    Beancount,
}

/// A folder of journal files, one for each document, and the manifest that lists them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileText {
    /// What the files hold.
    format: FileFormat,
    /// The folder; one sink each. Instances that share the work must share the folder.
    #[schemars(length(min = 1), extend("examples" = ["ledger"]))]
    dir: PathBuf,
}

impl From<FileText> for FileSystem {
    fn from(text: FileText) -> FileSystem {
        FileSystem {
            format: text.format,
            dir: text.dir,
        }
    }
}
