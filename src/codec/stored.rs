//! Stored state: one byte for the version of the schema, then the Avro datum. State stores and their changelogs.
//!
//! Invariant: bytes of every version ever released still decode, read with the schema that wrote them and matched by
//! name; a new field has a default in the schema and in its struct. The schemas travel in the program, not in the
//! registry: a restore must not depend on another service. Deliberately absent: reading a version newer than this
//! program, which a rollback must not guess at.

use serde::{Deserialize, Serialize};

use super::Refused;
use super::schemas::Datum;

pub(super) struct Stored {
    what: &'static str,
    /// Every released version, oldest first: version 1 is the first. The last one writes.
    versions: Vec<Datum>,
}

impl Stored {
    /// `schemas` are the texts of every released version, oldest first.
    pub(super) fn new(what: &'static str, schemas: &[&str]) -> Stored {
        let versions = schemas.iter().map(|text| Datum::of_ours(text)).collect();
        Stored { what, versions }
    }

    pub(super) fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, Refused> {
        let Some(newest) = self.versions.last() else {
            return Err(self.refuse("no version of its schema"));
        };
        let version = u8::try_from(self.versions.len()).map_err(|error| self.refuse(&error.to_string()))?;
        let mut bytes = Vec::with_capacity(1024);
        bytes.push(version);
        newest
            .write(value, &mut bytes)
            .map_err(|error| Refused::new(error.code, format!("{}: {}", self.what, error.message)))?;
        Ok(bytes)
    }

    /// # Errors
    /// Bytes of a newer program, or bytes that are not ours: the store is not to be used with this program.
    pub(super) fn decode<'de, T: Deserialize<'de>>(&self, bytes: &'de [u8]) -> Result<T, Refused> {
        let Some((version, datum)) = bytes.split_first() else {
            return Err(self.refuse("the value is empty"));
        };
        let schema = usize::from(*version)
            .checked_sub(1)
            .and_then(|index| self.versions.get(index));
        match schema {
            Some(schema) => schema.read(datum),
            None => {
                let newest = self.versions.len();
                let message = format!(
                    "written with version {version} of the schema, and this program knows 1 to {newest}; run the \
                     program that wrote it, or a newer one"
                );
                Err(Refused::new("bad_store", message))
            }
        }
        .map_err(|error| self.refuse(&error.message))
    }

    fn refuse(&self, message: &str) -> Refused {
        Refused::new("bad_store", format!("{}: {message}", self.what))
    }
}
