//! Access tokens: asked for, kept, renewed.
//!
//! Owns: the OAuth 2.0 grants that accounting systems offer (RFC 6749, 4.4 and 6), and the file of a rotating refresh
//! token.
//! Invariant: a refresh token that a system gave is on the disk before the access token that came with it is used, so a
//! crash at any moment leaves one that works. One process renews at a time (a lock beside the file); the others read.
//! Absent: the first consent of a person in a browser; its refresh token is configuration. Clocks: a token is used until
//! its time by a monotonic clock is up or the system answers 401, whatever the wall clock says.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::http::{Ask, Http, Lost, Method, Reply, Url, form, sha256_hex, words};
use crate::config::{HttpUrl, OAuth, Secret};

/// A token is renewed this long before it ends.
const MARGIN: Duration = Duration::from_secs(60);
/// What a token is good for when the system does not say (RFC 6749, 5.1 only recommends `expires_in`).
const UNSAID: Duration = Duration::from_secs(5 * 60);

/// How the first token is had.
#[derive(Clone, Debug)]
pub enum Grant {
    /// The client is its own user.
    ClientCredentials { scope: Option<String> },
    /// A person consented once. `first` is the refresh token of that consent, `file` keeps what it became.
    Refresh { first: Secret, file: PathBuf },
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Client {
    pub token_url: Url,
    pub id: String,
    pub secret: Secret,
    pub grant: Grant,
}

impl Client {
    /// As configured; `token_url` is the system's own.
    ///
    /// # Errors
    /// The token address is none.
    pub fn of(oauth: &OAuth, token_url: Option<&str>, sink: &str) -> Result<Client, String> {
        let url = oauth
            .token_url
            .as_ref()
            .map(HttpUrl::as_str)
            .or(token_url)
            .unwrap_or_default();
        let token_url = Url::parse(url).map_err(|error| format!("the token address {url:?} is none: {error}"))?;
        let grant = match &oauth.refresh_token {
            None => Grant::ClientCredentials {
                scope: oauth.scope.clone(),
            },
            Some(first) => Grant::Refresh {
                first: first.clone(),
                file: oauth
                    .token_file
                    .clone()
                    .unwrap_or_else(|| format!("data/tokens/{sink}.json").into()),
            },
        };
        Ok(Client {
            token_url,
            id: oauth.client_id.clone(),
            secret: oauth.client_secret.clone(),
            grant,
        })
    }
}

/// The tokens of one system.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    http: Http,
    client: Client,
    access: Mutex<Option<Access>>,
}

struct Access {
    token: Secret,
    until: Instant,
}

/// The file: the refresh token of today, and the digest of the one it descends from, so that a new consent in the
/// configuration is noticed.
#[derive(Serialize, Deserialize)]
struct Kept {
    refresh_token: String,
    first_sha256: String,
}

impl Tokens {
    pub fn new(http: Http, client: Client) -> Tokens {
        Tokens(Arc::new(Inner {
            http,
            client,
            access: Mutex::new(None),
        }))
    }

    /// Asks with a token. A 401 means that nothing was done: the token is renewed and the request sent once more.
    pub async fn exchange(&self, ask: &Ask) -> Result<Reply, Lost> {
        let token = self.token(None).await?;
        let reply = self.0.http.exchange(ask, &bearer(&token)).await?;
        if reply.status != 401 {
            return Ok(reply);
        }
        let token = self.token(Some(token)).await?;
        self.0.http.exchange(ask, &bearer(&token)).await
    }

    /// A token that should work; another one than `refused`.
    async fn token(&self, refused: Option<Secret>) -> Result<Secret, Lost> {
        let inner = self.0.clone();
        // A task of its own: who asked may give up waiting, but a rotated token must reach the disk.
        tokio::spawn(async move { inner.token(refused.as_ref()).await })
            .await
            .map_err(|error| Lost::Unsent(error.to_string()))?
    }
}

impl Inner {
    async fn token(&self, refused: Option<&Secret>) -> Result<Secret, Lost> {
        let mut access = self.access.lock().await;
        if let Some(held) = access.as_ref()
            && refused != Some(&held.token)
            && Instant::now() < held.until
        {
            return Ok(held.token.clone());
        }
        // Nothing was sent to the ledger yet, whatever goes wrong here.
        let fresh = self.renew().await.map_err(Lost::Unsent)?;
        let token = fresh.token.clone();
        *access = Some(fresh);
        Ok(token)
    }

