use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::repository::{Repository, STEP, step, twice};
use crate::domain::ids::Version;
use crate::domain::tensor::Dtype;
use crate::graph::build::GraphBuilder;
use crate::registry::{Lookup, check};

const CHANGED: &str = "a version never changes, found sha256:";

#[test]
fn one_good_entry_among_many_bad_ones_serves() {
    let repository = Repository::new();
    repository.put_good("good");
    let fifo = |name: &str| {
        fs::create_dir_all(repository.path(name).parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(repository.path(name)).status().unwrap().success());
    };
    fifo("pipe-as-graph/1/model.onnx");
    fifo("pipe-as-manifest/model.toml");
    repository.put("pipe-as-manifest/1/model.onnx", step());
    fifo("pipe-as-version/1");
    fifo("pipe-as-model");
    fs::create_dir_all(repository.path("dangling-graph/1")).unwrap();
    symlink("nowhere.onnx", repository.path("dangling-graph/1/model.onnx")).unwrap();
    symlink("nowhere", repository.path("dangling-model")).unwrap();
    symlink("/etc", repository.path("link-out")).unwrap();
    fs::create_dir_all(repository.path("link-out-of-version/1")).unwrap();
    symlink("/etc/passwd", repository.path("link-out-of-version/1/model.onnx")).unwrap();
    fs::create_dir_all(repository.path("folder-as-graph/1/model.onnx")).unwrap();
    repository.put("half-copied/1/model.onnx", &step()[..step().len() / 2]);
    repository.put("empty-graph/1/model.onnx", b"");
    repository.put("no-graph/1/README", b"");
    repository.put("no-version/model.toml", STEP);
    repository.put("other-version/v1/model.onnx", step());
    repository.put("sae/1/cfg.json", b"{}");
    repository.put("binary-manifest/model.toml", [0xff, 0xfe]).put("binary-manifest/1/model.onnx", step());
    repository.put("unreadable/1/model.onnx", step());
    fs::set_permissions(repository.path("unreadable/1/model.onnx"), fs::Permissions::from_mode(0o000))
        .unwrap();
    repository.put("README.md", b"").put(".hidden/1/model.onnx", b"");
    repository.registry.first_scan();

    assert_eq!(repository.ready("good").version, Version(1));
    for (model, sentence) in [
        ("pipe-as-graph", "pipe-as-graph/1/model.onnx: expected a regular file, found a pipe"),
        ("pipe-as-manifest", "pipe-as-manifest/model.toml: expected a regular file, found a pipe"),
        ("pipe-as-version", "pipe-as-version/1: expected a directory, found a pipe"),
        (
            "dangling-graph",
            "dangling-graph/1/model.onnx: expected a file, found a dangling link to `nowhere.onnx`",
        ),
        (
            "link-out-of-version",
            "1/model.onnx: expected a file inside the model's directory, found a link out of it",
        ),
        ("folder-as-graph", "folder-as-graph/1/model.onnx: expected a regular file, found a directory"),
        (
            "half-copied",
            "half-copied/1/model.onnx: expected an ONNX model that can be served, found cut short",
        ),
        (
            "empty-graph",
            "empty-graph/1/model.onnx: expected an ONNX model that can be served, found not an ONNX",
        ),
        ("no-graph", "no-graph/1/model.onnx: expected a graph, found nothing"),
        ("no-version", "no-version: expected a version's directory, named by a number from 1, found none"),
        (
            "other-version",
            "other-version: expected a version's directory, named by a number from 1, found none, but `v1`",
        ),
        (
            "sae",
            "sae/1/model.onnx: expected a graph, found an SAE directory, which this version does not serve yet",
        ),
        ("binary-manifest", "binary-manifest/model.toml: expected UTF-8 text, found bytes that are none"),
    ] {
        let said = repository.fault(model);
        assert!(said.contains(sentence), "{said}\n not {sentence}");
    }
    if fs::read(repository.path("unreadable/1/model.onnx")).is_err() {
        let said = repository.fault("unreadable");
        assert!(
            said.contains("unreadable/1/model.onnx: expected a readable file, found permission denied"),
            "{said}"
        );
    } else {
        println!("not run: an unreadable file, since this user reads everything");
    }
    let faults = repository.registry.faults().join("\n");
    for sentence in [
        "pipe-as-model: expected a model's directory, found a pipe",
        "dangling-model: expected a file, found a dangling link to `nowhere`",
        "link-out: expected a file inside the model's directory, found a link out of it, to `/etc`",
    ] {
        assert!(faults.contains(sentence), "{faults}\n not {sentence}");
    }
    let (table, all_well) = check::table(repository.root(), super::repository::engine());
    assert!(!all_well);
    assert!(table.lines().any(|line| line.starts_with("good ") && line.ends_with("  ok")), "{table}");
    assert!(table.contains("half-copied"), "{table}");
}

