//! What is told of a session's health: on its page, and as events.

use crate::domain::ids::SignalName;

/// So many milliseconds a minute in which many channels fire at once are no chance: one in 10 s.
const ARTEFACTS_PER_MIN: f64 = 6.0;

/// A session's health over both windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// 10 s and 5 min.
    pub windows: [WindowReport; 2],
}

/// One window.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowReport {
    /// Its length (s).
    pub window_s: f64,
    /// By watched input.
    pub inputs: Vec<InputReport>,
    /// By watched output.
    pub latents: Vec<LatentReport>,
}

/// One input over one window.
#[derive(Clone, Debug, PartialEq)]
pub struct InputReport {
    /// Its name in the pipeline.
    pub input: String,
    /// The signal that feeds it.
    pub signal: SignalName,
    /// How much of the window is there (s); 0: it has not been looked at yet.
    pub covered_s: f64,
    /// Channels that have enough in it: the others are masked, or did not come.
    pub channels: usize,
    /// Channels without activity, where the training data have some.
    pub dead: Vec<String>,
    /// Channels whose spread is far over the training data's, without them over the median of the channels.
    pub noisy: Vec<String>,
    /// Milliseconds a minute in which over three tenths of the signal's channels fired at once; `None`: its signal is
    /// none of events, or has too few channels.
    pub cofiring_per_min: Option<f64>,
    /// The share of the judged channels that are dead, noisy or off their mean; `None` without a reference.
    pub shift: Option<f64>,
    /// The channels furthest off their mean, and how far, in standard errors.
    pub furthest: Vec<(String, f64)>,
    /// Whether it counts as a shift.
    pub shifted: bool,
}

/// One output's latents over one window.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentReport {
    /// Its name in the pipeline.
    pub output: String,
    /// How much of the window is there (s); 0: it has not been looked at yet.
    pub covered_s: f64,
    /// How far their mean is from the training data's, root mean square over the latents in standard deviations of a
    /// bin; `None` without a reference.
    pub distance: Option<f64>,
    /// Whether it counts as a shift.
    pub shifted: bool,
}

impl Report {
    /// One word for all of it: `waiting` (no channel has come for long enough), `no_reference` (nothing to hold it against), `ok`,
    /// `impaired` (some channel is dead or noisy, or many fire at once), `shifted`.
    pub fn word(&self) -> &'static str {
        let inputs = || self.windows.iter().flat_map(|window| &window.inputs);
        let latents = || self.windows.iter().flat_map(|window| &window.latents);
        let is_known = inputs().any(|input| input.shift.is_some()) || latents().any(|l| l.distance.is_some());
        if inputs().any(|input| input.shifted) || latents().any(|output| output.shifted) {
            "shifted"
        } else if inputs().any(InputReport::is_impaired) {
            "impaired"
        } else if is_known {
            "ok"
        } else if inputs().count() > 0 && inputs().all(|input| input.channels == 0) {
            "waiting"
        } else {
            "no_reference"
        }
    }
}

impl InputReport {
    fn is_impaired(&self) -> bool {
        let artefacts = self.cofiring_per_min.is_some_and(|per_min| per_min >= ARTEFACTS_PER_MIN);
        !self.dead.is_empty() || !self.noisy.is_empty() || artefacts
    }
}

/// A shift that began or ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The signal, where an input has shifted.
    pub signal: Option<SignalName>,
    /// The first bin that is flagged for it.
    pub from_bin: u64,
    /// One past the last bin that is known to be.
    pub to_bin: u64,
    /// Flagged bins that no event has counted yet.
    pub count: u64,
    /// A sentence for people.
    pub detail: String,
}
