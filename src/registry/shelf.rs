//! The models, versions and pipelines that there are, with their states: what lists show and names find.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::finding::{Finding, Findings};
use super::manifest::{Manifest, Mode, ModelKind};
use super::pipelines::{PipelineSpec, Source};
use super::ready::ReadyVersion;
use super::scan::PIPELINES;
use crate::domain::ids::{Digest, ModelName, PipelineName, Version};
use crate::domain::signal::word;
use crate::error::{Fault, Kind, clip, there_is};

word!(
    /// Where a version stands on its way to serving.
    VersionState {
        /// Seen, and not yet unchanged for long enough.
        Candidate = "candidate",
        /// Being read, checked and run.
        Loading = "loading",
        /// It serves.
        Ready = "ready",
        /// Something is wrong with it.
        Fault = "fault",
        /// Taken out, by call or because its directory vanished.
        Unloaded = "unloaded",
    }
);

/// Why there is no version to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lookup {
    /// Nothing of that name; the sentence names what there is.
    #[error("{0}")]
    NotFound(String),
    /// It is there and wrong; the sentence is its fault.
    #[error("{0}")]
    Fault(String),
    /// It is loading or was unloaded.
    #[error("{0}")]
    NotReady(String),
}

impl From<Lookup> for Fault {
    fn from(lookup: Lookup) -> Self {
        match lookup {
            Lookup::NotFound(said) => Fault::new(Kind::NotFound, said),
            Lookup::Fault(said) => Fault::new(Kind::Invalid, said),
            Lookup::NotReady(said) => Fault::new(Kind::Unavailable, said),
        }
    }
}

/// A model as a list shows it.
#[derive(Clone, Debug)]
pub struct ModelRow {
    /// Its name.
    pub name: ModelName,
    /// What it is for, by its highest version that could be read.
    pub kind: ModelKind,
    /// How it is run, by the same.
    pub mode: Mode,
    /// What it is, in its author's words: by its highest version that serves, else by the same.
    pub description: String,
    /// Its tags, by the same.
    pub tags: Vec<String>,
    /// What is wrong with its directory as a whole.
    pub fault: Option<String>,
    /// Its versions, lowest first.
    pub versions: Vec<VersionRow>,
}

/// A version as a list shows it.
#[derive(Clone, Debug)]
pub struct VersionRow {
    /// Its number.
    pub version: Version,
    /// Digest of its bytes, once read.
    pub digest: Option<Digest>,
    /// Where it stands.
    pub state: VersionState,
    /// What is wrong: with it, or (while it is ready) with what stands in its directory now.
    pub fault: Option<String>,
    /// The version, while it is ready.
    pub ready: Option<Arc<ReadyVersion>>,
}

/// A pipeline as a list shows it.
#[derive(Clone, Debug)]
pub struct PipelineRow {
    /// Its name.
    pub name: PipelineName,
    /// Whether it is a model alone; else it stands in `pipelines/*.toml`.
    pub is_model: bool,
    /// Its stages, if they could be read.
    pub spec: Option<PipelineSpec>,
    /// What is wrong; `None`: a session can be opened on it as far as the registry knows.
    pub fault: Option<String>,
}

/// Everything that readers see.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) models: BTreeMap<ModelName, ModelEntry>,
    pub(super) pipelines: BTreeMap<PipelineName, PipelineEntry>,
    /// Entries that are no models, and why.
    pub(super) faults: Vec<String>,
}

#[derive(Default)]
pub(super) struct ModelEntry {
    pub(super) fault: Option<String>,
    pub(super) versions: BTreeMap<Version, VersionEntry>,
}

pub(super) struct VersionEntry {
    pub(super) state: VersionState,
    pub(super) fault: Option<String>,
    pub(super) digest: Option<Digest>,
    /// By the manifest that was read last; it stays when the version is taken out.
    pub(super) told: Option<Told>,
    pub(super) ready: Option<Arc<ReadyVersion>>,
    /// Versions of this number that no longer serve, as long as sessions hold them.
    pub(super) retired: Vec<Weak<ReadyVersion>>,
}

