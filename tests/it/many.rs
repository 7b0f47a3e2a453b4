//! Many models in one server, a big one that is loaded beside streaming sessions, and the limit on what all may hold.

use std::io::Write as _;
use std::time::{Duration, Instant};

use latentd::cli::replay::player::{PlayOptions, play};
use latentd::domain::tensor::Dtype;
use latentd::graph::build::GraphBuilder;
use latentd::wire::v1;

use crate::recordings::{self, Random};
use crate::support::{Answer, LIMIT, Latentd, Setup, counts, linear, models, until};
use crate::usage::usage;

const MANIFEST: &str = "[[input]]\nname = \"x\"\ntensor = \"x\"\ntype = \"binned\"\nchannels = 2\n\
                        [[output]]\nname = \"y\"\ntensor = \"y\"\nrole = \"decoded\"\n\
                        [serve]\nmax_batch = 2\n";

/// Two values through `layers` square matrices of that width and back to two; the weights lie beside the graph.
fn big(setup: Setup, name: &str, width: usize, layers: usize) -> (Setup, u64) {
    let dims = ["batch".into(), 2.into()];
    let mut graph = GraphBuilder::new("big");
    graph.input("x", Dtype::F32, &dims);
    let shapes =
        [[2, width]].into_iter().chain(std::iter::repeat_n([width, width], layers)).chain([[width, 2]]);
    let (mut from, mut offset_bytes) = ("x".to_owned(), 0);
    for (layer, shape) in shapes.enumerate() {
        let (weights, to) =
            (format!("w{layer}"), if layer == layers + 1 { "y".into() } else { format!("h{layer}") });
        graph.external(&weights, Dtype::F32, &shape, "weights.bin", offset_bytes);
        graph.node("MatMul", &[&from, &weights], &[&to]);
        offset_bytes += 4 * (shape[0] * shape[1]) as u64;
        from = to;
    }
    graph.output("y", Dtype::F32, &dims);
    let graph = graph.bytes();
    let setup =
        setup.file(&format!("{name}/model.toml"), MANIFEST).file(&format!("{name}/1/model.onnx"), graph);
    // Small enough that what comes out stays near what goes in.
    let scale = 2.0 / (width as f32).sqrt();
    let mut random = Random(1);
    let path = setup.models().join(name).join("1/weights.bin");
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file for the weights"));
    for _ in 0..offset_bytes / 4 {
        let weight = ((random.next() >> 24) as f32 / (1 << 24) as f32 - 0.5) * scale;
        file.write_all(&weight.to_le_bytes()).expect("the weights are written");
    }
    file.flush().expect("the weights are written");
    (setup, offset_bytes)
}

