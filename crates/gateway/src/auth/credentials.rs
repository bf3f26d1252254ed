//! The credentials file: one `identity:hash` a line, `#` for comments. Owns its format; an identity appears once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ocpp_protocol::{Identity, IdentityKey};

use super::password::StoredPassword;

/// The contents of a credentials file.
#[derive(Debug, Default)]
pub struct Credentials {
    stations: HashMap<IdentityKey, Entry>,
}

/// One station.
#[derive(Debug)]
pub struct Entry {
    /// The identity in its registered spelling.
    pub identity: Identity,
    /// Its password.
    pub password: StoredPassword,
}

/// Why a credentials file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read the credentials file {path}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A line does not have the form of the file.
    #[error("credentials file {path}, line {line}: {what}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong; never the password.
        what: String,
    },
}

impl Credentials {
    /// Reads and parses the whole file.
    ///
    /// # Errors
    /// When it cannot be read, or with the number of the first line that is wrong.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| CredentialsError::Unreadable { path: path.to_path_buf(), source })?;
        let mut credentials = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            credentials.add(line).map_err(|what| CredentialsError::Line {
                path: path.to_path_buf(),
                line: number + 1,
                what,
            })?;
        }
        Ok(credentials)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        // A 1.6 identity may contain colons; a hash begins with a dollar sign.
        let (identity, hash) = line.split_once(":$").ok_or("expected identity:$hash")?;
        let identity = Identity::parse(identity).map_err(|error| error.to_string())?;
        let password = StoredPassword::parse(&format!("${hash}"))?;
        let entry = Entry { identity, password };
        match self.stations.insert(entry.identity.folded(), entry) {
            None => Ok(()),
            Some(former) => Err(format!(
                "{} is there twice (spellings that differ in case are the same)",
                former.identity
            )),
        }
    }

    /// The entry of a station, if it has one.
    pub fn find(&self, key: &IdentityKey) -> Option<&Entry> {
        self.stations.get(key)
    }

    /// The number of stations.
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// Whether the file names no station.
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::auth::password::hash_fast;

    fn read(text: &str) -> Result<Credentials, CredentialsError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Credentials::read(file.path())
    }

    #[test]
    fn a_file_is_read_with_comments_and_colons() {
        let hash = hash_fast(b"secret");
        let credentials = read(&format!("# stations\n\nCP-1:{hash}\nDE:A:2:{hash}\n")).unwrap();
        assert_eq!(credentials.len(), 2);
        assert_eq!(credentials.find(&IdentityKey::of("cp-1")).unwrap().identity.as_str(), "CP-1");
        assert!(credentials.find(&IdentityKey::of("DE:A:2")).is_some());
    }

    #[test]
    fn a_wrong_line_is_named() {
        let hash = hash_fast(b"secret");
        let error = read(&format!("CP-1:{hash}\nCP-2:plain\n")).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("plain"), "{error}");
        let error = read(&format!("CP-1:{hash}\ncp-1:{hash}\n")).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("twice"), "{error}");
    }
}
