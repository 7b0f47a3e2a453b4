//! Chains over sampled signals: cuts, gaps, epochs, resets, forks; rates; what is reported.

use proptest::prelude::*;

use crate::domain::output::{EventKind, Flags};
use crate::domain::settings::{GapPolicy, ResetScope};
use crate::domain::signal::{Channel, SignalSpec, SignalType};
use crate::domain::time::Rate;
use crate::signal::aligner::Aligner;
use crate::signal::input::InputChannels;
use crate::signal::op::{BandKind, Init};
use crate::signal::ops::design::Design;
use crate::signal::ops::filter::Filter;
use crate::signal::plan::Plan;
use crate::signal::step::{Bin, Step};
use crate::signal::testing::*;

/// Samples per second, and in one of the tests' bins of 20 ms.
const RATE: u32 = 1000;
const PER_BIN: usize = 20;
const CHANNELS: usize = 3;

const CHAINS: [&str; 7] = [
    r#"[{"op": "reference", "kind": "common_median"}, {"op": "butterworth", "kind": "band", "low_hz": 8, "high_hz": 90},
        {"op": "notch", "hz": 50, "harmonics": 3}, {"op": "bin", "reduce": "last"}]"#,
    r#"[{"op": "butterworth", "kind": "high", "low_hz": 2, "order": 3, "init": "zero"}, {"op": "decimate", "factor": 3},
        {"op": "zscore", "mode": "running", "tau_s": 0.5}]"#,
    r#"[{"op": "decimate", "factor": 5, "order": 4}, {"op": "bin", "reduce": "all"}]"#,
    r#"[{"op": "threshold_crossings", "low_hz": 100, "high_hz": 400, "times": -2, "of": "median", "calibrate_s": 0.11}]"#,
    r#"[{"op": "decimate", "factor": 2}, {"op": "threshold_crossings", "low_hz": 50, "high_hz": 200, "order": 2, "times": 1.5,
        "calibrate_s": 0.05, "refractory_ms": 4}, {"op": "smooth", "kernel": "exponential", "tau_ms": 60}]"#,
    r#"[{"op": "reference", "kind": "bipolar", "pairs": [["a", "b"], ["c", "a"]]},
        {"op": "band_power", "bands": [[10, 50], [60, 200]], "window_ms": 70}, {"op": "zscore", "mode": "running", "tau_s": 0}]"#,
    r#"[{"op": "smooth", "kernel": "half_gaussian", "sigma_ms": 3}, {"op": "butterworth", "kind": "stop", "low_hz": 40, "high_hz": 60,
        "order": 2}, {"op": "zscore", "mode": "calibration", "seconds": 0.1}, {"op": "bin"}, {"op": "butterworth", "kind": "low", "high_hz": 5}]"#,
];

fn continuous() -> SignalSpec {
    let rate = Rate::new(RATE, 1);
    SignalSpec { kind: SignalType::Continuous, rate, bin_ms: None, ..binned_signal(&["a", "b", "c"]) }
}

fn planned(chain: &str, change: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = plan(vec![continuous()]);
    plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap();
    change(&mut plan);
    plan
}

fn rig(chain: &str) -> Rig {
    Rig::of(planned(chain, |_| {}))
}

/// `n` samples of noise with an offset, `[n, CHANNELS]`.
fn noise(n: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 1e6 - 8.0
    };
    (0..n * CHANNELS).map(|i| next() + [300.0, -40.0, 0.5][i % CHANNELS]).collect()
}

/// Pushes samples `from..to` of `values`, their index moved by `ahead`.
fn push(rig: &mut Rig, values: &[f32], from: usize, to: usize, ahead: u64) {
    rig.push(rows(from as u64 + ahead, CHANNELS, &values[from * CHANNELS..to * CHANNELS]));
}

