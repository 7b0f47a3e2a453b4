//! Values of a run in every form: JSON, Arrow, Parquet, CSV, `.npy`, and thinned.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type, UInt32Type, UInt64Type};
use latentd::wire::{npy, tensor, v1};

use crate::support::{Latentd, blocks, counts, linear, recorded};

/// Start of bin 0 of these runs.
const T0_NS: i64 = 1_795_621_286_661_653_696;

/// A run of `linear` of bins 0 to 9 and 13 to 19, and what its output `v` was answered to be in each.
async fn run_with_a_hole(server: &Latentd) -> (String, Vec<(u64, [f32; 2])>) {
    let ask = v1::OpenRequest { gap: "skip".into(), t0_ns: Some(T0_NS), ..recorded(linear()) };
    let rig = server.open(ask).await;
    let mut values = Vec::new();
    let row = |bin: u64| [bin as f32, 1.0 / (bin + 3) as f32];
    for (seq, bin) in (0..10).chain(13..20).enumerate() {
        let output = rig.send(counts(seq as u64, bin, &[row(bin)])).await;
        values.push((bin, blocks::<2>(&output, 0)[0]));
    }
    let run = rig.run().to_owned();
    rig.close().await;
    (run, values)
}

/// Bin, time, flags and values of every row.
fn rows(batches: &[RecordBatch]) -> Vec<(u64, i64, u32, Vec<f32>)> {
    let mut rows = Vec::new();
    for batch in batches {
        let bins = batch.column_by_name("bin").unwrap().as_primitive::<UInt64Type>();
        let times = batch.column_by_name("t_ns").unwrap().as_primitive::<Int64Type>();
        let flags = batch.column_by_name("flags").unwrap().as_primitive::<UInt32Type>();
        let values = batch.column_by_name("values").unwrap().as_fixed_size_list();
        for at in 0..batch.num_rows() {
            let row = values.value(at);
            let row = row.as_primitive::<Float32Type>().values().to_vec();
            rows.push((bins.value(at), times.value(at), flags.value(at), row));
        }
    }
    rows
}

#[tokio::test]
async fn every_form_has_the_same_bins_and_the_same_numbers() {
    let server = Latentd::start().await;
    let (run, values) = run_with_a_hole(&server).await;
    let path = format!("/v1/runs/{run}/outputs/v");
    let reply: v1::OutputsReply = server.get(&path).await.message();
    let flags: Vec<u32> = reply.stretches.iter().flat_map(|stretch| stretch.flags.clone()).collect();
    assert_eq!(reply.stretches.iter().map(|s| (s.first_bin, s.n)).collect::<Vec<_>>(), [(0, 10), (13, 7)]);
    let t_ns = |bin: u64| T0_NS + 10_000_000 * (bin as i64 + 1);
    let known: Vec<_> = values
        .iter()
        .zip(&flags)
        .map(|((bin, value), flags)| (*bin, t_ns(*bin), *flags, value.to_vec()))
        .collect();

    let answer = server.get(&format!("{path}?format=arrow")).await;
    let read = arrow_ipc::reader::StreamReader::try_new(&answer.body[..], None).unwrap();
    assert_eq!(rows(&read.collect::<Result<Vec<_>, _>>().unwrap()), known);

    let answer = server.get(&format!("{path}?format=parquet")).await;
    assert_eq!(answer.header("content-type"), "application/vnd.apache.parquet");
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(
        answer.body,
    ));
    let read = builder.unwrap().build().unwrap();
    assert_eq!(rows(&read.collect::<Result<Vec<_>, _>>().unwrap()), known);

    let answer = server.get(&format!("{path}?format=csv")).await;
    assert_eq!(answer.header("content-type"), "text/csv");
    let mut lines = answer.text().lines();
    assert_eq!(lines.next(), Some("bin,t_ns,flags,x,y"));
    let read = lines.map(|line| {
        let mut fields = line.split(',');
        let mut next = || fields.next().expect("five fields");
        let (bin, t_ns, flags) = (next().parse(), next().parse(), next().parse());
        let values = vec![next().parse().unwrap(), next().parse().unwrap()];
        (bin.unwrap(), t_ns.unwrap(), flags.unwrap(), values)
    });
    assert_eq!(read.collect::<Vec<_>>(), known);

    let answer = server.get(&format!("{path}?format=npy")).await;
    let read = npy::read(&answer.body).unwrap();
    assert_eq!(read.shape, [17, 2]);
    assert_eq!(read.values::<f32>(), values.iter().flat_map(|(_, value)| *value).collect::<Vec<_>>());

    // A range and one element, in each.
    let answer = server.get(&format!("{path}?format=csv&from=9&to=14&dims=1")).await;
    assert_eq!(answer.text().lines().next(), Some("bin,t_ns,flags,y"));
    assert_eq!(answer.text().lines().count(), 3);
    let answer = server.get(&format!("{path}?format=npy&from=9&to=14&dims=1")).await;
    assert_eq!(npy::read(&answer.body).unwrap().values::<f32>(), [values[9].1[1], values[10].1[1]]);
    // `raw` has no labels.
    let answer = server.get(&format!("/v1/runs/{run}/outputs/raw?format=csv&dims=1,0")).await;
    assert_eq!(answer.text().lines().next(), Some("bin,t_ns,flags,raw_1,raw_0"));
    // No bin at all.
    let answer = server.get(&format!("{path}?format=parquet&from=100")).await;
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(
        answer.body,
    ));
    assert_eq!(builder.unwrap().build().unwrap().count(), 0);
    let answer = server.get(&format!("{path}?format=npy&from=100")).await;
    assert_eq!(npy::read(&answer.body).unwrap().shape, [0, 2]);
    let refused = server.get(&format!("{path}?format=mat")).await.refused();
    refused.is(422, "invalid", &["format", "json, arrow, parquet, csv, npy", "`mat`"]);
    server.stop().await;
}

