//! Bins across signals: takes frames in order, closes bins by watermarks alone, skips what is not to be filled.

use std::collections::{BTreeMap, VecDeque};

use super::act::Act;
use super::clock::Clocks;
use super::closing::Closing;
use super::feed::Feed;
use super::grid::Grid;
use super::landing::Scene;
use super::late::LateBins;
use super::log::Log;
use super::plan::Plan;
use super::refusal::{Refusal, SignalError};
use super::shape;
use super::standing::Standing;
use super::step::{Counts, Step};
use super::track::{Placed, Track};
use super::trial::{Trials, Turn};
use crate::domain::frame::{Frame, FrameBody, Markers};
use crate::domain::output::EventKind;
use crate::domain::settings::{NanPolicy, ResetScope};
use crate::domain::time::BinGrid;

/// Frames, and bytes of them, that are kept until the session's first signal says where bin 0 lies; then the oldest go.
const EARLY_FRAMES: usize = 4096;
const EARLY_BYTES: usize = 64 << 20;
/// Resets that may be asked for in advance.
const MAX_RESETS: usize = 4096;

/// The signals of one session on their way into bins. A clone goes on by itself: a fork.
#[derive(Clone, Debug)]
pub struct Aligner {
    plan: Plan,
    pub(super) anchor: usize,
    pub(super) by_signal: Vec<Option<usize>>,
    grid: Option<Grid>,
    pub(super) clocks: Clocks,
    early: VecDeque<(usize, Frame, i64)>,
    early_bytes: usize,
    trials: Option<Trials>,
    turns: Vec<Turn>,
    pub(super) tracks: Vec<Track>,
    pub(super) feeds: Vec<Option<Feed>>,
    pub(super) next_bin: u64,
    /// Resets asked for, by the bin before which they take place.
    pub(super) resets: BTreeMap<u64, ResetScope>,
    /// How far some required signal was ready (bins), and when; the first entry is what the next bin waits by.
    waits: VecDeque<(u64, i64)>,
    pub(super) counts: Counts,
    pub(super) late_bins: LateBins,
    pub(super) spare: Closing,
}

impl Aligner {
    /// An aligner for the plan, and what the run should say of it.
    pub fn new(mut plan: Plan) -> Result<(Self, Vec<String>), SignalError> {
        let fitted = plan.fit()?;
        plan.width_ns = fitted.width_ns;
        let grid = plan.t0_ns.map(|t0| Grid { t0_ns: t0.into(), width_ns: plan.width_ns });
        let aligner = Self {
            anchor: fitted.anchor,
            by_signal: fitted.by_signal,
            grid,
            clocks: Clocks::new(plan.signals[fitted.anchor].clock.clone()),
            early: VecDeque::new(),
            early_bytes: 0,
            trials: plan.trials.clone().map(Trials::new),
            turns: Vec::new(),
            tracks: fitted.tracks,
            feeds: fitted.feeds,
            next_bin: 0,
            resets: BTreeMap::new(),
            waits: VecDeque::new(),
            counts: Counts::default(),
            late_bins: LateBins::default(),
            spare: Closing::default(),
            plan,
        };
        Ok((aligner, fitted.warnings))
    }

    /// Takes the next frame of a signal (by its place in the plan). What happened is appended to `out`. A refused
    /// frame leaves everything as it was; one that `nan = reject` refuses is consumed, its samples a gap.
    pub fn push(
        &mut self,
        signal: usize,
        frame: &Frame,
        arrived_ns: i64,
        out: &mut Vec<Step>,
    ) -> Result<(), Refusal> {
        let spec = &self.plan.signals[signal];
        shape::check(spec, frame)?;
        self.is_related(spec)?;
        let Some(t) = self.by_signal[signal] else {
            if let FrameBody::Markers(markers) = &frame.body {
                self.mark(signal, markers, arrived_ns, out);
            }
            self.end_by_hand(frame, None);
            return Ok(());
        };
        let counted = self.tracks[t].pixels_of(frame)?;
        let frame = &*counted;
        let known = self.grid;
        // By arrival a frame has its place once the session's own clock was heard.
        let placeless =
            self.tracks[t].placed == Placed::Arrival && self.clocks.session_at(arrived_ns).is_none();
        if (known.is_none() || placeless) && signal != self.anchor {
            if self.plan.policies.nan == NanPolicy::Reject {
                self.tracks[t].rejects(frame)?;
            }
            self.keep_early(signal, frame, arrived_ns, out);
            return Ok(());
        }
        if known.is_none() {
            if is_empty(frame) {
                return Ok(());
            }
            let t0_ns = self.tracks[t].start_ns(frame, None);
            self.grid = Some(Grid { t0_ns, width_ns: self.plan.width_ns });
        }
        if let Err(refusal) = self.take(t, frame, arrived_ns, arrived_ns, out) {
            // A frame that was consumed has its place, and bin 0 with it; one that was not leaves everything as it was.
            match known {
                None if refusal.consumed() => self.take_early(arrived_ns, out),
                None => self.grid = None,
                Some(_) => {}
            }
            return Err(refusal);
        }
        if signal == self.anchor && !self.early.is_empty() {
            self.take_early(arrived_ns, out);
        }
        let end_ns = self.tracks[t].mark_ns;
        self.close(0, arrived_ns, out);
        self.end_by_hand(frame, Some(end_ns));
        Ok(())
    }

