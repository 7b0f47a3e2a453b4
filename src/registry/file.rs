//! One file of the repository, read whole and only if it is one: never a pipe, a device, a link that leads out.

use std::fs::{self, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::finding::{Finding, quoted};

/// Linux's and macOS's `O_NONBLOCK`: opening a pipe then returns at once.
const O_NONBLOCK: i32 = if cfg!(target_os = "linux") { 0o4000 } else { 0x4 };

/// Whether `name` is the name of a file in a directory, and no path.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == '\\' || c.is_control())
}

/// Reads a regular file whole. `shown` is its name in findings; links may not leave `boundary`, which is canonical.
/// `None`: nothing of that name is there.
pub fn read(
    path: &Path,
    shown: &str,
    boundary: &Path,
    limit_bytes: u64,
) -> Result<Option<Arc<[u8]>>, Finding> {
    let wrong = |expected: &str, found: String| Finding::new(shown, "", expected.to_owned(), found);
    if !is_there(path, shown, boundary)? {
        return Ok(None);
    }
    let kind = fs::metadata(path).map_err(|error| wrong("a readable file", words(&error)))?.file_type();
    if !kind.is_file() {
        return Err(wrong("a regular file", what(kind).into()));
    }
    // Non-blocking, and asked again once open: between the two looks the entry may have become a pipe.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .map_err(|error| wrong("a readable file", words(&error)))?;
    let meta = file.metadata().map_err(|error| wrong("a readable file", words(&error)))?;
    if !meta.is_file() {
        return Err(wrong("a regular file", what(meta.file_type()).into()));
    }
    if meta.len() > limit_bytes {
        return Err(wrong(&format!("at most {limit_bytes} bytes"), format!("{} bytes", meta.len())));
    }
    let len =
        usize::try_from(meta.len()).map_err(|_| wrong("a file that fits memory", meta.len().to_string()))?;
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0u8, len).collect();
    let whole = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
    let changed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            wrong("a file that is whole", "one that shrinks while it is read".into())
        }
        _ => wrong("a readable file", words(&error)),
    };
    file.read_exact(whole).map_err(changed)?;
    match file.read(&mut [0]) {
        Ok(0) => Ok(Some(bytes)),
        Ok(_) => Err(wrong("a file that is whole", "one that grows while it is read".into())),
        Err(error) => Err(wrong("a readable file", words(&error))),
    }
}

/// Whether something is there, and inside `boundary` if it is a link. A link to nothing is a finding.
pub fn is_there(path: &Path, shown: &str, boundary: &Path) -> Result<bool, Finding> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Finding::new(shown, "", "a readable file", words(&error))),
    };
    if meta.file_type().is_symlink() {
        let target = fs::read_link(path).map(|to| quoted(&to.to_string_lossy())).unwrap_or_default();
        match fs::canonicalize(path) {
            Ok(real) if real.starts_with(boundary) => {}
            Ok(_) => {
                let found = format!("a link out of it, to {target}");
                return Err(Finding::new(shown, "", "a file inside the model's directory", found));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let found = format!("a dangling link to {target}");
                return Err(Finding::new(shown, "", "a file", found));
            }
            Err(error) => {
                let found = format!("a link to {target} that cannot be followed ({})", words(&error));
                return Err(Finding::new(shown, "", "a file", found));
            }
        }
    }
    Ok(true)
}

/// What an entry is, where it is not what it should be.
pub fn what(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a file"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a link"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The system's word for an error, without its number.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: u64 = u64::MAX;

    fn said(result: Result<Option<Arc<[u8]>>, Finding>) -> String {
        result.expect_err("a finding").to_string()
    }

    #[test]
    fn what_is_no_regular_file_is_a_sentence_and_never_a_hang() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        fs::write(path("good"), b"bytes").unwrap();
        assert_eq!(read(&path("good"), "good", &root, NO_LIMIT).unwrap().as_deref(), Some(&b"bytes"[..]));
        assert_eq!(read(&path("absent"), "absent", &root, NO_LIMIT).unwrap(), None);

        assert!(std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        assert_eq!(
            said(read(&path("fifo"), "m/1/fifo", &root, NO_LIMIT)),
            "m/1/fifo: expected a regular file, found a pipe"
        );
        fs::create_dir(path("folder")).unwrap();
        assert_eq!(
            said(read(&path("folder"), "m/1/folder", &root, NO_LIMIT)),
            "m/1/folder: expected a regular file, found a directory"
        );
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(
            said(read(&path("socket"), "socket", &root, NO_LIMIT)),
            "socket: expected a regular file, found a socket"
        );
        assert_eq!(
            said(read(Path::new("/dev/zero"), "zero", Path::new("/dev"), NO_LIMIT)),
            "zero: expected a regular file, found a device"
        );
    }

    #[test]
    fn links_may_stay_inside_but_not_lead_out_dangle_or_turn_in_a_circle() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("model");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("inside"), b"x").unwrap();
        fs::write(dir.path().join("outside"), b"x").unwrap();
        symlink("inside", root.join("to-inside")).unwrap();
        symlink("../outside", root.join("to-outside")).unwrap();
        symlink("nowhere", root.join("to-nowhere")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        let at = |name: &str| read(&root.join(name), name, &root, NO_LIMIT);
        assert!(at("to-inside").unwrap().is_some());
        assert_eq!(
            said(at("to-outside")),
            "to-outside: expected a file inside the model's directory, found a link out of it, to `../outside`"
        );
        assert_eq!(said(at("to-nowhere")), "to-nowhere: expected a file, found a dangling link to `nowhere`");
        assert!(
            said(at("circle")).starts_with("circle: expected a file, found a link to `circle` that cannot")
        );
    }

    #[test]
    fn a_file_over_its_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::write(root.join("big"), [0; 9]).unwrap();
        assert_eq!(
            said(read(&root.join("big"), "big", &root, 8)),
            "big: expected at most 8 bytes, found 9 bytes"
        );
    }

    #[test]
    fn plain_names_are_no_paths() {
        for good in ["h0.npy", "channels.csv", "..data", "a b"] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\0b", "a\nb"] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
