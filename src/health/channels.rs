//! One input, channel by channel: who is dead, who is noisy, who is off the mean of the training data, and whether so
//! many are that the input has shifted.

use std::sync::Arc;

use super::reference::{ChannelReference, dead_unknown_s};
use super::report::{InputReport, Told};
use super::seconds::{LEAST_SECONDS, LEAST_TENS, Ring, SECONDS, Second, Sum, TENS};
use super::{Holding, Row, Turn};
use crate::domain::ids::SignalName;

/// An input has shifted when so many of its judged channels are off: in 10 s a fifth of them, which a permutation or a
/// dead array passes at once; over 5 min a tenth, which slow drift comes to.
const SHORT_SHARE: f64 = 0.2;
const LONG_SHARE: f64 = 0.1;
/// A channel is off its mean by so many standard errors of it; with few channels one that strays by chance would be
/// enough, and is not.
const OFF: f64 = 5.0;
const OFF_ALONE: f64 = 8.0;
/// From so many channels on, several must agree.
const SEVERAL: usize = 20;
/// A shift ends where it would not begin with so much less.
const BACK: f64 = 0.8;
const BACK_SHARE: f64 = 0.5;
/// Blocks of the long window that count as independent: excitability wanders over a minute, so that 5 min of it are not
/// thirty samples.
const INDEPENDENT: u32 = 6;
/// A channel is noisy whose spread is so many times that of the training data; without them, of the median channel.
const NOISY: f64 = 3.0;
const NOISY_UNKNOWN: f64 = 5.0;
/// A median of fewer channels says nothing.
const MEDIAN_OF: usize = 8;
/// Channels that a report and a sentence name as the furthest off.
const NAMED: usize = 5;

/// A streamed input that is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its number in the pipeline.
    pub number: usize,
    /// Its name in the pipeline.
    pub input: String,
    /// The signal that feeds it.
    pub signal: SignalName,
    /// Names of the values that the model is given, in their order.
    pub columns: Vec<String>,
    /// Whether its values come of counts, which may rest at 0.
    pub counts: bool,
    /// What it was like in training.
    pub reference: Option<Arc<ChannelReference>>,
}

/// One input of a session.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) watched: Watched,
    /// What is subtracted from values before they are summed; fixed, whatever version takes over.
    origin: Vec<f32>,
    bins_per_second: u64,
    second: Second,
    /// Whether its signal says who fired at once.
    counts_cofiring: bool,
    seconds: Ring,
    tens: Ring,
    sums: Vec<Sum>,
    short: Verdict,
    long: Verdict,
    pub(super) holding: Holding,
}

/// What a window says of each channel.
#[derive(Debug)]
struct Verdict {
    /// Blocks that the window has.
    blocks: u32,
    /// Milliseconds in them in which many channels fired at once.
    cofiring: u32,
    /// Channels that have enough of it.
    judged: usize,
    /// Those of them that the reference measures, and how many are dead, noisy or off.
    measured: usize,
    off: usize,
    /// By channel: standard errors off its mean; NaN: not measured.
    z: Vec<f32>,
    dead: Vec<bool>,
    noisy: Vec<bool>,
    spreads: Vec<f64>,
    holds: bool,
}

/// What a window is judged by.
#[derive(Clone, Copy)]
struct Bounds {
    share: f64,
    least_blocks: u32,
    /// Seconds of a block, and the most blocks that count as independent.
    block_s: f64,
    independent: u32,
}

const SHORT: Bounds =
    Bounds { share: SHORT_SHARE, least_blocks: LEAST_SECONDS, block_s: 1.0, independent: SECONDS as u32 };
const LONG: Bounds =
    Bounds { share: LONG_SHARE, least_blocks: LEAST_TENS, block_s: SECONDS as f64, independent: INDEPENDENT };

impl Channels {
    pub(super) fn new(watched: Watched, bins_per_second: u64) -> Self {
        let columns = watched.columns.len();
        let reference = watched.reference.as_ref();
        let origin = match reference {
            Some(reference) => reference.columns.iter().map(|column| column.mean as f32).collect(),
            None => vec![0.0; columns],
        };
        Self {
            watched,
            origin,
            bins_per_second,
            second: Second::new(columns),
            counts_cofiring: false,
            seconds: Ring::new(SECONDS, columns),
            tens: Ring::new(TENS, columns),
            sums: vec![Sum::default(); columns],
            short: Verdict::new(columns),
            long: Verdict::new(columns),
            holding: Holding::default(),
        }
    }

