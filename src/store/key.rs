//! API keys as they are kept: whose, what they may, and the digest of the secret, never the secret.
//! The library has them. Where that is elsewhere the local file has a copy beside the journal, so that keys hold while
//! the library is away; where it is embedded, the local file's table is the library's own.

use super::error::StoreError;
use super::sqlite::SqliteLibrary;
use super::{Library as _, Store};
use crate::domain::caller::Scopes;
use crate::domain::ids::{Digest, KeyId};
use crate::error::clip;

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// What it is told from others by.
    pub id: KeyId,
    /// What people call it; no two keys that hold have one name.
    pub name: String,
    /// What it may.
    pub scopes: Scopes,
    /// SHA-256 of the secret.
    pub digest: Digest,
    /// When it was made (Unix ns).
    pub created_ns: i64,
    /// When it was revoked (Unix ns); `None`: it holds.
    pub revoked_ns: Option<i64>,
}

impl KeyRecord {
    /// Whether it lets anyone in.
    pub fn holds(&self) -> bool {
        self.revoked_ns.is_none()
    }
}

/// Every column of a key, in the order of `KeyForm`; ids made later sort later.
pub(super) const SELECT_KEY: &str = "SELECT
    id,
    name,
    scopes,
    digest,
    created_ns,
    revoked_ns
FROM api_key
ORDER BY id";

#[derive(sqlx::FromRow)]
pub(super) struct KeyForm {
    id: String,
    name: String,
    scopes: String,
    digest: Vec<u8>,
    created_ns: i64,
    revoked_ns: Option<i64>,
}

impl KeyForm {
    pub(super) fn record(self) -> Result<KeyRecord, StoreError> {
        let wrong = |column, found: &str| StoreError::Inconsistent {
            table: "api_key",
            column,
            found: format!("`{}`", clip(found)),
        };
        Ok(KeyRecord {
            id: self.id.parse().map_err(|_| wrong("id", &self.id))?,
            scopes: Scopes::parse(&self.scopes).map_err(|_| wrong("scopes", &self.scopes))?,
            digest: <[u8; 32]>::try_from(self.digest)
                .map(Digest)
                .map_err(|found| wrong("digest", &format!("{} bytes", found.len())))?,
            name: self.name,
            created_ns: self.created_ns,
            revoked_ns: self.revoked_ns,
        })
    }
}

impl Store {
    /// All keys as the local file has them.
    pub async fn local_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.local_library().keys().await
    }

    /// Lets the local file have the library's keys, so that they hold while it is away.
    pub async fn keep_keys(&self, keys: &[KeyRecord]) -> Result<(), StoreError> {
        match self.library.is_remote() && self.local_keys().await? != keys {
            true => self.local_library().copy_keys(keys).await,
            false => Ok(()),
        }
    }

    fn local_library(&self) -> SqliteLibrary {
        SqliteLibrary::new(self.journal.file().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_version_writes_is_said_with_its_column() {
        let form = || KeyForm {
            id: KeyId::new().to_string(),
            name: "rig".into(),
            scopes: "read".into(),
            digest: vec![7; 32],
            created_ns: 1,
            revoked_ns: None,
        };
        assert!(form().record().unwrap().holds());
        for (wrong, said) in [
            (KeyForm { id: "x".into(), ..form() }, "api_key.id: found `x`"),
            (KeyForm { scopes: "all".into(), ..form() }, "api_key.scopes: found `all`"),
            (KeyForm { digest: vec![7; 31], ..form() }, "api_key.digest: found `31 bytes`"),
        ] {
            assert_eq!(wrong.record().unwrap_err().to_string(), said);
        }
    }
}
