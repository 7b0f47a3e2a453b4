//! Time: where bins begin, other clocks, epochs, stamps.

use crate::domain::frame::Frame;
use crate::domain::output::EventKind;
use crate::domain::settings::{BinsBy, GapPolicy};
use crate::domain::signal::{ClockBy, SignalRole, SignalSpec, SignalType};
use crate::domain::time::Rate;
use crate::error::{Fault, Kind};
use crate::signal::aligner::Aligner;
use crate::signal::refusal::Refusal;
use crate::signal::testing::*;

const W: i64 = WIDTH_NS as i64;

fn stamped(mut frame: Frame, t_device_ns: i64) -> Frame {
    frame.t_device_ns = Some(t_device_ns);
    frame
}

#[test]
fn t0_is_the_start_of_the_first_frame_of_the_first_required_signal() {
    let mut rig = Rig::binned(|_| {});
    assert_eq!(rig.aligner.grid(), None);
    rig.push(stamped(rows(1_000, 2, &[1.0; 2]), 1_755_000_000_123_456_789));
    assert_eq!(rig.aligner.grid().unwrap().t0_ns, 1_755_000_000_123_456_789);
    assert_eq!(rig.bin(0).k, 0);
    let mut rig = Rig::binned(|_| {});
    rig.push(rows(5, 2, &[1.0; 2]));
    assert_eq!(rig.aligner.grid().unwrap().t0_ns, 5 * W, "index times width from 0, without a stamp");
}

#[test]
fn frames_of_other_signals_that_come_before_t0_is_known_are_kept() {
    let mut rig = two_signals(|plan| plan.t0_ns = None);
    rig.push_to(1, spikes(0, 3 * W, &[(0, 1), (0, W + 1), (0, 2 * W)]));
    rig.push(stamped(rows(0, 2, &[1.0; 4]), W));
    let second: Vec<f32> = rig.bins().iter().map(|bin| bin.inputs[1].values[0]).collect();
    assert_eq!(second, [1.0, 1.0]);
    assert_eq!(rig.aligner.counts().before_start, 1);
}

#[test]
fn rows_that_start_off_the_grid_are_taken_within_the_tolerance_and_refused_beyond_it() {
    let start = |t| {
        let mut rig = Rig::binned(|plan| plan.t0_ns = Some(1_000));
        rig.try_push(0, stamped(rows(7, 2, &[1.0; 2]), t)).map(|()| rig.bins().last().map(|bin| bin.k))
    };
    assert_eq!(start(1_000 + 3 * W + 2_000_000).unwrap(), Some(3));
    assert_eq!(start(1_000 + 3 * W - 2_000_000).unwrap(), Some(3));
    let fault = Fault::from(start(1_000 + 3 * W + 2_000_001).unwrap_err());
    assert_eq!((fault.kind, fault.tensor.as_str()), (Kind::Invalid, "t_device_ns"));
}

#[test]
fn indices_near_2_to_the_63_and_beyond_every_stamp_have_their_bins() {
    let mut rig = Rig::binned(|_| {});
    let first = (1 << 63) - 2;
    rig.push(rows(first, 2, &[1.0; 8]));
    assert_eq!(rig.values().len(), 4);
    assert_eq!(rig.aligner.next_bin(), 4);
    rig.push(rows(first + 5, 2, &[2.0; 2]));
    assert_eq!(rig.aligner.next_bin(), 6);
    let over = rig.try_push(0, rows(u64::MAX, 2, &[2.0; 2])).unwrap_err();
    assert!(matches!(over, Refusal::Shape { tensor: "first_index", .. }));
}

#[test]
fn a_stamp_that_disagrees_with_the_index_is_an_event_and_the_index_wins() {
    let mut rig = Rig::binned(|_| {});
    rig.push(stamped(rows(0, 2, &[1.0; 2]), 0));
    rig.push(stamped(rows(1, 2, &[1.0; 2]), W + 2_000_000));
    assert!(rig.notices(EventKind::ClockDisagrees).is_empty());
    rig.push(stamped(rows(2, 2, &[1.0; 2]), 2 * W + 2_000_001));
    assert_eq!(rig.notices(EventKind::ClockDisagrees).len(), 1);
    assert_eq!(rig.aligner.next_bin(), 3);
}

