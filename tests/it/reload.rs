//! A repository that changes under streaming sessions: versions appear, change in place, break, vanish and come back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use latentd::graph::build::linear_recurrence;
use latentd::wire::v1;

use crate::recordings::Random;
use crate::support::models::{self, Model};
use crate::support::{
    LIMIT, Latentd, Line, Rig, Setup, bins, blocks, counts, linear, pipeline, recorded, says, signal, until,
};

const SESSIONS: usize = 16;
const ONE: [f32; 4] = [1.0, 0.0, 0.0, 1.0];

/// A graph that adds up its counts, `kind` times: whole numbers, exact in f32, so that an answer tells the graph.
fn sums(kind: u32) -> Vec<u8> {
    linear_recurrence(&ONE, &ONE.map(|one| one * kind as f32), &[0.0; 2])
}

/// `v` (0) is what came so far, `kind` times.
fn tortured(kind: u32) -> Model {
    Model { graph: sums(kind), ..models::linear().named("tortured") }
}

fn ask() -> v1::OpenRequest {
    recorded(pipeline("tortured", [signal("spikes", "binned", &["a", "b"])]))
}

/// The counts of a bin.
fn row(random: &mut Random) -> [f32; 2] {
    [(random.next() % 4) as f32, (random.next() % 4) as f32]
}

/// Whoever changes the repository. Every good graph that it writes is a kind from 1 to `KINDS`.
struct Tormentor {
    root: PathBuf,
    random: Random,
    /// What was done, by name.
    done: Vec<&'static str>,
}

/// Kinds of graphs that may serve.
const KINDS: u32 = 40;
/// Versions that are tormented, from 1.
const VERSIONS: u64 = 6;

impl Tormentor {
    fn dir(&self, version: u64) -> PathBuf {
        self.root.join(format!("tortured/{version}"))
    }

    fn kind(&mut self) -> u32 {
        1 + (self.random.next() % u64::from(KINDS)) as u32
    }

    /// Another entry in the place of a version's graph.
    fn put(&self, version: u64, entry: impl FnOnce(&Path) -> bool) {
        let _ = fs::remove_dir_all(self.dir(version));
        fs::create_dir_all(self.dir(version)).expect("a folder for the version");
        assert!(entry(&self.dir(version).join("model.onnx")), "an entry");
    }

    /// One of the things that happen to a repository.
    async fn torment(&mut self) {
        let version = 1 + self.random.next() % VERSIONS;
        let graph = sums(self.kind());
        let path = self.dir(version).join("model.onnx");
        let (name, folder) = match self.random.next() % 13 {
            0 | 10.. => ("a version comes whole", self.put(version, |path| fs::write(path, &graph).is_ok())),
            1 => ("a version is copied slowly", {
                self.put(version, |path| fs::write(path, &graph[..graph.len() / 2]).is_ok());
                let pause = Duration::from_millis(50 + self.random.next() % 200);
                tokio::time::sleep(pause).await;
                fs::write(&path, &graph).expect("the rest of the copy");
            }),
            2 => ("a version changes in place", overwrite(&path, &graph)),
            3 => ("a version breaks in place", overwrite(&path, &graph[..30])),
            4 => ("a version vanishes", drop(fs::remove_dir_all(self.dir(version)))),
            5 => ("a folder where a graph should be", self.put(version, |path| fs::create_dir(path).is_ok())),
            6 => ("a dangling link", {
                self.put(version, |path| std::os::unix::fs::symlink("nowhere", path).is_ok());
            }),
            7 => ("a pipe", self.put(version, pipe)),
            8 => ("the model is away for a while", {
                let away = self.root.join(".away");
                fs::rename(self.root.join("tortured"), &away).expect("it goes");
                tokio::time::sleep(Duration::from_millis(self.random.next() % 300)).await;
                fs::rename(&away, self.root.join("tortured")).expect("it comes back");
            }),
            _ => ("a manifest is broken for a while", {
                let manifest = self.root.join("tortured/model.toml");
                let good = fs::read(&manifest).expect("the manifest");
                fs::write(&manifest, &good[..good.len() / 2]).expect("half a manifest");
                tokio::time::sleep(Duration::from_millis(self.random.next() % 300)).await;
                fs::write(&manifest, good).expect("the manifest again");
            }),
        };
        let () = folder;
        self.done.push(name);
    }
}

/// Writes to what is a file there; to write to a pipe would wait for a reader.
fn overwrite(path: &Path, bytes: &[u8]) {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) {
        fs::write(path, bytes).expect("the file is written");
    }
}

