//! One output of latents: how far the mean of a window is from the training data, all latents together.
//!
//! Why the mean alone: it costs a bin one addition per latent. How far it is takes a solve that is quadratic in their
//! number, and is done once a second.

use std::sync::Arc;

use super::reference::{LatentReference, squared_distance};
use super::report::{LatentReport, Told};
use super::seconds::{LEAST_SECONDS, LEAST_TENS, SECONDS, TENS};
use super::{Holding, Turn};

/// A shift begins with a distance whose chance is that of so many standard deviations of a normal value, and ends below
/// the second figure.
const FAR: f64 = 6.0;
const BACK: f64 = 4.0;
/// Blocks of the long window that count as independent.
const INDEPENDENT: u32 = 6;
/// No block.
const NEVER: u64 = u64::MAX;

/// An output of role latent that is watched.
#[derive(Clone, Debug)]
pub struct WatchedLatents {
    /// Its number in the pipeline.
    pub number: usize,
    /// Its name in the pipeline.
    pub output: String,
    /// Values of a bin.
    pub latents: usize,
    /// What they were like in training.
    pub reference: Option<Arc<LatentReference>>,
}

/// One output of a session.
#[derive(Debug)]
pub(super) struct Latents {
    pub(super) watched: WatchedLatents,
    /// Bins of the second in hand, and the sum of each latent.
    n: u64,
    total: Vec<f64>,
    seconds: Means,
    tens: Means,
    mean: Vec<f64>,
    solved: Vec<f64>,
    short: Verdict,
    long: Verdict,
    pub(super) holding: Holding,
}

#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    blocks: u32,
    distance: Option<f64>,
    holds: bool,
}

/// Means of blocks, each in the place that its number gives it.
#[derive(Debug)]
struct Means {
    number: Vec<u64>,
    mean: Vec<f64>,
}

impl Means {
    fn new(places: usize, latents: usize) -> Self {
        Self { number: vec![NEVER; places], mean: vec![0.0; places * latents] }
    }

    fn put(&mut self, number: u64, mean: &[f64]) {
        let place = (number % self.number.len() as u64) as usize;
        self.number[place] = number;
        self.mean[place * mean.len()..][..mean.len()].copy_from_slice(mean);
    }

    /// The mean over the blocks of the window that ends with `last`; answers how many there are.
    fn of(&self, last: u64, mean: &mut [f64]) -> u32 {
        mean.fill(0.0);
        let mut blocks = 0;
        for (number, block) in self.number.iter().zip(self.mean.chunks_exact(mean.len())) {
            if *number != NEVER && *number <= last && last - *number < self.number.len() as u64 {
                mean.iter_mut().zip(block).for_each(|(mean, block)| *mean += block);
                blocks += 1;
            }
        }
        mean.iter_mut().for_each(|mean| *mean /= f64::from(blocks.max(1)));
        blocks
    }
}

impl Latents {
    pub(super) fn new(watched: WatchedLatents) -> Self {
        let latents = watched.latents.max(1);
        Self {
            watched,
            n: 0,
            total: vec![0.0; latents],
            seconds: Means::new(SECONDS, latents),
            tens: Means::new(TENS, latents),
            mean: vec![0.0; latents],
            solved: vec![0.0; latents],
            short: Verdict::default(),
            long: Verdict::default(),
            holding: Holding::default(),
        }
    }

    /// One bin of it.
    pub(super) fn take(&mut self, values: &[f32]) {
        self.n += 1;
        self.total.iter_mut().zip(values).for_each(|(total, x)| *total += f64::from(*x));
    }

