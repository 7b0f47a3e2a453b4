//! What was decoded against what was true: a recording's targets, aligned to the bins that were answered.

use std::str::FromStr;

use ndarray::{Array2, ArrayView2, Axis};

use super::report::{PlayReport, Series};
use crate::analysis::score::{R2, pearson_r, r2_score};
use crate::analysis::{AnalysisError, Metric};
use crate::domain::output::Flags;
use crate::domain::signal::SignalRole;
use crate::error::there_is;
use crate::wire::recording::{Data, Recording, Signal};

/// A bin with one of these says nothing about the decoder.
const LEFT_OUT: Flags =
    Flags(Flags::GAP_FILLED.0 | Flags::SIGNAL_MISSING.0 | Flags::OUTPUT_INVALID.0 | Flags::WARMING_UP.0);

/// An output and the target that it stands for; as text `output=target` or `output=target:delay_ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The output's name.
    pub output: String,
    /// The target signal's name.
    pub target: String,
    /// How long ago the target was that a bin's output speaks of (ms). Default: the output's `delay_ms`.
    pub delay_ms: Option<f64>,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected output=target or output=target:delay_ms, found `{text}`");
        let (output, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (target, delay_ms) = match rest.rsplit_once(':') {
            Some((target, delay)) => {
                let delay_ms = delay.parse().ok().filter(|delay: &f64| delay.is_finite());
                (target, Some(delay_ms.ok_or_else(wrong)?))
            }
            None => (rest, None),
        };
        if output.is_empty() || target.is_empty() {
            return Err(wrong());
        }
        Ok(Pair { output: output.into(), target: target.into(), delay_ms })
    }
}

/// An output scored against a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// What was compared.
    pub pair: Pair,
    /// Label of each axis.
    pub axes: Vec<String>,
    /// R², by axis and over all.
    pub r2: R2,
    /// Pearson's r of each axis.
    pub r: Vec<Metric>,
    /// Bins that were compared.
    pub bins: usize,
    /// Bins that were not: flagged, skipped, or without a target.
    pub left_out: usize,
}

/// Why there is no score.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// No such output or target, or none that holds samples.
    #[error("no {what} `{name}`; {there_are}")]
    Unknown {
        /// Output or target.
        what: &'static str,
        /// As asked.
        name: String,
        /// "there are: …".
        there_are: String,
    },
    /// They differ in width.
    #[error("{output} has {found} values per bin, target {target} has {expected}")]
    Widths {
        /// The output.
        output: String,
        /// Its width.
        found: usize,
        /// The target.
        target: String,
        /// Its width.
        expected: usize,
    },
    /// The width of bins is not known.
    #[error("the width of the bins is not known")]
    BinWidth,
    /// The metric refuses.
    #[error(transparent)]
    Metric(#[from] AnalysisError),
}

/// The pairs that offer themselves: each decoded output with the target of its name, else with the only target of its
/// width.
pub fn pairs(report: &PlayReport, recording: &Recording) -> Vec<Pair> {
    let targets = || recording.signals.iter().filter(|signal| signal.role == SignalRole::Target);
    let decoded = report.answers.outputs.values().filter(|series| series.spec.role == "decoded");
    let of = |series: &Series| {
        let wide: Vec<&Signal> = targets().filter(|signal| width(signal) == Some(series.width)).collect();
        let names = [&series.spec.name, &series.spec.output];
        let named = wide.iter().find(|signal| names.iter().any(|name| *name == signal.name()));
        let only = if wide.len() == 1 { wide.first() } else { None };
        let target = named.or(only)?.name().to_string();
        Some(Pair { output: series.spec.name.clone(), target, delay_ms: None })
    };
    decoded.filter_map(of).collect()
}

