//! The events of a stream do not depend on how it is split. Runs 1,000 streams; set `PROPTEST_CASES` for more.

mod common;

use common::*;
use ocpp_websocket::{Deflate, Encoder};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const LIMIT: usize = 4000;

/// A frame that may or may not be lawful where it stands.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => Just(FIN | TEXT),
        2 => Just(TEXT),
        2 => Just(CONTINUATION),
        3 => Just(FIN | CONTINUATION),
        1 => Just(FIN | BINARY),
        1 => Just(FIN | PING),
        1 => Just(FIN | PONG),
        1 => Just(FIN | CLOSE),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => "\\PC{0,40}".prop_map(String::into_bytes),
        2 => "[a-z\u{e9}\u{20ac}\u{1f600}]{100,150}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => Just(vec![b'x'; 3000]),
    ];
    let deflated = "[ab]{60,2000}".prop_map(|text| {
        let encoder = Encoder { deflate: Some(Deflate::default()), compress_above: 0 };
        let mut encoded = Vec::new();
        let length = encoder.text(&mut encoded, &text).unwrap_or_default();
        frame(FIN | RSV1 | TEXT, &encoded[encoded.len() - length..])
    });
    prop_oneof![6 => (first, payload).prop_map(|(first, payload)| frame(first, &payload)), 1 => deflated]
}

fn pieces(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1000),
        rng_seed: RngSeed::Fixed(7692),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn cutting_a_stream_changes_nothing(
        frames in prop::collection::vec(any_frame(), 1..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        deflate: bool,
    ) {
        let rules = ocpp_websocket::Rules { max_message: LIMIT, deflate };
        let stream = frames.concat();
        let whole = decode(rules, &mut [stream.clone()]);
        prop_assert_eq!(&decode(rules, &mut pieces(&stream, &cuts)), &whole);
        let mut bytes: Vec<Vec<u8>> = stream.iter().map(|byte| vec![*byte]).collect();
        prop_assert_eq!(&decode(rules, &mut bytes), &whole, "byte by byte");
    }
}
