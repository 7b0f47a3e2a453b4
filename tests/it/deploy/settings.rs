//! Every setting that is named in what is deployed is one that latentd has.

use std::path::Path;

use latentd::config::keys::KEYS;

use super::{path, read};

/// All files of a folder of the repository, and of those in it.
fn files(relative: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}")) {
        let name = entry.expect("an entry").file_name().into_string().expect("a name in UTF-8");
        let below = format!("{relative}/{name}");
        match path(&below).is_dir() {
            true => found.extend(files(&below)),
            false => found.push(below),
        }
    }
    found
}

/// What is deployed, and the pages that tell how; secrets are nobody's business.
fn deployed() -> Vec<String> {
    let mut all = files("deploy");
    all.retain(|name| {
        !name.starts_with("deploy/secrets/") && Path::new(name).extension() != Some("pyc".as_ref())
    });
    all.extend(["Dockerfile".into(), ".dockerignore".into(), "docs/OPERATIONS.md".into()]);
    all
}

/// The words of a text that begin with `start`, as far as `fits` goes.
fn words<'a>(text: &'a str, start: &str, fits: fn(char) -> bool) -> Vec<&'a str> {
    let ends = |from: &'a str| from.split(|letter| !fits(letter)).next().unwrap_or_default();
    text.match_indices(start).map(|(at, _)| ends(&text[at..])).collect()
}

#[test]
fn every_variable_is_a_key_of_the_configuration() {
    // The second comes with the library in Postgres.
    let beside = ["LATENTD_CONFIG", "LATENTD_DATABASE_PASSWORD_FILE"].map(String::from);
    let known: Vec<String> = KEYS.iter().map(|key| key.env()).chain(beside).collect();
    for file in deployed() {
        let text = read(&file);
        let named = words(&text, "LATENTD_", |letter| letter == '_' || letter.is_ascii_alphanumeric());
        for name in named {
            assert!(known.iter().any(|key| key == name), "{file}: {name} is no key of the configuration");
        }
    }
}

#[test]
fn every_flag_of_serve_is_a_key_of_the_configuration() {
    let known: Vec<String> =
        KEYS.iter().map(|key| format!("--{}", key.flag())).chain(["--config".into()]).collect();
    for file in deployed() {
        let text = read(&file);
        let serves = text
            .lines()
            .filter_map(|line| line.split_once("latentd serve ").or(line.split_once(" serve --")));
        for (_, flags) in serves {
            for flag in words(flags, "--", |letter| letter == '-' || letter.is_ascii_lowercase()) {
                assert!(known.iter().any(|key| key == flag), "{file}: {flag} is no flag of serve");
            }
        }
    }
}
