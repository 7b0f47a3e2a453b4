//! Bins of many messages as one that shows their extremes.

use super::part::Part;
use crate::domain::extremes::Extremes;
use crate::domain::tensor::Dtype;
use crate::wire::v1;

/// What is being thinned for those who chose alike.
#[derive(Debug, Default)]
pub(super) struct Thinning {
    /// Length of the unfilled gap since the last bin.
    gap: u64,
    interval: Option<Interval>,
}

/// Bins that the next message stands for.
#[derive(Debug)]
struct Interval {
    skipped_bins: u64,
    first_bin: u64,
    /// One past the last bin.
    until: u64,
    /// Bins that there were.
    present: u64,
    flags: u32,
    /// Messages that it lacks.
    dropped: u64,
    outputs: Vec<(u32, Vec<u32>, Extremes)>,
    /// Of its last bin.
    lag_us: Option<v1::Lag>,
    age_us: Option<f64>,
}

impl Thinning {
    /// Whether there is something to tell.
    pub(super) fn has_bins(&self) -> bool {
        self.interval.is_some()
    }

    /// Adds a part's bins, of the outputs chosen by number.
    pub(super) fn add(&mut self, part: &Part, chosen: &[bool], lag_us: Option<v1::Lag>, age_us: Option<f64>) {
        self.gap += part.skipped_bins;
        if part.n() == 0 {
            return;
        }
        // A gap within an interval shows in what is present of it.
        let skipped_bins = std::mem::take(&mut self.gap);
        let of_chosen = part.values.iter().filter(|values| chosen[values.number as usize]);
        let interval = self.interval.get_or_insert_with(|| Interval {
            skipped_bins,
            first_bin: part.first_bin,
            until: part.first_bin,
            present: 0,
            flags: 0,
            dropped: 0,
            outputs: of_chosen
                .clone()
                .map(|values| (values.number, values.dims.clone(), Extremes::new(values.dtype)))
                .collect(),
            lag_us: None,
            age_us: None,
        });
        interval.until = part.first_bin + part.n();
        interval.present += part.n();
        interval.flags |= part.flags.iter().fold(0, |all, flags| all | flags);
        (interval.lag_us, interval.age_us) = (lag_us, age_us);
        for ((_, _, extremes), values) in interval.outputs.iter_mut().zip(of_chosen) {
            extremes.add(&values.raw, part.flags.len());
        }
    }

    /// So many messages of the interval that is being made were lost.
    pub(super) fn miss(&mut self, messages: u64) {
        self.interval.iter_mut().for_each(|interval| interval.dropped += messages);
    }

    /// The message that stands for what was added since the last one: one row, with the interval that it covers.
    pub(super) fn give(&mut self) -> Option<v1::Output> {
        let interval = self.interval.take()?;
        let blocks = interval.outputs.into_iter().map(|(output, dims, extremes)| {
            let shape: Vec<u32> = std::iter::once(1).chain(dims).collect();
            let tensor = |raw: Vec<u8>| Some(row(extremes.dtype, &shape, raw));
            v1::Block {
                output,
                tensor: None,
                min: tensor(extremes.min),
                max: tensor(extremes.max),
                last: tensor(extremes.last),
            }
        });
        Some(v1::Output {
            first_bin: interval.first_bin,
            n: 1,
            skipped_bins: interval.skipped_bins,
            flags: vec![interval.flags],
            blocks: blocks.collect(),
            interval: Some(v1::Interval {
                bins: interval.until - interval.first_bin,
                present: interval.present,
            }),
            lag_us: interval.lag_us,
            age_us: interval.age_us,
            dropped: interval.dropped,
            ..Default::default()
        })
    }
}

fn row(dtype: Dtype, shape: &[u32], raw: Vec<u8>) -> v1::Tensor {
    v1::Tensor { dtype: dtype.word().into(), shape: shape.to_vec(), raw: raw.into(), values: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(skipped_bins: u64, first_bin: u64, bins: usize) -> Part {
        Part { skipped_bins, first_bin, flags: vec![0; bins], values: Vec::new() }
    }

    #[test]
    fn a_gap_shows_before_an_interval_or_in_what_is_present_of_it() {
        let mut thinning = Thinning::default();
        assert!(thinning.give().is_none());
        let mut give = |parts: &[Part]| {
            parts.iter().for_each(|part| thinning.add(part, &[], None, None));
            let output = thinning.give().unwrap();
            let interval = output.interval.unwrap();
            (output.skipped_bins, output.first_bin, interval.bins, interval.present)
        };
        assert_eq!(give(&[part(0, 0, 3)]), (0, 0, 3, 3));
        // Told on its own, before the bins behind it.
        assert_eq!(give(&[Part::empty(4, 7), part(0, 7, 2)]), (4, 7, 2, 2));
        assert_eq!(give(&[part(0, 9, 1), part(5, 15, 2), Part::empty(3, 20)]), (0, 9, 8, 3));
        assert_eq!(give(&[part(1, 21, 1)]), (4, 21, 1, 1));
    }
}
