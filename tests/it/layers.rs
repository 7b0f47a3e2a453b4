//! Keeps the layers of the house: a room knows only those below it.
//! Reads the paths that begin with `crate::`, `super::` or the crate's own name in every file of `src`, comments and
//! literals aside. A room that stands in no layer fails, so that a new one is given its place first.

use std::path::Path;

/// Rooms by layer, the lowest first. Numbers are the design's, tenfold.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["domain", "error", "phrase", "metrics", "trace", "config"]),
    (10, &["signal", "readout", "health", "analysis", "graph", "wire"]),
    (20, &["engine", "store"]),
    (30, &["pipeline", "batch", "recorder", "registry", "access"]),
    (35, &["session", "insight"]),
    (40, &["app", "jobs"]),
    (50, &["http", "grpc"]),
    (60, &["main", "cli", "lifecycle", "telemetry"]),
];

/// Layers whose rooms may know each other: the words, and what puts the whole together.
const OPEN_LAYERS: &[u8] = &[0, 60];

/// Who may know whom within a layer besides: a plan runs on lanes.
const NEIGHBOURS: &[(&str, &str)] = &[("pipeline", "registry"), ("pipeline", "batch"), ("registry", "batch")];

/// The doors know these and nothing else below them.
const DOORS: &[&str] = &["http", "grpc"];
const DOORS_KNOW: &[&str] = &["app", "wire", "domain", "error", "metrics", "trace"];

/// Crates that only one room knows.
const ONLY: &[(&str, &str)] = &[("ort", "engine"), ("sqlx", "store"), ("opentelemetry_proto", "telemetry")];

/// Rooms that do no I/O and await nothing, and what they therefore never name.
const PURE: &[&str] = &["domain", "phrase", "signal", "readout", "health", "analysis", "graph"];
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["reqwest"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "env"],
    &["std", "thread"],
    &["std", "process"],
];

fn layer(room: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(layer, _)| *layer)
}

