//! Where a call writes down what happened: steps in order, totals.

use std::ops::Range;

use super::step::{Counts, Step};
use crate::domain::ids::SignalName;
use crate::domain::output::{EventKind, Notice};

/// Steps of one call, and the totals of the session.
pub struct Log<'a> {
    /// Grows in order.
    pub steps: &'a mut Vec<Step>,
    /// Totals.
    pub counts: &'a mut Counts,
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

    /// Bins that are not answered; joined to those directly before.
    pub fn skipped(&mut self, bins: Range<u64>) {
        self.counts.skipped_bins += bins.end - bins.start;
        match self.steps.last_mut() {
            Some(Step::Skipped { to, .. }) if *to == bins.start => *to = bins.end,
            _ => self.steps.push(Step::Skipped { from: bins.start, to: bins.end }),
        }
    }
}
