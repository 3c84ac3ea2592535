//! Connections: frames in, frames out. Requests of one connection are handled and answered strictly in order, like a
//! real broker's muted channel; connections run beside each other.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Encodable, decode_request_header_from_buffer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::api::{self, Call, Forced, Session, Step};
use crate::broker::Shared;
use crate::fault::{Fault, Fired, FrameLie, Seen};

/// `socket.request.max.bytes`: a longer frame closes the connection without an answer.
const LARGEST_FRAME: usize = 100 << 20;

/// One request, taken apart.
struct Incoming {
    key: i16,
    version: i16,
    correlation: i32,
    request: RequestKind,
}

/// What is left to do with the connection after a request.
enum Next {
    GoOn,
    Close,
}

/// Serves one connection of `node` until either side ends it.
pub(crate) async fn serve<S>(shared: Arc<Shared>, node: i32, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let generation = shared.lock().nodes.get(&node).map(|n| n.generation);
    let mut changes = shared.changes();
    let served = requests(&shared, node, &mut stream);
    let closed = async {
        loop {
            let alive = shared
                .lock()
                .nodes
                .get(&node)
                .is_some_and(|n| n.online && Some(n.generation) == generation);
            if !alive {
                return;
            }
            changes.changed().await;
        }
    };
    tokio::select! {
        biased;
        () = closed => {}
        outcome = served => {
            if let Err(error) = outcome {
                tracing::debug!(%error, node, "connection ended");
            }
        }
    }
}

async fn requests<S>(shared: &Arc<Shared>, node: i32, stream: &mut S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut session = Session::default();
    while let Some(frame) = read_frame(stream).await? {
        wait_while_paused(shared, node).await;
        let incoming = match parse(shared, frame) {
            Parsed::Request(incoming) => incoming,
            Parsed::UnknownApiVersions(correlation) => {
                let answer = api::unsupported_api_versions(&shared.lock());
                write(
                    stream,
                    &encode(&answer.into(), correlation, 0, 0)?,
                    usize::MAX,
                )
                .await?;
                continue;
            }
            Parsed::Close => return Ok(()),
        };
        if shared.config().sasl_plain.is_some()
            && !session.authenticated
            && !matches!(incoming.key, 17 | 18 | 36)
        {
            return Ok(());
        }
        match request(shared, node, stream, &mut session, *incoming).await? {
            Next::GoOn => {}
            Next::Close => return Ok(()),
        }
    }
    Ok(())
}

async fn request<S>(
    shared: &Arc<Shared>,
    node: i32,
    stream: &mut S,
    session: &mut Session,
    incoming: Incoming,
) -> io::Result<Next>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (key, version, correlation) = (incoming.key, incoming.version, incoming.correlation);
    let fired = {
        let targets = api::targets(&shared.lock(), &incoming.request);
        shared.note_request(node, key, version);
        shared.faults().decide(&Seen {
            api: Some(key),
            node,
            targets: &targets,
        })
    };
    let fault = fired.as_ref().map(|f| f.fault.clone());
    match &fault {
        Some(Fault::DropBefore) => return Ok(Next::Close),
        Some(Fault::Late(delay)) => {
            stream.shutdown().await?;
            tokio::time::sleep(*delay).await;
            answer(shared, node, session, incoming, None).await;
            return Ok(Next::Close);
        }
        Some(Fault::Delay(delay)) => tokio::time::sleep(*delay).await,
        _ => {}
    }
    let step = answer(shared, node, session, incoming, fired.as_ref()).await;
    match (fault, step) {
        (Some(Fault::Hang), _) | (_, Step::Hang) => hang(stream).await,
        (Some(Fault::DropAfter), _) | (_, Step::Close) => Ok(Next::Close),
        (_, Step::Silent | Step::Wait { .. }) => Ok(Next::GoOn),
        (fault, Step::Reply(mut response)) => {
            let header = response.header_version(version);
            if let Some(Fault::Answer(rewrite)) = &fault {
                rewrite.apply(&mut response);
            }
            let frame = encode(&response, correlation, header, version)?;
            if let Some(Fault::Frame(lie)) = &fault {
                return lying(stream, frame, lie).await;
            }
            if let Some(Fault::Truncate(bytes)) = fault {
                write(stream, &frame, bytes).await?;
                return Ok(Next::Close);
            }
            write(stream, &frame, usize::MAX).await?;
            Ok(Next::GoOn)
        }
    }
}