fn pipe(path: &Path) -> bool {
    std::process::Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success())
}

/// Streams until it is told to stop, a bin every 20 ms; each answer must be the plain sum of what was sent. Bins sent.
async fn stream(mut line: Line, seed: u64, stop: Arc<AtomicBool>) -> (Line, u64) {
    let mut random = Random(seed);
    let mut known = [0.0f32; 2];
    let mut seq = 0;
    while !stop.load(Ordering::Acquire) {
        let row = row(&mut random);
        let output = line.send(counts(seq, seq, &[row])).await;
        assert_eq!(bins(&output), seq..seq + 1);
        for c in 0..2 {
            known[c] += row[c];
        }
        assert_eq!(blocks::<2>(&output, 0), [known], "session {seed}, bin {seq}");
        assert_eq!(output.flags, [0], "session {seed}, bin {seq}");
        seq += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (line, seq)
}

/// A session that is opened on whatever serves now must be served by one good graph, or refused by name.
async fn visit(server: &Latentd) -> Option<u32> {
    let rig: Rig = match server.try_open(ask()).await {
        Ok(rig) => rig,
        Err(refused) => {
            let kind = refused.fault.kind.as_str();
            assert!(["unavailable", "invalid", "not_found"].contains(&kind), "{:?}", refused.fault);
            return None;
        }
    };
    let mut kind = None;
    for seq in 0..4 {
        let output = rig.send(counts(seq, seq, &[[1.0, 0.0]])).await;
        let [[a, b]] = blocks::<2>(&output, 0)[..] else { panic!("one bin: {output:?}") };
        let of_bin = a / (seq + 1) as f32;
        assert_eq!((of_bin.fract(), b), (0.0, 0.0), "no graph that was written gives {a}, {b}");
        assert!((1.0..=KINDS as f32).contains(&of_bin), "no graph that was written gives {a}");
        assert_eq!(*kind.get_or_insert(of_bin), of_bin, "the graph changed under a session");
    }
    rig.close().await;
    kind.map(|kind| kind as u32)
}

async fn torture(seconds: u64, seed: u64) {
    let server = Setup::bare()
        .model(tortured(1))
        .model(models::linear())
        .key("settle_ms", 60)
        .key("scan_ms", 30)
        .key("load_limit", 1)
        .start()
        .await;
    let root = server.setup.models();
    let mut lines = Vec::new();
    for _ in 0..SESSIONS {
        lines.push(server.line(ask()).await);
    }
    let digest = lines[0].opened.pinned[0].digest.clone();
    let opened: Vec<_> = lines.iter().map(|line| line.opened.clone()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let streams: Vec<_> = lines
        .into_iter()
        .zip(1..)
        .map(|(line, seed)| tokio::spawn(stream(line, seed, Arc::clone(&stop))))
        .collect();

    let mut tormentor = Tormentor { root: root.clone(), random: Random(seed), done: Vec::new() };
    // What is no model stands beside the models all the while.
    fs::write(root.join("a-file"), "").expect("a file");
    assert!(pipe(&root.join("a-pipe")));
    std::os::unix::fs::symlink("nowhere", root.join("a-link")).expect("a link");
    let begun = Instant::now();
    let mut kinds = std::collections::BTreeSet::new();
    let (mut served, mut refused) = (0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        tormentor.torment().await;
        let call = ["load", "load", "unload"].get(tormentor.random.next() as usize % 12);
        if let Some(call) = call {
            let answer = server.post(&format!("/v1/models/tortured/{call}"), "{}").await;
            if answer.status >= 400 {
                let fault = answer.refused().fault;
                assert!(["invalid", "not_found"].contains(&fault.kind.as_str()), "{call}: {fault:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(tormentor.random.next() % 150)).await;
        match visit(&server).await {
            Some(kind) => {
                served += 1;
                kinds.insert(kind);
            }
            None => refused += 1,
        }
    }

    stop.store(true, Ordering::Release);
    let mut sent = 0;
    for (task, opened) in streams.into_iter().zip(&opened) {
        let (line, bins) = task.await.expect("a session that saw nothing wrong");
        assert!(line.notices.is_empty(), "{:?}", line.notices);
        let path = format!("/v1/sessions/{}", opened.session);
        let info: v1::SessionInfo = server.get(&path).await.message();
        assert_eq!(info.pinned[0].digest, digest);
        assert!(line.end().await.is_empty());
        let closed: v1::CloseReply = server.delete(&path).await.message();
        assert_eq!((closed.bins, closed.gaps), (bins, 0));
        let info: v1::RunInfo =
            server.get(&format!("/v1/runs/{}", opened.run.as_deref().unwrap())).await.message();
        assert_eq!((info.bins, info.segments.len(), &info.pinned[0].digest), (bins, 1, &digest));
        sent += bins;
    }
    let mut told: std::collections::BTreeMap<_, u32> = Default::default();
    tormentor.done.iter().for_each(|name| *told.entry(*name).or_default() += 1);
    println!(
        "{SESSIONS} sessions, {sent} bins; {} changes {told:?}; of new sessions {served} were served by {} graphs, \
         {refused} refused",
        tormentor.done.len(),
        kinds.len()
    );
    faults_are_shown_and_do_not_stop_the_scan(&server, &tormentor).await;
    let rig = server.open(linear()).await;
    rig.send(counts(0, 0, &[[1.0, 2.0]])).await;
    rig.close().await;
    server.stop().await;
}

/// Each broken version shows its own sentence, and a good one beside them serves.
async fn faults_are_shown_and_do_not_stop_the_scan(server: &Latentd, tormentor: &Tormentor) {
    let graph = sums(7);
    tormentor.put(11, |path| fs::write(path, &graph[..30]).is_ok());
    tormentor.put(12, |path| fs::create_dir(path).is_ok());
    tormentor.put(13, |path| std::os::unix::fs::symlink("nowhere", path).is_ok());
    tormentor.put(14, pipe);
    tormentor.put(15, |path| fs::write(path, &graph).is_ok());
    for (version, state, sentence) in [
        (11, "fault", "tortured/11/model.onnx: expected an ONNX model"),
        (12, "fault", "tortured/12/model.onnx: expected a regular file, found a directory"),
        (13, "fault", "tortured/13/model.onnx: expected a file, found a dangling link to `nowhere`"),
        (14, "fault", "tortured/14/model.onnx: expected a regular file, found a pipe"),
        (15, "ready", ""),
    ] {
        let path = format!("/v1/models/tortured/versions/{version}");
        let page = until(LIMIT, &format!("version {version} is {state}"), || async {
            let answer = server.get(&path).await;
            let page: Option<v1::ModelVersion> = (answer.status == 200).then(|| answer.message());
            page.filter(|page| page.state == state)
        })
        .await;
        says(page.fault.as_deref().unwrap_or_default(), &[sentence]);
        let ask = v1::OpenRequest { versions: [("tortured".into(), version)].into(), ..ask() };
        match server.try_open(ask).await {
            Ok(rig) => {
                assert_eq!(state, "ready");
                let output = rig.send(counts(0, 0, &[[1.0, 0.0]])).await;
                assert_eq!(blocks::<2>(&output, 0), [[7.0, 0.0]]);
                rig.close().await;
            }
            Err(refused) => drop(refused.is(422, "invalid", &[sentence])),
        }
    }
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    says(answer.text(), &["a-pipe", "a-link", "tortured/11"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_sessions_stay_on_their_digest_while_versions_come_change_break_and_vanish() {
    torture(8, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; make test-all"]
async fn sixteen_sessions_stay_on_their_digest_through_a_minute_of_changes() {
    torture(60, 2).await;
}

#[tokio::test]
async fn a_session_on_a_broken_version_is_refused_by_its_fault_while_another_version_is_still_to_load() {
    let broken = Model { graph: sums(1)[..30].to_vec(), ..tortured(1) };
    // What comes after the start stays a candidate.
    let server = Setup::bare().model(broken).key("settle_ms", 3_600_000).key("scan_ms", 10).start().await;
    let second = server.setup.models().join("tortured/2");
    fs::create_dir(&second).expect("a folder for the version");
    fs::write(second.join("model.onnx"), sums(2)).expect("a graph");
    let version = |version| v1::OpenRequest { versions: [("tortured".into(), version)].into(), ..ask() };
    until(LIMIT, "version 2 is a candidate", || async {
        let answer = server.get("/v1/models/tortured/versions/2").await;
        (answer.status == 200)
            .then(|| answer.message::<v1::ModelVersion>())
            .filter(|page| page.state == "candidate")
    })
    .await;
    let refused = |ask: v1::OpenRequest| async { server.try_open(ask).await.err().expect("it is refused") };
    refused(version(1)).await.is(422, "invalid", &["tortured/1/model.onnx: expected an ONNX model"]);
    refused(version(2)).await.is(503, "unavailable", &["tortured/2 is not ready: candidate"]);
    refused(ask()).await.is(503, "unavailable", &["tortured/2 is not ready: candidate"]);
    server.stop().await;
}
