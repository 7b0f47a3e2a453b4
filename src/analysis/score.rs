//! How well one series of numbers stands for another: R², mean squared error, Pearson's r.

use ndarray::{ArrayView1, ArrayView2, Axis};

use super::{AnalysisError, Metric, Undefined};

/// R² per output and over all outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct R2 {
    /// R² of each output.
    pub per_output: Vec<Metric>,
    /// Mean over outputs, each of equal weight.
    pub uniform_average: Metric,
    /// Mean over outputs, weighted by their variance.
    pub variance_weighted: Metric,
}

/// Coefficient of determination, 1 − SSres / SStot, of `predicted` about `truth`; both `[samples, outputs]`.
///
/// A constant output counts 1 if it is met exactly and 0 otherwise, with the reason `zero_variance`; if all outputs are
/// constant, the weighted form is the uniform average. Fewer than two samples: no value, `too_few_samples`.
/// Errors: shapes that differ; a number that is not finite. Source: scikit-learn `metrics.r2_score`.
pub fn r2_score(truth: ArrayView2<f64>, predicted: ArrayView2<f64>) -> Result<R2, AnalysisError> {
    same_shape(&truth, &predicted)?;
    finite("truth", &truth)?;
    finite("predicted", &predicted)?;
    let (samples, outputs) = truth.dim();
    if samples < 2 || outputs == 0 {
        let none = Metric::undefined(Undefined::TooFewSamples);
        let per_output = vec![none; outputs];
        return Ok(R2 { per_output, uniform_average: none, variance_weighted: none });
    }
    let mut per_output = Vec::with_capacity(outputs);
    let (mut plain, mut weighted, mut weights, mut constant) = (0.0, 0.0, 0.0, 0usize);
    for (truth, predicted) in truth.axis_iter(Axis(1)).zip(predicted.axis_iter(Axis(1))) {
        let mean = truth.sum() / samples as f64;
        let total: f64 = truth.iter().map(|x| (x - mean).powi(2)).sum();
        let residual: f64 = truth.iter().zip(&predicted).map(|(x, y)| (x - y).powi(2)).sum();
        let metric = if total == 0.0 {
            constant += 1;
            let value = if residual == 0.0 { 1.0 } else { 0.0 };
            Metric { value: Some(value), reason: Some(Undefined::ZeroVariance) }
        } else {
            Metric::of(1.0 - residual / total)
        };
        let value = metric.value.unwrap_or_default();
        plain += value;
        weighted += total * value;
        weights += total;
        per_output.push(metric);
    }
    let reason = (constant > 0).then_some(Undefined::ZeroVariance);
    let uniform_average = Metric { value: Some(plain / outputs as f64), reason };
    let variance_weighted = if constant == outputs {
        uniform_average
    } else {
        Metric { value: Some(weighted / weights), reason }
    };
    Ok(R2 { per_output, uniform_average, variance_weighted })
}

/// Mean squared error: per output, and their mean. In the square of the input's unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Mse {
    /// Mean over samples, of each output.
    pub per_output: Vec<f64>,
    /// Mean over outputs.
    pub mean: f64,
}

/// Mean squared error of `predicted` against `truth`; both `[samples, outputs]`.
///
/// Errors: shapes that differ, a number that is not finite, no samples. Source: scikit-learn `mean_squared_error`.
pub fn mse(truth: ArrayView2<f64>, predicted: ArrayView2<f64>) -> Result<Mse, AnalysisError> {
    same_shape(&truth, &predicted)?;
    finite("truth", &truth)?;
    finite("predicted", &predicted)?;
    let (samples, outputs) = truth.dim();
    if samples == 0 || outputs == 0 {
        return Err(AnalysisError::TooFew { what: "truth", expected: 1, found: 0 });
    }
    let squared = |(truth, predicted): (ArrayView1<f64>, ArrayView1<f64>)| {
        truth.iter().zip(&predicted).map(|(x, y)| (x - y).powi(2)).sum::<f64>() / samples as f64
    };
    let per_output: Vec<f64> =
        truth.axis_iter(Axis(1)).zip(predicted.axis_iter(Axis(1))).map(squared).collect();
    let mean = per_output.iter().sum::<f64>() / outputs as f64;
    Ok(Mse { per_output, mean })
}

