//! Frames as Arrow, by the library that others wrote.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    RecordBatch, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_ipc::writer::StreamWriter;
use base64::Engine as _;
use latentd::domain::tensor::Dtype;
use latentd::wire::{tensor, v1};

use super::http::{Answer, Rig};

/// The content type.
pub const ARROW: &str = "application/vnd.apache.arrow.stream";

/// A batch's columns by name.
pub type Columns = Vec<(String, ArrayRef)>;

/// A frame's rows as a column per channel, named as the signal's channels are; one too many is called `other`.
pub fn rows(opened: &v1::OpenReply, frame: &v1::Frame) -> Columns {
    let open = opened.resolved.as_ref().expect("a resolved open");
    let signal = open.signals.iter().find(|signal| signal.name == frame.signal);
    let host = tensor::host("tensor", frame.tensor.as_ref().expect("rows")).expect("a tensor");
    let width = host.shape[1];
    let names = signal.iter().flat_map(|signal| &signal.channels).map(|channel| channel.name.clone());
    let names = names.chain((0..).map(|other| format!("other {other}"))).take(width);
    names
        .enumerate()
        .map(|(at, name)| {
            macro_rules! column {
                ($type:ty, $array:ident) => {
                    Arc::new($array::from_iter_values(
                        host.values::<$type>().iter().skip(at).step_by(width).copied(),
                    )) as ArrayRef
                };
            }
            let column = match host.dtype {
                Dtype::F32 => column!(f32, Float32Array),
                Dtype::F64 => column!(f64, Float64Array),
                Dtype::I8 => column!(i8, Int8Array),
                Dtype::I16 => column!(i16, Int16Array),
                Dtype::I32 => column!(i32, Int32Array),
                Dtype::I64 => column!(i64, Int64Array),
                Dtype::U8 => column!(u8, UInt8Array),
                Dtype::U16 => column!(u16, UInt16Array),
                Dtype::U32 => column!(u32, UInt32Array),
                Dtype::U64 => column!(u64, UInt64Array),
                Dtype::Bool => {
                    let bits = host.values::<u8>().iter().skip(at).step_by(width).map(|bit| *bit != 0);
                    Arc::new(BooleanArray::from(bits.collect::<Vec<_>>()))
                }
                other => panic!("no test sends {other}"),
            };
            (name, column)
        })
        .collect()
}

/// An IPC stream of these batches.
pub fn stream(batches: &[Columns]) -> Vec<u8> {
    let batches: Vec<_> =
        batches.iter().map(|columns| RecordBatch::try_from_iter(columns.clone()).expect("a batch")).collect();
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).expect("a schema");
    batches.iter().for_each(|batch| writer.write(batch).expect("a batch"));
    writer.into_inner().expect("a stream")
}

/// All of a frame but its rows, as a query.
pub fn query(frame: &v1::Frame) -> String {
    let mut query = format!(
        "signal={}&seq={}&writer={}&first_index={}&epoch={}&lost={}&final={}",
        frame.signal, frame.seq, frame.writer, frame.first_index, frame.epoch, frame.lost, frame.r#final
    );
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={value}"));
        }
    };
    add("t_device_ns", frame.t_device_ns.map(|at| at.to_string()));
    add("acked_seq", frame.acked_seq.map(|seq| seq.to_string()));
    add("reply", frame.reply.map(|reply| reply.to_string()));
    let mask: Vec<String> = frame.mask.iter().map(ToString::to_string).collect();
    add("mask", (!mask.is_empty()).then(|| mask.join(",")));
    let echo = base64::engine::general_purpose::STANDARD.encode(&frame.echo);
    add("echo", (!echo.is_empty()).then_some(echo));
    query
}

/// `POST …/frames` in Arrow.
pub async fn post(rig: &Rig, query: &str, body: Vec<u8>) -> Answer {
    rig.post(query, ARROW, body).await
}
