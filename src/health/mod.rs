//! Whether what comes in is still what the model learnt (pure).
//! Enters: of each bin the inputs as the model is given them, and its latents. Leaves: which channels are dead or noisy,
//! how far inputs and latents stand from the training data, and when a shift begins and ends.
//! Owns: of each input and each latent output sums over seconds: the last 10 s and, in tens of seconds, the last 5 min.
//! Must hold: all of it is a function of the bins alone, so that a replay flags the same bins; a bin costs a few
//! additions per channel, and nothing is allocated for it; what was filled or masked counts for nothing.
//! Must not know: sessions, models, files, the wire, clocks of the machine.

mod channels; // one input, channel by channel
mod latents; // one output of latents, as a whole
pub mod reference; // what the training data were like
mod report; // what is told of it
mod seconds; // sums over seconds, and over tens of them
#[cfg(test)]
mod tests; // what is called, how soon, and what is not

use std::num::NonZeroU64;
use std::sync::Arc;

pub use channels::Watched;
pub use latents::WatchedLatents;
pub use report::{InputReport, LatentReport, Report, Told, WindowReport};

use channels::Channels;
use latents::Latents;
use reference::{ChannelReference, LatentReference};
use seconds::{SECONDS, TENS};

/// What a session's inputs and latents are like, as it goes on.
#[derive(Debug)]
pub struct Health {
    bins_per_second: u64,
    /// What a second of ours lasts: longer than one where a bin is.
    second_s: f64,
    /// The second that the last bin lies in.
    second: Option<u64>,
    /// The last bin that began.
    bin: u64,
    inputs: Vec<Channels>,
    latents: Vec<Latents>,
    told: Vec<Told>,
}

impl Health {
    /// Nothing came yet. A second is counted in whole bins of `width_ns`.
    pub fn new(width_ns: NonZeroU64, inputs: Vec<Watched>, latents: Vec<WatchedLatents>) -> Self {
        let width_s = width_ns.get() as f64 / 1e9;
        let bins_per_second = (1.0 / width_s).round().max(1.0) as u64;
        Self {
            bins_per_second,
            second_s: bins_per_second as f64 * width_s,
            second: None,
            bin: 0,
            inputs: inputs.into_iter().map(|watched| Channels::new(watched, bins_per_second)).collect(),
            latents: latents.into_iter().map(Latents::new).collect(),
            told: Vec::new(),
        }
    }

    /// Bin `k` begins. Where a second is over with it, all of it is looked at; what begins or ends by that is in
    /// `take_told`.
    pub fn begin(&mut self, k: u64) {
        self.bin = k;
        let second = k / self.bins_per_second;
        match self.second.replace(second) {
            Some(over) if over != second => self.look(k, over, second),
            _ => {}
        }
        self.inputs.iter_mut().for_each(|input| input.holding.count());
        self.latents.iter_mut().for_each(|output| output.holding.count());
    }

    fn look(&mut self, k: u64, over: u64, second: u64) {
        let ten_is_over = over / SECONDS as u64 != second / SECONDS as u64;
        for input in &mut self.inputs {
            input.look(over, ten_is_over);
            if let Some(told) = input.turn(k) {
                self.told.push(told);
            }
        }
        for output in &mut self.latents {
            output.look(over, ten_is_over);
            if let Some(told) = output.turn(k) {
                self.told.push(told);
            }
        }
    }

    /// What the inputs had for the bin, by their numbers; `None`: nothing. Not to be called for a bin that is filled or
    /// warming up.
    pub fn inputs<'a>(&mut self, row: impl Fn(usize) -> Option<Row<'a>>) {
        for input in &mut self.inputs {
            if let Some(row) = row(input.watched.number) {
                input.take(row);
            }
        }
    }

    /// What the outputs of latents gave for the bin, by their numbers; `None`: nothing. Not to be called for a bin that
    /// is invalid.
    pub fn latents<'a>(&mut self, values: impl Fn(usize) -> Option<&'a [f32]>) {
        for output in &mut self.latents {
            if let Some(values) = values(output.watched.number) {
                output.take(values);
            }
        }
    }

    /// Whether some input or output has shifted.
    pub fn is_shifted(&self) -> bool {
        self.inputs.iter().any(|input| input.holding.is_on())
            || self.latents.iter().any(|output| output.holding.is_on())
    }

    /// What has begun or ended since the last call.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// The session ends: what still holds ends with it.
    pub fn finish(&mut self) -> Vec<Told> {
        let end = self.bin + 1;
        let inputs = self.inputs.iter_mut().filter_map(|input| input.finish(end));
        let latents = self.latents.iter_mut().filter_map(|output| output.finish(end));
        inputs.chain(latents).collect()
    }

    /// Another version takes over: what its inputs and latents were like in training. From the
    /// next look on, what came before is held against that too.
    pub fn relearn(
        &mut self,
        input: impl Fn(&Watched) -> Option<Arc<ChannelReference>>,
        output: impl Fn(&WatchedLatents) -> Option<Arc<LatentReference>>,
    ) {
        for inputs in &mut self.inputs {
            inputs.watched.reference = input(&inputs.watched);
        }
        for outputs in &mut self.latents {
            outputs.watched.reference = output(&outputs.watched);
        }
    }

    /// All that is to be told of it at this moment.
    pub fn report(&self) -> Report {
        let window = |long: bool| WindowReport {
            window_s: self.second_s * if long { SECONDS * TENS } else { SECONDS } as f64,
            inputs: self.inputs.iter().map(|input| input.report(long, self.second_s)).collect(),
            latents: self.latents.iter().map(|output| output.report(long, self.second_s)).collect(),
        };
        Report { windows: [window(false), window(true)] }
    }
}

/// One bin of an input, as the model is given it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// `[columns]`.
    pub values: &'a [f32],
    /// True where it was measured. As long as `values`.
    pub mask: &'a [bool],
    /// Milliseconds in which many channels fired at once; `None`: that is not counted.
    pub cofiring: Option<u32>,
}

/// Whether a shift holds, and since when.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    since: Option<u64>,
    /// Bins that began while it held.
    bins: u64,
}

/// What a look has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Began,
    Ended { since: u64, bins: u64 },
}

impl Holding {
    fn is_on(&self) -> bool {
        self.since.is_some()
    }

    fn count(&mut self) {
        self.bins += u64::from(self.is_on());
    }

    /// From bin `k` on it holds, or not.
    fn set(&mut self, on: bool, k: u64) -> Option<Turn> {
        match (self.since, on) {
            (None, true) => {
                *self = Self { since: Some(k), bins: 0 };
                Some(Turn::Began)
            }
            (Some(since), false) => {
                let bins = std::mem::take(self).bins;
                Some(Turn::Ended { since, bins })
            }
            _ => None,
        }
    }
}