/// Pearson's correlation of two series, in [−1, 1].
///
/// Centred before it is normalised, so that a large offset survives. A constant series: no value, `zero_variance`; a
/// number that is not finite: no value, `not_finite`.
/// Errors: lengths that differ, fewer than two samples. Source: scipy `stats.pearsonr`.
pub fn pearson_r(x: ArrayView1<f64>, y: ArrayView1<f64>) -> Result<Metric, AnalysisError> {
    if x.len() != y.len() {
        let (expected, found) = (vec![x.len()], vec![y.len()]);
        return Err(AnalysisError::Shapes { what: "y", expected, found });
    }
    if x.len() < 2 {
        return Err(AnalysisError::TooFew { what: "x", expected: 2, found: x.len() });
    }
    if !x.iter().chain(&y).all(|value| value.is_finite()) {
        return Ok(Metric::undefined(Undefined::NotFinite));
    }
    // Why compare and not compute: the mean of equal numbers may differ from them in the last bit.
    if x.iter().all(|value| *value == x[0]) || y.iter().all(|value| *value == y[0]) {
        return Ok(Metric::undefined(Undefined::ZeroVariance));
    }
    if x.len() == 2 {
        return Ok(Metric::of(((x[1] - x[0]).signum() * (y[1] - y[0]).signum()).clamp(-1.0, 1.0)));
    }
    let (x, x_norm) = centred(&x);
    let (y, y_norm) = centred(&y);
    let r: f64 = x.iter().zip(&y).map(|(x, y)| (x / x_norm) * (y / y_norm)).sum();
    Ok(Metric::of(r.clamp(-1.0, 1.0)))
}

/// The series without its mean, and the norm of what is left, scaled so that no square overflows.
fn centred(series: &ArrayView1<f64>) -> (Vec<f64>, f64) {
    let mean = series.sum() / series.len() as f64;
    let centred: Vec<f64> = series.iter().map(|value| value - mean).collect();
    let largest = centred.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let norm = largest * centred.iter().map(|value| (value / largest).powi(2)).sum::<f64>().sqrt();
    (centred, norm)
}

fn same_shape(truth: &ArrayView2<f64>, predicted: &ArrayView2<f64>) -> Result<(), AnalysisError> {
    if truth.dim() == predicted.dim() {
        return Ok(());
    }
    let (expected, found) = (truth.shape().to_vec(), predicted.shape().to_vec());
    Err(AnalysisError::Shapes { what: "predicted", expected, found })
}

