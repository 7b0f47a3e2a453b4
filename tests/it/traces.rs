//! What a collector of traces gets, and that it holds nothing up.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::collector::Seen;
use crate::support::{
    Answer, Collector, LIMIT, Latentd, Linear, Rig, Setup, blocks, counts, linear, models, pipeline, signal,
    until, within,
};
use latentd::wire::v1::down::Message as Down;
use latentd::wire::v1::up::Message as Up;
use latentd::wire::{json, v1};

const ROW: [f32; 2] = [1.0, 2.0];
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// Brings all requests, and this share of all steps, to the collector.
fn traced(collector: &Collector, steps: f64) -> Setup {
    Setup::new().key("otlp_endpoint", collector.endpoint()).key("otlp_sample", steps)
}

/// Adds the pipeline `two`: `linear`, and `second` on what that says.
fn with_two(setup: Setup) -> Setup {
    let binned = "type = \"binned\"\nbin_ms = 10\nchannels_file = \"channels.csv\"";
    let second = models::linear().named("second").replace(binned, "type = \"latent\"\nchannels = 2");
    let two = "[[stage]]\nname = \"first\"\nmodel = \"linear\"\ninputs = { spikes = \"signal:spikes\" }\n\
               [[stage]]\nname = \"last\"\nmodel = \"second\"\ninputs = { spikes = \"first.v\" }\n";
    setup.model(second).file("pipelines/two.toml", two)
}

fn two() -> v1::OpenRequest {
    pipeline("two", [signal("spikes", "binned", &["a", "b"])])
}

/// Sends a frame by HTTP with a `traceparent`; the Output and the request's id.
async fn send_under(rig: &Rig, mut frame: v1::Frame, traceparent: &str) -> (v1::Output, String) {
    frame.writer = rig.opened.writers[&frame.signal].clone();
    let request = reqwest::Client::new().post(rig.url("/frames")).header("traceparent", traceparent);
    let request = request.header("content-type", "application/json").body(json::write(&frame));
    let answer = within("an answer", Answer::of(request)).await;
    (answer.message(), answer.header("x-request-id").to_owned())
}

/// Attaches by gRPC, under a trace where one is given, sends frames of one row each, and ends.
async fn stream(server: &Latentd, opened: &v1::OpenReply, traceparent: Option<&str>, frames: u64) {
    let (up, ups) = mpsc::channel(8);
    let send = |message| up.send(v1::Up { message: Some(message) });
    let attach = v1::Attach { session: opened.session.clone(), ..Default::default() };
    send(Up::Attach(attach)).await.unwrap();
    let mut request = tonic::Request::new(ReceiverStream::new(ups));
    if let Some(traceparent) = traceparent {
        request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    }
    let mut downs = within("a stream", server.live().await.stream(request)).await.unwrap().into_inner();
    within("attached", downs.message()).await.unwrap().expect("attached");
    for seq in 0..frames {
        send(Up::Frame(counts(seq, seq, &[ROW]))).await.unwrap();
        let down = within("an answer", downs.message()).await.unwrap();
        assert!(matches!(down, Some(v1::Down { message: Some(Down::Output(_)) })), "{down:?}");
    }
    drop(up);
    assert_eq!(within("the end", downs.message()).await.unwrap(), None);
}

/// The parts of a span, in the order in which they began.
fn parts<'a>(all: &'a [Seen], whole: &Seen) -> Vec<&'a Seen> {
    let mut parts: Vec<_> = all.iter().filter(|span| span.parent == whole.id).collect();
    parts.sort_by_key(|part| (part.from_ns, part.to_ns));
    parts
}

