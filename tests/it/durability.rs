//! What a rig was told, against what is found after the server was killed or asked to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use latentd::wire::recording::Recording;
use latentd::wire::{tensor, v1};
use tokio::task::JoinHandle;

use crate::library;
use crate::recordings::{self, Random};
use crate::rig::{Streamer, ask, rows};
use crate::support::{LIMIT, Latentd, Setup, block, until};

/// Bins of the recording that the rigs repeat.
const BINS: i64 = 500;

/// An open of `cortex` that records everything. A long deadline, since the machine is busy on purpose.
fn recorded(recording: &Recording, ack: &str) -> v1::OpenRequest {
    v1::OpenRequest {
        record: Some(v1::Record::default()),
        ack: ack.into(),
        deadline_ms: Some(60_000.0),
        ..ask(recording, "cortex")
    }
}

/// Rigs that stream for as long as they are let; how many frames of theirs were answered so far.
pub struct Rigs {
    streaming: Vec<JoinHandle<Streamer>>,
    answered: Arc<AtomicU64>,
    is_enough: Arc<AtomicBool>,
}

impl Rigs {
    /// One rig for each `ack`, as fast as the window lets it.
    pub async fn start(server: &Latentd, acks: &[&str]) -> Self {
        let answered = Arc::new(AtomicU64::new(0));
        let is_enough = Arc::new(AtomicBool::new(false));
        let mut streaming = Vec::new();
        for (seed, ack) in (1..).zip(acks) {
            let recording = recordings::noise(BINS, seed);
            let mut rig = Streamer::open(&server.grpc, recorded(&recording, ack)).await.expect("a session");
            let (answered, is_enough) = (Arc::clone(&answered), Arc::clone(&is_enough));
            streaming.push(tokio::spawn(async move {
                let rows = rows(&recording).take_while(|_| !is_enough.load(Ordering::Relaxed));
                rig.stream(rows, |_| {
                    answered.fetch_add(1, Ordering::Relaxed);
                })
                .await;
                if is_enough.load(Ordering::Relaxed) {
                    rig.leave().await.expect("the session closes");
                }
                rig.listen().await;
                rig
            }));
        }
        Self { streaming, answered, is_enough }
    }

    /// Frames that were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets them close their sessions once all that they sent is answered.
    pub async fn leave(self) -> Vec<Streamer> {
        self.is_enough.store(true, Ordering::Relaxed);
        self.ended().await
    }

    /// Waits until so many frames were answered.
    pub async fn have_answers(&self, n: u64) {
        until(LIMIT, "answers", || async { (self.answered.load(Ordering::Relaxed) >= n).then_some(()) })
            .await;
    }

    /// The rigs, once their streams have ended.
    pub async fn ended(self) -> Vec<Streamer> {
        let mut rigs = Vec::new();
        for rig in self.streaming {
            rigs.push(rig.await.expect("a rig keeps its account"));
        }
        rigs
    }
}

/// As `whole`, of a run whose server went away before its session was closed.
pub async fn in_the_library(server: &Latentd, rig: &Streamer) -> u64 {
    let info = whole(server, rig).await;
    assert_eq!(info.state, "interrupted", "run {}", info.run);
    info.bins
}

