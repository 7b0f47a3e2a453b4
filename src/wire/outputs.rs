//! Values of an output over a range of bins: as the message, whole or thinned, as CSV and as `.npy`. (`arrow` has the
//! column formats.)

use std::fmt::Write as _;

use bytes::Bytes;

use super::thinning::Thinned;
use super::{npy, v1};
use crate::domain::tensor::{Dtype, Tensor};
use crate::domain::time::BinGrid;
use crate::error::{Fault, Kind};

/// Values of one output.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The run's id.
    pub run: String,
    /// The output's name.
    pub output: String,
    /// Shape of one bin's value, after selection.
    pub dims: Vec<u32>,
    /// One label per value, or none.
    pub labels: Vec<String>,
    /// Which elements of a bin's value they are, row-major; `None`: all.
    pub selected: Option<Vec<usize>>,
    /// Element type.
    pub dtype: Dtype,
    /// Where bins lie in time.
    pub grid: BinGrid,
    /// Unbroken rows of bins, in order.
    pub stretches: Vec<Stretch>,
}

/// An unbroken row of bins.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Its first bin.
    pub first_bin: u64,
    /// One per bin.
    pub flags: Vec<u32>,
    /// `[n, dims…]`, row-major, little-endian.
    pub raw: Bytes,
}

impl Outputs {
    /// Bytes of all values.
    pub fn size_bytes(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.raw.len()).sum()
    }

    /// As the schema's message.
    pub fn message(&self) -> v1::OutputsReply {
        let stretches = self.stretches.iter().map(|stretch| v1::Stretch {
            first_bin: stretch.first_bin,
            n: stretch.flags.len() as u32,
            flags: stretch.flags.clone(),
            tensor: Some(self.tensor(stretch.flags.len(), stretch.raw.clone())),
            ..Default::default()
        });
        self.reply(stretches.collect())
    }

    /// As the schema's message with points instead of bins. Points that lack no bin and follow each other are one
    /// stretch; one that lacks some stands alone, and says so.
    pub fn thinned(&self, thinned: &Thinned) -> v1::OutputsReply {
        let points = &thinned.points;
        let goes_on = |at: usize| {
            let (point, next) = (points[at - 1], points[at]);
            let is_whole = point.present == point.bins && next.present == next.bins;
            is_whole && point.bins == next.bins && next.first_bin == point.first_bin + point.bins
        };
        let mut stretches = Vec::new();
        let mut from = 0;
        for to in 1..=points.len() {
            if to < points.len() && goes_on(to) {
                continue;
            }
            let part = |values: &[u8]| {
                let bytes = self.width() * self.dtype.size_bytes();
                let raw = Bytes::copy_from_slice(&values[from * bytes..to * bytes]);
                Some(self.tensor(to - from, raw))
            };
            stretches.push(v1::Stretch {
                first_bin: points[from].first_bin,
                n: (to - from) as u32,
                flags: points[from..to].iter().map(|point| point.flags).collect(),
                tensor: None,
                interval: Some(v1::Interval { bins: points[from].bins, present: points[from].present }),
                min: part(&thinned.min),
                max: part(&thinned.max),
                last: part(&thinned.last),
            });
            from = to;
        }
        self.reply(stretches)
    }

    /// CSV: `bin`, `t_ns` (the bin's end on the session's clock), `flags`, then the values under their labels (without
    /// labels: the output's name and the element's index). Values are the shortest text that reads back to the same number.
    pub fn csv(&self) -> Result<Vec<u8>, Fault> {
        let mut text = String::from("bin,t_ns,flags");
        for at in 0..self.width() {
            text.push(',');
            match self.labels.get(at) {
                Some(label) => field(label, &mut text),
                None => {
                    let index = self.selected.as_ref().map_or(at, |selected| selected[at]);
                    field(&format!("{}_{index}", self.output), &mut text);
                }
            }
        }
        text.push('\n');
        for stretch in &self.stretches {
            let tensor = self.host(stretch)?;
            for (row, (bin, flags)) in (stretch.first_bin..).zip(&stretch.flags).enumerate() {
                // Why ignored: writing to a text cannot fail.
                let _ = write!(text, "{bin},{},{flags}", self.grid.end_ns(bin));
                for at in 0..self.width() {
                    text.push(',');
                    number(&tensor, row * self.width() + at, &mut text);
                }
                text.push('\n');
            }
        }
        Ok(text.into_bytes())
    }

    /// `.npy`: the values alone, `[bins, dims…]`.
    pub fn npy(&self) -> Result<Vec<u8>, Fault> {
        let bins = self.stretches.iter().map(|stretch| stretch.flags.len()).sum();
        let shape: Vec<usize> =
            std::iter::once(bins).chain(self.dims.iter().map(|&dim| dim as usize)).collect();
        let raw = self.stretches.iter().map(|stretch| &stretch.raw[..]).collect::<Vec<_>>().concat();
        let tensor = Tensor::from_bytes(self.dtype, &shape, &raw).ok_or_else(odd)?;
        Ok(npy::write(&tensor))
    }

    /// A stretch's values on the host, `[n, width]`.
    pub(super) fn host(&self, stretch: &Stretch) -> Result<Tensor, Fault> {
        let shape = [stretch.flags.len(), self.width()];
        Tensor::from_bytes(self.dtype, &shape, &stretch.raw).ok_or_else(odd)
    }

    /// Values of one bin.
    pub(super) fn width(&self) -> usize {
        self.dims.iter().map(|&dim| dim as usize).product()
    }

    fn reply(&self, stretches: Vec<v1::Stretch>) -> v1::OutputsReply {
        v1::OutputsReply {
            run: self.run.clone(),
            output: self.output.clone(),
            dims: self.dims.clone(),
            labels: self.labels.clone(),
            stretches,
        }
    }

    fn tensor(&self, n: usize, raw: Bytes) -> v1::Tensor {
        let mut shape = vec![n as u32];
        shape.extend_from_slice(&self.dims);
        v1::Tensor { dtype: self.dtype.word().into(), shape, raw, values: Vec::new() }
    }
}