#[test]
fn a_new_directory_is_a_candidate_until_two_looks_settle_apart_agree() {
    let repository = Repository::new();
    repository.registry.first_scan();
    repository.put("m/1/model.onnx", &step()[..20]);
    repository.rescan_after(0);
    assert_eq!(repository.row("m", 1), ("candidate".into(), None));
    assert!(matches!(repository.registry.version("m", None), Err(Lookup::NotReady(_))));
    // The copy goes on: the wait begins anew.
    repository.put("m/1/model.onnx", step()).put("m/model.toml", STEP);
    repository.rescan_after(600);
    assert_eq!(repository.row("m", 1).0, "candidate");
    repository.rescan_after(900);
    assert_eq!(repository.row("m", 1).0, "candidate");
    repository.rescan_after(1100);
    assert_eq!(repository.row("m", 1), ("ready".into(), None));
}

#[test]
fn a_version_that_changes_in_place_serves_its_old_bytes_and_says_so() {
    let repository = Repository::new();
    repository.put("m/1/model.onnx", twice(3));
    repository.registry.first_scan();
    let before = repository.ready("m");
    repository.put("m/1/model.onnx", twice(4));
    repository.rescan_after(1_000);
    repository.rescan_after(2_000);
    let (state, fault) = repository.row("m", 1);
    assert_eq!(state, "ready");
    assert!(fault.as_ref().is_some_and(|fault| fault.contains(CHANGED)), "{fault:?}");
    assert!(std::sync::Arc::ptr_eq(&before, &repository.ready("m")));
    // Broken in place: the same.
    repository.put("m/1/model.onnx", b"no model");
    repository.rescan_after(3_000);
    repository.rescan_after(4_000);
    assert!(repository.row("m", 1).1.is_some_and(|fault| fault.contains("not an ONNX model")));
    assert_eq!(repository.row("m", 1).0, "ready");
    // Put back: nothing is wrong any more.
    repository.put("m/1/model.onnx", twice(3));
    repository.rescan_after(5_000);
    repository.rescan_after(6_000);
    assert_eq!(repository.row("m", 1), ("ready".into(), None));
    // Asked for by name, the new bytes serve new sessions; the old ones live as long as they are held.
    repository.put("m/1/model.onnx", twice(4));
    let after = repository.registry.load("m", Some(Version(1))).unwrap();
    assert_ne!(after.digest, before.digest);
    assert_eq!(repository.ready("m").digest, after.digest);
    assert_eq!(before.input_ports()[0].row_shape, [3]);
}

#[test]
fn a_fault_that_is_repaired_serves_and_a_touched_version_stays_as_it_was() {
    let repository = Repository::new();
    repository.put("m/1/model.onnx", b"no model").put("good/1/model.onnx", twice(3));
    repository.registry.first_scan();
    assert_eq!(repository.row("m", 1).0, "fault");
    let before = repository.ready("good");
    repository.put("m/1/model.onnx", twice(3)).put("good/1/model.onnx", twice(3));
    repository.rescan_after(1_000);
    assert_eq!(repository.row("m", 1), ("candidate".into(), None));
    repository.rescan_after(2_000);
    assert_eq!(repository.row("m", 1), ("ready".into(), None));
    assert!(std::sync::Arc::ptr_eq(&before, &repository.ready("good")));
}

#[test]
fn a_new_version_is_the_one_for_new_sessions_and_the_old_one_stays() {
    let repository = Repository::new();
    repository.put("m/1/model.onnx", twice(3));
    repository.registry.first_scan();
    repository.put("m/2/model.onnx", twice(4));
    repository.rescan_after(1_000);
    repository.rescan_after(2_000);
    assert_eq!(repository.ready("m").version, Version(2));
    assert!(repository.registry.version("m", Some(Version(1))).is_ok());
    let said = repository.registry.version("m", Some(Version(3))).unwrap_err();
    assert_eq!(said, Lookup::NotFound("no version 3 of model `m`; there are: 1, 2".into()));
    // A newer one that is broken does not take the place.
    repository.put("m/3/model.onnx", b"no model");
    repository.rescan_after(3_000);
    repository.rescan_after(4_000);
    assert_eq!(repository.row("m", 3).0, "fault");
    assert_eq!(repository.ready("m").version, Version(2));
}

