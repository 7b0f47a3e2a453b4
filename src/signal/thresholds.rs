//! Thresholds of crossings as a session gives and reads them: one by one as its signal has its channels.
//! Must hold: what a run tells of its thresholds, given to the next session, sets the same thresholds.

use std::fmt::Write as _;

use super::aligner::Aligner;
use super::feed::Feed;

/// Stands, with the sign of the others, for a channel without a threshold: no signal reaches it.
const OUT_OF_REACH: f64 = 3e38;

/// What an input that counts crossings takes as thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Takes {
    /// How many.
    pub count: usize,
    /// Of what each is, in which order.
    pub each: String,
    /// As `times` of the op: each is on the same side of 0.
    pub times: f64,
}

impl Aligner {
    /// What an input takes as thresholds. `None`: its chain has no `threshold_crossings`, or no signal feeds it.
    pub fn takes_thresholds(&self, input: usize) -> Option<Takes> {
        let feed = self.feeds[input].as_ref()?;
        let (crossings, _) = feed.chain.crossings()?;
        let each = match feed.is_by_channel() {
            true => format!("channel of signal `{}`, in its order", self.tracks[feed.track].name),
            false => "value that enters the op, in the order of its chain".into(),
        };
        Some(Takes { count: feed.threshold_count(), each, times: crossings.times() })
    }

    /// Sets the thresholds of an input's crossings before the first frame, `[count]` of `takes_thresholds`, in the unit of
    /// what enters the op: nothing is measured then, also not after a reset.
    pub fn give_thresholds(&mut self, input: usize, thresholds: &[f64]) {
        if let Some(feed) = &mut self.feeds[input] {
            feed.give_thresholds(thresholds);
        }
    }
}

impl Feed {
    /// What crossings see are the channels of the input, each of which is a channel of the signal.
    fn is_by_channel(&self) -> bool {
        self.montage.pixels() == 1 && self.chain.crossings().is_some_and(|(_, by_channel)| by_channel)
    }

    fn threshold_count(&self) -> usize {
        if self.is_by_channel() { self.montage.raw_width() } else { self.chain.thresholds().len() }
    }

    /// By value that crossings see: its place among the thresholds of the session. `None`: the signal lacks the channel.
    fn threshold_places(&self) -> Vec<Option<usize>> {
        let by_channel = self.is_by_channel();
        let place = |c: usize| match by_channel {
            // Voltages do not add up: a channel has one source at most.
            true => self.montage.terms(c).first().map(|term| term.channel),
            false => Some(c),
        };
        (0..self.chain.thresholds().len()).map(place).collect()
    }

    fn give_thresholds(&mut self, thresholds: &[f64]) {
        let places = self.threshold_places();
        let own: Vec<f64> = places.iter().map(|place| place.map_or(f64::NAN, |at| thresholds[at])).collect();
        if let Some(crossings) = self.chain.crossings_mut() {
            crossings.give(&own);
        }
    }

    /// What an event says of frozen thresholds beside a few of them by name: how they came, and all of them as a session
    /// gives them at open.
    pub(super) fn told_thresholds(&self) -> Option<(&'static str, String)> {
        let (crossings, _) = self.chain.crossings()?;
        let what = match crossings.are_given() {
            true => "thresholds were given at open, nothing is measured",
            false => "thresholds are measured, and frozen",
        };
        let none = OUT_OF_REACH.copysign(crossings.times());
        let mut all = vec![none; self.threshold_count()];
        for (c, place) in self.threshold_places().into_iter().enumerate() {
            if let Some(at) = place.filter(|_| crossings.is_armed(c)) {
                all[at] = crossings.thresholds()[c];
            }
        }
        let mut told = format!("; static `{}.thresholds`: [", self.spec.name);
        for (i, threshold) in all.iter().enumerate() {
            let _ = write!(told, "{}{threshold:e}", if i > 0 { "," } else { "" });
        }
        told.push(']');
        if all.contains(&none) {
            let _ = write!(told, " ({none:e}: none)");
        }
        Some((what, told))
    }
}