/// Scores a pair over the answered bins for which `counts` is true.
pub fn score(
    report: &PlayReport,
    recording: &Recording,
    pair: &Pair,
    counts: impl Fn(u64) -> bool,
) -> Result<Scored, ScoreError> {
    let answers = &report.answers;
    let series = answers.outputs.get(&pair.output).ok_or_else(|| ScoreError::Unknown {
        what: "output",
        name: pair.output.clone(),
        there_are: there_is(&pair.output, answers.outputs.keys().map(String::as_str)),
    })?;
    let sampled = recording.signals.iter().filter(|signal| width(signal).is_some());
    let target = sampled.clone().find(|signal| signal.name() == pair.target).ok_or_else(|| {
        let there_are = there_is(&pair.target, sampled.clone().map(Signal::name));
        ScoreError::Unknown { what: "sampled signal", name: pair.target.clone(), there_are }
    })?;
    let wide = width(target).unwrap_or_default();
    if wide != series.width {
        let (output, target) = (pair.output.clone(), pair.target.clone());
        return Err(ScoreError::Widths { output, found: series.width, target, expected: wide });
    }
    let bin_ns = report.bin_ns.ok_or(ScoreError::BinWidth)?;
    let delay_ms = pair.delay_ms.unwrap_or(series.spec.delay_ms);
    let grid = Grid { start_ns: report.t0_ns - recording.t0_ns, bin_ns, delay_ns: (delay_ms * 1e6) as i64 };
    let truth = truth(target, grid, answers.first_bin, answers.bins());
    let predicted = ArrayView2::from_shape((answers.bins(), wide), &series.values)
        .expect("a series is as long as its bins are many");
    let used: Vec<usize> = (0..answers.bins())
        .filter(|&i| counts(answers.first_bin + i as u64))
        .filter(|&i| answers.flags[i].is_some_and(|flags| flags.0 & LEFT_OUT.0 == 0))
        .filter(|&i| truth.row(i).iter().chain(predicted.row(i)).all(|value| value.is_finite()))
        .collect();
    let asked = (0..answers.bins()).filter(|&i| counts(answers.first_bin + i as u64)).count();
    let (truth, predicted) = (truth.select(Axis(0), &used), predicted.select(Axis(0), &used));
    let r = truth.axis_iter(Axis(1)).zip(predicted.axis_iter(Axis(1)));
    let too_few = Metric::undefined(crate::analysis::Undefined::TooFewSamples);
    Ok(Scored {
        axes: (0..wide).map(|axis| label(target, series, axis)).collect(),
        r2: r2_score(truth.view(), predicted.view())?,
        r: r.map(|(truth, predicted)| pearson_r(truth, predicted).unwrap_or(too_few)).collect(),
        bins: used.len(),
        left_out: asked - used.len(),
        pair: Pair { delay_ms: Some(delay_ms), ..pair.clone() },
    })
}

/// The name of an axis: as the target names it, else as the output does.
fn label(target: &Signal, series: &Series, axis: usize) -> String {
    let name = target.spec.channels.get(axis).map(|channel| channel.name.clone());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| series.label(axis))
}

/// Values per sample of a sampled signal.
fn width(signal: &Signal) -> Option<usize> {
    match &signal.data {
        Data::Samples { tensor, .. } => Some(tensor.shape[1..].iter().product()),
        _ => None,
    }
}

/// Where bins lie in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Start of bin 0 (ns after the recording's start).
    pub start_ns: i64,
    /// Width of a bin (ns).
    pub bin_ns: u64,
    /// How long before a bin the truth lies that its output speaks of (ns).
    pub delay_ns: i64,
}

/// A signal by bin, `[bins, channels]`, in its physical unit: the mean of the samples that start in the bin (moved back by
/// the delay); NaN where there is none.
pub fn truth(signal: &Signal, grid: Grid, first_bin: u64, bins: usize) -> Array2<f64> {
    let Data::Samples { tensor, timing } = &signal.data else { return Array2::zeros((bins, 0)) };
    let (rows, wide) = (tensor.shape[0] as u64, tensor.shape[1..].iter().product::<usize>());
    let values = tensor.to_f64();
    let scaling: Vec<(f64, f64)> = (0..wide).map(|channel| signal.scaling(channel)).collect();
    let edge = |bin: u64| {
        let at =
            i128::from(grid.start_ns) + i128::from(bin) * i128::from(grid.bin_ns) - i128::from(grid.delay_ns);
        i64::try_from(at).unwrap_or(i64::MAX)
    };
    let mut truth = Array2::from_elem((bins, wide), f64::NAN);
    for (mut row, bin) in truth.axis_iter_mut(Axis(0)).zip(first_bin..) {
        let first = timing.first_at_or_after(edge(bin)).min(rows) as usize;
        let end = timing.first_at_or_after(edge(bin + 1)).min(rows) as usize;
        if first == end {
            continue;
        }
        for (channel, (scale, offset)) in scaling.iter().enumerate() {
            let sum: f64 = (first..end).map(|sample| values[sample * wide + channel]).sum();
            row[channel] = scale * (sum / (end - first) as f64) + offset;
        }
    }
    truth
}

