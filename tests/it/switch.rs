//! Another version of a stage takes over between two bins of a running session, and goes again.

use std::sync::Arc;

use futures::future::join_all;
use latentd::cli::replay::player::{PlayOptions, play};
use latentd::cli::replay::report::PlayReport;
use latentd::domain::output::Flags;
use latentd::graph::build::linear_recurrence;
use latentd::signal::act::Act;
use latentd::store::intake::Taking;
use latentd::store::{NoMetrics, Store};
use latentd::wire::{json, v1};

use crate::recordings;
use crate::support::models::Model;
use crate::support::{
    Answer, LIMIT, Latentd, Rig, Setup, bins, blocks, counts, flag_names, pipeline, recorded, signal, until,
};

pub const ROW: [f32; 2] = [1.0, 2.0];
const ONE: [f32; 4] = [1.0, 0.0, 0.0, 1.0];

/// Adds what comes in, times `gain`, to what was: whole numbers, exact in f32.
fn sums(gain: f32) -> Vec<u8> {
    linear_recurrence(&ONE, &ONE.map(|one| one * gain), &[0.0; 2])
}

/// `sum` of what streams in (0), then `total` (1): in version 1 the sum of those sums, in version 2 of ten times them.
pub fn two_stages() -> Setup {
    let stage = |name: &'static str, input: &str, output: &str| Model {
        name,
        manifest: format!(
            "[[input]]\n{input}\ntensor = \"u\"\n[[state]]\ninput = \"v0\"\noutput = \"v_next\"\n\
             [[output]]\nname = \"{output}\"\ntensor = \"v\"\nrole = \"latent\"\n"
        ),
        graph: sums(1.0),
        files: vec![("channels.csv", "name\na\nb\n".into())],
    };
    let spikes = "name = \"spikes\"\ntype = \"binned\"\nbin_ms = 10\nchannels_file = \"channels.csv\"";
    Setup::bare()
        .model(stage("encoder", spikes, "sum"))
        .model(stage("decoder", "name = \"z\"\ntype = \"latent\"\nchannels = 2", "total"))
        .file("decoder/2/model.onnx", sums(10.0))
        .file(
            "pipelines/two.toml",
            "[[stage]]\nname = \"encoder\"\nmodel = \"encoder\"\ninputs = { spikes = \"signal:spikes\" }\n\
             [[stage]]\nname = \"decoder\"\nmodel = \"decoder\"\ninputs = { z = \"encoder.sum\" }\n",
        )
}

pub fn two() -> v1::OpenRequest {
    let ask = pipeline("two", [signal("spikes", "binned", &["a", "b"])]);
    v1::OpenRequest { versions: [("decoder".into(), 1)].into(), ..recorded(ask) }
}

/// What `two` gives.
pub struct Two {
    pub sum: [f32; 2],
    pub total: [f32; 2],
    pub gain: f32,
}

impl Two {
    pub fn step(&mut self) -> ([f32; 2], [f32; 2]) {
        for ((sum, total), count) in self.sum.iter_mut().zip(&mut self.total).zip(ROW) {
            *sum += count;
            *total += self.gain * *sum;
        }
        (self.sum, self.total)
    }
}

pub async fn switch(server: &Latentd, session: &str, ask: v1::SwitchRequest) -> Answer {
    server.post(&format!("/v1/sessions/{session}/switch"), json::write(&ask)).await
}

pub fn to(version: u32, at_bin: Option<u64>, state: &str) -> v1::SwitchRequest {
    v1::SwitchRequest { stage: "decoder".into(), version, at_bin, state: state.into(), ..Default::default() }
}

/// One bin; its flags.
pub async fn one(rig: &Rig, seq: u64, known: &mut Two) -> Vec<&'static str> {
    let output = rig.send(counts(seq, seq, &[ROW])).await;
    assert_eq!(bins(&output), seq..seq + 1);
    let (sum, total) = known.step();
    assert_eq!((blocks::<2>(&output, 0), blocks::<2>(&output, 1)), (vec![sum], vec![total]), "bin {seq}");
    flag_names(&output).remove(0)
}

pub fn versions(pinned: &[v1::Pinned]) -> Vec<u32> {
    pinned.iter().map(|stage| stage.version).collect()
}

