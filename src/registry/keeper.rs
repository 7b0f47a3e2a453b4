//! The registry: keeps the shelf in step with the directory, and loads what has settled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::file;
use super::finding::{Finding, Findings};
use super::manifest::MANIFEST_LIMIT_BYTES;
use super::pipelines::{self, PipelineSpec};
use super::ready::{self, ReadyVersion};
use super::scan::{self, Listing, Look, PIPELINES};
use super::shelf::{Lookup, ModelRow, PipelineEntry, PipelineRow, Shelf, Told, VersionEntry, VersionState};
use super::version::{self, VersionDir};
use crate::batch::Pool;
use crate::domain::ids::{ModelName, PipelineName, Version};
use crate::engine::Engine;
use crate::error::{clip, there_is};

/// How the registry is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The repository.
    pub root: PathBuf,
    /// A directory must be unchanged so long before it is read.
    pub settle: Duration,
    /// A run over this is ended.
    pub run_limit: Duration,
    /// Most bytes that versions may hold together; `None`: no limit.
    pub memory_limit_bytes: Option<u64>,
}

impl Options {
    /// The defaults for a repository: settle 500 ms, run limit 5 s, no memory limit.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            settle: Duration::from_millis(500),
            run_limit: Duration::from_secs(5),
            memory_limit_bytes: None,
        }
    }
}

/// What one scan tells the next.
#[derive(Default)]
struct Memory {
    versions: BTreeMap<(ModelName, Version), Seen>,
    pipelines: BTreeMap<PipelineName, Seen>,
}

struct Seen {
    look: Look,
    since: Instant,
    /// The look that was read and judged last.
    judged: Option<Look>,
    /// Not in the last scan, since then.
    missing_since: Option<Instant>,
    /// Unloaded by call: not loaded again until asked.
    is_unwanted: bool,
}

impl Seen {
    fn new(look: Look, now: Instant) -> Self {
        Self { look, since: now, judged: None, missing_since: None, is_unwanted: false }
    }

    fn see(&mut self, look: &Look, now: Instant) {
        self.missing_since = None;
        if self.look != *look {
            self.look = look.clone();
            self.since = now;
        }
    }

    fn is_judged(&self) -> bool {
        self.judged.as_ref() == Some(&self.look)
    }

    /// Whether it has been missing in two scans, `settle` apart.
    fn is_gone(&mut self, now: Instant, settle: Duration) -> bool {
        let since = *self.missing_since.get_or_insert(now);
        now.saturating_duration_since(since) >= settle && since != now
    }
}

/// The model repository in memory. Scans and loads one at a time; is read by everyone.
pub struct Registry {
    options: Options,
    engine: Arc<dyn Engine>,
    pool: Arc<Pool>,
    shelf: RwLock<Shelf>,
    // Held during a whole scan or load; never while the shelf's lock is waited for by a reader for long.
    memory: Mutex<Memory>,
}

impl Registry {
    /// An empty registry; `first_scan` fills it.
    pub fn new(options: Options, engine: Arc<dyn Engine>, pool: Arc<Pool>) -> Self {
        Self { options, engine, pool, shelf: RwLock::default(), memory: Mutex::default() }
    }

    /// Loads what stands there now, without waiting for it to settle. Blocks until each model serves or shows its fault.
    pub fn first_scan(&self) {
        self.scan(Instant::now(), true);
    }

    /// Looks again, loads what has settled, marks what changed or vanished. Blocks while it loads: for a thread of its
    /// own, every `scan_ms`.
    pub fn rescan(&self) {
        self.rescan_at(Instant::now());
    }

    /// As `rescan`, at an instant that the caller gives.
    pub fn rescan_at(&self, now: Instant) {
        self.scan(now, false);
    }

    fn scan(&self, now: Instant, is_first: bool) {
        let mut memory = self.memory.lock();
        let listing = match scan::look(&self.options.root) {
            Ok(listing) => listing,
            Err(finding) => {
                // Nothing is known: what serves goes on.
                self.note_faults(vec![finding.to_string()]);
                return;
            }
        };
        self.note_faults(listing.faults.iter().map(Finding::to_string).collect());
        for (model, folder) in &listing.models {
            self.shelf.write().models.entry(model.clone()).or_default().fault =
                folder.fault.as_ref().map(Finding::to_string);
            for (version, look) in &folder.versions {
                let seen = memory
                    .versions
                    .entry((model.clone(), *version))
                    .or_insert_with(|| Seen::new(look.clone(), now));
                seen.see(look, now);
                if seen.is_judged() {
                    continue;
                }
                let dir =
                    VersionDir { model: model.clone(), version: *version, model_dir: folder.dir.clone() };
                if is_first
                    || (now.saturating_duration_since(seen.since) >= self.options.settle && seen.since != now)
                {
                    self.judge(&dir, seen);
                } else {
                    self.on_entry(&dir, |entry| {
                        if entry.ready.is_none() && !seen.is_unwanted {
                            (entry.state, entry.fault) = (VersionState::Candidate, None);
                        }
                    });
                }
            }
        }
        self.mark_vanished(&mut memory, &listing, now);
        self.scan_pipelines(&mut memory, &listing, now, is_first);
    }

