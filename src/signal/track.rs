//! One signal that feeds inputs: what of it has come, what waits in open bins, its epochs and its mask.

use std::ops::Range;

use super::cofiring::Cofiring;
use super::coverage::{Coverage, Hole, Length};
use super::image::Image;
use super::landing::{Landing, MAX_BINS, Scene};
use super::late::LateTally;
use super::log::Log;
use super::open_bins::OpenBins;
use super::pace::Pace;
use super::refusal::Refusal;
use super::stall::Missing;
use super::stamps::Stamps;
use crate::domain::frame::{Frame, FrameBody, Samples, Spikes};
use crate::domain::ids::SignalName;
use crate::domain::output::EventKind;
use crate::domain::settings::LatePolicy;
use crate::domain::tensor::Dtype;

/// How a signal's device time becomes the session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is the session's clock.
    Session,
    /// t_session = t_device + this.
    Declared(i64),
    /// By probes.
    Exchange,
    /// A frame's end is when it came.
    Arrival,
}

/// A stretch between restarts of the device's counter.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Device time of sample 0; 0 for events, whose positions are device times.
    pub device0_ns: i128,
    /// What its stamps are checked against.
    pub stamps: Stamps,
    /// The last stamp, and the index it was for.
    pub last_stamp: Option<(i128, i64)>,
    /// t_session − t_device, where it is fixed.
    pub shift: Option<i128>,
}

/// One signal on its way into bins.
#[derive(Clone, Debug)]
pub struct Track {
    /// Its name.
    pub name: SignalName,
    /// Its clock's name.
    pub clock: String,
    /// How that clock is related to the session's.
    pub placed: Placed,
    /// Step of its samples; `None` for events.
    pub pace: Option<Pace>,
    /// Rows lie on the grid of bins.
    pub on_grid: bool,
    /// Width of a row (ns), where rows lie on the grid.
    pub row_ns: u64,
    /// Its values are counts: late ones may be added to an open bin.
    pub counts: bool,
    /// An input that is required is fed by it.
    pub required: bool,
    /// Bins close because of it: it is required, or no signal is.
    pub leads: bool,
    /// Values of a row: its channels, or their pixels.
    pub channels: usize,
    /// The image that each channel is; `None`: one value.
    pub image: Option<Image>,
    /// Names of channels, for sentences.
    pub names: Vec<String>,
    /// How its channels that fire at once are counted; `None`: they are not.
    pub cofiring: Option<Cofiring>,
    /// Channels that some input uses.
    pub used: Vec<bool>,

    /// The epoch, once a frame has come.
    pub epoch: Option<Epoch>,
    /// What came of the epoch.
    pub cover: Coverage,
    /// Session time of the covered end.
    pub mark_ns: i128,
    /// When the covered end came.
    pub last_arrival_ns: i64,
    /// Bins below this are covered, lateness included.
    pub ready: u64,
    /// What waits.
    pub open: OpenBins,
    /// Sticky mask, true = good; empty: all good.
    pub mask: Vec<bool>,
    /// Samples up to here were refused by `nan = reject`: a gap that `gap = fail` does not ask for again.
    pub rejected_to: Option<i128>,
    /// A refused frame began an epoch: the next frame does.
    pub epoch_owed: bool,
    /// After `reset` with scope `all`: the next frame may leave a gap or be late, whatever the policies say.
    pub forgiven: bool,
    /// Bins close without it.
    pub missing: Option<Missing>,
    /// Not required, and silent: no bin waits for it.
    pub silent: bool,
    /// A new epoch begins with this bin.
    pub restarts_at: Option<u64>,
    /// No restart yet: what lies below the floor lies before t0.
    from_t0: bool,
    parts: Vec<Range<i128>>,
}

impl Track {
    /// A signal of which nothing has come.
    pub fn new(
        name: SignalName,
        clock: String,
        placed: Placed,
        pace: Option<Pace>,
        names: Vec<String>,
    ) -> Self {
        Self {
            name,
            clock,
            placed,
            pace,
            on_grid: false,
            row_ns: 0,
            counts: false,
            required: false,
            leads: false,
            channels: names.len(),
            image: None,
            cofiring: None,
            used: vec![false; names.len()],
            names,
            epoch: None,
            cover: Coverage::new(0),
            mark_ns: 0,
            last_arrival_ns: 0,
            ready: 0,
            open: OpenBins::default(),
            mask: Vec::new(),
            rejected_to: None,
            epoch_owed: false,
            forgiven: false,
            missing: None,
            silent: false,
            restarts_at: None,
            from_t0: true,
            parts: Vec::new(),
        }
    }

    /// Whether a bin waits for it.
    pub fn holds(&self) -> bool {
        self.required || (self.epoch.is_some() && !self.silent)
    }

