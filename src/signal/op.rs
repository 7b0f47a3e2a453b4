//! Preprocessing as a manifest declares it: the op words and parameters of `[[input]] preprocess`.

use serde::Deserialize;

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
