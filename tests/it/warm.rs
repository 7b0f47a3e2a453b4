//! Another version of a stage is warmed beside the running one before it takes over: from the call on it sees the same
//! bins, and the running one's answers are as if it were not there.

use latentd::domain::tensor::Dtype;
use latentd::graph::build::{Attribute, GraphBuilder};
use latentd::wire::v1;

use crate::support::models::Model;
use crate::support::{
    Answer, Latentd, Linear, Rig, Setup, bins, blocks, counts, flag_names, linear, models, pipeline,
    recorded, says, signal,
};
use crate::switch::{ROW, Two, one, switch, to, two, two_stages, versions};

#[track_caller]
fn at(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.message::<v1::SwitchReply>().at_bin
}

fn of(stage: &str, version: u32, at_bin: Option<u64>, state: &str) -> v1::SwitchRequest {
    v1::SwitchRequest { stage: stage.into(), ..to(version, at_bin, state) }
}

/// From which bin on which version of the last stage ran.
async fn segments(server: &Latentd, run: &str) -> Vec<(u64, Vec<u32>)> {
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    info.segments.iter().map(|segment| (segment.from_bin, versions(&segment.pinned))).collect()
}

/// The total that a decoder of that gain has before `to` if it saw the sums from bin `from` on, the encoder whole.
fn warmed(gain: f32, from: u64, to: u64) -> [f32; 2] {
    (from..to).fold([0.0; 2], |total, k| {
        let sum = ROW.map(|count| count * (k + 1) as f32);
        [total[0] + gain * sum[0], total[1] + gain * sum[1]]
    })
}

#[tokio::test]
async fn a_warmed_version_takes_over_with_what_it_made_of_the_bins_since_the_call() {
    let server = two_stages().start().await;
    let rig = server.open(two()).await;
    let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
    for seq in 0..3 {
        one(&rig, seq, &mut known).await;
    }
    assert_eq!(at(&switch(&server, rig.session(), to(2, Some(8), "warm")).await), 8);
    // Until then the version that ran is exact to the last bit, and goes on from where it was.
    for seq in 3..8 {
        assert!(one(&rig, seq, &mut known).await.is_empty());
    }
    (known.gain, known.total) = (10.0, warmed(10.0, 3, 8));
    assert_eq!(one(&rig, 8, &mut known).await, ["switched"]);
    assert!(one(&rig, 9, &mut known).await.is_empty());
    // Back, without a bin named: a second of bins later.
    assert_eq!(at(&switch(&server, rig.session(), to(1, None, "warm")).await), 110);
    for seq in 10..110 {
        assert!(one(&rig, seq, &mut known).await.is_empty());
    }
    (known.gain, known.total) = (1.0, warmed(1.0, 10, 110));
    assert_eq!(one(&rig, 110, &mut known).await, ["switched"]);
    // Before the very next bin there is nothing to warm it with, which the bin says.
    assert_eq!(at(&switch(&server, rig.session(), to(2, Some(111), "warm")).await), 111);
    (known.gain, known.total) = (10.0, [0.0; 2]);
    assert_eq!(one(&rig, 111, &mut known).await, ["reset", "switched"]);
    let run = rig.run().to_owned();
    rig.close().await;
    let told = [(0, vec![1, 1]), (8, vec![1, 2]), (110, vec![1, 1]), (111, vec![1, 2])];
    assert_eq!(segments(&server, &run).await, told);
    let events = server.events(&run, "switched").await;
    says(&events[0].detail, &["decoder", "version 2 from bin 8 on", "warm by 5 bins", "warm by 0 bins"]);
    server.stop().await;
}

