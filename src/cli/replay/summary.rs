//! What a play came to, for people.

use std::fmt::Write as _;

use super::live::ms;
use super::report::PlayReport;
use super::score::{ScoreError, Scored};
use crate::domain::output::Flags;

/// Flags that are worth a word, by name.
const TOLD: [(&str, Flags); 8] = [
    ("gap_filled", Flags::GAP_FILLED),
    ("late", Flags::LATE),
    ("masked", Flags::MASKED),
    ("signal_missing", Flags::SIGNAL_MISSING),
    ("output_invalid", Flags::OUTPUT_INVALID),
    ("stale", Flags::STALE),
    ("deadline_missed", Flags::DEADLINE_MISSED),
    ("not_recorded", Flags::NOT_RECORDED),
];

/// Bins, speed, lags, flags and what went wrong; a line each.
pub fn lines(report: &PlayReport) -> Vec<String> {
    let answers = &report.answers;
    let (lag, round_trip) = (report.server_lag_us(), report.round_trip_us());
    let rate = answers.answered() as f64 / report.wall_s.max(1e-9);
    let mut lines = vec![
        format!(
            "{} bins in {:.1} s ({rate:.0} bins/s), {} frames",
            answers.answered(),
            report.wall_s,
            report.frames
        ),
        format!(
            "lag p50 {} p99 {} max {} · round trip p50 {} p99 {}",
            ms(lag.p50),
            ms(lag.p99),
            ms(lag.max),
            ms(round_trip.p50),
            ms(round_trip.p99)
        ),
    ];
    let told: Vec<String> = TOLD
        .iter()
        .map(|(name, flag)| (name, answers.flagged(*flag)))
        .filter(|(_, bins)| *bins > 0)
        .map(|(name, bins)| format!("{name} {bins}"))
        .collect();
    if !told.is_empty() {
        lines.push(format!("bins flagged: {}", told.join(", ")));
    }
    let skipped = report.skipped();
    if let Some((first, bins)) = skipped.first() {
        let more = if skipped.len() > 1 { ", and more" } else { "" };
        lines.push(format!("bins skipped: {bins} from {first}{more}"));
    }
    let closed = &report.closed;
    if closed.gaps + closed.late + closed.dropped > 0 {
        lines.push(format!("gaps {}, late {}, dropped {}", closed.gaps, closed.late, closed.dropped));
    }
    if report.resent + u64::from(report.reattached) > 0 {
        lines.push(format!("frames sent again {}, attached anew {}", report.resent, report.reattached));
    }
    if report.behind_s > 0.1 {
        lines.push(format!("behind real time by up to {:.2} s", report.behind_s));
    }
    if let Some(fault) = report.faults.first() {
        let more = report.faults.len() - 1;
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        lines.push(format!("fault: {}: {}{more}", fault.kind, fault.detail));
    }
    lines
}

/// A score in a line: R² by axis and over all, Pearson's r.
pub fn score_line(scored: &Result<Scored, ScoreError>) -> String {
    let scored = match scored {
        Ok(scored) => scored,
        Err(error) => return format!("no score: {error}"),
    };
    let mut line = format!("{} against {}:", scored.pair.output, scored.pair.target);
    for ((axis, r2), r) in scored.axes.iter().zip(&scored.r2.per_output).zip(&scored.r) {
        let _ = write!(line, " {axis} R² {r2} (r {r}),");
    }
    if scored.axes.len() > 1 {
        let _ = write!(line, " mean R² {},", scored.r2.uniform_average);
    }
    let _ = write!(line, " {} bins", scored.bins);
    if scored.left_out > 0 {
        let _ = write!(line, ", {} left out", scored.left_out);
    }
    match scored.pair.delay_ms {
        Some(delay_ms) if delay_ms != 0.0 => line + &format!(", {delay_ms} ms ago"),
        _ => line,
    }
}
