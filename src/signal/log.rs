//! Where a call writes down what happened: steps in order, totals.

use std::ops::Range;

use super::late::LateBins;
use super::step::{Counts, Step};
use crate::domain::ids::SignalName;
use crate::domain::output::{EventKind, Notice};

/// Steps of one call, and the totals of the session.
pub struct Log<'a> {
    /// Grows in order.
    pub steps: &'a mut Vec<Step>,
    /// Totals.
    pub counts: &'a mut Counts,
    /// Which closed bins are in the totals.
    pub late_bins: &'a mut LateBins,
    /// When it happens, by the server's clock.
    pub t_ns: i64,
}

impl Log<'_> {
    /// An event about bins, or about none (`count` then says of what).
    pub fn notice(
        &mut self,
        kind: EventKind,
        signal: Option<&SignalName>,
        bins: Option<Range<u64>>,
        count: u64,
        detail: String,
    ) {
        self.steps.push(Step::Notice(Notice {
            kind,
            signal: signal.cloned(),
            from_bin: bins.as_ref().map(|bins| bins.start),
            to_bin: bins.map(|bins| bins.end),
            count,
            detail,
            t_ns: self.t_ns,
        }));
    }

    /// Bins are skipped, and told. What goes on from the piece before is one stretch with it; so however a gap closes in
    /// pieces, the counts of its events sum up to its bins.
    pub fn skipped(&mut self, bins: Range<u64>) {
        self.counts.skipped_bins += bins.end - bins.start;
        let detail = |from: u64| format!("bins {from} to {} are not answered", bins.end - 1);
        if let [.., Step::Notice(notice), Step::Skipped { from, to }] = &mut self.steps[..]
            && notice.kind == EventKind::Skipped
            && *to == bins.start
        {
            *to = bins.end;
            notice.to_bin = Some(bins.end);
            notice.count = bins.end - *from;
            notice.detail = detail(*from);
            return;
        }
        let detail = detail(bins.start);
        self.notice(EventKind::Skipped, None, Some(bins.clone()), bins.end - bins.start, detail);
        self.steps.push(Step::Skipped { from: bins.start, to: bins.end });
    }
}
