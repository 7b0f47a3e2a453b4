//! What can go wrong with the store, in its own words.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

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
    /// The library is not the one that has the beginning of what the journal holds.
    #[error(
        "this is another library, `{found}`, than the one that the journal feeds, `{fed}`; start once with that one, so \
         that what the journal holds is moved, then with this one"
    )]
    OtherLibrary {
        /// The library that the journal has fed.
        fed: String,
        /// The one that was found.
        found: String,
        /// What waits, and where they are; not for callers.
        #[source]
        waiting: Waiting,
    },
    /// The address of the library's database cannot be read.
    #[error("the address of the library's database cannot be read")]
    Address(#[source] sqlx::Error),
    /// The library's database cannot be reached, or lets nobody in. The journal keeps what is recorded meanwhile.
    #[error("the library is away: {why}")]
    Away {
        /// In words that tell no caller who we are there.
        why: String,
        /// All that is known; nothing where somebody else has just found it so.
        #[source]
        source: Option<sqlx::Error>,
    },
    /// Another process or connection holds the database, or it was too slow; worth another try.
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

/// What a journal holds for another library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rows} rows of the journal wait for the library at {fed_at}, and this one is at {found_at}")]
pub struct Waiting {
    /// How many rows.
    pub rows: usize,
    /// Where the library was that the journal feeds.
    pub fed_at: String,
    /// Where the one is that was found.
    pub found_at: String,
}

/// SQLite's primary result codes.
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;

impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        let sqlstate = match &source {
            sqlx::Error::Database(fault) => {
                fault.try_downcast_ref::<PgDatabaseError>().map(|fault| fault.code())
            }
            _ => None,
        };
        if let Some(code) = sqlstate {
            let code = code.to_owned();
            return Self::from_postgres(&code, source);
        }
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
    /// By PostgreSQL's SQLSTATE, whose first two characters are its class.
    fn from_postgres(code: &str, source: sqlx::Error) -> Self {
        match code {
            // Cancelled by its time limit, no lock in time, a transaction that met another.
            "57014" | "55P03" | "40001" | "40P01" => Self::Busy(source),
            "53100" => Self::Full(source),
            "58030" => Self::Disk(source),
            // Only reading allowed, an idle transaction ended, no right, a table that is gone.
            "25006" | "25P03" | "42501" | "42P01" => Self::refused(code, source),
            // Connection, who we are, which database, no room, a server that starts or stops.
            _ if ["08", "28", "3D", "53", "57"].contains(&code.get(..2).unwrap_or_default()) => {
                Self::refused(code, source)
            }
            _ => Self::Database(source),
        }
    }

    fn refused(code: &str, source: sqlx::Error) -> Self {
        Self::Away { why: format!("PostgreSQL answered {code}"), source: Some(source) }
    }

    /// The same, where the database is not a file but at the other end of a connection.
    pub(super) fn over_a_connection(self) -> Self {
        match self {
            Self::Disk(sqlx::Error::Io(error)) => {
                Self::Away { why: error.to_string(), source: Some(sqlx::Error::Io(error)) }
            }
            Self::Database(source @ sqlx::Error::Tls(_)) => {
                Self::Away { why: "no TLS with it".into(), source: Some(source) }
            }
            Self::Database(source @ sqlx::Error::Protocol(_)) => {
                Self::Away { why: "what answers is no PostgreSQL".into(), source: Some(source) }
            }
            Self::Migrate(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => {
                match Self::from(source).over_a_connection() {
                    Self::Database(source) => Self::Migrate(MigrateError::Execute(source)),
                    other => other,
                }
            }
            other => other,
        }
    }

    /// The same for callers who need not find out themselves, where it says that there is no library to be asked.
    pub(super) fn absence(&self) -> Option<Self> {
        match self {
            Self::Away { why, .. } => Some(Self::Away { why: why.clone(), source: None }),
            Self::OtherLibrary { fed, found, waiting } => {
                Some(Self::OtherLibrary { fed: fed.clone(), found: found.clone(), waiting: waiting.clone() })
            }
            _ => None,
        }
    }

    /// Whether it is the library that has no time, or is not the one that is fed: the journal keeps what is for it, and
    /// a later try may move that.
    pub fn leaves_all_in_the_journal(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Busy(_) | Self::OtherLibrary { .. })
    }

    /// Whether the same call may succeed a moment later without anyone's doing.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// What a caller is told; the cause itself goes to the log.
    pub fn fault(&self) -> Fault {
        let kind = match self {
            Self::Open { .. }
            | Self::Migrate(_)
            | Self::Address(_)
            | Self::OtherLibrary { .. }
            | Self::Away { .. }
            | Self::Busy(_)
            | Self::Full(_)
            | Self::Disk(_) => Kind::Unavailable,
            Self::Database(_) | Self::Inconsistent { .. } | Self::Task { .. } => Kind::Internal,
        };
        let said = match self {
            // The path is the operator's, not the caller's.
            Self::Open { .. } => "the store's file could not be opened".to_owned(),
            other => other.to_string(),
        };
        Fault::new(kind, format!("store: {said}"))
    }
}
