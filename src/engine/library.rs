//! ONNX Runtime's shared library: found, proved, opened once.
//!
//! Nothing of a file is executed before it is proved to be a whole library of this machine that exports ONNX
//! Runtime's door: mapping a truncated one ends in SIGBUS, opening a pipe never ends.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::sys::OrtApiBase;
use parking_lot::Mutex;

/// The library that `make setup` brings.
pub const FILE_NAME: &str = "libonnxruntime.so.1.32.0";
/// The folder that it brings it into, in the repository's root.
pub const FOLDER: &str = ".onnxruntime";
/// Its version.
const VERSION: &str = "1.32.0";

/// Why there is no ONNX Runtime to work with. Each is one sentence: path, found, wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// Nowhere.
    #[error(
        "ONNX Runtime's library is missing: found no {FILE_NAME} in {FOLDER} here or above the program, nor one in the \
         system's library folders; run `make setup`, or set ORT_DYLIB_PATH"
    )]
    Missing,
    /// Not what it should be.
    #[error("{}: found {found}, wanted {}; run `make setup`, or set ORT_DYLIB_PATH", .path.display(), wanted())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// It is one, but did not start.
    #[error("{}: ONNX Runtime did not start: {reason}", .path.display())]
    Start {
        /// The file.
        path: PathBuf,
        /// In its own words.
        reason: String,
    },
}

fn wanted() -> String {
    let minor = ort::MINOR_VERSION;
    format!("ONNX Runtime's library, 1.{minor} or later (API {minor}; `make setup` brings {VERSION})")
}

/// Finds the library: `explicit` if it is given, else the one of `make setup`, else the system's.
///
/// `explicit`: the configuration's path or `ORT_DYLIB_PATH`, as `config` read it. What is found is not yet proved.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, LibraryError> {
    if let Some(path) = explicit {
        // a relative path would be looked for beside the program, or along the linker's search path
        return std::path::absolute(path).map_err(|error| unfit(path, error.to_string()));
    }
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|program| program.ancestors().skip(1));
    let ours = here
        .iter()
        .map(PathBuf::as_path)
        .chain(above.clone())
        .map(|folder| folder.join(FOLDER).join(FILE_NAME));
    let beside = above.take(1).map(|folder| folder.join(FILE_NAME));
    ours.chain(beside).chain(of_system()).find(|path| path.exists()).ok_or(LibraryError::Missing)
}

fn of_system() -> impl Iterator<Item = PathBuf> {
    const FOLDERS: [&str; 7] = [
        "/usr/local/lib",
        "/usr/local/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/opt/onnxruntime/lib",
    ];
    const NAMES: [&str; 3] = [FILE_NAME, "libonnxruntime.so.1", "libonnxruntime.so"];
    FOLDERS.iter().flat_map(|folder| NAMES.iter().map(move |name| Path::new(folder).join(name)))
}

/// Proves that `path` is ONNX Runtime of a version that we can talk to. What it proves stays loaded.
pub fn prove(path: &Path) -> Result<(), LibraryError> {
    prove_file(path)?;
    prove_api(path).map(drop)
}

/// Proves and opens the library: once per process, later calls with the same path are without effect.
///
/// The environment is named `latentd`, sends no telemetry, and says what it has to say from warnings up to `tracing`.
pub fn open(path: &Path) -> Result<(), LibraryError> {
    opened(path).map(drop)
}

/// What was opened: the process's one environment, which lives until the process ends.
#[derive(Clone)]
pub(super) struct Opened {
    path: PathBuf,
    /// As the library tells it.
    pub(super) version: String,
    pub(super) environment: Environment,
}

