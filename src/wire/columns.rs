//! A frame's rows as Arrow: an IPC stream of one record batch, a column per channel.
//!
//! Why read by hand and not by Arrow's reader: a body comes from outside. What it says of its own sizes is checked here
//! against what there is, before anything is taken or allocated by it, and a column's bytes are copied once, into place.

use std::ops::Range;

use arrow_ipc::{Endianness, Field, Message, Precision, RecordBatch, Schema, Type, root_as_message};
use bytes::Bytes;

use super::v1;
use crate::domain::tensor::Dtype;
use crate::error::{Fault, Kind, clip};

/// Columns of one type, as long as each other.
#[derive(Clone, Debug)]
pub struct Columns {
    /// The columns' names, in their order.
    pub names: Vec<String>,
    /// Their type.
    pub dtype: Dtype,
    /// Their length.
    pub rows: usize,
    /// The bytes that they lie in.
    body: Bytes,
    lies: Vec<Column>,
}

/// Where a column lies in the body.
#[derive(Clone, Debug)]
struct Column {
    values: Range<usize>,
    /// Bits that are 0 where a row has no value; none: every row has one.
    validity: Option<Range<usize>>,
}

/// What stands before each message, but in streams of before Arrow 0.15.
const CONTINUES: [u8; 4] = [0xff; 4];

impl Columns {
    /// Reads a body. Errors: `malformed` (no such stream), `invalid` (other than one batch of such columns),
    /// `unsupported` (compressed).
    pub fn read(body: Bytes) -> Result<Self, Fault> {
        let mut pieces = Pieces { body: &body, at: 0 };
        let Some(piece) = pieces.next()? else { return Err(malformed("it is empty")) };
        let schema = piece.message(|message, _| {
            let schema = message.header_as_schema().ok_or_else(|| malformed("a schema comes first"))?;
            fields(&schema)
        });
        let (names, dtype) = schema?;
        let batches = || Fault::mismatch("body", "one record batch", "none");
        let piece = pieces.next()?.ok_or_else(batches)?;
        let (rows, lies) = piece.message(|message, body| {
            let batch = message
                .header_as_record_batch()
                .ok_or_else(|| malformed("no record batch follows the schema"))?;
            columns(&batch, body, &names, dtype)
        })?;
        if pieces.next()?.is_some() {
            return Err(Fault::mismatch("body", "one record batch", "more"));
        }
        let behind = body.len() - pieces.at;
        if behind > 0 {
            return Err(malformed(&format!("{behind} bytes lie behind its end, byte {}", pieces.at)));
        }
        Ok(Self { names, dtype, rows, body, lies })
    }

    /// The rows `[rows, columns]` with the columns in this order, by number.
    pub fn tensor(&self, order: &[usize]) -> v1::Tensor {
        let (size, width) = (self.dtype.size_bytes(), order.len() * self.dtype.size_bytes());
        let mut raw = vec![0; self.rows * width];
        for (place, &number) in order.iter().enumerate() {
            let Column { values, validity } = &self.lies[number];
            let values = &self.body[values.clone()];
            let slots = raw.chunks_exact_mut(width.max(1)).map(|row| &mut row[place * size..][..size]);
            if self.dtype == Dtype::Bool {
                slots.enumerate().for_each(|(row, slot)| slot[0] = u8::from(bit(values, row)));
                continue;
            }
            for (row, (slot, value)) in slots.zip(values.chunks_exact(size)).enumerate() {
                let there = validity.as_ref().is_none_or(|bits| bit(&self.body[bits.clone()], row));
                if there {
                    slot.copy_from_slice(value);
                } else {
                    missing(self.dtype, slot);
                }
            }
        }
        let shape = vec![self.rows as u32, order.len() as u32];
        v1::Tensor { dtype: self.dtype.word().into(), shape, raw: raw.into(), values: Vec::new() }
    }
}

/// NaN, for the types that have one; nothing else has rows without a value.
fn missing(dtype: Dtype, slot: &mut [u8]) {
    match dtype {
        Dtype::F64 => slot.copy_from_slice(&f64::NAN.to_le_bytes()),
        Dtype::F16 => slot.copy_from_slice(&half::f16::NAN.to_le_bytes()),
        _ => slot.copy_from_slice(&f32::NAN.to_le_bytes()),
    }
}

fn bit(bits: &[u8], at: usize) -> bool {
    bits[at / 8] >> (at % 8) & 1 == 1
}

fn malformed(why: &str) -> Fault {
    Fault::new(Kind::Malformed, format!("not an Arrow IPC stream of one record batch: {why}"))
}

