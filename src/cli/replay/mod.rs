//! A recording played as a rig against any server.
//! Enters: a recording, a server's address. Leaves: what a rig got back, scored against the recording's targets.
//! Owns: one session of its own. Must hold: it knows the server by the wire alone; never more than `window` unanswered
//! frames; each signal keeps its own `seq`.
//! Must not know: any room of the server.

use std::path::{Path, PathBuf};

use crate::wire::recording::{RECORDING_FILE, Recording, RecordingError};

pub mod cut; // a recording as frames
pub mod player; // the rig: open, stream, close
pub mod command; // `latentd replay`
pub mod live; // figures while it plays
pub mod report; // what came back
pub mod score; // decoded against true
pub mod summary; // what it came to, for people
#[cfg(test)]
mod scripted; // a server that misbehaves on order

/// Reads the recording at `path`: a folder with `recording.json`, or such a file itself.
pub fn open(path: &Path) -> Result<Recording, RecordingError> {
    let file = if path.is_dir() { path.join(RECORDING_FILE) } else { path.to_path_buf() };
    let folder = file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let name = file.file_name().map_or_else(|| file.display().to_string(), |n| n.to_string_lossy().into());
    let description = std::fs::read(&file)
        .map_err(|source| RecordingError::Read { file: file.display().to_string(), source })?;
    Recording::read(&name, &description, |file| std::fs::read(folder.join(file)))
}
