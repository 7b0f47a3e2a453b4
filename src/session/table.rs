//! The sessions there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::live::Session;
use crate::domain::ids::SessionId;
use crate::error::{Fault, Kind};

/// Open sessions by id, at most `max_sessions`.
pub struct Table {
    sessions: RwLock<Sessions>,
    max_sessions: usize,
}

#[derive(Default)]
struct Sessions {
    by_id: BTreeMap<SessionId, Arc<Session>>,
    /// Nothing is added any more.
    is_shut: bool,
}

impl Table {
    /// An empty table.
    pub fn new(max_sessions: usize) -> Self {
        Self { sessions: RwLock::default(), max_sessions }
    }

    /// Adds a session. Errors: `overloaded` at `max_sessions`, `unavailable` once it is shut.
    pub fn add(&self, session: Arc<Session>) -> Result<(), Fault> {
        let mut sessions = self.sessions.write();
        self.room(&sessions)?;
        sessions.by_id.insert(session.id, session);
        Ok(())
    }

    /// Adds nothing from now on, and tells all that there are.
    pub fn shut(&self) -> Vec<Arc<Session>> {
        let mut sessions = self.sessions.write();
        sessions.is_shut = true;
        sessions.by_id.values().cloned().collect()
    }

    /// Whether another session may be opened. Errors: `overloaded`, `unavailable`.
    pub fn has_room(&self) -> Result<(), Fault> {
        self.room(&self.sessions.read())
    }

    fn room(&self, sessions: &Sessions) -> Result<(), Fault> {
        if sessions.is_shut {
            return Err(Fault::new(Kind::Unavailable, "the server is draining; open the session elsewhere"));
        }
        let open = sessions.by_id.len();
        if open < self.max_sessions {
            return Ok(());
        }
        let detail =
            format!("{open} sessions are open, which is the limit (max_sessions); close one, or try later");
        Err(Fault::new(Kind::Overloaded, detail).retry_after(1000.0))
    }

    /// The session of that id. Errors: `not_found`, also for an id that cannot be parsed.
    pub fn get(&self, id: &str) -> Result<Arc<Session>, Fault> {
        let sessions = self.sessions.read();
        let found = id.parse::<SessionId>().ok().and_then(|id| sessions.by_id.get(&id).cloned());
        found.ok_or_else(|| {
            let asked = crate::error::clip(id);
            let detail = format!(
                "no session `{asked}` is open ({} are); a closed one's run stays",
                sessions.by_id.len()
            );
            Fault::new(Kind::NotFound, detail)
        })
    }

    /// Takes a session out.
    pub fn remove(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.write().by_id.remove(&id)
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.read().by_id.values().cloned().collect()
    }
}
