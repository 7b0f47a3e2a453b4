//! One look at the repository's directory: which models, versions and pipelines stand there, and whether they changed.
//! Nothing is opened but directories; a bad entry is a sentence beside the rest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file;
use super::finding::{Finding, quoted};
use super::shelf::{self, Lookup};
use super::version::VersionDir;
use crate::domain::ids::{ModelName, PipelineName, Version};
use crate::error::{clip, there_is};

/// The folder of pipelines; no model has this name.
pub const PIPELINES: &str = "pipelines";

/// What a directory looked like: name, length, time of change and inode of every entry. Equal looks, equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look(Vec<(String, u64, i64, u64)>);

/// What stands in the repository.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The models.
    pub models: BTreeMap<ModelName, ModelFolder>,
    /// Pipelines' files: name and look.
    pub pipelines: BTreeMap<PipelineName, Look>,
    /// Entries that are neither.
    pub faults: Vec<Finding>,
}

/// A model's directory.
#[derive(Clone, Debug, Default)]
pub struct ModelFolder {
    /// The directory, canonical.
    pub dir: PathBuf,
    /// Its versions.
    pub versions: BTreeMap<Version, Look>,
    /// What is wrong with the directory as a whole.
    pub fault: Option<Finding>,
    /// Whether it could be read; if not, nothing is known of its versions.
    pub is_readable: bool,
}

impl Listing {
    /// Where a version stands; without a number the highest there is.
    pub fn version_dir(&self, model: &str, version: Option<Version>) -> Result<VersionDir, Lookup> {
        let Some((name, folder)) = self.models.get_key_value(model) else {
            let names = there_is(model, self.models.keys().map(ModelName::as_str));
            return Err(Lookup::NotFound(format!("no model `{}`; {names}", clip(model))));
        };
        let number = version.or_else(|| folder.versions.keys().next_back().copied());
        match number.filter(|number| folder.versions.contains_key(number)) {
            Some(version) => Ok(VersionDir { model: name.clone(), version, model_dir: folder.dir.clone() }),
            None => match (version, &folder.fault) {
                (None, Some(fault)) => Err(Lookup::Fault(fault.to_string())),
                _ => Err(shelf::no_version(model, version, folder.versions.keys())),
            },
        }
    }
}

/// Looks at the repository. The error: its root cannot be read, and nothing is known.
pub fn look(root: &Path) -> Result<Listing, Finding> {
    let shown = root.display().to_string();
    let unreadable = |error: &io::Error| {
        Finding::new(&shown, "", "the model repository: a directory that can be read", file::words(error))
    };
    let root = root.canonicalize().map_err(|error| unreadable(&error))?;
    let mut listing = Listing::default();
    for entry in fs::read_dir(&root).map_err(|error| unreadable(&error))? {
        let Ok(entry) = entry else { continue };
        let Ok(name) = entry.file_name().into_string() else {
            let found = quoted(&entry.file_name().to_string_lossy());
            listing.faults.push(Finding::new(&shown, "", "names in UTF-8", found));
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        match file::is_there(&path, &name, &root) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(finding) => {
                listing.faults.push(finding);
                continue;
            }
        }
        let kind = match fs::metadata(&path) {
            Ok(meta) => meta.file_type(),
            Err(error) => {
                listing.faults.push(Finding::new(&name, "", "a directory", file::words(&error)));
                continue;
            }
        };
        if kind.is_file() {
            continue; // a README, a licence
        }
        if !kind.is_dir() {
            listing.faults.push(Finding::new(&name, "", "a model's directory", file::what(kind)));
        } else if name == PIPELINES {
            look_at_pipelines(&path, &mut listing);
        } else if name.chars().count() > 100 || name.chars().any(char::is_control) {
            let expected = "a model's name of at most 100 characters";
            listing.faults.push(Finding::new(quoted(&name), "", expected, "another"));
        } else {
            let model = ModelName::from(name.as_str());
            listing.models.insert(model, look_at_model(&name, &path));
        }
    }
    Ok(listing)
}

fn look_at_pipelines(path: &Path, listing: &mut Listing) {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            let expected = "a directory that can be read";
            listing.faults.push(Finding::new(PIPELINES, "", expected, file::words(&error)));
            return;
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".toml")) else { continue };
        if !stem.is_empty() && !stem.starts_with('.') {
            listing.pipelines.insert(PipelineName::from(stem), Look(vec![entry_look(&entry.path(), stem)]));
        }
    }
}

fn look_at_model(name: &str, path: &Path) -> ModelFolder {
    let mut folder = ModelFolder { is_readable: true, ..ModelFolder::default() };
    let read = path.canonicalize().and_then(|dir| {
        folder.dir = dir;
        entries(path)
    });
    let (files, folders) = match read {
        Ok(found) => found,
        Err(error) => {
            let expected = "a directory that can be read";
            folder.fault = Some(Finding::new(name, "", expected, file::words(&error)));
            folder.is_readable = false;
            return folder;
        }
    };
    let mut others = Vec::new();
    for (entry, mut look) in folders {
        let Some(version) = version_of(&entry) else {
            others.push(entry);
            continue;
        };
        look.0.extend(files.0.iter().cloned());
        look.0.sort();
        folder.versions.insert(version, look);
    }
    if folder.versions.is_empty() {
        let found = match others.first() {
            Some(other) => format!("none, but {}", quoted(other)),
            None => "none".into(),
        };
        let expected = "a version's directory, named by a number from 1";
        folder.fault = Some(Finding::new(name, "", expected, found));
    }
    folder
}

/// The number that a version's directory is named by.
fn version_of(name: &str) -> Option<Version> {
    let number: u32 = name.parse().ok()?;
    (number > 0 && number.to_string() == name).then_some(Version(number))
}

/// The look of the files in a model's directory, and of each of its folders (and of whatever is named as a version).
fn entries(path: &Path) -> io::Result<(Look, Vec<(String, Look)>)> {
    let (mut files, mut folders) = (Look::default(), Vec::new());
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let own = entry_look(&entry.path(), &name);
        let is_dir = fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir());
        if !is_dir && version_of(&name).is_none() {
            files.0.push(own);
            continue;
        }
        // The folder's own time is not part of the look: only what is in it is.
        let mut look = Look(if is_dir { Vec::new() } else { vec![own] });
        if is_dir {
            match fs::read_dir(entry.path()) {
                Ok(inside) => look.0.extend(inside.flatten().map(|file| {
                    let inner = file.file_name().to_string_lossy().into_owned();
                    entry_look(&file.path(), &format!("{name}/{inner}"))
                })),
                Err(error) => look.0.push((format!("{name}: {}", file::words(&error)), 0, 0, 0)),
            }
        }
        folders.push((name, look));
    }
    files.0.sort();
    Ok((files, folders))
}

fn entry_look(path: &Path, name: &str) -> (String, u64, i64, u64) {
    // Through links, so that a link to changed bytes is a changed look; of the link itself where it dangles.
    match fs::metadata(path).or_else(|_| fs::symlink_metadata(path)) {
        Ok(meta) => {
            let changed_ns = meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec());
            (name.to_owned(), meta.len(), changed_ns, meta.ino())
        }
        Err(_) => (name.to_owned(), 0, 0, 0),
    }
}
