//! The state starting anew: asked for, by a marker, by hand; and what is no trial.

use crate::support::{
    Latentd, Linear, Rig, bins, blocks, counts, flag_names, linear, markers, pipeline, recorded, signal,
};
use latentd::wire::v1;

const ROW: [f32; 2] = [1.0, 2.0];
const MS: i64 = 1_000_000;

async fn one(rig: &Rig, seq: u64) -> (Vec<[f32; 2]>, Vec<&'static str>) {
    let output = rig.send(counts(seq, seq, &[ROW])).await;
    assert_eq!(bins(&output), seq..seq + 1);
    (blocks::<2>(&output, 0), flag_names(&output).remove(0))
}

#[tokio::test]
async fn a_reset_takes_place_before_the_bin_asked_for_and_never_before_a_past_one() {
    let server = Latentd::start().await;
    let rig = server.open(recorded(linear())).await;
    let mut known = Linear::new();
    assert_eq!(one(&rig, 0).await, (vec![known.step(ROW)], vec![]));
    assert_eq!(one(&rig, 1).await, (vec![known.step(ROW)], vec![]));
    assert_eq!(rig.reset("", None).await.unwrap(), 2);
    let mut known = Linear::new();
    assert_eq!(one(&rig, 2).await, (vec![known.step(ROW)], vec!["reset"]));
    assert_eq!(rig.reset("model", Some(4)).await.unwrap(), 4);
    assert_eq!(one(&rig, 3).await, (vec![known.step(ROW)], vec![]));
    let mut known = Linear::new();
    assert_eq!(one(&rig, 4).await, (vec![known.step(ROW)], vec!["reset"]));
    let refused = rig.reset("model", Some(4)).await.unwrap_err();
    refused.is(409, "conflict", &["bin 4 is closed", "5"]);
    let refused = rig.reset("everything", None).await.unwrap_err();
    refused.is(422, "invalid", &["scope", "`everything`", "model, all"]);
    assert_eq!(one(&rig, 5).await, (vec![known.step(ROW)], vec![]));
    // By gRPC the same.
    let mut live = server.live().await;
    let ask = |at_bin| v1::ResetRequest { session: rig.session().into(), scope: "model".into(), at_bin };
    assert_eq!(live.reset(ask(None)).await.unwrap().into_inner().at_bin, 6);
    let status = live.reset(ask(Some(0))).await.unwrap_err();
    crate::support::carried(&status, tonic::Code::Aborted, "conflict");
    assert_eq!(one(&rig, 6).await, (vec![Linear::new().step(ROW)], vec!["reset"]));
    let run = rig.run().to_owned();
    rig.close().await;
    let told: u64 = server.events(&run, "reset").await.iter().map(|event| event.count).sum();
    assert_eq!(told, 3);
    server.stop().await;
}

fn trials() -> v1::OpenRequest {
    let signals = [signal("spikes", "binned", &["a", "b"]), signal("ttl", "markers", &[])];
    v1::OpenRequest {
        trials: Some(v1::Trials {
            signal: "ttl".into(),
            start: "start".into(),
            end: "end".into(),
            key: Some("cond=".into()),
        }),
        ..recorded(pipeline("trials", signals))
    }
}

#[tokio::test]
async fn the_marker_that_ends_a_trial_starts_the_state_anew() {
    let server = Latentd::start().await;
    let rig = server.open(trials()).await;
    let mut known = Linear::new();
    assert_eq!(one(&rig, 0).await, (vec![known.step(ROW)], vec![]));
    rig.send(markers("ttl", 0, &[(0, "start"), (1, "cond=left")])).await;
    assert_eq!(one(&rig, 1).await, (vec![known.step(ROW)], vec![]), "a start alone resets nothing here");
    rig.send(markers("ttl", 1, &[(19 * MS, "end")])).await;
    let mut known = Linear::new();
    assert_eq!(one(&rig, 2).await, (vec![known.step(ROW)], vec!["reset"]));
    assert_eq!(one(&rig, 3).await, (vec![known.step(ROW)], vec![]));
    // By hand: `final` ends the trial with its frame's data.
    rig.send(markers("ttl", 2, &[(35 * MS, "start")])).await;
    let output = rig.send(v1::Frame { r#final: true, ..counts(4, 4, &[ROW]) }).await;
    assert_eq!((blocks::<2>(&output, 0), flag_names(&output)), (vec![known.step(ROW)], vec![vec![]]));
    assert_eq!(one(&rig, 5).await, (vec![Linear::new().step(ROW)], vec!["reset"]));
    let run = rig.run().to_owned();
    rig.close().await;
    assert_eq!(server.events(&run, "trial_broken").await, []);
    server.stop().await;
}

#[tokio::test]
async fn an_end_without_a_start_and_a_start_without_an_end_are_broken_trials_by_name() {
    let server = Latentd::start().await;
    let rig = server.open(trials()).await;
    let mut known = Linear::new();
    assert_eq!(one(&rig, 0).await, (vec![known.step(ROW)], vec![]));
    rig.send(markers("ttl", 0, &[(3 * MS, "end")])).await;
    assert_eq!(one(&rig, 1).await, (vec![known.step(ROW)], vec![]), "what is no trial resets nothing");
    rig.send(markers("ttl", 1, &[(12 * MS, "start"), (15 * MS, "start"), (18 * MS, "other")])).await;
    assert_eq!(one(&rig, 2).await, (vec![known.step(ROW)], vec![]));
    let run = rig.run().to_owned();
    rig.close().await;
    let event = server.event(&run, "trial_broken").await;
    assert_eq!((event.count, event.signal.as_str()), (2, "ttl"));
    // Merged into one entry of ten seconds, which has the first sentence and the last.
    let last = "the last: a trial that started at 12000000 ns has no end";
    crate::support::says(&event.detail, &["an end at 3000000 ns has no start", last]);
    let rig = server.open(trials()).await;
    rig.send(markers("ttl", 0, &[(15 * MS, "start"), (12 * MS, "start")])).await;
    let run = rig.run().to_owned();
    rig.close().await;
    let event = server.event(&run, "trial_broken").await;
    assert!(event.detail.contains("started at 12000000 ns has no end before the start at 15000000 ns"));
    server.stop().await;
}
