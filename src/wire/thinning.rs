//! Values thinned to points: of each interval of bins the least, the greatest and the last value of every element.
//! Intervals lie side by side from the first bin asked for; one that holds no bin gives no point, and one that misses
//! some says how many it holds, so that a plot breaks its line there.

use bytemuck::Pod;

use crate::domain::tensor::{Dtype, Tensor};

/// What a point stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// First bin of its interval.
    pub first_bin: u64,
    /// Bins of its interval.
    pub bins: u64,
    /// How many of them there are.
    pub present: u64,
    /// Their flags, OR-ed.
    pub flags: u32,
}

/// Points with their values, in order.
#[derive(Clone, Debug)]
pub struct Thinned {
    /// The points.
    pub points: Vec<Point>,
    /// `[points, elements]`: the least value that is a number; NaN where none is.
    pub min: Tensor,
    /// The greatest value that is a number; NaN where none is.
    pub max: Tensor,
    /// The value of the last bin that is there, whatever it is.
    pub last: Tensor,
}

/// Takes bins in order, piece by piece, and keeps points alone.
#[derive(Debug)]
pub struct Thinner {
    from: u64,
    to: u64,
    width: u64,
    elements: usize,
    thinned: Thinned,
}

impl Thinner {
    /// Thins bins `from .. to` to at most `max_points` points (at least 1) of `elements` values.
    pub fn new(from: u64, to: u64, max_points: u64, dtype: Dtype, elements: usize) -> Self {
        let empty = Tensor::zeros(dtype, &[0, elements]);
        let thinned = Thinned { points: Vec::new(), min: empty.clone(), max: empty.clone(), last: empty };
        let width = to.saturating_sub(from).div_ceil(max_points.max(1)).max(1);
        Self { from, to, width, elements, thinned }
    }

    /// Bins of an interval; the last one may have fewer.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// Takes consecutive bins, all of them behind those before and within the range. `values`: `[flags.len(), elements]`.
    pub fn push(&mut self, first_bin: u64, flags: &[u32], values: &Tensor) {
        let mut at = 0;
        while at < flags.len() {
            let bin = first_bin + at as u64;
            let start = bin - (bin - self.from) % self.width;
            let end = start.saturating_add(self.width).min(self.to).max(bin + 1);
            let n = usize::try_from(end - bin).map_or(flags.len() - at, |n| n.min(flags.len() - at));
            self.point(start, end - start, values, at);
            if let Some(point) = self.thinned.points.last_mut() {
                point.present += n as u64;
                point.flags |= flags[at..at + n].iter().fold(0, |all, flags| all | flags);
            }
            self.fold(values, at..at + n);
            at += n;
        }
    }

    /// The points.
    pub fn finish(self) -> Thinned {
        self.thinned
    }

    /// Begins the point of an interval, if it has none yet, with the values of a row.
    fn point(&mut self, first_bin: u64, bins: u64, values: &Tensor, row: usize) {
        let Thinned { points, min, max, last } = &mut self.thinned;
        if points.last().is_some_and(|point| point.first_bin == first_bin) {
            return;
        }
        points.push(Point { first_bin, bins, present: 0, flags: 0 });
        let bytes = self.elements * values.dtype.size_bytes();
        for tensor in [min, max, last] {
            tensor.shape[0] = points.len();
            tensor.data.resize(points.len() * bytes);
            let place = (points.len() - 1) * bytes;
            let first = &values.data.bytes()[row * bytes..][..bytes];
            tensor.data.bytes_mut()[place..].copy_from_slice(first);
        }
    }

    /// Folds rows into the last point.
    fn fold(&mut self, values: &Tensor, rows: std::ops::Range<usize>) {
        let (f16, bf16) = (half::f16::from_bits, half::bf16::from_bits);
        match values.dtype {
            Dtype::F32 => self.fold_as(values, rows, |a: f32, b| a < b, f32::is_nan),
            Dtype::F64 => self.fold_as(values, rows, |a: f64, b| a < b, f64::is_nan),
            Dtype::F16 => self.fold_as(values, rows, |a: u16, b| f16(a) < f16(b), |x| f16(x).is_nan()),
            Dtype::Bf16 => self.fold_as(values, rows, |a: u16, b| bf16(a) < bf16(b), |x| bf16(x).is_nan()),
            Dtype::I8 => self.fold_as(values, rows, |a: i8, b| a < b, |_| false),
            Dtype::I16 => self.fold_as(values, rows, |a: i16, b| a < b, |_| false),
            Dtype::I32 => self.fold_as(values, rows, |a: i32, b| a < b, |_| false),
            Dtype::I64 => self.fold_as(values, rows, |a: i64, b| a < b, |_| false),
            Dtype::U8 | Dtype::Bool => self.fold_as(values, rows, |a: u8, b| a < b, |_| false),
            Dtype::U16 => self.fold_as(values, rows, |a: u16, b| a < b, |_| false),
            Dtype::U32 => self.fold_as(values, rows, |a: u32, b| a < b, |_| false),
            Dtype::U64 => self.fold_as(values, rows, |a: u64, b| a < b, |_| false),
        }
    }

