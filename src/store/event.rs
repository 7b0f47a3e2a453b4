//! Events as they are kept: one entry per kind, signal and 10 s, so that a jittering device cannot flood a run.

use std::collections::HashMap;

use crate::domain::ids::SignalName;
use crate::domain::output::{EventKind, Notice};

/// How long an entry takes further events of its kind and signal.
const ENTRY_NS: i64 = 10_000_000_000;

/// Events of one kind and signal within 10 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventEntry {
    /// What happened.
    pub kind: EventKind,
    /// The signal it concerns, if one.
    pub signal: Option<SignalName>,
    /// The smallest first bin of them.
    pub from_bin: Option<u64>,
    /// The largest end of them.
    pub to_bin: Option<u64>,
    /// The sum of their counts.
    pub count: u64,
    /// The first of them (Unix ns).
    pub first_ns: i64,
    /// The last of them (Unix ns).
    pub last_ns: i64,
    /// The first one's sentence and, where it differs, the last one's.
    pub detail: String,
}

/// Stands between the first sentence of an entry and the last.
const LAST: &str = "; the last: ";

/// Entries of a run, and which of them still take events.
#[derive(Debug, Default)]
pub struct EventLog {
    /// In the order of their first event.
    pub entries: Vec<EventEntry>,
    latest: HashMap<(EventKind, Option<SignalName>), usize>,
}

impl EventLog {
    /// Goes on from entries that were kept before.
    pub fn resume(entries: Vec<EventEntry>) -> Self {
        let mut latest = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            latest.insert((entry.kind, entry.signal.clone()), i);
        }
        Self { entries, latest }
    }

    /// Takes an event; answers which entry it stands in. The same events in the same order make the same entries,
    /// wherever the run is cut in between.
    pub fn push(&mut self, notice: &Notice) -> usize {
        let key = (notice.kind, notice.signal.clone());
        if let Some(&i) = self.latest.get(&key) {
            let entry = &mut self.entries[i];
            if notice.t_ns.saturating_sub(entry.first_ns).unsigned_abs() < ENTRY_NS as u64 {
                entry.absorb(notice);
                return i;
            }
        }
        self.entries.push(EventEntry {
            kind: notice.kind,
            signal: notice.signal.clone(),
            from_bin: notice.from_bin,
            to_bin: notice.to_bin,
            count: notice.count,
            first_ns: notice.t_ns,
            last_ns: notice.t_ns,
            detail: notice.detail.clone(),
        });
        self.latest.insert(key, self.entries.len() - 1);
        self.entries.len() - 1
    }
}

impl EventEntry {
    fn absorb(&mut self, notice: &Notice) {
        self.from_bin = self.from_bin.into_iter().chain(notice.from_bin).min();
        self.to_bin = self.to_bin.into_iter().chain(notice.to_bin).max();
        self.count = self.count.saturating_add(notice.count);
        self.last_ns = self.last_ns.max(notice.t_ns);
        let first = self.detail.split_once(LAST).map_or(self.detail.len(), |(first, _)| first.len());
        self.detail.truncate(first);
        if self.detail != notice.detail {
            self.detail.push_str(LAST);
            self.detail.push_str(&notice.detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(t_s: i64, from_bin: u64) -> Notice {
        Notice {
            kind: EventKind::Gap,
            signal: Some("lfp".into()),
            from_bin: Some(from_bin),
            to_bin: Some(from_bin + 2),
            count: 2,
            detail: format!("at {t_s} s"),
            t_ns: t_s * 1_000_000_000,
        }
    }

    #[test]
    fn events_of_one_kind_and_signal_within_10_s_are_one_entry() {
        let mut log = EventLog::default();
        let other = Notice { signal: None, ..gap(2, 0) };
        let where_to: Vec<usize> =
            [gap(0, 10), gap(9, 4), other, gap(10, 50)].iter().map(|notice| log.push(notice)).collect();
        assert_eq!(where_to, [0, 0, 1, 2]);
        let first = &log.entries[0];
        assert_eq!((first.from_bin, first.to_bin, first.count), (Some(4), Some(12), 4));
        assert_eq!((first.first_ns, first.last_ns), (0, 9_000_000_000));
        assert_eq!(first.detail, "at 0 s; the last: at 9 s");
    }

    #[test]
    fn an_entrys_sentence_names_the_first_and_the_last_of_its_events_or_the_one_that_all_have() {
        let mut log = EventLog::default();
        let told = |t_ns: i64, detail: &str| Notice { t_ns, detail: detail.into(), ..gap(0, 0) };
        let mut details = Vec::new();
        for (t_ns, detail) in [(0, "a"), (1, "a"), (2, "b"), (3, "c"), (4, "a")] {
            log.push(&told(t_ns, detail));
            details.push(log.entries[0].detail.clone());
        }
        assert_eq!(details, ["a", "a", "a; the last: b", "a; the last: c", "a"]);
    }

    #[test]
    fn a_log_that_is_resumed_goes_on_as_if_it_had_not_been_cut() {
        let all = [gap(0, 10), gap(9, 4), gap(10, 50), gap(15, 90)];
        let mut whole = EventLog::default();
        all.iter().for_each(|notice| _ = whole.push(notice));
        for cut in 0..all.len() {
            let mut before = EventLog::default();
            all[..cut].iter().for_each(|notice| _ = before.push(notice));
            let mut after = EventLog::resume(before.entries);
            all[cut..].iter().for_each(|notice| _ = after.push(notice));
            assert_eq!(after.entries, whole.entries);
        }
    }
}
