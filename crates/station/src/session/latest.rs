//! What a session knows of the last few messages of a kind, by their ids, to say in events what a later message refers to.
//!
//! Takes no room until there is one.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Things by message id, of which the latest few are remembered. Ids are numbers here: a collision would name another thing
/// in an event, and would have to be among a few.
#[derive(Debug)]
pub(super) struct Latest<T>(Vec<(u64, T)>);

/// A station has one CALL outstanding, and so have we: what refers to more than a few before it refers to nothing.
const MOST: usize = 4;

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Latest<T> {
    /// Remembers one, instead of the oldest.
    pub(super) fn insert(&mut self, id: u64, thing: T) {
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.reserve_exact(1);
        self.0.push((id, thing));
    }

    /// The latest with this id.
    pub(super) fn find(&self, id: u64) -> Option<&T> {
        self.0.iter().rev().find(|(known, _)| *known == id).map(|(_, thing)| thing)
    }
}

/// The number of a message id.
pub(super) fn number(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_few_are_found() {
        let mut latest = Latest::default();
        for at in 0..6 {
            latest.insert(number(&at.to_string()), at);
        }
        let found: Vec<_> = (0..6).filter_map(|at| latest.find(number(&at.to_string()))).collect();
        assert_eq!(found, [&2, &3, &4, &5]);
        latest.insert(number("5"), 7);
        assert_eq!(latest.find(number("5")), Some(&7));
        assert_eq!(latest.0.capacity(), MOST);
    }
}