#[test]
fn a_wrong_first_stamp_is_named_and_the_good_ones_after_it_are_believed() {
    let mut rig = Rig::binned(|_| {});
    rig.push(rows(0, 2, &[1.0; 2]));
    rig.push(stamped(rows(1, 2, &[1.0; 2]), 90 * W));
    (2..10).for_each(|i| rig.push(stamped(rows(i, 2, &[1.0; 2]), i as i64 * W)));
    let told = rig.notices(EventKind::ClockDisagrees);
    assert_eq!(told.iter().map(|notice| notice.count).collect::<Vec<_>>(), [1, 2]);
    assert!(told[1].detail.contains("index 2 to 4") && told[1].detail.contains("the stamp of index 1"));
    assert_eq!(rig.aligner.next_bin(), 10, "the index says where samples lie");
}

#[test]
fn where_t0_is_given_and_the_first_frame_has_no_stamp_stamps_are_checked_against_the_index() {
    let mut rig = Rig::binned(|plan| plan.t0_ns = Some(W));
    rig.push(rows(0, 2, &[1.0; 2]));
    rig.push(stamped(rows(1, 2, &[1.0; 2]), 90 * W));
    (2..10).for_each(|i| rig.push(stamped(rows(i, 2, &[1.0; 2]), (i as i64 + 1) * W)));
    let told = rig.notices(EventKind::ClockDisagrees);
    assert_eq!(told.len(), 1);
    assert!(told[0].detail.contains("index 1: its stamp is 1800000000 ns"), "{}", told[0].detail);
    assert!(told[0].detail.contains("t0_ns"), "{}", told[0].detail);
}

#[test]
fn a_declared_epoch_goes_on_with_k_and_its_gap_is_what_the_servers_clock_says() {
    let mut rig = Rig::binned(|_| {});
    rig.push(stamped(rows(1_000, 2, &[1.0; 4]), 50 * W));
    rig.now_ns = 3 * W + 5;
    let mut restarted = stamped(rows(0, 2, &[5.0; 4]), 0);
    restarted.epoch = true;
    rig.push(restarted);
    let bins: Vec<(u64, bool)> = rig.bins().iter().map(|bin| (bin.k, bin.epoch)).collect();
    assert_eq!(bins, [(0, false), (1, false), (2, false), (3, false), (4, false), (5, true), (6, false)]);
    assert_eq!(rig.bin(5).inputs[0].values, [5.0; 2]);
    let events = rig.notices(EventKind::ClockEpoch);
    assert!(
        events.len() == 1
            && events[0].detail.contains("1000000000")
            && events[0].detail.contains("stamp 0 ns")
    );
    rig.push(stamped(rows(2, 2, &[6.0; 2]), 2 * W));
    assert_eq!(rig.bin(7).inputs[0].values, [6.0; 2]);
    assert!(rig.notices(EventKind::ClockDisagrees).is_empty());
}

#[test]
fn a_signal_that_comes_back_after_bins_have_closed_without_it_begins_where_the_servers_clock_is() {
    let mut rig = two_signals(|_| {});
    rig.push(rows(0, 2, &[1.0; 2]));
    rig.push_to(1, spikes(0, W, &[]));
    for k in 1..30 {
        rig.now_ns = k * W;
        rig.push(rows(k as u64, 2, &[1.0; 2]));
        rig.expire(rig.now_ns);
    }
    assert_eq!(rig.aligner.next_bin(), 28);
    let mut back = spikes(0, W, &[(0, 5)]);
    back.epoch = true;
    rig.push_to(1, back);
    rig.push(rows(30, 2, &[1.0; 2]));
    assert_eq!(rig.bin(30).inputs[1].values, [1.0], "not as far behind again as it was away");
}

#[test]
fn a_step_back_of_the_index_is_a_restart_only_if_the_stamps_went_on() {
    let mut rig = Rig::binned(|_| {});
    rig.push(stamped(rows(u64::from(u32::MAX), 2, &[1.0; 2]), 0));
    rig.push(stamped(rows(0, 2, &[2.0; 2]), W));
    assert_eq!(rig.notices(EventKind::ClockEpoch).len(), 1, "a counter of 32 bits rolled over");
    assert_eq!(rig.values(), [(0, vec![1.0; 2]), (1, vec![2.0; 2])]);
    rig.push(stamped(rows(0, 2, &[2.0; 2]), W));
    assert_eq!(rig.notices(EventKind::Overlap).len(), 1, "the same again is no restart");
    rig.push(rows(0, 2, &[2.0; 2]));
    assert_eq!(rig.notices(EventKind::Overlap).len(), 2, "without a stamp nothing went on");
}