/// Handles a request to its end, waiting where it has to wait. Never answers `Step::Wait`.
async fn answer(
    shared: &Arc<Shared>,
    node: i32,
    session: &mut Session,
    incoming: Incoming,
    fired: Option<&Fired>,
) -> Step {
    let forced = fired.and_then(|fired| match fired.fault {
        Fault::Error(code) => Some(forced(fired, code, false)),
        Fault::ErrorAfter(code) => Some(forced(fired, code, true)),
        _ => None,
    });
    let mut call = Call {
        now_ms: 0,
        node,
        version: incoming.version,
        forced,
    };
    let mut changes = shared.changes();
    let mut step = shared.with(|cluster, now_ms| {
        call.now_ms = now_ms;
        api::handle(cluster, &call, session, incoming.request)
    });
    let Step::Wait { until_ms, .. } = step else {
        return step;
    };
    // Deadlines count in tokio's time: a clock that a test holds still must not keep a request for ever.
    let mut deadline = pin!(tokio::time::sleep(span(until_ms - call.now_ms)));
    while let Step::Wait { pending, until_ms } = step {
        let due = shared.lock().next_due().saturating_sub(shared.now_ms());
        let expired = tokio::select! {
            biased;
            () = &mut deadline => true,
            () = changes.changed() => false,
            () = tokio::time::sleep(span(due)) => false,
        };
        step = shared.with(|cluster, now_ms| {
            call.now_ms = now_ms;
            api::resume(cluster, &call, pending, until_ms, expired)
        });
    }
    step
}

/// At least a millisecond: what is due in the past has been done already, or cannot be done now.
fn span(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0).max(1))
}

fn forced(fired: &Fired, code: i16, after: bool) -> Forced {
    Forced {
        topic: fired.topic.clone(),
        partition: fired.partition,
        code,
        after,
    }
}

async fn wait_while_paused(shared: &Arc<Shared>, node: i32) {
    let mut changes = shared.changes();
    loop {
        let paused = shared.lock().nodes.get(&node).is_some_and(|n| n.paused);
        if !paused {
            return;
        }
        changes.changed().await;
    }
}

/// Sends a frame that is not what it says. The connection stays open: it is the client's to close.
async fn lying<S>(stream: &mut S, frame: Bytes, lie: &FrameLie) -> io::Result<Next>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frame = BytesMut::from(frame);
    let (length, rest) = frame.split_at_mut(4);
    match lie {
        FrameLie::Length(said) => length.copy_from_slice(&said.to_be_bytes()),
        FrameLie::Correlation => {
            if let Some(low) = rest.get_mut(3) {
                *low ^= 0x55;
            }
        }
        FrameLie::Cut(bytes) => {
            let kept = rest.len().min(4 + bytes);
            let said = i32::try_from(kept).map_err(io::Error::other)?;
            length.copy_from_slice(&said.to_be_bytes());
            frame.truncate(4 + kept);
        }
        FrameLie::Endless { promised, every } => {
            length.copy_from_slice(&promised.to_be_bytes());
            frame.truncate(8);
            write(stream, &frame, usize::MAX).await?;
            loop {
                tokio::time::sleep(*every).await;
                write(stream, &[0], usize::MAX).await?;
            }
        }
        FrameLie::Twice => {
            let again = frame.clone();
            frame.extend_from_slice(&again);
        }
    }
    write(stream, &frame, usize::MAX).await?;
    Ok(Next::GoOn)
}

/// Keeps the connection open without reading requests from it, until the client goes.
async fn hang<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Next> {
    let mut sink = [0u8; 4096];
    while stream.read(&mut sink).await? > 0 {}
    Ok(Next::Close)
}

async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Bytes>> {
    let mut length = [0u8; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LARGEST_FRAME {
        return Ok(None);
    }
    // Grows with what really arrives, whatever the length field promises.
    let mut frame = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut frame).await?;
    Ok((read == length).then(|| Bytes::from(frame)))
}

enum Parsed {
    Request(Box<Incoming>),
    UnknownApiVersions(i32),
    Close,
}

fn parse(shared: &Shared, mut frame: Bytes) -> Parsed {
    let head = |range: std::ops::Range<usize>| frame.get(range).unwrap_or_default().to_vec();
    let (Ok(key), Ok(version), Ok(correlation)) = (
        head(0..2).try_into().map(i16::from_be_bytes),
        head(2..4).try_into().map(i16::from_be_bytes),
        head(4..8).try_into().map(i32::from_be_bytes),
    ) else {
        return Parsed::Close;
    };
    if !api::speaks(shared.config(), key, version) {
        return if key == 18 {
            Parsed::UnknownApiVersions(correlation)
        } else {
            Parsed::Close
        };
    }
    let Ok(api) = ApiKey::try_from(key) else {
        return Parsed::Close;
    };
    let decoded = decode_request_header_from_buffer(&mut frame)
        .and_then(|_header| RequestKind::decode(api, &mut frame, version));
    match decoded {
        Ok(request) => Parsed::Request(Box::new(Incoming {
            key,
            version,
            correlation,
            request,
        })),
        Err(error) => {
            tracing::warn!(%error, key, version, "request does not decode");
            Parsed::Close
        }
    }
}

fn encode(
    response: &ResponseKind,
    correlation: i32,
    header: i16,
    version: i16,
) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    ResponseHeader::default()
        .with_correlation_id(correlation)
        .encode(&mut body, header)
        .and_then(|()| response.encode(&mut body, version))
        .map_err(|error| io::Error::other(format!("response does not encode: {error}")))?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = BytesMut::with_capacity(body.len() + 4);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame.freeze())
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    frame: &[u8],
    at_most: usize,
) -> io::Result<()> {
    stream
        .write_all(frame.get(..at_most).unwrap_or(frame))
        .await?;
    stream.flush().await
}
