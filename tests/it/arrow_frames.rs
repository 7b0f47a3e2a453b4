//! Frames by HTTP as Arrow: a column per channel, the rest as the query.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float32Array, Float64Array, StringArray};

use crate::support::arrow::{ARROW, Columns, post, query, rows, stream};
use crate::support::http::Form;
use crate::support::{
    Latentd, Linear, Rig, bins, blocks, counts, flag_names, linear, pipeline, says, signal, spikes,
};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];

fn floats(values: &[f32]) -> ArrayRef {
    Arc::new(Float32Array::from(values.to_vec()))
}

fn columns<const N: usize>(columns: [(&str, ArrayRef); N]) -> Columns {
    columns.into_iter().map(|(name, column)| (name.to_owned(), column)).collect()
}

/// The query of a frame, with its token.
fn fields(rig: &Rig, frame: &v1::Frame) -> String {
    let writer = rig.opened.writers.get(&frame.signal).cloned().unwrap_or_default();
    query(&v1::Frame { writer, ..frame.clone() })
}

#[tokio::test]
async fn columns_find_their_channels_by_name_and_every_other_field_is_the_query() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let mut known = Linear::new();
    let body = stream(&[columns([("b", floats(&[2.0, 4.0])), ("a", floats(&[1.0, 3.0]))])]);
    let frame = v1::Frame { echo: vec![0, 255, 251].into(), ..counts(0, 0, &[]) };
    let output: v1::Output = post(&rig, &fields(&rig, &frame), body).await.message();
    assert_eq!((output.seq, bins(&output), &output.echo[..]), (Some(0), 0..2, &[0, 255, 251][..]));
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[1.0, 2.0], [3.0, 4.0]]));
    // Another type, a value that is not there, a mask, a frame given up.
    let gaps: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.0)]));
    let whole: ArrayRef = Arc::new(Float64Array::from(vec![2.0, 2.0]));
    let body = stream(&[columns([("a", gaps), ("b", whole)])]);
    let frame = v1::Frame { lost: true, ..counts(3, 2, &[]) };
    let output: v1::Output = post(&rig, &fields(&rig, &frame), body).await.message();
    assert_eq!(flag_names(&output), [vec!["masked", "nan_replaced"], vec![]]);
    let frame = v1::Frame { mask: vec![true, false], reply: Some(false), ..counts(4, 4, &[]) };
    let one = || stream(&[columns([("a", floats(&[1.0])), ("b", floats(&[2.0]))])]);
    let output: v1::Output = post(&rig, &fields(&rig, &frame), one()).await.message();
    assert_eq!((flag_names(&output), output.blocks.len()), (vec![vec!["masked"]], 0));
    // Sent again it has its first answer, like any frame.
    let again: v1::Output = post(&rig, &fields(&rig, &frame), one()).await.message();
    assert_eq!(again.first_bin, output.first_bin);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_such_batch_is_malformed_or_invalid_and_consumes_nothing() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let good = || columns([("a", floats(&[1.0])), ("b", floats(&[2.0]))]);
    let here = fields(&rig, &counts(0, 0, &[]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let cases: Vec<(Vec<u8>, u16, &str, &[&str])> = vec![
        (b"not arrow at all".to_vec(), 400, "malformed", &["Arrow"]),
        (Vec::new(), 400, "malformed", &["Arrow", "empty"]),
        (stream(&[good()])[..300].to_vec(), 400, "malformed", &["breaks off"]),
        (stream(&[good(), good()]), 422, "invalid", &["one record batch"]),
        (stream(&[columns([("a", floats(&[1.0])), ("b", text)])]), 422, "invalid", &["column `b`", "Utf8"]),
        (
            stream(&[columns([("a", floats(&[1.0]))])]),
            422,
            "invalid",
            &["2 channels of spikes", "1 columns", "`b`"],
        ),
        (
            stream(&[columns([("a", floats(&[1.0])), ("c", floats(&[2.0]))])]),
            422,
            "invalid",
            &["without one: `b`", "of no channel: `c`"],
        ),
    ];
    for (body, status, kind, parts) in cases {
        let refused = post(&rig, &here, body).await.refused();
        let fault = refused.is(status, kind, parts);
        assert!(!fault.consumed);
        if kind == "invalid" && fault.tensor == "columns" {
            assert_eq!((fault.signal.as_str(), fault.seq, fault.expected_seq), ("spikes", Some(0), Some(0)));
        }
    }
    for (query, parts) in [
        (here.replace("seq=0", "seq=x"), vec!["query"]),
        (format!("{here}&echo=%25"), vec!["echo", "base64"]),
        (format!("{here}&mask=yes,no"), vec!["mask", "yes"]),
        (format!("{here}&count=7"), vec!["count", "1", "7"]),
        (here.replace(&rig.opened.writers["spikes"], ""), vec!["writer", "token"]),
    ] {
        post(&rig, &query, stream(&[good()])).await.refused().is(422, "invalid", &parts);
    }
    let unknown = format!("{here}&sequence=1");
    let refused = post(&rig, &unknown, stream(&[good()])).await.refused();
    refused.is(400, "malformed", &["query", "unknown field `sequence`"]);
    let other = here.replace("signal=spikes", "signal=spiks");
    post(&rig, &other, stream(&[good()])).await.refused().is(404, "not_found", &["no signal `spiks`"]);
    let wrong = rig.post(&here, "application/vnd.apache.arrow.file", stream(&[good()])).await.refused();
    says(&wrong.is(415, "unsupported", &[]).detail, &["arrow.file"]);
    // Nothing of it was consumed.
    let output: v1::Output = post(&rig, &here, stream(&[good()])).await.message();
    assert_eq!(blocks::<2>(&output, 0), [Linear::new().step(ROW)]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn columns_are_for_rows_and_by_place_only_where_channels_are() {
    let server = Latentd::start().await;
    let events = server.open(pipeline("events", [signal("spikes", "spike_events", &["a", "b"])])).await;
    let body = || stream(&[columns([("a", floats(&[1.0])), ("b", floats(&[2.0]))])]);
    let frame = spikes("spikes", 0, 0, 0, &[]);
    post(&events, &fields(&events, &frame), body()).await.refused().is(422, "invalid", &["spike_events"]);
    events.close().await;
    let ask = v1::OpenRequest { channels_by: "order".into(), ..linear() };
    let rig = server.open(ask).await;
    let body = stream(&[columns([("x", floats(&[1.0])), ("y", floats(&[2.0]))])]);
    let output: v1::Output = post(&rig, &fields(&rig, &counts(0, 0, &[])), body).await.message();
    let mut known = Linear::new();
    assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)]);
    let by_name = rig.clone().by(Form::Arrow);
    assert_eq!(rows(&rig.opened, &counts(1, 1, &[ROW])).len(), 2);
    assert_eq!(blocks::<2>(&by_name.send(counts(1, 1, &[ROW])).await, 0), [known.step(ROW)]);
    assert_eq!(ARROW, "application/vnd.apache.arrow.stream");
    rig.close().await;
    server.stop().await;
}
