//! Who may write a signal: tokens, takeover, signals with a writer of their own, the dead.

use tonic::Code;

use crate::support::{
    LIMIT, Latentd, Line, Linear, Setup, binned, bins, blocks, carried, counts, linear, markers, pipeline,
    recorded, signal, until,
};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];

fn attach(opened: &v1::OpenReply, writer: &str, signal: Option<&str>) -> v1::Attach {
    v1::Attach { session: opened.session.clone(), writer: writer.into(), signal: signal.map(Into::into) }
}

#[tokio::test]
async fn a_frame_by_http_needs_the_signals_own_writer_token() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let path = format!("/v1/sessions/{}/frames", rig.session());
    let bare = latentd::wire::json::write(&counts(0, 0, &[ROW]));
    let refused = server.post(&path, bare).await.refused();
    let fault = refused.is(422, "invalid", &["writer", "token", "none"]);
    assert_eq!((fault.signal.as_str(), fault.seq), ("spikes", Some(0)));
    let refused = rig.refused(v1::Frame { writer: "not-it".into(), ..counts(0, 0, &[ROW]) }).await;
    let fault = refused.is(409, "conflict", &["spikes", "token"]);
    assert!(!fault.consumed && !fault.detail.contains("not-it"), "{}", fault.detail);
    assert_eq!(blocks::<2>(&rig.send(counts(0, 0, &[ROW])).await, 0), [Linear::new().step(ROW)]);
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_second_writer_is_refused_without_the_token_and_takes_over_with_it() {
    let server = Latentd::start().await;
    let mut first = server.line(recorded(linear())).await;
    let opened = first.opened.clone();
    let token = opened.writers["spikes"].clone();
    let mut known = Linear::new();
    assert_eq!(blocks::<2>(&first.send(counts(0, 0, &[ROW])).await, 0), [known.step(ROW)]);
    for wrong in ["", "nonsense"] {
        let status = Line::attach(server.live().await, attach(&opened, wrong, None)).await.err().unwrap();
        let fault = carried(&status, Code::Aborted, "conflict");
        crate::support::says(&fault.detail, &["spikes", "another stream", "writer token"]);
    }
    // The first goes on, untouched.
    assert_eq!(blocks::<2>(&first.send(counts(1, 1, &[ROW])).await, 0), [known.step(ROW)]);
    let mut second = Line::attach(server.live().await, attach(&opened, &token, None)).await.unwrap();
    assert_eq!((second.attached.next_seq["spikes"], second.attached.last_bin), (2, Some(1)));
    let fault = carried(&first.ended().await, Code::Aborted, "replaced");
    assert_eq!(fault.status, 409);
    crate::support::says(&fault.detail, &["spikes", "took over"]);
    assert_eq!(blocks::<2>(&second.send(counts(2, 2, &[ROW])).await, 0), [known.step(ROW)]);
    let info: v1::SessionInfo = server.get(&format!("/v1/sessions/{}", opened.session)).await.message();
    assert_eq!((info.writers["spikes"].as_str(), info.state.as_str()), ("attached", "open"));
    second.end().await;
    // Where none is attached, any writer may attach; the session was there all the while.
    let mut third = Line::attach(server.live().await, attach(&opened, "", None)).await.unwrap();
    assert_eq!(third.attached.next_seq["spikes"], 3);
    assert_eq!(blocks::<2>(&third.send(counts(3, 3, &[ROW])).await, 0), [known.step(ROW)]);
    third.end().await;
    server.delete(&format!("/v1/sessions/{}", opened.session)).await;
    let run = opened.run.unwrap();
    assert_eq!(server.event(&run, "writer_replaced").await.signal, "spikes");
    assert!(server.events(&run, "detached").await[0].count >= 2);
    server.stop().await;
}

