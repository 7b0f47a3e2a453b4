//! Images and event cameras: their shape, what a bin has of them, how they are cut.

use proptest::prelude::*;

use crate::domain::frame::{Addresses, Frame, FrameBody, Samples};
use crate::domain::output::Flags;
use crate::domain::settings::{GapPolicy, LatePolicy, NanPolicy};
use crate::domain::signal::{Channel, SignalSpec, SignalType};
use crate::domain::tensor::Tensor;
use crate::domain::time::Rate;
use crate::error::Fault;
use crate::signal::aligner::Aligner;
use crate::signal::image::Image;
use crate::signal::input::{Fill, InputChannels};
use crate::signal::plan::Plan;
use crate::signal::step::{Bin, Step};
use crate::signal::testing::*;

const W: i64 = WIDTH_NS as i64;
/// Two rows of three pixels.
const IMAGE: Image = Image { height: 2, width: 3 };

/// A signal of images, `per_bin` of them in a bin; its channels are `names`.
fn images(names: &[&str], per_bin: u32) -> SignalSpec {
    SignalSpec {
        kind: SignalType::Frames,
        bin_ms: None,
        rate: Rate::new(50 * per_bin, 1),
        ..binned_signal(names)
    }
}

fn camera() -> SignalSpec {
    SignalSpec { kind: SignalType::AddressEvents, bin_ms: None, ..binned_signal(&[]) }
}

/// One signal that feeds one input of `planes` images.
fn one(signal: SignalSpec, planes: usize) -> Plan {
    let mut plan = plan(vec![signal]);
    let input = &mut plan.inputs[0].0;
    (input.image, input.channels) = (Some(IMAGE), InputChannels::Count(planes));
    plan
}

fn chained(plan: &mut Plan, chain: &str) {
    plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap();
}

/// Images from `first_index` on, all their values one after the other.
fn film(first_index: u64, shape: &[usize], values: &[f32]) -> Frame {
    let count = values.len() / shape.iter().product::<usize>();
    let shape: Vec<usize> = std::iter::once(count).chain(shape.iter().copied()).collect();
    let tensor = Tensor::from_f32(&shape, values);
    frame(FrameBody::Samples(Samples { first_index, count: count as u32, tensor }))
}

/// Events `(x, y, brighter, t_ns)` in the stretch [`from`, `to`).
fn addresses(from: i64, to: i64, events: &[(u32, u32, bool, i64)]) -> Frame {
    frame(FrameBody::Addresses(Addresses {
        t_start_ns: from,
        span_ns: to - from,
        x: events.iter().map(|e| e.0).collect(),
        y: events.iter().map(|e| e.1).collect(),
        polarity: events.iter().map(|e| e.2).collect(),
        t_ns: events.iter().map(|e| e.3).collect(),
    }))
}

fn count_up(from: usize, n: usize) -> Vec<f32> {
    (from..from + n).map(|x| x as f32).collect()
}

fn bins(rig: Rig) -> Vec<Bin> {
    rig.out.into_iter().filter_map(|s| if let Step::Bin(bin) = s { Some(bin) } else { None }).collect()
}