    /// One bin of it.
    pub(super) fn take(&mut self, Row { values, mask, cofiring }: Row<'_>) {
        self.counts_cofiring |= cofiring.is_some();
        self.second.cofiring += cofiring.unwrap_or(0);
        self.second.take(values, mask, &self.origin);
    }

    /// Second `over` is over, and perhaps the ten that it lies in.
    pub(super) fn look(&mut self, over: u64, ten_is_over: bool) {
        let least = self.bins_per_second.div_ceil(2);
        let reference = self.watched.reference.as_deref();
        let still = |c: usize| reference.map_or(0.0, |reference| reference.columns[c].still);
        self.seconds.put(over, self.second.cofiring, |c| self.second.column(c, least, still(c)));
        self.second.clear();
        let nothing_known_s = dead_unknown_s(self.watched.counts);
        if ten_is_over {
            let ten = over / SECONDS as u64;
            self.seconds.sum(ten * SECONDS as u64 + SECONDS as u64 - 1, &mut self.sums);
            let least = (self.bins_per_second * SECONDS as u64).div_ceil(2) as f64;
            let sums = &self.sums;
            let cofiring = self.seconds.blocks(ten * SECONDS as u64 + SECONDS as u64 - 1).1;
            self.tens.put(ten, cofiring, |c| {
                let sum = &sums[c];
                let is_enough = sum.n >= least;
                (if is_enough { sum.n } else { 0.0 }, sum.mean(), sum.variance(), is_enough && sum.moved)
            });
            self.tens.sum(ten, &mut self.sums);
            (self.long.blocks, self.long.cofiring) = self.tens.blocks(ten);
            self.long.judge(&self.sums, &self.origin, reference, nothing_known_s, LONG);
        }
        self.seconds.sum(over, &mut self.sums);
        (self.short.blocks, self.short.cofiring) = self.seconds.blocks(over);
        self.short.judge(&self.sums, &self.origin, reference, nothing_known_s, SHORT);
    }

    /// What the look has changed, before bin `k`.
    pub(super) fn turn(&mut self, k: u64) -> Option<Told> {
        let turn = self.holding.set(self.short.holds || self.long.holds, k)?;
        Some(match turn {
            Turn::Began => self.told(k, k + 1, 1, self.sentence()),
            Turn::Ended { since, bins } => {
                let detail = format!("input `{}`: the shift ended before bin {k}", self.watched.input);
                self.told(since, k, bins.saturating_sub(1), detail)
            }
        })
    }

    /// The session ends before bin `end`.
    pub(super) fn finish(&mut self, end: u64) -> Option<Told> {
        match self.holding.set(false, end)? {
            Turn::Began => None,
            Turn::Ended { since, bins } => {
                let detail =
                    format!("input `{}`: the shift held until the session ended", self.watched.input);
                Some(self.told(since, end, bins.saturating_sub(1), detail))
            }
        }
    }

    fn told(&self, from_bin: u64, to_bin: u64, count: u64, detail: String) -> Told {
        Told { signal: Some(self.watched.signal.clone()), from_bin, to_bin, count, detail }
    }

    /// Why the input counts as shifted.
    fn sentence(&self) -> String {
        let (verdict, over) = if self.short.holds { (&self.short, "10 s") } else { (&self.long, "5 min") };
        let furthest = self.furthest(verdict);
        let furthest: Vec<String> = furthest.iter().map(|(name, z)| format!("{name} by {z:+.1}")).collect();
        let mut parts = vec![format!(
            "input `{}`: {} of {} channels are not as in the training data over {over}",
            self.watched.input, verdict.off, verdict.measured
        )];
        for (what, is_meant) in [("dead", &verdict.dead), ("noisy", &verdict.noisy)] {
            let names = self.named(is_meant);
            if !names.is_empty() {
                let more = names.len().saturating_sub(NAMED);
                let shown = names[..names.len() - more].join(", ");
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                parts.push(format!("{} {what}: {shown}{more}", names.len()));
            }
        }
        parts.push(format!("furthest off their means (standard errors): {}", furthest.join(", ")));
        parts.join("; ")
    }

    fn named(&self, is_meant: &[bool]) -> Vec<String> {
        let columns = self.watched.columns.iter().zip(is_meant);
        columns.filter(|(_, is_meant)| **is_meant).map(|(name, _)| name.clone()).collect()
    }

    fn furthest(&self, verdict: &Verdict) -> Vec<(String, f64)> {
        let mut measured: Vec<usize> = (0..verdict.z.len()).filter(|&c| !verdict.z[c].is_nan()).collect();
        measured.sort_by(|&a, &b| verdict.z[b].abs().total_cmp(&verdict.z[a].abs()));
        measured.truncate(NAMED);
        measured.into_iter().map(|c| (self.watched.columns[c].clone(), f64::from(verdict.z[c]))).collect()
    }

