//! Broadband of many electrodes as i16, through band-pass and thresholds into counts: nothing lost, and what it costs.

use std::time::{Duration, Instant};

use latentd::domain::tensor::{Dtype, Tensor};
use latentd::graph::build::GraphBuilder;
use latentd::wire::{tensor, v1};

use crate::recordings::Random;
use crate::support::models::Model;
use crate::support::{Setup, bins, block, pipeline, signal};
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

/// So many channels for so many seconds, one frame every `every` (or as they are answered): every bin is answered, and
/// holds the one spike of each channel.
async fn broadband(channels: usize, seconds: usize, every: Option<Duration>) {
    let server = Setup::bare().model(model(channels)).key("load_limit", 1).start().await;
    let names: Vec<String> = (0..channels).map(|c| format!("ch{c}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let spec = v1::SignalSpec {
        rate: Some(v1::Rate { num: RATE, den: 1 }),
        scale: Some(0.195),
        unit: "uV".into(),
        ..signal("broadband", "continuous", &names)
    };
    let mut line = server.line(pipeline("counts", [spec])).await;
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
async fn a_second_of_64_channels_at_30_khz_loses_no_bin_and_no_spike() {
    broadband(64, 1, None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; make test-all"]
async fn a_minute_of_1024_channels_at_30_khz_in_real_time_loses_no_bin_and_no_spike() {
    broadband(1024, 60, Some(Duration::from_millis(20))).await;
}
