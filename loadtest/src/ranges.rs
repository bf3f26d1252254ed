//! A set of sequence numbers, kept as ranges: what was answered, what is missing.
//!
//! Owns the ranges: sorted, disjoint, never empty, never adjacent. Numbers inserted mostly in order cost nothing each;
//! memory grows only with the gaps.

use serde::{Deserialize, Serialize};

/// A set of numbers as half-open ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// Creates the set `start..end`.
    pub fn of(start: u32, end: u32) -> Self {
        let mut ranges = Self::default();
        ranges.insert_range(start, end);
        ranges
    }

    /// Adds one number; returns whether it was missing.
    pub fn insert(&mut self, number: u32) -> bool {
        let missing = !self.contains(number);
        if missing {
            self.insert_range(number, number.saturating_add(1));
        }
        missing
    }

    /// Adds `start..end`.
    pub fn insert_range(&mut self, start: u32, end: u32) {
        if start >= end {
            return;
        }
        // Overlapping and adjacent ranges are merged.
        let first = self.0.partition_point(|range| range.1 < start);
        let last = self.0.partition_point(|range| range.0 <= end);
        let merged = self.0[first..last]
            .iter()
            .fold((start, end), |sum, range| (sum.0.min(range.0), sum.1.max(range.1)));
        self.0.splice(first..last, [merged]);
    }

    /// Removes one number; returns whether it was present.
    pub fn remove(&mut self, number: u32) -> bool {
        let at = self.0.partition_point(|range| range.1 <= number);
        let Some(&(start, end)) = self.0.get(at).filter(|range| range.0 <= number) else { return false };
        let rest = [(start, number), (number + 1, end)];
        self.0.splice(at..=at, rest.into_iter().filter(|range| range.0 < range.1));
        true
    }

    /// Returns whether the set contains a number.
    pub fn contains(&self, number: u32) -> bool {
        let at = self.0.partition_point(|range| range.1 <= number);
        self.0.get(at).is_some_and(|range| range.0 <= number)
    }

    /// Returns how many numbers the set contains.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.1 - range.0)).sum()
    }

    /// Returns one more than the largest number; 0 if the set is empty.
    pub fn end(&self) -> u32 {
        self.0.last().map_or(0, |range| range.1)
    }

    /// Returns the numbers that are in both sets.
    pub fn common(&self, other: &Self) -> Self {
        let mut common = Vec::new();
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(left), Some(right)) = (mine.peek(), theirs.peek()) {
            let (start, end) = (left.0.max(right.0), left.1.min(right.1));
            if start < end {
                common.push((start, end));
            }
            if left.1 <= right.1 {
                mine.next();
            } else {
                theirs.next();
            }
        }
        Self(common)
    }

    /// Returns the numbers below `end` that are missing.
    pub fn missing_below(&self, end: u32) -> Self {
        let mut missing = Vec::new();
        let mut from = 0;
        for range in self.0.iter().take_while(|range| range.0 < end) {
            if from < range.0 {
                missing.push((from, range.0));
            }
            from = range.1;
        }
        if from < end {
            missing.push((from, end));
        }
        Self(missing)
    }

    /// Iterates over the numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|range| range.0..range.1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u32),
        InsertRange(u32, u32),
        Remove(u32),
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            (0_u32..60).prop_map(Change::Insert),
            (0_u32..60, 0_u32..12).prop_map(|(start, length)| Change::InsertRange(start, start + length)),
            (0_u32..60).prop_map(Change::Remove),
        ];
        proptest::collection::vec(change, 0..60)
    }

    fn apply(changes: &[Change]) -> (Ranges, BTreeSet<u32>) {
        let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
        for change in changes {
            match *change {
                Change::Insert(number) => assert_eq!(ranges.insert(number), model.insert(number)),
                Change::InsertRange(start, end) => {
                    ranges.insert_range(start, end);
                    model.extend(start..end);
                }
                Change::Remove(number) => assert_eq!(ranges.remove(number), model.remove(&number)),
            }
        }
        (ranges, model)
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(one in changes(), other in changes(), end in 0_u32..80) {
            let (ranges, model) = apply(&one);
            prop_assert_eq!(ranges.iter().collect::<BTreeSet<_>>(), model.clone());
            prop_assert_eq!(ranges.count(), model.len() as u64);
            prop_assert_eq!(ranges.end(), model.last().map_or(0, |last| last + 1));
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?} touch", ranges);
            let missing: BTreeSet<_> = (0..end).filter(|number| !model.contains(number)).collect();
            prop_assert_eq!(ranges.missing_below(end).iter().collect::<BTreeSet<_>>(), missing);
            let (others, other_model) = apply(&other);
            let common: BTreeSet<_> = model.intersection(&other_model).copied().collect();
            prop_assert_eq!(ranges.common(&others).iter().collect::<BTreeSet<_>>(), common);
        }
    }
}
