//! Where a frame lies: found and proven before anything changes, so that a refused frame leaves no trace.

use std::ops::Range;

use super::clock::{Clocks, Line};
use super::grid::{Grid, MAX_BIN};
use super::pace::Pace;
use super::refusal::Refusal;
use super::stamps::{Disagreement, Stamps};
use super::track::{Epoch, Placed, Track};
use crate::domain::frame::{Frame, FrameBody};
use crate::domain::settings::{GapPolicy, LatePolicy, Policies};

/// Bins that one frame may cover, and that one signal may be ahead of another.
pub const MAX_BINS: u64 = 65_536;
/// How long after its end a frame has come as a rule.
const SOON_NS: i128 = 1_000_000_000;
/// Bytes that may wait in open bins of a signal that is ahead of another.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// What a frame is seen against.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The grid of bins.
    pub grid: Grid,
    /// t0 as given at open.
    pub t0_given_ns: Option<i64>,
    /// The first open bin.
    pub next_bin: u64,
    /// The session's policies.
    pub policies: &'a Policies,
    /// Relations of clocks.
    pub clocks: &'a Clocks,
    /// When the frame came (Unix ns).
    pub arrived_ns: i64,
}

/// The place of a frame.
#[derive(Clone, Debug)]
pub struct Landing {
    /// Its positions: sample indices, or device ns for events.
    pub at: Range<i128>,
    /// From position to session time.
    pub timeline: Timeline,
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// It is the signal's first.
    pub first: bool,
    /// A new epoch begins with it.
    pub restart: Option<Restart>,
    /// Its stamp and its index disagree over the tolerance, and that is to be told.
    pub disagrees: Option<Disagreement>,
}

/// A new epoch.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Start of the epoch on the session's clock.
    pub start_ns: i128,
    /// Nobody declared it: the index stepped back while the stamps went on.
    pub detected: bool,
}

/// From position to session time, never backwards beyond what came before.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    pace: Option<Pace>,
    device0_ns: i128,
    line: Line,
    mark: i128,
    mark_ns: i128,
}

impl Timeline {
    /// Session time of a position.
    pub fn ns_of(&self, position: i128) -> i128 {
        let ns = self.line.map(device_ns(self.pace, self.device0_ns, position));
        if position >= self.mark { ns.max(self.mark_ns) } else { ns }
    }

    /// The first position of `within` that lies at or after `ns`, else its end.
    pub fn first_at_or_after(&self, ns: i128, within: Range<i128>) -> i128 {
        // Parts of a frame lie on one side of the mark.
        if within.start >= self.mark && ns <= self.mark_ns {
            return within.start;
        }
        if let (Some(shift), Some(pace)) = (self.line.shift(), self.pace) {
            return pace.first_at_or_after(ns - shift - self.device0_ns).clamp(within.start, within.end);
        }
        let (mut low, mut high) = (within.start, within.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.ns_of(middle) < ns { low = middle + 1 } else { high = middle }
        }
        low
    }
}

fn device_ns(pace: Option<Pace>, device0_ns: i128, position: i128) -> i128 {
    pace.map_or(position, |pace| device0_ns + pace.start_ns(position))
}

/// Positions of a frame.
fn extent(body: &FrameBody) -> Range<i128> {
    match body {
        FrameBody::Samples(samples) => {
            let first = i128::from(samples.first_index);
            first..first + i128::from(samples.count)
        }
        FrameBody::Spikes(spikes) => {
            let start = i128::from(spikes.t_start_ns);
            start..start + i128::from(spikes.span_ns)
        }
        FrameBody::Addresses(_) | FrameBody::Markers(_) => 0..0,
    }
}

impl Track {
    /// Start of the frame's data on the signal's own clock, where the signal is the session's first.
    pub fn start_ns(&self, frame: &Frame, t0_given_ns: Option<i64>) -> i128 {
        let at = extent(&frame.body);
        match (self.pace, frame.t_device_ns) {
            (Some(_), Some(t)) => t.into(),
            (pace, _) => device_ns(pace, t0_given_ns.map_or(0, i128::from), at.start),
        }
    }

