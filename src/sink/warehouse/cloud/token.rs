//! Tokens signed with a private key (RFC 7519 with RS256), by which a service says who it is.
//!
//! Invariant: neither key nor token is in any message. Absent: checking tokens, and keys with a passphrase.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::WarehouseError;
use super::http::Answer;

/// An RSA private key.
pub(super) struct Key(PKey<Private>);

impl Key {
    /// From PKCS #8 or PKCS #1 in PEM.
    pub(super) fn from_pem(pem: &str) -> Result<Key, WarehouseError> {
        let key = PKey::private_key_from_pem(pem.as_bytes())
            .ok()
            .filter(|key| key.rsa().is_ok());
        key.map(Key).ok_or_else(|| {
            WarehouseError::Refused(
                "the private key is no RSA key in PEM without a passphrase; it starts with -----BEGIN PRIVATE KEY-----"
                    .to_owned(),
            )
        })
    }

    /// `SHA256:` and the digest of the public key, as Snowflake's `DESCRIBE USER` shows it.
    pub(super) fn fingerprint(&self) -> Result<String, WarehouseError> {
        let public = self.0.public_key_to_der().map_err(|error| unsigned(&error))?;
        Ok(format!("SHA256:{}", STANDARD.encode(Sha256::digest(public))))
    }

    /// The token that makes these claims.
    pub(super) fn sign(&self, claims: &Json) -> Result<String, WarehouseError> {
        let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let said = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &self.0).map_err(|error| unsigned(&error))?;
        let signature = signer
            .sign_oneshot_to_vec(said.as_bytes())
            .map_err(|error| unsigned(&error))?;
        Ok(format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn unsigned(error: &openssl::error::ErrorStack) -> WarehouseError {
    WarehouseError::Refused(format!("the private key does not sign: {error}"))
}

/// A token and until when it is used.
pub(super) struct Held {
    pub(super) token: String,
    /// Seconds since 1970.
    pub(super) until: i64,
}

/// The token in use, if there is one.
#[derive(Default)]
pub(super) struct Bearer(RefCell<Option<Held>>);

impl Bearer {
    /// Sends with a token. One that is no longer taken (401) is made anew, once; `send` is told that it is the second time.
    pub(super) fn call(
        &self,
        make: impl Fn() -> Result<Held, WarehouseError>,
        send: impl Fn(&str, bool) -> Result<Answer, WarehouseError>,
    ) -> Result<Answer, WarehouseError> {
        let held = self.0.take().filter(|held| now() < held.until);
        let with = |held: Held, again: bool| {
            let answer = send(&held.token, again);
            self.0.replace(Some(held));
            answer
        };
        match with(held.map_or_else(&make, Ok)?, false) {
            Ok(answer) if answer.status == 401 => with(make()?, true),
            answer => answer,
        }
    }
}

/// The machine's clock: vendors check when a token was made.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
