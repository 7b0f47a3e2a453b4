//! Lost, late, repeated and stalled data: the rows of the table, each by its policy.

use crate::domain::output::{EventKind, Flags};
use crate::domain::settings::TrialMarks;
use crate::domain::settings::{GapPolicy, LatePolicy, ResetScope};
use crate::domain::signal::SignalType;
use crate::error::{Fault, Kind};
use crate::signal::act::Act;
use crate::signal::input::Fill;
use crate::signal::refusal::Refusal;
use crate::signal::testing::*;
use crate::signal::trial::ResetOn;

const W: i64 = WIDTH_NS as i64;

#[test]
fn a_gap_is_filled_with_the_last_input_under_hold_and_flagged() {
    let mut rig = Rig::binned(|_| {});
    rig.push(rows(0, 2, &[1.0, 2.0]));
    rig.push(rows(3, 2, &[7.0, 8.0]));
    let values = rig.values();
    assert_eq!(values, [(0, vec![1.0, 2.0]), (1, vec![1.0, 2.0]), (2, vec![1.0, 2.0]), (3, vec![7.0, 8.0])]);
    assert!(rig.bin(1).flags.has(Flags::GAP_FILLED) && !rig.bin(3).flags.has(Flags::GAP_FILLED));
    let gaps = rig.notices(EventKind::Gap);
    assert_eq!(gaps.len(), 1, "one event per gap, not per bin");
    assert_eq!((gaps[0].from_bin, gaps[0].to_bin, gaps[0].count), (Some(1), Some(3), 2));
    assert_eq!(rig.aligner.counts().gaps, 1);
}

#[test]
fn hold_falls_back_to_the_inputs_fill_where_there_is_no_last_input() {
    let mut rig = Rig::binned(|plan| plan.t0_ns = Some(0));
    rig.push(rows(2, 2, &[1.0, 2.0]));
    assert_eq!(rig.bin(0).inputs[0].values, [0.0, 0.0]);
    assert_eq!(rig.bin(0).inputs[0].mask, [false, false]);
    assert!(rig.bin(1).flags.has(Flags::GAP_FILLED));
}