/// What a manifest tells of its model.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) kind: ModelKind,
    pub(super) mode: Mode,
    pub(super) description: String,
    pub(super) tags: Vec<String>,
}

impl From<&Manifest> for Told {
    fn from(manifest: &Manifest) -> Self {
        let Manifest { kind, mode, .. } = *manifest;
        Self { kind, mode, description: manifest.description.clone(), tags: manifest.tags.clone() }
    }
}

impl ModelEntry {
    /// The model as a list shows it.
    pub(super) fn row(&self, name: &ModelName) -> ModelRow {
        let entries = || self.versions.iter().rev();
        let read = entries().find_map(|(_, entry)| entry.told.as_ref());
        let serves = entries().find_map(|(_, entry)| entry.ready.as_ref().map(|ready| &ready.manifest));
        let told = serves.map(Told::from).or(read.cloned());
        let (description, tags) = told.map(|told| (told.description, told.tags)).unwrap_or_default();
        ModelRow {
            name: name.clone(),
            kind: read.map_or(ModelKind::Plain, |told| told.kind),
            mode: read.map_or(Mode::Step, |told| told.mode),
            description,
            tags,
            fault: self.fault.clone(),
            versions: self.versions.iter().map(|(version, entry)| entry.row(*version)).collect(),
        }
    }
}

impl VersionEntry {
    pub(super) fn new(state: VersionState) -> Self {
        Self { state, fault: None, digest: None, told: None, ready: None, retired: Vec::new() }
    }

    fn row(&self, version: Version) -> VersionRow {
        VersionRow {
            version,
            digest: self.digest,
            state: self.state,
            fault: self.fault.clone(),
            ready: self.ready.clone(),
        }
    }

    /// Stops serving; sessions that hold it keep it.
    pub(super) fn retire(&mut self, why: Option<String>) {
        if let Some(ready) = self.ready.take() {
            self.retired.push(Arc::downgrade(&ready));
        }
        self.retired.retain(|held| held.strong_count() > 0);
        (self.state, self.fault) = (VersionState::Unloaded, why);
    }

    /// The versions of this number that are in memory, serving or not.
    pub(super) fn held(&self) -> impl Iterator<Item = Arc<ReadyVersion>> {
        self.retired.iter().filter_map(Weak::upgrade).chain(self.ready.iter().cloned())
    }
}

#[derive(Default)]
pub(super) struct PipelineEntry {
    pub(super) spec: Option<PipelineSpec>,
    pub(super) fault: Option<String>,
}

impl Shelf {
    pub(super) fn known(&self, model: &str, version: Option<Version>) -> Result<&ModelEntry, Lookup> {
        let Some(entry) = self.models.get(model) else {
            let there = there_is(model, self.models.keys().map(ModelName::as_str));
            return Err(Lookup::NotFound(format!("no model `{}`; {there}", clip(model))));
        };
        match version {
            Some(number) if !entry.versions.contains_key(&number) => {
                Err(no_version(model, version, entry.versions.keys()))
            }
            _ => Ok(entry),
        }
    }

    pub(super) fn version(&self, model: &str, version: Option<Version>) -> Result<Arc<ReadyVersion>, Lookup> {
        let entry = self.known(model, version)?;
        let mut candidates: Vec<(&Version, &VersionEntry)> = match version {
            Some(number) => entry.versions.get_key_value(&number).into_iter().collect(),
            None => entry.versions.iter().rev().collect(),
        };
        if let Some(ready) = candidates.iter().find_map(|(_, entry)| entry.ready.clone()) {
            return Ok(ready);
        }
        // One that may still come is worth waiting for; else the highest one's fault is told.
        candidates.sort_by_key(|(_, entry)| entry.state == VersionState::Fault);
        match candidates.first() {
            Some((number, entry)) if entry.state == VersionState::Fault => {
                let fault = entry.fault.clone().unwrap_or_default();
                Err(Lookup::Fault(format!("model {model}/{number} does not serve: {fault}")))
            }
            Some((number, entry)) => {
                let why = entry.fault.as_ref().map_or(String::new(), |fault| format!(" ({fault})"));
                Err(Lookup::NotReady(format!("model {model}/{number} is not ready: {}{why}", entry.state)))
            }
            None => Err(Lookup::Fault(
                entry.fault.clone().unwrap_or_else(|| format!("model {model} has no version")),
            )),
        }
    }