    fn fold_as<T: Pod>(
        &mut self,
        values: &Tensor,
        rows: std::ops::Range<usize>,
        is_below: impl Fn(T, T) -> bool,
        is_nan: impl Fn(T) -> bool,
    ) {
        let Thinned { points, min, max, last } = &mut self.thinned;
        let place = (points.len() - 1) * self.elements;
        let rows = &values.values::<T>()[rows.start * self.elements..rows.end * self.elements];
        let (min, max) = (&mut min.values_mut::<T>()[place..], &mut max.values_mut::<T>()[place..]);
        for row in rows.chunks_exact(self.elements.max(1)) {
            for ((min, max), &value) in min.iter_mut().zip(max.iter_mut()).zip(row) {
                // A comparison with NaN is false: only a number takes its place.
                if is_below(value, *min) || is_nan(*min) {
                    *min = value;
                }
                if is_below(*max, value) || is_nan(*max) {
                    *max = value;
                }
            }
        }
        last.values_mut::<T>()[place..].copy_from_slice(&rows[rows.len() - self.elements..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn thin(from: u64, to: u64, points: u64, pieces: &[(u64, Vec<[f32; 2]>)]) -> Thinned {
        let mut thinner = Thinner::new(from, to, points, Dtype::F32, 2);
        for (first_bin, rows) in pieces {
            let flags: Vec<u32> = (0..rows.len()).map(|at| 1 << (at % 32)).collect();
            thinner.push(*first_bin, &flags, &Tensor::from_f32(&[rows.len(), 2], rows.as_flattened()));
        }
        thinner.finish()
    }

    #[test]
    fn a_point_has_least_greatest_and_last_of_its_bins_and_says_how_many_there_are() {
        let rows = vec![[3.0, -1.0], [f32::NAN, 4.0], [2.0, 0.5]];
        // Bins 10 to 12, then 17: two intervals of 4 of [10, 18).
        let thinned = thin(10, 18, 2, &[(10, rows), (17, vec![[f32::NAN, 8.0]])]);
        let point = |first_bin, present, flags| Point { first_bin, bins: 4, present, flags };
        assert_eq!(thinned.points, [point(10, 3, 0b111), point(14, 1, 1)]);
        assert_eq!(thinned.min.values::<f32>()[..2], [2.0, -1.0]);
        assert_eq!(thinned.max.values::<f32>()[..2], [3.0, 4.0]);
        assert_eq!(thinned.last.values::<f32>()[..2], [2.0, 0.5]);
        assert!(thinned.min.values::<f32>()[2].is_nan() && thinned.max.values::<f32>()[2].is_nan());
        assert_eq!(thinned.last.values::<f32>()[3], 8.0);
        assert_eq!(thinned.min.shape, [2, 2]);
    }

    #[test]
    fn integers_beyond_what_a_double_holds_are_told_apart() {
        let mut thinner = Thinner::new(0, 2, 1, Dtype::U64, 1);
        let mut values = Tensor::zeros(Dtype::U64, &[2, 1]);
        values.values_mut::<u64>().copy_from_slice(&[u64::MAX - 1, u64::MAX]);
        thinner.push(0, &[0, 0], &values);
        let thinned = thinner.finish();
        assert_eq!(thinned.min.values::<u64>(), [u64::MAX - 1]);
        assert_eq!(thinned.max.values::<u64>(), [u64::MAX]);
    }

    proptest! {
        #[test]
        fn however_the_bins_are_cut_there_are_no_more_points_than_asked_and_every_bin_is_in_one(
            len in 1usize..300, cut in 0usize..300, points in 1u64..40, from in 0u64..1000,
        ) {
            let rows: Vec<[f32; 2]> = (0..len).map(|at| [(at * 37 % 101) as f32, -(at as f32)]).collect();
            let to = from + len as u64;
            let cut = cut.min(len);
            let whole = thin(from, to, points, &[(from, rows.clone())]);
            let pieces = [(from, rows[..cut].to_vec()), (from + cut as u64, rows[cut..].to_vec())];
            let mut cut = Thinner::new(from, to, points, Dtype::F32, 2);
            for (first_bin, rows) in &pieces {
                let values = Tensor::from_f32(&[rows.len(), 2], rows.as_flattened());
                cut.push(*first_bin, &vec![0; rows.len()], &values);
            }
            let cut = cut.finish();
            prop_assert_eq!(&cut.min, &whole.min);
            prop_assert_eq!(&cut.max, &whole.max);
            prop_assert_eq!(&cut.last, &whole.last);
            prop_assert!(whole.points.len() as u64 <= points);
            prop_assert_eq!(whole.points.iter().map(|point| point.present).sum::<u64>(), len as u64);
            prop_assert!(whole.points.iter().all(|point| point.present == point.bins));
            let least = rows.iter().map(|row| row[0]).fold(f32::INFINITY, f32::min);
            let kept = whole.min.values::<f32>().iter().step_by(2).copied().fold(f32::INFINITY, f32::min);
            prop_assert_eq!(kept, least);
        }
    }
}
