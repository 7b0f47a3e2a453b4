//! The closing of one bin: who is there, who is missing, whether it is filled or skipped.

use std::collections::BTreeMap;

use super::chain::Report;
use super::coverage::{Hole, Length};
use super::feed::{Feed, Whole};
use super::grid::Grid;
use super::landing::MAX_BINS;
use super::log::Log;
use super::open_bins::OpenBin;
use super::step::{Bin, InputRow, Step};
use super::track::Track;
use crate::domain::output::{EventKind, Flags};
use crate::domain::settings::{GapPolicy, Policies, ResetScope};

/// What is carried from bin to bin, and buffers that are used again.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// The model's state starts anew before the next bin that is answered.
    owed: Option<ResetScope>,
    /// What came for the bin in hand, by track.
    came: Vec<Option<OpenBin>>,
    standing: Vec<Stand>,
}

/// What a bin is closed over.
pub struct Room<'a> {
    pub grid: Grid,
    pub policies: &'a Policies,
    /// Bins before this one may be closed now.
    pub until: u64,
    /// Some signal that the bin waited for has not covered it.
    pub early: bool,
    pub tracks: &'a mut [Track],
    pub feeds: &'a mut [Option<Feed>],
    pub resets: &'a mut BTreeMap<u64, ResetScope>,
}

/// How a signal stands to one bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Whole,
    /// Samples of it never came; so up to `to`.
    Gap {
        to: u64,
        length: Length,
    },
    /// Not covered to its end.
    Missing,
}

impl Closing {
    /// Closes bin `k`, or skips it and as many after it as are alike. Answers the next bin.
    pub fn close(&mut self, k: u64, mut room: Room<'_>, log: &mut Log<'_>) -> u64 {
        let end_ns = room.grid.start_ns(k + 1);
        self.standing.clear();
        self.standing.extend(room.tracks.iter_mut().map(|track| match track.cover.hole_in(k) {
            _ if track.epoch.is_none() || track.mark_ns < end_ns => Stand::Missing,
            Some(hole) => Stand::Gap { to: hole.bins.end, length: hole.length },
            None => Stand::Whole,
        }));
        for (track, standing) in room.tracks.iter_mut().zip(&self.standing) {
            track.note_missing(*standing == Stand::Missing, k, log);
        }
        match self.skips(&room) {
            Some((to, resets)) => {
                let to = to.clamp(k + 1, room.until.max(k + 1));
                self.skip(k, to, resets, &mut room, log);
                to
            }
            None => {
                self.answer(k, &mut room, log);
                k + 1
            }
        }
    }

    /// Whether a required signal's gap is not filled: up to where, and whether the state starts anew.
    fn skips(&self, room: &Room<'_>) -> Option<(u64, bool)> {
        let required = room.tracks.iter().zip(&self.standing).filter(|(track, _)| track.required);
        let skipped = required.filter_map(|(_, standing)| match (*standing, room.policies.gap) {
            (Stand::Gap { to, length: Length::Long }, _) => Some((to, true)),
            (Stand::Gap { to, .. }, GapPolicy::Skip) => Some((to, false)),
            (Stand::Gap { to, .. }, GapPolicy::Reset) => Some((to, true)),
            (Stand::Gap { to, length: Length::Wide }, _) => Some((to, true)),
            // What is not covered to the end of this bin has nothing for later ones either.
            (Stand::Missing, GapPolicy::Skip) => Some((room.until, false)),
            (Stand::Missing, GapPolicy::Reset) => Some((room.until, true)),
            _ => None,
        });
        // Must hold: stretches are skipped at once, whatever their length; one cause is enough for a bin.
        skipped.reduce(|(a, a_resets), (b, b_resets)| (a.max(b), a_resets || b_resets))
    }

    fn skip(&mut self, k: u64, to: u64, resets: bool, room: &mut Room<'_>, log: &mut Log<'_>) {
        for track in room.tracks.iter_mut() {
            // Each hole in the stretch is told once, when the first of its bins is over.
            while let Some(hole) = track.cover.hole_before(to) {
                if !hole.told {
                    tell_gap(&track.name, hole, &not_filled(hole.length, room.policies.gap), log);
                }
                if hole.bins.end > to {
                    break;
                }
                let end = hole.bins.end;
                track.cover.close_before(end);
            }
            track.open.drop_before(to);
            track.cover.close_before(to);
        }
        for feed in room.feeds.iter_mut().flatten() {
            feed.pass(None, to - k);
        }
        if resets {
            self.owed = self.owed.max(Some(ResetScope::Model));
        }
        log.skipped(k..to);
    }