/// As `open`, and gives what was opened.
pub(super) fn opened(path: &Path) -> Result<Opened, LibraryError> {
    static OPENED: Mutex<Option<Opened>> = Mutex::new(None);
    let start = |reason: String| LibraryError::Start { path: path.into(), reason };
    let mut opened = OPENED.lock();
    if let Some(first) = opened.as_ref() {
        return if first.path == path {
            Ok(first.clone())
        } else {
            Err(start(format!("this process runs {} already", first.path.display())))
        };
    }
    let version = prove_file(path).and_then(|()| prove_api(path))?;
    let environment = ort::init_from(path)
        .map_err(|error| start(error.to_string()))?
        .with_name("latentd")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| start(error.to_string()))?;
    // built at its most talkative, which would cost every run
    environment.set_log_level(LogLevel::Warning);
    Ok(opened.insert(Opened { path: path.into(), version, environment }).clone())
}

/// What ONNX Runtime has to say. Its errors come back as errors, too, and are told where they are handled.
fn log(level: LogLevel, _category: &str, id: &str, code: &str, message: &str) {
    match level {
        LogLevel::Warning | LogLevel::Error | LogLevel::Fatal => {
            tracing::warn!(target: "onnxruntime", id, code, "{message}");
        }
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(target: "onnxruntime", "{message}"),
    }
}

fn unfit(path: &Path, found: impl Into<String>) -> LibraryError {
    LibraryError::Unfit { path: path.into(), found: found.into() }
}

/// Without executing anything of it: a whole library of this machine with ONNX Runtime's door.
fn prove_file(path: &Path) -> Result<(), LibraryError> {
    let file = regular_file(path)?;
    elf::prove(&file).map_err(|found| unfit(path, found))
}

/// Opens a regular file, and nothing else: neither a pipe, which blocks, nor a device, which may do anything.
fn regular_file(path: &Path) -> Result<File, LibraryError> {
    /// The same number on every architecture that `elf` knows.
    const O_NONBLOCK: i32 = 0o4000;
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => unfit(path, "no file"),
        _ => unfit(path, format!("a file that cannot be read ({error})")),
    };
    let kind = |kind: fs::FileType| {
        let found = if kind.is_file() {
            return Ok(());
        } else if kind.is_dir() {
            "a directory"
        } else if kind.is_fifo() {
            "a pipe"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        Err(unfit(path, found))
    };
    kind(fs::metadata(path).map_err(io)?.file_type())?;
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(io)?;
    // it may have become another one meanwhile
    kind(file.metadata().map_err(io)?.file_type())?;
    Ok(file)
}

/// Loads it and asks for its API; gives its version.
fn prove_api(path: &Path) -> Result<String, LibraryError> {
    // SAFETY: a whole library of this machine that exports OrtGetApiBase. That its initialisers do no harm is ONNX
    // Runtime's promise, which nobody can check.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| {
        unfit(path, format!("a library that does not load ({})", one_line(&error.to_string())))
    })?;
    // SAFETY: the symbol's type is that of ONNX Runtime's C API since its first version.
    let door = unsafe { library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0") }
        .map_err(|error| unfit(path, format!("a library without OrtGetApiBase ({error})")))?;
    // SAFETY: takes nothing; what it gives is static.
    let base =
        unsafe { door().as_ref() }.ok_or_else(|| unfit(path, "a library whose OrtGetApiBase is null"))?;
    // SAFETY: takes nothing; what it gives is static and null or ends with a NUL.
    let version = unsafe {
        let text = (base.GetVersionString)();
        if text.is_null() { c"of no version" } else { CStr::from_ptr(text) }
    };
    let version = version.to_string_lossy().into_owned();
    if !is_enough(&version) {
        return Err(unfit(path, format!("ONNX Runtime {version}")));
    }
    // SAFETY: any number may be asked for.
    if unsafe { (base.GetApi)(ort::MINOR_VERSION) }.is_null() {
        return Err(unfit(path, format!("ONNX Runtime {version} without API {}", ort::MINOR_VERSION)));
    }
    // It stays loaded: ONNX Runtime is not made to be closed, and `ort` opens it next.
    std::mem::forget(library);
    Ok(version)
}

