//! Values of an output in columns: `bin` (u64), `t_ns` (i64, the bin's end on the session's clock), `flags` (u32),
//! `values` (fixed-size list of f32; other dtypes are converted), as an Arrow IPC stream and as Parquet.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, UInt32Array, UInt64Array,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::arrow::ArrowWriter;

use super::outputs::{Outputs, Stretch};
use crate::domain::tensor::Dtype;
use crate::error::{Fault, Kind};

/// An Arrow IPC stream, a record batch per stretch.
pub fn stream(values: &Outputs) -> Result<Vec<u8>, Fault> {
    let schema = schema(values);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(internal)?;
    for stretch in &values.stretches {
        writer.write(&batch(values, stretch, &schema)?).map_err(internal)?;
    }
    writer.into_inner().map_err(internal)
}

/// A Parquet file, not compressed.
pub fn parquet(values: &Outputs) -> Result<Vec<u8>, Fault> {
    let schema = schema(values);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(&schema), None).map_err(internal)?;
    for stretch in &values.stretches {
        writer.write(&batch(values, stretch, &schema)?).map_err(internal)?;
    }
    writer.close().map_err(internal)?;
    Ok(bytes)
}

/// Values that were read as they are written always have a form in columns; that they have none is a fault of ours.
fn internal(_: impl std::error::Error) -> Fault {
    Fault::new(Kind::Internal, "the values could not be written as columns")
}

fn list_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Float32, true))
}

fn schema(values: &Outputs) -> Arc<Schema> {
    let list = DataType::FixedSizeList(list_item(), values.width() as i32);
    let metadata =
        [("run", values.run.clone()), ("output", values.output.clone()), ("labels", values.labels.join(","))];
    let metadata: HashMap<_, _> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let fields = vec![
        Field::new("bin", DataType::UInt64, false),
        Field::new("t_ns", DataType::Int64, false),
        Field::new("flags", DataType::UInt32, false),
        Field::new("values", list, false),
    ];
    Arc::new(Schema::new(fields).with_metadata(metadata))
}

fn batch(values: &Outputs, stretch: &Stretch, schema: &Arc<Schema>) -> Result<RecordBatch, Fault> {
    let bins = stretch.first_bin..stretch.first_bin + stretch.flags.len() as u64;
    let tensor = values.host(stretch)?;
    let numbers = match values.dtype {
        Dtype::F32 => Float32Array::from(tensor.values::<f32>().to_vec()),
        _ => Float32Array::from_iter_values(tensor.to_f64().into_iter().map(|value| value as f32)),
    };
    let columns = || -> Result<Vec<ArrayRef>, ArrowError> {
        Ok(vec![
            Arc::new(UInt64Array::from_iter_values(bins.clone())),
            Arc::new(Int64Array::from_iter_values(bins.clone().map(|bin| values.grid.end_ns(bin)))),
            Arc::new(UInt32Array::from(stretch.flags.clone())),
            Arc::new(FixedSizeListArray::try_new(
                list_item(),
                values.width() as i32,
                Arc::new(numbers),
                None,
            )?),
        ])
    };
    columns().and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns)).map_err(internal)
}
