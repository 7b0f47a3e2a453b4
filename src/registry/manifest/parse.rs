//! TOML to the manifest's types: every fault of one file in one answer, each with its key's path.

use serde::de::{DeserializeOwned, Error, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Segment;
use toml::Value;

use super::{BatchAxis, Channels, Manifest, ServeDevice, StateInit};
use crate::engine::Device;
use crate::error::clip;
use crate::phrase::serde::{Said, Takes};
use crate::phrase::toml::Broken;
use crate::registry::finding::{Finding, Findings};

/// Longest manifest or pipeline file that is read (bytes).
pub const MANIFEST_LIMIT_BYTES: u64 = 1 << 20;

/// Most faults that one file is asked for.
const FAULTS_SHOWN: usize = 32;

/// A manifest's text as a manifest: words, types and keys, then what must hold among them.
/// `file` is named in the findings.
pub fn parse(file: &str, text: &str) -> Result<Manifest, Findings> {
    let table = table(file, text)?;
    let named =
        table.get("example").and_then(Value::as_table).is_some_and(|example| example.contains_key("file"));
    let mut manifest: Manifest = from_table(file, table)?;
    manifest.example.named = named;
    for tap in &mut manifest.taps {
        if tap.name.is_empty() {
            tap.name = tap.tensor.clone();
        }
    }
    for output in &mut manifest.outputs {
        if output.name.is_empty() {
            output.name = output.tensor.clone();
        }
    }
    super::check::check(file, &manifest).unless_any(manifest)
}

/// The text as a TOML table.
pub(in crate::registry) fn table(file: &str, text: &str) -> Result<toml::Table, Findings> {
    text.parse::<toml::Table>().map_err(|error| {
        let broken = Broken::of(&error, text);
        Findings::one(Finding::new(file, format!("line {}", broken.line), "TOML", broken.why))
    })
}

/// The table as a `T`. What is wrong is noted, taken out, and the rest is tried again, so that one answer names all.
pub(in crate::registry) fn from_table<T: DeserializeOwned>(
    file: &str,
    table: toml::Table,
) -> Result<T, Findings> {
    let mut value = Value::Table(table);
    let mut findings = Findings::none();
    let mut noted: Vec<String> = Vec::new();
    let mut gone = Gone::default();
    while findings.0.len() < FAULTS_SHOWN && noted.len() < 4 * FAULTS_SHOWN {
        let error = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
            Ok(parsed) => return findings.unless_any(parsed),
            Err(error) => error,
        };
        let mut path: Vec<Step> = error.path().iter().filter_map(Step::of).collect();
        let said = Said::of(error.inner().message());
        if let Said::Unknown { field, .. } | Said::Missing { field } = &said
            && path.last() != Some(&Step::Key(field.clone()))
        {
            path.push(Step::Key(field.clone()));
        }
        let original = gone.original(&path);
        let key = shown(&original);
        // A required key that was wrong is now missing: that is one fault, not two.
        if !(matches!(said, Said::Missing { .. }) && noted.contains(&key)) {
            let (expected, found) = words(&said, at(&value, &path));
            findings.push(Finding::new(file, key.clone(), expected, found));
        }
        noted.push(key);
        if matches!(said, Said::Missing { .. }) {
            path.pop();
        }
        if path.is_empty() || !take_out(&mut value, &path) {
            break;
        }
        gone.0.push(gone.original(&path));
    }
    Err(findings)
}

/// One step of a path into a table.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    fn of(segment: &Segment) -> Option<Self> {
        match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        }
    }
}

/// What was taken out, by its path in the file; elements behind it have moved up since.
#[derive(Default)]
struct Gone(Vec<Vec<Step>>);

impl Gone {
    /// Where in the file stands what is now at `path`.
    fn original(&self, path: &[Step]) -> Vec<Step> {
        let mut original: Vec<Step> = Vec::with_capacity(path.len());
        for step in path {
            let &Step::Index(mut index) = step else {
                original.push(step.clone());
                continue;
            };
            let mut before: Vec<usize> = self
                .0
                .iter()
                .filter_map(|gone| match gone.split_last() {
                    Some((Step::Index(at), parents)) if *parents == original[..] => Some(*at),
                    _ => None,
                })
                .collect();
            before.sort_unstable();
            index += before.iter().fold(0, |moved, &at| moved + usize::from(at <= index + moved));
            original.push(Step::Index(index));
        }
        original
    }
}

fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&clip(key));
            }
        }
    }
    text
}

fn at<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key.as_str()),
        Step::Index(index) => value.get(*index),
    })
}

/// Takes out what stands at `path`; of an array the element, so that the rest of it is still read.
fn take_out(value: &mut Value, path: &[Step]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let parent = parents.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()),
        Step::Index(index) => value.get_mut(*index),
    });
    match (parent, last) {
        (Some(Value::Table(table)), Step::Key(key)) => table.remove(key).is_some(),
        (Some(Value::Array(array)), Step::Index(index)) if *index < array.len() => {
            array.remove(*index);
            true
        }
        _ => false,
    }
}

/// Expected and found, for a value of the manifest.
fn words(said: &Said, value: Option<&Value>) -> (String, String) {
    let shown = || value.map_or_else(|| "another".into(), |value| clip(&value.to_string()));
    match said {
        Said::Unknown { there_are, .. } => {
            (format!("a known key (one of {})", there_are.join(", ")), "a key that does not exist".into())
        }
        Said::Missing { .. } => ("a value".into(), "nothing".into()),
        Said::Twice { .. } => ("the key once".into(), "it again".into()),
        Said::Wrong { expected, found } => (expected.clone(), found.clone()),
        Said::NoForm { of } if of == "Numbers" => ("numbers or \"file:NAME\"".into(), shown()),
        Said::NoForm { .. } | Said::NoNumber { .. } | Said::NoBase64 { .. } | Said::Else => {
            ("a value that the key takes".into(), shown())
        }
    }
}

/// What a value is, as serde names it in its sentences.
fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::String(text) => Unexpected::Str(text),
        Value::Integer(number) => Unexpected::Signed(*number),
        Value::Float(number) => Unexpected::Float(*number),
        Value::Boolean(truth) => Unexpected::Bool(*truth),
        Value::Array(_) => Unexpected::Seq,
        Value::Table(_) => Unexpected::Map,
        Value::Datetime(_) => Unexpected::Other("a date"),
    }
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        match &value {
            Value::Integer(n @ 1..=1_000_000) => Ok(Channels::Count(*n as u32)),
            Value::String(text) if text == "any" => Ok(Channels::Any),
            other => Err(D::Error::invalid_value(
                unexpected(other),
                &Takes("a number from 1 to 1000000 or \"any\""),
            )),
        }
    }
}

impl<'de> Deserialize<'de> for BatchAxis {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        match &value {
            Value::Integer(axis @ 0..=15) => Ok(BatchAxis::Axis(*axis as u32)),
            Value::String(text) if text == "none" => Ok(BatchAxis::None),
            other => {
                Err(D::Error::invalid_value(unexpected(other), &Takes("an axis from 0 to 15 or \"none\"")))
            }
        }
    }
}

impl<'de> Deserialize<'de> for StateInit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let init = value.as_str().and_then(|text| match text.split_once(':') {
            None if text == "zeros" => Some(StateInit::Zeros),
            Some(("file", name)) if !name.is_empty() => Some(StateInit::File(name.into())),
            Some(("static", name)) if !name.is_empty() => Some(StateInit::Static(name.into())),
            _ => None,
        });
        init.ok_or_else(|| {
            D::Error::invalid_value(unexpected(&value), &Takes("\"zeros\", \"file:NAME\" or \"static:NAME\""))
        })
    }
}

impl<'de> Deserialize<'de> for ServeDevice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let device = value.as_str().and_then(|text| match text.split_once(':') {
            None if text == "auto" => Some(Device::Auto),
            None if text == "cpu" => Some(Device::Cpu),
            Some(("cuda", number)) => number.parse().ok().map(Device::Cuda),
            _ => None,
        });
        device.map(ServeDevice).ok_or_else(|| {
            D::Error::invalid_value(unexpected(&value), &Takes("\"auto\", \"cpu\" or \"cuda:N\""))
        })
    }
}