#[test]
fn a_vanished_version_serves_no_new_session_and_stays_for_those_that_hold_it() {
    let repository = Repository::new();
    repository.put("m/1/model.onnx", twice(3)).put("other/1/model.onnx", twice(3));
    repository.registry.first_scan();
    let held = repository.ready("m");
    fs::remove_dir_all(repository.path("m")).unwrap();
    repository.rescan_after(1_000);
    assert_eq!(repository.row("m", 1).0, "ready");
    repository.rescan_after(2_000);
    let (state, fault) = repository.row("m", 1);
    assert_eq!(
        (state.as_str(), fault.as_deref()),
        ("unloaded", Some("its directory vanished; sessions that were open on it keep it"),)
    );
    assert!(matches!(repository.registry.version("m", None), Err(Lookup::NotReady(_))));
    // It comes back with the same bytes: the very version that is in memory serves again.
    repository.put("m/1/model.onnx", twice(3));
    repository.rescan_after(3_000);
    repository.rescan_after(4_000);
    assert!(std::sync::Arc::ptr_eq(&held, &repository.ready("m")));
    fs::remove_dir_all(repository.path("m")).unwrap();
    drop(held);
    repository.rescan_after(5_000);
    repository.rescan_after(6_000);
    let said = repository.registry.version("m", None).unwrap_err();
    assert_eq!(said, Lookup::NotFound("no model `m`; there are: other".into()));
}

#[test]
fn a_root_that_cannot_be_read_changes_nothing_that_serves() {
    let repository = Repository::new();
    repository.put("root/m/1/model.onnx", twice(3));
    let inner = Repository::with(|options| options.root = repository.path("root"));
    inner.registry.first_scan();
    fs::rename(repository.path("root"), repository.path("away")).unwrap();
    for ms in [1_000, 2_000, 3_000] {
        inner.rescan_after(ms);
    }
    assert_eq!(inner.row("m", 1), ("ready".into(), None));
    assert!(
        inner.registry.faults()[0].contains("expected the model repository: a directory that can be read")
    );
}

#[test]
fn unload_takes_a_version_out_until_load_brings_it_back() {
    let repository = Repository::new();
    repository.put("m/1/model.onnx", twice(3));
    repository.registry.first_scan();
    repository.registry.unload("m", None).unwrap();
    assert_eq!(repository.row("m", 1).0, "unloaded");
    repository.put("m/1/model.onnx", twice(4));
    repository.rescan_after(1_000);
    repository.rescan_after(2_000);
    assert_eq!(repository.row("m", 1).0, "unloaded");
    let said = repository.registry.version("m", None).unwrap_err();
    assert_eq!(said, Lookup::NotReady("model m/1 is not ready: unloaded".into()));
    repository.registry.load("m", None).unwrap();
    assert_eq!(repository.ready("m").input_ports()[0].row_shape, [4]);
    assert_eq!(
        repository.registry.load("n", None).unwrap_err(),
        Lookup::NotFound("no model `n`; there are: m".into())
    );
    assert!(matches!(repository.registry.unload("m", Some(Version(9))), Err(Lookup::NotFound(_))));
}

#[test]
fn a_load_past_the_memory_limit_is_refused_with_the_figure() {
    let bytes = twice(3).len() as u64;
    let repository = Repository::with(|options| options.memory_limit_bytes = Some(3 * bytes));
    repository.put("a/1/model.onnx", twice(3)).put("b/1/model.onnx", twice(3));
    repository.registry.first_scan();
    assert_eq!(repository.registry.memory_bytes(), 2 * bytes);
    let said = repository.fault("b");
    let sentence = format!(
        "b/1: memory: expected at most {} bytes of models (memory_limit), found {} bytes in use and {} more asked",
        3 * bytes,
        2 * bytes,
        2 * bytes
    );
    assert!(said.contains(&sentence), "{said}");
}