    /// Finds the frame's place, or why it is refused.
    pub fn land(&self, frame: &Frame, scene: &Scene<'_>) -> Result<Landing, Refusal> {
        let at = extent(&frame.body);
        let ahead = self.ready.saturating_sub(scene.next_bin);
        if ahead > MAX_BINS || (ahead > 0 && self.open.bytes() > MAX_WAITING_BYTES) {
            return Err(Refusal::Ahead { signal: self.name.clone(), bins: ahead });
        }
        let epoch = self.epoch.as_ref();
        let detected = epoch.is_some_and(|epoch| !frame.epoch && self.stepped_back(epoch, frame, &at, scene));
        let restarts = epoch.is_some() && (frame.epoch || self.epoch_owed || detected);
        let mut disagrees = None;
        let (epoch, restart) = match epoch {
            Some(epoch) if !restarts => {
                let mut epoch = epoch.clone();
                if let (Some(pace), Some(t)) = (self.pace, frame.t_device_ns) {
                    let tolerance_ns = scene.policies.clock_tolerance_ns;
                    disagrees = epoch.stamps.check(pace, at.start, t, tolerance_ns);
                }
                (epoch, None)
            }
            before => {
                let mut epoch = self.new_epoch(frame, &at, scene)?;
                let restart = before.map(|_| {
                    let start_ns = self.related_ns(&epoch, &at, scene).unwrap_or_else(|| {
                        let start_ns = self.restart_ns(scene);
                        if self.placed != Placed::Arrival {
                            epoch.shift = Some(start_ns - device_ns(self.pace, epoch.device0_ns, at.start));
                        }
                        start_ns
                    });
                    Restart { start_ns, detected }
                });
                (epoch, restart)
            }
        };
        let first = self.epoch.is_none();
        let fresh_start = first || restart.is_some();
        let mark = if fresh_start { at.start } else { self.cover.mark() };
        // Nothing lies before the first frame that it could run back over.
        let mark_ns = if first { i128::MIN } else { self.mark_ns };
        let line = self.line(&epoch, &at, mark, mark_ns, scene)?;
        let timeline = Timeline { pace: self.pace, device0_ns: epoch.device0_ns, line, mark, mark_ns };
        let landing = Landing { at, timeline, epoch, first, restart, disagrees };
        self.within_bounds(&landing, scene)?;
        self.keeps_policies(frame, &landing, scene)?;
        Ok(landing)
    }

    /// A step back of the index is a restart if the stamps went on meanwhile.
    fn stepped_back(&self, epoch: &Epoch, frame: &Frame, at: &Range<i128>, scene: &Scene<'_>) -> bool {
        let (Some(pace), Some(t), Some((last, stamp))) = (self.pace, frame.t_device_ns, epoch.last_stamp)
        else {
            return false;
        };
        let tolerance = i128::from(scene.policies.clock_tolerance_ns);
        let since = |position: i128| i128::from(stamp) + pace.start_ns(position) - pace.start_ns(last);
        let repeated = (i128::from(t) - since(at.start)).abs() <= tolerance;
        at.start < self.cover.mark() && !repeated && i128::from(t) >= since(self.cover.mark()) - tolerance
    }

    /// Start of a new epoch: whole bins after what was covered, as many as the server's clock says were lost; never in a
    /// bin that has closed meanwhile.
    fn restart_ns(&self, scene: &Scene<'_>) -> i128 {
        let lost_ns = (i128::from(scene.arrived_ns) - i128::from(self.last_arrival_ns)).max(0);
        let width = i128::from(scene.grid.width_ns.get());
        let covered = scene.grid.bin(self.mark_ns - 1) + 1;
        scene.grid.t0_ns + (covered + lost_ns / width).max(scene.next_bin.into()) * width
    }

