//! Stamps of 19 digits, which f64 cannot hold, on every road: HTTP JSON, gRPC, events, and the recorded run.

use std::io::Cursor;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt64Type};
use arrow_ipc::reader::StreamReader;
use latentd::wire::v1;
use prost::Message as _;

use crate::library;
use crate::support::stream::Line;
use crate::support::{LIMIT, Latentd, Rig, Setup, binned, block, pipeline, signal, spikes, until};

/// A start that is odd, and far beyond 2^53.
const T0_NS: i64 = 1_795_621_286_661_653_697;
/// Width of the receptor's bins.
const BIN_NS: i64 = 2_000_000;

/// An open of the receptor's decoder, recorded, from `t0_ns` on.
fn receptor(t0_ns: i64) -> v1::OpenRequest {
    v1::OpenRequest {
        t0_ns: Some(t0_ns),
        record: Some(v1::Record::default()),
        ..pipeline("receptor-envelope", [signal("spikes", "spike_events", &["receptor"])])
    }
}

/// Spikes on both sides of edges of bins, a nanosecond from each other, in one frame of 10 bins.
fn edges(t0_ns: i64) -> v1::Frame {
    let around = |bin: i64| [bin * BIN_NS - 1, bin * BIN_NS, bin * BIN_NS + 1];
    let events: Vec<(u32, i64)> =
        [1, 2, 5, 9].into_iter().flat_map(around).map(|after_ns| (0, t0_ns + after_ns)).collect();
    spikes("spikes", 0, t0_ns, 10 * BIN_NS, &events)
}

/// Whether the library holds `part` in the frames of a run.
fn is_recorded(server: &Latentd, run: &str, part: &v1::Frame) -> bool {
    let part: String = part.encode_to_vec().iter().map(|byte| format!("{byte:02X}")).collect();
    let chunks =
        library::sql(&server.setup, &format!("SELECT hex(bytes) FROM frame_chunk WHERE run = '{run}'"));
    chunks.iter().any(|chunk| chunk[0].contains(&part))
}

/// Waits until all that was recorded is in the library.
async fn moved(server: &Latentd) {
    until(crate::support::LIMIT, "the journal is moved", || async {
        (library::count(&server.setup, "SELECT count(*) FROM journal") == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spikes_a_nanosecond_apart_fall_into_their_bins_by_every_road_and_are_recorded_as_they_were() {
    let server = Setup::bare().bundled().start().await;
    let near_zero = server.open(receptor(0)).await;
    let want = block(&near_zero.send(edges(0)).await, 0);
    near_zero.close().await;
    assert!(want.windows(2).any(|pair| pair[0] != pair[1]), "bins with and without spikes differ");

    let by_http: Rig = server.open(receptor(T0_NS)).await;
    let mut by_grpc: Line = server.line(receptor(T0_NS)).await;
    for opened in [&by_http.opened, &by_grpc.opened] {
        assert_eq!(opened.resolved.as_ref().and_then(|open| open.t0_ns), Some(T0_NS));
    }
    let output = by_http.send(edges(T0_NS)).await;
    assert_eq!((output.first_bin, block(&output, 0)), (0, want.clone()), "HTTP");
    let output = by_grpc.send(edges(T0_NS)).await;
    assert_eq!((output.first_bin, block(&output, 0)), (0, want), "gRPC");

    let runs = [by_http.run(), by_grpc.opened.run.as_deref().expect("a run")].map(str::to_owned);
    by_http.close().await;
    assert_eq!(by_grpc.end().await, []);
    let mut live = server.live().await;
    let session = server.get(&format!("/v1/runs/{}", runs[1])).await.message::<v1::RunInfo>().session;
    live.close(v1::CloseRequest { session }).await.expect("the session is closed");
    moved(&server).await;
    for run in &runs {
        let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
        assert_eq!(info.resolved.and_then(|open| open.t0_ns), Some(T0_NS));
        let sent = edges(T0_NS);
        let stamps = v1::Frame { t_ns: sent.t_ns, ..Default::default() };
        assert!(is_recorded(&server, run, &stamps), "run {run}: the spikes' times");
        let start = v1::Frame { t_start_ns: sent.t_start_ns, ..Default::default() };
        assert!(is_recorded(&server, run, &start), "run {run}: the frame's start");

        let answer = server.get(&format!("/v1/runs/{run}/outputs/envelope?format=arrow")).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let batches = StreamReader::try_new(Cursor::new(answer.body), None).expect("Arrow IPC");
        let mut ends = Vec::new();
        for batch in batches {
            let batch = batch.expect("a batch");
            let column = |name: &str| batch.column_by_name(name).expect("a column");
            let bins = column("bin").as_primitive::<UInt64Type>().values().iter().copied();
            ends.extend(bins.zip(column("t_ns").as_primitive::<Int64Type>().values().iter().copied()));
        }
        let want: Vec<(u64, i64)> = (0..10).map(|bin| (bin, T0_NS + (bin as i64 + 1) * BIN_NS)).collect();
        assert_eq!(ends, want, "run {run}: the ends of bins");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_that_disagrees_is_named_to_the_nanosecond_in_notice_and_event() {
    let server = Latentd::start().await;
    let open = v1::OpenRequest {
        t0_ns: Some(T0_NS),
        record: Some(v1::Record::default()),
        ..pipeline("linear", [signal("spikes", "binned", &["a", "b"])])
    };
    let mut line = server.line(open).await;
    let stamped = |seq: u64, t_ns: i64| v1::Frame {
        t_device_ns: Some(t_ns),
        ..binned("spikes", seq, seq, &[[1.0, 2.0]])
    };
    line.send(stamped(0, T0_NS)).await;
    // Index 1 starts 10 ms after t0; this stamp says 100 ms and one nanosecond.
    let (by_index, stamp) = (T0_NS + 10_000_000, T0_NS + 100_000_001);
    line.send(stamped(1, stamp)).await;
    line.send(stamped(2, T0_NS + 20_000_000)).await;
    let notice = line.notices.iter().find(|notice| notice.kind == "clock_disagrees").expect("a notice");
    let run = line.opened.run.clone().expect("a run");
    let event = until(LIMIT, "the event is in the journal", || async {
        server.events(&run, "clock_disagrees").await.into_iter().next()
    })
    .await;
    for detail in [&notice.detail, &event.detail] {
        assert!(detail.contains(&stamp.to_string()) && detail.contains(&by_index.to_string()), "{detail}");
    }
    assert_eq!(event.first_ns, notice.t_ns);
    line.end().await;
    let setup = server.stop().await;
    let server = setup.start().await;
    let sent = v1::Frame { t_device_ns: Some(stamp), ..Default::default() };
    assert!(is_recorded(&server, &run, &sent), "the stamp as it was sent");
    server.stop().await;
}
