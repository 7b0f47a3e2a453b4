//! Deadlines, silence and the end of a session.

use crate::support::{
    LIMIT, Latentd, Linear, Setup, bins, blocks, counts, flag_names, linear, models, recorded, until,
};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];

#[tokio::test]
async fn a_bin_over_its_deadline_is_flagged_counted_and_answered_all_the_same() {
    let hasty = models::linear().named("hasty");
    let hasty =
        models::Model { manifest: hasty.manifest.clone() + "[serve]\ndeadline_ms = 0.0001\n", ..hasty };
    let server = Setup::new().model(hasty).start().await;
    // The model's deadline, where the session says none; the session's, where it does.
    let ask = v1::OpenRequest { pipeline: "hasty".into(), deadline_ms: None, ..linear() };
    let rig = server.open(ask).await;
    assert_eq!(rig.opened.resolved.as_ref().unwrap().deadline_ms, Some(0.0001));
    let mut known = Linear::new();
    let output = rig.send(counts(0, 0, &[ROW, ROW])).await;
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[ROW, ROW]));
    assert_eq!(flag_names(&output), [["deadline_missed"], ["deadline_missed"]]);
    let lag = output.lag_us.unwrap();
    assert!(lag.total > 0.1 && lag.compute > 0.0 && lag.total >= lag.compute, "{lag:?}");
    assert_eq!(rig.close().await.deadline_missed, 2);
    assert_eq!(server.metric("latentd_deadline_missed_total", "hasty").await, 2.0);
    let rig = server.open(v1::OpenRequest { pipeline: "hasty".into(), ..linear() }).await;
    assert_eq!(flag_names(&rig.send(counts(0, 0, &[ROW])).await), [Vec::<&str>::new()]);
    assert_eq!(rig.close().await.deadline_missed, 0);
    server.stop().await;
}

#[tokio::test]
async fn a_session_whose_opener_left_before_it_was_told_of_it_is_closed_again() {
    // A commit comes long after the one before it, and an open that is recorded waits for one.
    let server = Setup::new().key("commit_ms", 2000).start().await;
    let before = server.open(recorded(linear())).await;
    let mut ask = tonic::Request::new(recorded(linear()));
    ask.set_timeout(std::time::Duration::from_millis(200));
    server.live().await.open(ask).await.expect_err("the deadline passed while the open was served");
    let run = until(LIMIT, "its run closed", || async {
        let reply: v1::RunsReply = server.get("/v1/runs?state=closed").await.message();
        reply.runs.into_iter().next()
    })
    .await;
    let event = server.event(&run.run, "closed").await;
    crate::support::says(&event.detail, &["its opener had left"]);
    let open: v1::SessionsReply = server.get("/v1/sessions").await.message();
    assert_eq!(open.sessions.iter().map(|one| &one.session[..]).collect::<Vec<_>>(), [before.session()]);
    before.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_silent_session_is_closed_with_an_event_and_its_run_stays() {
    let server = Latentd::start().await;
    let rig = server.open(v1::OpenRequest { idle_timeout_s: Some(0.2), ..recorded(linear()) }).await;
    assert_eq!(bins(&rig.send(counts(0, 0, &[ROW])).await), 0..1);
    let path = format!("/v1/sessions/{}", rig.session());
    until(LIMIT, "the session closed", || async { (server.get(&path).await.status == 404).then_some(()) })
        .await;
    let run = rig.run().to_owned();
    let event = until(LIMIT, "the event of the end", || async {
        server.events(&run, "closed").await.into_iter().next()
    })
    .await;
    crate::support::says(&event.detail, &["idle_timeout_s"]);
    let info: v1::RunInfo = server.get(&format!("/v1/runs/{run}")).await.message();
    assert_eq!((info.state.as_str(), info.bins), ("closed", 1));
    server.stop().await;
}

#[tokio::test]
async fn a_rig_that_is_gone_leaves_its_session_and_comes_back_to_it() {
    let server = Setup::new().key("ping_s", 0.05).key("dead_after_s", 0.3).start().await;
    let mut line = server.line(recorded(linear())).await;
    let opened = line.opened.clone();
    let mut known = Linear::new();
    assert_eq!(blocks::<2>(&line.send(counts(0, 0, &[ROW])).await, 0), [known.step(ROW)]);
    drop(line);
    let path = format!("/v1/sessions/{}", opened.session);
    until(LIMIT, "the session detached", || async {
        let info: v1::SessionInfo = server.get(&path).await.message();
        (info.state == "detached" && info.writers["spikes"] == "detached").then_some(())
    })
    .await;
    let mut line = server.attach(&opened).await;
    assert_eq!((line.attached.next_seq["spikes"], line.attached.last_bin), (1, Some(0)));
    assert_eq!(blocks::<2>(&line.send(counts(1, 1, &[ROW])).await, 0), [known.step(ROW)]);
    let info: v1::SessionInfo = server.get(&path).await.message();
    assert_eq!(info.state, "open");
    line.end().await;
    let closed: v1::CloseReply = server.delete(&path).await.message();
    assert_eq!(closed.bins, 2);
    assert_eq!(server.events(&opened.run.unwrap(), "detached").await[0].signal, "spikes");
    server.stop().await;
}

#[tokio::test]
async fn close_answers_every_frame_that_came_before_it_and_ends_the_stream_well() {
    let server = Latentd::start().await;
    let mut line = server.line(recorded(linear())).await;
    let opened = line.opened.clone();
    for seq in 0..20 {
        line.put(counts(seq, seq, &[ROW])).await;
    }
    let mut known = Linear::new();
    for seq in 0..20 {
        let output = line.output().await;
        assert_eq!((output.seq, blocks::<2>(&output, 0)), (Some(seq), vec![known.step(ROW)]));
    }
    let mut live = server.live().await;
    let closed = live.close(v1::CloseRequest { session: opened.session.clone() }).await.unwrap().into_inner();
    assert_eq!((closed.bins, closed.last_bin, closed.durable_seq["spikes"]), (20, Some(19), 19));
    let lag = closed.lag_us.unwrap();
    assert!(lag.p50 > 0.0 && lag.p99 >= lag.p50 && lag.max.unwrap() >= lag.p99 / 2.0, "{lag:?}");
    assert_eq!(line.next().await.unwrap(), None);
    assert!(line.notices.iter().any(|notice| notice.kind == "closed"), "{:?}", line.notices);
    server.stop().await;
}