#[test]
fn the_gap_before_an_epoch_follows_the_gap_policy() {
    let restart = |gap| {
        let mut rig = Rig::binned(|plan| plan.policies.gap = gap);
        rig.push(rows(0, 2, &[1.0; 2]));
        rig.now_ns = 2 * W;
        let mut frame = rows(0, 2, &[5.0; 2]);
        frame.epoch = true;
        let refused = rig.try_push(0, frame);
        (rig, refused)
    };
    let (rig, _) = restart(GapPolicy::Reset);
    assert_eq!(rig.skipped(), [(1, 3)]);
    assert!(rig.bin(3).reset.is_some());
    assert!(matches!(restart(GapPolicy::Fail).1, Err(Refusal::Gap { .. })));
}

#[test]
fn filters_do_not_span_two_epochs_and_statistics_do() {
    let mut rig = Rig::binned(|plan| {
        let chain = r#"[{"op": "smooth", "kernel": "exponential", "tau_ms": 60.0}]"#;
        plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap();
    });
    rig.push(rows(0, 2, &[1.0; 4]));
    let mut restarted = rows(0, 2, &[1.0; 2]);
    restarted.epoch = true;
    rig.push(restarted);
    assert_eq!(rig.bin(2).inputs[0].values, rig.bin(0).inputs[0].values);
}

#[test]
fn a_declared_offset_maps_another_clock() {
    let mut rig = two_signals(|plan| {
        plan.signals[1].clock = "eeg".into();
        plan.signals[1].clock_by = ClockBy::Declared;
        plan.signals[1].clock_offset_ns = Some(-1_000);
    });
    rig.push(rows(0, 2, &[1.0; 4]));
    rig.push_to(1, spikes(1_000, 1_000 + 2 * W, &[(0, W + 999), (0, W + 1_000)]));
    let second: Vec<f32> = rig.bins().iter().map(|bin| bin.inputs[1].values[0]).collect();
    assert_eq!(second, [1.0, 1.0]);
}

#[test]
fn by_exchange_a_frame_is_refused_until_both_clocks_are_known_and_mapped_then() {
    let mut rig = two_signals(|plan| plan.signals[1].clock = "eeg".into());
    rig.push(rows(0, 2, &[1.0; 4]));
    let events = || spikes(-500, 2 * W - 500, &[(0, W - 501), (0, W - 500)]);
    let fault = Fault::from(rig.try_push(1, events()).unwrap_err());
    assert_eq!(fault.kind, Kind::ClockUnknown);
    assert!(fault.detail.contains("probe of clock `eeg`"), "{fault}");
    rig.relate("eeg", 1_500, 0);
    let fault = Fault::from(rig.try_push(1, events()).unwrap_err());
    assert!(fault.detail.contains("probe of clock `device`"), "{fault}");
    rig.relate("device", 1_000, 0);
    rig.push_to(1, events());
    let second: Vec<f32> = rig.bins().iter().map(|bin| bin.inputs[1].values[0]).collect();
    assert_eq!(second, [1.0, 1.0]);
}

#[test]
fn without_a_relation_no_frame_is_kept_for_later_either_nor_one_that_no_input_sees() {
    let mut rig = two_signals(|plan| {
        plan.t0_ns = None;
        plan.signals[1].clock = "eeg".into();
        let stick = SignalSpec { name: "stick".into(), role: SignalRole::Target, ..event_signal(&["x"]) };
        plan.signals.push(SignalSpec { clock: "arm".into(), ..stick });
    });
    let refused = |rig: &mut Rig, signal| rig.try_push(signal, spikes(0, W, &[])).is_err();
    assert!(refused(&mut rig, 1) && refused(&mut rig, 2), "the session's first signal has not come yet");
    rig.relate("device", 0, 0);
    rig.relate("arm", 0, 0);
    assert!(refused(&mut rig, 1) && !refused(&mut rig, 2));
}

/// `spikes` (events, the session's) and `eeg` (binned), each on a clock of its own; the server's clock is the session's
/// plus 1 s, and `eeg` reads what the session's clock reads.
fn two_clocks() -> Rig {
    let mut second = binned_signal(&["c"]);
    (second.name, second.clock) = ("eeg".into(), "eeg".into());
    let mut plan = plan(vec![event_signal(&["a"]), second]);
    plan.t0_ns = Some(0);
    let mut rig = Rig::of(plan);
    rig.relate("device", 1_000_000_000, 0);
    rig.relate("eeg", 1_000_000_000, 0);
    rig
}

