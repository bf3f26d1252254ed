//! Stored passwords: their form in the credentials file, and whether one matches.
//!
//! There are two kinds. `$sha256$SALT$HASH` (hex) is one salted SHA-256, for random keys of 16 bytes or more: nobody guesses
//! those, however fast the hash is. `$argon2id$…` is a PHC string, for passwords that people chose. Passwords are bytes, not
//! text (ocpp-j 1.3).

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use sha2::{Digest, Sha256};

const FAST: &str = "$sha256$";
const SLOW: &str = "$argon2";

/// A hashed password in the form of the credentials file.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredPassword(String);

/// Hashes stay out of logs.
impl std::fmt::Debug for StoredPassword {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.is_slow() { "$argon2…" } else { "$sha256…" })
    }
}

impl StoredPassword {
    /// Parses a hash of either kind.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix(FAST) {
            let valid = rest
                .split_once('$')
                .and_then(|(salt, hash)| Some((from_hex_any(salt)?, from_hex_any(hash)?)))
                .is_some_and(|(salt, hash)| salt.len() >= 8 && hash.len() == 32);
            return if valid {
                Ok(Self(text.to_owned()))
            } else {
                Err("$sha256$ needs a salt of at least 16 hex digits, $, and a hash of 64 hex digits".into())
            };
        }
        if text.starts_with(SLOW) {
            return match PasswordHash::new(text) {
                Ok(_) => Ok(Self(text.to_owned())),
                Err(error) => Err(format!("not an Argon2 hash: {error}")),
            };
        }
        Err("the hash must begin with $sha256$ or $argon2id$; `ocpp-gateway hash-password` makes one".into())
    }

    /// Whether [`matches`](Self::matches) is slow on purpose.
    pub fn is_slow(&self) -> bool {
        self.0.starts_with(SLOW)
    }

    /// The text in the file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the password. Takes tens of milliseconds for a slow hash.
    pub fn matches(&self, password: &[u8]) -> bool {
        if self.is_slow() {
            return PasswordHash::new(&self.0)
                .is_ok_and(|stored| Argon2::default().verify_password(password, &stored).is_ok());
        }
        self.0
            .strip_prefix(FAST)
            .and_then(|rest| rest.split_once('$'))
            .and_then(|(salt, hash)| Some((from_hex_any(salt)?, from_hex_any(hash)?)))
            .is_some_and(|(salt, hash)| same(&digest(&salt, password), &hash))
    }
}

/// Hashes a random key, with a new salt.
pub fn hash_fast(password: &[u8]) -> String {
    let salt = random_salt();
    format!("{FAST}{}${}", to_hex(&salt), to_hex(&digest(&salt, password)))
}

/// Hashes a password that somebody chose, with a new salt.
///
/// # Errors
/// When Argon2 fails, for instance for want of memory.
pub fn hash_slow(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password)?.to_string())
}

/// 16 bytes, of which 122 bits are random (a version 4 UUID).
pub fn random_salt() -> [u8; 16] {
    uuid::Uuid::new_v4().into_bytes()
}

/// Decodes a 1.6 key sent as hex text: 32 to 40 digits (OCPP 1.6 security white paper, A00.FR.205).
pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    (32..=40).contains(&text.len()).then(|| from_hex_any(text)).flatten()
}

/// Decodes hex text of any even length.
pub fn from_hex_any(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Compares in a time that depends on the lengths only.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

fn digest(salt: &[u8], password: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(password).finalize().into()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_matches_its_password_and_no_other() {
        let password = [0x00, 0xFF, b':', b'a'];
        for hash in [hash_fast(&password), hash_slow(&password).unwrap()] {
            let stored = StoredPassword::parse(&hash).unwrap();
            assert!(stored.matches(&password));
            assert!(!stored.matches(b"other"));
            assert!(!format!("{stored:?}").contains(&hash[20..]));
        }
        assert_ne!(hash_fast(&password), hash_fast(&password), "salted");
    }

    #[test]
    fn malformed_hashes_are_refused() {
        for text in ["", "secret", "$sha256$", "$sha256$00$00", "$sha256$zz$00", "$argon2id$nonsense"] {
            assert!(StoredPassword::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hex_is_decoded_in_either_case_and_only_at_the_right_length() {
        assert_eq!(from_hex(b"000102030405060708090A0b0c0d0e0F").unwrap(), (0..16).collect::<Vec<u8>>());
        assert!(from_hex(b"0001").is_none());
        assert!(from_hex(b"000102030405060708090A0b0c0d0e0").is_none());
        assert!(from_hex("é00102030405060708090A0b0c0d0e0F".as_bytes()).is_none());
    }
}
