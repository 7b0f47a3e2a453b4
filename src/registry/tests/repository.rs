//! A model repository in a folder of its own, with the graphs that tests put in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::batch::{Pool, PoolConfig, Silent};
use crate::domain::ids::Version;
use crate::domain::tensor::Dtype;
use crate::engine::Engine;
use crate::engine::OrtEngine;
use crate::engine::library;
use crate::graph::build::{GraphBuilder, linear_recurrence};
use crate::registry::{Lookup, Options, ReadyVersion, Registry};

static ENGINE: LazyLock<Arc<dyn Engine>> = LazyLock::new(|| {
    let path = library::find(None).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(OrtEngine::open(&path).unwrap_or_else(|error| panic!("{error}")))
});

/// The runtime that all tests share.
pub fn engine() -> Arc<dyn Engine> {
    Arc::clone(&ENGINE)
}

/// A repository, and the registry that keeps it.
pub struct Repository {
    folder: tempfile::TempDir,
    pub registry: Registry,
    pub start: Instant,
}

impl Repository {
    /// An empty one.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// An empty one with other options.
    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path());
        change(&mut options);
        let pool = Pool::start(1, PoolConfig::default(), Arc::new(Silent)).unwrap();
        let registry = Registry::new(options, engine(), Arc::new(pool));
        Self { folder, registry, start: Instant::now() }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and the folders above it.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    /// A model that serves: the step model of `STEP`.
    pub fn put_good(&self, model: &str) -> &Self {
        self.put(&format!("{model}/model.toml"), STEP).put(&format!("{model}/1/model.onnx"), step())
    }

    /// As `rescan`, so many ms after the start.
    pub fn rescan_after(&self, ms: u64) {
        self.registry.rescan_at(self.start + Duration::from_millis(ms));
    }

    /// The version, which must be ready.
    pub fn ready(&self, model: &str) -> Arc<ReadyVersion> {
        self.registry.version(model, None).unwrap_or_else(|lookup| panic!("{lookup:?}"))
    }

    /// The sentence of a model that must be at fault.
    pub fn fault(&self, model: &str) -> String {
        match self.registry.version(model, None) {
            Err(Lookup::Fault(said)) => said,
            other => panic!("{model}: {other:?} instead of a fault"),
        }
    }

    /// State and fault of a version as the list shows them.
    pub fn row(&self, model: &str, version: u32) -> (String, Option<String>) {
        let models = self.registry.models();
        let row = models.iter().find(|row| row.name.as_str() == model).expect("the model is listed");
        let row =
            row.versions.iter().find(|row| row.version == Version(version)).expect("the version is listed");
        (row.state.to_string(), row.fault.clone())
    }
}

/// The manifest of `step`.
pub const STEP: &str = r#"
kind = "decoder"
[[input]]
name = "spikes"
tensor = "u"
bin_ms = 20
channels = 3
[[state]]
input = "v0"
output = "v_next"
[[output]]
tensor = "v"
name = "velocity"
role = "decoded"
labels = ["x", "y"]
"#;

/// u [batch, 3], v0 [batch, 2] to v, v_next, vraw [batch, 2].
pub fn step() -> Vec<u8> {
    linear_recurrence(&[0.5, 0.25, 0.0, 1.0], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[0.5, -0.5])
}

/// y = 2·x on x [batch, channels].
pub fn twice(channels: usize) -> Vec<u8> {
    let dims = ["batch".into(), channels.into()];
    GraphBuilder::new("twice")
        .input("x", Dtype::F32, &dims)
        .node("Add", &["x", "x"], &["y"])
        .output("y", Dtype::F32, &dims)
        .bytes()
}

/// A safetensors file of f32 tensors.
pub fn safetensors(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap();
        (name.to_string(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// An `.npy` file of f32 values.
pub fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let axes: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}