    fn note_faults(&self, faults: Vec<String>) {
        let mut shelf = self.shelf.write();
        for fault in faults.iter().filter(|fault| !shelf.faults.contains(fault)) {
            tracing::warn!("model repository: {fault}");
        }
        shelf.faults = faults;
    }

    fn on_entry<T>(&self, dir: &VersionDir, change: impl FnOnce(&mut VersionEntry) -> T) -> T {
        let mut shelf = self.shelf.write();
        let versions = &mut shelf.models.entry(dir.model.clone()).or_default().versions;
        change(versions.entry(dir.version).or_insert_with(|| VersionEntry::new(VersionState::Candidate)))
    }

    /// Reads a settled directory. What does not serve yet is loaded; what serves is only compared.
    fn judge(&self, dir: &VersionDir, seen: &mut Seen) {
        let look = seen.look.clone();
        if seen.is_unwanted {
            seen.judged = Some(look);
            return;
        }
        let serving = self.on_entry(dir, |entry| entry.ready.clone());
        if let Some(serving) = serving {
            let fault = changed_under(&serving, version::read(dir));
            if let Some(fault) = &fault {
                tracing::warn!(model.name = %dir.model, model.version = %dir.version, "{fault}");
            }
            self.on_entry(dir, |entry| entry.fault = fault);
            seen.judged = Some(look);
            return;
        }
        if self.load_from(dir).is_err() && !self.is_unchanged(dir, &look) {
            // Half-copied: it changed while it was read, so its fault is not yet its own.
            self.on_entry(dir, |entry| (entry.state, entry.fault) = (VersionState::Candidate, None));
            return;
        }
        seen.judged = Some(look);
    }

    fn is_unchanged(&self, dir: &VersionDir, look: &Look) -> bool {
        scan::look(&self.options.root).is_ok_and(|listing| {
            listing.models.get(&dir.model).and_then(|folder| folder.versions.get(&dir.version)) == Some(look)
        })
    }

    /// Reads, checks, runs and serves a version, whatever served under its number before.
    fn load_from(&self, dir: &VersionDir) -> Result<Arc<ReadyVersion>, String> {
        self.on_entry(dir, |entry| {
            if entry.ready.is_none() {
                (entry.state, entry.fault) = (VersionState::Loading, None);
            }
        });
        let loaded = self.load_bytes(dir);
        match &loaded {
            Ok(ready) => {
                tracing::info!(
                    model.name = %dir.model, model.version = %dir.version, digest = %ready.digest,
                    device = %ready.device, max_batch = ready.max_batch, "version serves"
                );
                self.on_entry(dir, |entry| {
                    if entry.ready.as_ref().is_some_and(|old| !Arc::ptr_eq(old, ready)) {
                        entry.retire(None);
                    }
                    (entry.state, entry.fault) = (VersionState::Ready, None);
                    (entry.digest, entry.ready) = (Some(ready.digest), Some(Arc::clone(ready)));
                });
            }
            Err(fault) => {
                tracing::warn!(model.name = %dir.model, model.version = %dir.version, "{fault}");
                self.on_entry(dir, |entry| {
                    if entry.ready.is_none() {
                        entry.state = VersionState::Fault;
                    }
                    entry.fault = Some(fault.clone());
                });
            }
        }
        loaded
    }

