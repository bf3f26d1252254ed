//! HTTP Basic (RFC 7617) as OCPP uses it: the user name is the station's identity (ocpp-j 1.3).
//!
//! Owns parsing the header. Everything is bytes, because a 1.6 password need not be UTF-8.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocpp_protocol::Identity;

/// Decodes an `Authorization` header into `user:password`; none if the scheme is not Basic.
pub(super) fn decode(header: &[u8]) -> Option<Vec<u8>> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = header.split_at(space);
    scheme.eq_ignore_ascii_case(b"basic").then(|| STANDARD.decode(rest.trim_ascii()).ok()).flatten()
}

/// The password in `user:password`, if the user name is the identity in the URL. A 1.6 identity may contain colons.
pub(super) fn password_of<'a>(identity: &Identity, user_password: &'a [u8]) -> Option<&'a [u8]> {
    let user = identity.as_str().as_bytes();
    let (prefix, rest) = user_password.split_at_checked(user.len())?;
    let (colon, password) = rest.split_first()?;
    (prefix.eq_ignore_ascii_case(user) && *colon == b':').then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password;

    fn decoded(vector: &str) -> Vec<u8> {
        decode(format!("Basic {vector}").as_bytes()).unwrap()
    }

    #[test]
    fn the_examples_of_the_specifications() {
        let presented = decoded("QUwxMDAwOgABAgMEBQYH////////////////");
        let identity = Identity::parse("AL1000").unwrap();
        let mut key: Vec<u8> = (0..8).collect();
        key.extend([0xFF; 12]);
        assert_eq!(password_of(&identity, &presented).unwrap(), key);

        let presented = decoded("Q1AwMDE6ASNFZ4mrze/+3LqYdlQyEA8eLTw=");
        let identity = Identity::parse("CP001").unwrap();
        let password = password_of(&identity, &presented).unwrap();
        assert_eq!(password::from_hex(b"0123456789abcdeffedcba98765432100f1e2d3c").unwrap(), password);

        let presented = decoded("Q1MwMDE6YWJjREVGMTIzKi1fPTorfEAu");
        let identity = Identity::parse("CS001").unwrap();
        assert_eq!(password_of(&identity, &presented).unwrap(), b"abcDEF123*-_=:+|@.");
    }

    #[test]
    fn the_user_must_be_the_identity() {
        let identity = Identity::parse("CP001").unwrap();
        assert!(password_of(&identity, b"CP002:secret").is_none());
        assert!(password_of(&identity, b"CP0011:secret").is_none());
        assert!(password_of(&identity, b"CP001").is_none());
        assert_eq!(password_of(&identity, b"cp001:a:b").unwrap(), b"a:b");
    }

    #[test]
    fn only_the_basic_scheme_is_decoded() {
        assert!(decode(b"Bearer abc").is_none());
        assert!(decode(b"Basic").is_none());
        assert!(decode(b"Basic !!!").is_none());
        assert!(decode(b"bAsIc  YTpi").is_some());
    }
}