    /// `nan = reject`: a value that is not finite, as it is or as f32, in a channel that is used and not masked.
    pub fn rejects(&self, frame: &Frame) -> Result<(), Refusal> {
        let FrameBody::Samples(samples) = &frame.body else { return Ok(()) };
        // Only f64 holds finite values that f32 does not.
        if samples.tensor.dtype != Dtype::F64 && samples.tensor.is_finite() {
            return Ok(());
        }
        let mask = frame.mask.as_deref().unwrap_or(&self.mask);
        let (mut i, mut bad) = (0, None);
        samples.tensor.each_f64(|x| {
            if bad.is_none() && !(x as f32).is_finite() {
                let (row, channel) = (i / self.channels, i % self.channels);
                let channel = channel / self.image.map_or(1, Image::pixels);
                let seen = self.used[channel] && mask.get(channel).or(mask.last()).copied().unwrap_or(true);
                bad = seen.then_some((row, channel, x));
            }
            i += 1;
        });
        match bad {
            Some((row, channel, value)) => {
                let channel = self.names[channel].clone();
                Err(Refusal::NotFinite { signal: self.name.clone(), channel, row, value })
            }
            None => Ok(()),
        }
    }

    /// A frame that `rejects` refused: its samples are a gap, known with the next frame.
    pub fn reject(&mut self, frame: &Frame, landing: &Landing) {
        self.take_mask(frame);
        if landing.restart.is_some() {
            self.epoch_owed = true;
        } else if !landing.first {
            self.rejected_to = self.rejected_to.max(Some(landing.at.end));
        }
    }

    /// The session ends: what still waits for a bin finds none.
    pub fn finish(&mut self, next_bin: u64, log: &mut Log<'_>) {
        let mut late = self.open.take_handed_on();
        late.absorb(&mut self.open.take_late_from(0));
        self.drop_late(late, "the session ended", log);
        self.tell_missing(next_bin, "it did not come back", log);
    }

    fn take_mask(&mut self, frame: &Frame) {
        if let Some(mask) = &frame.mask {
            self.mask.clone_from(mask);
            if self.mask.iter().all(|good| *good) {
                self.mask.clear();
            }
        }
    }

    /// Takes a frame that has landed.
    pub fn take(&mut self, frame: &Frame, landing: Landing, scene: &Scene<'_>, log: &mut Log<'_>) {
        self.take_mask(frame);
        if landing.at.is_empty() {
            self.epoch_owed |= frame.epoch && self.epoch.is_some();
            return;
        }
        self.begin(frame, &landing, scene, log);
        let at = landing.at.clone();
        let goes_on = at.end > self.cover.mark();
        if let Some(told) = &landing.disagrees {
            let detail = told.detail.clone();
            log.notice(EventKind::ClockDisagrees, Some(&self.name), None, told.frames, detail);
        }
        self.epoch = Some(landing.epoch.clone());
        if at.start > self.cover.mark() {
            let ns = self.mark_ns..landing.timeline.ns_of(at.start);
            self.miss(self.cover.mark()..at.start, ns, scene);
        }
        let mut parts = std::mem::take(&mut self.parts);
        self.cover.fresh(at.clone(), &mut parts);
        match &frame.body {
            FrameBody::Samples(samples) => self.take_samples(samples, &landing, &parts, scene, log),
            FrameBody::Spikes(spikes) => self.take_spikes(spikes, &landing, &parts, scene, log),
            FrameBody::Addresses(_) | FrameBody::Markers(_) => {}
        }
        let timeline = landing.timeline;
        for part in &parts {
            self.cover.fill(part, |at, start_ns, end_ns| {
                let ns = start_ns.unwrap_or_else(|| timeline.ns_of(at.start))
                    ..end_ns.unwrap_or_else(|| timeline.ns_of(at.end));
                let last = timeline.ns_of(at.end - 1).max(ns.start);
                let bins =
                    scene.grid.bin_from_0(ns.start).max(scene.next_bin)..scene.grid.bin_from_0(last) + 1;
                Hole { length: length(&ns, &bins, scene), at, ns, bins, told: false }
            });
        }
        self.parts = parts;
        self.cover.close_before(scene.next_bin);
        if goes_on {
            self.mark_ns = self.mark_ns.max(landing.timeline.ns_of(at.end));
            self.last_arrival_ns = scene.arrived_ns;
            self.silent = false;
        }
        if let Some(epoch) = &mut self.epoch {
            epoch.last_stamp = frame.t_device_ns.map(|t| (at.start, t)).or(epoch.last_stamp);
        }
        (self.rejected_to, self.epoch_owed, self.forgiven) = (None, false, false);
        let done_ns = self.mark_ns - i128::from(scene.policies.lateness_ns);
        self.ready = scene.grid.bin_from_0(done_ns);
    }