    fn load_bytes(&self, dir: &VersionDir) -> Result<Arc<ReadyVersion>, String> {
        let bytes = version::read(dir).map_err(|findings| findings.to_string())?;
        // The same bytes may still be in memory: serving, or held by sessions since their directory vanished.
        let held = self.on_entry(dir, |entry| {
            entry.digest = Some(bytes.digest);
            entry.told = Some(Told::from(&bytes.manifest));
            entry.held().find(|held| held.digest == bytes.digest)
        });
        if let Some(held) = held {
            return Ok(held);
        }
        if let Some(limit) = self.options.memory_limit_bytes {
            let used = self.memory_bytes();
            let asked = bytes.weight_bytes * (1 + u64::from(bytes.manifest.serve.instances));
            if used + asked > limit {
                let found = format!("{used} bytes in use and {asked} more asked");
                let expected = format!("at most {limit} bytes of models (memory_limit)");
                let file = format!("{}/{}", dir.model, dir.version);
                return Err(Finding::new(file, "memory", expected, found).to_string());
            }
        }
        let prepared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ready::prepare(bytes, &self.engine, self.options.run_limit)
        }));
        match prepared {
            Ok(Ok(prepared)) => Ok(prepared.open(&self.pool)),
            Ok(Err(findings)) => Err(findings.to_string()),
            Err(_) => {
                let file = format!("{}/{}", dir.model, dir.version);
                Err(Finding::new(file, "load", "a check that ends", "a panic in it (a fault of ours)")
                    .to_string())
            }
        }
    }

    /// Bytes that versions hold, those that only sessions hold too. An estimate.
    pub fn memory_bytes(&self) -> u64 {
        let shelf = self.shelf.read();
        let entries = shelf.models.values().flat_map(|model| model.versions.values());
        entries.flat_map(VersionEntry::held).map(|version| version.memory_bytes).sum()
    }

    /// Versions whose directory is gone serve no new session; they go with their last one.
    fn mark_vanished(&self, memory: &mut Memory, listing: &Listing, now: Instant) {
        let settle = self.options.settle;
        let mut shelf = self.shelf.write();
        memory.versions.retain(|(model, version), seen| {
            let folder = listing.models.get(model);
            if folder.is_some_and(|folder| !folder.is_readable || folder.versions.contains_key(version)) {
                return true;
            }
            if !seen.is_gone(now, settle) {
                return true;
            }
            let entry = shelf.models.get_mut(model).and_then(|entry| entry.versions.get_mut(version));
            match entry {
                Some(entry) if entry.ready.is_some() => {
                    tracing::warn!(model.name = %model, model.version = %version, "its directory vanished");
                    entry
                        .retire(Some("its directory vanished; sessions that were open on it keep it".into()));
                }
                Some(entry) => entry.state = VersionState::Unloaded,
                None => {}
            }
            false
        });
        // What nobody holds and no directory shows is gone from the list, too.
        for (model, entry) in &mut shelf.models {
            entry.versions.retain(|version, version_entry| {
                version_entry.retired.retain(|held| held.strong_count() > 0);
                memory.versions.contains_key(&(model.clone(), *version))
                    || version_entry.ready.is_some()
                    || !version_entry.retired.is_empty()
            });
        }
        shelf.models.retain(|model, entry| listing.models.contains_key(model) || !entry.versions.is_empty());
    }

    fn scan_pipelines(&self, memory: &mut Memory, listing: &Listing, now: Instant, is_first: bool) {
        let settle = self.options.settle;
        for (name, look) in &listing.pipelines {
            let seen = memory.pipelines.entry(name.clone()).or_insert_with(|| Seen::new(look.clone(), now));
            seen.see(look, now);
            let has_settled = now.saturating_duration_since(seen.since) >= settle && seen.since != now;
            if seen.is_judged() || !(is_first || has_settled) {
                continue;
            }
            seen.judged = Some(look.clone());
            let read = read_pipeline(&self.options.root, name);
            let mut shelf = self.shelf.write();
            let entry = shelf.pipelines.entry(name.clone()).or_default();
            match read {
                Ok(spec) => *entry = PipelineEntry { spec: Some(spec), fault: None },
                // What could be read before goes on.
                Err(findings) => {
                    tracing::warn!(pipeline.name = %name, "{findings}");
                    entry.fault = Some(findings.to_string());
                }
            }
        }
        let mut shelf = self.shelf.write();
        memory.pipelines.retain(|name, seen| {
            let stays = listing.pipelines.contains_key(name) || !seen.is_gone(now, settle);
            if !stays {
                shelf.pipelines.remove(name);
            }
            stays
        });
    }

    /// All models with their versions.
    pub fn models(&self) -> Vec<ModelRow> {
        self.shelf.read().models.iter().map(|(name, entry)| entry.row(name)).collect()
    }

    /// Entries of the repository that are no models, and why.
    pub fn faults(&self) -> Vec<String> {
        self.shelf.read().faults.clone()
    }

    /// A version that serves; without a number the highest that is ready.
    pub fn version(&self, model: &str, version: Option<Version>) -> Result<Arc<ReadyVersion>, Lookup> {
        self.shelf.read().version(model, version)
    }

    /// Makes a version serve what stands in its directory now; without a number the highest there is. A version that
    /// serves these bytes already is left alone; one of other bytes is replaced for new sessions.
    pub fn load(&self, model: &str, version: Option<Version>) -> Result<Arc<ReadyVersion>, Lookup> {
        let mut memory = self.memory.lock();
        let listing = scan::look(&self.options.root).map_err(|finding| Lookup::Fault(finding.to_string()))?;
        let dir = listing.version_dir(model, version)?;
        let look = &listing.models[&dir.model].versions[&dir.version];
        let key = (dir.model.clone(), dir.version);
        let seen = memory.versions.entry(key).or_insert_with(|| Seen::new(look.clone(), Instant::now()));
        seen.see(look, Instant::now());
        seen.is_unwanted = false;
        seen.judged = Some(look.clone());
        self.load_from(&dir).map_err(Lookup::Fault)
    }

    /// Takes a version out, or all of a model; sessions that hold it keep it. It stays out until `load`.
    pub fn unload(&self, model: &str, version: Option<Version>) -> Result<(), Lookup> {
        let mut memory = self.memory.lock();
        let mut shelf = self.shelf.write();
        shelf.known(model, version)?;
        let Some(entry) = shelf.models.get_mut(model) else { return Ok(()) };
        for (number, entry) in entry.versions.iter_mut().filter(|(n, _)| version.is_none_or(|v| v == **n)) {
            entry.retire(None);
            if let Some(seen) = memory.versions.get_mut(&(ModelName::from(model), *number)) {
                seen.is_unwanted = true;
            }
        }
        Ok(())
    }

    /// All pipelines: each model alone, then those of `pipelines/*.toml`.
    pub fn pipelines(&self) -> Vec<PipelineRow> {
        let shelf = self.shelf.read();
        let alone = shelf.models.keys().map(|model| {
            let name = PipelineName::from(model.as_str());
            match shelf.model_alone(model, None) {
                Ok(spec) => PipelineRow { name, is_model: true, spec: Some(spec), fault: None },
                Err(lookup) => {
                    PipelineRow { name, is_model: true, spec: None, fault: Some(lookup.to_string()) }
                }
            }
        });
        let written = shelf.pipelines.iter().map(|(name, entry)| PipelineRow {
            name: name.clone(),
            is_model: false,
            spec: entry.spec.clone(),
            fault: shelf.name_taken(name).or_else(|| {
                let broken = || entry.spec.as_ref().and_then(|spec| shelf.broken(spec));
                entry.fault.clone().or_else(broken)
            }),
        });
        alone.chain(written).collect()
    }

    /// The pipeline of that name: a model alone, in the version asked for, or one of `pipelines/*.toml`. Whether its
    /// stages fit is for whoever compiles it.
    pub fn pipeline(&self, name: &str, version: Option<Version>) -> Result<PipelineSpec, Lookup> {
        let shelf = self.shelf.read();
        if let Some((model, _)) = shelf.models.get_key_value(name) {
            return shelf.model_alone(model, version);
        }
        match shelf.pipelines.get(name) {
            Some(PipelineEntry { spec: Some(spec), .. }) => Ok(spec.clone()),
            Some(entry) => Err(Lookup::Fault(entry.fault.clone().unwrap_or_default())),
            None => {
                let names = shelf.models.keys().map(ModelName::as_str);
                let names = names.chain(shelf.pipelines.keys().map(PipelineName::as_str));
                let there = there_is(name, names);
                Err(Lookup::NotFound(format!("no pipeline `{}`; {there}", clip(name))))
            }
        }
    }
}

