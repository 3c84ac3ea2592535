//! Records that positions are read from: Strait's own and MirrorMaker 2's.

use bytes::Bytes;
use strait_wire::{
    Checkpoint, Heartbeat, OffsetSync, POSITION_HEADER, Record, RegistryRecord, SyncRecord,
};

use super::within;

/// Strings are copied; lists are of small things.
const FOR_EACH_BYTE: usize = 12;
const FIXED: usize = 1024;

/// A sync: the lengths of key and value, both, and a position, as it is and with a right checksum.
pub(super) fn sync(data: &[u8]) {
    let Some((key, value, position)) = parts(data) else {
        return;
    };
    let mut mended = position.to_vec();
    if let Some((body, crc)) = mended.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(body).to_be_bytes();
    }
    for position in [position, mended.into()] {
        let header = Bytes::from_static(POSITION_HEADER.as_bytes());
        let record = Record {
            headers: vec![(header, Some(position))],
            ..record(&key, &value)
        };
        let allowed = FIXED + FOR_EACH_BYTE * data.len();
        let read = within("a sync", allowed, || SyncRecord::from_record(&record));
        if let Ok(read) = read {
            let again = SyncRecord::from_record(&read.to_record(0));
            assert_eq!(again, Ok(read), "what was read can be written");
        }
    }
}

/// A registry record: the lengths of key and value, and both.
pub(super) fn registry(data: &[u8]) {
    let Some((key, value, _)) = parts(data) else {
        return;
    };
    let allowed = FIXED + FOR_EACH_BYTE * data.len();
    let record = record(&key, &value);
    let read = within("a registry record", allowed, || {
        RegistryRecord::from_record(&record)
    });
    if let Ok(read) = read {
        let again = RegistryRecord::from_record(&read.to_record(0));
        assert_eq!(again, Ok(read), "what was read can be written");
    }
}

/// Any of MirrorMaker 2's records: the lengths of key and value, and both.
pub(super) fn mm2(data: &[u8]) {
    let Some((key, value, _)) = parts(data) else {
        return;
    };
    let allowed = FIXED + FOR_EACH_BYTE * data.len();
    within("a record of MirrorMaker 2", allowed, || {
        let _ = OffsetSync::decode(&key, &value);
        let _ = Checkpoint::decode(&key, &value);
        let _ = Heartbeat::decode(&key, &value);
    });
}

fn parts(data: &[u8]) -> Option<(Bytes, Bytes, Bytes)> {
    let &[key, value, ref rest @ ..] = data else {
        return None;
    };
    let (key, rest) = rest.split_at_checked(usize::from(key))?;
    let (value, rest) = rest.split_at_checked(usize::from(value))?;
    let copy = Bytes::copy_from_slice;
    Some((copy(key), copy(value), copy(rest)))
}

fn record(key: &Bytes, value: &Bytes) -> Record {
    Record {
        offset: 0,
        timestamp: 0,
        key: Some(key.clone()),
        value: Some(value.clone()),
        headers: Vec::new(),
    }
}