    /// The signal's first frame, or the first of an epoch.
    fn begin(&mut self, frame: &Frame, landing: &Landing, scene: &Scene<'_>, log: &mut Log<'_>) {
        let at = &landing.at;
        if landing.first {
            // What came between t0 and the first frame is a hole like any other: its floor is the first position
            // at or after t0, also where the device began to count later.
            let shift = landing.timeline.ns_of(at.start) - self.device_ns(&landing.epoch, at.start);
            let t0_device = scene.grid.t0_ns - shift;
            let floor = self
                .pace
                .map_or(t0_device, |pace| pace.first_at_or_after(t0_device - landing.epoch.device0_ns));
            self.cover = Coverage::new(floor);
            self.mark_ns = scene.grid.t0_ns;
        }
        let Some(restart) = landing.restart else { return };
        let stamp = |stamp: Option<i64>| stamp.map_or("no stamp".into(), |t| format!("stamp {t} ns"));
        let last = self.epoch.as_ref().and_then(|epoch| epoch.last_stamp).map(|(_, t)| t);
        let detail = format!(
            "{}: {} {} ({}) follows {} ({})",
            if restart.detected { "the counter stepped back while the stamps went on" } else { "declared" },
            self.axis(),
            at.start,
            stamp(frame.t_device_ns),
            self.cover.mark(),
            stamp(last),
        );
        self.cover.restart(at.start);
        let start_ns = landing.timeline.ns_of(at.start);
        let first_bin = scene.grid.bin_from_0(start_ns);
        log.notice(EventKind::ClockEpoch, Some(&self.name), Some(first_bin..first_bin + 1), 1, detail);
        // Those bins are the new epoch's.
        let late = self.open.take_late_from(first_bin);
        self.drop_late(late, "a new epoch began", log);
        if start_ns > self.mark_ns {
            self.miss(at.start..at.start, self.mark_ns..start_ns, scene);
        }
        self.restarts_at = Some(first_bin);
        self.from_t0 = false;
    }

    fn device_ns(&self, epoch: &Epoch, position: i128) -> i128 {
        self.pace.map_or(position, |pace| epoch.device0_ns + pace.start_ns(position))
    }

    /// A hole before what comes now. Only what lies in open bins is still to be filled or skipped, and is measured: a
    /// signal that was away for long costs the others nothing as it comes back.
    fn miss(&mut self, at: Range<i128>, ns: Range<i128>, scene: &Scene<'_>) {
        let last = (ns.end - 1).max(ns.start);
        let bins = scene.grid.bin_from_0(ns.start).max(scene.next_bin)..scene.grid.bin_from_0(last) + 1;
        let all_ns = ns.end - ns.start;
        let ns = ns.start.max(scene.grid.start_ns(scene.next_bin))..ns.end;
        let mut length = length(&ns, &bins, scene);
        if length == Length::Short && all_ns > i128::from(scene.policies.max_gap_ns) {
            length = Length::Rest;
        }
        self.cover.miss(Hole { length, at, ns, bins, told: false });
    }

    fn take_samples(
        &mut self,
        samples: &Samples,
        landing: &Landing,
        parts: &[Range<i128>],
        scene: &Scene<'_>,
        log: &mut Log<'_>,
    ) {
        let at = &landing.at;
        let fresh: i128 = parts.iter().map(|part| part.end - part.start).sum();
        let below = if self.from_t0 { (self.cover.floor().min(at.end) - at.start).max(0) } else { 0 };
        self.tell_before_start(below as u64, "samples", log);
        if fresh + below < at.end - at.start {
            self.tell_again(at.start + below..at.end, landing, parts, scene, log);
        }
        let mut late = LateTally::default();
        for part in parts {
            let mut i = part.start;
            while i < part.end {
                let k = scene.grid.bin_from_0(landing.timeline.ns_of(i));
                let end =
                    landing.timeline.first_at_or_after(scene.grid.start_ns(k + 1), i..part.end).max(i + 1);
                if k < scene.next_bin {
                    let used = self.counts && scene.policies.late == LatePolicy::Next;
                    late.add(k, (end - i) as u64, used, scene.next_bin);
                    if used {
                        self.add_late(k, samples, i..end, scene.next_bin);
                    }
                } else {
                    self.put(k, samples, i..end);
                }
                i = end;
            }
        }
        late.tell(&self.name, "samples", scene.next_bin, log);
    }

