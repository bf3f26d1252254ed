//! HTTP Basic against the credentials file (security profile 1; ocpp-j 1.3).
//!
//! Owns reading the file again when it changes, and the cost of checking a password when every station reconnects at once:
//! * a fast salted hash takes a microsecond; it is meant for random keys, which is what OCPP asks for;
//! * a slow hash is computed on at most `credentials.slow_hash_threads` threads, and other handshakes wait for one of them
//!   until their time is over. A verified password is remembered as a keyed digest, so that a station pays once for each
//!   start of the gateway and each change of its password.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ocpp_protocol::{Identity, IdentityKey, Version};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::credentials::{Credentials, CredentialsError};
use super::metrics::CredentialMetrics;
use super::password::{self, StoredPassword};
use super::{Authenticate, AuthenticationError, Presented, basic};
use crate::file_stamp::FileStamp;

/// Authenticates the stations in the credentials file.
#[derive(Debug)]
pub struct FileAuthenticator {
    file: PathBuf,
    /// As the file was just before it was first read: a change during the start is not missed.
    first_stamp: FileStamp,
    credentials: ArcSwap<Credentials>,
    /// Digests of the passwords that matched a slow hash. Holds at most the stations in the file.
    verified: DashMap<IdentityKey, [u8; 32]>,
    /// Random for each process, so that the digests are useless outside it.
    process_key: [u8; 32],
    slow_hashes: Arc<Semaphore>,
    metrics: CredentialMetrics,
}

impl FileAuthenticator {
    /// Reads the credentials file.
    ///
    /// # Errors
    /// When it cannot be read, or with the number of the line that is wrong.
    pub fn open(
        file: PathBuf,
        slow_threads: usize,
        metrics: CredentialMetrics,
    ) -> Result<Self, CredentialsError> {
        let first_stamp = FileStamp::of(&file);
        let credentials = Credentials::read(&file)?;
        tracing::info!(file = %file.display(), stations = credentials.len(), "credentials read");
        let process_key =
            Sha256::digest([uuid::Uuid::now_v7().into_bytes(), password::random_salt()].concat()).into();
        Ok(Self {
            file,
            first_stamp,
            credentials: ArcSwap::from_pointee(credentials),
            verified: DashMap::new(),
            process_key,
            slow_hashes: Arc::new(Semaphore::new(slow_threads)),
            metrics,
        })
    }

    /// Reads the file again whenever it has changed, until stopped. If the changed file is wrong, the previous credentials
    /// stay in force.
    pub async fn watch(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut seen = self.first_stamp;
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let now = FileStamp::of(&self.file);
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
                self.verified.retain(|key, _| credentials.find(key).is_some());
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

    async fn check(&self, presented: Presented<'_>) -> Result<Identity, AuthenticationError> {
        let Presented { identity, version, authorization } = presented;
        let key = identity.folded();
        let credentials = self.credentials.load_full();
        let entry = credentials.find(&key).ok_or(AuthenticationError::UnknownStation)?;
        let user_password =
            authorization.and_then(basic::decode).ok_or(AuthenticationError::MissingCredentials)?;
        let password =
            basic::password_of(identity, &user_password).ok_or(AuthenticationError::WrongCredentials)?;
        let mut candidates = vec![password.to_vec()];
        if version.is_none_or(|version| version == Version::V16) {
            // Many 1.6 stations send the hex text of the key instead of its bytes (ocpp-j 1.3).
            candidates.extend(password::from_hex(password));
        }
        if self.any_matches(&key, &entry.password, candidates).await {
            Ok(entry.identity.clone())
        } else {
            Err(AuthenticationError::WrongCredentials)
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
        if let Some(verified) = self.verified.get(key).map(|verified| *verified)
            && candidates.iter().any(|candidate| password::same(&digest_of(candidate), &verified))
        {
            return true;
        }
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&self.slow_hashes).acquire_owned().await else { return false };
        let stored = stored.clone();
        // Not cancelled with the handshake: the permit stays with the thread until the hash is computed.
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
                self.verified.insert(key.clone(), self.digest(&stored, &candidate));
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::error!(%error, "a password check failed to run");
                false
            }
        }
    }

    /// Bound to the stored hash, so that a changed password invalidates it.
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

