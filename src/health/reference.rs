//! What the training data were like, as the files beside a version tell it: proven numbers, ready to be held against.

/// Seconds of silence that have a chance under 10 to the power of minus this by the training data are no silence of a
/// living channel. So small, since an hour has 3,600 looks at every channel.
const DEAD_DECADES: f64 = 9.0;
/// Chance of a silent second that is assumed where training saw none, and where it saw nothing else.
const RARELY: f64 = 0.01;
const MOSTLY: f64 = 0.999;
/// Chance of a silent second of counts that nothing is known of.
const COUNTS: f64 = 0.9;
/// A value that differs by less than this share of the spread has not moved: the tail of a filter is silence.
const STILL: f64 = 1e-3;
/// Means over 10 s scatter by this share of the spread at least, whatever a short training says.
const LEAST_SCATTER: f64 = 0.02;
/// The share of the latents' covariance that is added to that of their means over 10 s, so that no direction is taken
/// for known better than the training data can tell.
const LATENT_FLOOR: f64 = 0.02;
/// The share of the mean variance that is added to every latent's, so that one that never varied can be divided by.
const RIDGE: f64 = 1e-6;
/// The most latents of one output: the look at them is quadratic in their number.
pub const MOST_LATENTS: usize = 256;

/// What is wrong with a number of a reference: which of its tensors, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The last part of the tensor's name.
    pub tensor: &'static str,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

fn wrong<T>(tensor: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { tensor, expected: expected.into(), found: found.into() })
}

/// The channels of an input in the training data, as the model was given them.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelReference {
    pub(super) columns: Vec<Column>,
}

/// One channel in the training data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) mean: f64,
    /// Standard deviation over bins; 0: it never varied, and cannot be judged.
    pub(super) spread: f64,
    /// Standard deviation of its means over 10 s.
    pub(super) scatter: f64,
    /// It is dead after so many silent seconds.
    pub(super) dead_s: f64,
    /// What a value must differ by from the one before.
    pub(super) still: f32,
}

impl ChannelReference {
    /// Per channel `[columns]`: mean and standard deviation over bins, the share of seconds in which it was silent, and
    /// the standard deviation of its means over 10 s. Without the last, a second of it is taken for one independent bin.
    /// Errors: a number that cannot be one.
    pub fn new(
        mean: &[f64],
        spread: &[f64],
        silence: &[f64],
        spread_10s: Option<&[f64]>,
    ) -> Result<Self, Wrong> {
        let range = |tensor, values: &[f64], most: f64, expected: &str| match values
            .iter()
            .position(|x| !(0.0..=most).contains(x))
        {
            Some(c) => wrong(tensor, expected, format!("{} in channel {c}", values[c])),
            None => Ok(()),
        };
        if let Some(c) = mean.iter().position(|x| !x.is_finite()) {
            return wrong("mean", "finite values", format!("{} in channel {c}", mean[c]));
        }
        range("spread", spread, f64::MAX, "finite values of 0 or above")?;
        range("silence", silence, 1.0, "shares of seconds, from 0 to 1")?;
        range("spread_10s", spread_10s.unwrap_or(&[]), f64::MAX, "finite values of 0 or above")?;
        let columns = (0..mean.len()).map(|c| {
            let unknown = spread[c] / (super::seconds::SECONDS as f64).sqrt();
            let scatter = spread_10s.map_or(unknown, |spread_10s| spread_10s[c]);
            Column {
                mean: mean[c],
                spread: spread[c],
                scatter: scatter.max(LEAST_SCATTER * spread[c]),
                dead_s: dead_s(silence[c]),
                still: (STILL * spread[c]) as f32,
            }
        });
        Ok(Self { columns: columns.collect() })
    }

    /// Its channels.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }
}

/// After so many silent seconds a channel is dead that is silent in this share of them.
fn dead_s(silence: f64) -> f64 {
    if silence > MOSTLY { f64::INFINITY } else { DEAD_DECADES / -silence.max(RARELY).log10() }
}

/// The same of a channel that nothing is known of: a sampled signal never stands still, a unit may be rare.
pub(super) fn dead_unknown_s(counts: bool) -> f64 {
    dead_s(if counts { COUNTS } else { RARELY })
}

/// An output's latents in the training data.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentReference {
    pub(super) mean: Vec<f64>,
    /// Lower factor of their covariance over bins.
    pub(super) factor: Vec<f64>,
    /// Lower factor of the covariance of their means over 10 s.
    pub(super) scatter: Vec<f64>,
}