#[test]
fn pipelines_are_listed_beside_the_models_and_their_faults_are_sentences() {
    let repository = Repository::new();
    repository.put_good("decoder").put("filter/1/model.onnx", twice(3)).put("wide/1/model.onnx", twice(4));
    let stages = |input: &str| {
        format!(
            "[[stage]]\nname = \"f\"\nmodel = \"filter\"\ninputs = {{ x = \"signal:counts\" }}\n\
             [[stage]]\nname = \"d\"\nmodel = \"decoder\"\ninputs = {{ {input} }}\n"
        )
    };
    repository
        .put("pipelines/good.toml", stages("spikes = \"f.y\""))
        .put("pipelines/decoder.toml", stages("spikes = \"f.y\""))
        .put("pipelines/no-output.toml", stages("spikes = \"f.z\""))
        .put("pipelines/no-input.toml", stages("spikes = \"f.y\", other = \"f.y\""))
        .put("pipelines/unfed.toml", stages(""))
        .put("pipelines/width.toml", stages("spikes = \"f.y\"").replace("\"filter\"", "\"wide\""))
        .put("pipelines/no-model.toml", stages("spikes = \"f.y\"").replace("\"filter\"", "\"filer\""))
        .put("pipelines/broken.toml", "[[stage")
        .put("pipelines/notes.txt", "");
    repository.registry.first_scan();
    let rows = repository.registry.pipelines();
    let fault = |name: &str| {
        let row = rows.iter().rev().find(|row| row.name.as_str() == name).expect(name);
        row.fault.clone().unwrap_or_default()
    };
    for (name, sentence) in [
        ("good", ""),
        ("filter", ""),
        ("decoder", "pipelines/decoder.toml: name: expected a name that no model has, found `decoder`"),
        (
            "no-output",
            "pipelines/no-output.toml: stage `d`.inputs.spikes: expected an output of stage `f` (there are: y), found `f.z`",
        ),
        (
            "no-input",
            "stage `d`.inputs.other: expected an input of model decoder (there are: spikes), found none of that name",
        ),
        ("unfed", "stage `d`.inputs.spikes: expected a signal or a stage's output, found nothing"),
        ("width", "stage `d`.inputs.spikes: expected 3 values per bin, found 4 from `f.y`"),
        (
            "no-model",
            "stage `f`.model: expected a model that serves, found no model `filer`; there are: filter, wide, decoder",
        ),
        ("broken", "pipelines/broken.toml: line 1: expected TOML"),
    ] {
        let said = fault(name);
        assert!(
            said.contains(sentence) && said.is_empty() == sentence.is_empty(),
            "{name}: {said}\n not {sentence}"
        );
    }
    assert_eq!(repository.registry.pipeline("good", None).unwrap().stages.len(), 2);
    assert_eq!(repository.registry.pipeline("decoder", None).unwrap().stages.len(), 1);
    assert!(matches!(repository.registry.pipeline("broken", None), Err(Lookup::Fault(_))));
    let said = repository.registry.pipeline("goodd", None).unwrap_err().to_string();
    assert!(said.starts_with("no pipeline `goodd`; there are: good, "), "{said}");
    // A pipeline that breaks in place goes on as it was read; one whose file is gone is gone.
    repository.put("pipelines/good.toml", "[[stage");
    fs::remove_file(repository.path("pipelines/unfed.toml")).unwrap();
    repository.rescan_after(1_000);
    repository.rescan_after(2_000);
    assert_eq!(repository.registry.pipeline("good", None).unwrap().stages.len(), 2);
    assert!(matches!(repository.registry.pipeline("unfed", None), Err(Lookup::NotFound(_))));
}

#[test]
fn a_version_that_is_asked_for_by_number_is_told_by_itself_whatever_the_others_are() {
    let repository = Repository::new();
    repository.put("m/1/model.onnx", &step()[..30]);
    repository.registry.first_scan();
    repository.put("m/2/model.onnx", twice(2));
    repository.rescan_after(100);
    assert_eq!(repository.row("m", 2).0, "candidate");
    let asked = |version: u32| repository.registry.pipeline("m", Some(Version(version)));
    assert!(
        matches!(asked(1), Err(Lookup::Fault(said)) if said.contains("m/1/model.onnx: expected an ONNX model"))
    );
    assert!(matches!(asked(2), Err(Lookup::NotReady(said)) if said.contains("m/2 is not ready: candidate")));
    assert!(matches!(repository.registry.pipeline("m", None), Err(Lookup::NotReady(_))));
    assert!(matches!(asked(3), Err(Lookup::NotFound(_))));

    // Its inputs are its own: a higher version takes another one.
    repository.rescan_after(2_000);
    repository.put("m/3/model.onnx", named("u"));
    repository.rescan_after(3_000);
    repository.rescan_after(4_000);
    let input = |version| {
        let spec = repository.registry.pipeline("m", version).unwrap();
        spec.stages[0].inputs.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!((input(Some(Version(2))), input(Some(Version(3)))), (vec!["x".into()], vec!["u".into()]));
    assert_eq!(input(None), ["u"]);
}

/// A copy of its input, which has this name.
fn named(input: &str) -> Vec<u8> {
    let dims = ["batch".into(), 2.into()];
    GraphBuilder::new("named")
        .input(input, Dtype::F32, &dims)
        .node("Identity", &[input], &["y"])
        .output("y", Dtype::F32, &dims)
        .bytes()
}