/// The width of bins (ns) of which `bins` were over after `covered_ns`: the roundest that fits. `None` of no bins.
pub fn width_from(covered_ns: u64, bins: u64) -> Option<u64> {
    // bins · width ≤ covered < (bins + 1) · width
    let (low, high) = (covered_ns.checked_div(bins + 1)? + 1, covered_ns.checked_div(bins)?);
    let steps = (0..19).rev().map(|digits| 10u64.pow(digits));
    steps.flat_map(|step| [5 * step.min(u64::MAX / 5), step]).find_map(|step| {
        let candidate = high / step * step;
        (candidate >= low).then_some(candidate)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::replay::report::Answers;
    use crate::domain::tensor::Tensor;
    use crate::wire::{npy, v1};

    /// Samples 0, 1, 2 … at 100 Hz, twice that in the second channel.
    fn recording() -> Recording {
        let description = r#"{"name": "r", "t0_ns": 40, "signals": [
            {"name": "velocity", "type": "continuous", "file": "v.npy", "role": "target", "scale": 2, "offset": 1,
             "channels": [{"name": "vx"}, {"name": "vy", "scale": 4}], "rate": {"num": 100, "den": 1}},
            {"name": "other", "type": "continuous", "file": "v.npy", "role": "target",
             "channels": [{"name": "a"}, {"name": "b"}], "rate": {"num": 100, "den": 1}}]}"#;
        Recording::read("recording.json", description.as_bytes(), |_| {
            let values: Vec<f32> = (0..40u8).flat_map(|i| [f32::from(i), f32::from(i) * 2.0]).collect();
            Ok(npy::write(&Tensor::from_f32(&[40, 2], &values)))
        })
        .unwrap()
    }

    fn report(values: impl Fn(usize) -> [f64; 2], flags: Vec<Option<Flags>>) -> PlayReport {
        let spec = v1::OutputSpec {
            name: "decoder.velocity".into(),
            output: "velocity".into(),
            role: "decoded".into(),
            delay_ms: 20.0,
            ..Default::default()
        };
        let values: Vec<f64> = (0..flags.len()).flat_map(values).collect();
        let series = Series { spec, width: 2, values };
        PlayReport {
            session: String::new(),
            run: None,
            opened: v1::OpenReply::default(),
            bin_ns: Some(20_000_000),
            t0_ns: 40,
            answers: Answers {
                first_bin: 0,
                flags,
                outputs: BTreeMap::from([("decoder.velocity".into(), series)]),
                features: BTreeMap::new(),
            },
            lags: Vec::new(),
            notices: Vec::new(),
            faults: Vec::new(),
            frames: 0,
            resent: 0,
            reattached: 0,
            behind_s: 0.0,
            wall_s: 0.0,
            closed: v1::CloseReply::default(),
        }
    }

    /// The mean of the two samples of the bin before bin `i`, scaled.
    fn right(i: usize) -> [f64; 2] {
        let mean = 2.0 * i as f64 - 2.0 + 0.5;
        [2.0 * mean + 1.0, 4.0 * 2.0 * mean + 1.0]
    }

    #[test]
    fn a_decoded_output_is_compared_with_the_target_of_its_name_as_long_ago_as_it_says() {
        let mut flags = vec![Some(Flags::default()); 20];
        (flags[7], flags[9]) = (None, Some(Flags::GAP_FILLED));
        let wrong_where_left_out = |i| if i == 7 || i == 9 { [f64::NAN, 1e9] } else { right(i) };
        let report = report(wrong_where_left_out, flags);
        let pairs = pairs(&report, &recording());
        assert_eq!(pairs, ["decoder.velocity=velocity".parse().unwrap()]);
        let scored = score(&report, &recording(), &pairs[0], |_| true).unwrap();
        assert_eq!(scored.axes, ["vx", "vy"]);
        assert_eq!(scored.r2.uniform_average, Metric::of(1.0));
        // Skipped, filled, and the first, whose truth would lie before the recording.
        assert_eq!((scored.bins, scored.left_out), (17, 3));
        let late: Pair = "decoder.velocity=velocity:0".parse().unwrap();
        let scored = score(&report, &recording(), &late, |bin| bin >= 10).unwrap();
        assert!(scored.r2.uniform_average.value.unwrap() < 1.0);
        assert_eq!((scored.bins, scored.left_out), (10, 0));
    }

    #[test]
    fn what_cannot_be_scored_says_why() {
        let report = report(right, vec![Some(Flags::default()); 3]);
        let sentence = |pair: &str| {
            score(&report, &recording(), &pair.parse().unwrap(), |_| true).unwrap_err().to_string()
        };
        assert_eq!(sentence("velocity=velocity"), "no output `velocity`; there are: decoder.velocity");
        assert_eq!(
            sentence("decoder.velocity=speed"),
            "no sampled signal `speed`; there are: other, velocity"
        );
        for wrong in ["velocity", "=x", "a=b:soon", "a="] {
            assert!(wrong.parse::<Pair>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_roundest_width_that_fits_is_taken() {
        assert_eq!(width_from(10_000_000_000, 5000), Some(2_000_000));
        assert_eq!(width_from(9_999_000_000, 4999), Some(2_000_000));
        assert_eq!(width_from(49_680_000_000, 1104), Some(45_000_000));
        assert_eq!(width_from(60_000_000_000, 3000), Some(20_000_000));
        assert_eq!(width_from(60_000_000_000, 0), None);
    }
}