/// What stands in the directory of a version that serves, if it is no longer what serves.
fn changed_under(serving: &ReadyVersion, now: Result<version::VersionBytes, Findings>) -> Option<String> {
    let expected = format!("the bytes that serve ({}): a version never changes", serving.digest);
    let found = match now {
        Ok(bytes) if bytes.digest == serving.digest => return None,
        Ok(bytes) => format!("{}; put them in a new version's directory, or ask for `load`", bytes.digest),
        Err(findings) => findings.to_string(),
    };
    let dir = format!("{}/{}", serving.model, serving.version);
    Some(Finding::new(dir, "", expected, found).to_string())
}

fn read_pipeline(root: &Path, name: &PipelineName) -> Result<PipelineSpec, Findings> {
    let shown = format!("{PIPELINES}/{name}.toml");
    let wrong = |found: String| Findings::one(Finding::new(&shown, "", "a file", found));
    let root = root.canonicalize().map_err(|error| wrong(file::words(&error)))?;
    let bytes = file::read(&root.join(&shown), &shown, &root, MANIFEST_LIMIT_BYTES)
        .map_err(Findings::one)?
        .ok_or_else(|| wrong("nothing".into()))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Findings::one(Finding::new(&shown, "", "UTF-8 text", "bytes that are none")))?;
    pipelines::parse(&shown, name, text)
}
