//! The keys as last seen, and who comes with one.

use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::secret::digest_of;
use crate::domain::caller::{Caller, Need};
use crate::domain::ids::KeyId;
use crate::error::{Fault, Kind};
use crate::store::key::KeyRecord;
use crate::store::{Store, StoreError};

/// How often the library is asked.
const LOOK: Duration = Duration::from_secs(1);
/// How long a start waits for a library's keys; after that the local copy's hold.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// The keys as last seen; watched by whatever a key has open.
pub struct Keys {
    store: Store,
    seen: watch::Sender<Arc<[KeyRecord]>>,
}

impl Keys {
    /// The local file's keys. Errors: it cannot be read.
    pub async fn open(store: Store) -> Result<Self, StoreError> {
        let seen = store.local_keys().await?;
        Ok(Self { store, seen: watch::Sender::new(seen.into()) })
    }

    /// The library's keys if it gives them soon, and says so where there is no key at all.
    pub async fn first_look(&self) {
        match timeout(FIRST_LOOK, self.look()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tell(&error),
            Err(_) => tracing::warn!("the library does not give its API keys; those of the local copy hold"),
        }
        if !self.seen.borrow().iter().any(KeyRecord::holds) {
            tracing::warn!("API keys are asked for and there is none: `latentd keys create` makes one");
        }
    }

    /// Looks again and again. A library that is away is told of once.
    pub async fn follow(&self) {
        let mut is_away = false;
        loop {
            sleep(LOOK).await;
            let looked = self.look().await;
            if let Err(error) = &looked
                && !is_away
            {
                tell(error);
            }
            is_away = looked.is_err();
        }
    }

    /// Takes over what the library has, and lets the local file have it. What the file cannot take holds all the same.
    async fn look(&self) -> Result<(), StoreError> {
        let keys = self.store.library().keys().await?;
        let is_news = self.seen.send_if_modified(|seen| {
            let is_news = **seen != *keys;
            if is_news {
                *seen = keys.as_slice().into();
            }
            is_news
        });
        if is_news {
            tracing::info!(keys = keys.iter().filter(|key| key.holds()).count(), "API keys have changed");
        }
        self.store.keep_keys(&keys).await
    }

    /// Who comes. `shown`: the values of the call's `authorization`, of which there must be one, `Bearer` and a secret.
    /// Errors: `unauthenticated`, `forbidden`.
    pub fn admit<'a>(
        &self,
        mut shown: impl Iterator<Item = &'a [u8]>,
        need: Need,
        request_id: &str,
    ) -> Result<Caller, Fault> {
        let Some(one) = shown.next() else {
            let detail = "this call needs an API key, sent as `authorization: Bearer KEY`; \
                          `latentd keys create` makes one";
            return Err(Fault::new(Kind::Unauthenticated, detail));
        };
        let secret = bearer(one).filter(|_| shown.next().is_none());
        let secret = secret.ok_or_else(|| {
            Fault::new(Kind::Unauthenticated, "the call's `authorization` is not `Bearer` and one API key")
        })?;
        let seen = self.seen.borrow().clone();
        let key = digest_of(secret).and_then(|digest| {
            // All are compared, whichever it is, each in constant time.
            seen.iter().fold(None, |found, key| match bool::from(key.digest.0.ct_eq(&digest.0)) {
                true => Some(key),
                false => found,
            })
        });
        let key = key.ok_or_else(|| Fault::new(Kind::Unauthenticated, "no such API key is known here"))?;
        if !key.holds() {
            return Err(revoked(&key.name));
        }
        if let Need::Scope(scope) = need
            && !key.scopes.has(scope)
        {
            let detail =
                format!("this call needs the scope `{scope}`; the API key `{}` has {}", key.name, key.scopes);
            return Err(Fault::new(Kind::Forbidden, detail));
        }
        Ok(Caller {
            name: key.name.clone(),
            key: Some(key.id),
            scopes: key.scopes,
            request_id: request_id.into(),
            span: None,
        })
    }

    /// Ends, with what the caller is told, when the caller's key is revoked; never for one who needs none.
    pub fn revoked(&self, who: &Caller) -> impl Future<Output = Fault> + Send + use<> {
        let watched = who.key.map(|key| (key, self.seen.subscribe()));
        let name = who.name.clone();
        async move {
            if let Some((key, mut seen)) = watched
                && seen.wait_for(|seen| !holds(seen, key)).await.is_ok()
            {
                return revoked(&name);
            }
            // No key, or no server any more.
            std::future::pending().await
        }
    }
}

