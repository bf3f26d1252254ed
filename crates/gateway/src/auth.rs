//! Who may connect: HTTP Basic against the credentials file (security profile 1; ocpp-j 1.3).
//!
//! Owns the decision and the cost of making it. Ten thousand stations reconnect at once after a restart, so a password
//! check must be cheap or bounded:
//! * a fast salted hash is checked in a microsecond; it is meant for random keys, which is what OCPP asks for;
//! * a slow hash is computed on a few threads only (`credentials.slow_hash_threads`), the others wait in line until
//!   their handshake's time is over; what it proved is remembered as a keyed digest, so that a station pays once for
//!   each start of the gateway and each change of its password.

pub mod credentials;
pub mod hash_password;
pub mod metrics;
pub mod password;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dashmap::DashMap;
use ocpp_protocol::{Identity, IdentityKey, Version};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::credentials::{Credentials, CredentialsError};
use self::metrics::CredentialMetrics;
use self::password::StoredPassword;

/// The decision about one handshake.
#[derive(Debug)]
pub enum Decision {
    /// Let in, under the registered spelling of its identity.
    Admit(Identity),
    /// No such station.
    Unknown,
    /// No credentials, or not HTTP Basic.
    Missing,
    /// The user is not the identity, or the password is wrong.
    Wrong,
}

/// Checks credentials.
#[derive(Debug)]
pub struct Authenticator {
    file: PathBuf,
    credentials: ArcSwap<Credentials>,
    proved: DashMap<IdentityKey, [u8; 32]>,
    /// Random for each process: the digests of proved passwords are worth nothing outside it.
    process_key: [u8; 32],
    slow: Arc<Semaphore>,
    metrics: CredentialMetrics,
}

impl Authenticator {
    /// Reads the credentials file.
    ///
    /// # Errors
    /// When it cannot be read, with the line that is wrong.
    pub fn open(
        file: PathBuf,
        slow_threads: usize,
        metrics: CredentialMetrics,
    ) -> Result<Self, CredentialsError> {
        let credentials = Credentials::read(&file)?;
        tracing::info!(file = %file.display(), stations = credentials.len(), "credentials read");
        let process_key =
            Sha256::digest([uuid::Uuid::now_v7().into_bytes(), password::random_salt()].concat()).into();
        Ok(Self {
            file,
            credentials: ArcSwap::from_pointee(credentials),
            proved: DashMap::new(),
            process_key,
            slow: Arc::new(Semaphore::new(slow_threads)),
            metrics,
        })
    }

    /// Looks at the file again whenever it changed, until told to stop. A file that is wrong changes nothing.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut seen = credentials::stamp(&self.file);
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let now = credentials::stamp(&self.file);
            if now != seen {
                seen = now;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        match Credentials::read(&self.file) {
            Ok(credentials) => {
                tracing::info!(file = %self.file.display(), stations = credentials.len(), "credentials read again");
                self.proved.retain(|key, _| credentials.find(key).is_some());
                self.credentials.store(Arc::new(credentials));
                self.metrics.reloaded("loaded");
            }
            Err(error) => {
                tracing::error!(
                    error = ocpp_bus::chain(&error),
                    "the changed credentials file is not used; the former credentials stay in force"
                );
                self.metrics.reloaded("failed");
            }
        }
    }

    /// Decides about a station that presents this `Authorization` header. Cancel-safe.
    pub async fn decide(
        &self,
        identity: &Identity,
        version: Option<Version>,
        header: Option<&[u8]>,
    ) -> Decision {
        let key = identity.folded();
        let credentials = self.credentials.load_full();
        let Some(entry) = credentials.find(&key) else { return Decision::Unknown };
        let Some(presented) = header.and_then(basic) else { return Decision::Missing };
        let Some(password) = password_for(identity, &presented) else { return Decision::Wrong };
        let mut candidates = vec![password.to_vec()];
        if version.is_none_or(|version| version == Version::V16) {
            // Many 1.6 stations send the hex text of the key instead of its bytes (ocpp-j 1.3).
            candidates.extend(password::from_hex(password));
        }
        if self.any_matches(&key, &entry.password, candidates).await {
            Decision::Admit(entry.identity.clone())
        } else {
            Decision::Wrong
        }
    }

