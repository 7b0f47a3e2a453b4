//! The id of one call, for logs, faults and the people who compare the two.

use std::fmt;

use uuid::Uuid;

/// Id of a request: the caller's own where it gave a usable one, else made here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(String);

/// Longest id that a caller may give, in bytes.
const LIMIT_BYTES: usize = 64;

impl RequestId {
    /// A new id; ids made later sort later.
    #[expect(clippy::new_without_default, reason = "a new id is an act, not a default")]
    pub fn new() -> Self {
        Self(Uuid::now_v7().as_simple().to_string())
    }

    /// The caller's id if it is 1 to 64 letters, digits or `-_.:`, else a new one: what a caller sends goes into logs.
    pub fn take(given: Option<&str>) -> Self {
        let usable = |id: &&str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
            (1..=LIMIT_BYTES).contains(&id.len()) && id.bytes().all(plain)
        };
        given.filter(usable).map_or_else(Self::new, |id| Self(id.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_kept_unless_it_would_spoil_a_log() {
        assert_eq!(RequestId::take(Some("rig-7:42")).as_str(), "rig-7:42");
        for bad in ["", "a b", "a\nb", "µ", &"x".repeat(65)] {
            assert_ne!(RequestId::take(Some(bad)).as_str(), bad);
        }
        assert_ne!(RequestId::take(None), RequestId::take(None));
    }
}
