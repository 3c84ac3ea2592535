//! Is a broker ready? Asked with bytes of our own, so that the answer needs no client.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// ApiVersions v0: key 18, correlation id 1, null client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
/// Metadata v1: key 3, correlation id 2, null client id, no topics.
const METADATA: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0];
/// No answer of a test cluster is larger.
const MAX_ANSWER: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the broker on `port` for its API versions and for the cluster; the node ids of the live brokers it knows of.
/// A broker names itself only after the controller has unfenced it: then it takes produce requests too.
pub(crate) fn live_brokers(port: u16) -> io::Result<Vec<i32>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let versions = exchange(&mut stream, &API_VERSIONS)?;
    if versions.get(4..6) != Some(&[0, 0]) {
        return Err(io::Error::other("ApiVersions was answered with an error"));
    }
    let metadata = exchange(&mut stream, &METADATA)?;
    broker_ids(metadata.get(4..).unwrap_or_default())
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The node ids of a Metadata v1 answer: an array of (node id, host, port, nullable rack).
fn broker_ids(mut bytes: &[u8]) -> Option<Vec<i32>> {
    let mut ids = Vec::new();
    for _ in 0..i32::from_be_bytes(*bytes.split_off(..4)?.first_chunk()?) {
        ids.push(i32::from_be_bytes(*bytes.split_off(..4)?.first_chunk()?));
        skip_string(&mut bytes)?;
        bytes.split_off(..4)?;
        skip_string(&mut bytes)?;
    }
    Some(ids)
}

fn skip_string(bytes: &mut &[u8]) -> Option<()> {
    let length = i16::from_be_bytes(*bytes.split_off(..2)?.first_chunk()?);
    bytes
        .split_off(..usize::try_from(length).unwrap_or(0))
        .map(|_| ())
}

/// Sends one framed request and reads the framed answer.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size)).map_err(io::Error::other)?;
    if size > MAX_ANSWER {
        return Err(io::Error::other(
            "the answer is larger than any Kafka answer",
        ));
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