    /// Takes a frame into its track; closes nothing.
    fn take(
        &mut self,
        t: usize,
        frame: &Frame,
        arrived_ns: i64,
        now_ns: i64,
        out: &mut Vec<Step>,
    ) -> Result<(), Refusal> {
        let grid = self.grid.expect("a frame is taken once the grid is known");
        let scene = Scene {
            grid,
            t0_given_ns: self.plan.t0_ns,
            next_bin: self.next_bin,
            policies: &self.plan.policies,
            clocks: &self.clocks,
            arrived_ns,
        };
        let track = &mut self.tracks[t];
        let landing = track.land(frame, &scene)?;
        if scene.policies.nan == NanPolicy::Reject
            && let Err(refusal) = track.rejects(frame)
        {
            track.reject(frame, &landing);
            return Err(refusal);
        }
        let mut log =
            Log { steps: out, counts: &mut self.counts, late_bins: &mut self.late_bins, t_ns: now_ns };
        track.take(frame, landing, &scene, &mut log);
        let (ready, end_ns, leads) = (track.ready, track.mark_ns, track.leads);
        if self.by_signal[self.anchor] == Some(t) {
            let shift = self.tracks[t].epoch.as_ref().and_then(|epoch| epoch.shift);
            self.clocks.arrived(end_ns, shift.unwrap_or(0), arrived_ns);
        }
        if leads && self.waits.back().is_none_or(|(before, _)| *before < ready) && ready > self.next_bin {
            let not_before = self.waits.back().map_or(i64::MIN, |(_, at)| *at);
            self.waits.push_back((ready, now_ns.max(not_before)));
        }
        Ok(())
    }

    /// Keeps a frame until bin 0 has its place.
    fn keep_early(&mut self, signal: usize, frame: &Frame, arrived_ns: i64, out: &mut Vec<Step>) {
        self.early_bytes += weight(frame);
        self.early.push_back((signal, frame.clone(), arrived_ns));
        while self.early.len() > EARLY_FRAMES || self.early_bytes > EARLY_BYTES {
            let Some((signal, frame, _)) = self.early.pop_front() else { break };
            self.early_bytes -= weight(&frame);
            self.counts.before_start += 1;
            let mut log = Log {
                steps: out,
                counts: &mut self.counts,
                late_bins: &mut self.late_bins,
                t_ns: arrived_ns,
            };
            let detail = "1 frame came long before the session's first signal; it is left out".to_owned();
            log.notice(EventKind::BeforeStart, Some(&self.plan.signals[signal].name), None, 1, detail);
        }
    }

    /// Bin 0 has its place: takes what came before that was known. Whoever sent it was answered long ago, so that a
    /// refusal becomes an event.
    fn take_early(&mut self, now_ns: i64, out: &mut Vec<Step>) {
        self.early_bytes = 0;
        for (signal, frame, arrived_ns) in std::mem::take(&mut self.early) {
            let Some(t) = self.by_signal[signal] else { continue };
            if let Err(refusal) = self.take(t, &frame, arrived_ns, now_ns, out) {
                let mut log = Log {
                    steps: out,
                    counts: &mut self.counts,
                    late_bins: &mut self.late_bins,
                    t_ns: now_ns,
                };
                let name = &self.plan.signals[signal].name;
                log.notice(EventKind::BeforeStart, Some(name), None, 1, refusal.to_string());
            }
        }
    }