#[tokio::test]
async fn what_a_warmed_version_has_does_not_depend_on_how_the_bins_came() {
    let server = two_stages().start().await;
    for cut in [1, 7, 40, 100] {
        let rig = server.open(two()).await;
        let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
        one(&rig, 0, &mut known).await;
        assert_eq!(at(&switch(&server, rig.session(), to(2, Some(35), "warm")).await), 35);
        let mut next = 1;
        while next < 70 {
            let n = cut.min(70 - next);
            let output = rig.send(counts(rig_seq(next, cut), next, &vec![ROW; n as usize])).await;
            assert_eq!(bins(&output), next..next + n);
            let (sums, totals) = (blocks::<2>(&output, 0), blocks::<2>(&output, 1));
            for (i, k) in (next..next + n).enumerate() {
                if k == 35 {
                    (known.gain, known.total) = (10.0, warmed(10.0, 1, 35));
                }
                assert_eq!((sums[i], totals[i]), known.step(), "bin {k}, {cut} a frame");
                let want: &[&str] = if k == 35 { &["switched"] } else { &[] };
                assert_eq!(flag_names(&output)[i], want, "bin {k}, {cut} a frame");
            }
            next += n;
        }
        rig.close().await;
    }
    server.stop().await;
}

/// The `seq` of the frame that begins with bin `next`, after one of bin 0 alone.
fn rig_seq(next: u64, cut: u64) -> u64 {
    1 + (next - 1) / cut
}

#[tokio::test]
async fn a_reset_while_it_is_warmed_is_one_of_the_warmed_version_too() {
    let server = two_stages().start().await;
    for scope in ["model", "all"] {
        let rig = server.open(two()).await;
        let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
        for seq in 0..2 {
            one(&rig, seq, &mut known).await;
        }
        assert_eq!(at(&switch(&server, rig.session(), to(2, Some(9), "warm")).await), 9);
        for seq in 2..5 {
            one(&rig, seq, &mut known).await;
        }
        assert_eq!(rig.reset(scope, Some(5)).await.expect("a reset"), 5);
        (known.sum, known.total) = ([0.0; 2], [0.0; 2]);
        assert_eq!(one(&rig, 5, &mut known).await, ["reset"], "{scope}");
        for seq in 6..9 {
            assert!(one(&rig, seq, &mut known).await.is_empty());
        }
        // Four bins of sums that began anew.
        (known.gain, known.total) = (10.0, warmed(10.0, 0, 4));
        assert_eq!(one(&rig, 9, &mut known).await, ["switched"], "{scope}");
        // One before its very bin leaves nothing of the warming.
        assert_eq!(at(&switch(&server, rig.session(), to(1, Some(12), "warm")).await), 12);
        assert_eq!(rig.reset(scope, Some(12)).await.expect("a reset"), 12);
        for seq in 10..12 {
            assert!(one(&rig, seq, &mut known).await.is_empty());
        }
        known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
        assert_eq!(one(&rig, 12, &mut known).await, ["reset", "switched"], "{scope}");
        rig.close().await;
    }
    server.stop().await;
}

/// As `sums(4.0)`, its outputs in another order.
fn fourfold() -> Vec<u8> {
    let dims = ["batch".into(), 2.into()];
    GraphBuilder::new("fourfold")
        .input("u", Dtype::F32, &dims)
        .input("v0", Dtype::F32, &dims)
        .f32("four", &[1], &[4.0])
        .node("Mul", &["u", "four"], &["more"])
        .node("Add", &["more", "v0"], &["v"])
        .node("Identity", &["v"], &["v_next"])
        .node("Neg", &["v"], &["other"])
        .output("other", Dtype::F32, &dims)
        .output("v_next", Dtype::F32, &dims)
        .output("v", Dtype::F32, &dims)
        .bytes()
}

