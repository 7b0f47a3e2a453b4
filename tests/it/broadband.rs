//! Broadband of many electrodes as i16, through band-pass and thresholds into counts: nothing lost, and what it costs.

use std::time::{Duration, Instant};

use latentd::domain::tensor::{Dtype, Tensor};
use latentd::graph::build::GraphBuilder;
use latentd::wire::{tensor, v1};

use crate::recordings::Random;
use crate::support::models::{self, Model};
use crate::support::{Setup, bins, block, counts, linear, pipeline, signal};
use crate::usage::usage;

/// Samples per second, and in a frame, which is a bin of 20 ms.
const RATE: u32 = 30_000;
const PER_FRAME: usize = 600;
const FRAMES_PER_S: usize = 50;
/// Unanswered frames.
const AHEAD: usize = 8;
/// Frames in which thresholds are measured.
const CALIBRATION: usize = 10;

/// Counts of so many channels, given back as they are.
fn model(channels: usize) -> Model {
    let dims = ["batch".into(), channels.into()];
    let graph = GraphBuilder::new("counts")
        .input("x", Dtype::F32, &dims)
        .node("Identity", &["x"], &["y"])
        .output("y", Dtype::F32, &dims)
        .bytes();
    let manifest = r#"
[[input]]
name = "broadband"
tensor = "x"
type = "continuous"
bin_ms = 20
rate = { num = 30000, den = 1 }
preprocess = [{ op = "threshold_crossings", low_hz = 250.0, high_hz = 5000.0, times = -6.0, calibrate_s = 0.2, refractory_ms = 5.0 }]
[[output]]
name = "counts"
tensor = "y"
role = "latent"
"#;
    Model { name: "counts", manifest: manifest.into(), graph, files: Vec::new() }
}

/// One frame: noise, and in each channel one spike at a place of its own.
fn frame(channels: usize) -> v1::Frame {
    let mut noise = Random(11);
    let mut raw: Vec<i16> = (0..PER_FRAME * channels).map(|_| (noise.next() % 41) as i16 - 20).collect();
    for c in 0..channels {
        let at = 100 + c * 37 % (PER_FRAME - 200);
        for (i, x) in [-300i16, -600, -300].into_iter().enumerate() {
            raw[(at + i) * channels + c] = x;
        }
    }
    let bytes: Vec<u8> = raw.into_iter().flat_map(i16::to_le_bytes).collect();
    let tensor = Tensor::from_bytes(Dtype::I16, &[PER_FRAME, channels], &bytes).expect("a whole frame");
    v1::Frame {
        signal: "broadband".into(),
        count: PER_FRAME as u32,
        tensor: Some(tensor::message(&tensor)),
        ..Default::default()
    }
}