    /// The pipeline of a model alone, as the version asked for takes its inputs; without one the highest that is ready.
    pub(super) fn model_alone(
        &self,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<PipelineSpec, Lookup> {
        let ready = self.version(model.as_str(), version)?;
        if let Some(why) = &ready.not_streamed {
            return Err(Lookup::Fault(format!(
                "no session can be opened on {model}/{}: {why}",
                ready.version
            )));
        }
        Ok(PipelineSpec::of_model(model, ready.manifest.inputs.iter().map(|input| input.name.as_str())))
    }

    pub(super) fn name_taken(&self, name: &PipelineName) -> Option<String> {
        self.models.contains_key(name.as_str()).then(|| {
            let file = format!("{PIPELINES}/{name}.toml");
            let found = format!("`{name}`, which is a model's: sessions on that name get the model alone");
            Finding::new(file, "name", "a name that no model has", found).to_string()
        })
    }

    /// What in a pipeline does not fit the models that there are now.
    pub(super) fn broken(&self, spec: &PipelineSpec) -> Option<String> {
        let file = format!("{PIPELINES}/{}.toml", spec.name);
        let mut findings = Findings::none();
        let mut versions: BTreeMap<&str, Arc<ReadyVersion>> = BTreeMap::new();
        for stage in &spec.stages {
            let key = format!("stage `{}`", stage.name);
            let ready = match self.version(stage.model.as_str(), stage.version) {
                Ok(ready) => ready,
                Err(lookup) => {
                    findings.push(Finding::new(
                        &file,
                        format!("{key}.model"),
                        "a model that serves",
                        lookup.to_string(),
                    ));
                    continue;
                }
            };
            for (input, source) in &stage.inputs {
                let key = format!("{key}.inputs.{input}");
                let Some((_, bound)) = ready.input(input) else {
                    let there =
                        there_is(input, ready.manifest.inputs.iter().map(|input| input.name.as_str()));
                    let expected = format!("an input of model {} ({there})", stage.model);
                    findings.push(Finding::new(&file, key, expected, "none of that name"));
                    continue;
                };
                let Source::Stage { stage: from, output } = source else { continue };
                let Some(feeding) = versions.get(from.as_str()) else { continue };
                let Some(fed) = feeding.output(output) else {
                    let there = there_is(output, feeding.outputs.iter().map(|output| output.name.as_str()));
                    let expected = format!("an output of stage `{from}` ({there})");
                    findings.push(Finding::new(&file, key, expected, format!("`{from}.{output}`")));
                    continue;
                };
                let values: usize = feeding.output_ports()[fed.port].row_shape.iter().product();
                if values != bound.channels {
                    let found = format!("{values} from `{from}.{output}`");
                    findings.push(Finding::new(
                        &file,
                        key,
                        format!("{} values per bin", bound.channels),
                        found,
                    ));
                }
            }
            for input in ready.manifest.inputs.iter().filter(|input| input.required) {
                if !stage.inputs.contains_key(&input.name) {
                    let key = format!("{key}.inputs.{}", input.name);
                    findings.push(Finding::new(&file, key, "a signal or a stage's output", "nothing"));
                }
            }
            versions.insert(stage.name.as_str(), ready);
        }
        (!findings.0.is_empty()).then(|| findings.to_string())
    }
}

pub(super) fn no_version<'a>(
    model: &str,
    version: Option<Version>,
    there_are: impl Iterator<Item = &'a Version>,
) -> Lookup {
    let names: Vec<String> = there_are.map(Version::to_string).collect();
    let asked = version.map_or_else(String::new, |version| version.to_string());
    let there = there_is(&asked, names.iter().map(String::as_str));
    Lookup::NotFound(format!("no version {asked} of model `{model}`; {there}"))
}
