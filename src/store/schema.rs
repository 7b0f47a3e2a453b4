//! The schemas of journal and library, step by step.
//! Enters: a database. Leaves: the same one with every step of this version, or which steps it has.
//! Must hold: a step is applied once, whole or not at all, whoever else starts at the same time; a database that a
//! newer version has brought further is used as it is, since steps only add.

use std::sync::LazyLock;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;

use super::error::StoreError;

static SQLITE: LazyLock<Migrator> = LazyLock::new(|| lenient(sqlx::migrate!("migrations/sqlite")));
static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| lenient(sqlx::migrate!("migrations/postgres")));

fn lenient(mut migrator: Migrator) -> Migrator {
    migrator.set_ignore_missing(true);
    migrator
}

/// One step of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number; steps are applied in this order.
    pub number: i64,
    /// What it brings; empty where a newer version knows it.
    pub name: String,
    /// Whether the database has it.
    pub state: StepState,
}

/// Whether a database has a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// It has.
    Applied,
    /// It has not yet.
    Pending,
    /// It has one of that number that is not this version's.
    Changed,
    /// It has, and this version does not know it.
    Newer,
}

/// Brings the local file's schema up to this version.
pub(super) async fn bring_up_sqlite(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    SQLITE.run(conn).await.map_err(StoreError::Migrate)
}

/// Brings the library's schema up to this version. Where it is, nothing is written, so that a server may run with a
/// role that may not change the schema.
pub(super) async fn bring_up_postgres(conn: &mut PgConnection) -> Result<(), StoreError> {
    if postgres(conn).await?.iter().all(|step| matches!(step.state, StepState::Applied | StepState::Newer)) {
        return Ok(());
    }
    POSTGRES.run_direct(None, conn, false).await.map_err(StoreError::Migrate)?;
    tracing::info!("the library's schema is up to date");
    Ok(())
}

/// The identity of a library in PostgreSQL whose schema is up to date.
pub(super) async fn library_id(conn: &mut PgConnection) -> Result<String, StoreError> {
    Ok(sqlx::query_scalar("SELECT id FROM library_identity").fetch_one(conn).await?)
}

/// The steps of a local file.
pub(super) async fn sqlite(conn: &mut SqliteConnection) -> Result<Vec<Step>, StoreError> {
    let known: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'")
            .fetch_optional(&mut *conn)
            .await?;
    let mut applied = Vec::new();
    if known.is_some() {
        applied = sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
            .fetch_all(conn)
            .await?;
    }
    Ok(steps(&SQLITE, &applied))
}

/// The steps of a file that is not there yet.
pub(super) fn of_no_file() -> Vec<Step> {
    steps(&SQLITE, &[])
}

/// The steps of a library in PostgreSQL.
pub(super) async fn postgres(conn: &mut PgConnection) -> Result<Vec<Step>, StoreError> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *conn)
        .await?;
    let mut applied = Vec::new();
    if known {
        applied = sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
            .fetch_all(conn)
            .await?;
    }
    Ok(steps(&POSTGRES, &applied))
}

fn steps(known: &Migrator, applied: &[(i64, Vec<u8>)]) -> Vec<Step> {
    let mut steps: Vec<Step> = known
        .iter()
        .map(|step| {
            let found = applied.iter().find(|(number, _)| *number == step.version);
            let state = match found {
                None => StepState::Pending,
                Some((_, checksum)) if checksum[..] == step.checksum[..] => StepState::Applied,
                Some(_) => StepState::Changed,
            };
            Step { number: step.version, name: step.description.to_string(), state }
        })
        .collect();
    let newer = applied.iter().filter(|(number, _)| !known.version_exists(*number));
    steps.extend(newer.map(|(number, _)| Step {
        number: *number,
        name: String::new(),
        state: StepState::Newer,
    }));
    steps.sort_by_key(|step| step.number);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_applied_pending_changed_or_of_a_newer_version() {
        let own = POSTGRES.iter().next().unwrap();
        let state = |applied: &[(i64, Vec<u8>)]| -> Vec<(i64, StepState)> {
            steps(&POSTGRES, applied).iter().map(|step| (step.number, step.state)).collect()
        };
        assert_eq!(state(&[])[0], (1, StepState::Pending));
        assert_eq!(state(&[(1, own.checksum.to_vec())])[0], (1, StepState::Applied));
        assert_eq!(state(&[(1, vec![0])])[0], (1, StepState::Changed));
        assert_eq!(*state(&[(9000, vec![0])]).last().unwrap(), (9000, StepState::Newer));
    }
}