    /// Samples of `at` that are in none of the fresh `parts`.
    fn tell_again(
        &self,
        at: Range<i128>,
        landing: &Landing,
        parts: &[Range<i128>],
        scene: &Scene<'_>,
        log: &mut Log<'_>,
    ) {
        let bin = |i: i128| scene.grid.bin_from_0(landing.timeline.ns_of(i));
        let mut again = LateTally::default();
        let mut from = at.start;
        for fresh in parts.iter().chain([&(at.end..at.end)]) {
            if from < fresh.start {
                let count = (fresh.start - from) as u64;
                again.add_again(bin(from)..bin(fresh.start - 1) + 1, count, scene.next_bin);
            }
            from = from.max(fresh.end);
        }
        again.tell_again(&self.name, at.start, log);
    }

    fn put(&mut self, k: u64, samples: &Samples, at: Range<i128>) {
        let (channels, mask) = (self.channels, &self.mask);
        let row = |i: i128| (i - i128::from(samples.first_index)) as usize * channels;
        let elements = row(at.start)..row(at.end);
        self.open.change(k, |bin| {
            if bin.index.last().is_none_or(|last| *last < at.start) {
                bin.rows.reserve(elements.len());
                samples.tensor.range_f64(elements, |x| bin.rows.push(x));
                bin.index.extend(at);
            } else {
                // A hole is filled: the rows go where their index belongs.
                let place = bin.index.partition_point(|i| *i < at.start);
                let mut rows = Vec::with_capacity(elements.len());
                samples.tensor.range_f64(elements, |x| rows.push(x));
                bin.rows.splice(place * channels..place * channels, rows);
                bin.index.splice(place..place, at);
            }
            if !mask.is_empty() {
                bin.mask(mask);
            }
        });
    }

    /// Samples for the closed bin `k`, into the first that is open.
    fn add_late(&mut self, k: u64, samples: &Samples, at: Range<i128>, next_bin: u64) {
        let channels = self.channels;
        let row = |i: i128| (i - i128::from(samples.first_index)) as usize * channels;
        self.open.change(next_bin, |bin| {
            bin.late.note(k, (at.end - at.start) as u64, channels);
            let mut i = 0;
            samples.tensor.range_f64(row(at.start)..row(at.end), |x| {
                bin.late.add(i % channels, x);
                i += 1;
            });
        });
    }

    fn take_spikes(
        &mut self,
        spikes: &Spikes,
        landing: &Landing,
        parts: &[Range<i128>],
        scene: &Scene<'_>,
        log: &mut Log<'_>,
    ) {
        let (grid, channels, cofiring) = (scene.grid, self.channels, self.cofiring);
        if !self.mask.is_empty() {
            for part in parts {
                let first = grid.bin_from_0(landing.timeline.ns_of(part.start)).max(scene.next_bin);
                let last = grid.bin_from_0(landing.timeline.ns_of(part.end - 1));
                let (open, mask) = (&mut self.open, &self.mask);
                (first..last + 1).for_each(|k| open.change(k, |bin| bin.mask(mask)));
            }
        }
        let whole = matches!(parts, [part] if *part == landing.at);
        let floor = self.cover.floor();
        let (mut before, mut late) = (0, LateTally::default());
        for (unit, t) in spikes.unit.iter().zip(&spikes.t_ns) {
            let at = i128::from(*t);
            if at < floor && self.from_t0 {
                before += 1;
                continue;
            }
            let at_ns = landing.timeline.ns_of(at);
            let own = grid.bin_from_0(at_ns);
            let is_late = own < scene.next_bin || !(whole || parts.iter().any(|part| part.contains(&at)));
            let unit = *unit as usize;
            if !is_late {
                self.open.change(own, |bin| {
                    bin.rows.resize(channels, 0.0);
                    bin.rows[unit] += 1.0;
                    if let Some(cofiring) = cofiring {
                        cofiring.note(&mut bin.fired, unit, at_ns - grid.start_ns(own));
                    }
                });
                continue;
            }
            let used = scene.policies.late == LatePolicy::Next;
            late.add(own, 1, used, scene.next_bin);
            if used {
                self.open.change(own.max(scene.next_bin), |bin| {
                    bin.late.note(own, 1, channels);
                    bin.late.add(unit, 1.0);
                });
            }
        }
        self.tell_before_start(before, "events", log);
        late.tell(&self.name, "events", scene.next_bin, log);
    }

    fn tell_before_start(&self, n: u64, what: &str, log: &mut Log<'_>) {
        if n > 0 {
            log.counts.before_start += n;
            let detail = format!("{n} {what} before t0 are left out");
            log.notice(EventKind::BeforeStart, Some(&self.name), None, n, detail);
        }
    }
}

/// How long a hole of open bins is.
fn length(ns: &Range<i128>, bins: &Range<u64>, scene: &Scene<'_>) -> Length {
    if ns.end - ns.start > i128::from(scene.policies.max_gap_ns) {
        Length::Long
    } else if bins.end.saturating_sub(bins.start) > MAX_BINS {
        Length::Wide
    } else {
        Length::Short
    }
}
