//! Memory of a server with the demo's models.

use crate::recordings;
use crate::rig::{Streamer, ask, rows};
use crate::support::{LIMIT, Latentd, Setup, until};
use crate::usage::usage;
use latentd::wire::v1;

/// What the server may take (kB).
const ASKED_KB: u64 = 150 << 10;
/// What it may grow by over the long stretch (kB).
const GROWTH_KB: u64 = 8 << 10;

/// Resident memory once the journal is moved: what waits for the disk is bounded elsewhere.
async fn resident_kb(server: &Latentd) -> u64 {
    until(LIMIT, "an empty journal", || async {
        (server.metric("latentd_journal_bytes", "").await == 0.0).then_some(())
    })
    .await;
    usage(server.pid()).0
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_over_twenty_thousand_frames_that_are_recorded() {
    const WARM: usize = 2_000;
    // Until then the store's page cache fills up.
    const SETTLED: usize = 10_000;
    const LONG: usize = 20_000;
    let server = Setup::bare().bundled().start().await;
    let start_kb = resident_kb(&server).await;
    let recording = recordings::cortex_counts(3_000);
    let open = v1::OpenRequest { record: Some(v1::Record::default()), ..ask(&recording, "cortex") };
    let mut rig = Streamer::open(&server.grpc, open).await.expect("a session");
    let mut frames = rows(&recording);
    let mut last_bin = None;
    rig.stream(frames.by_ref().take(WARM), |output| last_bin = Some(output.first_bin)).await;
    let warm_kb = resident_kb(&server).await;
    rig.stream(frames.by_ref().take(SETTLED), |output| last_bin = Some(output.first_bin)).await;
    let settled_kb = resident_kb(&server).await;
    rig.stream(frames.by_ref().take(LONG), |output| last_bin = Some(output.first_bin)).await;
    let end_kb = resident_kb(&server).await;
    assert_eq!(last_bin, Some((WARM + SETTLED + LONG - 1) as u64));
    let mb = |kb: u64| kb as f64 / 1024.0;
    println!(
        "resident: {:.1} MB at start, {:.1} MB after {WARM} frames, {:.1} MB after {SETTLED} more, \
         {:.1} MB after {LONG} more",
        mb(start_kb),
        mb(warm_kb),
        mb(settled_kb),
        mb(end_kb)
    );
    assert!(end_kb < settled_kb + GROWTH_KB, "it grew by {:.1} MB", mb(end_kb - settled_kb));
    assert!(end_kb < ASKED_KB, "{:.1} MB, asked {:.0} MB", mb(end_kb), mb(ASKED_KB));
    assert_eq!(rig.close().await.expect("a summary").bins, (WARM + SETTLED + LONG) as u64);
    server.stop().await;
}
