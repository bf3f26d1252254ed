//! Who may connect: what a station presents in its handshake, and what an authenticator says to it.
//!
//! Owns the seam between the handshake and the ways to authenticate; each way is a file below. Whatever the way, its cost must
//! be bounded, because ten thousand stations may reconnect at once.

mod basic;
pub mod credentials;
pub mod file;
pub mod hash_password;
pub mod metrics;
pub mod options;
pub mod password;

use futures_util::future::BoxFuture;
use ocpp_protocol::{Identity, Version};

/// Decides which stations may connect.
///
/// A trait object, because the configuration chooses the implementation of each listener. The boxed future costs one
/// allocation a handshake.
pub trait Authenticate: std::fmt::Debug + Send + Sync {
    /// Returns the station's identity in its registered spelling.
    ///
    /// The future is dropped when the handshake's time is over, so it must be cancel-safe. At most
    /// `handshake.max_concurrent` are polled at once; one that uses a processor or a backend bounds that itself.
    fn authenticate<'a>(
        &'a self,
        presented: Presented<'a>,
    ) -> BoxFuture<'a, Result<Identity, AuthenticationError>>;
}

/// What a station presents to prove who it is.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The identity in the URL.
    pub identity: &'a Identity,
    /// The OCPP version, unless no subprotocol matches.
    pub version: Option<Version>,
    /// The `Authorization` header; bytes, because a 1.6 password need not be UTF-8.
    pub authorization: Option<&'a [u8]>,
}

/// Why a station may not connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// No station has this identity.
    #[error("the station is unknown")]
    UnknownStation,
    /// The station presents no credentials, or in a form that is not supported.
    #[error("the credentials are missing")]
    MissingCredentials,
    /// The user name is not the identity, or the password is wrong.
    #[error("the credentials are wrong")]
    WrongCredentials,
}
