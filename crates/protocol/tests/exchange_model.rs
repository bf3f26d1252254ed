//! [`Exchange`] against a model that remembers every CALL for ever.

use std::time::{Duration, Instant};

use ocpp_protocol::{Answered, Busy, Exchange};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Send a CALL that times out after this many ticks.
    Begin(u64),
    /// An answer arrives for the CALL begun this many CALLs ago; beyond the first, a made-up id.
    Answer(usize),
    UncorrelatedError,
    Abandon,
    /// Time passes and the timer is looked at.
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..5_u64).prop_map(Step::Begin),
        4 => (0..8_usize).prop_map(Step::Answer),
        1 => Just(Step::UncorrelatedError),
        1 => Just(Step::Abandon),
        3 => (0..4_u64).prop_map(Step::Tick),
    ]
}

/// Every CALL ever begun, in order; the token of a CALL is its number.
#[derive(Default)]
struct Model {
    begun: usize,
    outstanding: Option<(usize, u64)>,
    ended: Vec<usize>,
    clock: u64,
}

impl Model {
    fn end(&mut self) -> Option<usize> {
        let (number, _) = self.outstanding.take()?;
        self.ended.push(number);
        Some(number)
    }

    fn answer(&mut self, number: usize, remember: usize) -> Answered<usize> {
        if self.outstanding.is_some_and(|(outstanding, _)| outstanding == number) {
            return self.end().map_or(Answered::Unknown, Answered::Matched);
        }
        let remembered = self.ended.iter().rev().take(remember);
        if remembered.into_iter().any(|ended| *ended == number) { Answered::Late } else { Answered::Unknown }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model(remember in 0..4_usize, steps in prop::collection::vec(step(), 0..60)) {
        let start = Instant::now();
        let at = |ticks: u64| start + Duration::from_secs(ticks);
        let mut model = Model::default();
        let mut exchange = Exchange::new(remember);
        let mut returned = Vec::new();
        for step in steps {
            let ended = match step {
                Step::Begin(ticks) => {
                    let number = model.begun;
                    let deadline = model.clock + ticks;
                    let begun = exchange.begin(number.to_string(), at(deadline), number);
                    if model.outstanding.is_some() {
                        prop_assert_eq!(begun, Err(Busy(number)));
                    } else {
                        prop_assert_eq!(begun, Ok(()));
                        model.outstanding = Some((number, deadline));
                        model.begun += 1;
                    }
                    None
                }
                Step::Answer(ago) => {
                    let number = model.begun.checked_sub(ago + 1).unwrap_or(usize::MAX);
                    let answered = exchange.on_answer(&number.to_string());
                    prop_assert_eq!(&answered, &model.answer(number, remember));
                    if let Answered::Matched(token) = answered { Some(token) } else { None }
                }
                Step::UncorrelatedError => {
                    let ended = exchange.on_uncorrelated_error();
                    prop_assert_eq!(ended, model.end());
                    ended
                }
                Step::Abandon => {
                    let ended = exchange.abandon();
                    prop_assert_eq!(ended, model.end());
                    ended
                }
                Step::Tick(ticks) => {
                    model.clock += ticks;
                    let is_due = model.outstanding.is_some_and(|(_, deadline)| deadline <= model.clock);
                    let ended = exchange.on_timeout(at(model.clock));
                    prop_assert_eq!(ended, if is_due { model.end() } else { None });
                    ended
                }
            };
            returned.extend(ended);
            prop_assert_eq!(exchange.is_idle(), model.outstanding.is_none());
            prop_assert_eq!(exchange.deadline(), model.outstanding.map(|(_, deadline)| at(deadline)));
        }
        // Every token that was accepted came back exactly once.
        returned.extend(exchange.abandon());
        prop_assert_eq!(returned, (0..model.begun).collect::<Vec<_>>());
    }
}