fn odd() -> Fault {
    Fault::new(Kind::Internal, "a stretch is not as long as its bins")
}

/// A field of a CSV record, quoted where it must be (RFC 4180).
fn field(value: &str, text: &mut String) {
    if value.contains([',', '"', '\n', '\r']) {
        let _ = write!(text, "\"{}\"", value.replace('"', "\"\""));
    } else {
        text.push_str(value);
    }
}

/// An element as text; what is not finite by the words of the wire.
fn number(tensor: &Tensor, at: usize, text: &mut String) {
    macro_rules! float {
        ($value:expr) => {{
            let value = $value;
            match value {
                _ if value.is_finite() => _ = write!(text, "{value:?}"),
                _ if value.is_nan() => text.push_str("NaN"),
                _ if value > 0.0 => text.push_str("Infinity"),
                _ => text.push_str("-Infinity"),
            }
        }};
    }
    macro_rules! whole {
        ($type:ty) => {
            _ = write!(text, "{}", tensor.values::<$type>()[at])
        };
    }
    match tensor.dtype {
        Dtype::F32 => float!(tensor.values::<f32>()[at]),
        Dtype::F64 => float!(tensor.values::<f64>()[at]),
        Dtype::F16 => float!(half::f16::from_bits(tensor.values::<u16>()[at]).to_f32()),
        Dtype::Bf16 => float!(half::bf16::from_bits(tensor.values::<u16>()[at]).to_f32()),
        Dtype::I8 => whole!(i8),
        Dtype::I16 => whole!(i16),
        Dtype::I32 => whole!(i32),
        Dtype::I64 => whole!(i64),
        Dtype::U8 | Dtype::Bool => whole!(u8),
        Dtype::U16 => whole!(u16),
        Dtype::U32 => whole!(u32),
        Dtype::U64 => whole!(u64),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::wire::thinning::Point;

    fn outputs(labels: &[&str], stretches: &[(u64, &[f32])]) -> Outputs {
        Outputs {
            run: "r".into(),
            output: "v".into(),
            dims: vec![2],
            labels: labels.iter().map(|label| (*label).into()).collect(),
            selected: Some(vec![3, 1]),
            dtype: Dtype::F32,
            grid: BinGrid { t0_ns: 1000, width_ns: NonZeroU64::new(10).unwrap() },
            stretches: stretches
                .iter()
                .map(|(first_bin, values)| Stretch {
                    first_bin: *first_bin,
                    flags: vec![64; values.len() / 2],
                    raw: Bytes::copy_from_slice(bytemuck::cast_slice(values)),
                })
                .collect(),
        }
    }

    #[test]
    fn csv_has_bin_time_flags_and_a_column_for_each_label() {
        let values =
            outputs(&["x, \"left\"", "y"], &[(0, &[0.1, 1e30]), (7, &[f32::NAN, f32::NEG_INFINITY])]);
        let text = String::from_utf8(values.csv().unwrap()).unwrap();
        assert_eq!(
            text,
            "bin,t_ns,flags,\"x, \"\"left\"\"\",y\n0,1010,64,0.1,1e30\n7,1080,64,NaN,-Infinity\n"
        );
        let text = String::from_utf8(outputs(&[], &[]).csv().unwrap()).unwrap();
        assert_eq!(text, "bin,t_ns,flags,v_3,v_1\n");
    }

    #[test]
    fn npy_has_the_values_of_all_stretches_alone() {
        let bytes = outputs(&[], &[(0, &[1.0, 2.0]), (7, &[3.0, 4.0, 5.0, 6.0])]).npy().unwrap();
        let read = npy::read(&bytes).unwrap();
        assert_eq!((read.shape.as_slice(), read.dtype), ([3, 2].as_slice(), Dtype::F32));
        assert_eq!(read.values::<f32>(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn points_that_lack_no_bin_are_one_stretch_and_one_that_lacks_some_stands_alone() {
        let point = |first_bin, bins, present| Point { first_bin, bins, present, flags: 1 };
        let points = vec![point(0, 4, 4), point(4, 4, 4), point(8, 4, 3), point(12, 4, 4), point(16, 2, 2)];
        let numbers: Vec<f32> = (0..10u8).map(f32::from).collect();
        let values: Vec<u8> = bytemuck::cast_slice(&numbers).to_vec();
        let thinned = Thinned { points, min: values.clone(), max: values.clone(), last: values };
        let reply = outputs(&[], &[]).thinned(&thinned);
        let told: Vec<_> = reply
            .stretches
            .iter()
            .map(|s| (s.first_bin, s.n, s.interval.map(|i| (i.bins, i.present)).unwrap()))
            .collect();
        assert_eq!(told, [(0, 2, (4, 4)), (8, 1, (4, 3)), (12, 1, (4, 4)), (16, 1, (2, 2))]);
        let last = reply.stretches[3].max.as_ref().unwrap();
        assert_eq!(
            (last.shape.as_slice(), &last.raw[..]),
            ([1, 2].as_slice(), bytemuck::cast_slice(&[8.0f32, 9.0]))
        );
        assert!(reply.stretches.iter().all(|stretch| stretch.tensor.is_none()));
    }
}
