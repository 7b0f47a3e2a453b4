//! 64 rigs in real time at bins of 20 ms, everything recorded.

use std::time::Instant;

use latentd::cli::replay::player::{PlayOptions, play};
use latentd::cli::replay::report::{Percentiles, PlayReport};
use latentd::domain::output::Flags;

use crate::library;
use crate::recordings;
use crate::support::{Latentd, Setup};
use crate::usage::usage;

const RIGS: usize = 64;
/// The deadline that each rig asks for: one bin.
const DEADLINE_MS: f64 = 20.0;

/// 64 sessions of so many bins: no gap, every bin answered, every bin in the library. What was played and seen.
async fn sixty_four(setup: Setup, bins: i64) -> Vec<PlayReport> {
    let server = setup.start().await;
    // Made before the first rig plays: what costs the rigs time makes them late, and then they send in bursts.
    let recordings: Vec<_> = (1..=RIGS as u64).map(|seed| recordings::noise(bins, seed)).collect();
    let (_, before_s) = usage(server.pid());
    let begun = Instant::now();
    let rigs = recordings.into_iter().zip(1..).map(|(recording, seed)| {
        let mut options = PlayOptions::new(&server.grpc, "cortex").recorded();
        options.open.deadline_ms = Some(DEADLINE_MS);
        options.open.rig = format!("rig {seed}");
        tokio::spawn(async move { play(&recording, &options).await })
    });
    let rigs: Vec<_> = rigs.collect();
    let mut reports = Vec::new();
    for rig in rigs {
        let report = rig.await.expect("a rig ends");
        reports
            .push(report.unwrap_or_else(|error| panic!("a rig is served: {error}\n{}", server.setup.log())));
    }
    let wall_s = begun.elapsed().as_secs_f64();
    let (rss_kb, after_s) = usage(server.pid());
    say(&server, &reports, (after_s - before_s) / wall_s, rss_kb).await;
    let missed = server.metric("latentd_deadline_missed_total", "").await;
    let setup = server.stop().await;
    for report in &reports {
        let run = report.run.as_deref().expect("a run");
        assert_eq!((report.frames, report.resent, report.reattached), (bins as u64, 0, 0), "run {run}");
        assert_eq!((report.answers.first_bin, report.answers.answered()), (0, bins as usize), "run {run}");
        assert_eq!((report.closed.bins, report.closed.gaps), (bins as u64, 0), "run {run}");
        assert_eq!(
            report.answers.flagged(Flags(Flags::NOT_RECORDED.0 | Flags::GAP_FILLED.0)),
            0,
            "run {run}"
        );
        assert!(report.faults.is_empty(), "run {run}: {:?}", report.faults);
    }
    // Of every run: its flags, which every bin has, each of its three outputs, and the frames that it was fed.
    let counted = "SELECT run, track, sum(n) FROM chunk GROUP BY run, track \
                   UNION ALL SELECT run, 'frames', sum(n) FROM frame_chunk WHERE track = 0 GROUP BY run";
    let counted = library::sql(&setup, counted);
    assert_eq!(counted.len(), RIGS * 5, "{counted:?}");
    let lost: Vec<_> = counted.iter().filter(|row| row[2] != bins.to_string()).collect();
    assert!(lost.is_empty(), "not {bins} bins in the library: {lost:?}");
    println!("{} bins counted in the library by SQL, as many as were sent", RIGS as i64 * bins);
    let by_close: u64 = reports.iter().map(|report| report.closed.deadline_missed).sum();
    assert_eq!(missed, by_close as f64, "missed deadlines by metric and by close");
    reports
}

/// Prints what was measured.
async fn say(server: &Latentd, reports: &[PlayReport], cores: f64, rss_kb: u64) {
    let lags = reports.iter().flat_map(|report| &report.lags);
    let lag = Percentiles::of(lags.clone().map(|lag| lag.server.total));
    let trip = Percentiles::of(lags.filter_map(|lag| lag.round_trip_us));
    let behind_s = reports.iter().map(|report| report.behind_s).fold(0.0, f64::max);
    let missed: u64 = reports.iter().map(|report| report.closed.deadline_missed).sum();
    let batches = server.metric("latentd_batch_rows_count", "model=\"cortex-encoder\"").await;
    let rows = server.metric("latentd_batch_rows_sum", "model=\"cortex-encoder\"").await;
    println!(
        "{RIGS} rigs, {} bins: lag p50 {:.0} us, p99 {:.0} us, max {:.0} us; round trip p50 {:.0} us, p99 {:.0} us; \
         {missed} deadlines of {DEADLINE_MS} ms missed; {:.2} rows a batch; the server used {cores:.2} cores and \
         {} MB; a rig was at most {:.0} ms behind",
        lag.n,
        lag.p50,
        lag.p99,
        lag.max,
        trip.p50,
        trip.p99,
        rows / batches,
        rss_kb / 1024,
        behind_s * 1e3,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_rigs_in_real_time_lose_nothing_in_five_seconds() {
    // Admission is not at stake here: on a busy machine a debug build cannot promise what 64 rigs ask for.
    sixty_four(Setup::bare().bundled().key("workers", 4).key("load_limit", 1), 250).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; make test-all"]
async fn sixty_four_rigs_in_real_time_miss_no_deadline_in_a_minute() {
    for report in sixty_four(Setup::bare().bundled(), 3_000).await {
        assert_eq!(report.closed.deadline_missed, 0, "run {:?}: {:?}", report.run, report.server_lag_us());
    }
}