#[tokio::test]
async fn several_versions_are_warmed_at_once_each_on_what_its_stage_has_before_it() {
    let server = two_stages().file("encoder/2/model.onnx", fourfold()).start().await;
    let ask = v1::OpenRequest { versions: [("decoder".into(), 1), ("encoder".into(), 1)].into(), ..two() };
    let rig = server.open(ask).await;
    let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
    for seq in 0..2 {
        one(&rig, seq, &mut known).await;
    }
    assert_eq!(at(&switch(&server, rig.session(), of("encoder", 2, Some(6), "warm")).await), 6);
    assert_eq!(at(&switch(&server, rig.session(), of("decoder", 2, Some(9), "warm")).await), 9);
    for seq in 2..4 {
        one(&rig, seq, &mut known).await;
    }
    assert_eq!(at(&switch(&server, rig.session(), of("decoder", 1, Some(12), "warm")).await), 12);
    // By bin: the sums that the decoder's versions have before them.
    let sum = |k: u64| match k {
        0..6 => ROW.map(|count| count * (k + 1) as f32),
        _ => ROW.map(|count| 4.0 * count * (k - 1) as f32),
    };
    let total = |gain: f32, from: u64, to: u64| {
        (from..=to)
            .map(sum)
            .fold([0.0; 2], |all: [f32; 2], sum| [all[0] + gain * sum[0], all[1] + gain * sum[1]])
    };
    for k in 4..15 {
        let output = rig.send(counts(k, k, &[ROW])).await;
        let want = match k {
            0..9 => total(1.0, 0, k),
            9..12 => total(10.0, 2, k),
            _ => total(1.0, 4, k),
        };
        assert_eq!((blocks::<2>(&output, 0), blocks::<2>(&output, 1)), (vec![sum(k)], vec![want]), "bin {k}");
        let want: &[&str] = if [6, 9, 12].contains(&k) { &["switched"] } else { &[] };
        assert_eq!(flag_names(&output), [want], "bin {k}");
    }
    let run = rig.run().to_owned();
    rig.close().await;
    let told = [(0, vec![1, 1]), (6, vec![2, 1]), (9, vec![2, 2]), (12, vec![2, 1])];
    assert_eq!(segments(&server, &run).await, told);
    server.stop().await;
}

#[tokio::test]
async fn one_asked_for_before_the_same_bin_takes_the_turn_of_one_that_is_warmed() {
    let server = two_stages().start().await;
    let rig = server.open(two()).await;
    let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
    one(&rig, 0, &mut known).await;
    assert_eq!(at(&switch(&server, rig.session(), to(2, Some(4), "warm")).await), 4);
    one(&rig, 1, &mut known).await;
    // Undone before it has begun: the running version keeps what it has.
    assert_eq!(at(&switch(&server, rig.session(), to(1, Some(4), "keep")).await), 4);
    for seq in 2..4 {
        assert!(one(&rig, seq, &mut known).await.is_empty());
    }
    assert_eq!(one(&rig, 4, &mut known).await, ["switched"]);
    assert!(one(&rig, 5, &mut known).await.is_empty());
    let run = rig.run().to_owned();
    rig.close().await;
    assert_eq!(segments(&server, &run).await, [(0, vec![1, 1]), (4, vec![1, 1])]);
    let events = server.events(&run, "switched").await;
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 1);
    says(&events[0].detail, &["version 2 does not take over before bin 4", "version 1 was asked for"]);
    server.stop().await;
}

/// As `linear`, with outputs of another kind: `v` = v0 + u, and `raw` = ln(u + 1), which is no number where u < -1.
fn touchy() -> Vec<u8> {
    let dims = ["batch".into(), 2.into()];
    GraphBuilder::new("touchy")
        .input("u", Dtype::F32, &dims)
        .input("v0", Dtype::F32, &dims)
        .node("Add", &["u", "v0"], &["v"])
        .node("Identity", &["v"], &["v_next"])
        .f32("one", &[1], &[1.0])
        .node("Add", &["u", "one"], &["more"])
        .node("Log", &["more"], &["vraw"])
        .output("v", Dtype::F32, &dims)
        .output("v_next", Dtype::F32, &dims)
        .output("vraw", Dtype::F32, &dims)
        .bytes()
}

async fn bin(rig: &Rig, k: u64, row: [f32; 2]) -> ([f32; 2], Vec<&'static str>) {
    let output = rig.send(counts(k, k, &[row])).await;
    assert_eq!(bins(&output), k..k + 1);
    (blocks::<2>(&output, 0)[0], flag_names(&output).remove(0))
}

