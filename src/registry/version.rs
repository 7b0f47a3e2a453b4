//! A version's bytes, read once into memory, and their digest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::channels::{self, ModelChannel};
use super::file;
use super::finding::{Finding, Findings, quoted};
use super::manifest::{self, MANIFEST_LIMIT_BYTES, Manifest};
use crate::domain::ids::{Digest, ModelName, Version};
use crate::domain::tensor::Tensor;
use crate::engine::ModelBytes;
use crate::graph::{self, Signature};
use crate::signal::op::{Numbers, Op};
use crate::wire::npy;

/// The manifest's name.
pub const MANIFEST: &str = "model.toml";
/// The graph's name.
pub const GRAPH: &str = "model.onnx";
/// What the training data were like: looked for under this name alone.
const REFERENCE: &str = "reference.safetensors";
/// Longest graph (bytes): no protobuf may be longer.
const GRAPH_LIMIT_BYTES: u64 = (1 << 31) - 1;
/// Longest file of external data, of an initial value, of an example (bytes).
const DATA_LIMIT_BYTES: u64 = 1 << 36;
/// Longest text file (bytes).
const TEXT_LIMIT_BYTES: u64 = 64 << 20;

/// Where a version stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionDir {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// The model's directory, canonical: links may not leave it.
    pub model_dir: PathBuf,
}

/// A named file: how findings name it, and its bytes.
pub type Named = (String, Arc<[u8]>);

impl VersionDir {
    /// The version's own directory.
    pub fn path(&self) -> PathBuf {
        self.model_dir.join(self.version.to_string())
    }

    /// A file of the version as findings name it.
    fn shown(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.model, self.version)
    }
}

/// All that a version consists of, in memory.
#[derive(Clone, Debug)]
pub struct VersionBytes {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Digest of its bytes.
    pub digest: Digest,
    /// The manifest as written; where there is none, an empty one that the graph is to complete.
    pub manifest: Manifest,
    /// Whether there is a `model.toml`.
    pub has_manifest: bool,
    /// `model/model.toml` or, without one, the graph's file, as findings name it.
    pub manifest_file: String,
    /// The graph's file as findings name it.
    pub graph_file: String,
    /// What the graph takes and gives.
    pub signature: Signature,
    /// Graph and external data, for the engine.
    pub bytes: ModelBytes,
    /// Per input: the channels of its `channels_file`, if it names one.
    pub channels: Vec<Option<Vec<ModelChannel>>>,
    /// Per state: the tensor of its `file:` init, if it has one.
    pub inits: Vec<Option<Tensor>>,
    /// The recorded example, if there is one.
    pub example: Option<Arc<[u8]>>,
    /// What the training data were like, if a file tells it.
    pub reference: Option<Named>,
    /// Bytes held by graph and external data.
    pub weight_bytes: u64,
}

/// Reads a version whole. Nothing is executed, nothing is kept open.
pub fn read(dir: &VersionDir) -> Result<VersionBytes, Findings> {
    let mut reader = Reader { dir, path: dir.path(), digested: BTreeMap::new(), findings: Findings::none() };
    reader.check_folder()?;
    let (manifest_file, manifest) = reader.manifest()?;
    let (graph_name, onnx) = reader.graph()?;
    let graph_file = dir.shown(&graph_name);
    let graph = graph::read(&onnx).map_err(|error| {
        Findings::one(Finding::new(&graph_file, "", "an ONNX model that can be served", error.to_string()))
    })?;
    let external = reader.external(&graph_file, &graph);
    let has_manifest = manifest.is_some();
    let mut manifest = manifest.unwrap_or_else(Manifest::empty);
    let (channels, inits) = reader.named(&manifest_file, &mut manifest);
    let example = reader.example(&manifest_file, &manifest);
    let reference = reader.beside(REFERENCE);
    let weight_bytes = onnx.len() as u64 + external.values().map(|data| data.len() as u64).sum::<u64>();
    let version = VersionBytes {
        model: dir.model.clone(),
        version: dir.version,
        digest: digest(&reader.digested),
        has_manifest,
        manifest_file: if has_manifest { manifest_file } else { graph_file.clone() },
        graph_file,
        signature: graph.signature().clone(),
        bytes: ModelBytes { name: format!("{}/{}", dir.model, dir.version), onnx, external },
        manifest,
        channels,
        inits,
        example,
        reference,
        weight_bytes,
    };
    reader.findings.unless_any(version)
}

/// SHA-256 over the lines `<SHA-256 in hex>  <name>\n`, sorted by name.
fn digest(files: &BTreeMap<String, [u8; 32]>) -> Digest {
    let mut all = Sha256::new();
    for (name, sha256) in files {
        all.update(format!("{}  {name}\n", Digest(*sha256).hex()));
    }
    Digest(all.finalize().into())
}

