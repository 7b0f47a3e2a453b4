//! What is measured, scraped and read as Prometheus reads it: each family is there when the contract says so, and moves as
//! the load does. Late data, skipped and invalid bins: `late`, `gaps`, `nan`; slow subscribers: `subscribe`.

use std::collections::BTreeSet;

use crate::support::{LIMIT, Latentd, Scrape, Setup, counts, linear, recorded, until};
use latentd::error::Kind;
use latentd::wire::{json, v1};

const ROW: [f32; 2] = [1.0, 2.0];

/// Families with labels that are bounded, or none: there from the start.
const FROM_THE_START: &[(&str, &str)] = &[
    ("latentd_gaps_total", "counter"),
    ("latentd_jobs", "gauge"),
    ("latentd_journal_bytes", "gauge"),
    ("latentd_journal_oldest_seconds", "gauge"),
    ("latentd_rejected_total", "counter"),
    ("latentd_sessions", "gauge"),
    ("latentd_store_seconds", "histogram"),
    ("latentd_subscriber_dropped_total", "counter"),
];
/// Families by model or pipeline: there from the first load.
const WITH_A_LOAD: &[(&str, &str)] = &[
    ("latentd_age_seconds", "histogram"),
    ("latentd_batch_rows", "histogram"),
    ("latentd_bins_total", "counter"),
    ("latentd_deadline_missed_total", "counter"),
    ("latentd_model_state", "gauge"),
    ("latentd_queue_rows", "gauge"),
    ("latentd_stage_seconds", "histogram"),
    ("latentd_step_seconds", "histogram"),
];

fn words(list: &str) -> BTreeSet<String> {
    list.split(' ').map(String::from).collect()
}

#[tokio::test]
async fn families_without_a_models_or_pipelines_label_are_there_from_the_start_and_the_others_from_the_first_load()
 {
    let server = Setup::bare().start().await;
    let scrape = Scrape::of(&server).await;
    for (name, kind) in FROM_THE_START {
        assert_eq!(scrape.families[*name].kind, *kind, "{name}");
    }
    for (name, _) in WITH_A_LOAD {
        assert!(!scrape.families.contains_key(*name), "{name} before any load");
    }
    for (name, label, expected) in [
        ("latentd_sessions", "state", words("open detached")),
        ("latentd_gaps_total", "policy", words("hold zero skip reset fail")),
        ("latentd_store_seconds", "op", words("append move read snapshot")),
        ("latentd_jobs", "kind", words("analysis evaluation explain replay import")),
        ("latentd_jobs", "state", words("queued running done failed cancelled")),
        ("latentd_rejected_total", "reason", Kind::ALL.iter().map(|kind| kind.word().into()).collect()),
    ] {
        assert_eq!(scrape.words(name, label), expected, "{name}");
        if !name.contains("store") {
            assert!(scrape.families[name].samples.iter().all(|sample| sample.value == 0.0), "{name}");
        }
    }
    assert_eq!(scrape.families["latentd_jobs"].samples.len(), 25, "each kind in each state");
    server.stop().await;

    let server = Latentd::start().await;
    let scrape = Scrape::of(&server).await;
    for (name, kind) in FROM_THE_START.iter().chain(WITH_A_LOAD) {
        assert_eq!(scrape.families[*name].kind, *kind, "{name}");
    }
    let outcomes = words("answered gap_filled output_invalid late dropped skipped");
    assert_eq!(scrape.words("latentd_bins_total", "outcome"), outcomes);
    assert_eq!(scrape.words("latentd_stage_seconds", "stage"), words("receive queue compute readout reply"));
    let states = words("candidate loading ready fault unloaded");
    assert_eq!(scrape.words("latentd_model_state", "state"), states);
    for state in &states {
        let value = scrape.value("latentd_model_state", &[("model", "linear"), ("state", state.as_str())]);
        assert_eq!(value, f64::from(state == "ready"), "{state}");
    }
    let bounds = |name: &str, labels: &[(&str, &str)]| {
        let histogram = scrape.histogram(name, labels);
        histogram.buckets.iter().map(|(bound, _)| *bound).collect::<Vec<_>>()
    };
    let seconds = bounds("latentd_step_seconds", &[("pipeline", "linear")]);
    assert_eq!((seconds.len(), &seconds[..6]), (32, &[1e-5, 1.58e-5, 2.51e-5, 3.98e-5, 6.31e-5, 1e-4][..]));
    let rows = bounds("latentd_batch_rows", &[("model", "linear")]);
    assert_eq!(rows[..11], [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]);
    server.stop().await;
}

