//! A signal that bins close without: told when it begins to be missing, and when it is back or the session ends.

use super::log::Log;
use super::track::Track;
use crate::domain::output::EventKind;

/// Bins that close without a signal.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    /// The first.
    pub since: u64,
    /// Bins before this one were told.
    pub told_to: u64,
}

impl Track {
    /// Bin `k` closes, with the signal or without it.
    pub fn note_missing(&mut self, missing: bool, k: u64, log: &mut Log<'_>) {
        if missing {
            self.missing.get_or_insert(Missing { since: k, told_to: k });
            self.silent = !self.required;
        } else {
            self.tell_missing(k, "it is back", log);
            self.missing = None;
        }
    }

    /// Tells of the bins before `next_bin` that closed without it and were not told yet, if there are any; `now` says
    /// how the signal stands.
    pub fn tell_missing(&mut self, next_bin: u64, now: &str, log: &mut Log<'_>) {
        let Some(missing) = self.missing.as_mut().filter(|missing| missing.told_to < next_bin) else {
            return;
        };
        let bins = missing.told_to..next_bin;
        missing.told_to = next_bin;
        let n = bins.end - bins.start;
        let which = match n {
            1 => format!("bin {}", bins.start),
            _ => format!("bins {} to {}", bins.start, bins.end - 1),
        };
        let detail = format!("{which} closed without it; {now}");
        log.notice(EventKind::SignalMissing, Some(&self.name), Some(bins), n, detail);
    }

    /// Tells that it has begun to be missing, once a stall.
    pub fn tell_stall(&mut self, next_bin: u64, log: &mut Log<'_>) {
        if self.missing.is_some_and(|missing| missing.told_to == missing.since) {
            let now = if self.epoch.is_none() { "nothing of it has come yet" } else { "it is behind" };
            self.tell_missing(next_bin, now, log);
        }
    }
}
