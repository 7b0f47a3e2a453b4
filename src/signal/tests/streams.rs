//! Properties: how a stream is cut, in which order it comes, how far out its numbers lie.

use proptest::prelude::*;

use crate::domain::frame::Frame;
use crate::domain::output::{EventKind, Flags};
use crate::domain::settings::{GapPolicy, LatePolicy, NanPolicy};
use crate::signal::plan::Plan;
use crate::signal::step::{Bin, Step};
use crate::signal::testing::*;

const W: i64 = WIDTH_NS as i64;

fn chained(plan: &mut Plan) {
    let chain = r#"[{"op": "sqrt"}, {"op": "smooth", "kernel": "half_gaussian", "sigma_ms": 40.0},
        {"op": "zscore", "mode": "running", "tau_s": 1.0}]"#;
    plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap();
}

/// Bins alone; notices may be cut as frames are.
fn bins(rig: Rig) -> (Vec<Bin>, Vec<(u64, u64)>) {
    let skipped = rig.skipped();
    (
        rig.out.into_iter().filter_map(|s| if let Step::Bin(bin) = s { Some(bin) } else { None }).collect(),
        skipped,
    )
}

/// Lengths that sum to `total`.
fn cuts(total: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..9, total).prop_map(move |lengths| {
        let mut left = total;
        lengths
            .into_iter()
            .map(|n| {
                let n = n.min(left);
                left -= n;
                n
            })
            .filter(|n| *n > 0)
            .collect()
    })
}

fn any_gap() -> impl Strategy<Value = GapPolicy> {
    prop::sample::select(vec![GapPolicy::Hold, GapPolicy::Zero, GapPolicy::Skip, GapPolicy::Reset])
}