#[test]
fn a_bin_has_its_image_and_of_several_the_last_or_their_mean() {
    for shape in [&[1, 2, 3][..], &[2, 3], &[2, 3, 1]] {
        let mut rig = Rig::of(one(images(&[], 1), 1));
        rig.push(film(0, shape, &count_up(0, 18)));
        assert_eq!(rig.values(), [(0, count_up(0, 6)), (1, count_up(6, 6)), (2, count_up(12, 6))]);
    }
    let mut rig = Rig::of(one(images(&["camera"], 2), 1));
    rig.push(film(0, &[2, 3], &count_up(0, 24)));
    assert_eq!(rig.values(), [(0, count_up(6, 6)), (1, count_up(18, 6))]);
    let mut plan = one(images(&[], 2), 1);
    chained(&mut plan, r#"[{"op": "scale", "factor": 2.0, "offset": 1.0}, {"op": "bin", "reduce": "mean"}]"#);
    let mut rig = Rig::of(plan);
    rig.push(film(0, &[2, 3], &count_up(0, 12)));
    assert_eq!(rig.values(), [(0, (0..6).map(|x| 2.0 * (x as f32 + 3.0) + 1.0).collect())]);
}

#[test]
fn planes_are_matched_by_name_and_a_number_per_plane_is_that_of_its_pixels() {
    let mut plan = one(images(&["b", "g", "r"], 1), 2);
    plan.inputs[0].0.channels = named_input(&["r", "b"]).channels;
    plan.signals[0].channels[0].scale = Some(10.0);
    chained(&mut plan, r#"[{"op": "zscore", "mode": "fixed", "mean": [1.0, 2.0], "std": [2.0, 1.0]}]"#);
    let mut rig = Rig::of(plan);
    rig.push(film(0, &[3, 2, 3], &count_up(0, 18)));
    let red = (12..18).map(|x| (x as f32 - 1.0) / 2.0);
    let blue = (0..6).map(|x| 10.0 * x as f32 - 2.0);
    assert_eq!(rig.values(), [(0, red.chain(blue).collect())]);
}

#[test]
fn what_does_not_fit_the_image_is_refused_with_its_shape_and_leaves_no_trace() {
    let mut rig = Rig::of(one(images(&[], 1), 3));
    for shape in [&[2, 3][..], &[2, 3, 3], &[18]] {
        let fault = Fault::from(rig.try_push(0, film(0, shape, &[0.0; 18])).unwrap_err());
        assert_eq!(fault.tensor, "tensor");
        assert!(fault.expected.ends_with(", 3, 2, 3]"), "{fault}");
    }
    let mut rig = Rig::of(one(camera(), 2));
    for (event, tensor, expected) in
        [((3, 0, true, 0), "x", "numbers below 3, from 0"), ((0, 2, true, 0), "y", "numbers below 2, from 0")]
    {
        let fault = Fault::from(rig.try_push(0, addresses(0, W, &[event])).unwrap_err());
        assert_eq!((fault.tensor.as_str(), fault.expected.as_str()), (tensor, expected));
    }
    rig.push(addresses(0, W, &[]));
    assert_eq!(rig.values(), [(0, vec![0.0; 12])]);
}

#[test]
fn events_of_a_camera_are_counted_by_pixel_darker_before_brighter() {
    let events =
        [(0, 0, false, 0), (2, 1, true, W - 1), (2, 1, true, W / 2), (1, 0, false, W), (1, 0, true, W)];
    let mut rig = Rig::of(one(camera(), 2));
    rig.push(addresses(0, 2 * W, &events));
    let mut want = [vec![0.0; 12], vec![0.0; 12]];
    (want[0][0], want[0][11], want[1][1], want[1][7]) = (1.0, 2.0, 1.0, 1.0);
    assert_eq!(rig.values(), [(0, want[0].clone()), (1, want[1].clone())]);
    // With one channel both are counted together.
    let mut rig = Rig::of(one(camera(), 1));
    rig.push(addresses(0, 2 * W, &events));
    assert_eq!(rig.bin(1).inputs[0].values, [0.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_pixel_that_is_not_finite_is_filled_alone_and_a_mask_is_that_of_the_whole_camera() {
    let mut plan = one(images(&["camera"], 1), 2);
    plan.inputs[0].0.fill = Fill::Hold;
    let mut rig = Rig::of(plan.clone());
    rig.push(film(0, &[2, 2, 3], &[1.0; 12]));
    let mut broken = vec![2.0; 12];
    broken[7] = f32::NAN;
    rig.push(film(1, &[2, 2, 3], &broken));
    broken[7] = 1.0;
    let bin = rig.bin(1);
    assert_eq!(bin.inputs[0].values, broken);
    assert_eq!(bin.flags, Flags::NAN_REPLACED | Flags::MASKED);
    assert!(bin.inputs[0].mask.iter().enumerate().all(|(j, good)| *good == (j != 7)));
    let mut masked = film(2, &[2, 2, 3], &[3.0; 12]);
    masked.mask = Some(vec![false]);
    rig.push(masked);
    assert_eq!(rig.bin(2).inputs[0].values[..6], [2.0; 6]);
    assert!(rig.bin(2).inputs[0].mask.iter().all(|good| !good));
    plan.policies.nan = NanPolicy::Reject;
    let mut rig = Rig::of(plan);
    broken[11] = f32::INFINITY;
    let refused = rig.try_push(0, film(0, &[2, 2, 3], &broken)).unwrap_err();
    assert!(refused.to_string().contains("channel `1`"), "{refused}");
}

#[test]
fn a_bin_between_two_images_of_a_slower_camera_has_the_inputs_fill_and_is_masked() {
    // Bins of 20 ms are the counts'; the camera beside them has an image every 40 ms.
    let mut eye = SignalSpec { rate: Rate::new(25, 1), ..images(&[], 1) };
    eye.name = "eye".into();
    let mut plan = plan(vec![binned_signal(&["a", "b"]), eye]);
    plan.t0_ns = Some(0);
    let input = &mut plan.inputs[1].0;
    (input.image, input.channels, input.fill) = (Some(IMAGE), InputChannels::Count(1), Fill::Hold);
    let mut rig = Rig::of(plan);
    rig.push_to(0, rows(0, 2, &[0.0; 8]));
    rig.push_to(1, film(0, &[2, 3], &count_up(0, 12)));
    let seen: Vec<_> = rig.bins().iter().map(|bin| (bin.inputs[1].values.clone(), bin.flags)).collect();
    let (first, second) = (count_up(0, 6), count_up(6, 6));
    let none = Flags::default();
    let want =
        [(first.clone(), none), (first, Flags::MASKED), (second.clone(), none), (second, Flags::MASKED)];
    assert_eq!(seen, want);
}

#[test]
fn signals_and_inputs_of_other_forms_are_refused_at_open() {
    let said = |plan: Plan| Aligner::new(plan).unwrap_err().to_string();
    let mut plan = one(images(&[], 1), 1);
    plan.inputs[0].0.kind = SignalType::Binned;
    assert_eq!(said(plan), "input `spikes`: type: expected `binned`, found `frames` (signal `spikes`)");
    let mut plan = one(images(&["a"], 1), 1);
    plan.inputs[0].0.image = None;
    assert!(
        said(plan).contains("expected one value per channel, since no model.toml says that it takes images")
    );
    let mut plan = one(images(&[], 1), 3);
    let mut other = plan.inputs[0].clone();
    (other.0.name, other.0.channels) = ("grey".into(), InputChannels::Count(1));
    plan.inputs.push(other);
    assert_eq!(
        said(plan),
        "input `grey`: expected 3 channels of 2 x 3 pixels, as another input has of signal `spikes`, \
         found 1 channels of 2 x 3 pixels"
    );
    let plan = one(images(&["a", "b"], 1), 3);
    assert!(said(plan).contains("expected 3 channels, found 2"));
    let mut plan = one(camera(), 3);
    plan.signals[0].channels = vec![Channel::default(); 3];
    assert!(
        said(plan).contains("channels: expected one, or two (darker, brighter), of an event camera, found 3")
    );
}

/// Lengths that sum to `total`.
fn cuts(total: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..6, total).prop_map(move |lengths| {
        let mut left = total;
        let take = lengths.into_iter().map(|n| {
            let n = n.min(left);
            left -= n;
            n
        });
        take.filter(|n| *n > 0).collect()
    })
}

proptest! {
    #[test]
    fn where_images_are_cut_into_frames_does_not_matter(
        values in prop::collection::vec(prop_oneof![30 => 0.0f32..50.0, 1 => Just(f32::NAN)], 40 * 6),
        cuts in cuts(40), per_bin in 1u32..4, lost in prop::collection::vec(1usize..40, 0..4),
        gap in prop::sample::select(vec![GapPolicy::Hold, GapPolicy::Zero, GapPolicy::Skip]),
    ) {
        let stream = |cuts: &[usize]| {
            let mut plan = one(images(&[], per_bin), 1);
            plan.policies.gap = gap;
            chained(&mut plan, r#"[{"op": "bin", "reduce": "mean"}, {"op": "smooth", "kernel": "exponential", "tau_ms": 40.0}]"#);
            let mut rig = Rig::of(plan);
            let mut first = 0;
            for n in cuts {
                let kept: Vec<usize> = (first..first + n).filter(|i| !lost.contains(i)).collect();
                for run in kept.chunk_by(|a, b| a + 1 == *b) {
                    rig.push(film(run[0] as u64, &[2, 3], &values[6 * run[0]..6 * (run[run.len() - 1] + 1)]));
                }
                first += n;
            }
            bins(rig)
        };
        prop_assert_eq!(stream(&cuts), stream(&[40]));
    }

    #[test]
    fn camera_events_are_what_a_plain_count_says_however_they_are_cut(
        events in prop::collection::vec((0u32..3, 0u32..2, any::<bool>(), 0i64..10 * W), 0..120),
        mut edges in prop::collection::vec(0i64..10 * W, 0..8),
    ) {
        let mut want = vec![vec![0.0f32; 12]; 10];
        for (x, y, brighter, t) in &events {
            want[(t / W) as usize][usize::from(*brighter) * 6 + (y * 3 + x) as usize] += 1.0;
        }
        edges.extend([0, 10 * W]);
        edges.sort_unstable();
        let mut plan = one(camera(), 2);
        plan.policies.late = LatePolicy::Fail;
        let mut rig = Rig::of(plan);
        for pair in edges.windows(2) {
            let inside: Vec<_> = events.iter().copied().filter(|e| (pair[0]..pair[1]).contains(&e.3)).collect();
            rig.push(addresses(pair[0], pair[1], &inside));
        }
        let got: Vec<Vec<f32>> = rig.values().into_iter().map(|(_, values)| values).collect();
        prop_assert_eq!(got, want);
        prop_assert!(rig.bins().iter().all(|bin| bin.flags == Flags::default()));
    }
}
