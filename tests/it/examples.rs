//! The example rigs beside a server that stands still for a second: what they see, and that nothing is lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use latentd::domain::output::Flags;
use latentd::wire::v1;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::{Latentd, Setup};

/// Bins that a rig sends, 20 ms each.
const BINS: u64 = 200;
/// The bin at which the server stops, and for how long.
const STOPS_AT: u64 = 50;
const STOPS_FOR: Duration = Duration::from_secs(1);
/// A rig acts on a value that is at most so many bins old.
const MAX_STALE_BINS: u64 = 5;

/// What a rig said of one of its bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Fresh,
    Held { of: u64 },
    Missed,
}

fn said(line: &str) -> (u64, Said) {
    let mut words = line.split(' ');
    let bin = words.next().and_then(|word| word.parse().ok()).expect("a bin");
    let (word, of) = (words.next(), words.next().map(|of| of.parse().expect("a bin")));
    match (word, of) {
        (Some("fresh"), Some(of)) => {
            assert_eq!(of, bin, "a fresh value is of its own bin: {line}");
            (bin, Said::Fresh)
        }
        (Some("held"), Some(of)) => (bin, Said::Held { of }),
        (Some("missed"), None) => (bin, Said::Missed),
        _ => panic!("no line of a rig: {line}"),
    }
}

/// The Rust rig, built beside the tests.
fn rust_rig() -> PathBuf {
    let tests = std::env::current_exe().expect("the tests' own path");
    let profile = tests.parent().and_then(Path::parent).expect("target/<profile>/deps/it");
    let rig = profile.join("examples/rig");
    assert!(
        rig.exists(),
        "{}: `cargo test` builds it, `cargo test --test it` does not: cargo build --example rig",
        rig.display()
    );
    rig
}

/// The Python rig with its interpreter; none, with one printed line, before `make test` has brought its packages.
fn python_rig() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/rig/bin/python");
    if !python.exists() {
        println!("not run: what needs the Python rig's packages (python3 setup/rig.py brings them)");
        return None;
    }
    Some((python, root.join("examples/rig.py")))
}

/// Plays a rig whose server stops at `STOPS_AT`; what it said of each bin, and its last line.
async fn play_beside_a_stop(server: &Latentd, mut command: Command) -> (Vec<Said>, String) {
    command.arg(&server.grpc).arg(BINS.to_string());
    let mut rig = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().expect("a rig");
    let mut lines = BufReader::new(rig.stdout.take().expect("a pipe")).lines();
    let mut bins = Vec::new();
    while let Some(line) = lines.next_line().await.expect("text") {
        if line.starts_with("closed: ") {
            assert!(rig.wait().await.expect("an end").success());
            return (bins, line);
        }
        let (bin, said) = said(&line);
        assert_eq!(bin, bins.len() as u64, "each bin is told once, in order");
        bins.push(said);
        if bin == STOPS_AT {
            server.stand_still(STOPS_FOR);
        }
    }
    panic!("the rig ended without a last line, after {} bins", bins.len());
}

/// What a rig must have seen, and what the run must hold.
async fn nothing_is_lost(server: &Latentd, bins: &[Said], last: &str) {
    let run = last.rsplit(' ').next().expect("the run's id");
    assert_eq!(last, format!("closed: {BINS} bins, 0 gaps, run {run}"));
    assert_eq!(bins.len() as u64, BINS);
    for (bin, said) in (0..).zip(bins) {
        if let Said::Held { of } = said {
            assert!(*of < bin && bin - of <= MAX_STALE_BINS, "bin {bin} was given the value of bin {of}");
        }
    }
    let count = |is: fn(&Said) -> bool| bins.iter().filter(|said| is(said)).count();
    let (fresh, missed) = (count(|said| *said == Said::Fresh), count(|said| *said == Said::Missed));
    let outputs: v1::OutputsReply = server.get(&format!("/v1/runs/{run}/outputs/velocity")).await.message();
    let flags: Vec<u32> = outputs.stretches.iter().flat_map(|stretch| stretch.flags.clone()).collect();
    assert_eq!(
        (outputs.stretches.len(), flags.len() as u64),
        (1, BINS),
        "every bin is in the run, without a hole"
    );
    let stale = flags.iter().filter(|&&flags| Flags(flags).has(Flags::STALE)).count();
    println!(
        "a server that stood still for {STOPS_FOR:?} under {BINS} bins of 20 ms: {fresh} fresh, {} held, {missed} missed; \
         {stale} bins flagged stale; none lost",
        bins.len() - fresh - missed
    );
    // Two thirds, since a busy machine makes the server late by itself; what must be is that the stop was seen.
    let stood = STOPS_FOR.as_millis() as usize / 20;
    assert!(missed > stood / 3 * 2, "{missed} bins missed, while the server stood still for {stood}");
    assert!(stale > stood / 3 * 2, "{stale} bins flagged stale, {stood} waited for the server");
    assert!(bins[BINS as usize - 50..].contains(&Said::Fresh), "the rig has fresh values again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_rig_never_takes_an_old_output_for_a_new_one() {
    let server = Setup::bare().bundled().start().await;
    let (bins, last) = play_beside_a_stop(&server, Command::new(rust_rig())).await;
    nothing_is_lost(&server, &bins, &last).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_rig_never_takes_an_old_output_for_a_new_one() {
    let Some((python, script)) = python_rig() else { return };
    let server = Setup::bare().bundled().start().await;
    let mut command = Command::new(python);
    command.arg(script);
    let (bins, last) = play_beside_a_stop(&server, command).await;
    nothing_is_lost(&server, &bins, &last).await;
    server.stop().await;
}

#[test]
fn each_example_is_under_a_hundred_lines() {
    for name in ["rig.rs", "rig.py"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let lines = std::fs::read_to_string(path).expect("an example").lines().count();
        assert!(lines < 100, "{name} has {lines} lines");
    }
}
