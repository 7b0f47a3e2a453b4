//! The library: the queryable store that is filled from the journal.
//! Enters: transfers. Leaves: runs, bins, frames, events, API keys.
//! Owns: runs once they are moved, and each run's mark `moved_to`. Must hold: a transfer is taken whole or not at
//! all, and once; what one call reads is of one moment.
//! Must not know: the journal's file, sessions, the wire.

use super::error::StoreError;
use super::event::EventEntry;
use super::extent::{Extent, Track};
use super::key::KeyRecord;
use super::record::Annotation;
use super::run::{Owner, RunEdit, RunFilter, RunPage, RunRecord};
use super::transfer::{FramePack, Transfer};
use crate::domain::ids::{KeyId, RunId};

/// Which library it is that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Made with its schema, and never changed.
    pub id: String,
    /// Where it is now, in words without what is secret.
    pub place: String,
}

/// Whoever remembers which library it feeds.
#[async_trait::async_trait]
pub trait Feeder: Send + Sync {
    /// Lets it know the library at the other end of a new connection before that is used for anything.
    /// Errors: `StoreError::OtherLibrary`, and what keeps it from remembering.
    async fn recognise(&self, found: &Identity) -> Result<(), StoreError>;
}

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the library, by this call.
    Now,
    /// The library's mark is another than the transfer's `from`: it, or more, was taken before.
    Already {
        /// The library's mark.
        moved_to: i64,
    },
    /// The library has no such run, and the transfer does not begin one: the library is older than the run's beginning,
    /// as after the restore of a dump.
    NoRun,
}

/// A library. SQLite and Postgres stand behind it; one contract suite holds both to it.
#[async_trait::async_trait]
pub trait Library: Send + Sync {
    /// Takes the transfers, all in one transaction, each with its run's mark. Answers one word for each.
    async fn take(&self, transfers: &[(RunId, Transfer)]) -> Result<Vec<Taken>, StoreError>;

    /// Up to which journal row a run is here; `None`: no such run.
    async fn mark(&self, run: RunId) -> Result<Option<i64>, StoreError>;

    /// A run as far as it is here.
    async fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError>;

    /// Runs, newest first; `after`: the last page's `next`. At most `limit`, at least 1.
    async fn runs(&self, filter: &RunFilter, after: Option<RunId>, limit: u32)
    -> Result<RunPage, StoreError>;

    /// Changes what people may change; `false`: no such run.
    async fn edit(&self, run: RunId, edit: &RunEdit) -> Result<bool, StoreError>;

    /// Deletes a run and everything of it; `false`: no such run.
    async fn delete(&self, run: RunId) -> Result<bool, StoreError>;

    /// Runs of this journal that are still open though they began before boot `owner.boot` become interrupted;
    /// answers how many. Call it when their tails are moved.
    async fn interrupt(&self, owner: &Owner) -> Result<u64, StoreError>;

    /// The first chunk of a track at or after `chunk` that has bins.
    async fn next_chunk(&self, run: RunId, track: Track, chunk: u64) -> Result<Option<u64>, StoreError>;

    /// Bins of chunks `from .. to` of a track, in order of bins.
    async fn extents(&self, run: RunId, track: Track, from: u64, to: u64) -> Result<Vec<Extent>, StoreError>;

    /// The first pack of frames of a track whose first place is after `after`.
    async fn frames(
        &self,
        run: RunId,
        track: Track,
        after: Option<u64>,
    ) -> Result<Option<FramePack>, StoreError>;

    /// A run's events in order of their first, and the mark of that moment; `None`: no such run.
    async fn events(&self, run: RunId) -> Result<Option<(i64, Vec<EventEntry>)>, StoreError>;

    /// A run's annotations as they came, and the mark of that moment; `None`: no such run.
    async fn annotations(&self, run: RunId) -> Result<Option<(i64, Vec<Annotation>)>, StoreError>;

    /// All API keys in the order of their making, also those that were revoked.
    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError>;

    /// Adds a key; `false`: one of this name holds.
    async fn add_key(&self, key: &KeyRecord) -> Result<bool, StoreError>;

    /// Revokes a key at that instant (Unix ns); `false`: no such key holds.
    async fn revoke_key(&self, key: KeyId, at_ns: i64) -> Result<bool, StoreError>;

    /// Whether it can be away though the process lives: then it is worth asking whether it is here.
    fn is_remote(&self) -> bool {
        false
    }

    /// Asks whether it is here, and brings its schema up to date if that is still to be done.
    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Lets go of its connections.
    async fn close(&self) {}
}

#[cfg(test)]
pub(crate) mod contract;
