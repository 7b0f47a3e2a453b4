//! What can go wrong with the store, in its own words.

use std::path::PathBuf;

use crate::error::{Fault, Kind};

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The local file cannot be opened or made.
    #[error("{}: the store's file could not be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The schema could not be brought up to this version.
    #[error("the store's schema could not be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// Another process or connection holds the database; worth another try.
    #[error("the database is busy")]
    Busy(#[source] sqlx::Error),
    /// No space is left, on the disk or under the file's own limit.
    #[error("no space is left for the database")]
    Full(#[source] sqlx::Error),
    /// The disk failed.
    #[error("reading or writing the database failed")]
    Disk(#[source] sqlx::Error),
    /// Anything else the database said.
    #[error("the database refused")]
    Database(#[source] sqlx::Error),
    /// What stands in the database is not what this version writes.
    #[error("{table}.{column}: found {found}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What was there.
        found: String,
    },
    /// A task of the recorder ended by itself.
    #[error("{task} of the recorder failed")]
    Task {
        /// Which.
        task: &'static str,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

/// SQLite's primary result codes.
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;

impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        let code = match &source {
            sqlx::Error::Database(fault) => fault.code().and_then(|code| code.parse::<i32>().ok()),
            sqlx::Error::PoolTimedOut => return Self::Busy(source),
            sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => return Self::Disk(source),
            _ => None,
        };
        // An extended code carries the primary one in its low byte.
        match code.map(|code| code & 0xff) {
            Some(SQLITE_BUSY | SQLITE_LOCKED) => Self::Busy(source),
            Some(SQLITE_FULL) => Self::Full(source),
            Some(SQLITE_IOERR) => Self::Disk(source),
            _ => Self::Database(source),
        }
    }
}

impl StoreError {
    /// Whether the same call may succeed a moment later without anyone's doing.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// What a caller is told; the cause itself goes to the log.
    pub fn fault(&self) -> Fault {
        let kind = match self {
            Self::Open { .. } | Self::Busy(_) | Self::Full(_) | Self::Disk(_) => Kind::Unavailable,
            Self::Migrate(_) | Self::Database(_) | Self::Inconsistent { .. } | Self::Task { .. } => {
                Kind::Internal
            }
        };
        let said = match self {
            // The path is the operator's, not the caller's.
            Self::Open { .. } => "the store's file could not be opened".to_owned(),
            other => other.to_string(),
        };
        Fault::new(kind, format!("store: {said}"))
    }
}
