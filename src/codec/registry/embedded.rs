//! A schema registry in a folder, for the quick start and small installations: one process, no server.
//!
//! `schemas/<id>.json` holds a schema, `subjects/<subject>.json` a subject's versions and compatibility.
//! Invariant: a file is complete or absent (written beside, synced, renamed), and a schema's file is there before any
//! subject names it; so a crash at any point loses at most the call that was under way. Deliberately absent: deletion.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility as Reads, SchemaCompatibility};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Compatibility, Registry, RegistryError, SchemaId, Subject};

const DEFAULT: Compatibility = Compatibility::Backward;

pub struct Embedded {
    folder: PathBuf,
    state: Mutex<State>,
}

/// One version of a subject, numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub version: u32,
    pub id: SchemaId,
    pub schema: String,
}

#[derive(Default)]
struct State {
    schemas: BTreeMap<SchemaId, String>,
    subjects: BTreeMap<Subject, SubjectFile>,
}

#[derive(Serialize, Deserialize)]
struct SchemaFile {
    id: u32,
    schema: String,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct SubjectFile {
    subject: String,
    /// Schema ids; the version is the place in the list, from 1.
    versions: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compatibility: Option<String>,
}

impl Embedded {
    /// Opens the registry in `folder`, creating it when absent.
    ///
    /// # Errors
    /// The folder cannot be read or written, or holds a file that is not the registry's.
    pub fn open(folder: &Path) -> Result<Embedded, RegistryError> {
        let mut state = State::default();
        for (path, file) in read_all::<SchemaFile>(&folder.join("schemas"))? {
            parse(&file.schema)
                .map_err(|error| RegistryError::Refused(format!("{}: not an Avro schema: {error}", path.display())))?;
            state.schemas.insert(SchemaId(file.id), file.schema);
        }
        for (path, file) in read_all::<SubjectFile>(&folder.join("subjects"))? {
            if let Some(id) = file
                .versions
                .iter()
                .find(|id| !state.schemas.contains_key(&SchemaId(**id)))
            {
                let message = format!("{}: names schema {id}, whose file is missing", path.display());
                return Err(RegistryError::Refused(message));
            }
            state.subjects.insert(Subject::new(file.subject.clone()), file);
        }
        Ok(Embedded {
            folder: folder.to_path_buf(),
            state: Mutex::new(state),
        })
    }