    async fn renew(&self) -> Result<Access, String> {
        match &self.client.grant {
            Grant::ClientCredentials { scope } => {
                let mut pairs = vec![("grant_type", "client_credentials")];
                pairs.extend(scope.as_deref().map(|scope| ("scope", scope)));
                self.ask(&pairs).await.map(|(access, _)| access)
            }
            Grant::Refresh { first, file } => {
                let path = file.clone();
                let lock = tokio::task::spawn_blocking(move || lock(&path))
                    .await
                    .map_err(|error| error.to_string())?
                    .map_err(|error| cannot("lock", file, &error))?;
                let now = current(first, file)?;
                let pairs = [("grant_type", "refresh_token"), ("refresh_token", now.reveal())];
                let (access, next) = self.ask(&pairs).await?;
                if let Some(next) = next.filter(|next| *next != now) {
                    keep(first, &next, file).map_err(|error| cannot("write", file, &error))?;
                }
                drop(lock);
                Ok(access)
            }
        }
    }

    /// The access token, and the refresh token that came with it.
    async fn ask(&self, pairs: &[(&str, &str)]) -> Result<(Access, Option<Secret>), String> {
        let asked = Instant::now();
        let ask = Ask {
            method: Method::POST,
            url: self.client.token_url.clone(),
            headers: Vec::new(),
            body: Some(("application/x-www-form-urlencoded", form(pairs))),
        };
        let who = BASE64.encode(format!("{}:{}", self.client.id, self.client.secret.reveal()));
        let reply = self.http.exchange(&ask, &format!("Basic {who}")).await;
        let reply = reply.map_err(|lost| format!("no access token: {lost}"))?;
        let said: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let text = |name: &str| said.get(name).and_then(Value::as_str);
        let (200, Some(token)) = (reply.status, text("access_token")) else {
            // The body may hold half of a token: only the standard's error words are repeated (RFC 6749, 5.2).
            let error = words(text("error").filter(|word| word.len() <= 40).unwrap_or("no error code"));
            let advice = match error.as_str() {
                "invalid_grant" => {
                    "the consent has ended or was withdrawn: connect the app again, and configure the new refresh token"
                }
                "invalid_client" | "unauthorized_client" => "check client_id and client_secret",
                _ => "check the token address and the app's settings",
            };
            return Err(format!("no access token: HTTP {} {error}; {advice}", reply.status));
        };
        let lasts = said["expires_in"].as_u64().map_or(UNSAID, Duration::from_secs);
        let lasts = lasts
            .saturating_sub(MARGIN)
            .max(lasts / 2)
            .min(Duration::from_secs(24 * 60 * 60));
        let access = Access {
            token: Secret::new(token.to_owned()),
            until: asked + lasts,
        };
        Ok((access, text("refresh_token").map(|text| Secret::new(text.to_owned()))))
    }
}

fn bearer(token: &Secret) -> String {
    format!("Bearer {}", token.reveal())
}

fn cannot(what: &str, file: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} the token file {}: {error}", file.display())
}

/// The refresh token to use: the kept one, unless it descends from another consent than the configured one.
fn current(first: &Secret, file: &Path) -> Result<Secret, String> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(first.clone()),
        Err(error) => return Err(cannot("read", file, &error)),
    };
    // serde's words could quote the token.
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| {
        format!(
            "the token file {} is damaged; remove it and connect the app again",
            file.display()
        )
    })?;
    Ok(match kept.first_sha256 == sha256_hex(first.reveal().as_bytes()) {
        true => Secret::new(kept.refresh_token),
        false => first.clone(),
    })
}

/// Durable under its own name or not at all.
fn keep(first: &Secret, next: &Secret, file: &Path) -> std::io::Result<()> {
    let kept = Kept {
        refresh_token: next.reveal().to_owned(),
        first_sha256: sha256_hex(first.reveal().as_bytes()),
    };
    let fresh = file.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&fresh)?;
    out.write_all(&serde_json::to_vec(&kept)?)?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    File::open(folder(file))?.sync_all()
}

fn lock(file: &Path) -> std::io::Result<File> {
    fs::create_dir_all(folder(file))?;
    let lock = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(file.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_new_consent_replaces_what_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens.json");
        let first = secret("first-refresh-token");
        assert_eq!(current(&first, &file).unwrap(), first);
        keep(&first, &secret("second-refresh-token"), &file).unwrap();
        assert_eq!(current(&first, &file).unwrap(), secret("second-refresh-token"));
        assert_eq!(current(&secret("new consent"), &file).unwrap(), secret("new consent"));
    }

    #[test]
    fn a_damaged_file_is_named_and_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens.json");
        fs::write(&file, "{\"refresh_token\":\"half-a-secr").unwrap();
        let error = current(&secret("x"), &file).unwrap_err();
        assert!(error.contains("damaged") && !error.contains("half-a-secr"), "{error}");
    }
}
