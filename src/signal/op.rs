//! Preprocessing as a manifest declares it: the op words and parameters of `[[input]] preprocess`.

use serde::Deserialize;

use super::refusal::OpError;
use crate::error::clip;

/// Highest order of a filter; beyond it second-order sections in f64 say nothing any more.
const MAX_ORDER: u32 = 64;

/// Most notches of one op; more is a slip in the manifest.
const MAX_HARMONICS: u32 = 1_000;

/// One op of a chain. Formulas, edge cases and delays: docs/MODELS.md.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are the manifest's own keys")]
pub enum Op {
    /// Samples or events to one value per bin.
    Bin { reduce: Option<Reduce> },
    /// x · factor + offset.
    Scale {
        #[serde(default = "one")]
        factor: f64,
        #[serde(default)]
        offset: f64,
    },
    /// √x.
    Sqrt {},
    /// ln(1 + x).
    Log1p {},
    /// Into [min, max].
    Clip { min: f64, max: f64 },
    /// Against a common average, median or in pairs.
    Reference {
        kind: ReferenceKind,
        by: Option<String>,
        #[serde(default)]
        pairs: Vec<(String, String)>,
    },
    /// Butterworth filter as second-order sections.
    Butterworth {
        kind: BandKind,
        low_hz: Option<f64>,
        high_hz: Option<f64>,
        #[serde(default = "four")]
        order: u32,
        #[serde(default)]
        init: Init,
    },
    /// Mains hum and its harmonics out.
    Notch {
        hz: f64,
        #[serde(default = "thirty")]
        q: f64,
        #[serde(default = "one_u32")]
        harmonics: u32,
    },
    /// Low-pass, then every `factor`-th sample.
    Decimate {
        factor: u32,
        #[serde(default = "eight")]
        order: u32,
    },
    /// Broadband to crossings, one or none per sample.
    ThresholdCrossings {
        low_hz: f64,
        high_hz: f64,
        #[serde(default = "four")]
        order: u32,
        #[serde(default = "minus_four_and_a_half")]
        times: f64,
        #[serde(default)]
        of: Spread,
        #[serde(default = "sixty")]
        calibrate_s: f64,
        #[serde(default = "one")]
        refractory_ms: f64,
    },
    /// Power per band from the window that ends with the bin.
    BandPower {
        bands: Vec<(f64, f64)>,
        window_ms: f64,
        #[serde(default)]
        scale: PowerScale,
    },
    /// Causal smoothing. `init` of the exponential is zero unless told.
    Smooth {
        kernel: Kernel,
        tau_ms: Option<f64>,
        sigma_ms: Option<f64>,
        truncate: Option<f64>,
        extent: Option<f64>,
        init: Option<Init>,
    },
    /// (x − mean) / standard deviation.
    Zscore {
        mode: ZscoreMode,
        tau_s: Option<f64>,
        mean: Option<Numbers>,
        std: Option<Numbers>,
        seconds: Option<f64>,
    },
}