/// A run that is in the library; all bins of it must lie there without a hole, by HTTP and by SQL alike, and be bit for
/// bit what the rig was answered.
pub async fn whole(server: &Latentd, rig: &Streamer) -> v1::RunInfo {
    let run = rig.opened.run.as_deref().expect("a run");
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    for spec in &rig.opened.outputs {
        let path = format!("/v1/runs/{run}/outputs/{}", spec.name);
        let reply: v1::OutputsReply = server.get(&path).await.message();
        let mut next = 0;
        for stretch in &reply.stretches {
            assert_eq!(stretch.first_bin, next, "run {run}, {}: no hole", spec.name);
            let values = tensor::host("tensor", stretch.tensor.as_ref().expect("values")).expect("a tensor");
            let width = values.elements() / stretch.n as usize;
            for (at, row) in (next..).zip(values.to_f64().chunks_exact(width)) {
                let Some(answer) = rig.account.answered.get(&at) else { continue };
                let answered: Vec<u32> = block(answer, spec.number).iter().map(|x| x.to_bits()).collect();
                let stored: Vec<u32> = row.iter().map(|&x| (x as f32).to_bits()).collect();
                assert_eq!(stored, answered, "run {run}, {}: bin {at}", spec.name);
            }
            next += u64::from(stretch.n);
        }
        assert_eq!(next, info.bins, "run {run}, {}", spec.name);
    }
    assert_eq!(library::bins(&server.setup, run).await, info.bins, "run {run}: bins counted by SQL");
    assert_eq!(
        library::frames(&server.setup, run).await,
        info.bins,
        "run {run}: frames, one of which closes each bin"
    );
    info
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_durable_is_there_after_kill_9_at_any_moment() {
    const KILLS: u64 = 4;
    let mut random = Random(0x6b69_6c6c);
    let mut server = Setup::bare().bundled().start().await;
    for kill in 1..=KILLS {
        let rigs = Rigs::start(&server, &["none", "none", "none", "durable"]).await;
        rigs.have_answers(random.next() % 1_500).await;
        let setup = server.kill().await;
        server = setup.start().await;
        assert_eq!(library::count(&server.setup, "SELECT count(*) FROM journal"), 0, "the journal is moved");
        let (mut durable, mut answered, mut found) = (0, 0, 0);
        for rig in rigs.ended().await {
            let account = &rig.account;
            let bins = in_the_library(&server, &rig).await;
            let promised = account.durable_seq().map_or(0, |seq| seq + 1);
            assert!(bins >= promised, "{bins} bins, but those up to frame {promised} were called durable");
            assert!(bins <= account.sent, "{bins} bins of {} frames", account.sent);
            assert!(account.refused.is_empty() && account.end_fault().is_none(), "{account:?}");
            if rig.opened.resolved.as_ref().is_some_and(|open| open.ack == "durable") {
                for (seq, output) in &account.answered {
                    assert!(output.durable_seq["spikes"] >= *seq, "frame {seq} was answered too early");
                }
                assert!(bins >= account.answered.len() as u64);
            }
            durable += promised;
            answered += account.answered.len() as u64;
            found += bins;
        }
        println!("kill {kill}: {answered} frames answered, {durable} called durable, {found} in the library");
    }
    // The server that has come back goes on recording beside the interrupted runs.
    let rigs = Rigs::start(&server, &["durable"]).await;
    rigs.have_answers(10).await;
    let runs: v1::RunsReply = server.get("/v1/runs?state=interrupted").await.message();
    assert_eq!(runs.runs.len() as u64, 4 * KILLS);
    let setup = server.stop().await;
    let rig = rigs.ended().await.pop().expect("one rig");
    let server = setup.start().await;
    assert_eq!(in_the_library(&server, &rig).await, rig.account.answered.len() as u64);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_is_asked_to_stop_under_load_no_frame_that_was_taken_goes_unanswered() {
    const RIGS: usize = 16;
    let mut server = Setup::bare().bundled().key("load_limit", 1).start().await;
    let rigs = Rigs::start(&server, &[["none"; 12].as_slice(), &["durable"; RIGS - 12]].concat()).await;
    rigs.have_answers(1_000).await;
    let asked = Instant::now();
    server.terminate();
    let status = server.wait().await;
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(0), "{}", server.setup.log());
    assert!(took < Duration::from_secs(10), "drain_s is 10, it took {took:?}");
    let rigs = rigs.ended().await;
    let server = server.setup.clone().start().await;
    let (mut answered, mut unanswered) = (0, 0);
    for rig in &rigs {
        let account = &rig.account;
        let fault = account.end_fault().unwrap_or_else(|| panic!("no reason: {:?}", account.end));
        assert_eq!(fault.kind, "unavailable");
        assert!(fault.detail.contains("draining"), "{}", fault.detail);
        // Every frame was answered, refused by name, or not taken at all: what was taken lies in the library.
        assert!(account.is_answered_in_order());
        assert!(account.refused.values().all(|fault| fault.kind == "unavailable" && !fault.consumed));
        let taken = account.answered.len() as u64;
        assert_eq!(in_the_library(&server, rig).await, taken, "frames that were taken, and answers");
        assert!(account.durable_seq().is_none_or(|seq| seq < taken));
        answered += taken;
        unanswered += account.sent - taken;
    }
    println!("{RIGS} rigs: {answered} frames answered, {unanswered} not taken, down in {took:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_drains_it_is_not_ready_opens_nothing_and_tells_streams_why_they_end() {
    // A commit each 3 s: an answer that waits for one keeps the drain waiting.
    let mut server = Setup::bare().bundled().key("commit_ms", 3_000).start().await;
    let recording = recordings::cortex_counts(BINS);
    let mut rig = Streamer::open(&server.grpc, recorded(&recording, "durable")).await.expect("a session");
    let told = Arc::new(AtomicU64::new(0));
    let (sink, frames) = (Arc::clone(&told), rows(&recording).take(3));
    let streaming = tokio::spawn(async move {
        rig.stream(frames, |_| {
            sink.fetch_add(1, Ordering::Relaxed);
        })
        .await;
        rig.listen().await;
        rig
    });
    until(LIMIT, "three bins stepped", || async {
        (server.metric("latentd_bins_total", "outcome=\"answered\",pipeline=\"cortex\"").await >= 3.0)
            .then_some(())
    })
    .await;
    assert_eq!(told.load(Ordering::Relaxed), 0, "a durable answer waits for the journal");
    assert_eq!(server.get("/readyz").await.status, 200);
    server.terminate();
    let readiness = until(LIMIT, "not ready", || async {
        let answer = server.get("/readyz").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    let said: v1::ReadyReply = latentd::wire::json::read(&readiness.body).expect("readiness");
    assert!(!said.ready && said.reasons.iter().any(|reason| reason.contains("draining")), "{said:?}");
    assert_eq!(server.get("/livez").await.status, 200);
    let refused = server.try_open(recorded(&recording, "none")).await.err().expect("no session is opened");
    refused.is(503, "unavailable", &["draining"]);
    let refused =
        Streamer::open(&server.grpc, recorded(&recording, "none")).await.err().expect("none by gRPC");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");

    let rig = streaming.await.expect("a rig keeps its account");
    assert_eq!(rig.account.answered.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(rig.account.answered.iter().all(|(seq, output)| output.durable_seq["spikes"] >= *seq));
    let fault = rig.account.end_fault().expect("a reason");
    assert_eq!(fault.kind, "unavailable");
    assert!(fault.detail.contains("draining"), "{}", fault.detail);
    assert_eq!(server.wait().await.code(), Some(0), "{}", server.setup.log());
    let server = server.setup.clone().start().await;
    assert_eq!(in_the_library(&server, &rig).await, 3);
    server.stop().await;
}