    /// Markers of the trials' signal: resets before the first open bin, and what is no trial.
    fn mark(&mut self, signal: usize, markers: &Markers, arrived_ns: i64, out: &mut Vec<Step>) {
        let name = &self.plan.signals[signal].name;
        let Some(trials) = self.trials.as_mut().filter(|trials| trials.signal() == name.as_str()) else {
            return;
        };
        trials.read(markers, &mut self.turns);
        for turn in self.turns.drain(..) {
            let resets = match turn {
                Turn::Start => self.plan.reset_on.trial_start,
                Turn::End => self.plan.reset_on.trial_end,
                Turn::Broken(detail) => {
                    let mut log = Log {
                        steps: out,
                        counts: &mut self.counts,
                        late_bins: &mut self.late_bins,
                        t_ns: arrived_ns,
                    };
                    log.notice(EventKind::TrialBroken, Some(name), None, 1, detail);
                    false
                }
            };
            if resets {
                self.resets.entry(self.next_bin).or_insert(ResetScope::Model);
            }
        }
    }

    /// `final`: the trial ends with this frame's data.
    fn end_by_hand(&mut self, frame: &Frame, end_ns: Option<i128>) {
        if !frame.last_of_trial {
            return;
        }
        if let Some(trials) = &mut self.trials {
            trials.end();
        }
        if self.plan.reset_on.trial_end {
            let end = end_ns.zip(self.grid).map_or(0, |(end_ns, grid)| grid.bin_from_0(end_ns));
            self.resets.entry(self.next_bin.max(end)).or_insert(ResetScope::Model);
        }
    }

    /// Up to which bin the wait for signals that are behind is over by now: `Act::Close` is due.
    pub fn due(&self, now_ns: i64) -> Option<u64> {
        let wait_ns = self.plan.policies.wait_ns;
        let due = self.waits.iter().take_while(|(_, at)| due_ns(*at, wait_ns) <= now_ns).last();
        due.map(|(ready, _)| *ready)
    }

    /// Does what is done to an aligner beside pushing frames. Live and replay call it alike.
    /// Errors: `PastBin` for a reset or a switch, `ManyResets`; nothing has changed then.
    pub fn act(&mut self, act: &Act, out: &mut Vec<Step>) -> Result<(), Refusal> {
        match act {
            Act::Close { before, now_ns } => self.close(*before, *now_ns, out),
            Act::Reset { scope, at_bin } => self.reset(*scope, *at_bin)?,
            Act::Relate { clock, relation, stepped_ns } => self.relate(clock, *relation, *stepped_ns),
            Act::Switch(switch) => self.is_open(switch.at_bin)?,
        }
        Ok(())
    }

    /// The session ends: what was kept for a bin that will not come is counted, and told.
    pub fn finish(&mut self, now_ns: i64, out: &mut Vec<Step>) {
        self.early_bytes = 0;
        for (signal, _, _) in std::mem::take(&mut self.early) {
            let mut log =
                Log { steps: out, counts: &mut self.counts, late_bins: &mut self.late_bins, t_ns: now_ns };
            log.counts.before_start += 1;
            let detail = "1 frame came, and none of the session's first signal; it is left out".to_owned();
            log.notice(EventKind::BeforeStart, Some(&self.plan.signals[signal].name), None, 1, detail);
        }
        let mut log =
            Log { steps: out, counts: &mut self.counts, late_bins: &mut self.late_bins, t_ns: now_ns };
        self.tracks.iter_mut().for_each(|track| track.finish(self.next_bin, &mut log));
    }

    /// How it stands now.
    pub fn standing(&self) -> Standing {
        let next_expiry_ns = self.waits.front().map(|(_, at)| due_ns(*at, self.plan.policies.wait_ns));
        Standing {
            grid: self.grid(),
            next_bin: self.next_bin,
            counts: self.counts,
            next_expiry_ns,
            own: self.clocks.own(),
        }
    }

    /// Closes what is ready, and whatever lies before `forced` and is ready in some required signal.
    fn close(&mut self, forced: u64, now_ns: i64, out: &mut Vec<Step>) {
        let Some(grid) = self.grid else { return };
        loop {
            let leads = self.tracks.iter().filter(|track| track.leads);
            let lead = leads.map(|track| track.ready).max().unwrap_or(0);
            let held = self.tracks.iter().filter(|track| track.holds()).map(|track| track.ready).min();
            let held = held.unwrap_or(u64::MAX).min(lead);
            let until = held.max(forced.min(lead));
            if self.next_bin >= until {
                break;
            }
            let mut log =
                Log { steps: out, counts: &mut self.counts, late_bins: &mut self.late_bins, t_ns: now_ns };
            let early = self.next_bin >= held;
            let mut closing = std::mem::take(&mut self.spare);
            let room = super::closing::Room {
                grid,
                policies: &self.plan.policies,
                until: if early { until } else { held },
                early,
                tracks: &mut self.tracks,
                feeds: &mut self.feeds,
                resets: &mut self.resets,
            };
            self.next_bin = closing.close(self.next_bin, room, &mut log);
            self.spare = closing;
        }
        let mut log =
            Log { steps: out, counts: &mut self.counts, late_bins: &mut self.late_bins, t_ns: now_ns };
        self.tracks.iter_mut().for_each(|track| track.tell_stall(self.next_bin, &mut log));
        while self.waits.front().is_some_and(|(ready, _)| *ready <= self.next_bin) {
            self.waits.pop_front();
        }
    }

