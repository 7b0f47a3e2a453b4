//! What a manifest's chain does to a stream: running statistics, flat channels, what a gap leaves untouched.

use crate::support::{Latentd, Setup, bins, blocks, counts, flag_names, models, pipeline, recorded, signal};
use latentd::wire::v1;

/// `linear` whose input is z-scored by all that came before.
fn scored() -> models::Model {
    let chain = "channels_file = \"channels.csv\"\npreprocess = [{ op = \"zscore\", mode = \"running\", tau_s = 0.0 }]";
    models::linear().replace("channels_file = \"channels.csv\"", chain).named("scored")
}

/// The running z-score of wire.md 5 with a = 1/k, in f64; a channel without variance gives 0.
#[derive(Default)]
struct Running {
    k: f64,
    mean: f64,
    var: f64,
}

impl Running {
    fn score(&mut self, x: f64) -> f64 {
        self.k += 1.0;
        let (a, d) = (1.0 / self.k, x - self.mean);
        self.mean += a * d;
        self.var = (1.0 - a) * (self.var + a * d * d);
        if self.var == 0.0 { 0.0 } else { (x - self.mean) / self.var.sqrt() }
    }
}

/// What `raw` (M2 u + m0) says for an input.
fn raw(u: [f64; 2]) -> [f64; 2] {
    [u[0] + 2.0 * u[1] + 0.5, -u[0] + 0.5 * u[1] - 1.0]
}

#[track_caller]
fn close(got: &[[f32; 2]], want: &[[f64; 2]]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((f64::from(*got) - want).abs() <= 1e-6 * want.abs().max(1.0), "{got} is not {want}");
    }
}

async fn server() -> Latentd {
    Setup::new().model(scored()).start().await
}

fn ask() -> v1::OpenRequest {
    recorded(pipeline("scored", [signal("spikes", "binned", &["a", "b"])]))
}

#[tokio::test]
async fn a_channel_without_variance_is_0_and_reported_as_flat() {
    let server = server().await;
    let rig = server.open(ask()).await;
    let mut a = Running::default();
    let rows: Vec<[f32; 2]> = [1.0, 4.0, 2.0, 2.0, 9.0].map(|x| [x, 3.0]).into();
    let want: Vec<_> = rows.iter().map(|row| raw([a.score(row[0].into()), 0.0])).collect();
    let output = rig.send(counts(0, 0, &rows)).await;
    close(&blocks::<2>(&output, 1), &want);
    assert!(flag_names(&output).iter().all(Vec::is_empty), "{:?}", flag_names(&output));
    let run = rig.run().to_owned();
    rig.close().await;
    let event = server.event(&run, "flat_channel").await;
    assert_eq!((event.signal.as_str(), event.count), ("spikes", 1));
    crate::support::says(&event.detail, &["`spikes`", "b"]);
    server.stop().await;
}

#[tokio::test]
async fn filled_bins_hold_the_preprocessed_input_and_never_move_the_statistics() {
    let server = server().await;
    for gap in ["hold", "zero"] {
        let rig = server.open(v1::OpenRequest { gap: gap.into(), ..ask() }).await;
        let (mut a, mut b) = (Running::default(), Running::default());
        let mut score = |row: [f32; 2]| [a.score(row[0].into()), b.score(row[1].into())];
        let rows = [[1.0, 2.0], [4.0, 2.0], [2.0, 5.0]];
        let scores: Vec<_> = rows.iter().map(|row| score(*row)).collect();
        let output = rig.send(counts(0, 0, &rows)).await;
        close(&blocks::<2>(&output, 1), &[raw(scores[0]), raw(scores[1]), raw(scores[2])]);
        let filled = raw(if gap == "hold" { scores[2] } else { [0.0, 0.0] });
        let next = raw(score([3.0, 3.0]));
        let output = rig.send(counts(1, 5, &[[3.0, 3.0]])).await;
        assert_eq!(bins(&output), 3..6);
        close(&blocks::<2>(&output, 1), &[filled, filled, next]);
        rig.close().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reset_of_the_model_keeps_the_statistics_and_one_of_all_does_not() {
    let server = server().await;
    let rig = server.open(ask()).await;
    let (mut a, mut b) = (Running::default(), Running::default());
    let mut score = |row: [f32; 2]| raw([a.score(row[0].into()), b.score(row[1].into())]);
    let rows = [[1.0, 2.0], [4.0, 3.0]];
    let want = [score(rows[0]), score(rows[1])];
    close(&blocks::<2>(&rig.send(counts(0, 0, &rows)).await, 1), &want);
    rig.reset("model", None).await.unwrap();
    let output = rig.send(counts(1, 2, &[[2.0, 5.0]])).await;
    let kept = score([2.0, 5.0]);
    close(&blocks::<2>(&output, 1), &[kept]);
    close(&blocks::<2>(&output, 0), &[kept]);
    assert_eq!(flag_names(&output), [["reset"]]);
    rig.reset("all", None).await.unwrap();
    let output = rig.send(counts(2, 3, &[[2.0, 5.0]])).await;
    close(&blocks::<2>(&output, 1), &[raw([0.0, 0.0])]);
    assert_eq!(flag_names(&output), [["reset"]]);
    rig.close().await;
    server.stop().await;
}
