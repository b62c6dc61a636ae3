//! Messages of the gRPC services, from clients and from daemons: what was read can be written, and is then
//! read as the same; what is kept of a request is not far more than what came.

#![no_main]

use ezio::legacy::messages::{
    AddRequest, AddResponse, Details, Empty, Everything, HashRequest, RemoveResponse,
    UpdateRequest, UpdateStatus, VersionResponse,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 10 {
        0 => drop(check::<Empty>(bytes)),
        1 => {
            let Some(request) = check::<AddRequest>(bytes) else { return };
            assert!(request.torrent.len() + request.save_path.len() <= bytes.len());
        }
        2 => {
            let Some(request) = check::<UpdateRequest>(bytes) else { return };
            assert!(request.hashes.iter().map(|hash| 2 + hash.len()).sum::<usize>() <= bytes.len());
        }
        3 => drop(check::<HashRequest>(bytes)),
        4 => drop(check::<AddResponse>(bytes)),
        5 => drop(check::<UpdateStatus>(bytes)),
        6 => drop(check::<VersionResponse>(bytes)),
        7 => drop(check::<Details>(bytes)),
        8 => drop(check::<Everything>(bytes)),
        _ => drop(check::<RemoveResponse>(bytes)),
    }
});

fn check<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let written = message.encode_to_vec();
    assert_eq!(written.len(), message.encoded_len());
    let again = M::decode(&written[..]).expect("what we write can be read");
    // Compared as bytes: a number that is none differs from itself. A map has no order.
    assert_eq!(again.encoded_len(), written.len());
    Some(message)
}
