//! HTTP (JSON, protobuf, Arrow), WebSocket (text, binary) and gRPC give identical outputs for identical frames, bit for
//! bit; and so do frames that are fed on the runtime's threads and beside them.

use latentd::cli::replay::cut::Cut;

use crate::support::http::Form;
use crate::support::websocket::{self, Socket};
use crate::support::{
    Latentd, Line, Rig, Setup, binned, carried, counts, linear, markers, pipeline, recorded, signal,
};
use crate::{continuous, recordings, rig};
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

/// A session and the way to it.
enum Road {
    Http(Form, Box<Rig>),
    Socket(Box<Socket>, Box<v1::OpenReply>),
    Grpc(Box<Line>),
}

impl Road {
    /// Every road there is, each with a session of its own.
    async fn all(server: &Latentd, ask: &v1::OpenRequest) -> Vec<Road> {
        let mut roads = Vec::new();
        for form in [Form::Json, Form::Protobuf, Form::Arrow] {
            roads.push(Road::Http(form, Box::new(server.open(ask.clone()).await.by(form))));
        }
        for form in [websocket::Form::Text, websocket::Form::Binary] {
            let opened = server.open(ask.clone()).await.opened;
            let socket = Socket::attach(server, &opened, form).await;
            roads.push(Road::Socket(Box::new(socket), Box::new(opened)));
        }
        roads.push(Road::Grpc(Box::new(server.line(ask.clone()).await)));
        roads
    }

    fn name(&self) -> String {
        match self {
            Road::Http(form, _) => format!("HTTP {form:?}"),
            Road::Socket(socket, _) => format!("WebSocket {:?}", socket.form),
            Road::Grpc(_) => "gRPC".into(),
        }
    }

    async fn send(&mut self, frame: v1::Frame) -> Result<v1::Output, v1::Fault> {
        let down = match self {
            Road::Http(_, rig) => return rig.try_send(frame).await.map_err(|refused| refused.fault),
            Road::Socket(socket, _) => {
                socket.put(frame).await;
                socket.next().await.expect("the stream goes on")
            }
            Road::Grpc(line) => {
                line.put(frame).await;
                line.next().await.expect("no end").expect("the stream goes on")
            }
        };
        match down {
            v1::down::Message::Output(output) => Ok(output),
            v1::down::Message::Fault(fault) => Err(fault),
            other => panic!("an answer is due, not {other:?}"),
        }
    }

    async fn close(self, server: &Latentd) -> v1::CloseReply {
        let session = match &self {
            Road::Http(_, rig) => rig.session().to_owned(),
            Road::Socket(_, opened) => opened.session.clone(),
            Road::Grpc(line) => line.opened.session.clone(),
        };
        server.delete(&format!("/v1/sessions/{session}")).await.message()
    }
}

/// Sends the frames by every road, each in a session of its own, and compares answer by answer; answers how many were
/// refused.
async fn same_by_every_road(
    server: &Latentd,
    ask: &v1::OpenRequest,
    frames: impl IntoIterator<Item = v1::Frame>,
) -> usize {
    let roads = Road::all(server, ask).await;
    same(roads.into_iter().map(|road| (server, road)).collect(), frames).await
}

/// As `same_by_every_road`, by these roads to these servers.
async fn same(mut roads: Vec<(&Latentd, Road)>, frames: impl IntoIterator<Item = v1::Frame>) -> usize {
    let mut faults = 0;
    for frame in frames {
        let mut answers = Vec::new();
        for (_, road) in &mut roads {
            let answer = road.send(frame.clone()).await;
            answers.push((road.name(), answer.map(comparable).map_err(fault)));
        }
        let (first, wanted) = answers[0].clone();
        faults += usize::from(wanted.is_err());
        for (road, answer) in &answers[1..] {
            match (&wanted, answer) {
                // Rows that are no rows of the signal are refused as columns before they are a tensor.
                (Err(wanted), Err(found)) if road == "HTTP Arrow" && wanted.kind == "invalid" => {
                    let told = |fault: &v1::Fault| (fault.kind.clone(), fault.seq, fault.expected_seq);
                    assert_eq!(told(wanted), told(found));
                }
                _ => assert_eq!(&wanted, answer, "{first} and {road} differ at seq {}", frame.seq),
            }
        }
    }
    let mut told = Vec::new();
    for (server, road) in roads {
        let closed = road.close(server).await;
        told.push((closed.bins, closed.gaps, closed.late, closed.dropped, closed.last_bin));
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
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
    assert_eq!(same_by_every_road(&server, &ask, frames).await, 4);
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
    assert_eq!(same_by_every_road(&server, &ask, frames).await, 0);
    server.stop().await;
}

#[tokio::test]
async fn a_recording_is_answered_alike_by_every_road() {
    let server = Setup::bare().bundled().start().await;
    let recording = recordings::cortex_counts(150);
    let ask =
        v1::OpenRequest { seed: Some(7), deadline_ms: Some(60_000.0), ..rig::ask(&recording, "cortex") };
    // 50 ms do not divide into bins of 20: frames of two rows and of three.
    let frames = Cut::new(&recording, 50_000_000).map(|due| due.frame);
    assert_eq!(same_by_every_road(&server, &ask, frames).await, 0);
    server.stop().await;
}

#[tokio::test]
async fn what_is_fed_beside_the_runtimes_threads_is_answered_as_what_is_fed_on_them() {
    // No feed is ever short enough for the one, none too long for the other.
    let chain = r#"bin_ms = 10
rate = { num = 1000, den = 1 }
channels = 2
preprocess = [
  { op = "butterworth", kind = "band", low_hz = 4.0, high_hz = 30.0 },
  { op = "zscore", mode = "running", tau_s = 1.0 },
]"#;
    let setup = |inline_us: u32| {
        let setup = Setup::bare().model(continuous::identity("filtered", 2, chain));
        setup.key("inline_us", inline_us).key("load_limit", 1).start()
    };
    let servers = [setup(0).await, setup(1_000_000).await];
    let spec = v1::SignalSpec {
        rate: Some(v1::Rate { num: 1_000, den: 1 }),
        ..signal("lfp", "continuous", &["a", "b"])
    };
    let ask = v1::OpenRequest { seed: Some(7), ..pipeline("filtered", [spec]) };
    let frames = |by: u64| {
        (0..60).map(move |seq| {
            let rows: Vec<[f32; 2]> = (0..by).map(|at| noise(seq * by + at)).collect();
            // One that comes again, and one that comes too early.
            let sent = if seq == 30 { 29 } else { seq };
            binned("lfp", sent, sent * by, &rows)
        })
    };
    for by in [4, 10, 37] {
        let mut roads = Vec::new();
        for server in &servers {
            roads.extend(Road::all(server, &ask).await.into_iter().map(|road| (server, road)));
        }
        assert!(same(roads, frames(by)).await > 0, "frames behind the missing one are refused");
    }
    for server in servers {
        server.stop().await;
    }
}

/// Two samples that are fixed by their index.
fn noise(index: u64) -> [f32; 2] {
    let x = index.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    [(x >> 40) as f32 / 1e4, ((x >> 20) & 0xFFFF) as f32 / 1e4]
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
