//! systemd's journal, in its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram an event, so
//! every value becomes a field that `journalctl EZIO_PEER=…` finds, and a text may have several lines.
//! Prefixed lines on the standard error, which need less, could carry a level and nothing else.

use super::form::Record;
use serde_json::Value;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Larger datagrams would have to go through a sealed memory file; no text of ours is.
const VALUE_LEN_MAX: usize = 16 << 10;

/// A connection to the journal.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// `None` if there is no journal, as in a container.
    pub(super) fn open() -> Option<Journal> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        Some(Journal(socket))
    }

    pub(super) fn put(&self, record: &Record) -> io::Result<()> {
        self.0.send(&datagram(record)).map(drop)
    }
}

/// Whether the journal reads what is written to `stream`: systemd says which stream it meant
/// (systemd.exec(5)), so that a process further down with another one is not fooled.
pub(super) fn reads(stream: impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(stream) else { return false };
    let own = format!("{}:{}", stat.st_dev, stat.st_ino);
    std::env::var("JOURNAL_STREAM").is_ok_and(|text| text == own)
}

fn datagram(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, "MESSAGE", &record.text());
    put(&mut bytes, "PRIORITY", &record.level.priority().to_string());
    put(&mut bytes, "SYSLOG_IDENTIFIER", "ezio");
    put(&mut bytes, "EZIO_MODULE", record.module);
    for (name, value) in &record.fields {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        put(&mut bytes, &format!("EZIO_{}", name.to_uppercase()), &text);
    }
    bytes
}

/// `NAME=value`, or with its length before it if it has several lines.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(VALUE_LEN_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value.as_bytes()[..end];
    bytes.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_datagram_has_a_field_for_each_value() {
        let fields = vec![("peer", "10.0.0.7".into()), ("why", "a\nb".into())];
        let record = Record { fields, ..Record::new(Level::Error, "gone".into()) };
        let mut wanted = b"MESSAGE=gone peer=10.0.0.7 why=\"a\\nb\"\nPRIORITY=3\n".to_vec();
        wanted.extend_from_slice(b"SYSLOG_IDENTIFIER=ezio\nEZIO_MODULE=ezio::logs::form\n");
        wanted.extend_from_slice(b"EZIO_PEER=10.0.0.7\nEZIO_WHY\n\x03\0\0\0\0\0\0\0a\nb\n");
        let found = datagram(&record);
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&wanted));
    }

    #[test]
    fn a_value_without_end_is_cut_between_characters() {
        let mut bytes = Vec::new();
        put(&mut bytes, "X", &"ü".repeat(VALUE_LEN_MAX));
        assert!(bytes.len() <= VALUE_LEN_MAX + 3 && std::str::from_utf8(&bytes).is_ok());
    }
}