#[test]
fn a_gap_is_0_after_preprocessing_under_zero() {
    let mut rig = Rig::binned(|plan| {
        plan.policies.gap = GapPolicy::Zero;
        plan.inputs[0].0.chain = serde_json::from_str(r#"[{"op": "scale", "offset": 5.0}]"#).unwrap();
    });
    rig.push(rows(0, 2, &[1.0, 2.0]));
    rig.push(rows(2, 2, &[1.0, 2.0]));
    assert_eq!(rig.bin(1).inputs[0].values, [0.0, 0.0]);
    assert_eq!(rig.bin(2).inputs[0].values, [6.0, 7.0]);
}

#[test]
fn a_gap_is_not_answered_under_skip_and_the_state_is_kept() {
    let mut rig = Rig::binned(|plan| plan.policies.gap = GapPolicy::Skip);
    rig.push(rows(0, 2, &[1.0, 2.0]));
    rig.push(rows(3, 2, &[7.0, 8.0]));
    assert_eq!(rig.values().iter().map(|v| v.0).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(rig.skipped(), [(1, 3)]);
    assert_eq!(rig.bin(3).reset, None);
    assert_eq!(rig.aligner.counts().skipped_bins, 2);
    assert_eq!(rig.notices(EventKind::Skipped).len(), 1);
}

#[test]
fn a_gap_is_skipped_under_reset_and_the_state_starts_anew() {
    let mut rig = Rig::binned(|plan| plan.policies.gap = GapPolicy::Reset);
    rig.push(rows(0, 2, &[1.0, 2.0]));
    rig.push(rows(3, 2, &[7.0, 8.0]));
    assert_eq!(rig.skipped(), [(1, 3)]);
    assert_eq!(rig.bin(3).reset, Some(ResetScope::Model));
    assert!(rig.bin(3).flags.has(Flags::RESET));
}

#[test]
fn under_fail_a_frame_after_a_gap_is_refused_and_nothing_is_consumed_until_the_samples_come_or_all_is_reset()
{
    let mut rig = Rig::binned(|plan| plan.policies.gap = GapPolicy::Fail);
    rig.push(rows(0, 2, &[1.0, 2.0]));
    let refusal = rig.try_push(0, rows(3, 2, &[7.0, 8.0])).unwrap_err();
    assert!(matches!(refusal, Refusal::Gap { expected: 1, found: 3, axis: "first_index", .. }));
    let fault = Fault::from(refusal);
    assert_eq!((fault.kind, fault.consumed), (Kind::Gap, false));
    rig.push(rows(1, 2, &[3.0, 3.0, 4.0, 4.0]));
    rig.push(rows(3, 2, &[7.0, 8.0]));
    assert_eq!(rig.bins().len(), 4);
    assert!(rig.try_push(0, rows(5, 2, &[1.0, 1.0])).is_err());
    rig.reset(ResetScope::All, None);
    rig.push(rows(5, 2, &[1.0, 1.0]));
    assert_eq!(rig.aligner.next_bin(), 6);
    assert!(rig.try_push(0, rows(9, 2, &[1.0, 1.0])).is_err(), "forgiven once, not for ever");
}

#[test]
fn a_gap_longer_than_max_gap_is_skipped_whatever_the_policy_and_the_next_bin_carries_reset() {
    let mut rig = Rig::binned(|_| {});
    rig.push(rows(0, 2, &[1.0, 2.0]));
    rig.push(rows(12, 2, &[7.0, 8.0])); // 11 bins lost, 10 may be filled
    assert_eq!(rig.skipped(), [(1, 12)]);
    assert_eq!(rig.bin(12).reset, Some(ResetScope::Model));
    let mut rig = Rig::binned(|_| {});
    rig.push(rows(0, 2, &[1.0, 2.0]));
    rig.push(rows(11, 2, &[7.0, 8.0])); // just as long as may be
    assert!(rig.skipped().is_empty() && rig.bin(11).reset.is_none());
}

#[test]
fn a_gap_of_2_to_the_60_bins_is_skipped_at_once() {
    let mut rig = Rig::binned(|_| {});
    rig.push(rows(0, 2, &[1.0, 2.0]));
    rig.push(rows(1 << 60, 2, &[7.0, 8.0]));
    assert_eq!(rig.skipped(), [(1, 1 << 60)]);
    assert_eq!(rig.bins().len(), 2);
}

#[test]
fn a_bin_that_a_gap_touches_is_filled_as_a_whole() {
    let mut rig = Rig::binned(|plan| plan.signals[0].bin_ms = Some(5.0));
    rig.push(rows(0, 2, &[1.0; 8]));
    rig.push(rows(5, 2, &[9.0; 6])); // row 4, a quarter of bin 1, never came
    assert_eq!(rig.values(), [(0, vec![4.0, 4.0]), (1, vec![4.0, 4.0])]);
    assert!(rig.bin(1).flags.has(Flags::GAP_FILLED));
}

#[test]
fn filled_bins_do_not_update_running_statistics() {
    let chain = r#"[{"op": "zscore", "mode": "running", "tau_s": 0.0}]"#;
    let zscored = |gap: bool| {
        let mut rig = Rig::binned(|plan| plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap());
        rig.push(rows(0, 2, &[1.0, 2.0, 3.0, 5.0, 9.0, 1.0]));
        rig.push(rows(if gap { 6 } else { 3 }, 2, &[4.0, 4.0]));
        rig.values().last().unwrap().1.clone()
    };
    assert_eq!(zscored(true), zscored(false));
}

#[test]
fn samples_that_came_already_are_dropped_and_counted_and_the_new_part_is_used() {
    let mut rig = Rig::binned(|plan| plan.policies.late = LatePolicy::Fail);
    rig.push(rows(0, 2, &[1.0, 1.0, 2.0, 2.0]));
    rig.push(rows(0, 2, &[1.0, 1.0, 2.0, 2.0]));
    rig.push(rows(1, 2, &[9.0, 9.0, 3.0, 3.0]));
    assert_eq!(rig.values(), [(0, vec![1.0; 2]), (1, vec![2.0; 2]), (2, vec![3.0; 2])]);
    assert_eq!((rig.aligner.counts().late, rig.aligner.counts().dropped), (3, 3));
    assert_eq!(rig.notices(EventKind::Overlap).len(), 2);
}

#[test]
fn samples_for_a_closed_bin_are_dropped_under_drop_and_never_change_it() {
    let mut rig = Rig::binned(|_| {});
    rig.push(rows(0, 2, &[1.0, 1.0]));
    rig.push(rows(2, 2, &[3.0, 3.0]));
    let before = rig.values();
    rig.push(rows(1, 2, &[2.0, 2.0]));
    assert_eq!(rig.values(), before);
    let late = rig.notices(EventKind::Late);
    assert_eq!((late.len(), late[0].from_bin, late[0].to_bin, late[0].count), (1, Some(1), Some(2), 1));
    rig.push(rows(1, 2, &[2.0, 2.0]));
    assert_eq!(rig.notices(EventKind::Overlap).len(), 1, "the second time they came already");
}

#[test]
fn late_counts_are_added_to_the_first_open_bin_under_next_and_flagged() {
    let mut rig = Rig::binned(|plan| plan.policies.late = LatePolicy::Next);
    rig.push(rows(0, 2, &[1.0, 1.0]));
    rig.push(rows(2, 2, &[3.0, 3.0]));
    rig.push(rows(1, 2, &[10.0, 20.0]));
    rig.push(rows(3, 2, &[4.0, 4.0]));
    assert_eq!(rig.bin(3).inputs[0].values, [14.0, 24.0]);
    assert!(rig.bin(3).flags.has(Flags::LATE));
    assert_eq!((rig.aligner.counts().late, rig.aligner.counts().dropped), (1, 0));
}

#[test]
fn late_counts_whose_bin_turns_out_a_gap_go_on_to_the_next_bin_that_has_data() {
    for gap in [GapPolicy::Hold, GapPolicy::Zero, GapPolicy::Skip, GapPolicy::Reset] {
        let mut rig = Rig::binned(|plan| (plan.policies.late, plan.policies.gap) = (LatePolicy::Next, gap));
        rig.push(rows(0, 2, &[1.0, 1.0]));
        rig.push(rows(2, 2, &[3.0, 3.0]));
        rig.push(rows(1, 2, &[10.0, 20.0])); // into bin 3, of which nothing will come
        rig.push(rows(5, 2, &[4.0, 4.0, 5.0, 5.0]));
        assert_eq!(rig.bin(5).inputs[0].values, [14.0, 24.0], "{gap}");
        assert!(rig.bin(5).flags.has(Flags::LATE) && !rig.bin(6).flags.has(Flags::LATE), "{gap}");
        assert_eq!(rig.bin(6).inputs[0].values, [5.0, 5.0], "{gap}");
        rig.finish();
        assert_eq!((rig.aligner.counts().late, rig.aligner.counts().dropped), (1, 0), "{gap}");
    }
    let mut rig = Rig::events(|plan| plan.policies.late = LatePolicy::Next);
    rig.push(spikes(0, W, &[(0, 1)]));
    rig.push(spikes(0, W, &[(1, 5)]));
    rig.push(spikes(2 * W, 3 * W, &[]));
    assert!(rig.bin(1).flags.has(Flags::GAP_FILLED) && !rig.bin(1).flags.has(Flags::LATE));
    assert_eq!(rig.bin(2).inputs[0].values, [0.0, 1.0], "a bin without events of its own");
    assert!(rig.bin(2).flags.has(Flags::LATE));
}

/// Bins 0 to 2 have closed; counts for bin 1 wait for bin 3.
fn with_late_counts() -> Rig {
    let mut rig = Rig::binned(|plan| plan.policies.late = LatePolicy::Next);
    rig.push(rows(0, 2, &[1.0, 1.0]));
    rig.push(rows(2, 2, &[3.0, 3.0]));
    rig.push(rows(1, 2, &[10.0, 20.0]));
    rig
}

#[test]
fn late_counts_that_find_no_bin_before_the_end_or_a_new_epoch_are_dropped_with_a_sentence() {
    let dropped = |rig: &Rig, why: &str| {
        assert_eq!((rig.aligner.counts().late, rig.aligner.counts().dropped), (1, 1), "{why}");
        let told = rig.notices(EventKind::Late);
        let last = told.last().unwrap();
        assert_eq!((told.len(), last.count, last.from_bin, last.to_bin), (2, 0, Some(1), Some(2)));
        assert!(last.detail.contains("1 samples") && last.detail.contains(why), "{}", last.detail);
    };
    let mut rig = with_late_counts();
    rig.finish();
    dropped(&rig, "the session ended");
    // The new epoch begins with the bin that they were to go into, or after a gap that begins with it.
    for now_ns in [0, 5 * W] {
        let mut rig = with_late_counts();
        rig.now_ns = now_ns;
        let mut restarted = rows(0, 2, &[5.0, 5.0]);
        restarted.epoch = true;
        rig.push(restarted);
        let last = rig.bins().last().copied().cloned().unwrap();
        assert_eq!((&last.inputs[0].values[..], last.flags.has(Flags::LATE)), (&[5.0, 5.0][..], false));
        rig.finish();
        dropped(&rig, "a new epoch began");
    }
}

#[test]
fn a_late_value_that_is_not_finite_is_left_out_and_flagged_where_the_rest_goes() {
    let mut rig = Rig::binned(|plan| plan.policies.late = LatePolicy::Next);
    rig.push(rows(0, 2, &[1.0, 1.0]));
    rig.push(rows(2, 2, &[3.0, 3.0]));
    rig.push(rows(1, 2, &[f32::NAN, 20.0]));
    rig.push(rows(3, 2, &[4.0, 4.0]));
    assert_eq!(rig.bin(3).inputs[0].values, [4.0, 24.0]);
    assert!(rig.bin(3).flags.has(Flags::LATE | Flags::NAN_REPLACED));
}

#[test]
fn late_data_are_refused_under_fail_and_nothing_is_consumed() {
    let mut rig = Rig::binned(|plan| plan.policies.late = LatePolicy::Fail);
    rig.push(rows(0, 2, &[1.0, 1.0]));
    rig.push(rows(2, 2, &[3.0, 3.0]));
    let fault = Fault::from(rig.try_push(0, rows(1, 2, &[2.0, 2.0, 3.0, 3.0, 4.0, 4.0])).unwrap_err());
    assert_eq!((fault.kind, fault.consumed), (Kind::Late, false));
    rig.push(rows(3, 2, &[4.0, 4.0]));
    assert_eq!(rig.aligner.next_bin(), 4);
}

#[test]
fn a_hole_is_filled_by_a_later_frame_as_long_as_its_bins_are_open() {
    let mut rig = Rig::binned(|plan| plan.policies.lateness_ns = 3 * WIDTH_NS);
    rig.push(rows(0, 2, &[1.0, 1.0]));
    rig.push(rows(2, 2, &[3.0, 3.0]));
    rig.push(rows(1, 2, &[2.0, 2.0]));
    rig.push(rows(3, 2, &[4.0, 4.0, 5.0, 5.0]));
    assert_eq!(rig.values(), [(0, vec![1.0; 2]), (1, vec![2.0; 2])]);
    assert!(rig.notices(EventKind::Gap).is_empty());
}

#[test]
fn events_wait_for_lateness_and_come_in_any_order() {
    let mut rig = Rig::events(|plan| plan.policies.lateness_ns = 2 * WIDTH_NS);
    rig.push(spikes(W, 2 * W, &[(0, W + 5)]));
    rig.push(spikes(0, W, &[(1, 7), (0, 3), (0, 2)]));
    assert!(rig.bins().is_empty());
    rig.push(spikes(2 * W, 3 * W, &[]));
    assert_eq!(rig.values(), [(0, vec![2.0, 1.0])]);
    rig.push(spikes(3 * W, 4 * W, &[]));
    assert_eq!(rig.values()[1], (1, vec![1.0, 0.0]));
}

#[test]
fn an_event_on_an_edge_belongs_to_the_later_bin() {
    let mut rig = Rig::events(|_| {});
    rig.push(spikes(0, 3 * W, &[(0, W - 1), (0, W), (1, 2 * W)]));
    assert_eq!(rig.values(), [(0, vec![1.0, 0.0]), (1, vec![1.0, 0.0]), (2, vec![0.0, 1.0])]);
}

#[test]
fn an_empty_stretch_counts_0_and_an_uncovered_one_is_a_gap() {
    let mut rig = Rig::events(|_| {});
    rig.push(spikes(0, W, &[(0, 1)]));
    rig.push(spikes(W, 2 * W, &[]));
    rig.push(spikes(3 * W, 4 * W, &[]));
    assert_eq!(rig.bin(1).inputs[0].values, [0.0, 0.0]);
    assert!(!rig.bin(1).flags.has(Flags::GAP_FILLED) && rig.bin(2).flags.has(Flags::GAP_FILLED));
}

#[test]
fn events_of_a_stretch_that_was_covered_are_treated_as_late_says() {
    let twice = |late| {
        let mut rig = Rig::events(|plan| plan.policies.late = late);
        rig.push(spikes(0, W, &[(0, 1)]));
        let again = rig.try_push(0, spikes(0, 2 * W, &[(0, 1), (1, W + 1)]));
        (rig, again)
    };
    let (rig, _) = twice(LatePolicy::Drop);
    assert_eq!(rig.values()[1], (1, vec![0.0, 1.0]));
    assert_eq!((rig.aligner.counts().late, rig.aligner.counts().dropped), (1, 1));
    let (rig, _) = twice(LatePolicy::Next);
    assert_eq!(rig.values()[1], (1, vec![1.0, 1.0]));
    assert!(rig.bin(1).flags.has(Flags::LATE));
    let (_, again) = twice(LatePolicy::Fail);
    assert!(matches!(again, Err(Refusal::Late { count: 1, .. })));
}

#[test]
fn data_before_t0_are_counted_and_dropped_and_no_bin_has_a_negative_number() {
    let mut rig = Rig::events(|plan| plan.t0_ns = Some(W));
    rig.push(spikes(0, 2 * W, &[(0, 1), (1, W - 1), (1, W)]));
    assert_eq!(rig.values(), [(0, vec![0.0, 1.0])]);
    assert_eq!(rig.aligner.counts().before_start, 2);
    assert_eq!(rig.notices(EventKind::BeforeStart).len(), 1);

    let mut rig = Rig::binned(|plan| plan.t0_ns = Some(2 * W));
    let mut first = rows(0, 2, &[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    first.t_device_ns = Some(0);
    rig.push(first);
    assert_eq!(rig.values(), [(0, vec![3.0, 3.0])]);
    assert_eq!(rig.aligner.counts().before_start, 2);
}

#[test]
fn a_bin_waits_for_every_required_signal_and_not_for_the_order_of_arrival() {
    let mut rig = two_signals(|_| {});
    rig.push(rows(0, 2, &[1.0, 2.0, 3.0, 4.0]));
    assert!(rig.bins().is_empty());
    rig.push_to(1, spikes(0, W, &[(0, 5)]));
    assert_eq!(rig.bins().len(), 1);
    assert_eq!(rig.bin(0).inputs[1].values, [1.0]);
    assert!(!rig.bin(0).early);
}

#[test]
fn after_wait_a_bin_closes_without_the_stalled_signal_held_then_filled_with_one_event_per_stall() {
    let mut rig = two_signals(|plan| {
        plan.policies.max_gap_ns = 2 * WIDTH_NS;
        plan.inputs[1].0.fill = Fill::Zero;
    });
    rig.push_to(1, spikes(0, W, &[(0, 5)]));
    rig.push(rows(0, 2, &[1.0; 12])); // 6 bins
    assert_eq!(rig.bins().len(), 1);
    assert_eq!(rig.aligner.standing().next_expiry_ns(), Some(40_000_000));
    rig.expire(39_999_999);
    assert_eq!(rig.bins().len(), 1);
    rig.expire(40_000_000);
    assert_eq!(rig.bins().len(), 6);
    let second = |k| rig.bin(k).inputs[1].clone();
    assert_eq!((second(1).values, second(2).values), (vec![1.0], vec![1.0]), "held up to max_gap");
    assert_eq!((second(3).values, second(3).mask), (vec![0.0], vec![false]), "then filled and masked");
    assert!(rig.bin(1).early && rig.bin(1).flags.has(Flags::SIGNAL_MISSING | Flags::GAP_FILLED));
    assert_eq!(rig.notices(EventKind::SignalMissing).len(), 1);
    assert_eq!(rig.aligner.standing().next_expiry_ns(), None);
    // It comes back: what it sends for closed bins is late, the rest is used.
    rig.push(rows(6, 2, &[1.0; 2]));
    rig.push_to(1, spikes(W, 7 * W, &[(0, W + 1), (0, 6 * W + 1)]));
    assert_eq!(rig.bin(6).inputs[1].values, [1.0]);
    assert_eq!(rig.aligner.counts().late, 1);
    assert!(!rig.bin(6).flags.has(Flags::SIGNAL_MISSING));
}

#[test]
fn a_signal_back_from_a_long_stall_resets_nothing_and_what_is_open_is_filled_as_what_closed_without_it() {
    // Away are rows 1 to 19, which is longer than max_gap_ms; of their bins so many had closed as row 20 came.
    for closed in [18, 19, 20, 23] {
        let mut rig = two_signals(|plan| plan.inputs[1].0.chain.clear());
        rig.push_to(1, spikes(0, W, &[(0, 5)]));
        rig.push(rows(0, 2, &vec![1.0; 2 * closed]));
        rig.expire(40_000_000);
        assert_eq!(rig.bins().len(), closed);
        rig.push_to(1, spikes(20 * W, 30 * W, &[(0, 25 * W)]));
        rig.push(rows(closed as u64, 2, &vec![1.0; 2 * (30 - closed)]));
        assert_eq!((rig.bins().len(), rig.skipped().len()), (30, 0), "{closed}");
        assert!(rig.bins().iter().all(|bin| bin.reset.is_none()) && rig.notices(EventKind::Reset).is_empty());
        let filled = (closed..20).map(|k| rig.bin(k as u64));
        assert!(filled.clone().all(|bin| bin.flags.has(Flags::GAP_FILLED) && bin.inputs[1].values[0] == 0.0));
        assert_eq!(rig.bin(1).inputs[1].values[0], 1.0, "held at first");
        assert_eq!(rig.bin(25).inputs[1].values[0], 1.0);
    }
}

#[test]
fn a_stall_is_told_when_it_begins_and_when_it_ends_and_its_count_is_its_bins() {
    let stalled = || {
        let mut rig = two_signals(|_| {});
        rig.push_to(1, spikes(0, W, &[]));
        rig.push(rows(0, 2, &[1.0; 12])); // bins 1 to 5 close without the events
        rig.expire(40_000_000);
        rig.push(rows(6, 2, &[1.0; 4]));
        rig.expire(80_000_000);
        rig
    };
    let told = |rig: &Rig| -> Vec<(u64, u64, u64)> {
        let told = rig.notices(EventKind::SignalMissing);
        told.iter().map(|n| (n.from_bin.unwrap(), n.to_bin.unwrap(), n.count)).collect()
    };
    let mut rig = stalled();
    assert_eq!(told(&rig), [(1, 6, 5)]);
    rig.push_to(1, spikes(W, 9 * W, &[]));
    rig.push(rows(8, 2, &[1.0; 2]));
    assert_eq!(told(&rig), [(1, 6, 5), (6, 8, 2)]);
    rig.finish();
    assert_eq!(told(&rig).len(), 2);
    let mut rig = stalled();
    rig.finish();
    assert_eq!(told(&rig), [(1, 6, 5), (6, 8, 2)]);
    assert!(rig.notices(EventKind::SignalMissing)[1].detail.contains("did not come back"));
}

#[test]
fn without_data_of_any_required_signal_no_bin_closes() {
    let mut rig = two_signals(|plan| plan.inputs[1].0.required = false);
    rig.push_to(1, spikes(0, 9 * W, &[]));
    rig.expire(i64::MAX);
    assert!(rig.bins().is_empty());
}

#[test]
fn a_signal_that_is_not_required_is_absent_where_it_has_nothing_and_waited_for_once_it_has_begun() {
    let mut rig = two_signals(|plan| plan.inputs[1].0.required = false);
    rig.push(rows(0, 2, &[1.0, 1.0]));
    let row = &rig.bin(0).inputs[1];
    assert!(!row.present && row.values.is_empty());
    rig.push_to(1, spikes(W, 2 * W, &[(0, W)]));
    rig.push(rows(1, 2, &[1.0, 1.0, 2.0, 2.0]));
    assert_eq!(rig.bin(1).inputs[1].values, [1.0]);
    assert_eq!(rig.bins().len(), 2, "bin 2 waits for it");
    rig.expire(40_000_000);
    assert!(!rig.bin(2).inputs[1].present);
    rig.push(rows(3, 2, &[1.0, 1.0]));
    assert_eq!(rig.bins().len(), 4, "it is silent: no bin waits for it");
}

#[test]
fn replay_repeats_an_early_closing() {
    let mut live = two_signals(|_| {});
    live.push(rows(0, 2, &[1.0; 6]));
    live.expire(40_000_000);
    live.push_to(1, spikes(0, 4 * W, &[(0, 1), (0, 3 * W)]));
    live.push(rows(3, 2, &[1.0; 2]));
    let mut replay = two_signals(|_| {});
    replay.push(rows(0, 2, &[1.0; 6]));
    replay.act(Act::Close { before: 3, now_ns: 0 });
    replay.push_to(1, spikes(0, 4 * W, &[(0, 1), (0, 3 * W)]));
    replay.push(rows(3, 2, &[1.0; 2]));
    assert_eq!(live.bins(), replay.bins());
}

#[test]
fn a_signal_far_ahead_of_the_others_is_refused_until_they_come() {
    let mut rig = two_signals(|_| {});
    rig.push_to(1, spikes(0, 65_000 * W, &[]));
    rig.push_to(1, spikes(65_000 * W, 66_000 * W, &[]));
    let fault = Fault::from(rig.try_push(1, spikes(66_000 * W, 66_001 * W, &[])).unwrap_err());
    assert_eq!(fault.kind, Kind::Overloaded);
    let span = Fault::from(rig.try_push(0, rows(0, 2, &vec![0.0; 2 * 65_537])).unwrap_err());
    assert!(span.detail.contains("at most 65536 bins"), "{span}");
}

#[test]
fn a_marker_resets_before_the_first_bin_that_is_open_when_it_arrives_and_never_holds_one() {
    let mut marks_signal = binned_signal(&[]);
    (marks_signal.name, marks_signal.kind) = ("ttl".into(), SignalType::Markers);
    let mut rig = Rig::binned(|plan| {
        plan.signals.push(marks_signal);
        let (start, end) = ("go".into(), "stop".into());
        plan.trials = Some(TrialMarks { signal: "ttl".into(), start, end, key: None });
        plan.reset_on = ResetOn { trial_end: true, ..ResetOn::default() };
    });
    rig.push_to(1, marks(&[("go", 0)]));
    rig.push(rows(0, 2, &[1.0; 4]));
    rig.push_to(1, marks(&[("stop", 1)]));
    rig.push(rows(2, 2, &[1.0; 4]));
    assert_eq!(rig.bin(2).reset, Some(ResetScope::Model));
    assert!(rig.bin(3).reset.is_none() && rig.bin(1).reset.is_none());
    rig.push_to(1, marks(&[("stop", 5), ("go", 7), ("go", 8)]));
    let broken = rig.notices(EventKind::TrialBroken);
    assert_eq!(broken.len(), 2, "an end without a start, a start after a start");
    rig.push(rows(4, 2, &[1.0; 2]));
    assert!(rig.bin(4).reset.is_none());
    let mut last = rows(5, 2, &[1.0; 2]);
    last.last_of_trial = true;
    rig.push(last);
    rig.push(rows(6, 2, &[1.0; 2]));
    assert!(rig.bin(5).reset.is_none() && rig.bin(6).reset.is_some(), "a trial ended by hand");
}

#[test]
fn a_reset_takes_place_before_the_bin_asked_for_and_a_past_one_is_a_conflict() {
    let mut rig = Rig::binned(|plan| {
        let chain = r#"[{"op": "smooth", "kernel": "exponential", "tau_ms": 60.0}]"#;
        plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap();
    });
    rig.push(rows(0, 2, &[1.0; 2]));
    rig.reset(ResetScope::Model, None);
    rig.reset(ResetScope::All, Some(2));
    rig.push(rows(1, 2, &[1.0; 4]));
    assert_eq!((rig.bin(1).reset, rig.bin(2).reset), (Some(ResetScope::Model), Some(ResetScope::All)));
    assert!(rig.bin(1).inputs[0].values > rig.bin(0).inputs[0].values, "scope model keeps the filters");
    assert_eq!(rig.bin(2).inputs[0].values, rig.bin(0).inputs[0].values, "scope all does not");
    let past = Act::Reset { scope: ResetScope::Model, at_bin: 1 };
    let refusal = rig.aligner.act(&past, &mut rig.out).unwrap_err();
    assert_eq!(Fault::from(refusal).kind, Kind::Conflict);
}