#[tokio::test]
async fn p50_and_p99_of_a_sessions_lag_lie_in_the_bucket_of_the_steps_that_holds_them_or_in_the_next() {
    const FRAMES: u64 = 400;
    let server = Latentd::start().await;
    let mut line = server.line(linear()).await;
    let session = line.opened.session.clone();
    let mut next = 0;
    for seq in 0..FRAMES {
        // Most frames are short; some take long.
        let rows = vec![ROW; if seq % 20 == 19 { 500 } else { 1 + seq as usize % 3 }];
        assert_eq!(line.send(counts(seq, next, &rows)).await.n as usize, rows.len());
        next += rows.len() as u64;
    }
    let closed: v1::CloseReply = server.delete(&format!("/v1/sessions/{session}")).await.message();
    line.end().await;
    let lag_us = closed.lag_us.expect("a summary of the lag");
    let scrape = Scrape::of(&server).await;
    let steps = scrape.histogram("latentd_step_seconds", &[("pipeline", "linear")]);
    assert_eq!(steps.count, FRAMES as f64);
    for (q, us) in [(0.5, lag_us.p50), (0.99, lag_us.p99), (1.0, lag_us.max.expect("the largest"))] {
        let (place, expected) = (steps.place(us / 1e6), steps.place_of_quantile(q));
        assert!(
            place == expected || place == expected + 1,
            "{us} µs is p{q}, in bucket {place}, not {expected}: {steps:?}"
        );
    }
    assert!(lag_us.p50 <= lag_us.p99 && Some(lag_us.p99) <= lag_us.max, "{lag_us:?}");
    server.stop().await;
}

