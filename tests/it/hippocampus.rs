//! A rat's hippocampus on a linear track as spike events that arrive jittered: what is binned is what is counted.

use std::collections::BTreeMap;

use crate::recordings::{self, Random};
use crate::support::{Setup, block, models, recorded};
use latentd::cli::replay;
use latentd::domain::tensor::Dtype;
use latentd::graph::build::GraphBuilder;
use latentd::wire::recording::{Data, Recording};
use latentd::wire::v1;

const BIN_NS: i64 = 20_000_000;
const LATENESS_NS: i64 = 50_000_000;
/// As much of the recording as is played.
const PLAYED_NS: i64 = 400_000_000_000;

/// A model that answers its input: counts of these units in bins of 20 ms.
fn counts_of(names: &[&str]) -> models::Model {
    let dims = ["batch".into(), names.len().into()];
    let graph = GraphBuilder::new("counted")
        .input("u", Dtype::F32, &dims)
        .node("Identity", &["u"], &["counts"])
        .output("counts", Dtype::F32, &dims)
        .bytes();
    let manifest = r#"
[[input]]
name = "spikes"
tensor = "u"
type = "spike_events"
bin_ms = 20
channels_file = "channels.csv"
[[output]]
name = "counts"
tensor = "counts"
role = "latent"
"#;
    let files = vec![("channels.csv", format!("name\n{}\n", names.join("\n")))];
    models::Model { name: "counted", manifest: manifest.into(), graph, files }
}

/// Spikes of the recording's file, read by hand: `(unit, ns)`.
fn by_hand(folder: &std::path::Path) -> Vec<(u32, i64)> {
    let text = std::fs::read_to_string(folder.join("spikes.csv")).expect("the spikes");
    let spike = |line: &str| {
        let (unit, time_s) = line.split_once(',').expect("two columns");
        let ns = (time_s.parse::<f64>().expect("seconds") * 1e9).round() as i64;
        (unit.parse().expect("a unit"), ns)
    };
    text.lines().skip(1).map(spike).filter(|(_, ns)| *ns < PLAYED_NS).collect()
}

/// Frames of any length below 30 ms that cover the recording, each sent as late as `lateness_ns` lets it: events and
/// frames out of order.
fn jittered(recording: &Recording, lateness_ns: i64, random: &mut Random) -> Vec<v1::Frame> {
    let Data::Spikes { unit, t_ns } = &recording.signals[0].data else { panic!("no spikes") };
    let mut stretches = Vec::new();
    let mut from = 0;
    while from < PLAYED_NS {
        let to = (from + 1 + random.below(30_000_000) as i64).min(PLAYED_NS);
        // It comes when the stream has gone on beyond its end, and by no more than that beyond its beginning.
        let by = random.below((lateness_ns - (to - from)) as u64 + 1) as i64;
        stretches.push((to + by, from, to));
        from = to;
    }
    stretches.sort_unstable();
    (0..)
        .zip(stretches)
        .map(|(seq, (_, from, to))| {
            let inside = t_ns.partition_point(|t| *t < from)..t_ns.partition_point(|t| *t < to);
            let mut events: Vec<(u32, i64)> =
                unit[inside.clone()].iter().copied().zip(t_ns[inside].iter().copied()).collect();
            random.shuffle(&mut events);
            crate::support::spikes("spikes", seq, from, to - from, &events)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn spikes_in_frames_out_of_order_within_50_ms_are_binned_as_they_are_counted() {
    let Some(folder) = recordings::third_party("hc_linear_track") else { return };
    let recording = recordings::of(&replay::open(&folder).expect("the recording is read"), &["spikes"]);
    assert_eq!(recording.t0_ns, 0);
    let spec = recording.signals[0].spec.clone();
    let names: Vec<&str> = spec.channels.iter().map(|channel| channel.name.as_str()).collect();
    let spikes = by_hand(&folder);
    let mut counted: BTreeMap<(u64, u32), f32> = BTreeMap::new();
    for (unit, ns) in &spikes {
        *counted.entry(((ns / BIN_NS) as u64, *unit)).or_default() += 1.0;
    }

    // The model has its units the other way round.
    let reversed: Vec<&str> = names.iter().rev().copied().collect();
    let server = Setup::bare().model(counts_of(&reversed)).start().await;
    for (late, lateness_ms, is_in_time) in [("drop", 50.0, true), ("next", 50.0, true), ("next", 20.0, false)]
    {
        let frames = jittered(&recording, LATENESS_NS, &mut Random::of(50));
        let sent = frames.len() as u64;
        let ask = recorded(v1::OpenRequest {
            pipeline: "counted".into(),
            rig: "it".into(),
            signals: vec![spec.clone()],
            t0_ns: Some(0),
            late: late.into(),
            lateness_ms,
            deadline_ms: Some(60_000.0),
            ..Default::default()
        });
        let mut rig = crate::rig::Streamer::open(&server.grpc, ask).await.expect("a session");
        rig.stream(frames, |_| {}).await;
        assert!(rig.account.is_answered_in_order() && rig.account.refused.is_empty());
        assert_eq!(rig.account.answered.len() as u64, sent);
        let mut binned: BTreeMap<(u64, u32), f32> = BTreeMap::new();
        let mut next = 0;
        for output in rig.account.answered.values().filter(|output| output.n > 0) {
            assert_eq!((output.first_bin, output.skipped_bins), (next, 0));
            for (k, row) in (next..).zip(block(output, 0).chunks_exact(names.len())) {
                let there = (0..).zip(row.iter().rev()).filter(|(_, count)| **count != 0.0);
                binned.extend(there.map(|(unit, count)| ((k, unit), *count)));
            }
            next += u64::from(output.n);
        }
        // What `lateness_ms` still holds open at the end is answered to nobody.
        let closed = rig.close().await.expect("a close");
        let open_from = (PLAYED_NS - (lateness_ms * 1e6) as i64) / BIN_NS;
        assert_eq!((closed.bins, next), (open_from as u64, open_from as u64));
        let is_closed = |(k, _): &(u64, u32)| *k < next;
        let total = |counts: &BTreeMap<(u64, u32), f32>| counts.values().sum::<f32>();
        if is_in_time {
            let want: BTreeMap<_, _> = counted.clone().into_iter().filter(|(at, _)| is_closed(at)).collect();
            assert_eq!(binned, want, "{late}");
            assert_eq!((closed.gaps, closed.late, closed.dropped), (0, 0, 0), "{late}");
            println!("{} of {} spikes in {next} bins, {sent} frames", total(&binned), spikes.len());
        } else {
            assert!(closed.late > 100 && closed.gaps > 0, "{closed:?}");
        }
    }
    server.stop().await;
}