#[tokio::test]
async fn a_sessions_trace_shows_receive_queue_compute_readout_reply_under_the_request_that_brought_the_frame()
{
    let collector = Collector::start().await;
    let server = with_two(traced(&collector, 0.0)).start().await;
    let rig = server.open(two()).await;
    // Whoever keeps a trace of its own gets all of it, whatever share of steps is traced.
    let (output, request_id) = send_under(&rig, counts(0, 0, &[ROW, ROW]), &traceparent("01")).await;
    let session = rig.session().to_owned();
    rig.close().await;
    // The stop brings what waits.
    server.stop().await;

    let all: Vec<_> = collector.spans().into_iter().filter(|span| span.trace == TRACE).collect();
    let request = all.iter().find(|span| span.parent == SPAN).expect("the request, under the caller's span");
    assert_eq!(
        (request.name.as_str(), request.kind, request.failed),
        ("http.request", SpanKind::Server, false)
    );
    for (key, value) in [
        ("request.id", request_id.as_str()),
        ("http.method", "POST"),
        ("http.route", "/v1/sessions/{session}/frames"),
        ("http.status", "200"),
    ] {
        assert_eq!(request.says(key), value);
    }
    assert_eq!(request.resource["service.name"], "latentd");
    assert_eq!(request.resource["service.version"], env!("CARGO_PKG_VERSION"));

    let [step] = parts(&all, request)[..] else { panic!("one step in {all:#?}") };
    assert_eq!((step.name.as_str(), step.kind), ("step", SpanKind::Internal));
    for (key, value) in [
        ("session.id", session.as_str()),
        ("pipeline.name", "two"),
        ("signal.name", "spikes"),
        ("frame.seq", "0"),
        ("bin.index", "0"),
        ("bin.count", "2"),
        ("model.name", "second"),
        ("model.version", "1"),
    ] {
        assert_eq!(step.says(key), value, "{key}");
    }
    let walk = parts(&all, step);
    let names: Vec<_> = walk.iter().map(|part| part.name.as_str()).collect();
    let bin = ["queue", "compute", "queue", "compute", "readout"];
    assert_eq!(names, [&["receive"], &bin[..], &bin[..], &["reply"]].concat());
    assert_eq!(all.len(), 2 + walk.len(), "nothing else is of this trace");
    for (at, part) in walk.iter().enumerate() {
        assert!(step.from_ns <= part.from_ns && part.to_ns <= step.to_ns, "{part:?} is not in {step:?}");
        assert!(
            at == 0 || walk[at - 1].to_ns <= part.from_ns,
            "{part:?} begins before {:?} ends",
            walk[at - 1]
        );
    }
    for (at, model) in [(1, "linear"), (2, "linear"), (3, "second"), (4, "second")] {
        assert_eq!((walk[at].says("model.name"), walk[at].says("bin.index")), (model, "0"));
        assert_eq!(walk[at + 5].says("bin.index"), "1");
    }
    assert_eq!(walk[2].says("batch.rows"), "1");
    // The times are those that the answer tells.
    let lag = output.lag_us.unwrap();
    let sum_us = |name: &str| {
        let of_name = walk.iter().filter(|part| part.name == name);
        of_name.map(|part| part.took_ns()).sum::<u64>() as f64 / 1e3
    };
    for (got, told) in [
        (sum_us("queue"), lag.queue),
        (sum_us("compute"), lag.compute),
        (step.says("lag_us").parse().unwrap(), lag.total),
    ] {
        assert!((got - told).abs() < 0.1, "{got} µs, told were {told} µs");
    }
}

#[tokio::test]
async fn a_streams_steps_are_traces_of_their_own_beside_it_or_part_of_the_trace_that_it_named() {
    let collector = Collector::start().await;
    let server = traced(&collector, 1.0).start().await;
    let beside = server.open(linear()).await;
    stream(&server, &beside.opened, None, 3).await;
    let within_it = server.open(linear()).await;
    stream(&server, &within_it.opened, Some(&traceparent("01")), 3).await;
    let calls = collector.until("grpc.request", 2).await;
    let is_named = |call: &&Seen| call.trace == TRACE;
    let (named, other) = (calls.iter().find(is_named), calls.iter().find(|call| !is_named(call)));
    let (named, other) = (named.expect("under the caller's span"), other.expect("a trace of its own"));
    assert_eq!((named.parent.as_str(), other.parent.as_str()), (SPAN, ""));
    assert!(calls.iter().all(|call| call.says("rpc.method") == "/latentd.v1.Live/Stream" && !call.failed));

    let steps = collector.until("step", 6).await;
    let of = |session: &str| {
        let mut steps: Vec<_> = steps.iter().filter(|step| step.says("session.id") == session).collect();
        steps.sort_by_key(|step| step.from_ns);
        steps
    };
    for (session, call) in [(beside.session(), other), (within_it.session(), named)] {
        let steps = of(session);
        assert_eq!(steps.iter().map(|step| step.says("frame.seq")).collect::<Vec<_>>(), ["0", "1", "2"]);
        for step in &steps {
            if call == named {
                assert_eq!((&step.trace, &step.parent, step.links.len()), (&call.trace, &call.id, 0));
            } else {
                assert_eq!(
                    (step.parent.as_str(), &step.links[..]),
                    ("", &[format!("{}/{}", call.trace, call.id)][..])
                );
            }
        }
    }
    let mut traces: Vec<_> = of(beside.session()).iter().map(|step| step.trace.clone()).collect();
    traces.push(other.trace.clone());
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), 4, "each is a trace of its own");
    beside.close().await;
    within_it.close().await;
    server.stop().await;
}

