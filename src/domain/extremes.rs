//! Extremes of an output over bins: what a thinned message shows instead of every value.

use super::tensor::Dtype;

/// The smallest, the largest and the last value of each element over the bins that were added, as raw little-endian
/// bytes of one bin each. NaN is neither small nor large; an element that was always NaN is NaN in all three.
#[derive(Clone, Debug)]
pub struct Extremes {
    /// Element type.
    pub dtype: Dtype,
    /// Smallest value of each element.
    pub min: Vec<u8>,
    /// Largest value of each element.
    pub max: Vec<u8>,
    /// Value of each element in the last bin.
    pub last: Vec<u8>,
}

impl Extremes {
    /// Of no bins.
    pub fn new(dtype: Dtype) -> Self {
        Self { dtype, min: Vec::new(), max: Vec::new(), last: Vec::new() }
    }

    /// Adds `bins` of them: `raw` is `[bins, elements]`.
    pub fn add(&mut self, raw: &[u8], bins: usize) {
        let bin_bytes = raw.len() / bins.max(1);
        if bin_bytes == 0 {
            return;
        }
        for bin in raw.chunks_exact(bin_bytes) {
            if self.last.is_empty() {
                self.min.extend_from_slice(bin);
                self.max.extend_from_slice(bin);
            } else {
                self.widen(bin);
            }
            self.last.clear();
            self.last.extend_from_slice(bin);
        }
    }

    /// Forgets the bins, and keeps the room.
    pub fn clear(&mut self) {
        self.min.clear();
        self.max.clear();
        self.last.clear();
    }

    fn widen(&mut self, bin: &[u8]) {
        let (min, max) = (&mut self.min[..], &mut self.max[..]);
        match self.dtype {
            Dtype::F32 => widen(min, max, bin, f32::from_le_bytes),
            Dtype::F64 => widen(min, max, bin, f64::from_le_bytes),
            Dtype::F16 => widen(min, max, bin, half::f16::from_le_bytes),
            Dtype::Bf16 => widen(min, max, bin, half::bf16::from_le_bytes),
            Dtype::I8 => widen(min, max, bin, i8::from_le_bytes),
            Dtype::I16 => widen(min, max, bin, i16::from_le_bytes),
            Dtype::I32 => widen(min, max, bin, i32::from_le_bytes),
            Dtype::I64 => widen(min, max, bin, i64::from_le_bytes),
            Dtype::U8 | Dtype::Bool => widen(min, max, bin, u8::from_le_bytes),
            Dtype::U16 => widen(min, max, bin, u16::from_le_bytes),
            Dtype::U32 => widen(min, max, bin, u32::from_le_bytes),
            Dtype::U64 => widen(min, max, bin, u64::from_le_bytes),
        }
    }
}

/// Takes each element of `bin` into `min` and `max`, all of them as many elements of `N` bytes.
fn widen<const N: usize, T: PartialOrd>(
    min: &mut [u8],
    max: &mut [u8],
    bin: &[u8],
    read: impl Fn([u8; N]) -> T,
) {
    let element = |bytes: &[u8]| read(bytes.try_into().expect("a chunk of N bytes"));
    let is_nan = |value: &T| value.partial_cmp(value).is_none();
    let chunks = min.chunks_exact_mut(N).zip(max.chunks_exact_mut(N)).zip(bin.chunks_exact(N));
    for ((min, max), bytes) in chunks {
        let value = element(bytes);
        let (low, high) = (element(min), element(max));
        if value < low || is_nan(&low) {
            min.copy_from_slice(bytes);
        }
        if value > high || is_nan(&high) {
            max.copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn values(raw: &[u8]) -> Vec<f32> {
        raw.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    #[test]
    fn nan_is_neither_small_nor_large_and_stays_where_nothing_else_came() {
        let mut extremes = Extremes::new(Dtype::F32);
        extremes.add(&raw(&[f32::NAN, 1.0, f32::NAN, 4.0, -2.0, f32::NAN, 3.0, f32::NAN, f32::NAN]), 3);
        let [min, max, last] = [&extremes.min, &extremes.max, &extremes.last].map(|raw| values(raw));
        assert_eq!((min[..2].to_vec(), max[..2].to_vec()), (vec![3.0, -2.0], vec![4.0, 1.0]));
        assert!(min[2].is_nan() && max[2].is_nan());
        assert!(last[0] == 3.0 && last[1].is_nan() && last[2].is_nan());
    }

    #[test]
    fn integers_and_halves_are_compared_as_what_they_are() {
        let mut signed = Extremes::new(Dtype::I16);
        signed.add(&[0xff, 0xff, 0x01, 0x00], 2);
        assert_eq!((signed.min, signed.max), (vec![0xff, 0xff], vec![0x01, 0x00]), "-1 and 1");
        let mut half = Extremes::new(Dtype::F16);
        let [low, high] = [-1.5, 0.25].map(|value| half::f16::from_f32(value).to_le_bytes().to_vec());
        half.add(&[high.clone(), low.clone()].concat(), 2);
        assert_eq!((half.min, half.max, half.last), (low.clone(), high, low));
        let mut empty = Extremes::new(Dtype::F32);
        empty.add(&[], 3);
        assert!(empty.last.is_empty(), "outputs without elements have none");
    }

    proptest! {
        #[test]
        fn however_bins_are_cut_the_extremes_are_those_of_all(
            all in prop::collection::vec(prop::array::uniform3(-1e3f32..1e3), 1..40),
            cut in 0usize..40,
        ) {
            let cut = cut.min(all.len());
            let mut extremes = Extremes::new(Dtype::F32);
            for bins in [&all[..cut], &all[cut..]] {
                extremes.add(&raw(bins.as_flattened()), bins.len());
            }
            for element in 0..3 {
                let of = |bin: &[f32; 3]| bin[element];
                let min = all.iter().map(of).fold(f32::INFINITY, f32::min);
                let max = all.iter().map(of).fold(f32::NEG_INFINITY, f32::max);
                prop_assert_eq!(values(&extremes.min)[element], min);
                prop_assert_eq!(values(&extremes.max)[element], max);
                prop_assert_eq!(values(&extremes.last)[element], all.last().unwrap()[element]);
            }
        }
    }
}