struct Reader<'a> {
    dir: &'a VersionDir,
    path: PathBuf,
    digested: BTreeMap<String, [u8; 32]>,
    findings: Findings,
}

impl Reader<'_> {
    fn check_folder(&self) -> Result<(), Findings> {
        let shown = format!("{}/{}", self.dir.model, self.dir.version);
        let wrong = |expected: &str, found: String| Findings::one(Finding::new(&shown, "", expected, found));
        if !file::is_there(&self.path, &shown, &self.dir.model_dir).map_err(Findings::one)? {
            return Err(wrong("a directory", "nothing".into()));
        }
        let meta = fs::metadata(&self.path).map_err(|error| wrong("a directory", file::words(&error)))?;
        if !meta.is_dir() {
            return Err(wrong("a directory", file::what(meta.file_type()).into()));
        }
        fs::read_dir(&self.path)
            .map(drop)
            .map_err(|error| wrong("a directory that can be read", file::words(&error)))
    }

    fn read(
        &self,
        folder: &Path,
        shown: &str,
        name: &str,
        limit: u64,
    ) -> Result<Option<Arc<[u8]>>, Findings> {
        file::read(&folder.join(name), shown, &self.dir.model_dir, limit).map_err(Findings::one)
    }

    fn digest(&mut self, name: &str, bytes: &[u8]) {
        self.digested.insert(name.into(), Sha256::digest(bytes).into());
    }

    fn manifest(&mut self) -> Result<(String, Option<Manifest>), Findings> {
        let shown = format!("{}/{MANIFEST}", self.dir.model);
        let Some(bytes) = self.read(&self.dir.model_dir, &shown, MANIFEST, MANIFEST_LIMIT_BYTES)? else {
            return Ok((shown, None));
        };
        self.digest(MANIFEST, &bytes);
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Findings::one(Finding::new(&shown, "", "UTF-8 text", "bytes that are none")))?;
        let manifest = manifest::parse(&shown, text)?;
        Ok((shown, Some(manifest)))
    }

    /// `model.onnx`, else the one `.onnx` that stands there.
    fn graph(&mut self) -> Result<(String, Arc<[u8]>), Findings> {
        let mut name = GRAPH.to_owned();
        let mut bytes = self.read(&self.path, &self.dir.shown(GRAPH), GRAPH, GRAPH_LIMIT_BYTES)?;
        if bytes.is_none() {
            let names: Vec<String> = fs::read_dir(&self.path)
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect();
            let mut graphs = names.iter().filter(|name| name.ends_with(".onnx") && file::is_plain_name(name));
            let wrong =
                |found: String| Findings::one(Finding::new(self.dir.shown(GRAPH), "", "a graph", found));
            match (graphs.next(), graphs.next()) {
                (Some(one), None) => {
                    name = one.clone();
                    bytes = self.read(&self.path, &self.dir.shown(one), one, GRAPH_LIMIT_BYTES)?;
                }
                (Some(_), Some(_)) => return Err(wrong("several .onnx files of other names".into())),
                (None, _) if names.iter().any(|name| name == "cfg.json") => {
                    return Err(wrong("an SAE directory, which this version does not serve yet".into()));
                }
                (None, _) => {}
            }
            if bytes.is_none() {
                return Err(wrong("nothing".into()));
            }
        }
        let bytes = bytes.unwrap_or_default();
        self.digest(&name, &bytes);
        Ok((name, bytes))
    }

    /// The external data, each in a plain file of the version's own directory and long enough.
    fn external(&mut self, graph_file: &str, graph: &graph::Graph) -> BTreeMap<String, Arc<[u8]>> {
        let mut external = BTreeMap::new();
        for location in graph.external_locations() {
            let shown = self.dir.shown(location);
            match self.read(&self.path, &shown, location, DATA_LIMIT_BYTES) {
                Ok(Some(bytes)) => {
                    self.digest(location, &bytes);
                    external.insert(location.to_owned(), bytes);
                }
                Ok(None) => self.findings.push(Finding::new(
                    shown,
                    "",
                    format!("the external data that {graph_file} names"),
                    "nothing",
                )),
                Err(findings) => self.findings.extend(findings),
            }
        }
        for tensor in graph.external_tensors() {
            if let Some(data) = external.get(&tensor.location)
                && tensor.end_bytes() > data.len() as u64
            {
                self.findings.push(Finding::new(
                    self.dir.shown(&tensor.location),
                    format!("tensor {}", quoted(&tensor.tensor)),
                    format!("at least {} bytes", tensor.end_bytes()),
                    format!("{} bytes", data.len()),
                ));
            }
        }
        external
    }

    /// A file that the manifest names: in the version's directory, else beside the manifest.
    fn named_file(&mut self, name: &str, limit: u64) -> Result<Option<Named>, Findings> {
        let mut shown = self.dir.shown(name);
        let mut bytes = self.read(&self.path, &shown, name, limit)?;
        if bytes.is_none() {
            shown = format!("{}/{name}", self.dir.model);
            bytes = self.read(&self.dir.model_dir, &shown, name, limit)?;
        }
        let Some(bytes) = bytes else { return Ok(None) };
        self.digest(name, &bytes);
        Ok(Some((shown, bytes)))
    }

    /// Reads a named file by `parse`; what is wrong is noted.
    fn parsed<T>(
        &mut self,
        manifest_file: &str,
        key: String,
        name: &str,
        limit: u64,
        parse: impl FnOnce(&str, &[u8]) -> Result<T, Findings>,
    ) -> Option<T> {
        let read = self.named_file(name, limit).and_then(|file| match file {
            Some((shown, bytes)) => parse(&shown, &bytes),
            None => {
                let expected = "a file in the version's directory or beside the manifest";
                let found = format!("none of the name {}", quoted(name));
                Err(Findings::one(Finding::new(manifest_file, key, expected, found)))
            }
        });
        read.map_err(|findings| self.findings.extend(findings)).ok()
    }

    fn named(
        &mut self,
        manifest_file: &str,
        manifest: &mut Manifest,
    ) -> (Vec<Option<Vec<ModelChannel>>>, Vec<Option<Tensor>>) {
        let mut all_channels = Vec::new();
        for (i, input) in manifest.inputs.iter_mut().enumerate() {
            if let Some(name) = &input.units_file {
                let key = format!("input[{i}].units_file");
                self.parsed(manifest_file, key, name, TEXT_LIMIT_BYTES, channels::parse);
            }
            all_channels.push(input.channels_file.as_ref().and_then(|name| {
                let key = format!("input[{i}].channels_file");
                self.parsed(manifest_file, key, name, TEXT_LIMIT_BYTES, channels::parse)
            }));
            for (j, op) in input.preprocess.iter_mut().enumerate() {
                let Op::Zscore { mean, std, .. } = op else { continue };
                for (word, numbers) in [("mean", mean), ("std", std)] {
                    let Some(Numbers::File(text)) = numbers else { continue };
                    let name = text.strip_prefix("file:").unwrap_or(text).to_owned();
                    let key = format!("input[{i}].preprocess[{j}].{word}");
                    if let Some(tensor) = self.parsed(manifest_file, key, &name, TEXT_LIMIT_BYTES, npy_of) {
                        *numbers = Some(Numbers::Here(tensor.to_f64()));
                    }
                }
            }
        }
        let mut inits = Vec::new();
        for (i, state) in manifest.states.iter().enumerate() {
            let manifest::StateInit::File(name) = &state.init else {
                inits.push(None);
                continue;
            };
            inits.push(self.parsed(
                manifest_file,
                format!("state[{i}].init"),
                name,
                DATA_LIMIT_BYTES,
                npy_of,
            ));
        }
        (all_channels, inits)
    }

    /// The recorded example; it belongs to the digest only where the manifest names it.
    fn example(&mut self, manifest_file: &str, manifest: &Manifest) -> Option<Arc<[u8]>> {
        let name = &manifest.example.file;
        if manifest.example.named {
            return self.parsed(manifest_file, "example.file".into(), name, DATA_LIMIT_BYTES, |_, bytes| {
                Ok(Arc::from(bytes))
            });
        }
        self.beside(name).map(|(_, bytes)| bytes)
    }

    /// A file that no manifest need name, and that is no part of the digest then.
    fn beside(&mut self, name: &str) -> Option<Named> {
        let places = [
            (self.path.clone(), self.dir.shown(name)),
            (self.dir.model_dir.clone(), format!("{}/{name}", self.dir.model)),
        ];
        for (folder, shown) in places {
            match self.read(&folder, &shown, name, DATA_LIMIT_BYTES) {
                Ok(Some(bytes)) => return Some((shown, bytes)),
                Ok(None) => {}
                Err(findings) => {
                    self.findings.extend(findings);
                    return None;
                }
            }
        }
        None
    }
}

fn npy_of(shown: &str, bytes: &[u8]) -> Result<Tensor, Findings> {
    npy::read(bytes).map_err(|error| {
        Findings::one(Finding::new(shown, format!("byte {}", error.offset), error.expected, error.found))
    })
}