proptest! {
    #[test]
    fn where_binned_rows_are_cut_into_frames_does_not_matter(
        values in prop::collection::vec(prop_oneof![20 => 0.0f32..50.0, 1 => Just(f32::NAN)], 240),
        cuts in cuts(120), lost in prop::collection::vec(0usize..120, 0..12), gap in any_gap(),
        row_ms in prop::sample::select(vec![20.0, 5.0]),
    ) {
        // Rows that are lost are lost however the rest is cut.
        let stream = |cuts: &[usize]| {
            let mut rig = Rig::binned(|plan| { chained(plan); plan.policies.gap = gap; plan.signals[0].bin_ms = Some(row_ms) });
            let mut first = 0;
            for n in cuts {
                let kept: Vec<usize> = (first..first + n).filter(|i| *i == 0 || !lost.contains(i)).collect();
                for run in kept.chunk_by(|a, b| a + 1 == *b) {
                    rig.push(rows(run[0] as u64, 2, &values[2 * run[0]..2 * (run[run.len() - 1] + 1)]));
                }
                first += n;
            }
            bins(rig)
        };
        prop_assert_eq!(stream(&cuts), stream(&[120]));
    }

    #[test]
    fn where_events_are_cut_and_how_they_are_ordered_within_lateness_does_not_matter(
        mut events in prop::collection::vec((0u32..2, 0i64..30 * W), 0..200),
        swaps in prop::collection::vec(any::<bool>(), 30),
    ) {
        let mut whole = Rig::events(|plan| { chained(plan); plan.policies.lateness_ns = 3 * WIDTH_NS });
        whole.push(spikes(0, 30 * W, &events));
        // One frame per bin and a half, its neighbour before it where `swaps` says so; in a frame, any order.
        events.sort_by_key(|e| (e.1 / 7) % 5);
        let mut stretches: Vec<(i64, i64)> = (0..20).map(|i| (i * 3 * W / 2, (i + 1) * 3 * W / 2)).collect();
        let mut i = 0;
        while i + 1 < stretches.len() {
            if swaps[i] { stretches.swap(i, i + 1); i += 1; }
            i += 1;
        }
        let mut pieces = Rig::events(|plan| { chained(plan); plan.policies.lateness_ns = 3 * WIDTH_NS });
        for (from, to) in stretches {
            let inside: Vec<(u32, i64)> = events.iter().copied().filter(|e| (from..to).contains(&e.1)).collect();
            pieces.push(spikes(from, to, &inside));
        }
        prop_assert_eq!(bins(pieces), bins(whole));
    }

    #[test]
    fn a_plain_histogram_agrees(
        t0 in -1_000_000_000i64..1_000_000_000, events in prop::collection::vec((0u32..2, 0i64..40 * W), 0..100),
    ) {
        let mut rig = Rig::events(|plan| plan.t0_ns = Some(t0));
        let events: Vec<(u32, i64)> = events.into_iter().map(|(unit, t)| (unit, t + t0 - 3 * W)).collect();
        rig.push(spikes(t0 - 3 * W, t0 + 37 * W, &events));
        let mut counts = vec![[0.0f32; 2]; 37];
        for (unit, t) in events.iter().filter(|e| e.1 >= t0) {
            counts[((t - t0) / W) as usize][*unit as usize] += 1.0;
        }
        let got: Vec<Vec<f32>> = rig.values().into_iter().map(|v| v.1).collect();
        prop_assert_eq!(got, counts.iter().map(|c| c.to_vec()).collect::<Vec<_>>());
        prop_assert_eq!(rig.aligner.counts().before_start, events.iter().filter(|e| e.1 < t0).count() as u64);
    }

    #[test]
    fn the_order_of_arrival_between_signals_does_not_matter(order in prop::collection::vec(any::<bool>(), 60), t0 in any::<bool>()) {
        let stream = |order: &[bool]| {
            let mut rig = two_signals(|plan| { chained(plan); if !t0 { plan.t0_ns = None } });
            let (mut a, mut b) = (0u64, 0i64);
            for first in order.iter().copied().chain([true; 40]).chain([false; 40]) {
                if first && a < 30 {
                    rig.push(rows(a, 2, &[a as f32, 3.0]));
                    a += 1;
                } else if !first && b < 30 {
                    rig.push_to(1, spikes(b * W, (b + 1) * W, &[(0, b * W + b)]));
                    b += 1;
                }
            }
            bins(rig)
        };
        let (got, want) = (stream(&order), stream(&[]));
        prop_assert_eq!(got.0.len(), 30);
        prop_assert_eq!(got, want);
    }

    #[test]
    fn a_refused_frame_leaves_no_trace(
        frames in prop::collection::vec((0u64..40, 1usize..6, any::<bool>(), prop::option::of(-5i64..60)), 1..30),
        fail_gap in any::<bool>(), fail_late in any::<bool>(), lateness in 0u64..4,
    ) {
        let make = || Rig::binned(|plan| {
            chained(plan);
            if fail_gap { plan.policies.gap = GapPolicy::Fail }
            if fail_late { plan.policies.late = LatePolicy::Fail }
            plan.policies.lateness_ns = lateness * WIDTH_NS;
        });
        let (mut all, mut taken) = (make(), make());
        for (first, n, epoch, stamp) in frames {
            let mut frame: Frame = rows(first, 2, &vec![first as f32; 2 * n]);
            (frame.epoch, frame.t_device_ns) = (epoch && first % 7 == 0, stamp.map(|t| t * W));
            all.now_ns += W;
            taken.now_ns = all.now_ns;
            if all.try_push(0, frame.clone()).is_ok() {
                taken.push(frame);
            }
            prop_assert_eq!(format!("{:?}", all.aligner), format!("{:?}", taken.aligner));
        }
        prop_assert_eq!(all.out, taken.out);
    }

    #[test]
    fn under_next_each_event_is_in_a_bin_that_is_answered_or_counted_as_dropped(
        frames in prop::collection::vec(
            (0i64..30, 1i64..4, prop::collection::vec((0u32..2, 0i64..3 * W), 0..6), prop::bool::weighted(0.1)), 1..30),
        gap in any_gap(), lateness in 0u64..4,
    ) {
        let mut rig = Rig::events(|plan| {
            (plan.policies.gap, plan.policies.late) = (gap, LatePolicy::Next);
            plan.policies.lateness_ns = lateness * WIDTH_NS;
        });
        let mut sent = 0;
        // Stretches of whole bins, so that a gap takes no events with it that came in time.
        for (from, n, events, epoch) in frames {
            let events: Vec<(u32, i64)> =
                events.into_iter().filter(|e| e.1 < n * W).map(|(unit, t)| (unit, from * W + t)).collect();
            sent += events.len() as u64;
            rig.now_ns += W;
            let mut frame = spikes(from * W, (from + n) * W, &events);
            frame.epoch = epoch;
            rig.push(frame);
        }
        // What is covered closes; what waits then finds no bin.
        let mark = rig.aligner.tracks[0].cover.mark() as i64;
        rig.push(spikes(mark, mark + 4 * W, &[]));
        rig.finish();
        let measured = rig.bins().into_iter().filter(|bin| !bin.flags.has(Flags::GAP_FILLED));
        let answered: f32 = measured.flat_map(|bin| &bin.inputs[0].values).sum();
        let counts = rig.aligner.counts();
        prop_assert_eq!(answered as u64 + counts.dropped + counts.before_start, sent);
    }

    #[test]
    fn extreme_numbers_never_panic_and_bins_are_answered_or_skipped_without_a_hole(
        frames in prop::collection::vec(
            (extreme_u64(), 0usize..4, prop::option::of(extreme_i64()), any::<bool>(), extreme_i64(), extreme_i64(), extreme_i64(), 0u8..4), 1..40),
        gap in any_gap(), t0 in prop::option::of(extreme_i64()),
        nan in prop::sample::select(vec![NanPolicy::Mask, NanPolicy::Hold, NanPolicy::Zero, NanPolicy::Reject]),
        late in prop::sample::select(vec![LatePolicy::Drop, LatePolicy::Next, LatePolicy::Fail]),
        max_gap in prop::sample::select(vec![0, 200_000_000, u64::MAX]), lateness in prop::sample::select(vec![0, 40_000_000, u64::MAX]),
        wait in prop::sample::select(vec![0, 40_000_000, u64::MAX]),
    ) {
        let mut rig = two_signals(|plan| {
            chained(plan);
            plan.t0_ns = t0;
            (plan.policies.gap, plan.policies.nan, plan.policies.late) = (gap, nan, late);
            // Long fills are real work; they have a test of their own.
            (plan.policies.max_gap_ns, plan.policies.lateness_ns, plan.policies.wait_ns) = (max_gap.min(200_000_000), lateness, wait);
        });
        for (first, n, stamp, epoch, now, start, span, which) in frames {
            rig.now_ns = now;
            let (signal, mut frame) = match which {
                0 | 1 => (0, rows(first, 2, &vec![f32::NAN; 2 * n])),
                // Stretches of a few bins: long ones are answered bin by bin, which is right and slow.
                2 => (1, spikes(start, start.saturating_add(span.rem_euclid(20 * W)), &[(0, start)])),
                _ => { rig.expire(now); continue }
            };
            (frame.t_device_ns, frame.epoch) = (stamp, epoch);
            let _ = rig.try_push(signal, frame);
        }
        let mut next = 0;
        for step in &rig.out {
            match step {
                Step::Bin(bin) => {
                    prop_assert_eq!(bin.k, next);
                    prop_assert!(bin.inputs.iter().all(|row| row.values.iter().all(|x| x.is_finite()) && row.values.len() == row.mask.len()));
                    next += 1;
                }
                Step::Skipped { from, to } => {
                    prop_assert!(*from == next && to > from);
                    next = *to;
                }
                Step::Notice(_) => {}
            }
        }
        prop_assert_eq!(next, rig.aligner.next_bin());
    }

    #[test]
    fn a_fork_gives_what_the_uninterrupted_stream_gives(values in prop::collection::vec(0.0f32..9.0, 80), at in 0usize..40) {
        let mut rig = Rig::binned(chained);
        (0..at).for_each(|i| rig.push(rows(i as u64, 2, &values[2 * i..2 * i + 2])));
        let mut fork = rig.clone();
        for i in at..40 {
            rig.push(rows(i as u64, 2, &values[2 * i..2 * i + 2]));
            fork.push(rows(i as u64, 2, &values[2 * i..2 * i + 2]));
        }
        prop_assert_eq!(rig.out, fork.out);
    }
}