impl Op {
    /// The first parameter that is wrong at any rate and for any channels. Numbers of a fixed z-score are the
    /// business of whoever knows the channels.
    pub fn check(&self) -> Result<(), OpError> {
        let told = |x: &Option<f64>| x.map_or_else(|| "nothing".to_owned(), |x| x.to_string());
        let wrong = |key, expected: &str, found: String| Err(OpError::new(key, expected, found));
        match self {
            Op::Bin { .. } | Op::Sqrt {} | Op::Log1p {} => Ok(()),
            Op::Scale { factor, offset } if !factor.is_finite() || !offset.is_finite() => {
                wrong("factor", "finite numbers", format!("{factor} and {offset}"))
            }
            Op::Clip { min, max } if !(min.is_finite() && max.is_finite() && min <= max) => {
                wrong("min", "finite min <= max", format!("{min} and {max}"))
            }
            Op::Scale { .. } | Op::Clip { .. } => Ok(()),
            Op::Reference { kind, by, pairs } => check_reference(*kind, by.as_deref(), pairs),
            Op::Butterworth { kind, low_hz, high_hz, order, .. } => {
                let (low, high) = kind.corners();
                for (key, given, wanted) in [("low_hz", low_hz, low), ("high_hz", high_hz, high)] {
                    if given.is_some() != wanted || given.is_some_and(|hz| !positive(hz)) {
                        let what = if wanted { "a finite number > 0" } else { "nothing" };
                        let expected = format!("{what} with kind = \"{}\"", kind.word());
                        return wrong(key, &expected, told(given));
                    }
                }
                check_order(*order)?;
                check_corners(low_hz.unwrap_or(0.0), high_hz.unwrap_or(f64::INFINITY))
            }
            Op::Notch { hz, .. } if !positive(*hz) => wrong("hz", "a finite number > 0", hz.to_string()),
            Op::Notch { q, .. } if !positive(*q) => wrong("q", "a finite number > 0", q.to_string()),
            Op::Notch { harmonics: 1..=MAX_HARMONICS, .. } => Ok(()),
            Op::Notch { harmonics, .. } => {
                let expected = format!("1 to {MAX_HARMONICS} (the fundamental counts)");
                wrong("harmonics", &expected, harmonics.to_string())
            }
            Op::Decimate { factor: factor @ (0 | 1), .. } => {
                wrong("factor", "a whole number, 2 or more", factor.to_string())
            }
            Op::Decimate { order, .. } => check_order(*order),
            Op::ThresholdCrossings { low_hz, high_hz, order, times, calibrate_s, refractory_ms, .. } => {
                for (key, hz) in [("low_hz", low_hz), ("high_hz", high_hz)] {
                    if !positive(*hz) {
                        return wrong(key, "a finite number > 0", hz.to_string());
                    }
                }
                check_order(*order)?;
                check_corners(*low_hz, *high_hz)?;
                if !times.is_finite() || *times == 0.0 {
                    return wrong(
                        "times",
                        "a finite number above or below 0 (below: falling)",
                        times.to_string(),
                    );
                }
                if !positive(*calibrate_s) {
                    return wrong("calibrate_s", "a finite number > 0", calibrate_s.to_string());
                }
                if !(refractory_ms.is_finite() && *refractory_ms >= 0.0) {
                    return wrong("refractory_ms", "a finite number, 0 or more", refractory_ms.to_string());
                }
                Ok(())
            }
            Op::BandPower { bands, window_ms, .. } => {
                if !positive(*window_ms) {
                    return wrong("window_ms", "a finite number > 0", window_ms.to_string());
                }
                if bands.is_empty() {
                    return wrong("bands", "at least one band [low, high] in Hz", "none".into());
                }
                let good = |(low, high): &(f64, f64)| *low >= 0.0 && low < high && high.is_finite();
                match bands.iter().find(|band| !good(band)) {
                    Some((low, high)) => {
                        wrong("bands", "0 <= low < high, finite, in Hz", format!("[{low}, {high}]"))
                    }
                    None => Ok(()),
                }
            }
            Op::Smooth { kernel: Kernel::HalfGaussian, sigma_ms, .. } if !sigma_ms.is_some_and(positive) => {
                wrong("sigma_ms", "a finite number > 0", told(sigma_ms))
            }
            Op::Smooth { kernel: Kernel::Exponential | Kernel::ExponentialFir, tau_ms, .. }
                if !tau_ms.is_some_and(positive) =>
            {
                wrong("tau_ms", "a finite number > 0", told(tau_ms))
            }
            Op::Smooth { .. } => Ok(()),
            Op::Zscore { mode: ZscoreMode::Running, tau_s, .. }
                if tau_s.is_some_and(|tau| !tau.is_finite() || tau < 0.0) =>
            {
                wrong("tau_s", "a finite number of seconds, 0 or more", told(tau_s))
            }
            Op::Zscore { mode: ZscoreMode::Calibration, seconds, .. } if !seconds.is_some_and(positive) => {
                wrong("seconds", "a finite number > 0", told(seconds))
            }
            Op::Zscore { .. } => Ok(()),
        }
    }

    /// The word for it in a manifest.
    pub fn word(&self) -> &'static str {
        match self {
            Op::Bin { .. } => "bin",
            Op::Scale { .. } => "scale",
            Op::Sqrt {} => "sqrt",
            Op::Log1p {} => "log1p",
            Op::Clip { .. } => "clip",
            Op::Reference { .. } => "reference",
            Op::Butterworth { .. } => "butterworth",
            Op::Notch { .. } => "notch",
            Op::Decimate { .. } => "decimate",
            Op::ThresholdCrossings { .. } => "threshold_crossings",
            Op::BandPower { .. } => "band_power",
            Op::Smooth { .. } => "smooth",
            Op::Zscore { .. } => "zscore",
        }
    }
}

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