/// Whether that version has our API.
fn is_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().flatten(), parts.next().flatten());
    major == Some(1) && minor >= Some(ort::MINOR_VERSION)
}

/// A runtime's message as part of a sentence.
pub(super) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The parts of the ELF format that tell a whole library from anything else.
mod elf {
    use super::{File, FileExt};

    #[cfg(target_arch = "x86_64")]
    const MACHINE: (u16, &str) = (62, "x86-64");
    #[cfg(target_arch = "aarch64")]
    const MACHINE: (u16, &str) = (183, "aarch64");

    const HEADER_BYTES: u64 = 64;
    const SECTION_BYTES: u64 = 64;
    const PROGRAM_BYTES: u64 = 56;
    const SYMBOL_BYTES: usize = 24;
    const SHARED_OBJECT: u16 = 3;
    const NO_BITS: u32 = 8;
    const DYNAMIC_SYMBOLS: u32 = 11;
    /// No table of a library is larger.
    const TABLE_LIMIT_BYTES: u64 = 64 << 20;

    /// A section's or a segment's place in the file.
    struct Section {
        kind: u32,
        offset: u64,
        len: u64,
        link: u32,
    }

    /// A whole ELF64 library of this machine that exports `OrtGetApiBase`, or what it is instead.
    pub fn prove(file: &File) -> Result<(), String> {
        let len = file.metadata().map_err(|error| error.to_string())?.len();
        if len == 0 {
            return Err("an empty file".into());
        }
        let truncated =
            |what: &str, end: u64| format!("a truncated library ({len} bytes, {what} to byte {end})");
        let read = |offset: u64, bytes: u64, what: &str| -> Result<Vec<u8>, String> {
            let end = offset.checked_add(bytes).filter(|&end| end <= len);
            if end.is_none() || bytes > TABLE_LIMIT_BYTES {
                return Err(truncated(what, offset.saturating_add(bytes)));
            }
            let mut data = vec![0; bytes as usize];
            file.read_exact_at(&mut data, offset).map_err(|error| error.to_string())?;
            Ok(data)
        };

        let magic = read(0, len.min(4), "its header")?;
        if magic != *b"\x7fELF" {
            return Err("a file that is no ELF library".into());
        }
        let header = read(0, HEADER_BYTES, "its header")?;
        if header[4..6] != [2, 1] || u16_at(&header, 18) != MACHINE.0 {
            return Err(format!("an ELF file of another machine than {}", MACHINE.1));
        }
        if u16_at(&header, 16) != SHARED_OBJECT {
            return Err("an ELF file that is no shared library".into());
        }

        let (offset, count) = (u64_at(&header, 32), u64::from(u16_at(&header, 56)));
        for program in
            read(offset, count * PROGRAM_BYTES, "its segments reach")?.chunks(PROGRAM_BYTES as usize)
        {
            let (offset, bytes) = (u64_at(program, 8), u64_at(program, 32));
            if offset.checked_add(bytes).is_none_or(|end| end > len) {
                return Err(truncated("a segment reaches", offset.saturating_add(bytes)));
            }
        }

        let (offset, count) = (u64_at(&header, 40), u64::from(u16_at(&header, 60)));
        let sections: Vec<Section> = (read(offset, count * SECTION_BYTES, "its section table reaches")?)
            .chunks(SECTION_BYTES as usize)
            .map(|entry| Section {
                kind: u32_at(entry, 4),
                offset: u64_at(entry, 24),
                len: u64_at(entry, 32),
                link: u32_at(entry, 40),
            })
            .collect();
        for section in sections.iter().filter(|section| section.kind != NO_BITS) {
            if section.offset.checked_add(section.len).is_none_or(|end| end > len) {
                return Err(truncated("a section reaches", section.offset.saturating_add(section.len)));
            }
        }

        for table in sections.iter().filter(|section| section.kind == DYNAMIC_SYMBOLS) {
            let Some(strings) = sections.get(table.link as usize) else { continue };
            let names = read(strings.offset, strings.len, "its names reach")?;
            let symbols = read(table.offset, table.len, "its symbols reach")?;
            let exports = |symbol: &[u8]| {
                let defined = u16_at(symbol, 6) != 0;
                defined
                    && names
                        .get(u32_at(symbol, 0) as usize..)
                        .is_some_and(|name| name.starts_with(b"OrtGetApiBase\0"))
            };
            if symbols.chunks_exact(SYMBOL_BYTES).any(exports) {
                return Ok(());
            }
        }
        Err("a library that does not export OrtGetApiBase".into())
    }

    fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes([bytes[at], bytes[at + 1]])
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real() -> PathBuf {
        find(None).unwrap_or_else(|missing| panic!("{missing}"))
    }

    fn found(path: &Path) -> String {
        match prove(path) {
            Err(LibraryError::Unfit { found, .. }) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_library_of_make_setup_is_found_and_proved() {
        let path = real();
        prove(&path).unwrap();
        assert!(path.is_absolute(), "{}", path.display());
    }

    #[test]
    fn an_explicit_path_is_taken_as_it_is_and_refused_with_found_and_wanted() {
        let path = find(Some(Path::new("nowhere/lib.so"))).unwrap();
        assert!(path.is_absolute() && path.ends_with("nowhere/lib.so"));
        let sentence = prove(&path).unwrap_err().to_string();
        let words = "found no file, wanted ONNX Runtime's library, 1.24 or later (API 24; `make setup` brings 1.32.0)";
        assert_eq!(sentence, format!("{}: {words}; run `make setup`, or set ORT_DYLIB_PATH", path.display()));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(found(&pipe), "a pipe");
        assert_eq!(found(folder.path()), "a directory");
        assert_eq!(found(Path::new("/dev/zero")), "a device");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("gone", &link).unwrap();
        assert_eq!(found(&link), "no file");
    }

    #[test]
    fn a_file_that_is_no_library_of_ours_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        let of = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            found(&path)
        };
        assert_eq!(of(b""), "an empty file");
        assert_eq!(of(b"\x7f"), "a file that is no ELF library");
        assert_eq!(of(b"INPUT(libonnxruntime.so.1)\n"), "a file that is no ELF library");
        let program = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(of(&program), "a library that does not export OrtGetApiBase");
        let mut foreign = program[..4096].to_vec();
        foreign[18] = 8;
        assert!(of(&foreign).starts_with("an ELF file of another machine than "));
        let mut object = program;
        object[16] = 1;
        assert_eq!(of(&object), "an ELF file that is no shared library");
    }

    #[test]
    fn a_truncated_library_is_refused_wherever_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let whole = fs::read(real()).unwrap();
        for len in [5, 63, 64, 4096, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            let found = found(&path);
            assert!(found.starts_with(&format!("a truncated library ({len} bytes, ")), "{found}");
        }
    }

    #[test]
    fn a_damaged_header_never_panics() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        let program = fs::read(std::env::current_exe().unwrap()).unwrap();
        for at in 4..64 {
            let mut damaged = program[..8192].to_vec();
            damaged[at] = 0xff;
            fs::write(&path, &damaged).unwrap();
            assert!(elf::prove(&File::open(&path).unwrap()).is_err());
        }
    }

    #[test]
    fn a_version_is_enough_from_the_api_we_speak_on() {
        assert!(["1.24.0", "1.31.1", "1.32.0", "1.100.0"].iter().all(|version| is_enough(version)));
        assert!(
            !["1.20.0", "1.9", "0.32.0", "2.0.0", "1", "none", "", "1.x"]
                .iter()
                .any(|version| is_enough(version))
        );
    }

    #[test]
    fn it_is_opened_once() {
        let path = real();
        open(&path).unwrap();
        open(&path).unwrap();
        let other = open(Path::new("/other.so")).unwrap_err().to_string();
        assert!(other.ends_with(&format!("this process runs {} already", path.display())), "{other}");
    }
}