/// The messages of a stream.
struct Pieces<'a> {
    body: &'a [u8],
    at: usize,
}

/// One message: its header's bytes, and where its body lies in the whole.
struct Piece<'a> {
    header: Vec<u8>,
    whole: &'a [u8],
    from: usize,
}

impl<'a> Pieces<'a> {
    /// The next message; `None`: the stream ends here.
    fn next(&mut self) -> Result<Option<Piece<'a>>, Fault> {
        let mut length = self.take(4)?;
        if length == Some(&CONTINUES) {
            length = self.take(4)?;
        }
        let Some(length) = length.filter(|length| *length != [0; 4]) else { return Ok(None) };
        let length = u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize;
        // Why copied: it is read as numbers in place, and lies wherever the body does.
        let header = self.take(length)?.ok_or_else(|| malformed("it breaks off in a header"))?.to_vec();
        let from = self.at;
        let body_length = {
            let message = parse(&header, from - length)?;
            usize::try_from(message.bodyLength()).map_err(|_| malformed("a body has a negative length"))?
        };
        self.take(body_length)?.ok_or_else(|| malformed("it breaks off in a body"))?;
        Ok(Some(Piece { header, whole: &self.body[..self.at], from }))
    }

    /// The next bytes; `None`: there are none at all. Errors: there are fewer.
    fn take(&mut self, length: usize) -> Result<Option<&'a [u8]>, Fault> {
        let rest = &self.body[self.at..];
        if rest.is_empty() && length > 0 {
            return Ok(None);
        }
        let taken = rest.get(..length).ok_or_else(|| malformed("it breaks off"))?;
        self.at += length;
        Ok(Some(taken))
    }
}

/// The header that lies at this byte of the body.
fn parse(header: &[u8], at: usize) -> Result<Message<'_>, Fault> {
    root_as_message(header).map_err(|_| {
        malformed(&format!("the {} bytes of a header at byte {at} are none of a message", header.len()))
    })
}

/// A message's part of the whole body.
struct Body<'a> {
    whole: &'a [u8],
    from: usize,
}

impl Body<'_> {
    /// Where a buffer lies in the whole; it has at least so many bytes.
    fn buffer(&self, buffer: &arrow_ipc::Buffer, least: usize) -> Option<Range<usize>> {
        let start = self.from.checked_add(usize::try_from(buffer.offset()).ok()?)?;
        let end = start.checked_add(usize::try_from(buffer.length()).ok()?)?;
        (end <= self.whole.len() && end - start >= least).then_some(start..start + least)
    }
}

impl Piece<'_> {
    fn message<T>(&self, read: impl FnOnce(Message<'_>, Body<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        read(parse(&self.header, self.from - self.header.len())?, Body { whole: self.whole, from: self.from })
    }
}

/// Names and the one type of a schema's columns.
fn fields(schema: &Schema<'_>) -> Result<(Vec<String>, Dtype), Fault> {
    if schema.endianness() != Endianness::Little {
        return Err(Fault::new(Kind::Unsupported, "Arrow: only little-endian columns are read"));
    }
    let fields = schema.fields().into_iter().flatten();
    let mut all: Option<Dtype> = None;
    let mut names = Vec::new();
    for field in fields {
        let name = field.name().unwrap_or_default();
        let dtype = dtype(&field).ok_or_else(|| {
            let found = match field.type_type() {
                // What a column is called that does not say its type.
                Type::NONE => "no type",
                other => other.variant_name().unwrap_or("a type that is not known"),
            };
            let dictionary = if field.dictionary().is_some() { "a dictionary of " } else { "" };
            let expected = "plain values: int8 to int64, uint8 to uint64, float16, float32, float64 or bool";
            Fault::mismatch(column(name), expected, format!("{dictionary}{found}"))
        })?;
        match all {
            Some(first) if first != dtype => {
                let expected = format!("the type of the first column, {first}");
                return Err(Fault::mismatch(column(name), expected, dtype.to_string()));
            }
            _ => all = Some(dtype),
        }
        names.push(name.to_owned());
    }
    let dtype = all.ok_or_else(|| Fault::mismatch("columns", "one per channel", "none"))?;
    Ok((names, dtype))
}

fn column(name: &str) -> String {
    format!("column `{}`", clip(name))
}