#[tokio::test]
async fn a_version_that_fails_while_it_is_warmed_does_not_take_over_nor_do_those_that_were_to_follow_it() {
    let server = Setup::bare().model(models::linear()).file("linear/2/model.onnx", touchy()).start().await;
    let ask = v1::OpenRequest { versions: [("linear".into(), 1)].into(), ..recorded(linear()) };
    let rig = server.open(ask).await;
    let mut known = Linear::new();
    let step = async |known: &mut Linear, k: u64, row: [f32; 2]| {
        let (v, flags) = bin(&rig, k, row).await;
        assert_eq!(v, known.step(row), "bin {k}");
        flags
    };
    step(&mut known, 0, ROW).await;
    assert_eq!(at(&switch(&server, rig.session(), of("linear", 2, Some(6), "warm")).await), 6);
    assert_eq!(at(&switch(&server, rig.session(), of("linear", 1, Some(8), "keep")).await), 8);
    for k in 1..10 {
        let row = if k == 3 { [-2.0, 1.0] } else { ROW };
        assert!(step(&mut known, k, row).await.is_empty(), "bin {k}");
    }
    // Nothing stands in the way of another attempt.
    assert_eq!(at(&switch(&server, rig.session(), of("linear", 2, Some(12), "warm")).await), 12);
    for k in 10..12 {
        assert!(step(&mut known, k, ROW).await.is_empty());
    }
    assert_eq!(bin(&rig, 12, ROW).await, ([3.0, 6.0], vec!["switched"]));
    let run = rig.run().to_owned();
    rig.close().await;
    assert_eq!(segments(&server, &run).await, [(0, vec![1]), (12, vec![2])]);
    let events = server.events(&run, "switched").await;
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 1);
    let first =
        ["version 2 does not take over before bin 6", "state: warm", "in bin 3", "vraw", "not finite"];
    says(&events[0].detail, &first);
    server.stop().await;
}

#[tokio::test]
async fn a_bin_in_which_both_versions_fail_is_not_held_against_the_one_that_is_warmed() {
    let dims = ["batch".into(), 2.into()];
    let twice = GraphBuilder::new("twice")
        .input("u", Dtype::F32, &dims)
        .input("s0", Dtype::F32, &dims)
        .f32("two", &[1], &[2.0])
        .node("Mul", &["u", "two"], &["doubled"])
        .node("Add", &["doubled", "s0"], &["s"])
        .node("Identity", &["s"], &["s_next"])
        .f32("one", &[1], &[1.0])
        .node("Add", &["u", "one"], &["more"])
        .node("Log", &["more"], &["log"])
        .output("s", Dtype::F32, &dims)
        .output("log", Dtype::F32, &dims)
        .output("s_next", Dtype::F32, &dims)
        .bytes();
    let server = Setup::bare().model(models::fragile()).file("fragile/2/model.onnx", twice).start().await;
    let ask = pipeline("fragile", [signal("spikes", "binned", &["a", "b"])]);
    let rig = server.open(v1::OpenRequest { versions: [("fragile".into(), 1)].into(), ..ask }).await;
    bin(&rig, 0, ROW).await;
    assert_eq!(at(&switch(&server, rig.session(), of("fragile", 2, Some(5), "warm")).await), 5);
    assert_eq!(bin(&rig, 1, ROW).await, ([2.0, 4.0], vec![]));
    let (_, flags) = bin(&rig, 2, [-2.0, 0.0]).await;
    assert_eq!(flags, ["output_invalid"]);
    bin(&rig, 3, ROW).await;
    assert_eq!(bin(&rig, 4, ROW).await, ([4.0, 8.0], vec![]));
    // Bins 1, 3, 4 and 5, twice.
    assert_eq!(bin(&rig, 5, ROW).await, ([8.0, 16.0], vec!["switched"]));
    rig.close().await;
    server.stop().await;
}

/// `gain` times the mean over the last `size` bins.
fn mean(size: usize, gain: f32) -> Vec<u8> {
    GraphBuilder::new("mean")
        .input("x", Dtype::F32, &["batch".into(), size.into(), 2.into()])
        .i64("axis", &[1], &[1])
        .node_with("ReduceMean", &["x", "axis"], &["m"], [Attribute::int("keepdims", 0)])
        .f32("gain", &[1], &[gain])
        .node("Mul", &["m", "gain"], &["y"])
        .output("y", Dtype::F32, &["batch".into(), 2.into()])
        .bytes()
}

