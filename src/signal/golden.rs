//! The golden vectors of the methods, through the chain as a manifest declares it, whole and in pieces.

use std::num::NonZeroU64;
use std::path::PathBuf;

use serde_json::Value;

use super::chain::{Chain, ChainSite, Columns, Report};
use super::op::Op;
use super::pace::Pace;
use super::testing::{Rig, spikes};
use crate::domain::signal::SignalType;
use crate::domain::time::{Rate, ns_from_ms};

/// The folder of the vectors.
#[expect(clippy::disallowed_methods, reason = "tests find the vectors by the environment")]
fn golden() -> PathBuf {
    let shared = std::env::var_os("LATENTD_SHARED").map(PathBuf::from);
    shared.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared")).join("golden")
}

/// The cases of `golden/<name>.json`; empty, with one printed line, where the folder is not there.
fn cases(name: &str) -> Vec<Value> {
    let path = golden().join(format!("{name}.json"));
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

fn columns(names: &[String], groups: &[String]) -> Columns {
    let one = |c: usize| (names[c].clone(), groups.get(c).cloned().unwrap_or_default(), vec![c]);
    (0..names.len()).map(one).collect()
}

fn numbered(channels: usize) -> Columns {
    columns(&(0..channels).map(|c| c.to_string()).collect::<Vec<_>>(), &[])
}

fn chain(op: Value, step_ms: f64, channels: usize) -> Result<Chain, String> {
    let op: Op = serde_json::from_value(op).unwrap();
    let width = NonZeroU64::new(ns_from_ms(step_ms).unwrap()).unwrap();
    let kind = SignalType::SpikeEvents;
    let site = ChainSite { kind, sample: None, bin_width_ns: width, channels: numbered(channels) };
    Chain::new(&[op], site).map_err(|error| error.to_string())
}

/// The op of a case's parameters, without those that say where it runs.
fn op_of(params: &Value) -> Result<Op, serde_json::Error> {
    let mut op = params.clone();
    for key in ["fs_hz", "bin_ms", "delay_at_hz", "pieces"] {
        op.as_object_mut().unwrap().remove(key);
    }
    serde_json::from_value(op)
}

/// A chain over samples of `fs_hz`, in bins of `bin_ms`.
fn sampled(params: &Value, bin_ms: f64, channels: Columns) -> Result<Chain, String> {
    let op = op_of(params).map_err(|error| error.to_string())?;
    let fs_hz = params["fs_hz"].as_f64().unwrap_or(100.0);
    assert_eq!(fs_hz.fract(), 0.0);
    let site = ChainSite {
        kind: SignalType::Continuous,
        sample: Some(Pace::of_rate(Rate::new(fs_hz as u32, 1).unwrap())),
        bin_width_ns: NonZeroU64::new(ns_from_ms(bin_ms).unwrap()).unwrap(),
        channels,
    };
    Chain::new(&[op], site).map_err(|error| error.to_string())
}

/// `[T, channels]` of an input, also one beside its file.
fn samples(of: &Value) -> Vec<Vec<f64>> {
    let Some(file) = of["npy"].as_str() else { return rows(of) };
    let bytes = std::fs::read(golden().join(file)).unwrap();
    // Version 1 of the format: 10 bytes, the header's length, the header, then f64 in C order; here one channel.
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let head = String::from_utf8_lossy(&bytes[10..header]).into_owned();
    assert!(head.contains("'<f8'") && head.contains("False") && head.contains(", 1)"), "{head}");
    bytes[header..].chunks_exact(8).map(|x| vec![f64::from_le_bytes(x.try_into().unwrap())]).collect()
}

/// The pieces that a case names, or the whole.
fn pieces(case: &Value, total: usize) -> Vec<usize> {
    let named = case["params"]["pieces"].as_array();
    named.map_or(vec![total], |pieces| pieces.iter().map(|n| n.as_u64().unwrap() as usize).collect())
}

/// Samples through the ops before `bin`, in these pieces: `[kept, columns]`.
fn through(chain: &mut Chain, x: &[Vec<f64>], pieces: &[usize], columns: usize) -> Vec<Vec<f64>> {
    let (mut out, mut from) = (Vec::new(), 0);
    for n in pieces {
        let mut rows = x[from..from + n].concat();
        let index: Vec<i128> = (from..from + n).map(|i| i as i128).collect();
        chain.sample(&mut rows, &index);
        out.extend(rows.chunks_exact(columns).map(<[f64]>::to_vec));
        from += n;
    }
    out
}

/// Samples bin by bin: values, and whether the bin was warming up. A last bin that is not full is left out.
fn binned(chain: &mut Chain, x: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<bool>) {
    let n = chain.samples_per_bin() as usize;
    let mut out = Vec::new();
    x.chunks_exact(n)
        .enumerate()
        .map(|(k, bin)| {
            let mut rows = bin.concat();
            let index: Vec<i128> = (k * n..(k + 1) * n).map(|i| i as i128).collect();
            chain.sample(&mut rows, &index);
            chain.bin(&rows, &mut out);
            (out.clone(), chain.warming_up())
        })
        .unzip()
}

/// Filters sample by sample, their delays, and what is refused; whole and in the case's pieces.
fn filters_agree(file: &str) {
    for case in cases(file) {
        let (params, expected) = (&case["params"], &case["expected"]);
        let x = samples(&case["input"]["x"]);
        let channels = x[0].len();
        let build = || sampled(params, 1000.0, numbered(channels));
        if expected["error"] == true {
            assert!(build().is_err(), "{}", case["name"]);
            continue;
        }
        let mut chain = build().unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
        let want = rows(&expected["y"]);
        let whole = through(&mut chain, &x, &[x.len()], channels);
        assert_close(&case, &whole, &want);
        let cut = through(&mut build().unwrap(), &x, &pieces(&case, x.len()), channels);
        let single = through(&mut build().unwrap(), &x, &vec![1; x.len()], channels);
        let bits = |rows: &[Vec<f64>]| rows.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&cut), bits(&whole), "{}", case["name"]);
        assert_eq!(bits(&single), bits(&whole), "{}", case["name"]);
        let delay_ms = expected["delay_ms"].as_f64().unwrap();
        assert!((chain.delay_ms() / delay_ms - 1.0).abs() < 1e-9, "{}: {}", case["name"], chain.delay_ms());
    }
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
fn butterworth_agrees_with_its_golden_vectors_however_it_is_cut() {
    filters_agree("causal_iir");
}

