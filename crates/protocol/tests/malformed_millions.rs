//! Parses two million damaged messages: none may cause a panic, a loop or a wrong answer.
//!
//! The generator is seeded, so a failure is reproducible. The counts at the end ensure that every kind
//! of malformed message occurred often, and valid messages too.

use ocpp_protocol::{
    AnswerContext, Frame, InboundAction, MalformedKind, Registration, Version, builtin, classify_call, parse,
    start_key, validate_request,
};

const FRAMES: usize = 2_000_000;

/// One text in this many is deeply nested; those take longest to generate.
const ONE_IN_DEEP: usize = 2_000;

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'t>(&mut self, choices: &[&'t str]) -> &'t str {
        choices[self.below(choices.len())]
    }
}

const TYPES: [&str; 14] = ["2", "2", "2", "3", "3", "4", "5", "6", "9", "0", "-1", "2.0", "\"2\"", "null"];
const IDS: [&str; 10] = [
    "\"19223201\"",
    "\"0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b\"",
    "\"0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b-too-long\"",
    r#""a\u0062\"c""#,
    r#""\ud800""#,
    "\"\"",
    "\"-1\"",
    "7",
    "null",
    "{\"id\":1}",
];
const ACTIONS: [&str; 8] = [
    "\"Heartbeat\"",
    "\"StartTransaction\"",
    "\"TransactionEvent\"",
    "\"NotifyPeriodicEventStream\"",
    "\"Nonsense\"",
    r#""\udc00""#,
    "5",
    "[]",
];
const PAYLOADS: [&str; 9] = [
    "{}",
    "null",
    r#"{"connectorId":1,"idTag":"A","timestamp":"2026-11-20T10:00:00Z","meterStart":0}"#,
    r#"{"seqNo":1,"idToken":{"idToken":"\u20ac","type":"Central"},"eventType":"Started"}"#,
    r#"{"connectorId":null,"x":[[[{"y":[]}]]],"x":1e308}"#,
    "[]",
    "7",
    "\"{}\"",
    "true",
];
const DAMAGE: [&str; 16] =
    ["[", "]", "{", "}", "\"", ",", ":", "\\", "0", "-", "e", "n", " ", "\u{0}", "\u{20ac}", "\u{feff}"];

fn message(random: &mut Random, out: &mut String) {
    out.clear();
    match random.below(200) {
        0 => out.push_str(random.pick(&["", " ", "\n\t ", "\r"])),
        1 => out.push_str(random.pick(&["{}", "null", "1", "\"2\"", "true", "[]", "[[]]"])),
        _ => array(random, out),
    }
}

fn array(random: &mut Random, out: &mut String) {
    out.push('[');
    for at in 0..random.below(5).max(random.below(5)) + 1 {
        if at > 0 {
            out.push(',');
        }
        out.push_str(match at {
            0 => random.pick(&TYPES),
            1 => random.pick(&IDS),
            2 => {
                // The payload of a result, or the action of anything else.
                if random.below(3) == 0 { random.pick(&PAYLOADS) } else { random.pick(&ACTIONS) }
            }
            3 => random.pick(&PAYLOADS),
            _ => random.pick(&["{}", "7"]),
        });
    }
    out.push(']');
}

fn damage(random: &mut Random, text: &mut String) {
    for _ in 0..random.below(4) {
        let at = text.floor_char_boundary(random.below(text.len() + 1));
        match random.below(4) {
            0 => text.truncate(at),
            1 => text.insert_str(at, random.pick(&DAMAGE)),
            2 if at < text.len() => drop(text.remove(at)),
            _ => {
                let copy = text[at..].to_owned();
                text.push_str(&copy);
            }
        }
    }
}

fn deepen(random: &mut Random, out: &mut String) {
    let levels = random.below(10_000);
    let (open, close) = if random.below(2) == 0 { ("[", "]") } else { ("{\"a\":", "}") };
    out.clear();
    out.push_str(random.pick(&[r#"[2,"1","DataTransfer",{"data":"#, r#"[3,"1",{"data":"#]));
    out.push_str(&open.repeat(levels));
    out.push('1');
    out.push_str(&close.repeat(levels));
    out.push_str("}]");
    if random.below(4) == 0 {
        out.truncate(random.below(out.len()));
    }
}

/// What the gateway does with a CALL it has read must not fail on any payload either.
fn use_frame(version: Version, frame: &Frame<'_>) {
    let Frame::Call(call) = frame else { return };
    let InboundAction::Known(action) = classify_call(version, &call.action) else { return };
    // Either outcome will do: the point is that there is one.
    let _judged = validate_request(version, action, call.payload);
    let context = AnswerContext {
        now: &|| "2026-11-20T10:00:00Z".to_owned(),
        registration: Registration::Accepted,
        interval_seconds: 300,
        transaction_id: Some(1),
        authorization: "Accepted",
        status: None,
    };
    let answer = builtin(version, action, call.payload, &context);
    assert!(answer.starts_with('{') && answer.ends_with('}'));
    assert!(!start_key(call.payload).canonical().is_empty());
}

#[test]
fn two_million_damaged_messages() {
    let mut random = Random(0x0c99_0016_0201_0021);
    let mut kinds = [0_usize; MalformedKind::ALL.len()];
    let (mut valid, mut replied) = (0_usize, 0_usize);
    let (mut text, mut reply) = (String::new(), String::new());
    for round in 0..FRAMES {
        if round % ONE_IN_DEEP == 0 {
            deepen(&mut random, &mut text);
        } else {
            message(&mut random, &mut text);
            if random.below(3) > 0 {
                damage(&mut random, &mut text);
            }
        }
        let version = Version::ALL[round % Version::ALL.len()];
        match parse(version, &text) {
            Ok(frame) => {
                valid += 1;
                use_frame(version, &frame);
            }
            Err(malformed) => {
                kinds[malformed.kind().index()] += 1;
                if let Some(answer) = malformed.reply(version) {
                    replied += 1;
                    reply.clear();
                    answer.write(&mut reply, version);
                    let read_back = parse(version, &reply);
                    assert!(
                        matches!(read_back, Ok(Frame::CallError(_) | Frame::CallResultError(_))),
                        "{text} got {reply}"
                    );
                }
            }
        }
    }
    assert_eq!(valid + kinds.iter().sum::<usize>(), FRAMES);
    println!("valid {valid}, malformed and answered {replied}");
    for kind in MalformedKind::ALL {
        let count = kinds[kind.index()];
        println!("{:<22}{count}", kind.as_str());
        assert!(count >= 200, "{} was met only {count} times", kind.as_str());
    }
    assert!(valid >= 50_000 && replied >= 50_000);
}