    fn answer(&mut self, k: u64, room: &mut Room<'_>, log: &mut Log<'_>) {
        let mut flags = Flags::default();
        let asked = self.owed.take().is_some();
        let mut reset = asked.then_some(ResetScope::Model);
        while let Some(due) = room.resets.first_entry().filter(|due| *due.key() <= k) {
            reset = reset.max(Some(due.remove()));
        }
        if let Some(scope) = reset {
            flags |= Flags::RESET;
            if scope == ResetScope::All {
                room.feeds.iter_mut().flatten().for_each(Feed::reset);
            }
            let why = if asked { "after a gap that was not filled" } else { "as asked" };
            let detail = format!("state starts anew before bin {k} ({scope}, {why})");
            log.notice(EventKind::Reset, None, Some(k..k + 1), 1, detail);
        }
        let epoch = self.restart(k, room, log);
        self.came.clear();
        for (track, standing) in room.tracks.iter_mut().zip(&self.standing) {
            let came = track.open.take(k, *standing == Stand::Whole);
            if let Some(bin) = came.as_ref().filter(|bin| !bin.late.is_empty()) {
                flags |= Flags::LATE;
                if bin.late.not_finite {
                    flags |= Flags::NAN_REPLACED;
                }
            }
            self.came.push(came);
            if let Some(hole) = track.cover.hole_in(k).filter(|hole| !hole.told) {
                let filled = filled_by(hole.length, room.policies.gap);
                let why = if track.required { filled } else { "filled or absent" };
                tell_gap(&track.name, hole, why, log);
            }
        }
        let mut inputs = Vec::with_capacity(room.feeds.len());
        for feed in room.feeds.iter_mut() {
            let Some(feed) = feed else {
                inputs.push(InputRow {
                    values: Vec::new(),
                    mask: Vec::new(),
                    present: false,
                    cofiring: None,
                });
                continue;
            };
            let t = feed.track;
            let (track, standing) = (&room.tracks[t], self.standing[t]);
            let mut row = fill_or_row(
                feed,
                standing,
                track,
                k,
                self.came[t].as_ref(),
                room.policies,
                room.grid,
                &mut flags,
            );
            row.cofiring = track.cofiring.map(|cofiring| {
                self.came[t].as_ref().map_or(0, |bin| cofiring.count(&bin.fired, &bin.masked))
            });
            inputs.push(row);
            tell_reports(feed, track, k, log);
            let not_finite = feed.not_finite();
            if not_finite > 0 && !feed.nan_before {
                let detail = format!(
                    "{not_finite} channels of input `{}` are not finite (nan = \"{}\")",
                    feed.spec.name, room.policies.nan
                );
                log.notice(EventKind::NanReplaced, Some(&track.name), Some(k..k + 1), 1, detail);
            }
            feed.nan_before = not_finite > 0;
        }
        for (track, came) in room.tracks.iter_mut().zip(self.came.drain(..)) {
            if let Some(bin) = came {
                track.open.recycle(bin);
            }
            track.cover.close_before(k + 1);
        }
        log.steps.push(Step::Bin(Bin { k, flags, reset, epoch, inputs, early: room.early }));
    }

    /// Filters of signals whose new epoch has begun start anew.
    fn restart(&self, k: u64, room: &mut Room<'_>, log: &mut Log<'_>) -> bool {
        let mut any = false;
        for (t, track) in room.tracks.iter_mut().enumerate() {
            if track.restarts_at.is_some_and(|bin| bin <= k) {
                track.restarts_at = None;
                any = true;
                let late = track.open.take_handed_on();
                track.drop_late(late, "a new epoch began", log);
                let feeds = room.feeds.iter_mut().flatten().filter(|feed| feed.track == t);
                feeds.for_each(|feed| feed.chain.restart_filters());
            }
        }
        any
    }
}

