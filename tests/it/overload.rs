//! More sessions than there is room for: refused at the door, with a hint, while those inside stay on time.

use latentd::cli::replay::player::{PlayError, PlayOptions, Shown, connect, play};
use latentd::cli::replay::report::PlayReport;
use tokio::task::JoinHandle;

use crate::recordings;
use crate::rig::ask;
use crate::support::stream::carried;
use crate::support::{LIMIT, Latentd, Rig, Setup, until};

/// Bins that a rig inside streams in real time: 3 s.
const BINS: i64 = 150;
/// What a rig inside asks for; generous, since a machine that builds and tests beside it stands still for half a second.
const DEADLINE_MS: f64 = 5_000.0;

type Inside = JoinHandle<Result<PlayReport, PlayError>>;

/// Rigs that stream in real time, once all of them are inside.
async fn inside(server: &Latentd, rigs: u64) -> Vec<Inside> {
    let start = |seed| {
        let mut options = PlayOptions::new(&server.grpc, "cortex").recorded();
        options.open.deadline_ms = Some(DEADLINE_MS);
        tokio::spawn(async move { play(&recordings::noise(BINS, seed), &options).await })
    };
    let started: Vec<Inside> = (1..=rigs).map(start).collect();
    until(LIMIT, "rigs inside", || async {
        (server.metric("latentd_sessions", "state=\"open\"").await >= rigs as f64).then_some(())
    })
    .await;
    started
}

/// Knocks by HTTP and gRPC until the rigs inside are done, and asserts how it is refused. Sessions that are let in stay
/// in `let_in`. How often it was refused.
async fn knock(server: &Latentd, inside: &[Inside], sentence: &str, let_in: &mut Vec<Rig>) -> u64 {
    let open = ask(&recordings::cortex_counts(1), "cortex");
    let mut live = connect(&server.grpc, Shown::default()).await.expect("gRPC connects");
    let mut refusals = 0;
    while inside.iter().any(|rig| !rig.is_finished()) {
        let refused = match server.try_open(open.clone()).await {
            Ok(rig) => {
                let_in.push(rig);
                continue;
            }
            Err(refused) => refused,
        };
        let fault = refused.is(429, "overloaded", &[sentence]);
        let after_s: f64 = refused.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
        let after_ms = fault.retry_after_ms.expect("a hint");
        assert!(after_ms > 0.0 && after_s >= 1.0 && after_s * 1e3 >= after_ms, "{after_ms} ms, {after_s} s");
        let status = match live.open(open.clone()).await {
            Ok(opened) => {
                let_in.push(Rig::new(server, opened.into_inner()));
                continue;
            }
            Err(status) => status,
        };
        let fault = carried(&status, tonic::Code::ResourceExhausted, "overloaded");
        assert!(
            fault.retry_after_ms.is_some_and(|ms| ms > 0.0) && fault.detail.contains(sentence),
            "{fault:?}"
        );
        refusals += 2;
    }
    refusals
}

/// Every bin of every rig inside was answered on time.
async fn assert_on_time(inside: Vec<Inside>) {
    for rig in inside {
        let report = rig.await.expect("a rig ends").expect("a rig inside is served");
        assert_eq!(report.answers.answered(), BINS as usize);
        assert_eq!(
            (report.closed.gaps, report.closed.deadline_missed),
            (0, 0),
            "{:?}",
            report.server_lag_us()
        );
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        let lag = report.server_lag_us();
        println!("a rig inside: lag p50 {:.1} ms, p99 {:.1} ms", lag.p50 / 1e3, lag.p99 / 1e3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_max_sessions_one_more_is_refused_with_a_hint_and_those_inside_stay_on_time() {
    let server = Setup::bare().bundled().key("max_sessions", 3).start().await;
    let rigs = inside(&server, 3).await;
    let mut let_in = Vec::new();
    let refusals = knock(&server, &rigs, "max_sessions", &mut let_in).await;
    assert!(refusals > 10, "{refusals} refusals in 3 s");
    assert_on_time(rigs).await;
    // A rig closes before it is done, so that the last knocks may be let in.
    for rig in let_in {
        rig.close().await;
    }
    assert!(server.metric("latentd_rejected_total", "reason=\"overloaded\"").await >= refusals as f64);
    server.open(ask(&recordings::cortex_counts(1), "cortex")).await.close().await;
    println!("{refusals} opens refused at max_sessions");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_load_limit_one_more_is_refused_with_a_hint_and_those_inside_stay_on_time() {
    let server = Setup::bare().bundled().key("load_limit", 0.02).key("workers", 1).start().await;
    let rigs = inside(&server, 1).await;
    let mut let_in = Vec::new();
    let refusals = knock(&server, &rigs, "load_limit", &mut let_in).await;
    assert!(refusals > 10, "{refusals} refusals in 3 s");
    assert_on_time(rigs).await;
    println!("{refusals} opens refused at load_limit, {} let in beside the rig", let_in.len());
    for rig in let_in {
        rig.close().await;
    }
    server.open(ask(&recordings::cortex_counts(1), "cortex")).await.close().await;
    server.stop().await;
}