fn load(answer: &Answer) -> v1::ModelInfo {
    answer.message()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_small_models_are_loaded_at_start_and_each_answers() {
    const MODELS: usize = 100;
    let empty = Setup::bare().start().await;
    let empty_kb = usage(empty.pid()).0;
    empty.stop().await;
    let model = models::linear();
    let setup = (0..MODELS).fold(Setup::bare(), |setup, at| {
        let put = |setup: Setup, name: &str, bytes: &[u8]| setup.file(&format!("m{at:03}/{name}"), bytes);
        let setup = put(setup, "model.toml", model.manifest.as_bytes());
        let setup = put(setup, "1/model.onnx", &model.graph);
        put(setup, "channels.csv", model.files[0].1.as_bytes())
    });
    let begun = Instant::now();
    let server = setup.start().await;
    let start_s = begun.elapsed().as_secs_f64();
    let full_kb = usage(server.pid()).0;
    let list: v1::ModelsReply = server.get("/v1/models").await.message();
    assert_eq!(list.models.len(), MODELS);
    assert!(list.models.iter().all(|model| model.versions[0].state == "ready"));
    for at in (0..MODELS).step_by(9) {
        let rig = server.open(v1::OpenRequest { pipeline: format!("m{at:03}"), ..linear() }).await;
        let output = rig.send(counts(0, 0, &[[1.0, 2.0]])).await;
        assert_eq!(crate::support::blocks::<2>(&output, 0), [models::Linear::new().step([1.0, 2.0])]);
        rig.close().await;
    }
    println!(
        "{MODELS} small models: ready after {start_s:.2} s; {:.0} MB, {:.0} MB without them: {:.2} MB a model",
        full_kb as f64 / 1024.0,
        empty_kb as f64 / 1024.0,
        full_kb.saturating_sub(empty_kb) as f64 / 1024.0 / MODELS as f64
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_past_the_memory_limit_is_refused_with_the_figure_and_what_serves_goes_on() {
    // Its bytes count twice, once for the runtime: about 2 MB.
    let (setup, bytes) = big(Setup::bare().model(models::linear()), "big", 500, 1);
    assert!(bytes > 1_000_000);
    let server = setup.key("memory_limit", "1 MiB").start().await;
    let page: v1::ModelInfo = server.get("/v1/models/big").await.message();
    let said = page.versions[0].fault.clone().unwrap_or_default();
    assert_eq!(page.versions[0].state, "fault");
    let limit = (1 << 20).to_string();
    let parts = ["big/1: memory", &limit, "memory_limit", "bytes in use and", "more asked"];
    crate::support::says(&said, &parts);
    server.post("/v1/models/big/load", "{}").await.refused().is(422, "invalid", &parts);
    let rig = server.open(linear()).await;
    rig.send(counts(0, 0, &[[1.0, 2.0]])).await;
    rig.close().await;
    server.stop().await;
    // With more room it serves.
    let (setup, bytes) = big(Setup::bare(), "big", 500, 1);
    let server = setup.key("memory_limit", "16 MiB").start().await;
    let page = load(&server.get("/v1/models/big").await);
    assert_eq!((page.versions[0].state.as_str(), &page.versions[0].fault), ("ready", &None));
    assert!(page.versions[0].memory_bytes >= 2 * bytes);
    server.stop().await;
}

/// Three versions of `big`, of about 2 MB each by the count of the limit, and room for two.
async fn three_and_room_for_two() -> Latentd {
    let (setup, _) = big(Setup::bare(), "big", 500, 1);
    let models = setup.models();
    for version in ["2", "3"] {
        let folder = models.join("big").join(version);
        std::fs::create_dir(&folder).expect("a folder for the version");
        for file in ["model.onnx", "weights.bin"] {
            std::fs::copy(models.join("big/1").join(file), folder.join(file)).expect("a copy");
        }
    }
    let server = setup.key("memory_limit", "5 MiB").start().await;
    let page: v1::ModelInfo = server.get("/v1/models/big").await.message();
    let states: Vec<&str> = page.versions.iter().map(|version| version.state.as_str()).collect();
    assert_eq!(states, ["ready", "ready", "fault"]);
    server
}

/// An open of its version 1.
fn first_of_three() -> v1::OpenRequest {
    let ask = crate::support::pipeline("big", [crate::support::signal("x", "binned", &["a", "b"])]);
    v1::OpenRequest { versions: [("big".into(), 1)].into(), ..ask }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_freed_once_the_last_session_that_ran_it_was_switched() {
    let server = three_and_room_for_two().await;
    let rig = server.open(first_of_three()).await;
    let row = |seq| crate::support::binned("x", seq, seq, &[[1.0, 2.0]]);
    let before = crate::support::blocks::<2>(&rig.send(row(0)).await, 0);
    // Taken out, it is held by its session.
    server.post("/v1/models/big/unload", r#"{"version": 1}"#).await;
    let third = async || server.post("/v1/models/big/load", r#"{"version": 3}"#).await;
    third().await.refused().is(422, "invalid", &["memory_limit"]);
    let path = format!("/v1/sessions/{}/switch", rig.session());
    assert_eq!(server.post(&path, r#"{"stage": "big", "version": 2}"#).await.status, 200);
    third().await.refused().is(422, "invalid", &["memory_limit"]);
    let output = rig.send(row(1)).await;
    assert_eq!(crate::support::flag_names(&output), [["switched"]]);
    assert_eq!(crate::support::blocks::<2>(&output, 0), before, "the same weights");
    until(LIMIT, "room for the third version", || async { (third().await.status == 200).then_some(()) })
        .await;
    rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_waits_for_its_bin_is_freed_by_the_time_that_its_session_has_closed() {
    let server = three_and_room_for_two().await;
    for (waits, other, state) in [(2, 3, "keep"), (3, 2, "warm")] {
        let rig = server.open(first_of_three()).await;
        let path = format!("/v1/sessions/{}/switch", rig.session());
        let ask = format!(r#"{{"stage": "big", "version": {waits}, "at_bin": 1000, "state": "{state}"}}"#);
        assert_eq!(server.post(&path, ask).await.status, 200, "{state}");
        server.post("/v1/models/big/unload", format!(r#"{{"version": {waits}}}"#)).await;
        let load = format!(r#"{{"version": {other}}}"#);
        let load = async || server.post("/v1/models/big/load", load.clone()).await;
        load().await.refused().is(422, "invalid", &["memory_limit"]);
        rig.close().await;
        assert_eq!(load().await.status, 200, "{state}: there is room for version {other}");
    }
    server.stop().await;
}

/// 16 rigs in real time; a big model is loaded and taken out while they stream. Deadlines missed.
async fn big_beside_sixteen(width: usize, layers: usize, bins: i64) -> u64 {
    const RIGS: u64 = 16;
    let server = Setup::bare().bundled().key("load_limit", 1).start().await;
    let recordings: Vec<_> = (1..=RIGS).map(|seed| recordings::noise(bins, seed)).collect();
    // Made before the rigs play, where no scan sees it.
    let (elsewhere, bytes) = big(Setup::bare(), "big", width, layers);
    let played = Instant::now();
    let rigs: Vec<_> = recordings
        .into_iter()
        .map(|recording| {
            let mut options = PlayOptions::new(&server.grpc, "cortex");
            options.open.deadline_ms = Some(20.0);
            tokio::spawn(async move { play(&recording, &options).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before_kb = usage(server.pid()).0;
    let from = elsewhere.models().join("big");
    std::fs::rename(from, server.setup.models().join("big")).expect("it comes whole");
    let (begun, began_s) = (Instant::now(), played.elapsed().as_secs_f64());
    let client = reqwest::Client::builder().timeout(Duration::from_secs(300)).build().expect("a client");
    let request = client.post(server.url("/v1/models/big/load")).header("content-type", "application/json");
    let loaded = load(&Answer::of(request.body("{}")).await);
    let load_s = begun.elapsed().as_secs_f64();
    assert_eq!(loaded.versions[0].state, "ready", "{loaded:?}");
    let loaded_kb = usage(server.pid()).0;
    server.post("/v1/models/big/unload", "{}").await;
    let mut missed = 0;
    // Late answers while the model was loaded, and at all other times: of how many.
    let mut late = [(0, 0); 2];
    for rig in rigs {
        let report = rig.await.expect("a rig ends").expect("a rig is served");
        assert!(report.wall_s > load_s + 1.0, "the rigs stopped before the model was loaded");
        assert_eq!((report.answers.answered(), report.faults.len()), (bins as usize, 0));
        missed += report.closed.deadline_missed;
        for lag in &report.lags {
            let sent_s = lag.seq.expect("an answer to a frame") as f64 * 0.02;
            let of = &mut late[usize::from(!(began_s..began_s + load_s).contains(&sent_s))];
            *of = (of.0 + u32::from(lag.server.total > 20_000.0), of.1 + 1);
        }
    }
    let after_kb = usage(server.pid()).0;
    println!(
        "{} MB of weights loaded in {load_s:.1} s beside {RIGS} rigs at 20 ms: {missed} deadlines missed, {} of {} bins \
         while it was loaded, {} of {} at other times; {} MB before, {} MB loaded, {} MB after it was taken out",
        bytes >> 20,
        late[0].0,
        late[0].1,
        late[1].0,
        late[1].1,
        before_kb >> 10,
        loaded_kb >> 10,
        after_kb >> 10
    );
    server.stop().await;
    missed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_loaded_beside_sixteen_streaming_rigs_costs_them_no_bin() {
    big_beside_sixteen(1_000, 2, 400).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute, in release; make test-all"]
async fn three_hundred_megabytes_loaded_beside_sixteen_rigs_steal_no_deadline() {
    assert_eq!(big_beside_sixteen(5_000, 3, 1_500).await, 0);
}