    /// Second `over` is over, and perhaps the ten that it lies in.
    pub(super) fn look(&mut self, over: u64, ten_is_over: bool) {
        // A stage with a window speaks less often than once a bin: one value makes a mean.
        if self.n > 0 {
            let n = self.n as f64;
            self.total.iter_mut().for_each(|total| *total /= n);
            self.seconds.put(over, &self.total);
        }
        self.n = 0;
        self.total.fill(0.0);
        if ten_is_over {
            let ten = over / SECONDS as u64;
            let blocks = self.seconds.of(ten * SECONDS as u64 + SECONDS as u64 - 1, &mut self.mean);
            if blocks >= SECONDS as u32 / 2 {
                self.tens.put(ten, &self.mean);
            }
            let blocks = self.tens.of(ten, &mut self.mean);
            let stretches = f64::from(blocks.min(INDEPENDENT));
            self.long = self.judge(self.long, blocks, LEAST_TENS, stretches);
        }
        let blocks = self.seconds.of(over, &mut self.mean);
        self.short = self.judge(self.short, blocks, LEAST_SECONDS, f64::from(blocks) / SECONDS as f64);
    }

    /// Judges `mean`, which stands for so many independent stretches of 10 s.
    fn judge(&mut self, before: Verdict, blocks: u32, least: u32, stretches: f64) -> Verdict {
        // Where too little came, what was said stays; nothing holds against a version that nothing is known of.
        let (Some(reference), true) = (&self.watched.reference, blocks >= least) else {
            let holds = before.holds && self.watched.reference.is_some();
            return Verdict { blocks, distance: None, holds };
        };
        let d = self.mean.len() as f64;
        self.mean.iter_mut().zip(&reference.mean).for_each(|(mean, trained)| *mean -= trained);
        let distance = (squared_distance(&reference.factor, &self.mean, &mut self.solved) / d).sqrt();
        let scattered = squared_distance(&reference.scatter, &self.mean, &mut self.solved) * stretches;
        let z = as_normal(scattered, d);
        let holds = z >= if before.holds { BACK } else { FAR };
        Verdict { blocks, distance: Some(distance), holds }
    }

    /// What the look has changed, before bin `k`.
    pub(super) fn turn(&mut self, k: u64) -> Option<Told> {
        let turn = self.holding.set(self.short.holds || self.long.holds, k)?;
        let output = &self.watched.output;
        Some(match turn {
            Turn::Began => {
                let (verdict, over) =
                    if self.short.holds { (self.short, "10 s") } else { (self.long, "5 min") };
                let detail = format!(
                    "output `{output}`: the mean of the latents over {over} is {:.2} standard deviations off the \
                     training data (root mean square)",
                    verdict.distance.unwrap_or_default()
                );
                Told { signal: None, from_bin: k, to_bin: k + 1, count: 1, detail }
            }
            Turn::Ended { since, bins } => {
                let detail = format!("output `{output}`: the shift ended before bin {k}");
                Told { signal: None, from_bin: since, to_bin: k, count: bins.saturating_sub(1), detail }
            }
        })
    }

    /// The session ends before bin `end`.
    pub(super) fn finish(&mut self, end: u64) -> Option<Told> {
        match self.holding.set(false, end)? {
            Turn::Began => None,
            Turn::Ended { since, bins } => {
                let detail =
                    format!("output `{}`: the shift held until the session ended", self.watched.output);
                Some(Told {
                    signal: None,
                    from_bin: since,
                    to_bin: end,
                    count: bins.saturating_sub(1),
                    detail,
                })
            }
        }
    }

    pub(super) fn report(&self, long: bool, second_s: f64) -> LatentReport {
        let (verdict, block_s) =
            if long { (self.long, second_s * SECONDS as f64) } else { (self.short, second_s) };
        LatentReport {
            output: self.watched.output.clone(),
            covered_s: f64::from(verdict.blocks) * block_s,
            distance: verdict.distance,
            shifted: verdict.holds,
        }
    }
}

/// A chi-squared value with `d` degrees of freedom as a normal one of the same chance (Wilson and Hilferty).
fn as_normal(squared: f64, d: f64) -> f64 {
    let width = 2.0 / (9.0 * d);
    ((squared / d).cbrt() - (1.0 - width)) / width.sqrt()
}