/// A session of so many electrodes.
fn ask(channels: usize) -> v1::OpenRequest {
    let names: Vec<String> = (0..channels).map(|c| format!("ch{c}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let spec = v1::SignalSpec {
        rate: Some(v1::Rate { num: RATE, den: 1 }),
        scale: Some(0.195),
        unit: "uV".into(),
        ..signal("broadband", "continuous", &names)
    };
    pipeline("counts", [spec])
}

/// So many channels for so many seconds, one frame every `every` (or as they are answered): every bin is answered, and
/// holds the one spike of each channel.
async fn broadband(channels: usize, seconds: usize, every: Option<Duration>) {
    let server = Setup::bare().model(model(channels)).key("load_limit", 1).start().await;
    let mut line = server.line(ask(channels)).await;
    let (one, frames) = (frame(channels), seconds * FRAMES_PER_S);
    let (_, before_s) = usage(server.pid());
    let begun = Instant::now();
    let (mut sent, mut answered, mut worst_us) = (0, 0, 0.0f64);
    while answered < frames {
        while sent < frames && sent - answered < AHEAD {
            if let Some(every) = every {
                let due = begun + every * sent as u32;
                if due > Instant::now() && sent > answered {
                    break; // there is time for an answer
                }
                tokio::time::sleep_until(due.into()).await;
            }
            let (seq, first_index) = (sent as u64, (sent * PER_FRAME) as u64);
            line.put(v1::Frame { seq, first_index, ..one.clone() }).await;
            sent += 1;
        }
        let output = line.output().await;
        assert_eq!((bins(&output), output.skipped_bins), (answered as u64..answered as u64 + 1, 0));
        // On a busy machine a bin may be stale or late; what it holds is the same.
        let (warming_up, behind) = (1 << 5, 1 << 9 | 1 << 10);
        let is_early = answered < CALIBRATION;
        assert_eq!(output.flags[0] & !behind, if is_early { warming_up } else { 0 }, "bin {answered}");
        let counts = block(&output, 0);
        let want = if is_early { 0.0 } else { 1.0 };
        assert!(counts.iter().all(|count| *count == want), "bin {answered}: {counts:?}");
        worst_us = worst_us.max(output.lag_us.map_or(0.0, |lag| lag.total));
        answered += 1;
    }
    let wall_s = begun.elapsed().as_secs_f64();
    let (rss_kb, after_s) = usage(server.pid());
    println!(
        "{channels} channels at {RATE} Hz for {seconds} s of signal, in {wall_s:.1} s: the server used {:.2} cores, {:.2} s \
         of processor per second of signal, and {} MB; lag at most {:.1} ms",
        (after_s - before_s) / wall_s,
        (after_s - before_s) / seconds as f64,
        rss_kb / 1024,
        worst_us / 1e3,
    );
    line.end().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_preprocessing_was_measured_to_take_is_held_against_the_load_limit_and_named_in_the_refusal() {
    const CHANNELS: usize = 64;
    // 1.92 million samples per second of signal through a filter take far more than 1 % of a core.
    let setup = Setup::bare().model(model(CHANNELS)).model(models::linear());
    let server = setup.key("workers", 1).key("load_limit", 0.01).start().await;
    let first = server.open(ask(CHANNELS)).await;
    let second = server.open(ask(CHANNELS)).await;
    second.close().await;
    let one = frame(CHANNELS);
    for seq in 0..8 {
        let first_index = seq * PER_FRAME as u64;
        first.send(v1::Frame { seq, first_index, ..one.clone() }).await;
    }
    // Of the models' runs nothing is new: only now is it known what comes before them.
    let refused = server.try_open(ask(CHANNELS)).await.err().expect("a second one like it is refused");
    let sentences =
        ["of 0.01 threads", "for runs of models", "for ingest", "for the new session", "load_limit"];
    let fault = refused.is(429, "overloaded", &sentences);
    assert!(
        fault.retry_after_ms.is_some_and(|ms| ms > 0.0) && !fault.detail.contains("0.00 for the new"),
        "{fault:?}"
    );
    // A light one is refused, too, for what is open; none of it is its own.
    let refused = server.try_open(linear()).await.err().expect("no other is let in either");
    refused.is(429, "overloaded", &["0.00 for the new session"]);
    first.close().await;
    // Alone, the same session is let in, and keeps others out by what the last one took.
    let alone = server.open(ask(CHANNELS)).await;
    server.try_open(ask(CHANNELS)).await.err().expect("there is one").is(429, "overloaded", &["for ingest"]);
    alone.close().await;
    server.open(linear()).await.close().await;
    server.stop().await;
}

/// Round trips (ms) of a light rig at bins of 10 ms while `heavy` rigs stream broadband as fast as they are answered.
async fn beside_broadband(heavy: usize, inline_us: u32) -> Vec<f64> {
    const CHANNELS: usize = 32;
    let setup = Setup::bare().model(model(CHANNELS)).model(models::linear()).key("inline_us", inline_us);
    let server = setup.key("load_limit", 1).key("workers", 8).start().await;
    let mut light = server.line(linear()).await;
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut rigs = Vec::new();
    for _ in 0..heavy {
        let (mut line, over) = (server.line(ask(CHANNELS)).await, std::sync::Arc::clone(&over));
        rigs.push(tokio::spawn(async move {
            let one = frame(CHANNELS);
            for seq in 0u64.. {
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                line.put(v1::Frame { seq, first_index: seq * PER_FRAME as u64, ..one.clone() }).await;
                if seq as usize >= AHEAD {
                    line.output().await;
                }
            }
        }));
    }
    let mut trips = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for seq in 0..200 {
        tick.tick().await;
        let sent = Instant::now();
        let output = light.send(counts(seq, seq, &[[1.0, 1.0]])).await;
        assert_eq!((output.first_bin, output.n), (seq, 1));
        trips.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    for rig in rigs {
        rig.await.expect("a rig ends");
    }
    server.stop().await;
    trips
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; make test-all"]
async fn a_light_rig_is_answered_beside_broadband_that_takes_all_cores() {
    // The first never leaves the runtime's threads.
    for inline_us in [1_000_000, 50] {
        let mut trips = beside_broadband(3, inline_us).await;
        trips.sort_by(f64::total_cmp);
        let at = |part: f64| trips[((trips.len() - 1) as f64 * part) as usize];
        println!(
            "inline_us = {inline_us}: round trip p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            at(0.5),
            at(0.95),
            at(0.99),
            at(1.0)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_of_64_channels_at_30_khz_loses_no_bin_and_no_spike() {
    broadband(64, 1, None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; make test-all"]
async fn a_minute_of_1024_channels_at_30_khz_in_real_time_loses_no_bin_and_no_spike() {
    broadband(1024, 60, Some(Duration::from_millis(20))).await;
}
