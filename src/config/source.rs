//! Where a value comes from, and what is said of a bad one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key, ORT_DYLIB_PATH, OTEL_ENDPOINT};
use crate::error::{clip, there_is};
use crate::phrase::toml::Broken;

/// Where a value was found. The first of these that has one wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Flag(String),
    /// In the environment, under this name.
    Env(String),
    /// In the configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// Nowhere: the default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(flag) => write!(f, "--{flag}"),
            Source::Env(name) => f.write_str(name),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Default => f.write_str("default"),
        }
    }
}

/// One key that cannot be taken: where, which, what was found, what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadKey {
    /// Where it was found.
    pub source: Source,
    /// The key, as in the file; empty where the whole file is concerned.
    pub key: String,
    /// What was found there.
    pub found: String,
    /// What was expected there.
    pub expected: String,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}

/// The configuration cannot be taken. Every bad key is here, not the first alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// What is wrong, in the order in which it was found.
    pub bad: Vec<BadKey>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, s) = (self.bad.len(), if self.bad.len() == 1 { "" } else { "s" });
        write!(f, "the configuration has {count} fault{s}")?;
        self.bad.iter().try_for_each(|bad| write!(f, "\n  {bad}"))
    }
}

/// Which TOML type a text had; flags and the environment have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Text,
    Number,
    Bool,
}

/// One value as text, with its source.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub text: String,
    pub kind: Kind,
    pub source: Source,
}

/// The values that win, by key, and what was wrong on the way.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub items: BTreeMap<&'static str, Item>,
    pub bad: Vec<BadKey>,
}

/// Gathers flags, environment and file. An empty text is as good as none, so that `LATENTD_X=` unsets.
pub(super) fn gather(flags: &[(String, String)], env: &dyn Fn(&str) -> Option<OsString>) -> Found {
    let mut found = Found::default();
    for (name, text) in flags {
        match super::keys::find(name) {
            Some(key) => found.put(key, text.clone(), Kind::Any, Source::Flag(key.flag())),
            None if name == "config" => {}
            None => found.bad.push(unknown(Source::Flag(name.replace('_', "-")), name)),
        }
    }
    for key in KEYS {
        let also = match key.name {
            "onnxruntime" => Some(ORT_DYLIB_PATH.to_string()),
            "otlp_endpoint" => Some(OTEL_ENDPOINT.to_string()),
            _ => None,
        };
        for name in std::iter::once(key.env()).chain(also) {
            if let Some(text) = variable(env, &name, key.name, &mut found.bad) {
                found.put(key, text, Kind::Any, Source::Env(name));
            }
        }
    }
    let flag = flags.iter().rev().find(|(name, _)| name == "config").map(|(_, text)| text.clone());
    let path = flag.or_else(|| variable(env, "LATENTD_CONFIG", "config", &mut found.bad));
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        file(Path::new(&path), &mut found);
    }
    found
}

impl Found {
    /// Takes the value unless a stronger source has given one. Later flags win over earlier ones.
    fn put(&mut self, key: &'static Key, text: String, kind: Kind, source: Source) {
        if text.trim().is_empty() {
            return;
        }
        let stronger = match self.items.get(key.name) {
            Some(Item { source: Source::Flag(_), .. }) => !matches!(source, Source::Flag(_)),
            Some(_) => true,
            None => false,
        };
        if !stronger {
            self.items.insert(key.name, Item { text, kind, source });
        }
    }
}

/// A variable as text; one that is no UTF-8 is a bad key.
fn variable(
    env: &dyn Fn(&str) -> Option<OsString>,
    name: &str,
    key: &str,
    bad: &mut Vec<BadKey>,
) -> Option<String> {
    match env(name)?.into_string() {
        Ok(text) => Some(text),
        Err(_) => {
            bad.push(BadKey {
                source: Source::Env(name.into()),
                key: key.into(),
                found: "bytes that are no UTF-8".into(),
                expected: "text".into(),
            });
            None
        }
    }
}

/// Reads the file. It is flat: every key stands at the top.
fn file(path: &Path, found: &mut Found) {
    let source = |line| Source::File { path: path.into(), line };
    let whole = |line, what: String, expected: &str| BadKey {
        source: source(line),
        key: String::new(),
        found: what,
        expected: expected.into(),
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            found.bad.push(whole(1, format!("a file that cannot be read ({error})"), "a TOML file"));
            return;
        }
    };
    let line_of = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
    let table = match DeTable::parse(&text) {
        Ok(table) => table,
        Err(error) => {
            let broken = Broken::of(&error, &text);
            found.bad.push(whole(broken.line, broken.why.into(), "TOML"));
            return;
        }
    };
    for (name, value) in table.get_ref() {
        let source = source(line_of(name.span().start));
        let Some(key) = super::keys::find(name.get_ref()) else {
            found.bad.push(unknown(source, name.get_ref()));
            continue;
        };
        let (text, kind) = match value.get_ref() {
            DeValue::String(text) => (text.to_string(), Kind::Text),
            DeValue::Integer(number) if number.radix() == 10 => {
                (number.as_str().replace('_', ""), Kind::Number)
            }
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => (number.to_string(), Kind::Number),
                Err(_) => (number.as_str().to_string(), Kind::Number),
            },
            DeValue::Float(number) => (number.as_str().replace('_', ""), Kind::Number),
            DeValue::Boolean(yes) => (yes.to_string(), Kind::Bool),
            other => {
                found.bad.push(BadKey {
                    source,
                    key: key.name.into(),
                    found: format!("a value of type {}", other.type_str()),
                    expected: "a single value".into(),
                });
                continue;
            }
        };
        found.put(key, text, kind, source);
    }
}

/// A name that is no key, with the nearest ones.
fn unknown(source: Source, name: &str) -> BadKey {
    BadKey {
        source,
        key: clip(name),
        found: "an unknown key".into(),
        expected: format!("a known one; {}", there_is(name, KEYS.iter().map(|key| key.name))),
    }
}