#[tokio::test]
async fn of_a_sessions_steps_the_share_that_was_asked_for_is_traced_and_of_its_requests_those_whose_caller_keeps_them()
 {
    let collector = Collector::start().await;
    let server = traced(&collector, 0.1).start().await;
    let rig = server.open(linear()).await;
    stream(&server, &rig.opened, None, 100).await;
    let mut known = Linear::new();
    (0..100).for_each(|_| _ = known.step(ROW));
    let (output, unkept) = send_under(&rig, counts(100, 100, &[ROW]), &traceparent("00")).await;
    assert_eq!(blocks::<2>(&output, 0), [known.step(ROW)]);
    server.get("/v1/sessions/none").await.refused().is(404, "not_found", &["none"]);
    rig.close().await;
    server.stop().await;
    let steps = collector.named("step").len();
    assert!((9..=12).contains(&steps), "{steps} of 101");
    assert!(collector.spans().iter().all(|span| span.trace != TRACE));
    let requests = collector.named("http.request");
    assert!(requests.iter().all(|request| request.says("request.id") != unkept));
    let missed = requests.iter().find(|request| request.says("http.status") == "404").expect("the 404");
    assert_eq!((missed.says("fault.kind"), missed.failed), ("not_found", false));
}

/// How many spans were dropped, by the metric.
async fn dropped(server: &Latentd) -> f64 {
    server.metric("latentd_spans_dropped_total", "").await
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_spans_that_are_counted_and_is_told_of_once_until_it_does() {
    let collector = Collector::start().await;
    collector.refuse(true);
    let server = traced(&collector, 1.0).start().await;
    let rig = server.open(linear()).await;
    let mut known = Linear::new();
    for seq in 0..3 {
        assert_eq!(blocks::<2>(&rig.send(counts(seq, seq, &[ROW])).await, 0), [known.step(ROW)]);
        // At least one more batch could not be brought.
        let before = dropped(&server).await;
        until(LIMIT, "spans that are dropped", || async { (dropped(&server).await > before).then_some(()) })
            .await;
    }
    let away = "the collector does not take traces";
    assert_eq!(server.setup.log().matches(away).count(), 1, "{}", server.setup.log());
    collector.refuse(false);
    until(LIMIT, "the word that it is back", || async {
        server.get("/livez").await;
        server.setup.log().contains("the collector takes traces again").then_some(())
    })
    .await;
    assert_eq!(blocks::<2>(&rig.send(counts(3, 3, &[ROW])).await, 0), [known.step(ROW)]);
    collector.until("step", 1).await;
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_collector_that_is_not_there_or_never_answers_holds_up_neither_answers_nor_the_end() {
    // Connections come about, and nobody speaks.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [mute.local_addr().unwrap(), nobody.local_addr().unwrap()];
    drop(nobody);
    for address in addresses {
        let setup = Setup::new().key("otlp_endpoint", format!("http://{address}")).key("otlp_sample", 1);
        let server = setup.start().await;
        let rig = server.open(linear()).await;
        let mut known = Linear::new();
        for seq in 0..5 {
            assert_eq!(blocks::<2>(&rig.send(counts(seq, seq, &[ROW])).await, 0), [known.step(ROW)]);
        }
        rig.close().await;
        if address == addresses[0] {
            within("a connection of the exporter", mute.accept()).await.unwrap();
        }
        // Asserts exit code 0, within the tests' limit.
        server.stop().await;
    }
}
