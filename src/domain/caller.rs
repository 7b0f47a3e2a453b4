//! Who asks, and what that one may. Every use case takes the caller.

use super::ids::KeyId;
use super::signal::word;
use super::trace::RequestSpan;

word!(
    /// What an API key lets its holder do.
    Scope {
        /// Sessions: open, feed, steer and close them; one-shot inference.
        Stream = "stream",
        /// Looking: models, sessions, what they give, runs, metrics.
        Read = "read",
        /// Models in and out.
        Admin = "admin",
    }
);

/// Some scopes. None implies another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope there is.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether `scope` is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    /// From words with commas between them: `stream,read`. Errors: the word that is no scope, empty where there is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(|word| Scope::parse(word.trim()).ok_or_else(|| word.trim().to_owned())).collect()
    }

    fn bit(scope: Scope) -> u8 {
        1 << scope as u8
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | Self::bit(scope)))
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = Scope::ALL.iter().filter(|scope| self.has(**scope)).map(|scope| scope.word());
        f.write_str(&words.collect::<Vec<_>>().join(","))
    }
}

/// What a call asks of its caller, where keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is open.
    Nothing,
    /// A key, whatever it may.
    Key,
    /// A key with that scope.
    Scope(Scope),
}

/// The one on whose behalf a call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the key, or `local` where none was asked for.
    pub name: String,
    /// The key, where one was asked for.
    pub key: Option<KeyId>,
    /// What the caller may; all where no key was asked for.
    pub scopes: Scopes,
    /// Id of the request, for logs and faults.
    pub request_id: String,
    /// The request's span, where it is traced.
    pub span: Option<RequestSpan>,
}

impl Caller {
    /// One who needs no key: on the loopback address, or by configuration.
    pub fn local(request_id: impl Into<String>) -> Self {
        Self {
            name: "local".into(),
            key: None,
            scopes: Scopes::all(),
            request_id: request_id.into(),
            span: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written_and_none_implies_another() {
        let scopes = Scopes::parse("read, stream").unwrap();
        assert_eq!(scopes.to_string(), "stream,read");
        assert_eq!(Scopes::parse(&scopes.to_string()), Ok(scopes));
        assert!(scopes.has(Scope::Read) && scopes.has(Scope::Stream) && !scopes.has(Scope::Admin));
        assert!(!Scopes::parse("admin").unwrap().has(Scope::Read));
        assert_eq!(Scopes::all().to_string(), "stream,read,admin");
        for (text, word) in [("", ""), ("read,", ""), ("Read", "Read"), ("read,write", "write")] {
            assert_eq!(Scopes::parse(text), Err(word.to_owned()));
        }
    }
}
