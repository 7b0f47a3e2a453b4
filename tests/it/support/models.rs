//! Small models whose every output a test can compute. All have bins of 10 ms and channels `a`, `b`.
//!
//! Their numbers are powers of two, so that sums of small whole inputs are exact in f32 in any order.

use std::path::Path;

use latentd::domain::tensor::Dtype;
use latentd::graph::build::{GraphBuilder, linear_recurrence};

/// A model as it stands in the repository.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its directory.
    pub name: &'static str,
    /// `model.toml`.
    pub manifest: String,
    /// `1/model.onnx`.
    pub graph: Vec<u8>,
    /// Files beside the manifest.
    pub files: Vec<(&'static str, String)>,
}

impl Model {
    /// Writes it into a repository.
    pub fn write(&self, repository: &Path) {
        let folder = repository.join(self.name);
        std::fs::create_dir_all(folder.join("1")).expect("a folder for the model");
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("a file");
        put("model.toml", self.manifest.as_bytes());
        put("1/model.onnx", &self.graph);
        self.files.iter().for_each(|(name, text)| put(name, text.as_bytes()));
    }

    /// The same model with another text in its manifest.
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.manifest.contains(from), "`{from}` is not in the manifest");
        self.manifest = self.manifest.replace(from, to);
        self
    }

    /// The same model under another name.
    pub fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// Every model of this file.
pub fn all() -> Vec<Model> {
    vec![linear(), events(), fragile(), pair(), trials()]
}

/// What `linear` computes: v\[t\] = M1 v\[t-1\] + M2 u\[t\] + m0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// The state.
    pub v: [f32; 2],
}

impl Linear {
    const M1: [f32; 4] = [0.5, 0.25, -0.25, 0.5];
    const M2: [f32; 4] = [1.0, 2.0, -1.0, 0.5];
    const M0: [f32; 2] = [0.5, -1.0];

    /// From the initial state, zeros.
    pub const fn new() -> Self {
        Self { v: [0.0; 2] }
    }

    /// One bin; answers v.
    pub fn step(&mut self, u: [f32; 2]) -> [f32; 2] {
        let row = |i: usize| {
            Self::M1[2 * i] * self.v[0]
                + Self::M1[2 * i + 1] * self.v[1]
                + Self::M2[2 * i] * u[0]
                + Self::M2[2 * i + 1] * u[1]
                + Self::M0[i]
        };
        self.v = [row(0), row(1)];
        self.v
    }

    /// Several bins.
    pub fn steps(&mut self, rows: &[[f32; 2]]) -> Vec<[f32; 2]> {
        rows.iter().map(|row| self.step(*row)).collect()
    }
}

const CHANNELS: &str = "name,electrode\na,e1\nb,e2\n";

/// Input `spikes` (binned; `a`, `b`), outputs `v` (0, decoded, 2) and `raw` (1, latent, 2: what the input alone says).
pub fn linear() -> Model {
    let manifest = r#"
kind = "decoder"
[[input]]
name = "spikes"
tensor = "u"
type = "binned"
bin_ms = 10
channels_file = "channels.csv"
[[state]]
input = "v0"
output = "v_next"
[[output]]
name = "v"
tensor = "v"
role = "decoded"
labels = ["x", "y"]
[[output]]
name = "raw"
tensor = "vraw"
role = "latent"
"#;
    Model {
        name: "linear",
        manifest: manifest.into(),
        graph: linear_recurrence(&Linear::M1, &Linear::M2, &Linear::M0),
        files: vec![("channels.csv", CHANNELS.into())],
    }
}

/// `linear` whose input `spikes` is of type `spike_events`.
pub fn events() -> Model {
    linear().replace("\"binned\"", "\"spike_events\"").named("events")
}

/// `linear` whose state goes back to zeros where a trial ends.
pub fn trials() -> Model {
    linear().replace("kind = \"decoder\"", "kind = \"decoder\"\nreset_on = [\"trial_end\"]").named("trials")
}

/// Input `spikes` (binned; `a`, `b`), state s\[t\] = s\[t-1\] + u\[t\]; outputs `sum` (0) = s and `log` (1) =
/// ln(u + 1), which is NaN where u < -1 and -infinity where it is -1.
pub fn fragile() -> Model {
    let dims = ["batch".into(), 2.into()];
    let graph = GraphBuilder::new("fragile")
        .input("u", Dtype::F32, &dims)
        .input("s0", Dtype::F32, &dims)
        .node("Add", &["u", "s0"], &["s"])
        .node("Identity", &["s"], &["s_next"])
        .f32("one", &[1], &[1.0])
        .node("Add", &["u", "one"], &["more"])
        .node("Log", &["more"], &["log"])
        .output("s", Dtype::F32, &dims)
        .output("log", Dtype::F32, &dims)
        .output("s_next", Dtype::F32, &dims)
        .bytes();
    let manifest = r#"
[[input]]
name = "spikes"
tensor = "u"
type = "binned"
bin_ms = 10
channels_file = "channels.csv"
[[state]]
input = "s0"
output = "s_next"
[[output]]
name = "sum"
tensor = "s"
role = "latent"
[[output]]
name = "log"
tensor = "log"
role = "latent"
"#;
    let files = vec![("channels.csv", CHANNELS.into())];
    Model { name: "fragile", manifest: manifest.into(), graph, files }
}

/// Two required inputs `left` and `right` (binned; `a`, `b`), state s\[t\] = s\[t-1\] + left\[t\] + 64 right\[t\]; output
/// `sum` (0) = s.
pub fn pair() -> Model {
    let dims = ["batch".into(), 2.into()];
    let graph = GraphBuilder::new("pair")
        .input("l", Dtype::F32, &dims)
        .input("r", Dtype::F32, &dims)
        .input("s0", Dtype::F32, &dims)
        .f32("weight", &[1], &[64.0])
        .node("Mul", &["r", "weight"], &["weighed"])
        .node("Add", &["l", "weighed"], &["both"])
        .node("Add", &["both", "s0"], &["s"])
        .node("Identity", &["s"], &["s_next"])
        .output("s", Dtype::F32, &dims)
        .output("s_next", Dtype::F32, &dims)
        .bytes();
    let manifest = r#"
[[input]]
name = "left"
tensor = "l"
type = "binned"
bin_ms = 10
channels_file = "channels.csv"
[[input]]
name = "right"
tensor = "r"
type = "binned"
bin_ms = 10
channels_file = "channels.csv"
[[state]]
input = "s0"
output = "s_next"
[[output]]
name = "sum"
tensor = "s"
role = "latent"
"#;
    let files = vec![("channels.csv", CHANNELS.into())];
    Model { name: "pair", manifest: manifest.into(), graph, files }
}