/// Whether `from` may know `to`; both have a layer.
fn may_know(from: &str, to: &str) -> bool {
    if DOORS.contains(&from) && from != to {
        return DOORS_KNOW.contains(&to);
    }
    let (above, below) = (layer(from), layer(to));
    from == to
        || above > below
        || (above == below && above.is_some_and(|layer| OPEN_LAYERS.contains(&layer)))
        || NEIGHBOURS.contains(&(from, to))
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// The words and marks of a Rust file without comments and literals. `::` is one mark.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut found, mut line, mut i) = (Vec::new(), 1, 0);
    while i < chars.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
            }
            '"' => i = past_text(&chars, i),
            // A lifetime is no literal: `'a` without a closing quote.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            c if word(c) => {
                while word(at(i)) {
                    i += 1;
                }
                let text: String = chars[start..i].iter().collect();
                let raw = ["r", "br", "cr"].contains(&text.as_str());
                let hashes = (i..).take_while(|&j| at(j) == '#').count();
                if raw && at(i + hashes) == '"' {
                    i = past_raw(&chars, i + hashes + 1, hashes);
                } else if ["b", "c"].contains(&text.as_str()) && at(i) == '"' {
                    i = past_text(&chars, i);
                } else {
                    found.push(Token { text, line });
                }
            }
            ':' if at(i + 1) == ':' => {
                found.push(Token { text: "::".into(), line });
                i += 2;
            }
            c => {
                if !c.is_whitespace() {
                    found.push(Token { text: c.into(), line });
                }
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// Past the text that opens at `i`.
fn past_text(chars: &[char], mut i: usize) -> usize {
    i += 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Past the raw text whose content begins at `i`, with so many hashes.
fn past_raw(chars: &[char], mut i: usize, hashes: usize) -> usize {
    while i < chars.len() {
        if chars[i] == '"' && (1..=hashes).all(|j| chars.get(i + j) == Some(&'#')) {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

/// Rooms that a file names by a path from the crate's root, with their lines.
fn rooms_named(tokens: &[Token], file_depth: usize) -> Vec<(String, usize)> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut named = Vec::new();
    // Inline modules that are open, by the depth of their brace.
    let (mut open, mut braces): (Vec<usize>, usize) = (Vec::new(), 0);
    let mut i = 0;
    while i < tokens.len() {
        match text(i) {
            "{" => {
                if i >= 2 && text(i - 2) == "mod" {
                    open.push(braces);
                }
                braces += 1;
            }
            "}" => {
                braces = braces.saturating_sub(1);
                if open.last() == Some(&braces) {
                    open.pop();
                }
            }
            "crate" | "latentd" if text(i + 1) == "::" && !continues_a_path(tokens, i) => {
                first_segments(tokens, i + 2, &mut named);
            }
            "super" if text(i + 1) == "::" && !continues_a_path(tokens, i) => {
                let mut supers = 1;
                while text(i + 2) == "super" && text(i + 3) == "::" {
                    (supers, i) = (supers + 1, i + 2);
                }
                if supers >= file_depth + open.len() {
                    first_segments(tokens, i + 2, &mut named);
                }
            }
            _ => {}
        }
        i += 1;
    }
    named
}

/// Whether the word at `i` is a later part of a path, not its first.
fn continues_a_path(tokens: &[Token], i: usize) -> bool {
    let word =
        |token: &Token| token.text.chars().all(|c| c.is_alphanumeric() || c == '_') || token.text == ">";
    // `use a::b` and `use ::b` differ by what stands before the colons.
    i >= 1 && tokens[i - 1].text == "::" && i >= 2 && word(&tokens[i - 2]) && tokens[i - 2].text != "use"
}

/// The first segment after `crate::`, or those of each entry of a group.
fn first_segments(tokens: &[Token], at: usize, named: &mut Vec<(String, usize)>) {
    let Some(token) = tokens.get(at) else { return };
    if token.text != "{" {
        named.push((token.text.clone(), token.line));
        return;
    }
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            word if depth == 1 && word != "," && ["{", ","].contains(&tokens[i - 1].text.as_str()) => {
                named.push((word.into(), token.line));
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
}

/// Lines on which the path `segments` begins, alone or as the start of a longer one or of a group's.
fn lines_naming(tokens: &[Token], segments: &[&str]) -> Vec<usize> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut lines = Vec::new();
    for i in (0..tokens.len()).filter(|&i| text(i) == segments[0] && !continues_a_path(tokens, i)) {
        let named = match segments {
            [_] => {
                let used = |i: usize| i >= 1 && text(i - 1) == "use";
                text(i + 1) == "::" || used(i) || (i >= 1 && text(i - 1) == "::" && used(i - 1))
            }
            [_, second, ..] => {
                let mut firsts = Vec::new();
                if text(i + 1) == "::" {
                    first_segments(tokens, i + 2, &mut firsts);
                }
                firsts.iter().any(|(word, _)| word == second)
            }
            [] => false,
        };
        if named {
            lines.push(tokens[i].line);
        }
    }
    lines
}

/// Whether the whole file is of tests alone: they may read golden vectors where the room itself reads nothing.
fn is_of_tests(path: &str) -> bool {
    let stem = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    path.contains("/tests/") || ["tests", "golden", "testing"].contains(&stem) || stem.ends_with("_tests")
}

/// The tokens without those of modules that are compiled for tests alone.
fn without_tests(mut tokens: Vec<Token>) -> Vec<Token> {
    let texts = |tokens: &[Token], i: usize, words: &[&str]| {
        words.iter().enumerate().all(|(j, word)| tokens.get(i + j).is_some_and(|token| token.text == *word))
    };
    let mut i = 0;
    while i < tokens.len() {
        if texts(&tokens, i, &["cfg", "(", "test", ")", "]", "mod"]) && texts(&tokens, i + 7, &["{"]) {
            let mut depth = 0;
            let end = tokens[i + 7..].iter().position(|token| {
                depth += i32::from(token.text == "{") - i32::from(token.text == "}");
                depth == 0
            });
            let end = end.map_or(tokens.len(), |end| i + 7 + end + 1);
            tokens.drain(i..end);
        }
        i += 1;
    }
    tokens
}

/// What a file breaks. `path` is relative to `src`, with `/`.
fn broken(path: &str, source: &str) -> Vec<String> {
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
    let room = parts[0];
    if room == "lib" {
        return Vec::new();
    }
    if layer(room).is_none() {
        return vec![format!(
            "src/{path}: the room `{room}` stands in no layer; give it one in tests/it/layers.rs"
        )];
    }
    let tokens = tokens(source);
    let mut broken = Vec::new();
    // `read_tests.rs` is the module `tests` of `read.rs`.
    let depth = if room == "main" { 0 } else { parts.len() + usize::from(path.ends_with("_tests.rs")) };
    for (named, line) in rooms_named(&tokens, depth) {
        if named == "*" || named == "self" {
            broken.push(format!("src/{path}:{line}: takes the whole crate instead of a room"));
        } else if layer(&named).is_some() && !may_know(room, &named) {
            broken.push(format!("src/{path}:{line}: `{room}` must not know `{named}`"));
        } else if layer(&named).is_none() {
            broken.push(format!("src/{path}:{line}: `{named}` is no room of a layer"));
        }
    }
    for (krate, owner) in ONLY.iter().filter(|(_, owner)| *owner != room) {
        for line in lines_naming(&tokens, &[krate]) {
            broken.push(format!("src/{path}:{line}: only `{owner}` knows `{krate}`"));
        }
    }
    if PURE.contains(&room) && !is_of_tests(path) {
        let tokens = without_tests(tokens);
        for segments in IMPURE {
            for line in lines_naming(&tokens, segments) {
                broken.push(format!(
                    "src/{path}:{line}: `{room}` is pure, and names `{}`",
                    segments.join("::")
                ));
            }
        }
        for token in tokens.iter().filter(|token| token.text == "async") {
            broken.push(format!("src/{path}:{}: `{room}` is pure, and awaits nothing", token.line));
        }
    }
    broken
}

/// Every Rust file below `folder`, as its path relative to `root`.
fn files(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            files(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).expect("below the root");
            found.push(relative.to_str().expect("our names are UTF-8").replace('\\', "/"));
        }
    }
}

#[test]
fn every_room_has_a_layer_and_knows_only_those_below() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &root, &mut paths);
    assert!(paths.len() > 10, "the source was not found");
    paths.sort();
    let broken: Vec<String> = paths
        .iter()
        .flat_map(|path| broken(path, &std::fs::read_to_string(root.join(path)).expect("a source file")))
        .collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_map_names_every_room_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = tokens(&std::fs::read_to_string(root.join("lib.rs")).expect("lib.rs"));
    let mut paths = Vec::new();
    files(&root, &root, &mut paths);
    for path in paths.iter().filter(|path| !["lib.rs", "main.rs"].contains(&path.as_str())) {
        let room = path.trim_end_matches(".rs").split('/').next().expect("a first part");
        let named = map.windows(2).any(|pair| pair[0].text == "mod" && pair[1].text == room);
        assert!(named, "src/{path}: lib.rs does not name the room `{room}`");
    }
}

