//! What is wrong with an entry of the repository: file, key, what was expected, what was found.

use std::fmt;

use crate::error::clip;

/// One thing that is wrong. Its text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the repository's root: `reach/model.toml`.
    pub file: String,
    /// The key's path in it (`input[0].bin_ms`), a tensor, a line; empty where the file itself is meant.
    pub key: String,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Finding {
    /// A finding about a key of a file.
    pub fn new(
        file: impl Into<String>,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self { file: file.into(), key: key.into(), expected: expected.into(), found: found.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

/// All findings of one entry; never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Nothing found so far.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// One finding.
    pub fn one(finding: Finding) -> Self {
        Self(vec![finding])
    }

    /// Adds a finding.
    pub fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Findings) {
        self.0.extend(other.0);
    }

    /// `value` if nothing was found.
    pub fn unless_any<T>(self, value: T) -> Result<T, Findings> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        for (i, finding) in self.0.iter().take(SHOWN).enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            finding.fmt(f)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Findings {}

/// A word from outside, quoted, short and on one line.
pub fn quoted(text: &str) -> String {
    let line: String = clip(text).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("`{line}`")
}