    /// Resets before a bin. Scope `all` also forgives: each signal's next frame may leave a gap or be late under `fail`.
    fn reset(&mut self, scope: ResetScope, bin: u64) -> Result<(), Refusal> {
        self.is_open(bin)?;
        if self.resets.len() >= MAX_RESETS && !self.resets.contains_key(&bin) {
            return Err(Refusal::ManyResets(MAX_RESETS));
        }
        let before = self.resets.entry(bin).or_insert(scope);
        if scope == ResetScope::All {
            *before = scope;
            self.tracks.iter_mut().for_each(|track| track.forgiven = true);
        }
        Ok(())
    }

    /// Whether something may still take place before that bin.
    fn is_open(&self, bin: u64) -> Result<(), Refusal> {
        let next_bin = self.next_bin;
        if bin < next_bin { Err(Refusal::PastBin { bin, next_bin }) } else { Ok(()) }
    }

    /// What is known of the clocks.
    pub fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// The grid of bins, once t0 is known.
    pub fn grid(&self) -> Option<BinGrid> {
        self.grid.map(|grid| grid.narrow())
    }

    /// Width of the bins; differs from the plan's with `bins = nearest`.
    pub fn width_ns(&self) -> std::num::NonZeroU64 {
        self.plan.width_ns
    }

    /// The next bin to close.
    pub fn next_bin(&self) -> u64 {
        self.next_bin
    }

    /// Group delay of an input's chain (ms).
    pub fn delay_ms(&self, input: usize) -> f64 {
        self.feeds[input].as_ref().map_or(0.0, |feed| feed.chain.delay_ms())
    }

    /// Thresholds of an input's crossings by column, in the unit of what enters them; NaN: none yet. Empty: its chain has
    /// none.
    pub fn thresholds(&self, input: usize) -> &[f64] {
        self.feeds[input].as_ref().map_or(&[], |feed| feed.chain.thresholds())
    }

    /// Values per bin of an input: its channels, times the samples of a bin where `bin` keeps all. `None`: no signal
    /// feeds it.
    pub fn width(&self, input: usize) -> Option<usize> {
        self.feeds[input].as_ref().map(|feed| feed.chain.width())
    }

    /// Names of the values of an input, and whether they come of counts. `None`: no signal feeds it.
    pub fn values(&self, input: usize) -> Option<(&[String], bool)> {
        let feed = self.feeds[input].as_ref()?;
        Some((feed.chain.value_names(), self.tracks[feed.track].counts))
    }

    /// Totals since open.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The bin that holds an instant of a signal's clock: where a marker or a target belongs. `None`: before t0, or
    /// the clock has no known relation to the session's.
    pub fn bin_of(&self, signal: usize, t_device_ns: i64) -> Option<u64> {
        let (grid, spec) = (self.grid?, &self.plan.signals[signal]);
        let t = i128::from(t_device_ns);
        let shift = self.by_signal[signal].and_then(|t| self.tracks[t].epoch.as_ref()?.shift);
        let ns = match (shift, spec.clock_offset_ns) {
            (Some(shift), _) => t + shift,
            _ if spec.clock == self.clocks.session_clock() => self.clocks.of_reading(t),
            (_, Some(offset_ns)) => t + i128::from(offset_ns),
            _ => self.clocks.to_session(&spec.clock, t).ok()?,
        };
        u64::try_from(grid.bin(ns)).ok()
    }
}

fn due_ns(at_ns: i64, wait_ns: u64) -> i64 {
    at_ns.saturating_add(i64::try_from(wait_ns).unwrap_or(i64::MAX))
}

fn is_empty(frame: &Frame) -> bool {
    match &frame.body {
        FrameBody::Samples(samples) => samples.count == 0,
        FrameBody::Spikes(spikes) => spikes.span_ns == 0,
        FrameBody::Addresses(_) | FrameBody::Markers(_) => true,
    }
}

/// Bytes that a kept frame takes, about.
fn weight(frame: &Frame) -> usize {
    size_of::<Frame>()
        + match &frame.body {
            FrameBody::Samples(samples) => samples.tensor.data.bytes().len(),
            FrameBody::Spikes(spikes) => 12 * spikes.unit.len(),
            FrameBody::Addresses(_) | FrameBody::Markers(_) => 0,
        }
}
