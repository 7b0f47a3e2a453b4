//! HTTP JSON, HTTP protobuf and gRPC give identical outputs for identical frames, bit for bit.

use crate::support::{Latentd, Setup, binned, carried, counts, linear, markers, pipeline, recorded, signal};
use latentd::wire::{tensor, v1};

/// An Output without what differs by nature (lag, age, the journal's progress), its tensors as bits; whatever is not
/// finite is one NaN, since JSON has one word for it.
fn comparable(mut output: v1::Output) -> v1::Output {
    (output.lag_us, output.age_us) = (None, None);
    output.durable_seq.clear();
    for block in &mut output.blocks {
        let values =
            tensor::host("block", block.tensor.as_ref().expect("a tensor")).expect("a readable tensor");
        let bits = values.to_f64().into_iter().map(|value| {
            let value = value as f32;
            if value.is_finite() { value.to_bits() } else { f32::NAN.to_bits() }
        });
        let raw: Vec<u8> = bits.flat_map(u32::to_le_bytes).collect();
        let shape = values.shape.iter().map(|axis| *axis as u32).collect();
        block.tensor = Some(v1::Tensor { dtype: "f32".into(), shape, raw: raw.into(), values: Vec::new() });
    }
    output
}

/// A fault without the request that it answered.
fn fault(mut fault: v1::Fault) -> v1::Fault {
    fault.request_id.clear();
    fault
}

/// Sends the frames by every road, each in a session of its own, and compares answer by answer.
async fn same_by_every_road(server: &Latentd, ask: &v1::OpenRequest, frames: &[v1::Frame]) -> usize {
    let by_json = server.open(ask.clone()).await;
    let by_protobuf = server.open(ask.clone()).await.by_protobuf();
    let mut line = server.line(ask.clone()).await;
    let mut faults = 0;
    for frame in frames {
        let json = by_json.try_send(frame.clone()).await;
        let protobuf = by_protobuf.try_send(frame.clone()).await;
        line.put(frame.clone()).await;
        let down = line.next().await.unwrap().unwrap();
        match (json, protobuf, down) {
            (Ok(json), Ok(protobuf), v1::down::Message::Output(streamed)) => {
                let streamed = comparable(streamed);
                assert_eq!(comparable(json), streamed, "JSON and gRPC differ at seq {}", frame.seq);
                assert_eq!(comparable(protobuf), streamed, "protobuf and gRPC differ at seq {}", frame.seq);
            }
            (Err(json), Err(protobuf), v1::down::Message::Fault(streamed)) => {
                faults += 1;
                assert_eq!(fault(json.fault), fault(streamed.clone()));
                assert_eq!(fault(protobuf.fault), fault(streamed));
            }
            other => panic!("the roads differ at seq {}: {other:?}", frame.seq),
        }
    }
    let session = line.opened.session.clone();
    line.end().await;
    let streamed: v1::CloseReply = server.delete(&format!("/v1/sessions/{session}")).await.message();
    for closed in [by_json.close().await, by_protobuf.close().await] {
        let told = |closed: &v1::CloseReply| {
            (closed.bins, closed.gaps, closed.late, closed.dropped, closed.last_bin)
        };
        assert_eq!(told(&closed), told(&streamed));
    }
    faults
}

#[tokio::test]
async fn frames_of_every_fate_are_answered_alike_by_every_road() {
    let server = Latentd::start().await;
    let mut ask = recorded(linear());
    ask.seed = Some(7);
    ask.signals.push(signal("ttl", "markers", &[]));
    let row = [0.1, 2.7];
    let frames = [
        counts(0, 0, &[row, [3.3, 0.2]]),
        markers("ttl", 0, &[(1_795_621_286_661_653_696, "µ go")]),
        v1::Frame { echo: vec![0, 1, 254, 255].into(), ..counts(1, 2, &[row]) },
        counts(1, 2, &[row]),
        counts(3, 3, &[row]),
        counts(2, 6, &[[f32::NAN, 1.0 / 3.0], row]),
        counts(3, 5, &[row, row, row]),
        binned("spikes", 4, 9, &[[1.0, 2.0, 3.0]]),
        v1::Frame { mask: vec![false, true], ..counts(4, 9, &[[1e30, -1e-30]]) },
        v1::Frame { mask: vec![true, true], ..counts(5, 40, &[row]) },
        v1::Frame { lost: true, ..counts(9, 44, &[row]) },
        v1::Frame { reply: Some(true), acked_seq: Some(9), ..counts(10, 45, &[[1e-45, 16_777_217.0]]) },
        counts(9, 44, &[row]),
        counts(11, 10, &[row]),
        binned("nothing", 0, 0, &[row]),
    ];
    assert_eq!(same_by_every_road(&server, &ask, &frames).await, 4);
    server.stop().await;
}

#[tokio::test]
async fn the_trained_encoder_and_decoder_answer_alike_by_every_road() {
    let server = Setup::bare().bundled().start().await;
    let names: Vec<String> = {
        let csv = include_str!("../../models/cortex-encoder/channels.csv");
        csv.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut spikes = signal("spikes", "binned", &names);
    spikes.bin_ms = Some(20.0);
    let ask = v1::OpenRequest { seed: Some(7), ..pipeline("cortex", [spikes]) };
    // Counts by a small generator: any will do, the same for all.
    let mut noise = 1u32;
    let mut count = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 30) as f32
    };
    let frames: Vec<_> = (0..40)
        .map(|seq| {
            let row: [f32; 96] = std::array::from_fn(|_| count());
            binned("spikes", seq, seq, &[row])
        })
        .collect();
    assert_eq!(same_by_every_road(&server, &ask, &frames).await, 0);
    server.stop().await;
}

#[tokio::test]
async fn open_answers_alike_by_every_road() {
    let server = Latentd::start().await;
    let ask = v1::OpenRequest { dry_run: true, seed: Some(7), ..recorded(linear()) };
    let by_http: v1::OpenReply =
        server.post("/v1/sessions", latentd::wire::json::write(&ask)).await.message();
    let by_grpc = server.live().await.open(ask).await.unwrap().into_inner();
    assert_eq!(by_http, by_grpc);
    let wrong = v1::OpenRequest { gap: "x".into(), ..linear() };
    let by_http = server.try_open(wrong.clone()).await.err().unwrap();
    let status = server.live().await.open(wrong).await.unwrap_err();
    let by_grpc = carried(&status, tonic::Code::InvalidArgument, "invalid");
    assert_eq!(fault(by_http.fault), fault(by_grpc));
    server.stop().await;
}
