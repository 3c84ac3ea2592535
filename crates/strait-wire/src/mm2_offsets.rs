//! MirrorMaker 2's own position: what Connect keeps for its source connector in `offset.storage.topic`, as JSON.

use serde_json::{Map, Value};

/// No key that a mirror writes comes near this.
const LONGEST: usize = 64 * 1024;

/// How far MirrorMaker 2 has mirrored one source partition, as of its last flush.
///
/// Key `["MirrorSourceConnector",{"cluster":"A","partition":0,"topic":"orders"}]`, value `{"offset":41}`, null once it was
/// reset (`MirrorUtils.wrapPartition`, `wrapOffset`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mm2Offset {
    /// The connector's name: `MirrorSourceConnector` in the dedicated mode, `A->B.MirrorSourceConnector` under Strimzi.
    pub connector: String,
    /// The source's alias.
    pub cluster: String,
    /// The topic's name on the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The source offset of the last record that the target has acknowledged with all before it; none after a reset.
    pub offset: Option<i64>,
}

impl Mm2Offset {
    /// Reads a record of the topic; nothing where it is another connector's, or what Connect itself could not read either.
    pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Self> {
        let Value::Array(key) = parse(key?)? else {
            return None;
        };
        let [Value::String(connector), Value::Object(place)] = key.as_slice() else {
            return None;
        };
        // Those of checkpoints and heartbeats have other keys.
        if place.len() != 3 {
            return None;
        }
        let text = |name: &str| Some(place.get(name)?.as_str()?.to_owned());
        let offset = match value {
            None => None,
            Some(value) => match parse(value)? {
                Value::Null => None,
                Value::Object(value) => Some(number(&value, "offset")?).filter(|o| *o >= 0),
                _ => return None,
            },
        };
        Some(Self {
            connector: connector.clone(),
            cluster: text("cluster")?,
            topic: text("topic")?,
            partition: i32::try_from(number(place, "partition")?)
                .ok()
                .filter(|p| *p >= 0)?,
            offset,
        })
    }
}

fn parse(bytes: &[u8]) -> Option<Value> {
    (bytes.len() <= LONGEST).then(|| serde_json::from_slice(bytes).ok())?
}

fn number(of: &Map<String, Value>, name: &str) -> Option<i64> {
    of.get(name)?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] =
        br#"["MirrorSourceConnector",{"cluster":"A","partition":3,"topic":"orders"}]"#;

    fn decode(key: &[u8], value: &[u8]) -> Option<Mm2Offset> {
        Mm2Offset::decode(Some(key), Some(value))
    }

    #[test]
    fn the_dedicated_mode_and_strimzi_name_their_connectors_differently() {
        let found = decode(KEY, br#"{"offset":41}"#).unwrap();
        assert_eq!(
            (found.cluster.as_str(), found.topic.as_str()),
            ("A", "orders")
        );
        assert_eq!((found.partition, found.offset), (3, Some(41)));
        let key = br#"["A->B.MirrorSourceConnector",{"topic":"t","cluster":"A","partition":0}]"#;
        let found = decode(key, br#"{"offset":0}"#).unwrap();
        assert_eq!(found.connector, "A->B.MirrorSourceConnector");
    }

    #[test]
    fn a_reset_leaves_no_offset() {
        for value in [None, Some(&b"null"[..]), Some(&br#"{"offset":-1}"#[..])] {
            let found = Mm2Offset::decode(Some(KEY), value).unwrap();
            assert_eq!(found.offset, None, "{value:?}");
        }
    }

    #[test]
    fn other_connectors_and_other_bytes_are_passed_over() {
        let long = vec![b'['; LONGEST];
        let keys: [&[u8]; 7] = [
            br#"["MirrorHeartbeatConnector",{"sourceClusterAlias":"A","targetClusterAlias":"B"}]"#,
            br#"["MirrorCheckpointConnector",{"group":"g","partition":0,"topic":"t"}]"#,
            br#"["jdbc",{"table":"t"}]"#,
            br#"["c",{"cluster":"A","partition":-1,"topic":"t"}]"#,
            br#"["c",{"cluster":"A","partition":4294967296,"topic":"t"}]"#,
            b"\xff\xfe",
            &long,
        ];
        for key in keys {
            let shown = String::from_utf8_lossy(&key[..key.len().min(80)]);
            assert_eq!(decode(key, br#"{"offset":1}"#), None, "{shown}");
        }
        assert_eq!(decode(KEY, b"{}"), None);
        assert_eq!(Mm2Offset::decode(None, Some(b"{}")), None);
    }
}