#[tokio::test]
async fn a_signal_with_its_own_writer_is_written_by_no_other() {
    let server = Latentd::start().await;
    let ttl = v1::SignalSpec { own_writer: true, ..signal("ttl", "markers", &[]) };
    let ask = pipeline("linear", [signal("spikes", "binned", &["a", "b"]), ttl]);
    let rig = server.open(ask).await;
    let [spikes, ttl] = ["spikes", "ttl"].map(|name| rig.opened.writers[name].clone());
    assert_ne!(spikes, ttl);
    let stolen = v1::Frame { writer: spikes.clone(), ..markers("ttl", 0, &[(0, "go")]) };
    rig.refused(stolen).await.is(409, "conflict", &["ttl"]);
    let mut main = Line::attach(server.live().await, attach(&rig.opened, &spikes, None)).await.unwrap();
    let mut side = Line::attach(server.live().await, attach(&rig.opened, &ttl, Some("ttl"))).await.unwrap();
    assert_eq!(main.send(counts(0, 0, &[ROW])).await.n, 1);
    assert_eq!(side.send(markers("ttl", 0, &[(0, "go")])).await.signal, "ttl");
    let fault = main.refused(markers("ttl", 1, &[(0, "go")])).await;
    assert_eq!((fault.kind.as_str(), fault.status), ("conflict", 409));
    let fault = side.refused(counts(1, 1, &[ROW])).await;
    assert_eq!((fault.kind.as_str(), fault.signal.as_str()), ("conflict", "spikes"));
    // With its token a frame may come by any stream.
    let lent = v1::Frame { writer: ttl, ..markers("ttl", 1, &[(0, "go")]) };
    assert_eq!(main.send(lent).await.seq, Some(1));
    assert_eq!(main.send(counts(1, 1, &[ROW])).await.seq, Some(1));
    let status =
        Line::attach(server.live().await, attach(&rig.opened, &spikes, Some("tll"))).await.err().unwrap();
    crate::support::says(&carried(&status, Code::NotFound, "not_found").detail, &["no signal `tll`", "ttl"]);
    main.end().await;
    side.end().await;
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_without_a_sign_of_life_is_dead_and_any_writer_may_attach() {
    let server = Setup::new().key("ping_s", 0.2).key("dead_after_s", 0.6).start().await;
    // A road between rig and server that goes silent without a word.
    let road = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, grpc) = (road.local_addr().unwrap(), server.grpc.clone());
    let (cut, mut is_cut) = tokio::sync::watch::channel(false);
    let carried_on = tokio::spawn(async move {
        let (mut near, _) = road.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(grpc).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = is_cut.wait_for(|cut| *cut) => {}
        }
        (near, far)
    });
    let rig = server.open(recorded(linear())).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{at}")).unwrap();
    let live = v1::live_client::LiveClient::new(endpoint.connect().await.unwrap());
    let token = rig.opened.writers["spikes"].clone();
    let mut far = Line::attach(live, attach(&rig.opened, &token, None)).await.unwrap();
    assert_eq!(bins(&far.send(counts(0, 0, &[ROW])).await), 0..1);
    cut.send(true).unwrap();
    // Held open, so that no end of a connection tells.
    let _silent = carried_on.await.unwrap();
    let mut near = until(LIMIT, "the dead stream let go of", || async {
        Line::attach(server.live().await, attach(&rig.opened, "", None)).await.ok()
    })
    .await;
    assert_eq!(bins(&near.send(counts(1, 1, &[ROW])).await), 1..2);
    near.end().await;
    rig.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_is_attached_once_and_its_first_message_says_to_what() {
    let server = Latentd::start().await;
    let mut line = server.line(linear()).await;
    let again = attach(&line.opened, "", None);
    line.up(Some(v1::up::Message::Attach(again))).await;
    let fault = line.fault().await;
    assert_eq!((fault.kind.as_str(), fault.status), ("invalid", 422));
    line.put(binned("nothing", 0, 0, &[ROW])).await;
    assert_eq!(line.fault().await.kind, "not_found");
    assert_eq!(line.send(counts(0, 0, &[ROW])).await.n, 1);
    let unknown = v1::Attach { session: "no-such".into(), ..Default::default() };
    let status = Line::attach(server.live().await, unknown).await.err().unwrap();
    crate::support::says(&carried(&status, Code::NotFound, "not_found").detail, &["no session `no-such`"]);
    let (up, ups) = tokio::sync::mpsc::channel(1);
    up.send(v1::Up { message: Some(v1::up::Message::Frame(counts(0, 0, &[ROW]))) }).await.unwrap();
    let refused = server.live().await.stream(tokio_stream::wrappers::ReceiverStream::new(ups)).await;
    crate::support::says(
        &carried(&refused.unwrap_err(), Code::InvalidArgument, "malformed").detail,
        &["attach"],
    );
    line.end().await;
    server.stop().await;
}
