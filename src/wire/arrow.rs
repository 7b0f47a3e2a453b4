//! Values of an output over a range of bins: as the JSON message, and as an Arrow IPC stream.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, UInt32Array, UInt64Array,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use bytes::Bytes;

use super::v1;
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
    /// As the schema's message.
    pub fn message(&self) -> v1::OutputsReply {
        let stretches = self.stretches.iter().map(|stretch| {
            let n = stretch.flags.len() as u32;
            let mut shape = vec![n];
            shape.extend_from_slice(&self.dims);
            let tensor = v1::Tensor {
                dtype: self.dtype.word().into(),
                shape,
                raw: stretch.raw.clone(),
                values: Vec::new(),
            };
            v1::Stretch {
                first_bin: stretch.first_bin,
                n,
                flags: stretch.flags.clone(),
                tensor: Some(tensor),
            }
        });
        v1::OutputsReply {
            run: self.run.clone(),
            output: self.output.clone(),
            dims: self.dims.clone(),
            labels: self.labels.clone(),
            stretches: stretches.collect(),
        }
    }

    fn width(&self) -> usize {
        self.dims.iter().map(|&dim| dim as usize).product()
    }
}

/// An Arrow IPC stream: columns `bin` (u64), `t_ns` (i64, the bin's end on the session's clock), `flags` (u32), `values`
/// (fixed-size list of f32; other dtypes are converted), a record batch per stretch.
pub fn outputs(values: &Outputs) -> Result<Vec<u8>, Fault> {
    write(values).map_err(|error| Fault::new(Kind::Internal, format!("arrow: {error}")))
}

fn write(values: &Outputs) -> Result<Vec<u8>, ArrowError> {
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let list = DataType::FixedSizeList(Arc::clone(&item), values.width() as i32);
    let metadata =
        [("run", values.run.clone()), ("output", values.output.clone()), ("labels", values.labels.join(","))];
    let schema = Schema::new(vec![
        Field::new("bin", DataType::UInt64, false),
        Field::new("t_ns", DataType::Int64, false),
        Field::new("flags", DataType::UInt32, false),
        Field::new("values", list, false),
    ])
    .with_metadata(
        metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect::<std::collections::HashMap<_, _>>(),
    );
    let schema = Arc::new(schema);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for stretch in &values.stretches {
        let bins = stretch.first_bin..stretch.first_bin + stretch.flags.len() as u64;
        let shape = [stretch.flags.len(), values.width()];
        let tensor = Tensor::from_bytes(values.dtype, &shape, &stretch.raw)
            .ok_or_else(|| ArrowError::InvalidArgumentError("a stretch is not as long as its bins".into()))?;
        let numbers = match values.dtype {
            Dtype::F32 => Float32Array::from(tensor.values::<f32>().to_vec()),
            _ => Float32Array::from_iter_values(tensor.to_f64().into_iter().map(|value| value as f32)),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_iter_values(bins.clone())),
            Arc::new(Int64Array::from_iter_values(bins.map(|bin| values.grid.end_ns(bin)))),
            Arc::new(UInt32Array::from(stretch.flags.clone())),
            Arc::new(FixedSizeListArray::try_new(
                Arc::clone(&item),
                shape[1] as i32,
                Arc::new(numbers),
                None,
            )?),
        ];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.into_inner()
}