    /// Start of a new epoch by the probes of its clock, if the clock still reads as they found it: what a frame ends with
    /// came when it arrived, or not long before.
    fn related_ns(&self, epoch: &Epoch, at: &Range<i128>, scene: &Scene<'_>) -> Option<i128> {
        let relation = scene.clocks.relation(&self.clock).filter(|_| self.placed == Placed::Exchange)?;
        let reading = |position| device_ns(self.pace, epoch.device0_ns, position);
        let since_ns = i128::from(scene.arrived_ns) - relation.to_server(reading(at.end));
        let start_ns = scene.clocks.to_session(&self.clock, reading(at.start)).ok()?;
        (since_ns.abs() <= SOON_NS).then_some(start_ns.max(self.mark_ns))
    }

    /// The epoch that begins with this frame, its clock as it was placed at open.
    fn new_epoch(&self, frame: &Frame, at: &Range<i128>, scene: &Scene<'_>) -> Result<Epoch, Refusal> {
        let shift = match self.placed {
            Placed::Session => Some(0),
            Placed::Declared(offset_ns) => Some(i128::from(offset_ns)),
            Placed::Exchange | Placed::Arrival => None,
        };
        let mut epoch = Epoch { device0_ns: 0, stamps: Stamps::default(), last_stamp: None, shift };
        let Some(pace) = self.pace else { return Ok(epoch) };
        match (frame.t_device_ns, self.placed) {
            (Some(t), _) => {
                epoch.device0_ns = i128::from(t) - pace.start_ns(at.start);
                // The first of the epoch: those that follow are checked against it.
                epoch.stamps.check(pace, at.start, t, 0);
            }
            (None, Placed::Session) => {
                epoch.device0_ns = scene.t0_given_ns.map_or(0, i128::from);
                // A counter that restarted says nothing of t0 any more.
                if self.epoch.is_none() && scene.t0_given_ns.is_some() {
                    epoch.stamps = Stamps::from_t0(epoch.device0_ns);
                }
            }
            (None, Placed::Arrival) => {}
            (None, _) => {
                return Err(self.refused(
                    "t_device_ns",
                    format!(
                        "the device's time of the first sample, since `{}` is not the session's clock",
                        self.clock
                    ),
                    "none".into(),
                ));
            }
        }
        // Rows of `binned` lie on the grid; what is within the tolerance is put there.
        if let (true, Some(shift), true) = (self.on_grid, epoch.shift, self.epoch.is_none()) {
            let row = i128::from(self.row_ns);
            let ahead =
                (epoch.device0_ns + pace.start_ns(at.start) + shift - scene.grid.t0_ns).rem_euclid(row);
            let off = if ahead * 2 > row { ahead - row } else { ahead };
            if off.unsigned_abs() <= scene.policies.clock_tolerance_ns.into() {
                epoch.shift = Some(shift - off);
            } else if self.placed == Placed::Session {
                return Err(self.refused(
                    "t_device_ns",
                    format!(
                        "rows that start whole rows of {row} ns from t0_ns = {}, within {} ns",
                        scene.grid.t0_ns, scene.policies.clock_tolerance_ns
                    ),
                    format!("a row that starts {off} ns off"),
                ));
            }
        }
        Ok(epoch)
    }