fn extreme_i64() -> impl Strategy<Value = i64> {
    prop_oneof![3 => -100 * W..100 * W, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => Just(0)]
}

fn extreme_u64() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..60, 1 => any::<u64>(), 1 => (1u64 << 63) - 5..(1u64 << 63) + 5, 1 => u64::MAX - 5..=u64::MAX]
}

/// Row 0, then the row after `lost` others, where gaps of up to `max_gap_ns` may be filled.
fn after_a_gap(gap: GapPolicy, max_gap_ns: u64, lost: u64) -> Rig {
    let mut rig = Rig::binned(|plan| (plan.policies.gap, plan.policies.max_gap_ns) = (gap, max_gap_ns));
    rig.push(rows(0, 2, &[1.0; 2]));
    rig.push(rows(lost + 1, 2, &[1.0; 2]));
    assert_eq!(rig.notices(EventKind::Gap)[0].count, lost);
    rig
}

#[test]
fn a_gap_that_may_be_filled_is_filled_up_to_the_bins_of_one_frame_and_the_event_names_the_limit() {
    for gap in [GapPolicy::Hold, GapPolicy::Zero] {
        let rig = after_a_gap(gap, u64::MAX, 65_536);
        assert!(rig.skipped().is_empty() && rig.notices(EventKind::Reset).is_empty());
        assert_eq!(rig.bins().len(), 65_538);
        let rig = after_a_gap(gap, u64::MAX, 65_537);
        assert_eq!(rig.skipped(), [(1, 65_538)]);
        assert_eq!(rig.notices(EventKind::Reset).len(), 1);
        let detail = &rig.notices(EventKind::Gap)[0].detail;
        assert!(detail.contains("65536 bins") && !detail.contains("max_gap_ms"), "{detail}");
    }
    let rig = after_a_gap(GapPolicy::Hold, WIDTH_NS, 65_537);
    assert!(rig.notices(EventKind::Gap)[0].detail.contains("longer than max_gap_ms"));
}

#[test]
fn a_gap_that_is_skipped_keeps_the_state_up_to_max_gap_whatever_its_bins() {
    let rig = after_a_gap(GapPolicy::Skip, u64::MAX, 70_000);
    assert_eq!(rig.skipped(), [(1, 70_001)]);
    assert!(rig.notices(EventKind::Reset).is_empty() && rig.bin(70_001).reset.is_none());
    assert!(!rig.notices(EventKind::Gap)[0].detail.contains("max_gap_ms"));
    let rig = after_a_gap(GapPolicy::Skip, 69_999 * WIDTH_NS, 70_000);
    assert!(rig.bin(70_001).reset.is_some());
    assert!(rig.notices(EventKind::Gap)[0].detail.contains("longer than max_gap_ms"));
}