/// Negative controls: each of these is seen.
#[test]
fn what_breaks_the_layers_is_seen() {
    for (path, source, expected) in [
        ("parlour/mod.rs", "", "the room `parlour` stands in no layer"),
        ("parlour.rs", "", "the room `parlour` stands in no layer"),
        ("engine/mod.rs", "use crate::parlour::Sofa;", "`parlour` is no room of a layer"),
        ("domain/ids.rs", "use crate::session::Table;", ":1: `domain` must not know `session`"),
        (
            "signal/bin.rs",
            "use crate::{\n  domain::ids::Id,\n  engine::Batch,\n};",
            ":3: `signal` must not know `engine`",
        ),
        ("signal/bin.rs", "use crate::{domain::{ids, time}, wire};", "`signal` must not know `wire`"),
        ("signal/bin.rs", "fn f() { let x = crate::store::open(); }", "`signal` must not know `store`"),
        ("engine/mod.rs", "use super::store::Journal;", "`engine` must not know `store`"),
        ("engine/a/b.rs", "use super::super::super::store::Journal;", "`engine` must not know `store`"),
        ("engine/mod.rs", "mod tests { use super::super::app::Live; }", "`engine` must not know `app`"),
        ("engine/mod.rs", "use crate::*;", "takes the whole crate"),
        ("http/live.rs", "use crate::session::Session;", "`http` must not know `session`"),
        ("http/live.rs", "use crate::config::Config;", "`http` must not know `config`"),
        ("http/live.rs", "use crate::grpc::Live;", "`http` must not know `grpc`"),
        ("batch/mod.rs", "use crate::pipeline::Plan;", "`batch` must not know `pipeline`"),
        ("batch/mod.rs", "use crate::recorder::Recorder;", "`batch` must not know `recorder`"),
        ("session/mod.rs", "use crate::insight::Job;", "`session` must not know `insight`"),
        ("app/live.rs", "use crate::lifecycle::Stop;", "`app` must not know `lifecycle`"),
        ("app/live.rs", "macro_rules! m { () => { $crate::cli::Cli } }", "`app` must not know `cli`"),
        ("batch/mod.rs", "use ort::session::Session;", "only `engine` knows `ort`"),
        ("batch/mod.rs", "use ::ort;", "only `engine` knows `ort`"),
        ("recorder/mod.rs", "fn f() -> Result<(), sqlx::Error> {}", "only `store` knows `sqlx`"),
        ("signal/bin.rs", "use std::{io, fs};", "`signal` is pure, and names `std::fs`"),
        ("signal/bin.rs", "async fn f() {}", "`signal` is pure, and awaits nothing"),
        ("domain/ids.rs", "fn f() { tokio::spawn(x); }", "`domain` is pure, and names `tokio`"),
        (
            "signal/bin.rs",
            "#[cfg(test)] mod tests { fn f() { std::fs::read(x); } } use std::fs;",
            "`signal` is pure, and names `std::fs`",
        ),
        ("signal/golden.rs", "use crate::session::Table;", "`signal` must not know `session`"),
        ("graph/read_tests.rs", "use super::super::super::app::Live;", "`graph` must not know `app`"),
    ] {
        let found = broken(path, source);
        assert!(found.len() == 1 && found[0].contains(expected), "{path}: {source}\nfound {found:?}");
    }
}