fn holds(seen: &[KeyRecord], key: KeyId) -> bool {
    seen.iter().any(|known| known.id == key && known.holds())
}

fn revoked(name: &str) -> Fault {
    Fault::new(Kind::Unauthenticated, format!("the API key `{name}` was revoked"))
}

fn tell(error: &StoreError) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "API keys cannot be looked up; those last seen hold"
    );
}

/// What stands behind `Bearer`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| secret.trim_ascii())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::super::register::{create, revoke};
    use super::*;
    use crate::domain::caller::{Scope, Scopes};
    use crate::store::NoMetrics;

    const READ: Need = Need::Scope(Scope::Read);

    async fn keys(folder: &tempfile::TempDir) -> Keys {
        let store = Store::embedded(folder.path(), 64 << 20, Arc::new(NoMetrics)).await.unwrap();
        Keys::open(store).await.unwrap()
    }

    fn admit(keys: &Keys, shown: &[&String], need: Need) -> Result<Caller, Fault> {
        keys.admit(shown.iter().map(|value| value.as_bytes()), need, "r1")
    }

    #[tokio::test]
    async fn a_key_lets_in_to_what_it_may_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(&folder).await;
        let library = keys.store.library();
        let scopes = Scopes::parse("stream,read").unwrap();
        let (key, secret) = create(library, "rig-3", scopes, 1).await.unwrap();
        let shown = format!("Bearer {}", secret.show());
        assert!(admit(&keys, &[&shown], READ).is_err(), "it was not looked for yet");
        keys.look().await.unwrap();
        let who = admit(&keys, &[&shown], READ).unwrap();
        assert_eq!(
            who,
            Caller { name: "rig-3".into(), key: Some(key.id), scopes, request_id: "r1".into(), span: None }
        );
        assert_eq!(admit(&keys, &[&shown], Need::Key), Ok(who.clone()));
        let refused = admit(&keys, &[&shown], Need::Scope(Scope::Admin)).unwrap_err();
        assert_eq!(refused.kind, Kind::Forbidden);
        assert_eq!(refused.detail, "this call needs the scope `admin`; the API key `rig-3` has stream,read");

        let mut ended = Box::pin(keys.revoked(&who));
        assert_eq!((&mut ended).now_or_never(), None);
        create(library, "other", scopes, 2).await.unwrap();
        keys.look().await.unwrap();
        assert_eq!((&mut ended).now_or_never(), None, "another key is no matter");
        revoke(library, "rig-3", 3).await.unwrap();
        keys.look().await.unwrap();
        assert_eq!(ended.await.kind, Kind::Unauthenticated);
        let refused = admit(&keys, &[&shown], READ).unwrap_err();
        assert_eq!(
            (refused.kind, refused.detail.as_str()),
            (Kind::Unauthenticated, "the API key `rig-3` was revoked")
        );
        assert_eq!(keys.revoked(&Caller::local("r2")).now_or_never(), None);
    }

    #[tokio::test]
    async fn what_is_no_key_is_refused_and_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(&folder).await;
        let (_, secret) = create(keys.store.library(), "a", Scopes::all(), 1).await.unwrap();
        keys.look().await.unwrap();
        let good = format!("bearer  {} ", secret.show());
        admit(&keys, &[&good], READ).unwrap();
        let mut other = secret.show().to_owned();
        let last = if other.pop() == Some('0') { '1' } else { '0' };
        other.push(last);
        let refused = |shown: &[&String]| {
            let refused = admit(&keys, shown, READ).unwrap_err();
            assert_eq!(refused.kind, Kind::Unauthenticated, "{shown:?}");
            assert!(!refused.detail.contains(&other[8..20]), "{}", refused.detail);
        };
        refused(&[]);
        refused(&[&good, &good]);
        for shown in [
            String::new(),
            "Bearer".into(),
            "Bearer ".into(),
            "Bearer x".into(),
            secret.show().into(),
            format!("Basic {}", secret.show()),
            format!("Bearer {}", secret.show().to_uppercase()),
            format!("Bearer {other}"),
        ] {
            refused(&[&shown]);
        }
    }

    #[tokio::test]
    async fn keys_of_the_local_file_hold_from_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let before = keys(&folder).await;
        let (_, secret) = create(before.store.library(), "a", Scopes::all(), 1).await.unwrap();
        before.store.close().await;
        let after = keys(&folder).await;
        admit(&after, &[&format!("Bearer {}", secret.show())], READ).unwrap();
    }
}
