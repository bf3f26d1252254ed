//! How each version reads and answers malformed texts, compared with `golden/malformed.txt`.
//!
//! Each block of that file is a text between bars and, per version, how it is read and what is sent
//! back (`-` for nothing). The test generates the file again from its texts and compares the two.
//! After an intended change, build with `UPDATE_GOLDEN=1` in the environment to rewrite the file, and
//! review the difference: it is the change of behaviour.

use std::path::Path;

use ocpp_protocol::{Frame, Version, parse};

fn describe(version: Version, text: &str) -> String {
    match parse(version, text) {
        Ok(frame) => match frame {
            Frame::Call(_) => String::from("CALL"),
            Frame::CallResult(_) => String::from("CALLRESULT"),
            Frame::CallError(_) => String::from("CALLERROR"),
            Frame::CallResultError(_) => String::from("CALLRESULTERROR"),
            Frame::Send(_) => String::from("SEND"),
        },
        Err(malformed) => {
            let mut reply = String::from("-");
            if let Some(answer) = malformed.reply(version) {
                reply.clear();
                answer.write(&mut reply, version);
            }
            let ended = malformed
                .answers_our_call()
                .map(|id| format!("  (ends our call {})", id.decoded()))
                .unwrap_or_default();
            format!("{}  {reply}{ended}", malformed.kind().as_str())
        }
    }
}

fn render(golden: &str) -> String {
    let mut lines = Vec::new();
    for line in golden.lines() {
        if line.is_empty() || line.starts_with('#') {
            lines.push(line.to_owned());
        } else if let Some(text) = line.strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) {
            lines.push(line.to_owned());
            let of_version =
                |version: Version| format!("  {:<5}  {}", version.as_str(), describe(version, text));
            lines.extend(Version::ALL.map(of_version));
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn malformed_texts_get_their_versions_answer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/malformed.txt");
    let golden = std::fs::read_to_string(&path).unwrap();
    let rendered = render(&golden);
    assert!(rendered.matches("\n|").count() >= 40, "the table has lost its texts");
    if option_env!("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    assert_eq!(rendered, golden);
}