#[test]
fn notch_agrees_with_its_golden_vectors_however_it_is_cut() {
    filters_agree("notch");
}

#[test]
fn decimate_agrees_with_its_golden_vectors_however_it_is_cut() {
    filters_agree("decimate");
}

#[test]
fn reference_agrees_with_its_golden_vectors() {
    for case in cases("reference") {
        let (input, expected) = (&case["input"], &case["expected"]);
        let texts = |key: &str| -> Vec<String> {
            input[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let built = sampled(&case["params"], 1000.0, columns(&texts("channels"), &texts("groups")));
        if expected["error"] == true {
            assert!(built.is_err(), "{}", case["name"]);
            continue;
        }
        let mut x = rows(&input["x"]);
        for (t, row) in x.iter_mut().enumerate() {
            let mask = &input["mask"];
            let mask = mask[t].as_array().or(mask.as_array()).unwrap();
            row.iter_mut().zip(mask).filter(|(_, good)| **good == false).for_each(|(x, _)| *x = f64::NAN);
        }
        let want = rows(&expected["y"]);
        let got = through(&mut built.unwrap(), &x, &[x.len()], want[0].len());
        assert_close(&case, &got, &want);
        for (got, good) in got.iter().zip(expected["mask"].as_array().unwrap()) {
            let good: Vec<bool> = good.as_array().unwrap().iter().map(|good| *good == true).collect();
            assert_eq!(got.iter().map(|x| !x.is_nan()).collect::<Vec<_>>(), good, "{}", case["name"]);
        }
    }
}

#[test]
fn threshold_crossings_agree_with_their_golden_vectors_however_they_are_cut() {
    for case in cases("threshold_crossings") {
        let (params, expected) = (&case["params"], &case["expected"]);
        let x = samples(&case["input"]["x"]);
        let channels = x[0].len();
        let build = || sampled(params, params["bin_ms"].as_f64().unwrap(), numbered(channels));
        if expected["error"] == true {
            assert!(build().is_err(), "{}", case["name"]);
            continue;
        }
        let mut chain = build().unwrap();
        let (counts, warming_up) = binned(&mut chain, &x);
        assert_eq!(counts, rows(&expected["counts"]), "{}", case["name"]);
        let expected_warm = expected["warming_up"].as_array().unwrap().iter();
        assert_eq!(warming_up, expected_warm.map(|w| *w == true).collect::<Vec<_>>(), "{}", case["name"]);
        assert_close(&case, &[chain.thresholds().to_vec()], &[numbers(&expected["threshold"])]);
        let flat: Vec<bool> = (0..channels).map(|c| chain.reports().contains(&Report::Flat(c))).collect();
        let expected_flat = expected["flat"].as_array().unwrap().iter();
        assert_eq!(flat, expected_flat.map(|flat| *flat == true).collect::<Vec<_>>(), "{}", case["name"]);
        for pieces in [pieces(&case, x.len()), vec![1; x.len()]] {
            let rows = through(&mut build().unwrap(), &x, &pieces, channels);
            for (c, at) in expected["crossings"].as_array().unwrap().iter().enumerate() {
                let got = (0..rows.len()).filter(|t| rows[*t][c] == 1.0).map(|t| t as f64);
                assert_eq!(got.collect::<Vec<_>>(), numbers(at), "{}", case["name"]);
            }
        }
    }
}

#[test]
fn band_power_agrees_with_its_golden_vectors() {
    for case in cases("band_power_stream") {
        let (params, expected) = (&case["params"], &case["expected"]);
        let x = samples(&case["input"]["x"]);
        let built = sampled(params, params["bin_ms"].as_f64().unwrap(), numbered(x[0].len()));
        if expected["error"] == true {
            assert!(built.is_err(), "{}", case["name"]);
            continue;
        }
        let mut chain = built.unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
        let (power, warming_up) = binned(&mut chain, &x);
        assert_close(&case, &power, &rows(&expected["power"]));
        let expected_warm = expected["warming_up"].as_array().unwrap().iter();
        assert_eq!(warming_up, expected_warm.map(|w| *w == true).collect::<Vec<_>>(), "{}", case["name"]);
        let fs_hz = params["fs_hz"].as_f64().unwrap();
        let delay_ms = expected["samples"].as_f64().unwrap() / (2.0 * fs_hz) * 1e3;
        assert!((chain.delay_ms() - delay_ms).abs() < 1e-9, "{}", case["name"]);
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
