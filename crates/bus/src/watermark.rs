//! How far a numbered sequence is complete when completions overtake one another.
//!
//! Owns the arithmetic and nothing else: a publisher's records, the records of a spool and the records of a Kafka partition all
//! become durable, sent or acknowledged out of order, and each of them counts only when everything before it does. The watermark
//! never falls.

use std::collections::BTreeMap;
use std::ops::Range;

/// The part of 0, 1, 2, … that is complete without a hole, and what is complete beyond it.
///
/// Memory follows the number of holes, and is none while completions come in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watermark {
    reached: u64,
    /// Complete ranges above the watermark, from start to end; they neither overlap nor touch.
    ahead: BTreeMap<u64, u64>,
}

impl Watermark {
    /// A watermark below which everything is complete already.
    pub(crate) fn at(reached: u64) -> Self {
        Self { reached, ahead: BTreeMap::new() }
    }

    /// The first number that is not complete; equally, how many are complete without a hole.
    pub(crate) fn reached(&self) -> u64 {
        self.reached
    }

    /// Completes these numbers, some of which may be complete already. Returns whether the watermark rose.
    pub(crate) fn complete(&mut self, numbers: Range<u64>) -> bool {
        let Range { mut start, mut end } = numbers;
        start = start.max(self.reached);
        if start >= end {
            return false;
        }
        while let Some((near_start, near_end)) =
            self.last_up_to(end).filter(|(_, near_end)| *near_end >= start)
        {
            self.ahead.remove(&near_start);
            start = start.min(near_start);
            end = end.max(near_end);
        }
        if start > self.reached {
            self.ahead.insert(start, end);
            return false;
        }
        self.reached = end;
        true
    }

    /// The last complete range that starts at or below a number.
    fn last_up_to(&self, number: u64) -> Option<(u64, u64)> {
        self.ahead.range(..=number).next_back().map(|(start, end)| (*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_watermark_waits_for_the_slowest() {
        // What is complete at first, what completes, and the watermark after each completion.
        type Case = (u64, &'static [Range<u64>], &'static [u64]);
        let cases: &[Case] = &[
            (0, &[0..1, 1..2, 2..3], &[1, 2, 3]),
            (0, &[2..3, 1..2, 0..1], &[0, 0, 3]),
            (0, &[1..2, 3..4, 0..1, 2..3], &[0, 0, 2, 4]),
            (0, &[3..6, 1..2, 0..1, 2..3], &[0, 0, 2, 6]),
            (0, &[5..9, 2..7, 0..2], &[0, 0, 9]),
            (0, &[1..2, 4..5, 7..8, 1..8, 0..1], &[0, 0, 0, 0, 8]),
            (0, &[0..4, 1..3, 0..4], &[4, 4, 4]),
            (0, &[0..0, 5..5, 0..1], &[0, 0, 1]),
            (7, &[0..3, 5..8, 9..10, 8..9], &[7, 8, 8, 10]),
        ];
        for (first, completions, expected) in cases {
            let mut watermark = Watermark::at(*first);
            for (numbers, expected) in completions.iter().zip(*expected) {
                let before = watermark.reached();
                let rose = watermark.complete(numbers.clone());
                assert_eq!(watermark.reached(), *expected, "{completions:?} at {numbers:?}");
                assert_eq!(rose, watermark.reached() > before, "{completions:?} at {numbers:?}");
            }
            assert!(watermark.ahead.is_empty(), "{completions:?} leave nothing behind");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_prefix_of_what_is_complete(
            first in 0_u64..20,
            completions in vec((0_u64..80, 0_u64..12), 0..60),
        ) {
            let mut watermark = Watermark::at(first);
            let mut complete: BTreeSet<u64> = (0..first).collect();
            for (start, length) in completions {
                let before = watermark.reached();
                let rose = watermark.complete(start..start + length);
                complete.extend(start..start + length);
                let prefix = (0..).take_while(|number| complete.contains(number)).count() as u64;
                prop_assert_eq!(watermark.reached(), prefix);
                prop_assert_eq!(rose, prefix > before);
                let above: BTreeSet<u64> =
                    watermark.ahead.iter().flat_map(|(start, end)| *start..*end).collect();
                prop_assert!(above.iter().eq(complete.range(prefix..)));
                let ends = watermark.ahead.values().zip(watermark.ahead.keys().skip(1));
                prop_assert!(ends.into_iter().all(|(end, next)| end < next), "ranges neither overlap nor touch");
            }
        }
    }
}