#[tokio::test]
async fn a_decoder_is_switched_between_two_bins_and_back_and_the_run_says_from_where_each_ran() {
    let server = two_stages().start().await;
    let rig = server.open(two()).await;
    let at = |answer: Answer| {
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.message::<v1::SwitchReply>().at_bin
    };
    let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
    for seq in 0..3 {
        assert!(one(&rig, seq, &mut known).await.is_empty());
    }
    // At once, its state kept.
    assert_eq!(at(switch(&server, rig.session(), to(2, None, "")).await), 3);
    known.gain = 10.0;
    assert_eq!(one(&rig, 3, &mut known).await, ["switched"]);
    assert!(one(&rig, 4, &mut known).await.is_empty());
    let info: v1::SessionInfo = server.get(&format!("/v1/sessions/{}", rig.session())).await.message();
    assert_eq!(versions(&info.pinned), [1, 2]);
    // Asked for in advance; undone by the same call.
    assert_eq!(at(switch(&server, rig.session(), to(1, Some(6), "keep")).await), 6);
    assert!(one(&rig, 5, &mut known).await.is_empty());
    known.gain = 1.0;
    assert_eq!(one(&rig, 6, &mut known).await, ["switched"]);
    // From its own initial state; the encoder goes on.
    assert_eq!(at(switch(&server, rig.session(), to(2, Some(8), "reset")).await), 8);
    assert!(one(&rig, 7, &mut known).await.is_empty());
    (known.gain, known.total) = (10.0, [0.0; 2]);
    assert_eq!(one(&rig, 8, &mut known).await, ["reset", "switched"]);
    // A change of mind, both before one bin: the last one runs.
    assert_eq!(at(switch(&server, rig.session(), to(1, Some(9), "")).await), 9);
    assert_eq!(at(switch(&server, rig.session(), to(2, Some(9), "")).await), 9);
    assert_eq!(one(&rig, 9, &mut known).await, ["switched"]);
    // A switch whose bin never comes is in no segment.
    assert_eq!(at(switch(&server, rig.session(), to(1, Some(1000), "")).await), 1000);
    let run = rig.run().to_owned();
    let closed = rig.close().await;
    assert_eq!((closed.bins, closed.deadline_missed), (10, 0));

    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    let segments: Vec<_> =
        info.segments.iter().map(|segment| (segment.from_bin, versions(&segment.pinned))).collect();
    let told = [(0, vec![1, 1]), (3, vec![1, 2]), (6, vec![1, 1]), (8, vec![1, 2]), (9, vec![1, 2])];
    assert_eq!(segments, told);
    assert_ne!(info.segments[0].pinned[1].digest, info.segments[1].pinned[1].digest);
    assert_eq!(info.segments[0].pinned, info.segments[2].pinned);
    let events = server.events(&run, "switched").await;
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 5);
    crate::support::says(&events[0].detail, &["decoder", "version 2 from bin 3 on"]);
    // What replay needs stands between the frames where it was asked for.
    let setup = server.stop().await;
    let store = Store::embedded(&setup.data(), 64 << 20, Arc::new(NoMetrics)).await.expect("the store opens");
    let mut intake = store.intake(run.parse().unwrap()).await.expect("the library answers").expect("the run");
    let (mut frames, mut switched) = (0, Vec::new());
    while let Some(taking) = intake.next().await.expect("the library answers") {
        match taking {
            Taking::Frame(..) => frames += 1,
            Taking::Act(Act::Switch(switch)) => switched.push((frames, switch.version.0, switch.at_bin)),
            Taking::Act(other) => panic!("{other:?}"),
        }
    }
    store.close().await;
    assert_eq!(switched, [(3, 2, 3), (5, 1, 6), (7, 2, 8), (9, 1, 9), (9, 2, 9), (10, 1, 1000)]);
}

