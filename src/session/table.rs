//! The sessions there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::live::Session;
use crate::domain::ids::SessionId;
use crate::error::{Fault, Kind};

/// Open sessions by id, at most `max_sessions`.
pub struct Table {
    sessions: RwLock<BTreeMap<SessionId, Arc<Session>>>,
    max_sessions: usize,
}

impl Table {
    /// An empty table.
    pub fn new(max_sessions: usize) -> Self {
        Self { sessions: RwLock::default(), max_sessions }
    }

    /// Adds a session. Errors: `overloaded` at `max_sessions`.
    pub fn add(&self, session: Arc<Session>) -> Result<(), Fault> {
        let mut sessions = self.sessions.write();
        self.room(sessions.len())?;
        sessions.insert(session.id, session);
        Ok(())
    }

    /// Whether another session may be opened. Errors: `overloaded`.
    pub fn has_room(&self) -> Result<(), Fault> {
        self.room(self.sessions.read().len())
    }

    fn room(&self, open: usize) -> Result<(), Fault> {
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
        let found = id.parse::<SessionId>().ok().and_then(|id| sessions.get(&id).cloned());
        found.ok_or_else(|| {
            let asked = crate::error::clip(id);
            let detail =
                format!("no session `{asked}` is open ({} are); a closed one's run stays", sessions.len());
            Fault::new(Kind::NotFound, detail)
        })
    }

    /// Takes a session out.
    pub fn remove(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.write().remove(&id)
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.read().values().cloned().collect()
    }
}
