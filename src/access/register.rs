//! Making, listing and revoking keys: what `latentd keys` does to a library.

use super::secret::Secret;
use crate::domain::caller::Scopes;
use crate::domain::ids::KeyId;
use crate::error::{clip, there_is};
use crate::store::key::KeyRecord;
use crate::store::{Library, StoreError};

/// Longest name of a key, in bytes.
const NAME_LIMIT_BYTES: usize = 64;

/// Why a key was not made or not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Not a name that stands well in a log.
    #[error(
        "the name `{0}`: expected 1 to 64 letters, digits or -_.: that are no key's id (which has 32 hex digits)"
    )]
    Name(String),
    /// A key that holds has the name.
    #[error("there is an API key `{0}`; revoke it first, or take another name")]
    Taken(String),
    /// No key that holds has that name or id.
    #[error("no API key `{asked}` holds; {there_is}")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// The names of those that do.
        there_is: String,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Random(#[source] getrandom::Error),
    /// The library cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a key. Its secret is shown by nobody else. `now_ns`: Unix ns.
pub async fn create(
    library: &dyn Library,
    name: &str,
    scopes: Scopes,
    now_ns: i64,
) -> Result<(KeyRecord, Secret), RegisterError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let fits = (1..=NAME_LIMIT_BYTES).contains(&name.len()) && name.bytes().all(plain);
    if !fits || name.parse::<KeyId>().is_ok() {
        return Err(RegisterError::Name(clip(name)));
    }
    let secret = Secret::new().map_err(RegisterError::Random)?;
    let key = KeyRecord {
        id: KeyId::new(),
        name: name.into(),
        scopes,
        digest: secret.digest(),
        created_ns: now_ns,
        revoked_ns: None,
    };
    match library.add_key(&key).await? {
        true => Ok((key, secret)),
        false => Err(RegisterError::Taken(key.name)),
    }
}

/// Revokes the key of that name or id; answers it as it was. `now_ns`: Unix ns.
pub async fn revoke(
    library: &dyn Library,
    name_or_id: &str,
    now_ns: i64,
) -> Result<KeyRecord, RegisterError> {
    let id: Option<KeyId> = name_or_id.parse().ok();
    let keys = library.keys().await?;
    let holding = || keys.iter().filter(|key| key.holds());
    let unknown = || RegisterError::Unknown {
        asked: clip(name_or_id),
        there_is: there_is(name_or_id, holding().map(|key| key.name.as_str())),
    };
    let key = holding().find(|key| Some(key.id) == id || key.name == name_or_id).ok_or_else(unknown)?;
    match library.revoke_key(key.id, now_ns).await? {
        true => Ok(key.clone()),
        // Somebody else did so in between.
        false => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::library_at;

    #[tokio::test]
    async fn keys_are_made_once_by_name_and_revoked_by_name_or_id() {
        let folder = tempfile::tempdir().unwrap();
        let library = library_at(folder.path(), 64 << 20, None).await.unwrap();
        let scopes = Scopes::parse("read").unwrap();
        let (key, secret) = create(&*library, "rig-3", scopes, 7).await.unwrap();
        assert_eq!((key.name.as_str(), key.scopes, key.digest), ("rig-3", scopes, secret.digest()));
        let taken = create(&*library, "rig-3", scopes, 8).await.err().unwrap().to_string();
        assert_eq!(taken, "there is an API key `rig-3`; revoke it first, or take another name");
        let unknown = revoke(&*library, "rig-4", 9).await.unwrap_err().to_string();
        assert_eq!(unknown, "no API key `rig-4` holds; there are: rig-3");
        assert_eq!(revoke(&*library, &key.id.to_string(), 9).await.unwrap(), key);
        let (again, _) = create(&*library, "rig-3", scopes, 10).await.unwrap();
        assert_eq!(revoke(&*library, "rig-3", 11).await.unwrap(), again);
        let unknown = revoke(&*library, &again.id.to_string(), 12).await.unwrap_err().to_string();
        assert!(unknown.ends_with("there are none"), "{unknown}");
        for name in ["", "a b", "µ", "a\nb", &"x".repeat(65), &key.id.to_string()] {
            let refused = create(&*library, name, scopes, 13).await.err().unwrap().to_string();
            assert!(refused.contains("1 to 64 letters"), "{refused}");
        }
    }
}
