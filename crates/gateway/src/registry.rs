//! Which session serves which station: the newest connection wins (P5).
//!
//! Owns the map from identity to session. Replacing is one atomic step under the map's own lock; the replaced session
//! is closed outside any lock. A session leaves the map by dropping its [`Entry`], which removes it only if it is still
//! the one in the map: a late cleanup can never remove a successor. It keeps its place until its last event is on the bus,
//! so that a successor finds it and waits; meanwhile it no longer counts as connected.

use std::sync::Arc;

use dashmap::DashMap;
use ocpp_commands::dispatch::{Session, Sessions};
use ocpp_protocol::IdentityKey;

use crate::session::SessionHandle;
use ocpp_station::{CloseReason, SessionId};
use uuid::Uuid;

/// Sessions of one identity that may wait one behind the other for their events to find room on the bus. Each holds about
/// a kilobyte and, but for the last, no socket.
pub const LONGEST_WAIT: usize = 16;

/// Too many sessions of one identity wait for the bus.
#[derive(Clone, Copy, Debug)]
pub struct Crowded;

/// The sessions of this node.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: DashMap<IdentityKey, Arc<SessionHandle>>,
}

/// A session's place in the registry; dropping it gives the place up.
#[derive(Debug)]
pub struct Entry {
    registry: Arc<Registry>,
    key: IdentityKey,
    id: SessionId,
}

/// What an admitted session gets: its entry, itself, and the session it replaced.
pub type Place = (Entry, Arc<SessionHandle>, Option<Arc<SessionHandle>>);

impl Registry {
    /// Makes a session the one that serves its station. The number is drawn under the map's lock, so that the session in
    /// the map always has the greatest number. Gives the session it replaced, which has been asked to end.
    ///
    /// `create` is told how many sessions of the identity wait one behind the other already.
    ///
    /// # Errors
    /// When [`LONGEST_WAIT`] of them do: storage is so slow that their events find no room, and more of them help nobody.
    pub fn admit(
        self: &Arc<Self>,
        key: IdentityKey,
        create: impl FnOnce(SessionId, usize) -> SessionHandle,
    ) -> Result<Place, Crowded> {
        let slot = self.sessions.entry(key.clone());
        let waiting = match &slot {
            dashmap::Entry::Occupied(occupied) => occupied.get().line(),
            dashmap::Entry::Vacant(_) => 0,
        };
        if waiting > LONGEST_WAIT {
            return Err(Crowded);
        }
        let session = Arc::new(create(SessionId::new(Uuid::now_v7()), waiting));
        let mut replaced = None;
        match slot {
            dashmap::Entry::Occupied(mut occupied) => replaced = Some(occupied.insert(Arc::clone(&session))),
            dashmap::Entry::Vacant(vacant) => drop(vacant.insert(Arc::clone(&session))),
        }
        if let Some(replaced) = &replaced {
            replaced.end(CloseReason::Replaced);
        }
        let entry = Entry { registry: Arc::clone(self), key, id: session.id };
        Ok((entry, session, replaced))
    }

    /// The session by which a station is connected.
    pub fn get(&self, key: &IdentityKey) -> Option<Arc<SessionHandle>> {
        self.sessions.get(key).map(|session| Arc::clone(&session)).filter(|session| session.is_connected())
    }

    /// The session that has a station's place, even while its connection is ending.
    pub fn holder(&self, key: &IdentityKey) -> Option<Arc<SessionHandle>> {
        self.sessions.get(key).map(|session| Arc::clone(&session))
    }

    /// Every session by which a station is connected, in no order.
    pub fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.sessions
            .iter()
            .filter(|session| session.is_connected())
            .map(|session| Arc::clone(&session))
            .collect()
    }
}

impl Sessions for Registry {
    fn session(&self, station: &IdentityKey) -> Option<Arc<dyn Session>> {
        self.get(station).map(|session| session as Arc<dyn Session>)
    }

    fn connected(&self) -> Vec<String> {
        let sessions = self.sessions.iter().filter(|session| session.is_connected());
        sessions.map(|session| session.admission.identity.as_str().to_owned()).collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.sessions.remove_if(&self.key, |_, session| session.id == self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_late_cleanup_does_not_remove_the_successor() {
        let registry = Arc::new(Registry::default());
        let key = IdentityKey::of("CP-1");
        let (old_entry, old, none) = registry.admit(key.clone(), SessionHandle::of_test).unwrap();
        assert!(none.is_none());
        let (new_entry, new, replaced) = registry.admit(key.clone(), SessionHandle::of_test).unwrap();
        assert_eq!(replaced.unwrap().id, old.id);
        assert!(new.id > old.id);
        drop(old_entry);
        assert_eq!(registry.get(&key).unwrap().id, new.id);
        drop(new_entry);
        assert!(registry.all().is_empty());
    }

    #[test]
    fn racing_admissions_leave_the_greatest_number() {
        let registry = Arc::new(Registry::default());
        let key = IdentityKey::of("CP-1");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (registry, key) = (Arc::clone(&registry), key.clone());
                std::thread::spawn(move || {
                    let mut greatest = None;
                    let mut kept = None;
                    for _ in 0..500 {
                        let (entry, session, _) =
                            registry.admit(key.clone(), SessionHandle::of_test).unwrap();
                        session.mark_serving();
                        greatest = greatest.max(Some(session.id));
                        kept = Some(entry);
                    }
                    (greatest, kept)
                })
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let greatest = results.iter().filter_map(|(greatest, _)| *greatest).max().unwrap();
        assert_eq!(registry.get(&key).unwrap().id, greatest);
        drop(results);
        assert!(registry.all().is_empty());
    }

    #[test]
    fn one_identity_cannot_pile_up_sessions_behind_a_full_bus() {
        let registry = Arc::new(Registry::default());
        let key = IdentityKey::of("CP-1");
        let mut kept = Vec::new();
        while let Ok(admitted) = registry.admit(key.clone(), SessionHandle::of_test) {
            kept.push(admitted);
        }
        assert_eq!(kept.len(), LONGEST_WAIT + 1);
        kept[LONGEST_WAIT].1.mark_ended();
        assert!(registry.admit(key, SessionHandle::of_test).is_ok(), "the line has moved on");
    }
}
