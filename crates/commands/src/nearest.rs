//! The name that was probably meant by one that nobody has.

/// Above this two names are alike: `reset` and `Reset`, `CP-001` and `CP-16`, but not `Reboot` and `Reset`.
const ALIKE: f64 = 0.8;

/// Longer names are nobody's, and would cost too much to compare.
const LONGEST: usize = 64;

/// Of the known names the one most like this, in any case, if one is alike at all.
pub fn nearest<T: AsRef<str>>(name: &str, known: impl IntoIterator<Item = T>) -> Option<T> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase();
    let likeness = |other: &T| strsim::jaro_winkler(&name, &other.as_ref().to_lowercase());
    known
        .into_iter()
        .map(|other| (likeness(&other), other))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, other)| other)
}

/// A question to add to what is said about a wrong name; empty if none is alike.
pub fn did_you_mean<T: AsRef<str>>(nearest: Option<T>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {:?}?", name.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_case_or_its_letters() {
        let known = ["Reset", "ClearCache", "RemoteStartTransaction", "CP-16"];
        for (name, meant) in [
            ("reset", Some("Reset")),
            ("Rest", Some("Reset")),
            ("RemoteStart", Some("RemoteStartTransaction")),
            ("clear_cache", Some("ClearCache")),
            ("CP-001", Some("CP-16")),
            ("Reboot", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name}");
        }
        assert_eq!(did_you_mean(nearest("reset", known)), r#"; did you mean "Reset"?"#);
        assert_eq!(did_you_mean(nearest("x", known)), "");
    }
}
