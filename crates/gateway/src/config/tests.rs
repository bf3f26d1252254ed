//! The configuration as an operator meets it.

use std::io::Write;

use ocpp_station::host::Fallback;

use super::*;
use ocpp_station::options::Authorization;

fn load(text: &str) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Config::load(Some(file.path()), &[])
}

fn error(text: &str) -> String {
    let error = load(text).unwrap_err().to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    error
}

#[test]
fn nothing_written_means_the_defaults() {
    let config = load("").unwrap();
    assert_eq!(config.listeners["main"].address.port(), 9000);
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9100");
    assert_eq!(config.bus.kind, BusKind::Local);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let text = error("[session]\nidle_timout = \"5m\"\n");
    assert!(text.contains("`session.idle_timout`") && text.contains("`session.idle_timeout`"), "{text}");
    let text = error("[listeners.lan]\nadress = \"0.0.0.0:1\"\n");
    assert!(text.contains("`listeners.lan.adress`") && text.contains("address"), "{text}");
    let text = error("[buss]\nkind = \"local\"\n");
    assert!(text.contains("`buss`") && text.contains("`bus`"), "{text}");
}

#[test]
fn a_wrong_value_is_named_with_its_key() {
    for (text, key) in [
        ("[session]\nidle_timeout = \"soon\"\n", "session.idle_timeout"),
        ("[bus]\nkind = \"rabbit\"\n", "bus.kind"),
        ("[listeners.main]\naddress = \"here\"\n", "listeners.main.address"),
        ("[session]\nmax_message_size = \"many\"\n", "session.max_message_size"),
    ] {
        let message = error(text);
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn everything_that_cannot_be_read_is_named_at_once() {
    let text = "[node]\nworker_threads = \"many\"\n\
                [session]\nidle_timeout = \"soon\"\nmax_message_size = \"much\"\nping = 1\n\
                [listeners.main]\naddress = \"here\"\n[listeners.lan]\naddress = \"there\"\n\
                [bus]\nkind = \"rabbit\"\n[buss]\nkind = 1\n";
    let ConfigError(problems) = load(text).unwrap_err();
    let keys = [
        "`session.ping`",
        "`buss`",
        "`node.worker_threads`",
        "`session.idle_timeout`",
        "`session.max_message_size`",
        "`listeners.main.address`",
        "`listeners.lan.address`",
        "`bus.kind`",
    ];
    assert!(keys.iter().all(|key| problems.iter().any(|problem| problem.contains(key))), "{problems:#?}");
    assert_eq!(problems.len(), keys.len(), "{problems:#?}");
    let text = error("[session]\nping = 1\ncommand_queue = 0\n");
    assert!(
        text.contains("`session.ping`") && text.contains("command_queue"),
        "values are judged, too: {text}"
    );
}

#[test]
fn addresses_that_include_one_another_are_refused() {
    for (one, other, are_refused) in [
        ("0.0.0.0:1", "127.0.0.1:1", true),
        ("127.0.0.1:1", "0.0.0.0:1", true),
        ("[::]:1", "127.0.0.1:1", true),
        ("0.0.0.0:1", "[::1]:1", false),
        ("127.0.0.1:1", "127.0.0.2:1", false),
        ("127.0.0.1:1", "127.0.0.1:2", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
    ] {
        let text = format!("[listeners.main]\naddress = \"{one}\"\n[listeners.lan]\naddress = \"{other}\"\n");
        assert_eq!(load(&text).is_err(), are_refused, "{one} and {other}");
    }
}

#[test]
fn senseless_values_are_refused_together() {
    let text = error("[session]\nping_interval = \"1h\"\ncommand_queue = 0\n");
    assert!(text.contains("ping_interval") && text.contains("command_queue"), "{text}");
    let text = error("[listeners.main]\nauth = \"basic\"\n");
    assert!(text.contains("credentials.file"), "{text}");
    let text = error("[listeners.main]\naddress = \"127.0.0.1:9100\"\n");
    assert!(text.contains("admin.address"), "{text}");
}

#[test]
fn kafka_options_keep_their_dots_however_they_are_written() {
    let config =
        load("[bus.kafka.options]\n\"security.protocol\" = \"SSL\"\nsocket.timeout.ms = 1500\n").unwrap();
    assert_eq!(config.bus.kafka.options.0["security.protocol"], "SSL");
    assert_eq!(config.bus.kafka.options.0["socket.timeout.ms"], "1500");
    assert!(!format!("{config:?}").contains("SSL"), "values may be passwords");
}

#[test]
fn kafka_options_are_checked_before_anything_starts() {
    let text = error("[bus]\nkind = \"kafka\"\n[bus.kafka.options]\n\"acks\" = \"1\"\n");
    assert!(text.contains("acks"), "{text}");
    let text = error("[bus]\nkind = \"kafka\"\n[bus.kafka.options]\n\"ssl.ca.locaton\" = \"x\"\n");
    assert!(text.contains("ssl.ca.locaton"), "{text}");
}

#[test]
fn an_action_has_a_table_of_its_own() {
    let config = load(
        "[answers]\nauthorization = \"Invalid\"\n[answers.Authorize]\nby = \"backend\"\ndeadline = \"2s\"\n\
         [answers.StartTransaction]\nurl = \"http://127.0.0.1:1/start\"\nfallback = \"error\"\n",
    )
    .unwrap();
    assert_eq!(config.answers.authorization, Authorization::Invalid);
    let authorize = &config.answers.actions["Authorize"];
    assert!(authorize.is_by_backend() && authorize.deadline.as_secs() == 2);
    assert_eq!((authorize.fallback, authorize.fallback_status.as_str()), (Fallback::Reject, ""));
    let start = &config.answers.actions["StartTransaction"];
    assert!(start.is_by_backend(), "a URL implies it");
    assert_eq!((start.fallback, start.deadline.as_secs()), (Fallback::Error, 5));
    assert_eq!(config.answers.actions.len(), 2);
}

#[test]
fn an_action_may_be_in_the_environments_case() {
    // An override goes through the same door as the environment, whose keys are all in one case.
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(b"[answers.Authorize]\nurl = \"http://127.0.0.1:1/\"\ndeadline = \"2s\"\n").unwrap();
    let over = ("answers.authorize.deadline".to_owned(), "3s".to_owned());
    let config = Config::load(Some(file.path()), &[over]).unwrap();
    let authorize = &config.answers.actions["Authorize"];
    assert_eq!((authorize.deadline.as_secs(), authorize.url.as_str()), (3, "http://127.0.0.1:1/"));
}

#[test]
fn what_is_wrong_about_an_answer_is_named() {
    for (text, words) in [
        ("[answers.Autorize]\nby = \"backend\"\n", ["`answers.Autorize`", "`answers.Authorize`"]),
        ("[answers.Authorize]\nurrl = \"\"\n", ["`answers.Authorize.urrl`", "`answers.Authorize.url`"]),
        ("[answers.MeterValues]\ndeadlin = \"1s\"\n", ["`answers.MeterValues.deadlin`", ".deadline`"]),
        ("[answers]\nauthorisation = \"Invalid\"\n", ["`answers.authorisation`", "`answers.authorization`"]),
        ("[answers.Reset]\nby = \"backend\"\n", ["answers.Reset", "never call"]),
        ("[answers.NotifyPeriodicEventStream]\nby = \"backend\"\n", ["answers.Notify", "never call"]),
        ("[answers]\nAuthorize = \"backend\"\n", ["answers.Authorize", "table"]),
        ("[answers.Authorize]\nby = \"me\"\n", ["answers.Authorize", "backend"]),
        ("[answers.Authorize]\ndeadline = \"0s\"\n", ["answers.Authorize.deadline", "between"]),
        ("[answers.Authorize]\ndeadline = \"1h\"\n", ["answers.Authorize.deadline", "between"]),
        (
            "[answers.Authorize]\nfallback_status = \"Acepted\"\n",
            ["fallback_status", "Blocked, ConcurrentTx"],
        ),
        ("[answers.Authorize]\nfallback_status = \"Accepted\"\n", ["fallback_status", "not one of"]),
        ("[answers.MeterValues]\nfallback_status = \"Invalid\"\n", ["MeterValues", "no status"]),
        (
            "[answers.Authorize]\nfallback = \"error\"\nfallback_status = \"Invalid\"\n",
            ["fallback_status", "needs answers.Authorize.fallback"],
        ),
        ("[answers.Authorize]\nurl = \"ftp://x/\"\n", ["answers.Authorize.url", "http://"]),
        ("[answers.Authorize]\nurl = \"http://u:p@x/\"\n", ["answers.Authorize.url", "bearer_token_file"]),
        ("[answers.Authorize]\nbearer_token_file = \"x\"\n", ["bearer_token_file", "needs"]),
        ("[hooks]\nmax_in_flight = 0\nbreaker_failures = 0\n", ["max_in_flight", "breaker_failures"]),
    ] {
        let message = error(text);
        assert!(words.iter().all(|word| message.contains(word)), "{text}: {message}");
    }
}

#[test]
fn overrides_come_last() {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(b"[node]\nid = \"from-file\"\n").unwrap();
    let config = Config::load(Some(file.path()), &[("node.id".into(), "from-flag".into())]).unwrap();
    assert_eq!(config.node.id, "from-flag");
}

#[test]
fn the_commented_file_says_the_defaults() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let path = PathBuf::from(format!("{root}/deploy/ocpp-gateway.toml"));
    let config = Config::load(Some(&path), &[]).unwrap();
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written, Config::key_tree());
    assert!(!config.answers.actions["Authorize"].is_by_backend(), "as without the table");
}
