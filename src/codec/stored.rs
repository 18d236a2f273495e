//! Stored state: one byte for the version of the schema, then the Avro datum. State stores and their changelogs.
//!
//! Invariant: bytes of every version ever released still decode, read with the schema that wrote them and matched by
//! name; a new field has a default in the schema and in its struct. The schemas travel in the program, not in the
//! registry: a restore must not depend on another service. Deliberately absent: reading a version newer than this
//! program, which a rollback must not guess at.

use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Refused;
use super::schemas::{Datum, words};

pub(super) struct Stored {
    what: &'static str,
    /// Every released version, oldest first: version 1 is the first.
    versions: Vec<Datum>,
    writer: GenericDatumWriter<'static>,
}

impl Stored {
    /// `schemas` are the texts of every released version, oldest first; the last one writes.
    pub(super) fn new(what: &'static str, schemas: &[&str]) -> Stored {
        let versions: Vec<Datum> = schemas.iter().map(|text| Datum::of_ours(text)).collect();
        match versions.last().map(Datum::writer) {
            Some(Ok(writer)) => Stored { what, versions, writer },
            Some(Err(error)) => unreachable!("{what}: {error}"),
            None => unreachable!("{what} has no schema"),
        }
    }

    pub(super) fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, Refused> {
        let version = u8::try_from(self.versions.len()).map_err(|error| self.refuse(&error.to_string()))?;
        let mut bytes = Vec::with_capacity(512);
        bytes.push(version);
        self.writer
            .write_ser(&mut bytes, value)
            .map_err(|error| Refused::new("unencodable", format!("{}: {}", self.what, words(&error))))?;
        Ok(bytes)
    }

    /// # Errors
    /// Bytes of a newer program, or bytes that are not ours: the store is not to be used with this program.
    pub(super) fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Refused> {
        let Some((version, datum)) = bytes.split_first() else {
            return Err(self.refuse("the value is empty"));
        };
        let schema = usize::from(*version)
            .checked_sub(1)
            .and_then(|index| self.versions.get(index));
        match schema {
            Some(schema) if usize::from(*version) == self.versions.len() => schema.read(datum),
            Some(schema) => schema.read_by_name(datum),
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
