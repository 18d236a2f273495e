//! The manifest of each tenant, and the files it lists.
//!
//! Owns: the order of the steps that make a file part of the books. Invariant: what is read and what is appended is
//! under an exclusive lock of the manifest, so that several processes may share a folder. Writers that come while one
//! puts its line on the disk are put there together by the next one: a disk takes few syncs a second.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::format;
use crate::codec::delivery_manifest::ManifestLine;
use crate::config::{Accounts, FileFormat};
use crate::revenue::ids::TenantId;
use crate::sink::accounting::http::sha256_hex;
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
        part.push_str(&sha256_hex(text.as_bytes()));
    }
    part
}

/// All manifests of a folder.
pub struct Manifests {
    dir: PathBuf,
    format: FileFormat,
    accounts: Accounts,
    known: Mutex<HashMap<String, Known>>,
    queue: Mutex<Queue>,
}

/// Documents that are on the disk and not yet in a manifest.
#[derive(Default)]
struct Queue {
    next: u64,
    waiting: Vec<(u64, Waiting)>,
    /// What became of those that another writer listed, until they ask.
    done: HashMap<u64, io::Result<Wrote>>,
}

struct Waiting {
    home: String,
    line: ManifestLine,
}

impl Queue {
    fn push(&mut self, waiting: Waiting) -> u64 {
        self.next += 1;
        self.waiting.push((self.next, waiting));
        self.next
    }
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
            queue: Mutex::default(),
        }
    }

    /// Writes a document, unless the manifest has it.
    pub fn write(&self, place: &Place, key: &Key, form: Form, body: &[u8]) -> io::Result<Wrote> {
        let home = self.dir.join(&place.home);
        let documents = home.join(DOCUMENTS);
        let sha256 = sha256_hex(body);
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            fs::create_dir_all(&documents)?;
            let known = known.entry(place.home.clone()).or_default();
            // Held while the ledger file is written, which goes by what stands in it.
            let mut manifest = locked(&home)?;
            known.read_on(&mut manifest)?;
            if let Some(wrote) = known.wrote(key.as_str(), &sha256) {
                return Ok(wrote);
            }
            self.write_ledger(&home)?;
        }
        put(&documents, &place.name, body)?;
        let ticket = self.queue().push(Waiting {
            home: place.home.clone(),
            line: ManifestLine {
                key: key.as_str().to_owned(),
                file: place.file(),
                sha256,
                form: form.as_str().to_owned(),
            },
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever had the lock meanwhile may have done it.
        if let Some(done) = self.queue().done.remove(&ticket) {
            return done;
        }
        let mut all: BTreeMap<String, Vec<(u64, ManifestLine)>> = BTreeMap::new();
        for (ticket, waiting) in std::mem::take(&mut self.queue().waiting) {
            all.entry(waiting.home).or_default().push((ticket, waiting.line));
        }
        for (home, lines) in all {
            let known = known.entry(home.clone()).or_default();
            let done = known.list(&self.dir.join(&home), lines);
            self.queue().done.extend(done);
        }
        let done = self.queue().done.remove(&ticket);
        done.unwrap_or_else(|| Err(io::Error::other("the line was not listed")))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
        let name = format!("ledger.{}", format::extension(self.format));
        let there = match fs::read_to_string(home.join(&name)) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        match format::ledger(self.format, &self.accounts, &format::declared(self.format, &there)) {
            Some(text) if text != there => replace(home, &name, text.as_bytes()),
            Some(_) | None => Ok(()),
        }
    }
}

impl Known {
    /// What a write of this content would come to, where the manifest has the key.
    fn wrote(&self, key: &str, sha256: &str) -> Option<Wrote> {
        let (file, before) = self.documents.get(key)?;
        Some(match before == sha256 {
            true => Wrote::Before(file.clone()),
            false => Wrote::Other(file.clone()),
        })
    }

    /// Makes the documents' names durable, then appends their lines in one write.
    fn list(&mut self, home: &Path, lines: Vec<(u64, ManifestLine)>) -> Vec<(u64, io::Result<Wrote>)> {
        let tickets: Vec<u64> = lines.iter().map(|(ticket, _)| *ticket).collect();
        match self.append(home, lines) {
            Ok(done) => done.into_iter().map(|(ticket, wrote)| (ticket, Ok(wrote))).collect(),
            Err(error) => tickets
                .into_iter()
                .map(|ticket| (ticket, Err(io::Error::new(error.kind(), error.to_string()))))
                .collect(),
        }
    }

    fn append(&mut self, home: &Path, lines: Vec<(u64, ManifestLine)>) -> io::Result<Vec<(u64, Wrote)>> {
        File::open(home.join(DOCUMENTS))?.sync_all()?;
        let mut manifest = locked(home)?;
        self.read_on(&mut manifest)?;
        let mut done = Vec::with_capacity(lines.len());
        let mut text = String::new();
        let mut listed = Vec::new();
        for (ticket, line) in lines {
            if let Some(wrote) = self.wrote(&line.key, &line.sha256) {
                done.push((ticket, wrote));
                continue;
            }
            text.push_str(&line.text());
            done.push((ticket, Wrote::Now(line.file.clone())));
            listed.push(line);
        }
        // What stands after the last whole line was cut short by a crash.
        manifest.set_len(self.read)?;
        manifest.seek(SeekFrom::End(0))?;
        manifest.write_all(text.as_bytes())?;
        manifest.sync_all()?;
        self.read += text.len() as u64;
        self.documents
            .extend(listed.into_iter().map(|line| (line.key, (line.file, line.sha256))));
        Ok(done)
    }

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

/// Puts a file in place whole, its name durable: see [`put`].
fn replace(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    put(dir, name, content)?;
    File::open(dir)?.sync_all()
}

/// Puts a file in place whole: under another name, to the disk, renamed. The name is durable once the folder is synced.
fn put(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.{}.new", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))
}