    async fn any_matches(
        &self,
        key: &IdentityKey,
        stored: &StoredPassword,
        candidates: Vec<Vec<u8>>,
    ) -> bool {
        if !stored.is_slow() {
            return candidates.iter().any(|candidate| stored.matches(candidate));
        }
        let digest_of = |candidate: &[u8]| self.digest(stored, candidate);
        if let Some(proved) = self.proved.get(key).map(|proved| *proved)
            && candidates.iter().any(|candidate| password::same(&digest_of(candidate), &proved))
        {
            return true;
        }
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&self.slow).acquire_owned().await else { return false };
        let stored = stored.clone();
        let computed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            candidates
                .into_iter()
                .find(|candidate| stored.matches(candidate))
                .map(|candidate| (stored, candidate))
        })
        .await;
        match computed {
            Ok(Some((stored, candidate))) => {
                self.proved.insert(key.clone(), self.digest(&stored, &candidate));
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::error!(%error, "a password check failed to run");
                false
            }
        }
    }

    /// Bound to the stored hash: a changed password makes what was proved before worthless.
    fn digest(&self, stored: &StoredPassword, candidate: &[u8]) -> [u8; 32] {
        let inner = Sha256::new()
            .chain_update(self.process_key)
            .chain_update(stored.as_str())
            .chain_update([0])
            .chain_update(candidate)
            .finalize();
        Sha256::new().chain_update(self.process_key).chain_update(inner).finalize().into()
    }
}

/// The decoded credentials of an HTTP Basic header; bytes, for a 1.6 password need not be UTF-8.
fn basic(header: &[u8]) -> Option<Vec<u8>> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = header.split_at(space);
    scheme.eq_ignore_ascii_case(b"basic").then(|| STANDARD.decode(rest.trim_ascii()).ok()).flatten()
}

/// The password, if the user is the identity in the URL. The identity may have colons in it on 1.6.
fn password_for<'a>(identity: &Identity, presented: &'a [u8]) -> Option<&'a [u8]> {
    let user = identity.as_str().as_bytes();
    let (prefix, rest) = presented.split_at_checked(user.len())?;
    let (colon, password) = rest.split_first()?;
    (prefix.eq_ignore_ascii_case(user) && *colon == b':').then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(vector: &str) -> Vec<u8> {
        basic(format!("Basic {vector}").as_bytes()).unwrap()
    }

    #[test]
    fn the_vectors_of_the_specifications() {
        let presented = decoded("QUwxMDAwOgABAgMEBQYH////////////////");
        let identity = Identity::parse("AL1000").unwrap();
        let mut key: Vec<u8> = (0..8).collect();
        key.extend([0xFF; 12]);
        assert_eq!(password_for(&identity, &presented).unwrap(), key);

        let presented = decoded("Q1AwMDE6ASNFZ4mrze/+3LqYdlQyEA8eLTw=");
        let identity = Identity::parse("CP001").unwrap();
        let password = password_for(&identity, &presented).unwrap();
        assert_eq!(password::from_hex(b"0123456789abcdeffedcba98765432100f1e2d3c").unwrap(), password);

        let presented = decoded("Q1MwMDE6YWJjREVGMTIzKi1fPTorfEAu");
        let identity = Identity::parse("CS001").unwrap();
        assert_eq!(password_for(&identity, &presented).unwrap(), b"abcDEF123*-_=:+|@.");
    }

    #[test]
    fn the_user_must_be_the_identity() {
        let identity = Identity::parse("CP001").unwrap();
        assert!(password_for(&identity, b"CP002:secret").is_none());
        assert!(password_for(&identity, b"CP0011:secret").is_none());
        assert!(password_for(&identity, b"CP001").is_none());
        assert_eq!(password_for(&identity, b"cp001:a:b").unwrap(), b"a:b");
    }

    #[test]
    fn what_is_not_basic_is_missing() {
        assert!(basic(b"Bearer abc").is_none());
        assert!(basic(b"Basic").is_none());
        assert!(basic(b"Basic !!!").is_none());
        assert!(basic(b"bAsIc  YTpi").is_some());
    }
}