#[tokio::test]
async fn a_switch_that_cannot_be_is_refused_with_what_was_expected_and_changes_nothing() {
    let server = two_stages()
        .file("decoder/3/model.onnx", linear_recurrence(&[0.0; 9], &[1.0; 6], &[0.0; 3]))
        .file("decoder/4/model.onnx", "no graph")
        .file("decoder/5/model.onnx", sums(1.0))
        .file("encoder/2/model.onnx", sums(2.0))
        .file("encoder/2/channels.csv", "name\nb\na\n")
        .start()
        .await;
    let rig = server
        .open(v1::OpenRequest { versions: [("decoder".into(), 1), ("encoder".into(), 1)].into(), ..two() })
        .await;
    let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
    for seq in 0..2 {
        one(&rig, seq, &mut known).await;
    }
    let refused = async |ask: v1::SwitchRequest| switch(&server, rig.session(), ask).await.refused();
    let fault = refused(to(2, Some(1), "")).await;
    fault.is(409, "conflict", &["bin 1 is closed", "2"]);
    let fault = refused(v1::SwitchRequest { stage: "decodr".into(), ..to(2, None, "") }).await;
    fault.is(404, "not_found", &["stage `decodr`", "decoder"]);
    refused(to(7, None, "")).await.is(404, "not_found", &["no version 7", "1, 2, 3, 4, 5"]);
    refused(to(0, None, "")).await.is(422, "invalid", &["version", "from 1"]);
    refused(to(4, None, "")).await.is(422, "invalid", &["decoder/4", "model.onnx"]);
    refused(to(2, None, "warmed")).await.is(422, "invalid", &["state", "`warmed`", "keep, reset, warm"]);
    let fault = refused(to(3, None, "")).await;
    let fault = fault.is(422, "invalid", &["stage `decoder`", "decoder/3", "total", "[2]", "[3]"]);
    assert!(fault.expected.contains("[2]") && fault.found.contains("[3]"), "{fault:?}");
    let fault = refused(v1::SwitchRequest { stage: "encoder".into(), ..to(2, None, "") }).await;
    fault.is(422, "invalid", &["encoder/2", "channel 0", "\"a\"", "\"b\""]);
    let path = "/v1/sessions/01890a5d-ac96-774b-bcce-b302099a8057/switch";
    server.post(path, json::write(&to(2, None, ""))).await.refused().is(404, "not_found", &["session"]);
    let path = format!("/v1/sessions/{}/switch", rig.session());
    server.post(&path, r#"{"stage": "decoder", "versions": 2}"#).await.refused().is(
        400,
        "malformed",
        &["versions", "version"],
    );
    // One that was asked for goes before one asked for later.
    assert_eq!(switch(&server, rig.session(), to(2, Some(5), "")).await.status, 200);
    refused(to(1, Some(4), "")).await.is(409, "conflict", &["bin 5", "bin 4"]);
    // A version that was taken out is away, not unknown.
    server.post("/v1/models/decoder/unload", r#"{"version": 5}"#).await;
    refused(to(5, Some(9), "")).await.is(503, "unavailable", &["decoder/5", "unloaded"]);
    for seq in 2..5 {
        assert!(one(&rig, seq, &mut known).await.is_empty());
    }
    // It waits for its bin all the same, though nobody else may have it any more.
    server.post("/v1/models/decoder/unload", r#"{"version": 2}"#).await;
    known.gain = 10.0;
    assert_eq!(one(&rig, 5, &mut known).await, ["switched"]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn switches_asked_for_at_once_take_over_one_after_the_other_and_the_bin_is_the_last_ones() {
    let server = two_stages().key("load_limit", 1).start().await;
    let rig = server.open(two()).await;
    let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
    one(&rig, 0, &mut known).await;
    let asked = (0..24).map(|n| switch(&server, rig.session(), to(1 + n % 2, None, "keep")));
    let mut taken = 0;
    for answer in join_all(asked).await {
        if answer.status == 200 {
            assert_eq!(answer.message::<v1::SwitchReply>().at_bin, 1);
            taken += 1;
        } else {
            answer.refused().is(429, "overloaded", &[]);
        }
    }
    assert!((1..=16).contains(&taken), "{taken} wait for their bin");
    let output = rig.send(counts(1, 1, &[ROW])).await;
    let info: v1::SessionInfo = server.get(&format!("/v1/sessions/{}", rig.session())).await.message();
    known.gain = [1.0, 10.0][versions(&info.pinned)[1] as usize - 1];
    let (sum, total) = known.step();
    assert_eq!((blocks::<2>(&output, 0), blocks::<2>(&output, 1)), (vec![sum], vec![total]));
    assert_eq!(flag_names(&output), [["switched"]]);
    assert!(one(&rig, 2, &mut known).await.is_empty());
    let run = rig.run().to_owned();
    rig.close().await;
    let events = server.events(&run, "switched").await;
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), taken);
    server.stop().await;
}

#[tokio::test]
async fn the_page_of_a_model_keeps_its_description_when_its_versions_are_taken_out() {
    let model = crate::support::models::linear();
    let manifest = format!("description = \"two lines\"\ntags = [\"known\"]\n{}", model.manifest);
    let server = Setup::bare().model(Model { manifest, ..model }).start().await;
    let before: v1::ModelInfo = server.get("/v1/models/linear").await.message();
    assert_eq!((before.description.as_str(), before.kind.as_str()), ("two lines", "decoder"));
    let after: v1::ModelInfo = server.post("/v1/models/linear/unload", "{}").await.message();
    assert_eq!(after.versions[0].state, "unloaded");
    assert_eq!((after.description, after.tags, after.kind), (before.description, before.tags, before.kind));
    server.stop().await;
}

/// The bundled models, and a second version of the decoder: some of its weights are a little different.
fn recalibrated() -> Setup {
    let setup = Setup::bare().bundled();
    let read = |name: &str| std::fs::read(setup.models().join("cortex-decoder").join(name)).expect("a file");
    let mut graph = read("1/model.onnx");
    // Last bits of some hundred numbers in the middle of its weights.
    graph[9_000..11_000].iter_mut().step_by(4).for_each(|byte| *byte ^= 0x3f);
    let manifest = String::from_utf8(read("model.toml")).expect("text");
    let manifest = manifest.replace("[example]\n", "[example]\ncheck = \"warn\"\n");
    let example = read("1/example.safetensors");
    let setup = setup.file("cortex-decoder/2/model.onnx", graph);
    setup.file("cortex-decoder/2/example.safetensors", example).file("cortex-decoder/model.toml", manifest)
}

/// Rigs in real time, each switched to version 2 and back twice while it streams.
async fn switched_under_load(setup: Setup, rigs: u64, bins: i64) -> Vec<PlayReport> {
    let server = setup.start().await;
    let of = |seed: u64| recordings::noise(bins, seed);
    let recordings: Vec<_> = (1..=rigs).map(of).collect();
    let options = |rig: u64| {
        let mut options = PlayOptions::new(&server.grpc, "cortex").recorded();
        options.open.deadline_ms = Some(20.0);
        options.open.rig = format!("rig {rig}");
        options.open.versions = [("decoder".into(), 1)].into();
        options
    };
    let players: Vec<_> = recordings
        .into_iter()
        .zip(1..)
        .map(|(recording, rig)| {
            let options = options(rig);
            tokio::spawn(async move { play(&recording, &options).await })
        })
        .collect();
    let sessions = until(LIMIT, "all sessions", || async {
        let reply: v1::SessionsReply = server.get("/v1/sessions").await.message();
        (reply.sessions.len() as u64 == rigs).then_some(reply.sessions)
    })
    .await;
    let mut took = Vec::new();
    for (eighth, version) in (1..).zip([2, 1, 2, 1]) {
        // By what was answered and not by the clock: on a busy machine calls take their time.
        until(LIMIT, "an eighth of the bins", || async {
            let info: v1::SessionInfo =
                server.get(&format!("/v1/sessions/{}", sessions[0].session)).await.message();
            info.last_bin.filter(|last| *last >= bins as u64 * eighth / 8)
        })
        .await;
        let all = sessions.iter().map(async |session| {
            let begun = std::time::Instant::now();
            let answer = switch(&server, &session.session, to(version, None, "")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            begun.elapsed()
        });
        took.extend(futures::future::join_all(all).await);
    }
    let mut reports = Vec::new();
    for player in players {
        reports.push(player.await.expect("a rig ends").expect("a rig is served"));
    }
    took.sort();
    let missed: u64 = reports.iter().map(|report| report.closed.deadline_missed).sum();
    println!(
        "{rigs} rigs of {bins} bins, {} switches (p50 {:?}, longest {:?}): {missed} deadlines of 20 ms missed",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
    for (report, seed) in reports.iter().zip(1..) {
        let run = report.run.as_deref().expect("a run");
        assert_eq!((report.answers.first_bin, report.answers.answered()), (0, bins as usize), "run {run}");
        assert!(report.faults.is_empty(), "run {run}: {:?}", report.faults);
        let flagged = report.answers.flags.iter().enumerate();
        let flagged = flagged.filter(|(_, flags)| flags.is_some_and(|flags| flags.has(Flags::SWITCHED)));
        let switched_at: Vec<u64> = flagged.map(|(bin, _)| bin as u64).collect();
        let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
        let told: Vec<_> =
            info.segments.iter().map(|segment| (segment.from_bin, segment.pinned[1].version)).collect();
        assert_eq!(told.iter().map(|segment| segment.1).collect::<Vec<_>>(), [1, 2, 1, 2, 1], "run {run}");
        assert_eq!(told[1..].iter().map(|segment| segment.0).collect::<Vec<_>>(), switched_at, "run {run}");
        // The same counts without a switch.
        if seed <= 8 {
            let plain = play(&of(seed), &options(seed).at_max_speed()).await.expect("a rig is served");
            let bits = |report: &PlayReport, name: &str| -> Vec<u64> {
                report.answers.outputs[name].values.iter().map(|value| value.to_bits()).collect()
            };
            for name in report.answers.outputs.keys().filter(|name| *name != "velocity") {
                assert_eq!(bits(report, name), bits(&plain, name), "{name} of run {run}");
            }
            let (mine, plain) = (bits(report, "velocity"), bits(&plain, "velocity"));
            let at = 2 * switched_at[0] as usize;
            assert_eq!(mine[..at], plain[..at], "run {run}: before the switch");
            assert_ne!(mine[at..], plain[at..], "run {run}: the other version is another");
        }
    }
    server.stop().await;
    reports
}

#[tokio::test(flavor = "multi_thread")]
async fn decoders_are_switched_and_switched_back_under_eight_streaming_rigs_and_latents_stay_bit_equal() {
    switched_under_load(recalibrated().key("workers", 2).key("load_limit", 1), 8, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute, in release; make test-all"]
async fn sixty_four_rigs_are_switched_four_times_and_miss_no_deadline() {
    for report in switched_under_load(recalibrated(), 64, 1_500).await {
        assert_eq!(report.closed.deadline_missed, 0, "run {:?}: {:?}", report.run, report.server_lag_us());
    }
}