/// And nothing else is.
#[test]
fn what_keeps_the_layers_is_not_complained_of() {
    for (path, source) in [
        ("lib.rs", "pub mod parlour;"),
        ("main.rs", "use latentd::cli::Cli; use latentd::{app::Live, lifecycle};"),
        ("cli/mod.rs", "use crate::telemetry; use crate::http::accept;"),
        (
            "http/live.rs",
            "use crate::app::Live; use crate::wire::v1; use super::accept; use crate::http::request;",
        ),
        ("app/live.rs", "use crate::session::Session; use crate::store::Library; use crate::config::Config;"),
        ("pipeline/mod.rs", "use crate::registry::Model; use crate::batch::Row; use crate::engine::Batch;"),
        ("registry/mod.rs", "use crate::batch::Pool;"),
        ("error.rs", "use crate::domain::signal::word; mod tests { use super::*; }"),
        ("engine/mod.rs", "use ort::session::Session; mod fake { use super::store; }"),
        ("signal/a/b.rs", "use super::super::engine; pub(crate) fn f() {} pub(super) fn g() {}"),
        (
            "signal/bin.rs",
            "// crate::app\n/* crate::app /* nested */ crate::app */ const A: &str = \"crate::app\";",
        ),
        (
            "signal/bin.rs",
            "const A: &str = r#\"use \" crate::app\"#; const B: char = '\"'; const C: char = '\\''; fn f<'a>() {}",
        ),
        ("signal/bin.rs", "fn f() { port::x(); domain::ort::y(); std::mem::take(x); }"),
        ("signal/bin.rs", "#[cfg(test)]\nmod tests { fn f() { { std::fs::read(x); } } }\nfn g() {}"),
        ("signal/golden.rs", "fn f() { std::fs::read(x); std::env::var(y); }"),
        ("graph/read_tests.rs", "use super::super::build::GraphBuilder;"),
    ] {
        assert_eq!(broken(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}

/// A line is counted through comments, texts and raw texts.
#[test]
fn a_breach_is_named_with_its_line() {
    let source =
        "/* a\n b */\nconst A: &str = \"x\n\\\"y\";\nconst B: &str = r\"z\n\";\nuse crate::app::Live;\n";
    assert_eq!(broken("signal/bin.rs", source), ["src/signal/bin.rs:7: `signal` must not know `app`"]);
}