impl LatentReference {
    /// `mean` `[d]`, their covariance over bins and that of their means over 10 s, `[d, d]`. Without the last, a second
    /// is taken for one independent bin.
    /// Errors: a number that cannot be one, a matrix that is no covariance, too many latents.
    pub fn new(mean: &[f64], covariance: &[f64], covariance_10s: Option<&[f64]>) -> Result<Self, Wrong> {
        let d = mean.len();
        if d > MOST_LATENTS {
            return wrong("mean", format!("at most {MOST_LATENTS} latents"), d.to_string());
        }
        if let Some(c) = mean.iter().position(|x| !x.is_finite()) {
            return wrong("mean", "finite values", format!("{} in latent {c}", mean[c]));
        }
        symmetric("covariance", covariance, d)?;
        let mut whole = covariance.to_vec();
        let ridge = RIDGE * (0..d).map(|i| covariance[i * d + i]).sum::<f64>() / d.max(1) as f64;
        (0..d).for_each(|i| whole[i * d + i] += ridge);
        let scatter: Vec<f64> = match covariance_10s {
            Some(known) => {
                symmetric("covariance_10s", known, d)?;
                known.iter().zip(&whole).map(|(known, whole)| known + LATENT_FLOOR * whole).collect()
            }
            None => whole.iter().map(|whole| whole / super::seconds::SECONDS as f64).collect(),
        };
        let Some(factor) = factor(&whole, d) else {
            return wrong("covariance", "a positive definite matrix", "one that is not");
        };
        let Some(scatter) = self::factor(&scatter, d) else {
            return wrong("covariance_10s", "a positive semidefinite matrix", "one that is not");
        };
        Ok(Self { mean: mean.to_vec(), factor, scatter })
    }

    /// Its latents.
    pub fn latents(&self) -> usize {
        self.mean.len()
    }
}

fn symmetric(tensor: &'static str, matrix: &[f64], d: usize) -> Result<(), Wrong> {
    if let Some(i) = matrix.iter().position(|x| !x.is_finite()) {
        return wrong(tensor, "finite values", format!("{} in row {}", matrix[i], i / d));
    }
    for (i, j) in (0..d).flat_map(|i| (0..i).map(move |j| (i, j))) {
        let (a, b) = (matrix[i * d + j], matrix[j * d + i]);
        if (a - b).abs() > 1e-4 * (matrix[i * d + i] * matrix[j * d + j]).abs().sqrt() {
            return wrong(tensor, "a symmetric matrix", format!("{a} and {b} across the diagonal"));
        }
    }
    Ok(())
}

/// The lower triangular L with L Lᵀ = `matrix`; `None`: it is not positive definite.
fn factor(matrix: &[f64], d: usize) -> Option<Vec<f64>> {
    let mut lower = vec![0.0; d * d];
    for i in 0..d {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| lower[i * d + k] * lower[j * d + k]).sum();
            let rest = matrix[i * d + j] - dot;
            lower[i * d + j] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / lower[j * d + j],
            };
        }
    }
    Some(lower)
}

/// |L⁻¹ x|²: how far `x` is, each direction measured by its own deviation. `solved` is overwritten, `[d]`.
pub(super) fn squared_distance(lower: &[f64], x: &[f64], solved: &mut [f64]) -> f64 {
    let d = x.len();
    for i in 0..d {
        let dot: f64 = lower[i * d..i * d + i].iter().zip(&solved[..i]).map(|(l, y)| l * y).sum();
        solved[i] = (x[i] - dot) / lower[i * d + i];
    }
    solved.iter().map(|y| y * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_measured_along_each_direction_by_its_own_deviation() {
        let reference = LatentReference::new(&[0.0, 0.0], &[4.0, 1.2, 1.2, 1.0], None).unwrap();
        let squared = squared_distance(&reference.factor, &[2.0, -1.0], &mut [0.0; 2]);
        // By hand: the inverse of the covariance is [1, -1.2; -1.2, 4] / 2.56.
        let expected = (4.0 + 2.0 * 1.2 * 2.0 + 4.0) / 2.56;
        assert!((squared - expected).abs() < 1e-4, "{squared} instead of {expected}");
    }

    #[test]
    fn silence_is_death_the_sooner_the_rarer_it_was() {
        let seconds: Vec<f64> = [0.0, 0.1, 0.9].map(dead_s).to_vec();
        assert!((seconds[0] - 4.5).abs() < 1e-9 && (seconds[1] - 9.0).abs() < 1e-9, "{seconds:?}");
        assert!((190.0..200.0).contains(&seconds[2]), "{seconds:?}");
        assert_eq!(dead_s(1.0), f64::INFINITY);
    }

    #[test]
    fn what_cannot_be_a_reference_is_named() {
        let told = |made: Result<ChannelReference, Wrong>| made.unwrap_err();
        let nan = told(ChannelReference::new(&[0.0, f64::NAN], &[1.0; 2], &[0.0; 2], None));
        assert_eq!((nan.tensor, nan.found.as_str()), ("mean", "NaN in channel 1"));
        let below = told(ChannelReference::new(&[0.0], &[-1.0], &[0.0], None));
        assert_eq!((below.tensor, below.found.as_str()), ("spread", "-1 in channel 0"));
        let share = told(ChannelReference::new(&[0.0], &[1.0], &[2.0], None));
        assert_eq!((share.tensor, share.expected.as_str()), ("silence", "shares of seconds, from 0 to 1"));
        let crooked = LatentReference::new(&[0.0; 2], &[1.0, 0.5, -0.5, 1.0], None).unwrap_err();
        assert_eq!((crooked.tensor, crooked.expected.as_str()), ("covariance", "a symmetric matrix"));
        let none = LatentReference::new(&[0.0; 2], &[1.0, 2.0, 2.0, 1.0], None).unwrap_err();
        assert_eq!((none.tensor, none.expected.as_str()), ("covariance", "a positive definite matrix"));
    }
}