    pub(super) fn report(&self, long: bool, second_s: f64) -> InputReport {
        let (verdict, block_s) =
            if long { (&self.long, second_s * SECONDS as f64) } else { (&self.short, second_s) };
        let covered_s = f64::from(verdict.blocks) * block_s;
        let is_counted = self.counts_cofiring && covered_s > 0.0;
        InputReport {
            input: self.watched.input.clone(),
            signal: self.watched.signal.clone(),
            covered_s,
            channels: verdict.judged,
            dead: self.named(&verdict.dead),
            noisy: self.named(&verdict.noisy),
            cofiring_per_min: is_counted.then(|| f64::from(verdict.cofiring) * 60.0 / covered_s),
            shift: (verdict.measured > 0).then(|| verdict.off as f64 / verdict.measured as f64),
            furthest: self.furthest(verdict),
            shifted: verdict.holds,
        }
    }
}

impl Verdict {
    fn new(columns: usize) -> Self {
        Self {
            blocks: 0,
            cofiring: 0,
            judged: 0,
            measured: 0,
            off: 0,
            z: vec![f32::NAN; columns],
            dead: vec![false; columns],
            noisy: vec![false; columns],
            spreads: Vec::with_capacity(columns),
            holds: false,
        }
    }

    /// Judges every channel by what it sums up to; `sums` are about `origin`.
    fn judge(
        &mut self,
        sums: &[Sum],
        origin: &[f32],
        reference: Option<&ChannelReference>,
        dead_unknown_s: f64,
        bounds: Bounds,
    ) {
        (self.judged, self.measured) = (0, 0);
        let median = if reference.is_none() { self.median(sums, bounds) } else { None };
        for (c, sum) in sums.iter().enumerate() {
            (self.z[c], self.dead[c], self.noisy[c]) = (f32::NAN, false, false);
            if sum.blocks < bounds.least_blocks {
                continue;
            }
            self.judged += 1;
            let seconds = f64::from(sum.blocks) * bounds.block_s;
            let Some(reference) = reference.map(|reference| &reference.columns[c]) else {
                self.dead[c] = !sum.moved && seconds >= dead_unknown_s;
                self.noisy[c] = median.is_some_and(|median| sum.variance().sqrt() > NOISY_UNKNOWN * median);
                continue;
            };
            if reference.spread <= 0.0 {
                continue;
            }
            self.measured += 1;
            self.dead[c] = !sum.moved && seconds >= reference.dead_s;
            self.noisy[c] = sum.variance().sqrt() > NOISY * reference.spread;
            // How many stretches of 10 s the mean is taken over, as independent ones.
            let stretches = f64::from(sum.blocks.min(bounds.independent)) * bounds.block_s / SECONDS as f64;
            let error = reference.scatter / stretches.sqrt();
            self.z[c] = ((sum.mean() + f64::from(origin[c]) - reference.mean) / error) as f32;
        }
        // Nothing holds against a version that nothing is known of.
        self.holds &= reference.is_some();
        self.hold(bounds.share);
    }

    /// Whether so many channels are off that the input has shifted. Where nothing can be judged, what was said stays.
    fn hold(&mut self, share: f64) {
        let bar = if self.measured < SEVERAL { OFF_ALONE } else { OFF };
        let off = |bar: f64| {
            let is_off = |c: &usize| f64::from(self.z[*c].abs()) >= bar || self.dead[*c] || self.noisy[*c];
            (0..self.z.len()).filter(|&c| !self.z[c].is_nan()).filter(is_off).count()
        };
        let enough = |share: f64| ((share * self.measured as f64).ceil() as usize).max(1);
        let (count, back) = (off(bar), off(BACK * bar));
        self.holds = match (self.measured, self.holds) {
            (0, held) => held,
            (_, false) => count >= enough(share),
            (_, true) => back >= enough(BACK_SHARE * share),
        };
        self.off = count;
    }

    /// The spread of the channel in the middle; `None` where there are too few, or it has none.
    fn median(&mut self, sums: &[Sum], bounds: Bounds) -> Option<f64> {
        self.spreads.clear();
        let judged = sums.iter().filter(|sum| sum.blocks >= bounds.least_blocks);
        self.spreads.extend(judged.map(|sum| sum.variance().sqrt()));
        if self.spreads.len() < MEDIAN_OF {
            return None;
        }
        let middle = self.spreads.len() / 2;
        let (_, median, _) = self.spreads.select_nth_unstable_by(middle, f64::total_cmp);
        Some(*median).filter(|median| *median > 0.0)
    }
}