fn windowed(name: &'static str, size: usize) -> Model {
    let manifest = format!(
        "mode = \"window\"\n[window]\nsize_bins = {size}\nhop_bins = 1\n[[input]]\nname = \"spikes\"\ntensor = \"x\"\n\
         type = \"binned\"\nbin_ms = 10\nchannels_file = \"channels.csv\"\n\
         [[output]]\nname = \"mean\"\ntensor = \"y\"\nrole = \"latent\"\n"
    );
    Model { name, manifest, graph: mean(size, 1.0), files: vec![("channels.csv", "name\na\nb\n".into())] }
}

#[tokio::test]
async fn a_window_is_filled_while_its_version_is_warmed_and_one_that_is_not_full_says_so() {
    let server = Setup::bare()
        .model(windowed("four", 4))
        .file("four/2/model.onnx", mean(4, 2.0))
        .model(windowed("long", 150))
        .file("long/2/model.onnx", mean(150, 2.0))
        .start()
        .await;
    let ask = |name: &str, gap: &str| v1::OpenRequest {
        versions: [(name.into(), 1)].into(),
        gap: gap.into(),
        ..recorded(pipeline(name, [signal("spikes", "binned", &["a", "b"])]))
    };
    // A whole number of quarters in every mean.
    let row = |k: u64| [(k * k % 7) as f32, (3 * k % 5) as f32];
    let mean_of = |k: u64, gain: f32| {
        let sum = (k - 3..=k).map(row).fold([0.0; 2], |sum, row| [sum[0] + row[0], sum[1] + row[1]]);
        sum.map(|sum| gain * sum / 4.0)
    };
    let rig = server.open(ask("four", "skip")).await;
    for k in 0..6 {
        bin(&rig, k, row(k)).await;
    }
    assert_eq!(at(&switch(&server, rig.session(), of("four", 2, Some(12), "warm")).await), 12);
    for k in 6..12 {
        assert_eq!(bin(&rig, k, row(k)).await, (mean_of(k, 1.0), vec![]));
    }
    assert_eq!(bin(&rig, 12, row(12)).await, (mean_of(12, 2.0), vec!["switched"]));
    // Too short for a window: it goes on being filled.
    assert_eq!(at(&switch(&server, rig.session(), of("four", 1, Some(15), "warm")).await), 15);
    for k in 13..15 {
        assert_eq!(bin(&rig, k, row(k)).await, (mean_of(k, 2.0), vec![]));
    }
    let (value, flags) = bin(&rig, 15, row(15)).await;
    assert!(value.iter().all(|x| x.is_nan()) && flags == ["warming_up", "switched"], "{value:?} {flags:?}");
    assert_eq!(bin(&rig, 16, row(16)).await, (mean_of(16, 1.0), vec![]));
    // No window spans a gap, nor does that of a version that is warmed.
    assert_eq!(at(&switch(&server, rig.session(), of("four", 2, Some(23), "warm")).await), 23);
    for k in 17..19 {
        bin(&rig, k, row(k)).await;
    }
    let mut seq = 19;
    let skipping = async |seq: &mut u64, k: u64| {
        let output = rig.send(counts(*seq, k, &[row(k)])).await;
        *seq += 1;
        (output.skipped_bins, bins(&output), flag_names(&output), blocks::<2>(&output, 0))
    };
    let (skipped, of_bins, flags, _) = skipping(&mut seq, 21).await;
    assert_eq!((skipped, of_bins, flags), (2, 21..22, vec![vec!["warming_up"]]));
    skipping(&mut seq, 22).await;
    let (_, _, flags, value) = skipping(&mut seq, 23).await;
    assert!(value[0].iter().all(|x| x.is_nan()) && flags == [["warming_up", "switched"]], "{flags:?}");
    let (_, _, flags, value) = skipping(&mut seq, 24).await;
    assert_eq!((flags, value), (vec![vec![]], vec![mean_of(24, 2.0)]));
    // Its bin is skipped: the first that comes after it is the one, and the run says so.
    assert_eq!(at(&switch(&server, rig.session(), of("four", 1, Some(30), "warm")).await), 30);
    skipping(&mut seq, 32).await;
    let run = rig.run().to_owned();
    rig.close().await;
    let told = [(0, vec![1]), (12, vec![2]), (15, vec![1]), (23, vec![2]), (32, vec![1])];
    assert_eq!(segments(&server, &run).await, told);
    // Without a bin named: a second of bins, or the window where that is longer.
    for (name, want) in [("four", 100), ("long", 150)] {
        let rig = server.open(ask(name, "hold")).await;
        assert_eq!(at(&switch(&server, rig.session(), of(name, 2, None, "warm")).await), want);
        rig.close().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_session_that_closes_while_a_version_is_warmed_answers_what_came_and_lets_go_of_both() {
    let server = two_stages().start().await;
    let rig = server.open(two()).await;
    let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
    one(&rig, 0, &mut known).await;
    for (at_bin, version) in (20..).zip([2, 1, 2]) {
        assert_eq!(at(&switch(&server, rig.session(), to(version, Some(at_bin), "warm")).await), at_bin);
    }
    for seq in 1..5 {
        one(&rig, seq, &mut known).await;
    }
    let run = rig.run().to_owned();
    assert_eq!(rig.close().await.bins, 5);
    assert_eq!(segments(&server, &run).await, [(0, vec![1, 1])]);
    assert!(server.events(&run, "switched").await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_version_that_is_warmed_takes_over_though_it_was_unloaded_and_removed_meanwhile() {
    let server = two_stages().start().await;
    let rig = server.open(two()).await;
    let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
    one(&rig, 0, &mut known).await;
    assert_eq!(at(&switch(&server, rig.session(), to(2, Some(5), "warm")).await), 5);
    one(&rig, 1, &mut known).await;
    server.post("/v1/models/decoder/unload", r#"{"version": 2}"#).await;
    std::fs::remove_dir_all(server.setup.models().join("decoder/2")).expect("it was there");
    for seq in 2..5 {
        one(&rig, seq, &mut known).await;
    }
    (known.gain, known.total) = (10.0, warmed(10.0, 1, 5));
    assert_eq!(one(&rig, 5, &mut known).await, ["switched"]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_sessions_are_warm_switched_at_once_as_fast_as_they_go_and_each_is_exact() {
    const EVERY: u64 = 12;
    let server = two_stages().key("workers", 2).key("load_limit", 1).start().await;
    let server = std::sync::Arc::new(server);
    let rigs = (0..16u64).map(|number| {
        let server = std::sync::Arc::clone(&server);
        tokio::spawn(async move {
            let rig = server.open(two()).await;
            let mut known = Two { sum: [0.0; 2], total: [0.0; 2], gain: 1.0 };
            let (mut seq, mut next) = (0, [2, 1].into_iter().cycle());
            // Each begins elsewhere, so that lanes have rows of those that run and of those that are warmed.
            for _ in 0..number {
                one(&rig, seq, &mut known).await;
                seq += 1;
            }
            for version in next.by_ref().take(8) {
                let (from, to_bin) = (seq, seq + EVERY);
                let asked = switch(&server, rig.session(), to(version, Some(to_bin), "warm")).await;
                assert_eq!(at(&asked), to_bin);
                while seq < to_bin {
                    assert!(one(&rig, seq, &mut known).await.is_empty(), "rig {number}, bin {seq}");
                    seq += 1;
                }
                known.gain = if version == 2 { 10.0 } else { 1.0 };
                known.total = warmed(known.gain, from, to_bin);
                assert_eq!(one(&rig, seq, &mut known).await, ["switched"], "rig {number}");
                seq += 1;
            }
            let run = rig.run().to_owned();
            assert_eq!(rig.close().await.bins, seq);
            assert_eq!(segments(&server, &run).await.len(), 9, "rig {number}");
        })
    });
    for rig in rigs.collect::<Vec<_>>() {
        rig.await.expect("a rig is served");
    }
    std::sync::Arc::into_inner(server).expect("all rigs have gone").stop().await;
}
