//! Causal smoothing, channel by channel. A missing value (NaN) gives none and leaves the memory as it is.

use crate::signal::op::{Init, Kernel};
use crate::signal::pace::Pace;

/// Longest kernel in steps; a longer one is a slip in the manifest.
const MAX_TAPS: f64 = 100_000.0;

/// A smoother with its memory.
#[derive(Clone, Debug)]
pub struct Smooth {
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    /// y += a · (x − y).
    Exponential { a: f64, init: Init, y: Vec<f64>, begun: Vec<bool> },
    /// y = Σ g_j x_(t−j), over the channel's own last good values; zero before the first.
    Fir { kernel: Vec<f64>, past: Vec<f64>, newest: Vec<usize> },
}

/// Parameters as the manifest gives them, defaults filled in by `Smooth::new`.
#[derive(Clone, Copy, Debug)]
pub struct SmoothParams {
    pub kernel: Kernel,
    pub tau_ms: Option<f64>,
    pub sigma_ms: Option<f64>,
    pub truncate: Option<f64>,
    pub extent: Option<f64>,
    pub init: Option<Init>,
}

impl Smooth {
    /// A smoother for `channels` that runs once per `pace`. The error says which parameter is what.
    pub fn new(params: SmoothParams, pace: Pace, channels: usize) -> Result<Self, String> {
        let step_ms = pace.step_ms();
        let need = |name: &str, value: Option<f64>| match value {
            Some(x) if x.is_finite() && x > 0.0 => Ok(x),
            Some(x) => Err(format!("{name} must be above 0, found {x}")),
            None => Err(format!("{name} must be given")),
        };
        let shape = match params.kernel {
            Kernel::Exponential => {
                let a = -f64::exp_m1(-step_ms / need("tau_ms", params.tau_ms)?);
                let init = params.init.unwrap_or(Init::Zero);
                Shape::Exponential { a, init, y: vec![0.0; channels], begun: vec![false; channels] }
            }
            Kernel::HalfGaussian => {
                let sigma = need("sigma_ms", params.sigma_ms)? / step_ms;
                let last = (need("truncate", params.truncate.or(Some(4.0)))? * sigma).ceil();
                Self::fir(last + 1.0, channels, |j| (-(j * j) / (2.0 * sigma * sigma)).exp())?
            }
            Kernel::ExponentialFir => {
                let tau = need("tau_ms", params.tau_ms)?;
                let taps = (need("extent", params.extent.or(Some(1.0)))? * tau / step_ms).ceil();
                Self::fir(taps.max(1.0), channels, |j| (-j * step_ms / tau).exp())?
            }
        };
        if params.init.is_some() && params.kernel != Kernel::Exponential {
            return Err("init belongs to the exponential kernel".into());
        }
        Ok(Self { shape })
    }

    fn fir(taps: f64, channels: usize, weight: impl Fn(f64) -> f64) -> Result<Shape, String> {
        if taps > MAX_TAPS {
            return Err(format!("a kernel of {taps} steps is longer than {MAX_TAPS}"));
        }
        let mut kernel: Vec<f64> = (0..taps as usize).map(|j| weight(j as f64)).collect();
        let sum: f64 = kernel.iter().sum();
        kernel.iter_mut().for_each(|g| *g /= sum);
        let past = vec![0.0; channels * kernel.len()];
        Ok(Shape::Fir { kernel, past, newest: vec![0; channels] })
    }

    /// One row in place, `[channels]`.
    pub fn step(&mut self, row: &mut [f64]) {
        match &mut self.shape {
            Shape::Exponential { a, init, y, begun } => {
                for ((x, y), begun) in row.iter_mut().zip(y).zip(begun).filter(|((x, _), _)| !x.is_nan()) {
                    if !*begun && *init == Init::Steady {
                        *y = *x;
                    }
                    *begun = true;
                    *y += *a * (*x - *y);
                    *x = *y;
                }
            }
            Shape::Fir { kernel, past, newest } => {
                let taps = kernel.len();
                let channels = row.iter_mut().zip(newest).zip(past.chunks_exact_mut(taps));
                for ((x, newest), past) in channels.filter(|((x, _), _)| !x.is_nan()) {
                    *newest = if *newest == 0 { taps - 1 } else { *newest - 1 };
                    past[*newest] = *x;
                    // Ages 0.. lie from `newest` to the end, then from the start: one fixed order of summation.
                    let (younger, older) = (&past[*newest..], &past[..*newest]);
                    *x = kernel.iter().zip(younger.iter().chain(older)).map(|(g, x)| g * x).sum();
                }
            }
        }
    }

    /// Back to the state before the first row.
    pub fn reset(&mut self) {
        match &mut self.shape {
            Shape::Exponential { y, begun, .. } => {
                y.fill(0.0);
                begun.fill(false);
            }
            Shape::Fir { past, newest, .. } => {
                past.fill(0.0);
                newest.fill(0);
            }
        }
    }

    /// Group delay at 0 Hz, in steps.
    pub fn delay_steps(&self) -> f64 {
        match &self.shape {
            Shape::Exponential { a, .. } => (1.0 - a) / a,
            Shape::Fir { kernel, .. } => kernel.iter().enumerate().map(|(j, g)| j as f64 * g).sum(),
        }
    }
}
