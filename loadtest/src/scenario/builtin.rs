//! The scenarios built into the binary: the files of `loadtest/scenarios/`.

/// Name and text of each built-in scenario.
pub const SCENARIOS: &[(&str, &str)] = &[
    ("reference-12k", include_str!("../../scenarios/reference-12k.toml")),
    ("busy-12k", include_str!("../../scenarios/busy-12k.toml")),
    ("storm", include_str!("../../scenarios/storm.toml")),
    ("idle", include_str!("../../scenarios/idle.toml")),
    ("slow-readers", include_str!("../../scenarios/slow-readers.toml")),
    ("chatty", include_str!("../../scenarios/chatty.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
    ("fifty-k", include_str!("../../scenarios/fifty-k.toml")),
    ("quick", include_str!("../../scenarios/quick.toml")),
];

/// Returns the text of the scenario with this name.
pub fn find(name: &str) -> Option<&'static str> {
    SCENARIOS.iter().find(|scenario| scenario.0 == name).map(|scenario| scenario.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_scenario_is_valid_and_says_what_it_is_for() {
        for (name, text) in SCENARIOS {
            let scenario = Scenario::parse(name, text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!scenario.about.is_empty(), "{name} says nothing about itself");
        }
    }

    #[test]
    fn every_file_is_built_in() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).unwrap();
        let mut files: Vec<_> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let mut names: Vec<_> = SCENARIOS.iter().map(|(name, _)| format!("{name}.toml")).collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
    }

    #[test]
    fn the_reference_has_the_rate_of_the_reference() {
        // 637,652 messages in 10 minutes, on 12,000 connections.
        let scenario = Scenario::parse("reference-12k", find("reference-12k").unwrap()).unwrap();
        assert_eq!(scenario.stations, 12_000);
        assert_eq!(scenario.duration.as_secs(), 600);
        assert!((1050.0..1070.0).contains(&scenario.traffic.messages_per_second));
        let busy = Scenario::parse("busy-12k", find("busy-12k").unwrap()).unwrap();
        assert!(busy.traffic.messages_per_second >= 10.0 * scenario.traffic.messages_per_second);
    }
}