fn check_order(order: u32) -> Result<(), OpError> {
    match order {
        1..=MAX_ORDER => Ok(()),
        _ => Err(OpError::new("order", format!("1 to {MAX_ORDER}"), order.to_string())),
    }
}

fn check_corners(low_hz: f64, high_hz: f64) -> Result<(), OpError> {
    if low_hz < high_hz {
        return Ok(());
    }
    Err(OpError::new("low_hz", format!("below high_hz = {high_hz}"), low_hz.to_string()))
}

fn check_reference(kind: ReferenceKind, by: Option<&str>, pairs: &[(String, String)]) -> Result<(), OpError> {
    let bipolar = kind == ReferenceKind::Bipolar;
    match by {
        Some(by) if bipolar => {
            return Err(OpError::new("by", "nothing with kind = \"bipolar\"", format!("`{}`", clip(by))));
        }
        Some(by) if by != "group" => return Err(OpError::new("by", "\"group\"", format!("`{}`", clip(by)))),
        _ => {}
    }
    if bipolar == pairs.is_empty() {
        let expected = if bipolar { "at least one pair of channels" } else { "pairs only with bipolar" };
        return Err(OpError::new("pairs", expected, format!("{} of them", pairs.len())));
    }
    match pairs.iter().find(|(first, second)| first == second) {
        Some((name, _)) => {
            Err(OpError::new("pairs", "two channels in each", format!("`{}` twice", clip(name))))
        }
        None => Ok(()),
    }
}

/// How many values per bin a chain makes of `channels`. `None`: only the rate tells (`reduce = "all"`).
pub fn values_per_bin(ops: &[Op], channels: usize) -> Option<usize> {
    ops.iter().try_fold(channels, |columns, op| match op {
        Op::Reference { kind: ReferenceKind::Bipolar, pairs, .. } => Some(pairs.len()),
        Op::BandPower { bands, .. } => columns.checked_mul(bands.len()),
        Op::Bin { reduce: Some(Reduce::All) } => None,
        _ => Some(columns),
    })
}

/// Of how many channels a chain makes `values` per bin. `None`: any number of them may do.
pub fn channels_for(ops: &[Op], values: usize) -> Option<usize> {
    ops.iter().rev().try_fold(values, |columns, op| match op {
        Op::Reference { kind: ReferenceKind::Bipolar, .. } | Op::Bin { reduce: Some(Reduce::All) } => None,
        Op::BandPower { bands, .. } => {
            columns.is_multiple_of(bands.len()).then(|| columns.checked_div(bands.len())).flatten()
        }
        _ => Some(columns),
    })
}

/// How the samples of a bin become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum Reduce {
    Sum,
    Mean,
    Last,
    All,
}

/// What a channel is referenced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum ReferenceKind {
    CommonAverage,
    CommonMedian,
    Bipolar,
}

/// Shape of a filter's pass band.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum BandKind {
    Low,
    High,
    Band,
    Stop,
}

impl BandKind {
    /// Whether it has a lower and an upper corner.
    pub fn corners(self) -> (bool, bool) {
        match self {
            BandKind::Low => (false, true),
            BandKind::High => (true, false),
            BandKind::Band | BandKind::Stop => (true, true),
        }
    }

    /// The word for it in a manifest.
    pub fn word(self) -> &'static str {
        match self {
            BandKind::Low => "low",
            BandKind::High => "high",
            BandKind::Band => "band",
            BandKind::Stop => "stop",
        }
    }
}

/// How a filter's memory begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// As if the first sample had been there for ever.
    #[default]
    Steady,
    /// At rest.
    Zero,
}

/// How spread is estimated for a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum Spread {
    #[default]
    Rms,
    Median,
}

/// Unit of band power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum PowerScale {
    Linear,
    #[default]
    Log,
}

/// Smoothing kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum Kernel {
    Exponential,
    HalfGaussian,
    ExponentialFir,
}

/// Where a z-score's mean and deviation come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum ZscoreMode {
    Running,
    Fixed,
    Calibration,
}

/// Numbers in the manifest, or `file:name` beside it (resolved by whoever reads the manifest).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum Numbers {
    Here(Vec<f64>),
    File(String),
}

fn one() -> f64 {
    1.0
}
fn one_u32() -> u32 {
    1
}
fn four() -> u32 {
    4
}
fn eight() -> u32 {
    8
}
fn thirty() -> f64 {
    30.0
}
fn sixty() -> f64 {
    60.0
}
fn minus_four_and_a_half() -> f64 {
    -4.5
}
