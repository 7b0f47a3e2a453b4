//! Values thinned to points: of each interval of bins the least, the greatest and the last value of every element.
//! Intervals lie side by side from the first bin asked for; one that holds no bin gives no point, and one that misses
//! some says how many it holds, so that a plot breaks its line there.

use crate::domain::extremes::Extremes;
use crate::domain::tensor::Dtype;

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

/// Points with their values, in order, as raw little-endian bytes.
#[derive(Clone, Debug, Default)]
pub struct Thinned {
    /// The points.
    pub points: Vec<Point>,
    /// `[points, elements]`: the least value that is a number; NaN where none is.
    pub min: Vec<u8>,
    /// The greatest value that is a number; NaN where none is.
    pub max: Vec<u8>,
    /// The value of the last bin that is there, whatever it is.
    pub last: Vec<u8>,
}

/// Takes bins in order, piece by piece, and keeps points alone.
#[derive(Debug)]
pub struct Thinner {
    from: u64,
    to: u64,
    width: u64,
    thinned: Thinned,
    /// Of the last point, whose bins may go on.
    open: Extremes,
}

impl Thinner {
    /// Thins bins `from .. to` to at most `max_points` points (at least 1).
    pub fn new(from: u64, to: u64, max_points: u64, dtype: Dtype) -> Self {
        let width = to.saturating_sub(from).div_ceil(max_points.max(1)).max(1);
        Self { from, to, width, thinned: Thinned::default(), open: Extremes::new(dtype) }
    }

    /// Bins of an interval; the last one may have fewer.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// Takes consecutive bins, all of them behind those before and within the range. `values`: `[flags.len(), elements]`, raw.
    pub fn push(&mut self, first_bin: u64, flags: &[u32], values: &[u8]) {
        let bytes = values.len() / flags.len().max(1);
        let mut at = 0;
        while at < flags.len() {
            let bin = first_bin + at as u64;
            let start = bin - (bin - self.from) % self.width;
            let end = start.saturating_add(self.width).min(self.to).max(bin + 1);
            let n = usize::try_from(end - bin).map_or(flags.len() - at, |n| n.min(flags.len() - at));
            if self.thinned.points.last().is_none_or(|point| point.first_bin != start) {
                self.close();
                self.thinned.points.push(Point { first_bin: start, bins: end - start, present: 0, flags: 0 });
            }
            if let Some(point) = self.thinned.points.last_mut() {
                point.present += n as u64;
                point.flags |= flags[at..at + n].iter().fold(0, |all, flags| all | flags);
            }
            self.open.add(&values[at * bytes..(at + n) * bytes], n);
            at += n;
        }
    }

    /// The points.
    pub fn finish(mut self) -> Thinned {
        self.close();
        self.thinned
    }

    /// The last point has its values.
    fn close(&mut self) {
        self.thinned.min.extend_from_slice(&self.open.min);
        self.thinned.max.extend_from_slice(&self.open.max);
        self.thinned.last.extend_from_slice(&self.open.last);
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<T: bytemuck::AnyBitPattern>(raw: &[u8]) -> Vec<T> {
        raw.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    fn thin(from: u64, to: u64, points: u64, pieces: &[(u64, Vec<[f32; 2]>)]) -> Thinned {
        let mut thinner = Thinner::new(from, to, points, Dtype::F32);
        for (first_bin, rows) in pieces {
            let flags: Vec<u32> = (0..rows.len()).map(|at| 1 << (at % 32)).collect();
            thinner.push(*first_bin, &flags, bytemuck::cast_slice(rows.as_flattened()));
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
        assert_eq!(read::<f32>(&thinned.min)[..2], [2.0, -1.0]);
        assert_eq!(read::<f32>(&thinned.max)[..2], [3.0, 4.0]);
        assert_eq!(read::<f32>(&thinned.last)[..2], [2.0, 0.5]);
        assert!(read::<f32>(&thinned.min)[2].is_nan() && read::<f32>(&thinned.max)[2].is_nan());
        assert_eq!(read::<f32>(&thinned.last)[3], 8.0);
        assert_eq!(thinned.min.len(), 2 * 2 * 4);
    }

    #[test]
    fn integers_beyond_what_a_double_holds_are_told_apart() {
        let mut thinner = Thinner::new(0, 2, 1, Dtype::U64);
        thinner.push(0, &[0, 0], bytemuck::cast_slice(&[u64::MAX - 1, u64::MAX]));
        let thinned = thinner.finish();
        assert_eq!(read::<u64>(&thinned.min), [u64::MAX - 1]);
        assert_eq!(read::<u64>(&thinned.max), [u64::MAX]);
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
            let mut cut = Thinner::new(from, to, points, Dtype::F32);
            for (first_bin, rows) in &pieces {
                cut.push(*first_bin, &vec![0; rows.len()], bytemuck::cast_slice(rows.as_flattened()));
            }
            let cut = cut.finish();
            prop_assert_eq!(&cut.min, &whole.min);
            prop_assert_eq!(&cut.max, &whole.max);
            prop_assert_eq!(&cut.last, &whole.last);
            prop_assert!(whole.points.len() as u64 <= points);
            prop_assert_eq!(whole.points.iter().map(|point| point.present).sum::<u64>(), len as u64);
            prop_assert!(whole.points.iter().all(|point| point.present == point.bins));
            let least = rows.iter().map(|row| row[0]).fold(f32::INFINITY, f32::min);
            let kept = read::<f32>(&whole.min).iter().step_by(2).copied().fold(f32::INFINITY, f32::min);
            prop_assert_eq!(kept, least);
        }
    }
}