/// The rows of `eeg` by their index, where each is its own value; which bin has which.
fn eeg_by_bin(rig: &Rig) -> Vec<(u64, f32)> {
    rig.bins().iter().map(|bin| (bin.k, bin.inputs[1].values[0])).collect()
}

#[test]
fn a_clock_that_is_set_moves_no_sample() {
    for by in [15_000_000_000, -15_000_000_000, 60_000_000] {
        let mut rig = two_clocks();
        let row = |k: i64, set: i64| stamped(rows(k as u64, 1, &[k as f32]), k * W + set);
        for k in 0..9 {
            rig.now_ns = 1_000_000_000 + (k + 1) * W;
            // The clock is set before row 3, and the probes are believed before row 6.
            if k == 6 {
                rig.relate("eeg", 1_000_000_000 - by, by);
            }
            rig.push_to(1, row(k, if k < 3 { 0 } else { by }));
            rig.push(spikes(k * W, (k + 1) * W, &[(0, k * W)]));
        }
        assert_eq!(eeg_by_bin(&rig), (0..9).map(|k| (k, k as f32)).collect::<Vec<_>>(), "by {by}");
        let told: u64 = rig.notices(EventKind::ClockDisagrees).iter().map(|notice| notice.count).sum();
        assert!((1..=3).contains(&told), "{told}: until the step is believed, not after");
    }
}

#[test]
fn a_device_that_was_away_and_whose_clock_went_on_comes_back_to_its_place() {
    let mut rig = two_clocks();
    for k in 0..40 {
        rig.now_ns = 1_000_000_000 + (k + 1) * W;
        rig.push(spikes(k * W, (k + 1) * W, &[]));
        // Row k - 1 begins in the middle of bin k - 1. Away are rows 9 to 28; its counter then restarts.
        if (1..10).contains(&k) || k >= 30 {
            let index = if k < 30 { k - 1 } else { k - 30 };
            let row = rows(index as u64, 1, &[(k - 1) as f32]);
            rig.push_to(1, Frame { epoch: k == 30, ..stamped(row, (k - 1) * W + W / 2) });
        }
        if k == 33 {
            rig.relate("eeg", 1_000_000_000, 0);
        }
        rig.expire(rig.now_ns);
    }
    let back: Vec<(u64, f32)> = eeg_by_bin(&rig).into_iter().filter(|(k, _)| *k >= 30).collect();
    assert_eq!(back, (30..39).map(|k| (k, k as f32)).collect::<Vec<_>>());
    assert_eq!((rig.aligner.counts().late, rig.notices(EventKind::ClockEpoch).len()), (0, 1));
}

#[test]
fn a_session_whose_own_clock_is_set_goes_on_and_takes_the_others_along() {
    let mut first = binned_signal(&["a"]);
    first.name = "spikes".into();
    let mut second = event_signal(&["c"]);
    (second.name, second.clock) = ("eeg".into(), "eeg".into());
    let mut plan = plan(vec![first, second]);
    plan.t0_ns = Some(0);
    let mut rig = Rig::of(plan);
    let by = -15_000_000_000;
    rig.relate("device", 1_000_000_000, 0);
    rig.relate("eeg", 1_000_000_000, 0);
    for k in 0..9 {
        rig.now_ns = 1_000_000_000 + (k + 1) * W;
        if k == 6 {
            rig.relate("device", 1_000_000_000 - by, by);
        }
        rig.push(stamped(rows(k as u64, 1, &[1.0]), k * W + if k < 3 { 0 } else { by }));
        rig.push_to(1, spikes(k * W, (k + 1) * W, &vec![(0, k * W); k as usize]));
        assert_eq!(
            rig.aligner.clocks().own().server_at(i128::from((k + 1) * W)),
            Some((rig.now_ns.into(), 0))
        );
    }
    assert_eq!(eeg_by_bin(&rig), (0..9).map(|k| (k, k as f32)).collect::<Vec<_>>());
}

