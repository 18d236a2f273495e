//! Where the files of a lakehouse lie: a folder, or a bucket of S3 or of what speaks its protocol.
//!
//! Invariant: [`Store::put_new`] makes a file whole or not at all, and only where there is none of its name: the one
//! thing on which a Delta commit rests. Absent: streaming; a file is at most some tens of megabytes.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusty_s3::actions::{ListObjectsV2, S3Action as _};
use rusty_s3::{Bucket, Credentials, UrlStyle};

use super::super::WarehouseError;
use super::super::http::{Http, Reply, judge};

/// Names are relative, with `/` between their parts.
pub trait Store: Send {
    /// `None` when there is no such file.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, WarehouseError>;

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), WarehouseError>;

    /// False when there is one already, which is left as it is.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, WarehouseError>;

    /// The names that start with `prefix` and come after `after`, sorted.
    fn list(&self, prefix: &str, after: &str) -> Result<Vec<String>, WarehouseError>;

    /// How engines call the place: a path, or `s3://bucket/prefix`.
    fn location(&self) -> String;
}

/// A folder. Its file system must know hard links.
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    pub fn new(root: &Path) -> Folder {
        Folder { root: root.to_owned() }
    }

    /// Writes a file beside its place, to the disk, under a name that no other worker has: several may write here, also from
    /// machines that share the folder.
    fn aside(&self, name: &str, bytes: &[u8]) -> Result<(PathBuf, PathBuf), WarehouseError> {
        let place = self.root.join(name);
        let folder = place.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(|error| broken(folder, &error))?;
        let file = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let own = RandomState::new().build_hasher().finish();
        let aside = folder.join(format!(".{file}.{own:016x}.new"));
        let written = std::fs::File::create_new(&aside).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        match written {
            Ok(()) => Ok((aside, place)),
            Err(error) => {
                // What was written of it is of no use; the error is the one to tell.
                let _ = std::fs::remove_file(&aside);
                Err(broken(&aside, &error))
            }
        }
    }
}

impl Store for Folder {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, WarehouseError> {
        let place = self.root.join(name);
        match std::fs::read(&place) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(broken(&place, &error)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), WarehouseError> {
        let (aside, place) = self.aside(name, bytes)?;
        std::fs::rename(&aside, &place).map_err(|error| broken(&place, &error))?;
        settle(&place)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, WarehouseError> {
        let (aside, place) = self.aside(name, bytes)?;
        let linked = std::fs::hard_link(&aside, &place);
        std::fs::remove_file(&aside).map_err(|error| broken(&aside, &error))?;
        match linked {
            Ok(()) => settle(&place).map(|()| true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(broken(&place, &error)),
        }
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Vec<String>, WarehouseError> {
        let folder = self.root.join(prefix);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(broken(&folder, &error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| broken(&folder, &error))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if name.as_str() > after {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }
}

/// The name itself survives a loss of power once its folder is on the disk.
fn settle(place: &Path) -> Result<(), WarehouseError> {
    let folder = place.parent().unwrap_or(place);
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| broken(folder, &error))
}

fn broken(place: &Path, error: &std::io::Error) -> WarehouseError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            WarehouseError::Refused(format!("{}: {error}", place.display()))
        }
        _ => WarehouseError::Away(format!("{}: {error}", place.display())),
    }
}

/// A bucket. Its server must honour `If-None-Match: *` on PUT, as S3 does since 2024.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>
pub struct S3 {
    bucket: Bucket,
    prefix: String,
    credentials: Credentials,
    http: Http,
}

/// How long a signed request may be under way.
const SIGNED_FOR: Duration = Duration::from_secs(300);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

impl S3 {
    /// # Errors
    /// The endpoint is no address, or the HTTP client cannot be set up.
    pub fn new(
        endpoint: &str,
        region: &str,
        bucket: &str,
        prefix: &str,
        access_key: &str,
        secret_key: &str,
    ) -> Result<S3, WarehouseError> {
        let refused = |error: &dyn std::fmt::Display| WarehouseError::Refused(format!("S3 at {endpoint}: {error}"));
        let url = endpoint.parse().map_err(|error| refused(&error))?;
        let bucket = Bucket::new(url, UrlStyle::Path, bucket.to_owned(), region.to_owned()).map_err(|e| refused(&e))?;
        Ok(S3 {
            bucket,
            prefix: prefix.trim_matches('/').to_owned(),
            credentials: Credentials::new(access_key, secret_key),
            http: Http::new(REQUEST_TIMEOUT)?,
        })
    }

    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.prefix)
        }
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, WarehouseError> {
        self.http
            .send(request)
            .map_err(|why| WarehouseError::Away(format!("S3: {why}")))
    }

    fn write(&self, name: &str, bytes: &[u8], only_new: bool) -> Result<bool, WarehouseError> {
        let key = self.key(name);
        let url = self.bucket.put_object(Some(&self.credentials), &key).sign(SIGNED_FOR);
        let mut request = self.http.client().put(url.as_str()).body(bytes.to_vec());
        if only_new {
            request = request.header("if-none-match", "*");
        }
        let reply = self.send(request)?;
        match reply.status {
            200..=299 => Ok(true),
            // 409: another conditional write of this name is under way, and one of the two will stand.
            409 | 412 if only_new => Ok(false),
            _ => Err(judge(&format!("S3 PUT {key}"), &reply)),
        }
    }
}

impl Store for S3 {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, WarehouseError> {
        let key = self.key(name);
        let url = self.bucket.get_object(Some(&self.credentials), &key).sign(SIGNED_FOR);
        let reply = self.send(self.http.client().get(url.as_str()))?;
        match reply.status {
            200..=299 => Ok(Some(reply.body)),
            404 => Ok(None),
            _ => Err(judge(&format!("S3 GET {key}"), &reply)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), WarehouseError> {
        self.write(name, bytes, false).map(drop)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, WarehouseError> {
        self.write(name, bytes, true)
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Vec<String>, WarehouseError> {
        let mut names = Vec::new();
        let mut after = self.key(after);
        loop {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(self.key(prefix));
            action.with_start_after(after.clone());
            let url = action.sign(SIGNED_FOR);
            let reply = self.send(self.http.client().get(url.as_str()))?;
            if !(200..=299).contains(&reply.status) {
                return Err(judge("S3 LIST", &reply));
            }
            let text = String::from_utf8_lossy(&reply.body);
            let page = ListObjectsV2::parse_response(&text)
                .map_err(|error| WarehouseError::Away(format!("S3 LIST: an answer that cannot be read: {error}")))?;
            let Some(last) = page.contents.last() else {
                break;
            };
            after = last.key.clone();
            let cut = self.key("").len();
            names.extend(
                page.contents
                    .iter()
                    .filter_map(|found| found.key.get(cut..))
                    .map(str::to_owned),
            );
            if page.next_continuation_token.is_none() {
                break;
            }
        }
        names.sort();
        Ok(names)
    }

    fn location(&self) -> String {
        format!("s3://{}", [self.bucket.name(), self.prefix.as_str()].join("/"))
            .trim_end_matches('/')
            .to_owned()
    }
}