fn finite(what: &'static str, values: &ArrayView2<f64>) -> Result<(), AnalysisError> {
    match values.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((row, column), _)) => Err(AnalysisError::NotFinite { what, row, column }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ndarray::{Array1, Array2, array};
    use serde_json::Value;

    use super::*;

    /// The cases of a golden file; `None`, with one printed line, where the folder is not there.
    #[expect(clippy::disallowed_methods, reason = "tests find what is shared with them by the environment")]
    fn golden(method: &str) -> Option<Vec<Value>> {
        let shared = std::env::var_os("LATENTD_SHARED")
            .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from);
        let path = shared.join("golden").join(format!("{method}.json"));
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("not run: {method} against its golden vectors, no {}", path.display());
            return None;
        };
        let file: Value = serde_json::from_str(&text).unwrap();
        Some(file["cases"].as_array().unwrap().clone())
    }

    fn number(value: &Value) -> f64 {
        value.as_f64().unwrap_or(f64::NAN)
    }

    fn matrix(value: &Value) -> Array2<f64> {
        let rows = value.as_array().unwrap();
        let columns = rows.first().map_or(0, |row| row.as_array().unwrap().len());
        let flat = rows.iter().flat_map(|row| row.as_array().unwrap().iter().map(number)).collect();
        Array2::from_shape_vec((rows.len(), columns), flat).unwrap()
    }

    fn series(value: &Value) -> Array1<f64> {
        value.as_array().unwrap().iter().map(number).collect()
    }

    fn agrees(case: &Value, what: &str, got: Option<f64>, expected: &Value) {
        let (rel, abs) = (number(&case["tolerance"]["rel"]), number(&case["tolerance"]["abs"]));
        let expected = expected.as_f64();
        let near = match (got, expected) {
            (Some(got), Some(expected)) => (got - expected).abs() <= abs + rel * expected.abs(),
            (None, None) => true,
            _ => false,
        };
        assert!(near, "{}: {what}: got {got:?}, expected {expected:?}", case["name"]);
    }

    #[test]
    fn r2_equals_its_golden_vectors() {
        for case in golden("r2_score").unwrap_or_default() {
            let input = &case["input"];
            let got = r2_score(matrix(&input["y_true"]).view(), matrix(&input["y_pred"]).view());
            let expected = &case["expected"];
            if expected["error"] == true {
                assert!(got.is_err(), "{}", case["name"]);
                continue;
            }
            let got = got.unwrap();
            agrees(&case, "uniform", got.uniform_average.value, &expected["uniform_average"]);
            agrees(&case, "weighted", got.variance_weighted.value, &expected["variance_weighted"]);
            for (got, expected) in got.per_output.iter().zip(expected["raw_values"].as_array().unwrap()) {
                agrees(&case, "per output", got.value, expected);
            }
        }
    }

    #[test]
    fn mse_equals_its_golden_vectors() {
        for case in golden("mse").unwrap_or_default() {
            let input = &case["input"];
            let got = mse(matrix(&input["y_true"]).view(), matrix(&input["y_pred"]).view());
            if case["expected"]["error"] == true {
                assert!(got.is_err(), "{}", case["name"]);
                continue;
            }
            let got = got.unwrap();
            agrees(&case, "mse", Some(got.mean), &case["expected"]["mse"]);
            for (got, expected) in
                got.per_output.iter().zip(case["expected"]["raw_values"].as_array().unwrap())
            {
                agrees(&case, "per output", Some(*got), expected);
            }
        }
    }

    #[test]
    fn pearson_r_equals_its_golden_vectors() {
        for case in golden("pearson_r").unwrap_or_default() {
            let input = &case["input"];
            let got = pearson_r(series(&input["x"]).view(), series(&input["y"]).view());
            if case["expected"]["error"] == true {
                assert!(got.is_err(), "{}", case["name"]);
                continue;
            }
            agrees(&case, "r", got.unwrap().value, &case["expected"]["r"]);
        }
    }

    #[test]
    fn what_is_undefined_is_a_reason_and_what_is_wrong_names_its_place() {
        let constant = r2_score(array![[2.0], [2.0]].view(), array![[1.0], [2.0]].view()).unwrap();
        assert_eq!(constant.uniform_average.value, Some(0.0));
        assert_eq!(constant.uniform_average.reason, Some(Undefined::ZeroVariance));
        let single = r2_score(array![[2.0]].view(), array![[2.0]].view()).unwrap();
        assert_eq!(single.variance_weighted, Metric::undefined(Undefined::TooFewSamples));
        let flat = pearson_r(array![0.1, 0.1, 0.1].view(), array![1.0, 2.0, 3.0].view()).unwrap();
        assert_eq!(flat, Metric::undefined(Undefined::ZeroVariance));
        let bad = mse(array![[1.0, 2.0]].view(), array![[1.0, f64::NAN]].view());
        assert_eq!(bad, Err(AnalysisError::NotFinite { what: "predicted", row: 0, column: 1 }));
        let shapes = r2_score(array![[1.0]].view(), array![[1.0, 2.0]].view()).unwrap_err();
        assert_eq!(
            shapes.to_string(),
            "predicted: expected shape [1, 1] as of the first input, found [1, 2]"
        );
    }
}
