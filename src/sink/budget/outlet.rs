//! Where a budget feed is put: a folder, a server over SFTP, a server over HTTP.
//!
//! Invariant: whoever reads a name finds a whole file: it is written under another name first and renamed, or, over
//! HTTP, sent in one request. Absent: an SSH library. OpenSSH's own `sftp` does what its users set up (keys, agents, jump
//! hosts, host keys, hardware), costs nothing to build, and knows the rename that replaces (`posix-rename`).

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::warehouse::lakehouse::store::{self, Store as _};
use super::super::warehouse::{WarehouseError, http};

/// A place for files. Names are plain: letters, digits, dots, dashes.
pub trait Outlet: Send {
    /// `None` when there is no such file.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, WarehouseError>;

    /// Makes or replaces a file.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), WarehouseError>;
}

impl Outlet for store::Folder {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, WarehouseError> {
        store::Store::get(self, name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), WarehouseError> {
        store::Store::put(self, name, bytes)
    }
}

/// A folder of a server, by OpenSSH's `sftp`.
pub struct Sftp {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// The folder there; it must exist.
    pub folder: String,
    /// The private key; without it, what the SSH configuration of this account says.
    pub identity: Option<PathBuf>,
    /// The server's key must be in this file; without it, in those of this account. An unknown server is refused.
    pub known_hosts: Option<PathBuf>,
}

const CONNECT_SECONDS: u32 = 15;

impl Sftp {
    /// Runs commands of sftp(1), one a line; the first that fails ends the batch.
    fn batch(&self, commands: &str) -> Result<Result<(), String>, WarehouseError> {
        let mut command = Command::new("sftp");
        command.args(["-b", "-", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
        command.args([
            "-o",
            &format!("ConnectTimeout={CONNECT_SECONDS}"),
            "-o",
            "ServerAliveInterval=15",
        ]);
        if let Some(identity) = &self.identity {
            command.arg("-i").arg(identity).args(["-o", "IdentitiesOnly=yes"]);
        }
        if let Some(known) = &self.known_hosts {
            command.args([
                "-o",
                &format!("UserKnownHostsFile={}", known.display()),
                "-o",
                "GlobalKnownHostsFile=/dev/null",
            ]);
        }
        command.args([
            "-P",
            &self.port.to_string(),
            "--",
            &format!("{}@{}", self.user, self.host),
        ]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let broken = |error: std::io::Error| WarehouseError::Away(format!("sftp: {error}"));
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => WarehouseError::Refused(
                "there is no program sftp: install OpenSSH's client (Debian: openssh-client)".to_owned(),
            ),
            _ => broken(error),
        })?;
        if let Some(mut input) = child.stdin.take() {
            // A program that ended early says why below.
            let _ = input.write_all(commands.as_bytes());
        }
        let out = child.wait_with_output().map_err(broken)?;
        if out.status.success() {
            return Ok(Ok(()));
        }
        let words = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        let text = format!("sftp {}@{}:{}: {words}", self.user, self.host, self.port);
        // 255 is ssh's own: no connection, or no login.
        let login = ["Permission denied", "Host key verification failed", "No such identity"];
        match out.status.code() {
            Some(255) | None if login.iter().any(|it| words.contains(it)) => Err(WarehouseError::Refused(text)),
            Some(255) | None => Err(WarehouseError::Away(text)),
            Some(_) => Ok(Err(text)),
        }
    }

    fn there(&self, name: &str) -> String {
        quoted(&format!("{}/{name}", self.folder.trim_end_matches('/')))
    }

    /// A file of this machine that the commands can name.
    fn aside(&self) -> Result<Aside, WarehouseError> {
        let own = RandomState::new().build_hasher().finish();
        let folder = std::env::temp_dir().join(format!("accrue-sftp-{own:016x}"));
        // New, and this user's alone: the folder of temporary files is everybody's.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|error| WarehouseError::Away(format!("{}: {error}", folder.display())))?;
        Ok(Aside(folder))
    }
}

/// A temporary folder; removed when dropped.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a temporary folder was left behind");
        }
    }
}

/// As sftp(1) reads names: in double quotes, with `\` before what would end them or be a pattern.
fn quoted(name: &str) -> String {
    let mut text = String::from("\"");
    for c in name.chars() {
        if matches!(c, '"' | '\\' | '*' | '?' | '[') {
            text.push('\\');
        }
        text.push(c);
    }
    text + "\""
}

impl Outlet for Sftp {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, WarehouseError> {
        let aside = self.aside()?;
        let here = aside.0.join("got");
        let command = format!("get {} {}\n", self.there(name), quoted(&here.display().to_string()));
        match self.batch(&command)? {
            Ok(()) => std::fs::read(&here)
                .map(Some)
                .map_err(|error| WarehouseError::Away(format!("{}: {error}", here.display()))),
            Err(words) if words.contains("not found") || words.contains("No such file") => Ok(None),
            Err(words) => Err(WarehouseError::Refused(words)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), WarehouseError> {
        let aside = self.aside()?;
        let here = store::Folder::new(&aside.0);
        store::Store::put(&here, "put", bytes)?;
        let from = quoted(&format!("{}/put", here.location()));
        let upload = self.there(&format!(".{name}.new"));
        let commands = format!("put {from} {upload}\nrename {upload} {}\n", self.there(name));
        self.batch(&commands)?.map_err(WarehouseError::Refused)
    }
}

/// A server that takes files by PUT at an address, and gives the manifest back by GET where it can.
pub struct Http {
    base: String,
    token: Option<String>,
    http: http::Http,
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

impl Http {
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(base: &str, token: Option<&str>) -> Result<Http, WarehouseError> {
        Ok(Http {
            base: base.trim_end_matches('/').to_owned(),
            token: token.map(str::to_owned),
            http: http::Http::new(REQUEST_TIMEOUT)?,
        })
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<http::Reply, WarehouseError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        self.http
            .send(request)
            .map_err(|why| WarehouseError::Away(format!("{}: {why}", self.base)))
    }
}

impl Outlet for Http {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, WarehouseError> {
        let reply = self.send(self.http.client().get(format!("{}/{name}", self.base)))?;
        match reply.status {
            200 => Ok(Some(reply.body)),
            // A server that takes and does not give is one whose months are all sent again after a restart.
            404 | 405 => Ok(None),
            _ => Err(http::judge(&format!("HTTP GET {name}"), &reply)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), WarehouseError> {
        let kind = if name.ends_with(".json") {
            "application/json"
        } else {
            "text/csv; charset=utf-8; header=present"
        };
        let client = self.http.client();
        let request = client.put(format!("{}/{name}", self.base)).header("content-type", kind);
        let reply = self.send(request.body(bytes.to_vec()))?;
        match reply.status {
            200..=299 => Ok(()),
            _ => Err(http::judge(&format!("HTTP PUT {name}"), &reply)),
        }
    }
}
