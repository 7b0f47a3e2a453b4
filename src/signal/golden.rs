//! The golden vectors of the methods, through the chain as a manifest declares it, whole and in pieces.

use std::num::NonZeroU64;
use std::path::PathBuf;

use serde_json::Value;

use super::chain::{Chain, ChainSite};
use super::op::Op;
use super::testing::{Rig, spikes};
use crate::domain::signal::SignalType;
use crate::domain::time::ns_from_ms;

/// The cases of `golden/<name>.json`; empty, with one printed line, where the folder is not there.
#[expect(clippy::disallowed_methods, reason = "tests find the vectors by the environment")]
fn cases(name: &str) -> Vec<Value> {
    let shared = std::env::var_os("LATENTD_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let path = shared.join("golden").join(format!("{name}.json"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("not run: golden vectors of {name} ({} is not there; set LATENTD_SHARED)", path.display());
        return Vec::new();
    };
    let file: Value = serde_json::from_str(&text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn numbers(row: &Value) -> Vec<f64> {
    row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect()
}

/// `[T, channels]`.
fn rows(of: &Value) -> Vec<Vec<f64>> {
    of.as_array().unwrap().iter().map(numbers).collect()
}

fn chain(op: Value, step_ms: f64, channels: usize) -> Result<Chain, String> {
    let op: Op = serde_json::from_value(op).unwrap();
    let width = NonZeroU64::new(ns_from_ms(step_ms).unwrap()).unwrap();
    let kind = SignalType::SpikeEvents;
    let site = ChainSite { input: "x", kind, sample: None, bin_width_ns: width, channels };
    Chain::new(&[op], site).map_err(|error| error.to_string())
}

/// Every row through the chain: values, and whether the bin was warming up.
fn run(chain: &mut Chain, x: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<bool>) {
    let mut out = Vec::new();
    x.iter()
        .map(|row| {
            chain.bin(row, &mut out);
            (out.clone(), chain.warming_up())
        })
        .unzip()
}

fn assert_close(case: &Value, got: &[Vec<f64>], want: &[Vec<f64>]) {
    let (rel, abs) = (case["tolerance"]["rel"].as_f64().unwrap(), case["tolerance"]["abs"].as_f64().unwrap());
    assert_eq!(got.len(), want.len(), "{}", case["name"]);
    for (t, (got, want)) in got.iter().zip(want).enumerate() {
        for (c, (&g, &w)) in got.iter().zip(want).enumerate() {
            let agrees = (g.is_nan() && w.is_nan()) || (g - w).abs() <= abs + rel * w.abs();
            assert!(agrees, "{}: row {t}, channel {c}: got {g}, expected {w}", case["name"]);
        }
    }
}

#[test]
fn causal_smoothing_agrees_with_its_golden_vectors() {
    for case in cases("causal_smoothing") {
        let params = &case["params"];
        let mut op = serde_json::json!({ "op": "smooth", "kernel": params["kind"] });
        for key in ["tau_ms", "sigma_ms", "truncate", "extent"] {
            if !params[key].is_null() {
                op[key] = params[key].clone();
            }
        }
        match params["start"].as_str() {
            Some("first") => op["init"] = "steady".into(),
            Some("zero") => op["init"] = "zero".into(),
            _ => {}
        }
        let x = rows(&case["input"]["x"]);
        let mut chain = chain(op, params["dt_ms"].as_f64().unwrap(), x[0].len()).unwrap();
        assert_close(&case, &run(&mut chain, &x).0, &rows(&case["expected"]["y"]));
        if let Some(kernel) = case["expected"]["kernel"].as_array() {
            let delay = kernel.iter().enumerate().map(|(j, g)| j as f64 * g.as_f64().unwrap()).sum::<f64>();
            assert!((chain.delay_ms() - delay * params["dt_ms"].as_f64().unwrap()).abs() < 1e-9);
        }
    }
}

#[test]
fn running_zscore_agrees_with_its_golden_vectors() {
    for case in cases("running_zscore_tau") {
        let params = &case["params"];
        let op = serde_json::json!({ "op": "zscore", "mode": "running", "tau_s": params["tau_s"] });
        let x = rows(&case["input"]["x"]);
        let mut chain = chain(op, params["bin_ms"].as_f64().unwrap(), x[0].len()).unwrap();
        assert_close(&case, &run(&mut chain, &x).0, &rows(&case["expected"]["z"]));
    }
}

#[test]
fn calibration_zscore_agrees_with_its_golden_vectors() {
    for case in cases("calibration_zscore") {
        let params = &case["params"];
        let op = serde_json::json!({ "op": "zscore", "mode": "calibration", "seconds": params["seconds"] });
        let x = rows(&case["input"]["x"]);
        let built = chain(op, params["bin_ms"].as_f64().unwrap(), x[0].len());
        if case["expected"]["error"] == true {
            assert!(built.unwrap_err().contains("shorter than one step"));
            continue;
        }
        let (z, warming_up) = run(&mut built.unwrap(), &x);
        assert_close(&case, &z, &rows(&case["expected"]["z"]));
        let expected = case["expected"]["warming_up"].as_array().unwrap();
        assert_eq!(warming_up, expected.iter().map(|w| w.as_bool().unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn binning_agrees_with_its_golden_vectors_whole_and_in_pieces() {
    for case in cases("binning") {
        let (params, expected) = (&case["params"], &case["expected"]);
        let of = |key: &str| params[key].as_i64().unwrap();
        let (t0, width, n) = (of("t0_ns"), of("width_ns"), of("n_bins"));
        let times: Vec<i64> =
            case["input"]["spike_times_ns"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap()).collect();
        let end = t0 + n * width;
        for piece in [n * width + 1_000_000_000, width / 3 + 1] {
            let mut rig = Rig::events(|plan| {
                plan.width_ns = NonZeroU64::new(width as u64).unwrap();
                plan.inputs[0].0.bin_width_ns = plan.width_ns;
                plan.t0_ns = Some(t0);
            });
            let mut from = t0 - 1_000_000_000;
            while from < end {
                let to = (from + piece).min(end);
                let inside: Vec<(u32, i64)> =
                    times.iter().filter(|t| (from..to).contains(*t)).map(|t| (0, *t)).collect();
                rig.push(spikes(from, to, &inside));
                from = to;
            }
            let counts: Vec<f64> = rig.values().iter().map(|v| f64::from(v.1[0])).collect();
            assert_eq!(counts, numbers(&expected["counts"]), "{}", case["name"]);
            assert_eq!(
                rig.aligner.counts().before_start,
                expected["before"].as_u64().unwrap(),
                "{}",
                case["name"]
            );
            let after = times.iter().filter(|t| **t >= end).count() as u64;
            assert_eq!(after, expected["after"].as_u64().unwrap());
        }
    }
}
