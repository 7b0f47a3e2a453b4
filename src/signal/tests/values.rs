//! What is in a row: dtypes, masks, NaN, fills, preprocessing.

use crate::domain::frame::{Frame, FrameBody, Samples};
use crate::domain::output::{EventKind, Flags};
use crate::domain::settings::{GapPolicy, NanPolicy};
use crate::domain::signal::{SignalRole, SignalType};
use crate::domain::tensor::{Dtype, Tensor};
use crate::error::{Fault, Kind};
use crate::signal::aligner::Aligner;
use crate::signal::input::{Fill, InputChannels};
use crate::signal::refusal::Refusal;
use crate::signal::testing::*;

const NAN: f32 = f32::NAN;

#[test]
fn every_dtype_gives_the_same_counts() {
    let parts: [(Dtype, Vec<u8>); 6] = [
        (Dtype::U8, vec![3, 200]),
        (Dtype::U16, [3u16, 200].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (Dtype::I16, [3i16, 200].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (Dtype::I32, [3i32, 200].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (Dtype::F32, [3f32, 200.0].iter().flat_map(|x| x.to_le_bytes()).collect()),
        (Dtype::F64, [3f64, 200.0].iter().flat_map(|x| x.to_le_bytes()).collect()),
    ];
    for (dtype, bytes) in parts {
        let mut rig = Rig::binned(|_| {});
        let tensor = Tensor::from_bytes(dtype, &[1, 2], &bytes).unwrap();
        rig.push(frame(FrameBody::Samples(Samples { first_index: 0, count: 1, tensor })));
        assert_eq!(rig.values(), [(0, vec![3.0, 200.0])], "{dtype}");
    }
}

#[test]
fn a_frame_of_another_shape_is_refused_with_what_was_expected() {
    let mut rig = Rig::binned(|_| {});
    let fault = Fault::from(rig.try_push(0, rows(0, 3, &[1.0; 3])).unwrap_err());
    assert_eq!((fault.kind, fault.tensor.as_str()), (Kind::Invalid, "tensor"));
    assert_eq!((fault.expected.as_str(), fault.found.as_str()), ("[1, 2]", "[1, 3]"));
    assert!(matches!(rig.try_push(0, spikes(0, 1, &[])), Err(Refusal::Shape { tensor: "frame", .. })));
    let mut masked = rows(0, 2, &[1.0; 2]);
    masked.mask = Some(vec![true]);
    assert!(matches!(rig.try_push(0, masked), Err(Refusal::Shape { tensor: "mask", .. })));
    let mut rig = Rig::events(|_| {});
    assert!(matches!(rig.try_push(0, spikes(0, 10, &[(0, 10)])), Err(Refusal::Shape { tensor: "t_ns", .. })));
    assert!(matches!(rig.try_push(0, spikes(0, 10, &[(2, 1)])), Err(Refusal::Shape { tensor: "unit", .. })));
    assert!(matches!(rig.try_push(0, spikes(0, -1, &[])), Err(Refusal::Shape { tensor: "span_ns", .. })));
}

fn with_nan(policy: NanPolicy) -> Rig {
    let mut rig = Rig::binned(|plan| {
        plan.policies.nan = policy;
        plan.inputs[0].0.fill = Fill::Mean;
    });
    rig.push(rows(0, 2, &[1.0, 2.0, 3.0, 4.0]));
    let _ = rig.try_push(0, rows(2, 2, &[NAN, 6.0, f32::INFINITY, 6.0]));
    rig.push(rows(4, 2, &[7.0, 8.0]));
    rig
}

#[test]
fn a_value_that_is_not_finite_is_masked_and_filled_under_mask() {
    let rig = with_nan(NanPolicy::Mask);
    let row = &rig.bin(2).inputs[0];
    assert_eq!((&row.values[..], &row.mask[..]), (&[2.0, 6.0][..], &[false, true][..]));
    assert!(rig.bin(3).flags.has(Flags::MASKED | Flags::NAN_REPLACED));
    assert_eq!(rig.bin(4).flags, Flags::default());
    assert_eq!(rig.notices(EventKind::NanReplaced).len(), 1, "one event, not one per bin");
}

#[test]
fn a_value_that_is_not_finite_is_the_channels_last_under_hold_and_0_under_zero() {
    for (policy, value) in [(NanPolicy::Hold, 3.0), (NanPolicy::Zero, 0.0)] {
        let rig = with_nan(policy);
        assert_eq!(rig.bin(2).inputs[0].values, [value, 6.0]);
        assert_eq!(rig.bin(2).flags, Flags::NAN_REPLACED, "replaced, not masked");
    }
}

/// Rows 0 and 1 of 1 and 2, between them one whose first value is beyond f32: as it is, once it is scaled, or once it
/// is preprocessed.
fn with_a_value_beyond_f32(policy: NanPolicy, beyond: &str) -> Rig {
    let mut rig = Rig::binned(|plan| {
        plan.policies.nan = policy;
        match beyond {
            "scaled" => plan.signals[0].channels[0].scale = Some(1e30),
            "preprocessed" => {
                let chain = r#"[{"op": "scale", "factor": 1e30}]"#;
                plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap();
            }
            _ => {}
        }
    });
    let value = if beyond == "raw" { -1e300 } else { 1e20 };
    rig.push(wide_rows(0, 2, &[1.0, 2.0]));
    let _ = rig.try_push(0, wide_rows(1, 2, &[value, 2.0]));
    rig.push(wide_rows(2, 2, &[1.0, 2.0]));
    rig
}

#[test]
fn a_value_that_f32_cannot_hold_is_as_one_that_is_not_finite() {
    for beyond in ["raw", "scaled", "preprocessed"] {
        for policy in [NanPolicy::Mask, NanPolicy::Hold, NanPolicy::Zero] {
            let rig = with_a_value_beyond_f32(policy, beyond);
            let row = &rig.bin(1).inputs[0];
            let last = rig.bin(0).inputs[0].values[0];
            let expected = if policy == NanPolicy::Hold { last } else { 0.0 };
            assert_eq!(
                (row.values[0], row.mask[0]),
                (expected, policy != NanPolicy::Mask),
                "{beyond} {policy}"
            );
            assert_eq!(row.values[1], rig.bin(0).inputs[0].values[1]);
            let masked = if policy == NanPolicy::Mask { Flags::MASKED } else { Flags::default() };
            assert_eq!(rig.bin(1).flags, Flags::NAN_REPLACED | masked, "{beyond} {policy}");
            assert_eq!(rig.bin(2).flags, Flags::default());
            assert_eq!(rig.notices(EventKind::NanReplaced).len(), 1, "{beyond} {policy}");
        }
        let rig = with_a_value_beyond_f32(NanPolicy::Reject, beyond);
        let refused = if beyond == "raw" { Flags::GAP_FILLED } else { Flags::NAN_REPLACED | Flags::MASKED };
        assert_eq!(rig.bin(1).flags, refused, "{beyond}");
    }
    let mut rig = Rig::binned(|plan| plan.policies.nan = NanPolicy::Reject);
    let fault = Fault::from(rig.try_push(0, wide_rows(0, 2, &[1.0, 1e39])).unwrap_err());
    assert!(fault.consumed && fault.detail.contains("`b` is not finite as f32 in row 0: 1e39"), "{fault}");
}

#[test]
fn a_value_beyond_f32_spoils_no_statistics() {
    let zscored = |bad: f64| {
        let chain = r#"[{"op": "zscore", "mode": "running", "tau_s": 0.0}]"#;
        let mut rig = Rig::binned(|plan| plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap());
        rig.push(wide_rows(0, 2, &[1.0, 2.0, 3.0, 4.0, bad, 5.0, 2.0, 7.0]));
        rig.bin(3).inputs[0].clone()
    };
    assert_eq!(zscored(1e300), zscored(f64::NAN));
}

#[test]
fn under_reject_a_frame_with_nan_is_consumed_and_its_samples_are_a_gap_filled_with_the_next_frame() {
    let mut rig = Rig::binned(|plan| {
        plan.policies.nan = NanPolicy::Reject;
        plan.policies.gap = GapPolicy::Fail;
    });
    rig.push(rows(0, 2, &[1.0, 2.0]));
    let refusal = rig.try_push(0, rows(1, 2, &[5.0, 5.0, 3.0, NAN])).unwrap_err();
    assert!(matches!(&refusal, Refusal::NotFinite { channel, row: 1, .. } if channel == "b"));
    let fault = Fault::from(refusal);
    assert_eq!((fault.kind, fault.consumed), (Kind::Invalid, true));
    assert_eq!(rig.bins().len(), 1);
    rig.push(rows(3, 2, &[7.0, 8.0]));
    assert_eq!(rig.bin(2).inputs[0].values, [1.0, 2.0]);
    assert!(rig.bin(1).flags.has(Flags::GAP_FILLED) && rig.bin(2).flags.has(Flags::GAP_FILLED));
}

#[test]
fn a_first_frame_that_reject_refuses_gives_bin_0_its_place_and_is_a_gap() {
    let mut rig = Rig::binned(|plan| {
        plan.policies.nan = NanPolicy::Reject;
        plan.t0_ns = None;
    });
    assert!(rig.try_push(0, rows(0, 2, &[NAN, 2.0])).unwrap_err().consumed());
    rig.push(rows(1, 2, &[3.0, 4.0]));
    assert!(rig.bin(0).flags.has(Flags::GAP_FILLED));
    assert_eq!(rig.bin(1).inputs[0].values, [3.0, 4.0]);
}

#[test]
fn a_mask_stays_until_changed_and_is_left_out_of_statistics() {
    let chain = r#"[{"op": "zscore", "mode": "running", "tau_s": 0.0}]"#;
    let mut rig = Rig::binned(|plan| {
        plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap();
        plan.policies.nan = NanPolicy::Reject;
    });
    let masked = |mut frame: Frame, mask: [bool; 2]| {
        frame.mask = Some(mask.to_vec());
        frame
    };
    rig.push(rows(0, 2, &[1.0, 1.0, 3.0, 3.0]));
    rig.push(masked(rows(2, 2, &[1e9, 5.0]), [false, true]));
    rig.push(rows(3, 2, &[NAN, 6.0])); // a masked channel may hold anything
    assert_eq!(rig.bin(3).inputs[0].mask, [false, true]);
    assert!(rig.bin(3).flags.has(Flags::MASKED) && !rig.bin(3).flags.has(Flags::NAN_REPLACED));
    rig.push(masked(rows(4, 2, &[2.0, 2.0]), [true, true]));
    assert_eq!(rig.bin(4).inputs[0].mask, [true, true]);
    assert_eq!(rig.bin(4).inputs[0].values[0], 0.0, "mean of 1, 3, 2");
}

#[test]
fn a_masked_unit_of_events_is_masked_in_every_bin_of_the_stretch() {
    let mut rig = Rig::events(|_| {});
    let mut masked = spikes(0, 2 * WIDTH_NS as i64, &[(0, 1), (1, 2)]);
    masked.mask = Some(vec![true, false]);
    rig.push(masked);
    assert_eq!(rig.bin(0).inputs[0].values, [1.0, 0.0]);
    assert_eq!(rig.bin(1).inputs[0].mask, [true, false]);
}

#[test]
fn absent_channels_up_to_missing_ok_are_masked_and_filled() {
    let mut plan = plan(vec![binned_signal(&["b"])]);
    let mut input = named_input(&["a", "b"]);
    input.missing_ok = 1;
    plan.inputs = vec![(input, Some(0))];
    let mut rig = Rig::of(plan);
    rig.push(rows(0, 1, &[4.0]));
    assert_eq!(rig.values(), [(0, vec![0.0, 4.0])]);
    assert_eq!(rig.bin(0).inputs[0].mask, [false, true]);
    assert!(rig.bin(0).flags.has(Flags::MASKED) && !rig.bin(0).flags.has(Flags::NAN_REPLACED));
}

#[test]
fn a_flat_channel_is_0_and_reported_once() {
    let chain = r#"[{"op": "zscore", "mode": "running", "tau_s": 0.0}]"#;
    let mut rig = Rig::binned(|plan| plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap());
    rig.push(rows(0, 2, &[5.0, 1.0, 5.0, 2.0, 5.0, 3.0, 5.0, 4.0]));
    assert!(rig.bins().iter().all(|bin| bin.inputs[0].values[0] == 0.0));
    let flat = rig.notices(EventKind::FlatChannel);
    assert!(flat.len() == 1 && flat[0].count == 1 && flat[0].detail.ends_with(": a"), "{flat:?}");
}

#[test]
fn statistics_that_stood_still_for_longer_than_tau_are_an_event() {
    let chain = r#"[{"op": "zscore", "mode": "running", "tau_s": 0.1}]"#;
    let mut rig = Rig::binned(|plan| plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap());
    rig.push(rows(0, 2, &[1.0, 1.0, 2.0, 2.0]));
    let values: Vec<f32> = (0..8).flat_map(|i| [NAN, i as f32]).collect();
    rig.push(rows(2, 2, &values));
    let frozen = rig.notices(EventKind::StatsFrozen);
    assert!(frozen.len() == 1 && frozen[0].detail.ends_with(": a"), "{frozen:?}");
}

#[test]
fn calibration_bins_are_warming_up_and_a_gap_in_it_is_not_made_up_for() {
    let chain = r#"[{"op": "zscore", "mode": "calibration", "seconds": 0.08}]"#;
    let mut rig = Rig::binned(|plan| plan.inputs[0].0.chain = serde_json::from_str(chain).unwrap());
    rig.push(rows(0, 2, &[1.0, 1.0, 3.0, 3.0]));
    rig.push(rows(3, 2, &[2.0, 2.0, 3.0, 3.0]));
    let warm: Vec<bool> = rig.bins().iter().map(|bin| bin.flags.has(Flags::WARMING_UP)).collect();
    assert_eq!(warm, [true, true, true, true, false]);
    let std = (2.0f64 / 3.0).sqrt();
    assert_eq!(rig.bin(4).inputs[0].values[0], (1.0 / std) as f32);
}

#[test]
fn scale_and_offset_give_physical_values_before_the_chain() {
    let mut rig = Rig::binned(|plan| {
        (plan.signals[0].scale, plan.signals[0].offset) = (0.5, 1.0);
        plan.inputs[0].0.chain = serde_json::from_str(r#"[{"op": "sqrt"}]"#).unwrap();
    });
    rig.push(bytes(0, &[6, 16]));
    assert_eq!(rig.values(), [(0, vec![2.0, 3.0])]);
}

#[test]
fn targets_markers_and_signals_without_an_input_never_hold_a_bin() {
    let mut target = binned_signal(&["x"]);
    (target.name, target.kind, target.role) = ("stimulus".into(), SignalType::Continuous, SignalRole::Target);
    let mut rig = Rig::binned(|plan| plan.signals.push(target));
    rig.push(rows(0, 2, &[1.0, 2.0]));
    rig.push_to(1, rows(9, 1, &[NAN; 20]));
    assert_eq!(rig.bins().len(), 1);
    assert_eq!(rig.aligner.bin_of(1, 45_000_000), Some(2));
}

#[test]
fn two_inputs_may_be_fed_by_one_signal_each_through_its_own_chain() {
    let mut rig = Rig::binned(|plan| {
        let mut second = plan.inputs[0].0.clone();
        second.chain = serde_json::from_str(r#"[{"op": "scale", "factor": 10.0}]"#).unwrap();
        plan.inputs.push((second, Some(0)));
    });
    rig.push(rows(0, 2, &[1.0, 2.0]));
    assert_eq!(
        (&rig.bin(0).inputs[0].values[..], &rig.bin(0).inputs[1].values[..]),
        (&[1.0, 2.0][..], &[10.0, 20.0][..])
    );
}

#[test]
fn ops_and_signals_that_do_not_fit_are_sentences_at_open() {
    let refuse = |change: &dyn Fn(&mut crate::signal::plan::Plan)| {
        let mut plan = plan(vec![binned_signal(&["a", "b"])]);
        change(&mut plan);
        Aligner::new(plan).unwrap_err()
    };
    let error = refuse(&|plan| {
        plan.inputs[0].0.chain = serde_json::from_str(r#"[{"op": "notch", "hz": 50.0}]"#).unwrap()
    });
    assert_eq!(
        error.to_string(),
        "input `spikes`: preprocess[0].hz: expected below 25 Hz, half of the rate, found 50"
    );
    assert_eq!(Fault::from(error).kind, Kind::Invalid);
    let error = refuse(&|plan| plan.signals[0].bin_ms = Some(30.0)).to_string();
    assert_eq!(
        error,
        "signal `spikes`: bin_ms: expected the pipeline's 20 ms, or a whole part of it, found 30"
    );
    let error = refuse(&|plan| plan.inputs[0].1 = None).to_string();
    assert!(error.contains("a signal of the session that feeds it"), "{error}");
    let error = refuse(&|plan| plan.inputs[0].0.kind = SignalType::Continuous).to_string();
    assert!(error.contains("expected `continuous`, found `binned` (signal `spikes`)"), "{error}");
    let error = refuse(&|plan| plan.inputs[0].0.channels = InputChannels::Count(3)).to_string();
    assert!(error.contains("expected 3 channels, found 2"), "{error}");
}
