//! Tensors to outputs by role.
//! Enters: what a stage gave for one bin. Leaves: columns of values over an answer's bins.
//! Owns: nothing; pure. Must hold: a value that is not finite never passes as valid; a bin without a value is NaN in all
//! elements, never an older one.
//! Must not know: stages, sessions, the wire.

use crate::domain::output::OutputSpec;
use crate::domain::tensor::{Dtype, Tensor};

/// The values of one output over consecutive bins, as raw little-endian bytes.
#[derive(Clone, Debug)]
pub struct Column {
    /// The output's number in its pipeline.
    pub number: u32,
    /// Element type.
    pub dtype: Dtype,
    /// Shape of one bin.
    pub dims: Vec<u32>,
    /// `[bins, dims…]`.
    pub bytes: Vec<u8>,
}

impl Column {
    /// An empty column of an output, with room for `bins`.
    pub fn new(spec: &OutputSpec, bins: usize) -> Self {
        let mut column =
            Self { number: spec.number, dtype: spec.dtype, dims: spec.dims.clone(), bytes: Vec::new() };
        column.bytes.reserve_exact(bins * column.bin_bytes());
        column
    }

    /// Bytes of one bin.
    pub fn bin_bytes(&self) -> usize {
        self.dims.iter().map(|&dim| dim as usize).product::<usize>() * self.dtype.size_bytes()
    }

    /// Appends one bin. `value` has the column's dtype and as many elements as its dims say.
    pub fn push(&mut self, value: &Tensor) {
        debug_assert_eq!(value.data.bytes().len(), self.bin_bytes());
        self.bytes.extend_from_slice(value.data.bytes());
    }

    /// Appends a bin without a value: NaN in every element (0 where the dtype has no NaN).
    pub fn push_nan(&mut self) {
        let elements = self.bin_bytes() / self.dtype.size_bytes();
        for _ in 0..elements {
            match self.dtype {
                Dtype::F32 => self.bytes.extend_from_slice(&f32::NAN.to_le_bytes()),
                Dtype::F64 => self.bytes.extend_from_slice(&f64::NAN.to_le_bytes()),
                Dtype::F16 => self.bytes.extend_from_slice(&half::f16::NAN.to_le_bytes()),
                Dtype::Bf16 => self.bytes.extend_from_slice(&half::bf16::NAN.to_le_bytes()),
                dtype => self.bytes.resize(self.bytes.len() + dtype.size_bytes(), 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::output::OutputRole;

    #[test]
    fn an_invalid_bin_is_nan_in_every_element_between_its_neighbours() {
        let spec = OutputSpec {
            number: 3,
            name: "latent".into(),
            stage: "m".into(),
            output: "latent".into(),
            role: OutputRole::Latent,
            dims: vec![2],
            labels: vec![],
            unit: String::new(),
            dtype: Dtype::F32,
            sparse: false,
            delay_ms: 0.0,
        };
        let mut column = Column::new(&spec, 3);
        column.push(&Tensor::from_f32(&[2], &[1.0, 2.0]));
        column.push_nan();
        column.push(&Tensor::from_f32(&[2], &[3.0, 4.0]));
        let values: &[f32] = bytemuck::cast_slice(&column.bytes);
        assert_eq!(values[..2], [1.0, 2.0]);
        assert!(values[2].is_nan() && values[3].is_nan());
        assert_eq!(values[4..], [3.0, 4.0]);
    }
}
