//! What an interrupted deployment leaves behind, so that the next one need not begin anew.
//!
//! The file says which pieces are likely to be on a target. It is a hint: each of them is hashed
//! before it is trusted, so an old, foreign or forged file costs time and nothing else.

use crate::inspect::hex;
use crate::sha1::Hasher;
use crate::store::io_reason;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use swarm::metainfo::Digest;

/// Where it is kept and what was last written there.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    written: State,
}

/// What the file holds, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    targets: Vec<TargetState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TargetState {
    info_hash: String,
    target: PathBuf,
    /// A bitfield as in BEP 3, hexadecimal.
    have: String,
}

/// A file larger than this is none of ours: four million pieces are a megabyte.
const LEN_MAX: u64 = 16 << 20;

impl StateFile {
    /// The file `path`, or where it is kept without being told: below `/run/ezio` if that can be
    /// made, else beside the torrent file, if there is one. `None`: nowhere.
    pub(super) fn open(
        path: Option<&Path>,
        torrent: Option<&Path>,
        targets: &[(Digest, &Path)],
    ) -> Option<StateFile> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => default_path(torrent, targets)?,
        };
        Some(StateFile { path, written: State::default() })
    }

    /// Reads what an earlier run has left; nothing if there is nothing.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub(super) fn read(&self) -> Result<State, String> {
        let failed = |why: String| format!("{} is not used: {why}", self.path.display());
        match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > LEN_MAX => {
                return Err(failed("it is too large for a state file".to_owned()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(State::default());
            }
            _ => {}
        }
        let bytes = std::fs::read(&self.path).map_err(|e| failed(io_reason(&e)))?;
        serde_json::from_slice(&bytes).map_err(|e| failed(format!("it is no state file ({e})")))
    }

    /// Writes `state` if it has changed: beside the file, then in its place.
    ///
    /// # Errors
    /// What could not be written and why.
    pub(super) fn write(&mut self, state: State) -> Result<(), String> {
        if state == self.written {
            return Ok(());
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let written = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(&serde_json::to_vec(&state)?)?;
            file.persist(&self.path).map_err(|e| e.error)?;
            Ok(())
        };
        written().map_err(|e| format!("write {}: {}", self.path.display(), io_reason(&e)))?;
        self.written = state;
        Ok(())
    }

    /// Takes the file away: there is nothing to go on with.
    pub(super) fn remove(&self) {
        // It may not be there.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl State {
    /// Adds the pieces `have`, a bitfield as in BEP 3, of a target.
    pub(super) fn add(&mut self, info_hash: Digest, target: &Path, have: &[u8]) {
        let have = have.iter().map(|byte| format!("{byte:02x}")).collect();
        let info_hash = hex(&info_hash);
        self.targets.push(TargetState { info_hash, target: target.to_owned(), have });
    }

    /// The pieces, of `pieces` in all, that are likely to be on `target`, ascending.
    pub(super) fn pieces(&self, info_hash: &Digest, target: &Path, pieces: u32) -> Vec<u32> {
        let hash = hex(info_hash);
        let found = self.targets.iter().find(|t| t.info_hash == hash && t.target == target);
        let Some(found) = found else { return Vec::new() };
        let digit = |piece: u32| {
            let digit = *found.have.as_bytes().get(piece as usize / 4)?;
            char::from(digit).to_digit(16)
        };
        let here = |&piece: &u32| digit(piece).is_some_and(|bits| bits & 8 >> (piece % 4) != 0);
        (0..pieces).filter(here).collect()
    }
}

fn default_path(torrent: Option<&Path>, targets: &[(Digest, &Path)]) -> Option<PathBuf> {
    let run = Path::new("/run/ezio");
    let mut hasher = Hasher::new();
    for (info_hash, target) in targets {
        hasher.update(info_hash);
        // Two names of one device are two states: harmless, one is not found.
        hasher.update(target.as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
    }
    let name = hex(&hasher.finish());
    let name = format!("{}.state", &name[..16]);
    if std::fs::create_dir_all(run).is_ok() && tempfile::NamedTempFile::new_in(run).is_ok() {
        return Some(run.join(name));
    }
    let torrent = torrent?;
    let file = torrent.file_name()?.to_string_lossy().into_owned();
    Some(torrent.with_file_name(format!("{file}.{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let open = || StateFile::open(Some(&path), None, &[]).unwrap();
        assert_eq!(open().read(), Ok(State::default()), "nothing is there yet");
        let mut state = State::default();
        state.add([1; 20], Path::new("/dev/sda1"), &[0b1010_0000, 0b0000_0001]);
        state.add([2; 20], Path::new("/dev/sda2"), &[0xff]);
        open().write(state).unwrap();
        let state = open().read().unwrap();
        assert_eq!(state.pieces(&[1; 20], Path::new("/dev/sda1"), 16), [0, 2, 15]);
        assert_eq!(state.pieces(&[1; 20], Path::new("/dev/sda1"), 15), [0, 2]);
        assert_eq!(state.pieces(&[2; 20], Path::new("/dev/sda2"), 100), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(state.pieces(&[2; 20], Path::new("/dev/sda1"), 8), [] as [u32; 0]);
        open().remove();
        assert!(!path.exists());
    }

    #[test]
    fn rubbish_is_named_and_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let file = StateFile::open(Some(&path), None, &[]).unwrap();
            assert!(file.read().unwrap_err().contains("is not used"));
        };
        check(b"");
        check(b"{\"targets\": 7}");
        check(&[0xff; 100]);
        std::fs::File::create(&path).unwrap().set_len(LEN_MAX + 1).unwrap();
        let file = StateFile::open(Some(&path), None, &[]).unwrap();
        assert!(file.read().unwrap_err().contains("too large"));
    }

    #[test]
    fn odd_digits_are_no_pieces() {
        let state = State {
            targets: vec![TargetState {
                info_hash: hex(&[1; 20]),
                target: "x".into(),
                have: "zü8".into(),
            }],
        };
        assert_eq!(state.pieces(&[1; 20], Path::new("x"), 40), [12]);
    }
}