#[expect(clippy::too_many_arguments, reason = "one input in one bin: each says something else of it")]
fn fill_or_row(
    feed: &mut Feed,
    standing: Stand,
    track: &Track,
    k: u64,
    came: Option<&OpenBin>,
    policies: &Policies,
    grid: Grid,
    flags: &mut Flags,
) -> InputRow {
    let by_policy = if policies.gap == GapPolicy::Zero { Whole::Zero } else { Whole::Hold };
    let fills = !matches!(policies.gap, GapPolicy::Skip | GapPolicy::Reset);
    let required = feed.spec.required;
    match standing {
        Stand::Whole => feed.row(came, policies.nan, flags),
        Stand::Gap { length, .. } if required || (fills && length == Length::Short) => {
            *flags |= Flags::GAP_FILLED;
            feed.filled(came, if length == Length::Rest { Whole::Fill } else { by_policy }, flags)
        }
        Stand::Missing if required => {
            *flags |= Flags::SIGNAL_MISSING | Flags::GAP_FILLED;
            let since = track.missing.map_or(k, |missing| missing.since);
            let stalled_ns = i128::from(k + 1 - since) * i128::from(grid.width_ns.get());
            let held = stalled_ns <= i128::from(policies.max_gap_ns);
            feed.filled(came, if held { by_policy } else { Whole::Fill }, flags)
        }
        Stand::Gap { .. } => feed.absent(came),
        Stand::Missing => {
            *flags |= Flags::SIGNAL_MISSING;
            feed.absent(came)
        }
    }
}

fn filled_by(length: Length, gap: GapPolicy) -> &'static str {
    match (length, gap) {
        (Length::Rest, _) => "the end of a stall longer than max_gap_ms, filled with the input's `fill`",
        (_, GapPolicy::Zero) => "filled with 0",
        _ => "filled with the last input",
    }
}

/// Why a hole is not filled.
fn not_filled(length: Length, gap: GapPolicy) -> String {
    match (length, gap) {
        (Length::Long, _) => "longer than max_gap_ms, not filled".into(),
        (Length::Wide, GapPolicy::Hold | GapPolicy::Zero | GapPolicy::Fail) => {
            format!("more than the {MAX_BINS} bins that are filled for one frame, not filled")
        }
        (Length::Short | Length::Rest | Length::Wide, _) => "not filled".into(),
    }
}

fn tell_gap(signal: &crate::domain::ids::SignalName, hole: &mut Hole, why: &str, log: &mut Log<'_>) {
    hole.told = true;
    log.counts.gaps += 1;
    let bins = hole.bins.clone();
    let detail = format!("data for {} bins never came: {why}", bins.end - bins.start);
    log.notice(EventKind::Gap, Some(signal), Some(bins.clone()), bins.end - bins.start, detail);
}

/// Flat channels and frozen statistics, one event for all channels of a bin.
fn tell_reports(feed: &mut Feed, track: &Track, k: u64, log: &mut Log<'_>) {
    if feed.chain.reports().is_empty() {
        return;
    }
    let reports = std::mem::take(feed.chain.reports());
    let mut tell = |kind: EventKind, what: &str, all: &str, is_meant: fn(&Report) -> bool| {
        let meant: Vec<&Report> = reports.iter().filter(|report| is_meant(report)).collect();
        if !meant.is_empty() {
            let named: Vec<String> = meant.iter().take(5).map(|report| feed.chain.describe(report)).collect();
            let more = meant.len() - named.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let detail = format!("input `{}`: {what}: {}{more}{all}", feed.spec.name, named.join(", "));
            log.notice(kind, Some(&track.name), Some(k..k + 1), meant.len() as u64, detail);
        }
    };
    tell(EventKind::FlatChannel, "channels without variance are 0", "", |report| {
        matches!(report, Report::Flat(_))
    });
    tell(EventKind::FlatChannel, "channels without a good value in calibration are masked", "", |report| {
        matches!(report, Report::Uncalibrated(_))
    });
    let is_threshold = |report: &Report| matches!(report, Report::Threshold(_));
    // Written where it is told alone: of a thousand channels it is long.
    if reports.iter().any(is_threshold)
        && let Some((what, all)) = feed.told_thresholds()
    {
        tell(EventKind::StatsFrozen, what, &all, is_threshold);
    }
    tell(EventKind::StatsFrozen, "statistics stood still for longer than tau", "", |report| {
        matches!(report, Report::Frozen(_))
    });
}