    /// Every subject, in order of name.
    pub fn subjects(&self) -> Vec<Subject> {
        self.state()
            .subjects
            .iter()
            .filter(|(_, file)| !file.versions.is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// A subject's versions, oldest first; empty when there is no such subject.
    pub fn versions(&self, subject: &Subject) -> Vec<Version> {
        self.state().versions(subject)
    }

    /// A subject's own compatibility level; `None` when it has the default.
    pub fn compatibility(&self, subject: &Subject) -> Option<Compatibility> {
        self.state()
            .subjects
            .get(subject)?
            .compatibility
            .as_deref()?
            .parse()
            .ok()
    }

    /// The level of a subject that has none of its own.
    pub fn default_compatibility(&self) -> Compatibility {
        DEFAULT
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is changed only by single inserts after the files are durable: a panic elsewhere cannot tear it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save_subject(&self, file: &SubjectFile) -> Result<(), RegistryError> {
        write(&self.folder.join("subjects"), &file_name(&file.subject), file)
    }
}

impl Registry for Embedded {
    fn register(&self, subject: &Subject, schema: &str) -> Result<SchemaId, RegistryError> {
        let mut state = self.state();
        if let Some(id) = state.lookup(subject, schema) {
            return Ok(id);
        }
        state.check(subject, schema)?;
        let id = match state.same(schema) {
            Some(id) => id,
            None => {
                let last = state.schemas.keys().next_back().map_or(0, |id| id.0);
                let id = last
                    .checked_add(1)
                    .ok_or_else(|| RegistryError::Refused("no schema id is left".into()))?;
                let file = SchemaFile {
                    id,
                    schema: schema.to_string(),
                };
                write(&self.folder.join("schemas"), &format!("{id:08}.json"), &file)?;
                state.schemas.insert(SchemaId(id), file.schema);
                SchemaId(id)
            }
        };
        let mut file = state.subject(subject);
        file.versions.push(id.0);
        self.save_subject(&file)?;
        state.subjects.insert(subject.clone(), file);
        Ok(id)
    }

    fn lookup(&self, subject: &Subject, schema: &str) -> Result<Option<SchemaId>, RegistryError> {
        Ok(self.state().lookup(subject, schema))
    }

    fn schema(&self, id: SchemaId) -> Result<String, RegistryError> {
        self.state()
            .schemas
            .get(&id)
            .cloned()
            .ok_or(RegistryError::UnknownSchema(id))
    }

    fn check(&self, subject: &Subject, schema: &str) -> Result<(), RegistryError> {
        self.state().check(subject, schema)
    }

    fn set_compatibility(&self, subject: &Subject, level: Compatibility) -> Result<(), RegistryError> {
        let mut state = self.state();
        let mut file = state.subject(subject);
        if file.compatibility.as_deref() == Some(level.as_str()) {
            return Ok(());
        }
        file.compatibility = Some(level.as_str().to_string());
        self.save_subject(&file)?;
        state.subjects.insert(subject.clone(), file);
        Ok(())
    }
}

impl State {
    fn subject(&self, subject: &Subject) -> SubjectFile {
        self.subjects.get(subject).cloned().unwrap_or_else(|| SubjectFile {
            subject: subject.as_str().to_string(),
            ..SubjectFile::default()
        })
    }

    fn versions(&self, subject: &Subject) -> Vec<Version> {
        let ids = self
            .subjects
            .get(subject)
            .map(|file| file.versions.as_slice())
            .unwrap_or_default();
        (1..)
            .zip(ids)
            .filter_map(|(version, id)| {
                let id = SchemaId(*id);
                Some(Version {
                    version,
                    id,
                    schema: self.schemas.get(&id)?.clone(),
                })
            })
            .collect()
    }

    /// A schema is the same when its JSON is, whatever its white space and order of keys.
    fn same(&self, schema: &str) -> Option<SchemaId> {
        let wanted = serde_json::from_str::<Json>(schema).ok()?;
        self.schemas
            .iter()
            .find(|(_, known)| serde_json::from_str::<Json>(known).is_ok_and(|known| known == wanted))
            .map(|(id, _)| *id)
    }

    fn lookup(&self, subject: &Subject, schema: &str) -> Option<SchemaId> {
        let id = self.same(schema)?;
        self.subjects.get(subject)?.versions.contains(&id.0).then_some(id)
    }

    fn check(&self, subject: &Subject, schema: &str) -> Result<(), RegistryError> {
        let refused = |reason: String| RegistryError::Incompatible {
            subject: subject.clone(),
            reason,
        };
        let new = parse(schema).map_err(|error| refused(format!("not an Avro schema: {error}")))?;
        let level = match self
            .subjects
            .get(subject)
            .and_then(|file| file.compatibility.as_deref())
        {
            Some(level) => level.parse().map_err(refused)?,
            None => DEFAULT,
        };
        let (backward, forward, all) = match level {
            Compatibility::None => (false, false, false),
            Compatibility::Backward => (true, false, false),
            Compatibility::BackwardTransitive => (true, false, true),
            Compatibility::Forward => (false, true, false),
            Compatibility::ForwardTransitive => (false, true, true),
            Compatibility::Full => (true, true, false),
            Compatibility::FullTransitive => (true, true, true),
        };
        let versions = self.versions(subject);
        let first = if all { 0 } else { versions.len().saturating_sub(1) };
        for version in &versions[first..] {
            let old = parse(&version.schema).map_err(|error| refused(error.to_string()))?;
            let named =
                |error: String| refused(format!("{} with version {}: {error}", level.as_str(), version.version));
            if backward {
                can_read(&old, &new).map_err(|error| named(format!("it cannot read older records: {error}")))?;
            }
            if forward {
                can_read(&new, &old).map_err(|error| named(format!("older readers cannot read it: {error}")))?;
            }
        }
        Ok(())
    }
}

fn parse(schema: &str) -> Result<Schema, apache_avro::Error> {
    Schema::parse_str(schema)
}

fn can_read(writer: &Schema, reader: &Schema) -> Result<(), String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Reads::Full) => Ok(()),
        // "Partial" resolves for some values and fails for others.
        Ok(Reads::Partial) => Err("some values of a union or enum have no counterpart".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn read_all<T: for<'de> Deserialize<'de>>(folder: &Path) -> Result<Vec<(PathBuf, T)>, RegistryError> {
    let failed = |path: &Path, error: io::Error| RegistryError::Unavailable(format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue; // what a crash left half written keeps its temporary name
        }
        let bytes = fs::read(&path).map_err(|error| failed(&path, error))?;
        let file = serde_json::from_slice(&bytes)
            .map_err(|error| RegistryError::Refused(format!("{}: not a registry file: {error}", path.display())))?;
        files.push((path, file));
    }
    Ok(files)
}

fn write<T: Serialize>(folder: &Path, name: &str, content: &T) -> Result<(), RegistryError> {
    let path = folder.join(name);
    let attempt = || -> io::Result<()> {
        let temporary = folder.join(format!("{name}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    };
    attempt().map_err(|error| RegistryError::Unavailable(format!("{}: {error}", path.display())))
}

/// A subject as a file name: other bytes than letters, digits, `.`, `_`, `-` are written as `%XX`.
fn file_name(subject: &str) -> String {
    let mut name = String::new();
    for byte in subject.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name + ".json"
}
