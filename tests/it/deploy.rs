//! What an operator is given to run latentd by, held to what latentd is: the settings, metrics and addresses that it has.
//! Neither a container engine nor a cluster is needed: files are read, queries are looked up in a real server's metrics,
//! and the image's steps are walked in a bare directory.

mod compose; // one host
mod image; // the Dockerfile, rehearsed
mod kubernetes; // a cluster
mod queries; // dashboard and alerts
mod settings; // every setting that is named

use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

/// A path in the repository.
fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A file of the repository.
fn read(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// The documents of a YAML file, merge keys applied.
fn documents(relative: &str) -> Vec<Value> {
    let text = read(relative);
    let document = |reader| {
        let mut value = serde_yaml_ng::Value::deserialize(reader)?;
        value.apply_merge()?;
        Ok::<_, serde_yaml_ng::Error>(serde_json::to_value(value).expect("YAML with keys of text"))
    };
    let read = serde_yaml_ng::Deserializer::from_str(&text).map(document).collect::<Result<_, _>>();
    read.unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// The one document of a YAML file.
fn yaml(relative: &str) -> Value {
    let mut all = documents(relative);
    assert_eq!(all.len(), 1, "{relative}: one document");
    all.remove(0)
}

/// The members of an object; none where it is not there.
fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, member)| (name.as_str(), member))
}

/// The elements of a list; none where it is not there.
fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text, which must be one.
#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a text, found {value}"))
}

/// What latentd may take from SIGTERM to its end, beside `drain_s` (s): threads, the journal's flush, the store.
const AFTER_DRAIN_S: f64 = 34.0;

/// Environment of a latentd as the configuration reads it. The library's password is not here.
#[track_caller]
fn configuration<'a>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> latentd::config::Config {
    let of_key = |(name, value): (&str, &str)| {
        let key = name.strip_prefix("LATENTD_").unwrap_or_else(|| panic!("{name} is no setting of latentd"));
        (key.to_lowercase(), value.to_owned())
    };
    let keys: Vec<_> = environment.into_iter().map(of_key).collect();
    let given = keys.iter().filter(|(key, _)| key != "database_password_file");
    let read = latentd::config::Config::with(given.map(|(key, value)| (key.as_str(), value.as_str())));
    read.unwrap_or_else(|error| panic!("{error}"))
}

/// Whether a server with these settings asks for keys at the addresses that the image binds.
fn asks_for_keys(config: &latentd::config::Config) -> bool {
    [8080, 8081].into_iter().all(|port| config.asks_for_keys(([0, 0, 0, 0], port).into()))
}
