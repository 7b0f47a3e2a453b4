//! Starts that must fail, in one sentence and soon; and devices that are not there.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Setup, counts, linear, models, says, within};
use latentd::wire::v1;

/// Runs the binary to its end; answers its exit code and what it said.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.env_clear().args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let ended = within("the end of the binary", command.kill_on_drop(true).output()).await.unwrap();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

#[tokio::test]
async fn a_runtime_that_is_missing_or_no_library_is_one_sentence_and_an_exit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("text.so"), "no library at all").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe.so")).status().unwrap().success());
    let data = at("data");
    for name in ["missing.so", "text.so", "pipe.so", ""] {
        let library = at(name);
        let begun = Instant::now();
        let (code, said) = run(&[
            "serve",
            "--data",
            &data,
            "--http",
            "127.0.0.1:0",
            "--grpc",
            "127.0.0.1:0",
            "--onnxruntime",
            &library,
        ])
        .await;
        assert!(code.is_some_and(|code| code != 0), "{name}: {code:?} {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{name}: {said}");
        says(&said, &[library.trim_end_matches('/')]);
        // Three seconds are promised; a busy machine gets some more.
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
    }
    assert!(!Path::new(&data).exists(), "nothing was begun");
}

#[tokio::test]
async fn a_server_leaves_nothing_in_its_users_home_folder() {
    let server = Setup::new().start().await;
    let rig = server.open(linear()).await;
    rig.send(counts(0, 0, &[[1.0, 2.0]])).await;
    let setup = server.stop().await;
    let left: Vec<_> = std::fs::read_dir(setup.home()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_configuration_is_refused_with_every_bad_key() {
    let (code, said) = run(&["serve", "--window", "none", "--http", "nowhere", "--drain-s=-1"]).await;
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    says(&said, &["3 faults", "--window", "`none`", "--http", "an address with a port", "--drain-s", "-1"]);
}

#[tokio::test]
async fn a_model_for_a_device_that_is_not_there_is_a_fault_and_the_others_serve() {
    let far = models::linear().named("far");
    let far = models::Model { manifest: far.manifest.clone() + "[serve]\ndevice = \"cuda:7\"\n", ..far };
    let server = Setup::new().model(far).start().await;
    let refused =
        server.try_open(v1::OpenRequest { pipeline: "far".into(), ..linear() }).await.err().unwrap();
    refused.is(422, "invalid", &["far/1", "cuda:7"]);
    let told: v1::ModelInfo = server.get("/v1/models/far").await.message();
    assert_eq!(told.versions[0].state, "fault");
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(ready.json()["degraded"][0].as_str().unwrap().contains("cuda:7"), "{}", ready.text());
    server.open(linear()).await.close().await;
    server.stop().await;
}