#[tokio::test]
async fn each_family_moves_as_the_load_does() {
    // What is recorded stays in the journal until its session closes; a rig that is silent is soon detached.
    let server = Setup::new().key("chunk_s", 3600).key("ping_s", 0.05).key("dead_after_s", 0.2).start().await;
    let of = [("pipeline", "linear")];
    let before = Scrape::of(&server).await;
    let rig = server.open(recorded(linear())).await;
    // Bins 0 and 1; 2 and 3 in a gap that is held, and 4; a frame that is refused; bin 5, too late for its rig.
    rig.send(counts(0, 0, &[ROW, ROW])).await;
    rig.send(counts(1, 4, &[ROW])).await;
    rig.refused(counts(9, 9, &[ROW])).await.is(409, "expected_seq", &[]);
    let hasty = server.open(v1::OpenRequest { deadline_ms: Some(1e-4), ..linear() }).await;
    hasty.send(counts(0, 0, &[ROW])).await;
    let after = Scrape::of(&server).await;

    let moved = |name: &str, labels: &[(&str, &str)]| after.value(name, labels) - before.value(name, labels);
    let bins = |outcome| moved("latentd_bins_total", &[of[0], ("outcome", outcome)]);
    assert_eq!((bins("answered"), bins("gap_filled"), bins("skipped")), (4.0, 2.0, 0.0));
    assert_eq!((bins("output_invalid"), bins("late"), bins("dropped")), (0.0, 0.0, 0.0));
    for policy in ["hold", "zero", "skip", "reset", "fail"] {
        assert_eq!(
            moved("latentd_gaps_total", &[("policy", policy)]),
            f64::from(policy == "hold"),
            "{policy}"
        );
    }
    for kind in Kind::ALL {
        let expected = f64::from(*kind == Kind::ExpectedSeq);
        assert_eq!(moved("latentd_rejected_total", &[("reason", kind.word())]), expected, "{kind}");
    }
    assert_eq!(moved("latentd_deadline_missed_total", &of), 1.0);
    assert_eq!(after.histogram("latentd_step_seconds", &of).count, 3.0, "frames that closed bins");
    assert_eq!(after.histogram("latentd_age_seconds", &of).count, 0.0, "no clock is known");
    let stage = |stage| after.histogram("latentd_stage_seconds", &[("model", "linear"), ("stage", stage)]);
    let counts_of = ["receive", "queue", "compute", "readout", "reply"].map(|name| stage(name).count);
    assert_eq!(counts_of, [3.0, 6.0, 6.0, 6.0, 3.0], "frames, rows, runs, bins, answers");
    let rows = after.histogram("latentd_batch_rows", &[("model", "linear")]);
    assert_eq!((rows.sum, rows.count), (6.0, 6.0), "a session's bins are run one after the other");
    let steps_s = after.histogram("latentd_step_seconds", &of).sum;
    assert!(stage("compute").sum <= steps_s, "what is computed is part of the step");
    assert_eq!(after.value("latentd_queue_rows", &[("model", "linear")]), 0.0, "nothing waits");
    assert!(after.families["latentd_jobs"].samples.iter().all(|sample| sample.value == 0.0));
    assert_eq!(after.value("latentd_subscriber_dropped_total", &[]), 0.0);
    let appended = |scrape: &Scrape| scrape.histogram("latentd_store_seconds", &[("op", "append")]).count;
    assert!(appended(&after) > appended(&before));
    hasty.close().await;

    // The age is measured once the clock is known.
    let clock = format!("/v1/sessions/{}/clock", rig.session());
    let unix_ns = || latentd::domain::time::Stamp::now().unix_ns;
    let mut last = None;
    for _ in 0..10 {
        let ask = v1::ProbeRequest { clock: "device".into(), t1_ns: unix_ns(), last: last.take() };
        let reply: v1::ProbeReply = server.post(&clock, json::write(&ask)).await.message();
        let (t1_ns, t2_ns, t3_ns, t4_ns) = (reply.t1_ns, reply.t2_ns, reply.t3_ns, unix_ns());
        last = Some(v1::ProbeStamps { t1_ns, t2_ns, t3_ns, t4_ns });
    }
    let aged = rig.send(v1::Frame { t_device_ns: Some(unix_ns()), ..counts(2, 5, &[ROW]) }).await;
    let age_us = aged.age_us.expect("an age");
    let ages = Scrape::of(&server).await.histogram("latentd_age_seconds", &of);
    assert_eq!(ages.count, 1.0);
    assert!((ages.sum - age_us.max(0.0) / 1e6).abs() <= 1e-6, "{} s, told were {age_us} µs", ages.sum);

    // Silence, and what lies in the journal meanwhile.
    until(LIMIT, "a session that is detached, and a row that grows old", || async {
        let scrape = Scrape::of(&server).await;
        let state = |state| scrape.value("latentd_sessions", &[("state", state)]);
        // Looked at once a second.
        let is_old = scrape.value("latentd_journal_oldest_seconds", &[]) > 0.0
            && scrape.value("latentd_journal_bytes", &[]) > 0.0;
        ((state("open"), state("detached")) == (0.0, 1.0) && is_old).then_some(())
    })
    .await;
    let read = |scrape: &Scrape, op| scrape.histogram("latentd_store_seconds", &[("op", op)]).count;
    let before = Scrape::of(&server).await;
    server.get(&format!("/v1/runs/{}/outputs/v", rig.run())).await.json();
    rig.close().await;
    until(LIMIT, "an empty journal", || async {
        let scrape = Scrape::of(&server).await;
        let is_empty = scrape.value("latentd_journal_bytes", &[]) == 0.0
            && scrape.value("latentd_journal_oldest_seconds", &[]) == 0.0;
        let was_used = ["read", "move"].iter().all(|op| read(&scrape, op) > read(&before, op));
        let none_left = ["open", "detached"]
            .iter()
            .all(|state| scrape.value("latentd_sessions", &[("state", state)]) == 0.0);
        (is_empty && was_used && none_left).then_some(())
    })
    .await;
    server.stop().await;
}
