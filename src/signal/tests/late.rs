//! Closed bins that data came for: which are counted, and that each is once.

use crate::domain::output::{EventKind, Flags};
use crate::domain::settings::LatePolicy;
use crate::domain::signal::SignalType;
use crate::domain::time::Rate;
use crate::signal::testing::*;

const W: i64 = WIDTH_NS as i64;

/// Closed bins that data came for, and those whose data were left out.
fn bins(rig: &Rig) -> (u64, u64) {
    let counts = rig.aligner.counts();
    (counts.late_bins, counts.late_bins_dropped)
}

#[test]
fn samples_that_come_again_count_for_each_closed_bin_that_they_are_for_once_whatever_late_says() {
    for late in [LatePolicy::Drop, LatePolicy::Next, LatePolicy::Fail] {
        let mut rig = Rig::binned(|plan| plan.policies.late = late);
        rig.push(rows(0, 2, &[1.0; 10])); // bins 0 to 4
        rig.push(rows(1, 2, &[1.0; 4]));
        assert_eq!(bins(&rig), (2, 2), "{late}");
        rig.push(rows(1, 2, &[1.0; 4]));
        rig.push(rows(2, 2, &[1.0; 8])); // bins 2, 3 and 4 again, bin 5
        assert_eq!((bins(&rig), rig.aligner.counts().late), ((4, 4), 7), "{late}");
        let told: Vec<_> = rig.notices(EventKind::Overlap);
        let told: Vec<_> = told.iter().map(|notice| (notice.from_bin, notice.to_bin, notice.count)).collect();
        assert_eq!(told, [(Some(1), Some(3), 2), (Some(1), Some(3), 2), (Some(2), Some(5), 3)], "{late}");
    }
}

#[test]
fn what_comes_again_for_an_open_bin_is_late_for_no_closed_one() {
    let mut rig = two_signals(|_| {});
    rig.push(rows(0, 2, &[1.0; 6]));
    rig.push(rows(1, 2, &[1.0; 4]));
    assert_eq!((bins(&rig), rig.aligner.counts().late), ((0, 0), 2), "the other signal has not come");
    let told = rig.notices(EventKind::Overlap);
    assert_eq!((told.len(), told[0].from_bin, told[0].count), (1, None, 2));
    rig.push_to(1, spikes(0, 2 * W, &[]));
    rig.push(rows(1, 2, &[1.0; 4]));
    assert_eq!(bins(&rig), (1, 1), "bin 2 is open");
    // Events of a stretch that came already: the first for a closed bin, the second for an open one.
    rig.push_to(1, spikes(2 * W, 5 * W, &[]));
    rig.push_to(1, spikes(W, 5 * W, &[(0, W), (0, 4 * W)]));
    assert_eq!((bins(&rig), rig.aligner.counts().late), ((1, 1), 6));
    let told = rig.notices(EventKind::Late);
    assert_eq!((told.len(), told[0].from_bin, told[0].to_bin, told[0].count), (1, Some(1), Some(2), 2));
}

#[test]
fn many_frames_for_one_closed_bin_are_one_bin_and_bins_between_those_that_data_came_for_are_none() {
    let mut rig = Rig::events(|_| {});
    rig.push(spikes(0, 9 * W, &[]));
    for n in 0..5 {
        rig.push(spikes(W, 2 * W, &[(0, W + n)]));
    }
    assert_eq!((bins(&rig), rig.aligner.counts().late), ((1, 1), 5));
    rig.push(spikes(W, 8 * W, &[(0, 3 * W), (0, 7 * W)]));
    assert_eq!(bins(&rig), (3, 3));
    let last = rig.notices(EventKind::Late);
    assert_eq!((last[5].from_bin, last[5].to_bin), (Some(3), Some(8)));
}

#[test]
fn under_next_bins_are_dropped_only_where_their_data_are_and_samples_that_are_no_counts_always_are() {
    let mut rig = Rig::binned(|plan| plan.policies.late = LatePolicy::Next);
    rig.push(rows(0, 2, &[1.0; 2]));
    rig.push(rows(4, 2, &[1.0; 2]));
    rig.push(rows(1, 2, &[1.0; 2]));
    rig.push(rows(3, 2, &[1.0; 2]));
    assert_eq!(bins(&rig), (2, 0));
    rig.finish();
    assert_eq!(bins(&rig), (2, 2), "no bin came that could take them; bin 2 had none");

    let mut rig = Rig::binned(|plan| {
        plan.policies.late = LatePolicy::Next;
        (plan.signals[0].kind, plan.signals[0].bin_ms) = (SignalType::Continuous, None);
        plan.signals[0].rate = Rate::new(50, 1);
        plan.inputs[0].0.kind = SignalType::Continuous;
    });
    rig.push(rows(0, 2, &[1.0; 2]));
    rig.push(rows(4, 2, &[1.0; 2]));
    rig.push(rows(1, 2, &[1.0; 2]));
    assert_eq!((bins(&rig), rig.aligner.counts().dropped), ((1, 1), 1));
}

#[test]
fn what_one_signal_drops_does_not_count_the_bins_between_that_another_ones_data_were_used_for() {
    let mut rig = two_signals(|plan| {
        plan.policies.late = LatePolicy::Next;
        plan.signals[0] = event_signal(&["a", "b"]);
        plan.inputs[0].0.kind = SignalType::SpikeEvents;
    });
    let push = |rig: &mut Rig, from: i64, to: i64| {
        (0..2).for_each(|signal| rig.push_to(signal, spikes(from * W, to * W, &[])));
    };
    push(&mut rig, 0, 9);
    rig.push(spikes(3 * W, 4 * W, &[(0, 3 * W)]));
    push(&mut rig, 9, 10);
    assert!(rig.bin(9).flags.has(Flags::LATE), "what came for bin 3 is used");
    rig.push_to(1, spikes(W, 2 * W, &[(0, W)]));
    rig.push_to(1, spikes(5 * W, 6 * W, &[(0, 5 * W)]));
    assert_eq!(bins(&rig), (3, 0));
    rig.finish();
    assert_eq!(bins(&rig), (3, 2), "bins 1 and 5");
    let told = rig.notices(EventKind::Late);
    let last = told.last().unwrap();
    assert_eq!(
        (last.from_bin, last.to_bin),
        (Some(1), Some(6)),
        "the event tells from the first to the last"
    );
}