#[tokio::test]
async fn thinned_values_are_least_greatest_and_last_of_intervals_that_say_what_they_lack() {
    let server = Latentd::start().await;
    let (run, values) = run_with_a_hole(&server).await;
    let path = format!("/v1/runs/{run}/outputs/v");
    // 20 bins in 5 points: intervals of 4, of which [8, 12) has 2 bins and [12, 16) has 3.
    let reply: v1::OutputsReply = server.get(&format!("{path}?max_points=5")).await.message();
    let told: Vec<_> = reply
        .stretches
        .iter()
        .map(|s| (s.first_bin, s.n, s.interval.map(|i| (i.bins, i.present)).expect("an interval")))
        .collect();
    assert_eq!(told, [(0, 2, (4, 4)), (8, 1, (4, 2)), (12, 1, (4, 3)), (16, 1, (4, 4))]);
    let column = |pick: fn(&v1::Stretch) -> &Option<v1::Tensor>| -> Vec<f32> {
        let tensors = reply.stretches.iter().map(|stretch| pick(stretch).as_ref().expect("a tensor"));
        let host = tensors.flat_map(|sent| tensor::host("point", sent).unwrap().to_f64());
        host.map(|value| value as f32).collect()
    };
    let (min, max, last) = (column(|s| &s.min), column(|s| &s.max), column(|s| &s.last));
    for (point, interval) in (0..5u64).map(|at| 4 * at..4 * (at + 1)).enumerate() {
        let there: Vec<[f32; 2]> =
            values.iter().filter(|(bin, _)| interval.contains(bin)).map(|(_, value)| *value).collect();
        for element in 0..2 {
            let all = || there.iter().map(|value| value[element]);
            assert_eq!(min[2 * point + element], all().fold(f32::INFINITY, f32::min));
            assert_eq!(max[2 * point + element], all().fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(last[2 * point + element], there.last().unwrap()[element]);
        }
    }
    assert!(reply.stretches.iter().all(|stretch| stretch.tensor.is_none()));
    assert_eq!((reply.dims, reply.labels), (vec![2], vec!["x".to_owned(), "y".into()]));
    // A range and one element; a range that needs no thinning is whole.
    let part: v1::OutputsReply =
        server.get(&format!("{path}?max_points=2&from=2&to=8&dims=1")).await.message();
    assert_eq!(part.stretches.iter().map(|s| (s.first_bin, s.n)).collect::<Vec<_>>(), [(2, 2)]);
    assert_eq!(part.stretches[0].min.as_ref().unwrap().shape, [2, 1]);
    let whole: v1::OutputsReply = server.get(&format!("{path}?max_points=20")).await.message();
    assert_eq!(whole, server.get(&path).await.message::<v1::OutputsReply>());
    let none: v1::OutputsReply = server.get(&format!("{path}?max_points=5&from=100")).await.message();
    assert!(none.stretches.is_empty());
    server.get(&format!("{path}?max_points=0")).await.refused().is(
        422,
        "invalid",
        &["max_points", "at least 1"],
    );
    let refused = server.get(&format!("{path}?max_points=5&format=csv")).await.refused();
    refused.is(501, "unsupported", &["max_points", "json"]);
    server.stop().await;
}