    /// The frame's device time laid on the session's clock.
    fn line(
        &self,
        epoch: &Epoch,
        at: &Range<i128>,
        mark: i128,
        mark_ns: i128,
        scene: &Scene<'_>,
    ) -> Result<Line, Refusal> {
        let device = (
            device_ns(self.pace, epoch.device0_ns, at.start),
            device_ns(self.pace, epoch.device0_ns, at.end),
        );
        if let Some(shift) = epoch.shift {
            return Ok(Line::shifted(device, shift));
        }
        let unknown = |unprobed: String| Refusal::ClockUnknown {
            signal: self.name.clone(),
            clock: self.clock.clone(),
            session_clock: scene.clocks.session_clock().into(),
            unprobed,
        };
        if self.placed == Placed::Arrival {
            let unprobed = || unknown(scene.clocks.session_clock().into());
            let end = scene.clocks.session_at(scene.arrived_ns).ok_or_else(unprobed)?;
            let start = end - (device.1 - device.0);
            let start = if at.start >= mark { start.max(mark_ns) } else { start };
            return Ok(Line::new(device, (start, end.max(start))));
        }
        let map = |ns| scene.clocks.to_session(&self.clock, ns).map_err(unknown);
        let (start, end) = (map(device.0)?, map(device.1)?);
        Ok(Line::new(device, (start, end.max(start))))
    }

    /// Bin numbers end somewhere, and one frame covers so many bins at most.
    fn within_bounds(&self, landing: &Landing, scene: &Scene<'_>) -> Result<(), Refusal> {
        if landing.at.is_empty() {
            return Ok(());
        }
        let bin = |position| scene.grid.bin(landing.timeline.ns_of(position));
        let (first, last) = (bin(landing.at.start).max(0), bin(landing.at.end - 1));
        if last >= i128::from(MAX_BIN) {
            return Err(self.refused(self.axis(), "a bin number below 2^62".into(), format!("bin {last}")));
        }
        if last - first >= i128::from(MAX_BINS) {
            let found = format!("{} bins", last - first + 1);
            return Err(self.refused(self.axis(), format!("at most {MAX_BINS} bins in one frame"), found));
        }
        Ok(())
    }

    /// `gap = fail` and `late = fail`.
    fn keeps_policies(&self, frame: &Frame, landing: &Landing, scene: &Scene<'_>) -> Result<(), Refusal> {
        let at = &landing.at;
        if landing.first || self.forgiven || at.is_empty() {
            return Ok(());
        }
        if scene.policies.gap == GapPolicy::Fail {
            let expected = self.cover.mark().max(self.rejected_to.unwrap_or(i128::MIN));
            let lost = landing.restart.is_some_and(|restart| restart.start_ns > self.mark_ns);
            if lost || (landing.restart.is_none() && at.start > expected) {
                let signal = self.name.clone();
                return Err(Refusal::Gap { signal, axis: self.axis(), expected, found: at.start });
            }
        }
        if scene.policies.late == LatePolicy::Fail && landing.restart.is_none() {
            let (count, what) = self.late_in(frame, landing, scene);
            if count > 0 {
                let (signal, next_bin) = (self.name.clone(), scene.next_bin);
                return Err(Refusal::Late { signal, count, what, next_bin });
            }
        }
        Ok(())
    }

    /// Samples or events for closed bins; events of a stretch that came already count too.
    fn late_in(&self, frame: &Frame, landing: &Landing, scene: &Scene<'_>) -> (u64, &'static str) {
        let mut parts = Vec::new();
        self.cover.fresh(landing.at.clone(), &mut parts);
        let open_ns = scene.grid.start_ns(scene.next_bin);
        if let FrameBody::Spikes(spikes) = &frame.body {
            let late = |t: &&i64| {
                let t = i128::from(**t);
                t >= self.cover.floor()
                    && (landing.timeline.ns_of(t) < open_ns || !parts.iter().any(|part| part.contains(&t)))
            };
            return (spikes.t_ns.iter().filter(late).count() as u64, "events");
        }
        let late =
            |part: &Range<i128>| landing.timeline.first_at_or_after(open_ns, part.clone()) - part.start;
        (parts.iter().map(late).sum::<i128>() as u64, "samples")
    }

    /// The field that says where a frame lies.
    pub fn axis(&self) -> &'static str {
        if self.pace.is_some() { "first_index" } else { "t_start_ns" }
    }

    fn refused(&self, tensor: &'static str, expected: String, found: String) -> Refusal {
        Refusal::Shape { signal: self.name.clone(), tensor, expected, found }
    }
}
