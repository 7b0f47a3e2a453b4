//! The zoo's models on real recordings, through the network: the scores that the zoo wrote down, and one that it did not.

use std::path::Path;

use latentd::analysis::score::r2_score;
use latentd::cli::replay;
use latentd::cli::replay::report::{Answers, PlayReport};
use latentd::cli::replay::score::{self, Grid};
use latentd::wire::recording::Recording;
use ndarray::{Array2, ArrayView2};
use serde::Deserialize;

use crate::recordings;
use crate::rig::play_grpc;
use crate::support::Setup;

/// What a score through the server may differ from the zoo's own by.
const TOLERANCE: f64 = 1e-6;

/// A score that `zoo/score.py` wrote into `zoo/scores.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "metric", rename_all = "lowercase")]
enum Score {
    /// R² of each axis of an output against a target, over the bins of half-open ranges.
    R2 { pipeline: String, output: String, target: String, bins: Vec<(u64, u64)>, value: Vec<f64> },
    /// Area under the ROC curve of an output's only value: in these bins against those.
    Auroc { pipeline: String, output: String, positive: Vec<u64>, negative: Vec<u64>, value: f64 },
}

impl Score {
    fn pipeline(&self) -> &str {
        match self {
            Score::R2 { pipeline, .. } | Score::Auroc { pipeline, .. } => pipeline,
        }
    }
}

/// The scores that were written down for a recording.
fn written(recording: &str) -> Vec<Score> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/scores.json");
    let text = std::fs::read_to_string(file).expect("the committed scores are read");
    let mut all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    serde_json::from_value(all[recording].take()).expect("the scores of the recording")
}

/// Rows of an output `[bins, width]` in these bins.
fn rows(answers: &Answers, output: &str, bins: impl IntoIterator<Item = u64>) -> Array2<f64> {
    let series = &answers.outputs[output];
    let values: Vec<f64> = bins
        .into_iter()
        .flat_map(|bin| series.row((bin - answers.first_bin) as usize).expect("an answered bin").to_vec())
        .collect();
    Array2::from_shape_vec((values.len() / series.width, series.width), values).expect("whole rows")
}

/// R² of each axis; `shift` bins are added to those of the answers, for a control.
fn r2(
    report: &PlayReport,
    truth: ArrayView2<f64>,
    output: &str,
    bins: &[(u64, u64)],
    shift: u64,
) -> Vec<f64> {
    let answered = report.answers.bins() as u64;
    let bins: Vec<u64> = bins.iter().flat_map(|&(from, to)| from..to).collect();
    let guess = rows(&report.answers, output, bins.iter().map(|bin| (bin + shift) % answered));
    let at: Vec<usize> = bins.iter().map(|&bin| bin as usize).collect();
    let truth = truth.select(ndarray::Axis(0), &at);
    let score = r2_score(truth.view(), guess.view()).expect("numbers");
    score.per_output.iter().map(|axis| axis.value.expect("a value")).collect()
}

/// The chance that a positive is above a negative, ties half.
fn auroc(positive: &Array2<f64>, negative: &Array2<f64>) -> f64 {
    let above = |p: &f64| -> f64 {
        negative.iter().map(|n| if p > n { 1.0 } else { f64::from(u8::from(p == n)) / 2.0 }).sum()
    };
    positive.iter().map(above).sum::<f64>() / (positive.len() * negative.len()) as f64
}

fn assert_near(what: &str, got: &[f64], want: &[f64]) {
    println!("{what}: {got:.4?} through the server");
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= TOLERANCE, "{what}: {got} through the server, {want} by the zoo");
    }
}

/// Plays `bins` bins of a recording's signal through each pipeline that has scores, and compares; `beats` is what each
/// axis of each R² must be above.
async fn scores_equal(name: &str, signal: &str, bin_ns: u64, bins: u64, beats: &dyn Fn(&str) -> [f64; 2]) {
    let Some(folder) = recordings::third_party(name) else { return };
    // Some bins more, where there are any: the last one is closed by what comes after it.
    let recording: Recording =
        replay::open(&folder).expect("the recording is read").first(((bins + 10) * bin_ns) as i64);
    let server = Setup::bare().bundled().start().await;
    let scores = written(name);
    let mut pipelines: Vec<&str> = scores.iter().map(Score::pipeline).collect();
    pipelines.dedup();
    for pipeline in pipelines {
        let frame_ms = 50.0 * bin_ns as f64 / 1e6;
        let report = play_grpc(&server, &recording, pipeline, &[signal], frame_ms).await;
        assert_eq!(report.answers.first_bin, 0, "{pipeline}");
        assert!(report.answers.bins() as u64 >= bins, "{pipeline}: {} bins", report.answers.bins());
        for score in scores.iter().filter(|score| score.pipeline() == pipeline) {
            match score {
                Score::R2 { output, target, bins: at, value, .. } => {
                    let what = format!("{pipeline}, {output}");
                    let target = recording.signal(target).expect("the target");
                    let grid = Grid { start_ns: 0, bin_ns, delay_ns: 0 };
                    let truth = score::truth(target, grid, 0, bins as usize);
                    let got = r2(&report, truth.view(), output, at, 0);
                    assert_near(&what, &got, value);
                    let least = beats(output);
                    assert!(got.iter().zip(least).all(|(got, least)| *got > least), "{what}: {got:?}");
                    let shifted = r2(&report, truth.view(), output, at, 300);
                    assert!(shifted.iter().all(|r2| *r2 < 0.1), "{what} shifted by 300 bins: {shifted:?}");
                }
                Score::Auroc { output, positive, negative, value, .. } => {
                    let of = |bins: &[u64]| rows(&report.answers, output, bins.iter().copied());
                    let got = auroc(&of(positive), &of(negative));
                    assert_near(&format!("{pipeline}, {output}"), &[got], &[*value]);
                }
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rats_position_is_decoded_as_well_as_the_zoo_says_and_better_than_by_ridge() {
    // Ridge on the newest half second of counts: 0.40 and 0.42 at best.
    scores_equal("hc_linear_track", "spikes", 100_000_000, 9_000, &|_| [0.40, 0.42]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monkeys_hand_is_decoded_as_well_as_the_zoo_says() {
    scores_equal("m1_reach_pcs", "features", 100_000_000, 7_792, &|_| [0.5, 0.3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stimuli_are_found_in_the_eeg_as_well_as_the_zoo_says() {
    scores_equal("eeg_attention_events", "eeg", 31_250_000, 7_626, &|_| [0.0, 0.0]).await;
}