impl Authenticate for FileAuthenticator {
    fn authenticate<'a>(
        &'a self,
        presented: Presented<'a>,
    ) -> BoxFuture<'a, Result<Identity, AuthenticationError>> {
        self.check(presented).boxed()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use ocpp_bus::Registrar;
    use prometheus::Registry;

    use super::AuthenticationError::{MissingCredentials, UnknownStation, WrongCredentials};
    use super::*;

    const KEY: &[u8] = &[0x00, 0xFF, b':', 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    const HEX_KEY: &[u8] = b"00ff3a0405060708090A0b0c0d0e0f10";

    fn authenticator(lines: &[String]) -> (FileAuthenticator, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines.join("\n")).unwrap();
        let metrics = CredentialMetrics::register(&Registrar::new(Registry::new())).unwrap();
        (FileAuthenticator::open(file.path().to_owned(), 1, metrics).unwrap(), file)
    }

    fn basic(user: &str, password: &[u8]) -> Vec<u8> {
        let user_password = [user.as_bytes(), b":", password].concat();
        format!("Basic {}", STANDARD.encode(user_password)).into_bytes()
    }

    async fn decide(
        authenticator: &FileAuthenticator,
        identity: &str,
        version: Option<Version>,
        authorization: Option<Vec<u8>>,
    ) -> Result<String, AuthenticationError> {
        let identity = Identity::parse(identity).unwrap();
        let presented = Presented { identity: &identity, version, authorization: authorization.as_deref() };
        authenticator.authenticate(presented).await.map(|identity| identity.as_str().to_owned())
    }

    #[tokio::test]
    async fn a_station_connects_with_its_own_password_only() {
        let lines = [
            format!("CP-1:{}", password::hash_fast(KEY)),
            format!("CP-2:{}", password::hash_slow(KEY).unwrap()),
        ];
        let (authenticator, _file) = authenticator(&lines);
        let (v16, v201) = (Some(Version::V16), Some(Version::V201));
        for station in ["CP-1", "CP-2"] {
            let registered = || Ok(station.to_owned());
            let lower = station.to_lowercase();
            let cases = [
                (station, v16, Some(basic(station, KEY)), registered()),
                (station, v201, Some(basic(station, KEY)), registered()),
                // The second time, a slow hash is not computed again.
                (station, v16, Some(basic(station, KEY)), registered()),
                // In the spelling of the file, whatever the station's.
                (&lower, v16, Some(basic(&lower, KEY)), registered()),
                (&lower, v16, Some(basic(station, KEY)), registered()),
                // The hex text of the key: in 1.6, or when the version is not known.
                (station, v16, Some(basic(station, HEX_KEY)), registered()),
                (station, None, Some(basic(station, HEX_KEY)), registered()),
                (station, v201, Some(basic(station, HEX_KEY)), Err(WrongCredentials)),
                (station, v16, Some(basic(station, b"other")), Err(WrongCredentials)),
                (station, v16, Some(basic(station, b"")), Err(WrongCredentials)),
                (station, v16, Some(basic("CP-3", KEY)), Err(WrongCredentials)),
                (station, v16, None, Err(MissingCredentials)),
                (station, v16, Some(b"Bearer abc".to_vec()), Err(MissingCredentials)),
                (station, v16, Some(b"Basic !!!".to_vec()), Err(MissingCredentials)),
                ("CP-3", v16, Some(basic("CP-3", KEY)), Err(UnknownStation)),
                ("CP-3", v16, None, Err(UnknownStation)),
            ];
            for (identity, version, authorization, expected) in cases {
                let shown = authorization.as_deref().map(String::from_utf8_lossy).map(String::from);
                let decided = decide(&authenticator, identity, version, authorization).await;
                assert_eq!(decided, expected, "{identity} {version:?} {shown:?}");
            }
        }
        assert_eq!(authenticator.verified.len(), 1, "only a slow hash is remembered");
    }

    #[tokio::test]
    async fn a_changed_file_counts_from_its_next_reading() {
        let slow = |password: &[u8]| format!("CP-1:{}", password::hash_slow(password).unwrap());
        let (authenticator, file) = authenticator(&[slow(b"first")]);
        let decide = |password: &[u8]| decide(&authenticator, "CP-1", None, Some(basic("CP-1", password)));
        assert_eq!(decide(b"first").await, Ok("CP-1".to_owned()));

        std::fs::write(file.path(), slow(b"second")).unwrap();
        authenticator.reload();
        assert_eq!(decide(b"first").await, Err(WrongCredentials), "what was verified is void");
        assert_eq!(decide(b"second").await, Ok("CP-1".to_owned()));

        std::fs::write(file.path(), "nonsense").unwrap();
        authenticator.reload();
        assert_eq!(decide(b"second").await, Ok("CP-1".to_owned()), "a wrong file changes nothing");

        std::fs::write(file.path(), "").unwrap();
        authenticator.reload();
        assert_eq!(decide(b"second").await, Err(UnknownStation));
        assert!(authenticator.verified.is_empty());
    }

    #[tokio::test]
    async fn slow_hashes_wait_for_a_thread_and_fast_ones_do_not() {
        let lines = [
            format!("CP-1:{}", password::hash_fast(KEY)),
            format!("CP-2:{}", password::hash_slow(KEY).unwrap()),
        ];
        let (authenticator, _file) = authenticator(&lines);
        let only_thread = Arc::clone(&authenticator.slow_hashes).acquire_owned().await.unwrap();
        let mut slow = std::pin::pin!(decide(&authenticator, "CP-2", None, Some(basic("CP-2", KEY))));
        assert!(slow.as_mut().now_or_never().is_none());
        assert_eq!(
            decide(&authenticator, "CP-1", None, Some(basic("CP-1", KEY))).await,
            Ok("CP-1".to_owned())
        );
        drop(only_thread);
        assert_eq!(slow.await, Ok("CP-2".to_owned()));
    }
}