fn dtype(field: &Field<'_>) -> Option<Dtype> {
    if field.dictionary().is_some() {
        return None;
    }
    match field.type_type() {
        Type::Bool => Some(Dtype::Bool),
        Type::Int => {
            let int = field.type_as_int()?;
            match (int.bitWidth(), int.is_signed()) {
                (8, true) => Some(Dtype::I8),
                (16, true) => Some(Dtype::I16),
                (32, true) => Some(Dtype::I32),
                (64, true) => Some(Dtype::I64),
                (8, false) => Some(Dtype::U8),
                (16, false) => Some(Dtype::U16),
                (32, false) => Some(Dtype::U32),
                (64, false) => Some(Dtype::U64),
                _ => None,
            }
        }
        Type::FloatingPoint => match field.type_as_floating_point()?.precision() {
            Precision::HALF => Some(Dtype::F16),
            Precision::SINGLE => Some(Dtype::F32),
            Precision::DOUBLE => Some(Dtype::F64),
            _ => None,
        },
        _ => None,
    }
}

/// Rows, and where each column lies; all of it proven to be there.
fn columns(
    batch: &RecordBatch<'_>,
    body: Body<'_>,
    names: &[String],
    dtype: Dtype,
) -> Result<(usize, Vec<Column>), Fault> {
    if batch.compression().is_some() {
        return Err(Fault::new(Kind::Unsupported, "Arrow: compressed batches are not read; send plain ones"));
    }
    let rows =
        u32::try_from(batch.length()).map_err(|_| malformed("the batch has no sensible length"))? as usize;
    let (Some(nodes), Some(buffers)) = (batch.nodes(), batch.buffers()) else {
        return Err(malformed("the batch has no columns"));
    };
    if nodes.len() != names.len() || buffers.len() != 2 * names.len() {
        return Err(malformed("the batch has other columns than the schema"));
    }
    let bits = rows.div_ceil(8);
    let least = if dtype == Dtype::Bool { bits } else { rows.saturating_mul(dtype.size_bytes()) };
    // Columns that lie over one another would make more of a body than there is of it.
    if least.checked_mul(names.len()).is_none_or(|all| all > body.whole.len()) {
        return Err(malformed("it is shorter than its columns"));
    }
    let mut lies = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        let (node, short) =
            (nodes.get(at), || malformed(&format!("{} is shorter than the batch", column(name))));
        if usize::try_from(node.length()) != Ok(rows) {
            return Err(short());
        }
        let has_nulls = node.null_count() != 0;
        if has_nulls && !matches!(dtype, Dtype::F16 | Dtype::F32 | Dtype::F64) {
            let found = format!("{} rows without one", node.null_count());
            return Err(Fault::mismatch(
                column(name),
                format!("a value in each row: {dtype} has no NaN"),
                found,
            ));
        }
        let validity = match has_nulls {
            true => Some(body.buffer(buffers.get(2 * at), bits).ok_or_else(short)?),
            false => None,
        };
        let values = body.buffer(buffers.get(2 * at + 1), least).ok_or_else(short)?;
        lies.push(Column { values, validity });
    }
    Ok((rows, lies))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow_array::types::Int8Type;
    use arrow_array::{
        ArrayRef, BooleanArray, DictionaryArray, Float32Array, Float64Array, Int16Array, RecordBatch,
        StringArray, UInt64Array,
    };
    use arrow_ipc::writer::StreamWriter;
    use proptest::prelude::*;

    fn stream(batches: &[Vec<(&str, ArrayRef)>]) -> Vec<u8> {
        let batches: Vec<_> =
            batches.iter().map(|columns| RecordBatch::try_from_iter(columns.clone()).unwrap()).collect();
        let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.into_inner().unwrap()
    }

    fn floats(values: &[f32]) -> ArrayRef {
        Arc::new(Float32Array::from(values.to_vec()))
    }

    fn read(bytes: Vec<u8>) -> Result<Columns, Fault> {
        Columns::read(bytes.into())
    }

    #[test]
    fn columns_become_rows_in_the_order_asked_for() {
        let bytes = stream(&[vec![("a", floats(&[1.0, 2.0, 3.0])), ("b", floats(&[4.0, 5.0, 6.0]))]]);
        let columns = read(bytes).unwrap();
        assert_eq!((columns.names.join(" "), columns.dtype, columns.rows), ("a b".into(), Dtype::F32, 3));
        let tensor = super::super::tensor::host("t", &columns.tensor(&[1, 0])).unwrap();
        assert_eq!(tensor.shape, [3, 2]);
        assert_eq!(tensor.values::<f32>(), [4.0, 1.0, 5.0, 2.0, 6.0, 3.0]);
    }

    #[test]
    fn every_plain_type_is_read_and_a_float_without_a_value_is_nan() {
        let one = |array: ArrayRef| {
            let columns = read(stream(&[vec![("a", array)]])).unwrap();
            super::super::tensor::host("t", &columns.tensor(&[0])).unwrap().to_f64()
        };
        assert_eq!(one(Arc::new(Int16Array::from(vec![-1, 7]))), [-1.0, 7.0]);
        assert_eq!(one(Arc::new(UInt64Array::from(vec![1u64 << 40]))), [(1u64 << 40) as f64]);
        assert_eq!(one(Arc::new(BooleanArray::from(vec![true, false, true]))), [1.0, 0.0, 1.0]);
        let gaps = one(Arc::new(Float64Array::from(vec![Some(0.1), None, Some(-2.0)])));
        assert!(gaps[0] == 0.1 && gaps[1].is_nan() && gaps[2] == -2.0);
        assert_eq!(one(Arc::new(Float32Array::from(Vec::<f32>::new()))), [0.0; 0]);
    }

    #[test]
    fn what_is_not_one_batch_of_plain_columns_is_said() {
        let two = || vec![("a", floats(&[1.0]))];
        let none = StreamWriter::try_new(Vec::new(), &RecordBatch::try_from_iter(two()).unwrap().schema());
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        let whole: ArrayRef = Arc::new(Int16Array::from(vec![Some(1), None]));
        let coded: DictionaryArray<Int8Type> = ["x", "y"].into_iter().collect();
        let more = [stream(&[two()]), vec![1, 2, 3]].concat();
        let twice = [stream(&[two()]), stream(&[two()])].concat();
        let mut bent = stream(&[two()]);
        bent[8..16].fill(0x7f);
        let cases: [(Vec<u8>, Kind, &[&str]); 12] = [
            (more, Kind::Malformed, &["3 bytes lie behind its end, byte "]),
            (twice, Kind::Malformed, &[" bytes lie behind its end"]),
            (bent, Kind::Malformed, &["a header at byte 8 are none"]),
            (
                stream(&[vec![("a", floats(&[1.0, 2.0])), ("d", Arc::new(coded))]]),
                Kind::Invalid,
                &["column `d`", "int8 to int64", "float32", "bool", "found a dictionary of Utf8"],
            ),
            (Vec::new(), Kind::Malformed, &["empty"]),
            (b"hello, world".to_vec(), Kind::Malformed, &["breaks off"]),
            (stream(&[two(), two()]), Kind::Invalid, &["one record batch", "more"]),
            (none.unwrap().into_inner().unwrap(), Kind::Invalid, &["one record batch", "none"]),
            (stream(&[vec![("t", text)]]), Kind::Invalid, &["column `t`", "Utf8"]),
            (stream(&[vec![("n", whole)]]), Kind::Invalid, &["column `n`", "1 rows without"]),
            (
                stream(&[vec![("a", floats(&[1.0])), ("b", Arc::new(Float64Array::from(vec![1.0])))]]),
                Kind::Invalid,
                &["column `b`", "f32", "f64"],
            ),
            (stream(&[two()])[..200].to_vec(), Kind::Malformed, &["breaks off"]),
        ];
        for (bytes, kind, parts) in cases {
            let fault = read(bytes).unwrap_err();
            assert_eq!(fault.kind, kind, "{}", fault.detail);
            assert!(parts.iter().all(|part| fault.detail.contains(part)), "{}", fault.detail);
        }
    }

    #[test]
    fn a_column_that_does_not_say_its_type_is_refused_in_our_words() {
        let whole = stream(&[vec![("a", floats(&[1.0]))]]);
        // One byte of the schema is the type, by its number.
        let places = (8..whole.len()).filter(|&at| whole[at] == Type::FloatingPoint.0);
        let refused = places.filter_map(|at| {
            let mut bent = whole.clone();
            bent[at] = Type::NONE.0;
            read(bent).err().map(|fault| fault.detail)
        });
        let said: Vec<String> = refused.filter(|detail| detail.contains("plain values")).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("column `a`") && said[0].contains("found no type"), "{said:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much_for_it(
            cuts in prop::collection::vec((0usize..1000, any::<u8>()), 1..8),
            length in 0usize..1000,
        ) {
            let mut bytes = stream(&[vec![("a", floats(&[1.0, 2.0])), ("b", floats(&[f32::NAN, 0.5]))]]);
            for (at, byte) in cuts {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(length.max(8));
            if let Ok(columns) = read(bytes) {
                let order: Vec<usize> = (0..columns.names.len()).collect();
                columns.tensor(&order);
            }
        }
    }
}
