//! Answers of brokers: Fetch and Produce, which Strait reads itself, and the control plane.

use bytes::Bytes;
use strait_net::{ANSWERS, decode_answer, read_metadata};
use strait_wire::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};

use super::within;

/// Every partition of an answer is a struct of its own and has a copy of its topic's name, of up to 249 bytes.
const FOR_EACH_BYTE: usize = 20;
const FIXED: usize = 1024;
/// Metadata's API key.
const METADATA: i16 = 3;
/// Errors of kafka-protocol may carry a backtrace.
const FIXED_CONTROL: usize = 64 * 1024;

/// A version and a body.
pub(super) fn fetch(data: &[u8]) {
    let (min, max) = (FetchRequest::MIN_VERSION, FetchRequest::MAX_VERSION);
    let Some((version, body)) = versioned(data, min, max) else {
        return;
    };
    let allowed = FIXED + FOR_EACH_BYTE * data.len();
    let answer = within("a Fetch answer", allowed, || {
        FetchResponse::decode(version, body.clone())
    });
    let Ok(answer) = answer else { return };
    let records = answer.partitions.iter().map(|partition| &partition.records);
    let total: usize = records.clone().map(Bytes::len).sum();
    assert!(total <= body.len(), "records are slices of the answer");
    let memory = body.as_ptr_range();
    for records in records.filter(|records| !records.is_empty()) {
        assert!(memory.contains(&records.as_ptr()), "and share its memory");
    }
}

/// A version and a body.
pub(super) fn produce(data: &[u8]) {
    let (min, max) = (ProduceRequest::MIN_VERSION, ProduceRequest::MAX_VERSION);
    if let Some((version, body)) = versioned(data, min, max) {
        let allowed = FIXED + FOR_EACH_BYTE * data.len();
        let _ = within("a Produce answer", allowed, || {
            ProduceResponse::decode(version, body)
        });
    }
}

/// An API, a version and what follows the correlation id.
pub(super) fn control(data: &[u8]) {
    let Some((&api, data)) = data.split_first() else {
        return;
    };
    let &(api, min, max) = &ANSWERS[usize::from(api) % ANSWERS.len()];
    if let Some((version, rest)) = versioned(data, min, max) {
        let allowed = FIXED_CONTROL + 64 * data.len();
        let _ = within("a control-plane answer", allowed, || {
            decode_answer(api, version, rest)
        });
    }
}

/// A version and what follows the correlation id.
pub(super) fn metadata(data: &[u8]) {
    let asked = ANSWERS.iter().find(|(api, ..)| *api == METADATA);
    let Some(&(_, min, max)) = asked else { return };
    let Some((version, rest)) = versioned(data, min, max) else {
        return;
    };
    let allowed = FIXED_CONTROL + 64 * data.len();
    let read = within("metadata", allowed, || read_metadata(version, rest));
    let Ok(metadata) = read else { return };
    for (topic, found) in &metadata.topics {
        for (&partition, known) in &found.partitions {
            let leader = (known.leader >= 0).then_some((known.leader, known.leader_epoch));
            assert_eq!(metadata.leader(topic, partition), leader);
        }
    }
}

fn versioned(data: &[u8], min: i16, max: i16) -> Option<(i16, Bytes)> {
    let (&version, body) = data.split_first()?;
    let version = min + i16::from(version) % (max - min + 1);
    Some((version, Bytes::copy_from_slice(body)))
}