/// Bins alone; notices may be cut as frames are.
fn bins(rig: Rig) -> Vec<Bin> {
    rig.out.into_iter().filter_map(|step| if let Step::Bin(bin) = step { Some(bin) } else { None }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn where_a_sampled_stream_is_cut_into_frames_changes_no_bit(
        chain in prop::sample::select(CHAINS.to_vec()), lengths in prop::collection::vec(1usize..70, 1..60),
        missing in prop::collection::vec((0usize..400, 0..CHANNELS), 0..9), lost in prop::option::of((30usize..300, 1usize..50)),
        gap in prop::sample::select(vec![GapPolicy::Hold, GapPolicy::Zero, GapPolicy::Skip, GapPolicy::Reset]),
    ) {
        let mut values = noise(400);
        missing.iter().for_each(|(t, c)| values[t * CHANNELS + c] = f32::NAN);
        let stream = |lengths: &mut dyn Iterator<Item = usize>| {
            let mut rig = Rig::of(planned(chain, |plan| plan.policies.gap = gap));
            let (lost_from, lost_to) = lost.map_or((400, 400), |(from, n)| (from, from + n));
            let mut from = 0;
            while from < 400 {
                let to = (from + lengths.next().unwrap_or(400)).min(400);
                // What is lost is lost however the rest is cut.
                for (a, b) in [(from, to.min(lost_from)), (from.max(lost_to), to)] {
                    if a < b {
                        push(&mut rig, &values, a, b, 0);
                    }
                }
                from = to;
            }
            bins(rig)
        };
        let cut = stream(&mut lengths.iter().copied().cycle());
        prop_assert!(cut.len() > 10);
        prop_assert_eq!(cut, stream(&mut std::iter::empty()));
    }

    #[test]
    fn a_fork_of_a_sampled_stream_goes_on_as_the_stream_does(
        chain in prop::sample::select(CHAINS.to_vec()), at in 1usize..399,
    ) {
        let values = noise(400);
        let mut rig = rig(chain);
        push(&mut rig, &values, 0, at, 0);
        let mut fork = rig.clone();
        push(&mut rig, &values, at, 400, 0);
        for i in at..400 {
            push(&mut fork, &values, i, i + 1, 0);
        }
        prop_assert_eq!(bins(rig), bins(fork));
    }
}

#[test]
fn a_reset_of_everything_leaves_nothing_of_what_came_before() {
    let values = noise(400);
    for chain in CHAINS {
        let (mut old, mut fresh) = (rig(chain), rig(chain));
        push(&mut old, &values, 0, 200, 0);
        old.reset(ResetScope::All, None);
        push(&mut old, &values, 200, 400, 0);
        push(&mut fresh, &values, 200, 400, 0);
        let (old, fresh) = (bins(old), bins(fresh));
        for (old, fresh) in old[10..].iter().zip(&fresh) {
            assert_eq!(old.inputs, fresh.inputs, "bin {} of {chain}", old.k);
        }
    }
}

#[test]
fn an_epoch_starts_filters_and_windows_anew_and_keeps_statistics() {
    let values = noise(400);
    for (chain, is_fresh) in CHAINS.iter().zip([true, false, true, false, false, false, false]) {
        let (mut old, mut fresh) = (rig(chain), rig(chain));
        push(&mut old, &values, 0, 200, 0);
        let mut again = rows(0, CHANNELS, &values[200 * CHANNELS..]);
        again.epoch = true;
        old.push(again);
        push(&mut fresh, &values, 200, 400, 0);
        let (old, fresh) = (bins(old), bins(fresh));
        assert!(old[10].epoch && old.len() == 20);
        let same = old[10..].iter().zip(&fresh).all(|(old, fresh)| old.inputs == fresh.inputs);
        assert_eq!(same, is_fresh, "{chain}");
    }
    let mut rig = rig(CHAINS[3]);
    push(&mut rig, &values, 0, 200, 0);
    let before = rig.aligner.thresholds(0).to_vec();
    assert!(before.iter().all(|threshold| *threshold < 0.0), "{before:?}");
    let mut again = rows(0, CHANNELS, &values[200 * CHANNELS..]);
    again.epoch = true;
    rig.push(again);
    assert_eq!(rig.aligner.thresholds(0), before);
    assert!(!rig.bin(19).flags.has(Flags::WARMING_UP), "the calibration is over for good");
}

#[test]
fn samples_that_never_came_enter_no_filter_and_the_bins_that_they_touch_are_filled_as_a_whole() {
    let values = noise(400);
    let chain = r#"[{"op": "butterworth", "kind": "band", "low_hz": 8, "high_hz": 90}]"#;
    let (mut gapped, mut joined) = (rig(chain), rig(chain));
    push(&mut gapped, &values, 0, 90, 0);
    push(&mut gapped, &values, 90, 400, 60); // 90..150 never came: bins 4 to 7
    push(&mut joined, &values, 0, 400, 0);
    let held = gapped.bin(3).inputs.clone();
    for k in 4..8 {
        assert!(gapped.bin(k).flags.has(Flags::GAP_FILLED), "bin {k}");
        assert_eq!(gapped.bin(k).inputs, held);
    }
    // Samples that came in the bins that are filled were seen: from bin 8 on the filter is where it would have been.
    for k in 8..20 {
        assert!(!gapped.bin(k).flags.has(Flags::GAP_FILLED));
        assert_eq!(gapped.bin(k).inputs, joined.bin(k - 3).inputs, "bin {k}");
    }
}

#[test]
fn every_reduce_of_a_bin_is_what_it_says() {
    let values = noise(40);
    let of = |reduce: &str| {
        let mut rig = rig(&format!(r#"[{{"op": "bin", "reduce": "{reduce}"}}]"#));
        push(&mut rig, &values, 0, 40, 0);
        rig.bin(1).inputs[0].values.clone()
    };
    let second = &values[PER_BIN * CHANNELS..];
    let sum = |c: usize| second.iter().skip(c).step_by(CHANNELS).map(|x| f64::from(*x)).sum::<f64>();
    for c in 0..CHANNELS {
        assert_eq!(of("sum")[c], sum(c) as f32);
        assert_eq!(of("mean")[c], (sum(c) / PER_BIN as f64) as f32);
    }
    assert_eq!(of("last"), second[(PER_BIN - 1) * CHANNELS..]);
    assert_eq!(of("all"), second);
    let mut implied = rig("[]");
    push(&mut implied, &values, 0, 40, 0);
    assert_eq!(implied.bin(1).inputs[0].values, of("mean"));
}

#[test]
fn a_channel_that_a_frame_masks_is_in_no_reference_and_starts_its_filter_when_it_is_good() {
    let values = noise(120);
    let chain = r#"[{"op": "reference", "kind": "common_average"}, {"op": "butterworth", "kind": "high", "low_hz": 10}]"#;
    let mut rig = rig(chain);
    let mut wild = values.clone();
    wild.iter_mut().skip(1).step_by(CHANNELS).take(60).for_each(|x| *x = 1e9);
    let mut first = rows(0, CHANNELS, &wild[..60 * CHANNELS]);
    first.mask = Some(vec![true, false, true]);
    rig.push(first);
    let mut rest = rows(60, CHANNELS, &wild[60 * CHANNELS..]);
    rest.mask = Some(vec![true; 3]);
    rig.push(rest);
    let row = &rig.bin(2).inputs[0];
    assert_eq!(row.mask, [true, false, true]);
    assert!(row.values.iter().all(|x| x.abs() < 100.0), "{row:?}");
    assert!(rig.bin(2).flags.has(Flags::MASKED) && !rig.bin(5).flags.has(Flags::MASKED));
    assert!(rig.bin(5).inputs[0].values.iter().all(|x| x.abs() < 200.0), "{:?}", rig.bin(5));
}

#[test]
fn a_window_that_is_not_full_gives_the_fill_and_warming_up_and_masks_nothing() {
    let mut rig = rig(r#"[{"op": "band_power", "bands": [[10, 50]], "window_ms": 45, "scale": "linear"}]"#);
    push(&mut rig, &noise(80), 0, 80, 0);
    let flags: Vec<Flags> = rig.bins().iter().map(|bin| bin.flags).collect();
    assert_eq!(flags, [Flags::WARMING_UP, Flags::WARMING_UP, Flags::default(), Flags::default()]);
    assert_eq!(rig.bin(0).inputs[0].values, [0.0; 3]);
    assert_eq!(rig.bin(0).inputs[0].mask, [false; 3]);
    assert!(rig.bin(2).inputs[0].values.iter().all(|power| *power > 0.0));
}

#[test]
fn bins_are_warming_up_until_every_filter_has_settled() {
    for (chain, samples) in [
        // |p|^n <= 0.01: a pole at (1 - tan(pi/40)) / (1 + tan(pi/40)) = 0.854 takes 30 samples.
        (r#"[{"op": "butterworth", "kind": "low", "high_hz": 25, "order": 1}]"#, 30),
        (
            r#"[{"op": "butterworth", "kind": "low", "high_hz": 25, "order": 1, "init": "zero"}, {"op": "bin", "reduce": "last"}]"#,
            30,
        ),
    ] {
        let mut rig = rig(chain);
        push(&mut rig, &noise(200), 0, 200, 0);
        let warm = rig.bins().iter().filter(|bin| bin.flags.has(Flags::WARMING_UP)).count();
        assert_eq!(warm, usize::div_ceil(samples, PER_BIN), "{chain}");
    }
}

#[test]
fn thresholds_are_frozen_with_an_event_that_shows_them_and_flat_channels_have_none() {
    let mut values = noise(400);
    values.iter_mut().skip(2).step_by(CHANNELS).for_each(|x| *x = 5.0);
    let mut rig = rig(CHAINS[3]);
    push(&mut rig, &values, 0, 400, 0);
    let warm: Vec<bool> = rig.bins().iter().map(|bin| bin.flags.has(Flags::WARMING_UP)).collect();
    assert_eq!(warm.iter().position(|warm| !warm), Some(6), "0.11 s end inside bin 5");
    let frozen = rig.notices(EventKind::StatsFrozen);
    assert_eq!((frozen.len(), frozen[0].from_bin, frozen[0].count), (1, Some(5), 3));
    let threshold = rig.aligner.thresholds(0)[0];
    assert!(frozen[0].detail.contains(&format!(": a at {threshold:.6e}, b at ")), "{frozen:?}");
    let flat = rig.notices(EventKind::FlatChannel);
    assert!(flat.len() == 1 && flat[0].detail.ends_with(": c"), "{flat:?}");
    let total = |c: usize| rig.bins().iter().map(|bin| bin.inputs[0].values[c]).sum::<f32>();
    assert!(total(0) > 0.0 && total(1) > 0.0 && total(2) == 0.0);
}

#[test]
fn columns_that_an_op_makes_are_reported_by_their_own_names() {
    let chain = r#"[{"op": "reference", "kind": "bipolar", "pairs": [["a", "b"], ["c", "a"]]}, {"op": "bin"},
        {"op": "zscore", "mode": "running", "tau_s": 0}]"#;
    let mut rig = rig(chain);
    let row = [[1.0f32, 1.0, 4.0], [2.0, 2.0, 9.0]].concat();
    rig.push(rows(0, CHANNELS, &row.repeat(40)));
    let flat = rig.notices(EventKind::FlatChannel);
    assert!(flat.iter().any(|notice| notice.detail.ends_with(": a-b, c-a")), "{flat:?}");
    assert_eq!(rig.bin(0).inputs[0].values.len(), 2);
}

#[test]
fn another_rate_is_refused_unless_the_chain_decimates_it_to_the_models() {
    let refusal = |chain: &str, rate: u32| {
        let plan = planned(chain, |plan| plan.inputs[0].0.rate = Rate::new(rate, 1));
        Aligner::new(plan).err().map(|error| error.to_string())
    };
    let decimated = r#"[{"op": "decimate", "factor": 2}, {"op": "decimate", "factor": 2}]"#;
    assert_eq!(refusal("[]", 1000), None);
    assert_eq!(refusal(decimated, 250), None);
    assert_eq!(refusal(decimated, 1000), None);
    assert_eq!(
        refusal("[]", 250).unwrap(),
        "input `spikes`: rate: expected 250 Hz, found 1000 Hz (signal `spikes`)"
    );
    assert_eq!(
        refusal(decimated, 500).unwrap(),
        "input `spikes`: rate: expected 500 Hz, or 2000 Hz, which its chain decimates to that, found 1000 Hz (signal `spikes`)"
    );
}

#[test]
fn what_cannot_be_at_a_rate_or_a_place_is_a_sentence_that_names_op_and_parameter() {
    let refusal = |chain: &str| Aligner::new(planned(chain, |_| {})).unwrap_err().to_string();
    for (chain, sentence) in [
        (
            r#"[{"op": "sqrt"}, {"op": "butterworth", "kind": "low", "high_hz": 500}]"#,
            "input `spikes`: preprocess[1].high_hz: expected below 500 Hz, half of the rate, found 500",
        ),
        (
            r#"[{"op": "decimate", "factor": 10}, {"op": "notch", "hz": 50}]"#,
            "input `spikes`: preprocess[1].hz: expected below 50 Hz, half of the rate, found 50",
        ),
        (
            r#"[{"op": "decimate", "factor": 30}]"#,
            "input `spikes`: preprocess[0].factor: expected at least one sample in a bin of 20 ms, found one in 30 ms",
        ),
        (
            r#"[{"op": "decimate", "factor": 3}, {"op": "bin", "reduce": "all"}]"#,
            "input `spikes`: preprocess[1].reduce: expected bins of whole samples (3 ms each) with reduce = \"all\", found bins of 20 ms",
        ),
        (
            r#"[{"op": "bin"}, {"op": "decimate", "factor": 2}]"#,
            "input `spikes`: preprocess[1]: expected ops that run once per sample before `bin`, found `decimate` after it",
        ),
        (
            r#"[{"op": "band_power", "bands": [[10, 12]], "window_ms": 100}]"#,
            "input `spikes`: preprocess[0].bands: expected two frequencies or more in each band, which lie 10 Hz apart (a longer window_ms has more), found [10, 12]",
        ),
        (
            r#"[{"op": "reference", "kind": "common_average", "by": "group"}]"#,
            "input `spikes`: preprocess[0].by: expected a group for every channel, found none for `a`",
        ),
        (
            r#"[{"op": "reference", "kind": "bipolar", "pairs": [["a", "d"]]}]"#,
            "input `spikes`: preprocess[0].pairs: expected names of channels (there are: a, b, c), found `d`",
        ),
        (
            r#"[{"op": "threshold_crossings", "low_hz": 9, "high_hz": 90, "calibrate_s": 0.0001}]"#,
            "input `spikes`: preprocess[0].calibrate_s: expected at least one sample (1 ms), found 0.0001",
        ),
    ] {
        assert_eq!(refusal(chain), sentence);
    }
}

/// The filter of chain 3.
fn band_pass() -> Design {
    Design::butterworth(BandKind::Band, 4, Some(100.0), Some(400.0), f64::from(RATE)).unwrap()
}

/// Crossings of chain 3 by plain loops: by channel, the samples that count from `from` on.
fn plain_crossings(values: &[f32], thresholds: &[f64], from: usize) -> Vec<Vec<usize>> {
    let mut filtered: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
    Filter::new(&band_pass(), Init::Steady, CHANNELS).run(&mut filtered);
    let crossings = |c: usize| {
        let y = |n: usize| filtered[n * CHANNELS + c];
        let mut counted: Vec<usize> = Vec::new();
        for n in 1..values.len() / CHANNELS {
            let crosses = y(n) < thresholds[c] && y(n - 1) >= thresholds[c];
            // A sample is a millisecond, as long as the refractory time.
            if crosses && n >= from && counted.last().is_none_or(|last| n - last >= 1) {
                counted.push(n);
            }
        }
        counted
    };
    (0..CHANNELS).map(crossings).collect()
}

fn counts(rig: &Rig, c: usize) -> Vec<f32> {
    rig.bins().iter().map(|bin| bin.inputs[0].values[c]).collect()
}

fn binned(crossings: &[usize], n: usize) -> Vec<f32> {
    let in_bin = |k: usize| crossings.iter().filter(|at| *at / PER_BIN == k).count() as f32;
    (0..n / PER_BIN).map(in_bin).collect()
}

#[test]
fn thresholds_that_a_run_tells_given_to_the_next_count_the_same_and_nothing_is_calibrated() {
    let values = noise(400);
    let mut measured = rig(CHAINS[3]);
    push(&mut measured, &values, 0, 400, 0);
    let told = &measured.notices(EventKind::StatsFrozen)[0].detail;
    let (_, list) = told.split_once("static `spikes.thresholds`: ").expect("all of them");
    let thresholds: Vec<f64> = serde_json::from_str(list).expect("numbers as JSON has them");
    assert_eq!(thresholds, measured.aligner.thresholds(0), "to the bit");

    let mut given = rig(CHAINS[3]);
    given.aligner.give_thresholds(0, &thresholds);
    push(&mut given, &values, 0, 400, 0);
    let (early, late) =
        (plain_crossings(&values, &thresholds, 0), plain_crossings(&values, &thresholds, 110));
    for c in 0..CHANNELS {
        assert_eq!(counts(&given, c), binned(&early[c], 400), "channel {c}, from the first sample on");
        assert_eq!(counts(&measured, c), binned(&late[c], 400), "channel {c}");
        assert_eq!(counts(&given, c)[6..], counts(&measured, c)[6..], "channel {c}");
        assert!(counts(&given, c)[..5].iter().sum::<f32>() > 0.0);
    }
    // What is left is the filter's own; where thresholds are measured, 110 samples are calibration.
    let warm = |rig: &Rig| rig.bins().iter().filter(|bin| bin.flags.has(Flags::WARMING_UP)).count();
    let settling = band_pass().settling() as usize;
    assert_eq!((warm(&given), warm(&measured)), (settling.div_ceil(PER_BIN), 6));
    let frozen = given.notices(EventKind::StatsFrozen);
    assert_eq!((frozen.len(), frozen[0].from_bin, frozen[0].count), (1, Some(0), 3));
    assert!(frozen[0].detail.contains("given at open") && frozen[0].detail.ends_with(list), "{frozen:?}");

    // They are the session's: a reset of everything keeps them, and starts no calibration.
    given.reset(ResetScope::All, Some(20));
    push(&mut given, &values, 0, 100, 400);
    assert_eq!(counts(&given, 0)[20..], binned(&early[0], 100));
    assert_eq!(given.aligner.thresholds(0), thresholds);
}

#[test]
fn thresholds_are_given_by_the_sessions_channels_and_meant_in_the_models_unit() {
    let (mut plan, values) = (planned(CHAINS[3], |_| {}), noise(200));
    // The session sends the same voltages in another order, in µV for a model of mV, beside a channel that no model takes.
    let from = [2, 0, 1];
    let channel =
        |name: &str, unit: &str| Channel { name: name.into(), unit: unit.into(), ..Channel::default() };
    plan.signals[0].channels = ["c", "spare", "a", "b"].map(|name| channel(name, "uV")).to_vec();
    let InputChannels::Named(named) = &mut plan.inputs[0].0.channels else { panic!("named channels") };
    named.iter_mut().for_each(|spec| spec.unit = "mV".into());
    let sent: Vec<f32> = values
        .chunks_exact(CHANNELS)
        .flat_map(|row| [row[from[0]], 9.0, row[from[1]], row[from[2]]])
        .map(|mv| mv * 1000.0)
        .collect();
    let thresholds = [-4.0, -5.0, -6.0];
    let mut rig = Rig::of(plan);
    let takes = rig.aligner.takes_thresholds(0).expect("it counts crossings");
    assert_eq!((takes.count, takes.times), (4, -2.0));
    rig.aligner.give_thresholds(0, &[-6.0, -1.0, -4.0, -5.0]);
    assert_eq!(rig.aligner.thresholds(0), thresholds);
    rig.push(rows(0, 4, &sent));
    let values: Vec<f32> = sent.chunks_exact(4).flat_map(|row| [row[2], row[3], row[0]]).collect();
    let plain = plain_crossings(&values, &thresholds.map(|mv| mv * 1000.0), 0);
    for (c, plain) in plain.iter().enumerate() {
        assert_eq!(counts(&rig, c), binned(plain, 200), "channel {c}");
    }
    let told = &rig.notices(EventKind::StatsFrozen)[0].detail;
    assert!(told.ends_with("`spikes.thresholds`: [-6e0,-3e38,-4e0,-5e0] (-3e38: none)"), "{told}");
}

#[test]
fn an_input_that_counts_no_crossings_takes_no_thresholds_and_pairs_take_theirs() {
    assert_eq!(rig(CHAINS[0]).aligner.takes_thresholds(0), None);
    let pairs = r#"[{"op": "reference", "kind": "bipolar", "pairs": [["a", "b"], ["c", "a"]]},
        {"op": "threshold_crossings", "low_hz": 100, "high_hz": 400, "times": 3}]"#;
    let mut rig = rig(pairs);
    let takes = rig.aligner.takes_thresholds(0).expect("it counts crossings");
    assert_eq!((takes.count, takes.times), (2, 3.0));
    assert!(takes.each.starts_with("value that enters the op"), "{}", takes.each);
    rig.aligner.give_thresholds(0, &[1.5, 1e9]);
    push(&mut rig, &noise(200), 0, 200, 0);
    assert!(counts(&rig, 0).iter().sum::<f32>() > 0.0 && counts(&rig, 1).iter().all(|n| *n == 0.0));
    let told = &rig.notices(EventKind::StatsFrozen)[0].detail;
    assert!(told.contains("a-b at 1.500000e0, c-a at") && told.ends_with("[1.5e0,1e9]"), "{told}");
}
