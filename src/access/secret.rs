//! The secret of a key: 256 random bits, `latentd_` and 64 hex digits.
//!
//! Kept is its SHA-256. Why no slow hash: those are for what people think up, of which a machine tries all that are
//! likely. Of 2²⁵⁶ equally likely secrets none can be found from its digest, at whatever speed; and a slow hash would
//! cost each call milliseconds, or keep digests of what was shown in memory.

use sha2::{Digest as _, Sha256};

use crate::domain::ids::Digest;

/// What a secret begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "latentd_";
/// Length of the whole in bytes.
const LENGTH: usize = PREFIX.len() + 64;

/// A secret that was just made. It has no `Debug`, so that it gets into no log.
pub struct Secret(String);

impl Secret {
    /// 256 bits of the system's randomness. Errors: the system has none.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)?;
        Ok(Self(format!("{PREFIX}{}", Digest(bits).hex())))
    }

    /// As its holder must keep it.
    pub fn show(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        digest(self.0.as_bytes())
    }
}

/// The digest of what was shown as a secret; `None`: it has not the form of one.
pub(super) fn digest_of(shown: &[u8]) -> Option<Digest> {
    (shown.len() == LENGTH && shown.starts_with(PREFIX.as_bytes())).then(|| digest(shown))
}

fn digest(secret: &[u8]) -> Digest {
    Digest(Sha256::digest(secret).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_secrets_are_alike_and_each_is_known_by_its_digest() {
        let (one, other) = (Secret::new().unwrap(), Secret::new().unwrap());
        assert_eq!(one.show().len(), LENGTH);
        assert_ne!(one.show(), other.show());
        assert_eq!(digest_of(one.show().as_bytes()), Some(one.digest()));
        assert_ne!(one.digest(), other.digest());
        for wrong in ["", "latentd_", &one.show()[1..], &format!("{}0", one.show()), &"x".repeat(LENGTH)] {
            assert_eq!(digest_of(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