#[test]
fn events_of_a_clock_that_is_set_begin_an_epoch_and_an_epoch_that_began_since_stays() {
    let mut second = event_signal(&["c"]);
    (second.name, second.clock) = ("eeg".into(), "eeg".into());
    let mut plan = plan(vec![binned_signal(&["a"]), second]);
    plan.t0_ns = Some(0);
    for declared in [false, true] {
        let mut rig = Rig::of(plan.clone());
        rig.relate("device", 1_000_000_000, 0);
        rig.relate("eeg", 1_000_000_000, 0);
        let by = -3 * W;
        for k in 0..9 {
            rig.now_ns = 1_000_000_000 + (k + 1) * W;
            if k == 6 {
                rig.relate("eeg", 1_000_000_000 - by, by);
            }
            let set = if k < 3 { 0 } else { by };
            let mut frame = spikes(k * W + set, (k + 1) * W + set, &[(0, k * W + set)]);
            frame.epoch = declared && k == 3;
            rig.push_to(1, frame);
            rig.push(rows(k as u64, 1, &[1.0]));
            rig.expire(rig.now_ns - 1);
        }
        assert_eq!(rig.notices(EventKind::ClockEpoch).len(), 1, "declared: {declared}");
        assert_eq!(rig.bin(8).inputs[1].values, [1.0], "declared: {declared}");
        assert_eq!(rig.aligner.counts().late, if declared { 0 } else { 3 });
    }
}

#[test]
fn by_arrival_a_frames_end_is_when_it_came_and_time_never_runs_back() {
    let mut rig = two_signals(|plan| {
        plan.signals[1].clock = "eeg".into();
        plan.signals[1].clock_by = ClockBy::Arrival;
    });
    rig.now_ns = 10 * W; // the session's clock is 9 bins behind the server's
    rig.push(rows(0, 2, &[1.0; 2]));
    rig.push_to(1, spikes(777, 777 + W, &[(0, 777), (0, 776 + W)]));
    assert_eq!(rig.bin(0).inputs[1].values, [2.0]);
    rig.now_ns = 11 * W - W / 2; // half a bin early
    rig.push_to(1, spikes(777 + W, 777 + 2 * W, &[(0, 777 + W)]));
    rig.now_ns = 12 * W;
    rig.push(rows(1, 2, &[1.0; 2]));
    rig.push_to(1, spikes(777 + 2 * W, 777 + 3 * W, &[]));
    assert_eq!(rig.bin(1).inputs[1].values, [1.0], "not into bin 0");
}

#[test]
fn a_continuous_signal_is_averaged_over_the_whole_samples_of_a_bin() {
    let mut rig = Rig::binned(|plan| {
        plan.signals[0].kind = SignalType::Continuous;
        plan.signals[0].rate = Rate::new(200, 1);
        plan.inputs[0].0.kind = SignalType::Continuous;
    });
    rig.push(rows(0, 2, &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]));
    assert!(rig.bins().is_empty());
    rig.push(rows(3, 2, &[4.0, 40.0, 9.0, 9.0]));
    assert_eq!(rig.values(), [(0, vec![2.5, 25.0])]);
}

#[test]
fn a_width_that_is_no_whole_samples_is_refused_with_the_nearest_or_taken_with_nearest() {
    let mut at_2048 = plan(vec![binned_signal(&["a"])]);
    at_2048.signals[0].kind = SignalType::Continuous;
    at_2048.signals[0].rate = Rate::new(2048, 1);
    at_2048.inputs[0].0.kind = SignalType::Continuous;
    let error = Aligner::new(at_2048.clone()).unwrap_err().to_string();
    assert!(error.contains("19.53125 or 21.484375 ms") && error.contains("found 20 ms"), "{error}");
    at_2048.policies.bins = BinsBy::Nearest;
    let (aligner, warnings) = Aligner::new(at_2048).unwrap();
    assert_eq!((aligner.width_ns().get(), warnings.len()), (19_531_250, 1));
}

#[test]
fn a_mapped_signals_bin_may_hold_a_sample_more_or_fewer() {
    let mut eeg = binned_signal(&["c"]);
    (eeg.name, eeg.kind, eeg.rate) = ("eeg".into(), SignalType::Continuous, Rate::new(130, 1)); // 2.6 samples per bin
    (eeg.clock, eeg.clock_by, eeg.clock_offset_ns) = ("eeg".into(), ClockBy::Declared, Some(0));
    let mut plan = plan(vec![binned_signal(&["a"]), eeg]);
    plan.t0_ns = Some(0);
    plan.inputs[1].0.chain = serde_json::from_str(r#"[{"op": "bin", "reduce": "sum"}]"#).unwrap();
    let mut rig = Rig::of(plan);
    rig.push(rows(0, 1, &[0.0; 5]));
    rig.push_to(1, stamped(rows(0, 1, &[1.0; 13]), 0));
    let second: Vec<f32> = rig.bins().iter().map(|bin| bin.inputs[1].values[0]).collect();
    assert_eq!(second, [3.0, 3.0, 2.0, 3.0, 2.0]);
}
