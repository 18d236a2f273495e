//! The manifest of each tenant, and the files it lists.
//!
//! Owns: the order of the steps that make a file part of the books. Invariant: what is read and what is appended is
//! under an exclusive lock of the manifest, so that several processes may share a folder.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{digest, format};
use crate::codec::delivery_manifest::ManifestLine;
use crate::config::{Accounts, FileFormat};
use crate::revenue::ids::TenantId;
use crate::sink::document::{Form, Key};

/// The folder of the documents within a tenant's.
const DOCUMENTS: &str = "documents";

/// Where a document's file is.
pub struct Place {
    /// The tenant's folder.
    home: String,
    /// The file's name.
    name: String,
}

impl Place {
    pub fn of(tenant: &TenantId, key: &Key, format: FileFormat) -> Place {
        Place {
            home: path_part(tenant.as_str()),
            name: format!("{}.{}", path_part(key.as_str()), format::extension(format)),
        }
    }

    /// Relative to the folder.
    pub fn file(&self) -> String {
        format!("{}/{DOCUMENTS}/{}", self.home, self.name)
    }

    /// The place of a file that [`Place::file`] named.
    pub fn parse(file: &str) -> Option<Place> {
        let (home, name) = file.split_once(&format!("/{DOCUMENTS}/"))?;
        let is_part = |text: &str| !text.is_empty() && !text.contains('/') && text != "." && text != "..";
        (is_part(home) && is_part(name)).then(|| Place {
            home: home.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// A text as one part of a path; texts that differ give parts that differ, and none is `.` or `..`.
fn path_part(text: &str) -> String {
    const LONGEST_BYTES: usize = 180;
    let mut part = String::new();
    for (n, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => part.push(char::from(byte)),
            b'.' if n > 0 => part.push('.'),
            _ => part.push_str(&format!("%{byte:02X}")),
        }
    }
    if part.len() > LONGEST_BYTES {
        part.truncate(LONGEST_BYTES);
        part.push('~');
        part.push_str(&digest(text.as_bytes()));
    }
    part
}

/// All manifests of a folder.
pub struct Manifests {
    dir: PathBuf,
    format: FileFormat,
    accounts: Accounts,
    known: Mutex<HashMap<String, Known>>,
}

/// What was read of a manifest so far.
#[derive(Default)]
struct Known {
    /// Bytes read, up to the end of a line.
    read: u64,
    /// File and SHA-256 by key.
    documents: HashMap<String, (String, String)>,
}

/// What became of a write.
pub enum Wrote {
    /// The file, relative to the folder.
    Now(String),
    /// It was there, with this content.
    Before(String),
    /// It was there, with another content.
    Other(String),
}

impl Manifests {
    pub fn new(dir: PathBuf, format: FileFormat, accounts: Accounts) -> Manifests {
        Manifests {
            dir,
            format,
            accounts,
            known: Mutex::default(),
        }
    }

    /// Writes a document, unless the manifest has it.
    pub fn write(&self, place: &Place, key: &Key, form: Form, body: &[u8]) -> io::Result<Wrote> {
        let home = self.dir.join(&place.home);
        let documents = home.join(DOCUMENTS);
        fs::create_dir_all(&documents)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(place.home.clone()).or_default();
        let mut manifest = locked(&home)?;
        known.read_on(&mut manifest)?;
        let sha256 = digest(body);
        if let Some((file, before)) = known.documents.get(key.as_str()) {
            return Ok(if *before == sha256 {
                Wrote::Before(file.clone())
            } else {
                Wrote::Other(file.clone())
            });
        }
        self.write_ledger(&home)?;
        replace(&documents, &place.name, body)?;
        let file = place.file();
        let text = ManifestLine {
            key: key.as_str().to_owned(),
            file: file.clone(),
            sha256: sha256.clone(),
            form: form.as_str().to_owned(),
        }
        .text();
        // What stands after the last whole line was cut short by a crash.
        manifest.set_len(known.read)?;
        manifest.seek(SeekFrom::End(0))?;
        manifest.write_all(text.as_bytes())?;
        manifest.sync_all()?;
        known.read += text.len() as u64;
        known.documents.insert(key.as_str().to_owned(), (file.clone(), sha256));
        Ok(Wrote::Now(file))
    }

    /// The file and SHA-256 of a document.
    pub fn find(&self, place: &Place, key: &Key) -> io::Result<Option<(String, String)>> {
        let home = self.dir.join(&place.home);
        fs::create_dir_all(&home)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(place.home.clone()).or_default();
        known.read_on(&mut locked(&home)?)?;
        Ok(known.documents.get(key.as_str()).cloned())
    }

    /// Whether a file can be written.
    pub fn writable(&self) -> io::Result<()> {
        replace(&self.dir, "probe", b"")?;
        fs::remove_file(self.dir.join("probe"))
    }

    /// The file that declares the accounts and includes the documents, where the format has such a thing.
    fn write_ledger(&self, home: &Path) -> io::Result<()> {
        let Some(text) = format::ledger(self.format, &self.accounts) else {
            return Ok(());
        };
        let name = format!("ledger.{}", format::extension(self.format));
        match fs::read(home.join(&name)) {
            Ok(there) if there == text.as_bytes() => Ok(()),
            Ok(_) | Err(_) => replace(home, &name, text.as_bytes()),
        }
    }
}

impl Known {
    fn read_on(&mut self, manifest: &mut File) -> io::Result<()> {
        if manifest.metadata()?.len() < self.read {
            // Someone put an older manifest in place: what it lists is what is there.
            *self = Known::default();
        }
        manifest.seek(SeekFrom::Start(self.read))?;
        let mut text = Vec::new();
        manifest.read_to_end(&mut text)?;
        for whole in text.split_inclusive(|byte| *byte == b'\n') {
            if !whole.ends_with(b"\n") {
                break;
            }
            let line = ManifestLine::parse(whole).map_err(|why| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the manifest's line at byte {} cannot be read: {why}", self.read),
                )
            })?;
            self.documents.insert(line.key, (line.file, line.sha256));
            self.read += whole.len() as u64;
        }
        Ok(())
    }
}

/// The manifest of a tenant's folder, locked until it is dropped.
fn locked(home: &Path) -> io::Result<File> {
    let manifest = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(home.join("manifest.jsonl"))?;
    manifest.lock()?;
    Ok(manifest)
}

/// Puts a file in place whole: under another name, to the disk, renamed.
fn replace(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.{}.new", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}
