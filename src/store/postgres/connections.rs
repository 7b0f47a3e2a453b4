//! Connections to the library's database: how many, for how long, and what is known of its absence.
//! Enters: a call that needs one. Leaves: a `Lease`, which comes back by `settle`, with the call's answer.
//! Owns: idle connections, and the word that the library is away, or another one. Must hold: every wait has a limit; a
//! connection is used for nothing before whoever feeds the library has recognised it; a connection in
//! whose middle somebody went away, or that has failed, is never used again; while the library is away one caller at a
//! time finds out whether it is back, all others are told at once.
//! Must not know: what is asked.
//!
//! Why not sqlx's pool: it tries a refused connection again until its time is up, and asks a connection that comes back
//! whether it lives without a limit, so that dropped packets would take its places for as long as TCP waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::{PostgresAt, PostgresLimits};
use crate::store::error::StoreError;
use crate::store::library::{Feeder, Identity};
use crate::store::schema;

/// How long an absence is believed before somebody looks again.
const BELIEVED: Duration = Duration::from_millis(500);
/// How long an idle connection may take to say that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How long a connection may be idle before it is given up.
const IDLE: Duration = Duration::from_secs(300);
/// What the server's own limit gets before ours: its answer says more.
const GRACE: Duration = Duration::from_millis(500);

pub(super) struct Connections {
    options: PgConnectOptions,
    limits: PostgresLimits,
    place: String,
    feeder: Option<Arc<dyn Feeder>>,
    places: Arc<Semaphore>,
    /// The one used last is last.
    idle: Mutex<Vec<Idle>>,
    absence: Mutex<Option<Absence>>,
    /// The schema was seen to be up to date since the library was last away.
    is_current: AtomicBool,
}

struct Idle {
    conn: PgConnection,
    since: Instant,
}

struct Absence {
    error: StoreError,
    /// From then on the next caller finds out.
    look_again: Instant,
}

/// A connection for one call. Dropped without `settle`, it is closed.
pub(super) struct Lease {
    pub(super) conn: PgConnection,
    pub(super) limit: Limit,
    _place: OwnedSemaphorePermit,
}

/// How long something may take.
#[derive(Clone, Copy)]
pub(super) struct Limit(Duration);

impl Limit {
    pub(super) fn new(limit: Duration) -> Self {
        Self(limit)
    }

    /// What `work` answers within the limit.
    pub(super) async fn of<T, E: Into<StoreError>>(
        self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, StoreError> {
        match timeout(self.0, work).await {
            Ok(answer) => answer.map_err(|error| error.into().over_a_connection()),
            Err(_) => Err(StoreError::Away {
                why: format!("no answer within {} s", self.0.as_secs_f64()),
                source: None,
            }),
        }
    }
}

impl Connections {
    /// Connections to that place, none of them made yet. Errors: an address that is none.
    pub(super) fn new(at: &PostgresAt, feeder: Option<Arc<dyn Feeder>>) -> Result<Self, StoreError> {
        Ok(Self {
            options: at.options()?,
            limits: at.limits,
            place: at.place()?,
            feeder,
            places: Arc::new(Semaphore::new(at.limits.connections)),
            idle: Mutex::default(),
            absence: Mutex::default(),
            is_current: AtomicBool::new(false),
        })
    }

    /// A connection to a library that is here and whose schema is up to date.
    pub(super) async fn lease(&self) -> Result<Lease, StoreError> {
        self.believe()?;
        let place = match timeout(self.limits.connect, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(StoreError::Busy(sqlx::Error::PoolClosed)),
            Err(_) => return Err(StoreError::Busy(sqlx::Error::PoolTimedOut)),
        };
        let answer = match self.living().await {
            Some(conn) => self.current(conn).await,
            None => self.fresh().await,
        };
        match answer {
            Ok(conn) => {
                *self.absence.lock() = None;
                Ok(Lease { conn, limit: self.statement_limit(), _place: place })
            }
            Err(error) => Err(self.told(error)),
        }
    }

    /// Gives a connection back, if the call that it was for went well.
    pub(super) fn settle<T>(&self, lease: Lease, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match answer {
            Ok(value) => {
                let now = Instant::now();
                let mut idle = self.idle.lock();
                idle.retain(|one| now.duration_since(one.since) < IDLE);
                if !self.places.is_closed() {
                    idle.push(Idle { conn: lease.conn, since: now });
                }
                Ok(value)
            }
            Err(error) => Err(self.told(error)),
        }
    }

    /// Closes what is idle; there are no more leases.
    pub(super) async fn close(&self) {
        self.places.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        for one in idle {
            // Why ignored: the server sees the end of the connection in any case.
            let _ = timeout(SIGN_OF_LIFE, one.conn.close()).await;
        }
    }

    /// Refuses while the library is known to be away, unless it is time to look again: then this caller does.
    fn believe(&self) -> Result<(), StoreError> {
        let mut absence = self.absence.lock();
        let Some(known) = &mut *absence else { return Ok(()) };
        let now = Instant::now();
        if now < known.look_again
            && let Some(error) = known.error.absence()
        {
            return Err(error);
        }
        // If this caller goes away before it knows, somebody else looks after that.
        known.look_again = now + self.limits.connect + BELIEVED;
        Ok(())
    }

    /// Remembers an absence, and that nothing is known of connections and schema any more.
    fn told(&self, error: StoreError) -> StoreError {
        if let Some(absence) = error.absence() {
            *self.absence.lock() = Some(Absence { error: absence, look_again: Instant::now() + BELIEVED });
            self.idle.lock().clear();
            self.is_current.store(false, Ordering::Release);
        }
        error
    }

    /// An idle connection that says that it lives. If one does not, none is believed.
    async fn living(&self) -> Option<PgConnection> {
        let mut one = self.idle.lock().pop()?.conn;
        match timeout(SIGN_OF_LIFE.min(self.limits.connect), one.ping()).await {
            Ok(Ok(())) => Some(one),
            _ => {
                self.idle.lock().clear();
                None
            }
        }
    }

    /// A new connection, to a library that is recognised: the address may lead to another one than a moment ago.
    async fn fresh(&self) -> Result<PgConnection, StoreError> {
        let conn = Limit(self.limits.connect).of(self.connect()).await?;
        let mut conn = self.current(conn).await?;
        if let Some(feeder) = &self.feeder {
            let id = self.statement_limit().of(schema::library_id(&mut conn)).await?;
            feeder.recognise(&Identity { id, place: self.place.clone() }).await?;
        }
        Ok(conn)
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        let mut conn = self.options.connect().await?;
        let limit_ms = self.limits.statement.as_millis();
        // Limits that hold also where the server no longer hears us; and a commit that is on the disk when it says so,
        // since the journal's rows go then.
        let settings = format!(
            "SET statement_timeout = {limit_ms};
             SET lock_timeout = {limit_ms};
             SET idle_in_transaction_session_timeout = {limit_ms};
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') = 'off'"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(settings)).execute(&mut conn).await?;
        Ok(conn)
    }

    /// The connection, once the schema is up to date.
    async fn current(&self, mut conn: PgConnection) -> Result<PgConnection, StoreError> {
        if !self.is_current.load(Ordering::Acquire) {
            self.statement_limit().of(schema::bring_up_postgres(&mut conn)).await?;
            self.is_current.store(true, Ordering::Release);
        }
        Ok(conn)
    }

    fn statement_limit(&self) -> Limit {
        Limit(self.limits.statement + GRACE)
    }
}
