//! The task that owns a connection's stream.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::buf::BufMut;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use crate::connection::{Limits, Shared, WriteGuard};
use crate::error::NetError;
use crate::frame::{HeaderKinds, request_head, request_name, response_body};
use crate::pool::{Buffer, Pool};
use crate::runtime::{Runtime, io_cause};
use crate::socket::Stream;

/// Segments handed to the kernel in one call; more gains nothing.
const MAX_SEGMENTS: usize = 64;

/// Turns of the driver's loop before it lets other tasks run.
const MAX_TURNS: usize = 64;

/// The length field and the correlation id: what is read before a frame's buffer is made.
const PREFIX: usize = 8;

/// Bytes taken from the stream at the front of a frame: a small answer costs one call, and of a large one
/// no more than this is copied.
const STAGE: usize = 2 * 1024;

/// So many bytes of one answer count as progress: a line that is slow is not a broker that does not answer, but one that
/// brings a byte now and then is.
const PROGRESS: usize = 256 * 1024;

/// What a connection's handles ask of its driver.
pub(crate) enum Command {
    /// Write this request and match its answer.
    Send(Outgoing),
    /// The broker reads nothing more for this time.
    Paused(Duration),
    /// Close now.
    Close,
}

/// A request that has not been written yet.
pub(crate) struct Outgoing {
    pub(crate) api: i16,
    pub(crate) version: i16,
    pub(crate) header: HeaderKinds,
    pub(crate) body: Vec<Bytes>,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Instant,
    pub(crate) guard: Option<Arc<dyn WriteGuard>>,
    pub(crate) answer: oneshot::Sender<Result<Bytes, NetError>>,
}

/// A request whose writing has begun.
struct InFlight {
    api: i16,
    version: i16,
    correlation: i32,
    flexible_response: bool,
    timeout: Duration,
    deadline: Instant,
    answer: oneshot::Sender<Result<Bytes, NetError>>,
}

/// The frame that is being written.
struct Writing {
    segments: VecDeque<Bytes>,
    guard: Option<Arc<dyn WriteGuard>>,
}

/// Where the reader stands.
enum Reading {
    /// Before a frame's body; its first bytes may be staged.
    Prefix,
    Body {
        buffer: Buffer,
        left: usize,
    },
}

/// Bytes that were read ahead: those of small answers, and the beginning of large ones.
struct Stage {
    bytes: Box<[u8; STAGE]>,
    start: usize,
    end: usize,
}

impl Stage {
    fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Room behind what is unread, which moves to the front.
    fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.bytes[self.end..]
    }
}

/// Writes requests in order, matches answers by order and correlation id, and keeps the deadlines.
/// Ends, dropping the stream, when it is told to, when all handles are gone, or at the first error.
pub(crate) struct Driver {
    rt: Runtime,
    stream: Stream,
    commands: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
    client_id: String,
    limits: Limits,
    pool: Option<Pool>,
    queued: VecDeque<Outgoing>,
    writing: Option<Writing>,
    in_flight: VecDeque<InFlight>,
    reading: Reading,
    stage: Stage,
    next_correlation: i32,
    /// Wakes at the earliest deadline; may wake too early, never too late.
    timer: Option<Pin<Box<Sleep>>>,
    answered: bool,
    /// When an answer, or a good part of one, came last; and what came since.
    progress: Option<Instant>,
    since_progress: usize,
}

impl Driver {
    pub(crate) fn new(
        rt: Runtime,
        stream: Stream,
        commands: mpsc::UnboundedReceiver<Command>,
        shared: Arc<Shared>,
        client_id: String,
        limits: Limits,
        pool: Option<Pool>,
    ) -> Self {
        Self {
            rt,
            stream,
            commands,
            shared,
            client_id,
            limits,
            pool,
            queued: VecDeque::new(),
            writing: None,
            in_flight: VecDeque::new(),
            reading: Reading::Prefix,
            stage: Stage {
                bytes: Box::new([0; STAGE]),
                start: 0,
                end: 0,
            },
            next_correlation: 0,
            timer: None,
            answered: false,
            progress: None,
            since_progress: 0,
        }
    }

    /// The broker answers: whoever waits for it is given time anew.
    fn progressed(&mut self) {
        self.progress = Some(self.rt.now());
        self.since_progress = 0;
    }

    /// One turn: commands, then answers, then writes, then deadlines, always in this order.
    /// Returns whether anything moved, or the error that ends the connection.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, NetError> {
        let mut moved = self.take_commands(cx)?;
        moved |= self.read(cx)?;
        moved |= self.write(cx)?;
        self.check_deadlines(cx)?;
        Ok(moved)
    }

    fn take_commands(&mut self, cx: &mut Context<'_>) -> Result<bool, NetError> {
        let mut moved = false;
        loop {
            match self.commands.poll_recv(cx) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Some(Command::Send(request))) => {
                    self.arm(request.deadline);
                    self.queued.push_back(request);
                    moved = true;
                }
                Poll::Ready(Some(Command::Paused(pause))) => {
                    self.progress = Some(self.rt.deadline(pause));
                }
                Poll::Ready(Some(Command::Close) | None) => {
                    return Err(self.closed("it was closed from this side"));
                }
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, NetError> {
        match &mut self.reading {
            Reading::Prefix => {
                if self.stage.unread().len() < PREFIX {
                    let read = pin!(self.stream.read(self.stage.room())).poll(cx);
                    let Some(n) = self.received(read)? else {
                        return Ok(false);
                    };
                    self.stage.end += n;
                }
                if let Some(&prefix) = self.stage.unread().first_chunk::<PREFIX>() {
                    self.begin_body(prefix)?;
                }
            }
            Reading::Body { buffer, left } => {
                let step = buffer.as_ref().len().max(self.limits.eager_bytes).max(1);
                buffer.grow(step.min(*left));
                let read = pin!(self.stream.read_buf(&mut buffer.bytes().limit(*left))).poll(cx);
                let Some(n) = self.received(read)? else {
                    return Ok(false);
                };
                if let Reading::Body { left, .. } = &mut self.reading {
                    *left -= n;
                }
                self.since_progress += n;
                if self.since_progress >= PROGRESS {
                    self.progressed();
                }
            }
        }
        if let Reading::Body { left: 0, .. } = self.reading
            && let Reading::Body { buffer, .. } =
                std::mem::replace(&mut self.reading, Reading::Prefix)
        {
            self.deliver(buffer.freeze())?;
            self.progressed();
        }
        Ok(true)
    }

    /// The number of bytes read, `None` if there are none at present; the end of the stream and
    /// errors end the connection.
    fn received(&self, read: Poll<io::Result<usize>>) -> Result<Option<usize>, NetError> {
        match read {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(0)) => Err(self.cut_short().unwrap_or_else(|| self.closed_by_peer())),
            Poll::Ready(Ok(n)) => Ok(Some(n)),
            Poll::Ready(Err(e)) => Err(self
                .cut_short()
                .unwrap_or_else(|| self.closed(&io_cause(&e)))),
        }
    }

    /// Checks a frame's length and correlation id and makes its buffer.
    fn begin_body(&mut self, prefix: [u8; PREFIX]) -> Result<(), NetError> {
        let [a, b, c, d, e, f, g, h] = prefix;
        let length = i32::from_be_bytes([a, b, c, d]);
        let correlation = i32::from_be_bytes([e, f, g, h]);
        let left = match usize::try_from(length) {
            Ok(n) if (4..=self.limits.response_bytes).contains(&n) => n - 4,
            _ if let Some(why) = other_protocol(&prefix) => {
                return Err(self.mismatch(why));
            }
            _ => {
                return Err(self.malformed(&format!(
                    "a frame of {length} bytes, where 4 to {} are accepted",
                    self.limits.response_bytes
                )));
            }
        };
        match self.in_flight.front() {
            Some(request) if request.correlation == correlation => {}
            Some(request) => {
                let name = request_name(request.api, request.version);
                return Err(self.malformed(&format!(
                    "correlation id {correlation} where {name} with {} was to be answered",
                    request.correlation
                )));
            }
            None => return Err(self.malformed("an answer to no request")),
        }
        let mut buffer = Buffer::new(self.pool.as_ref(), left.min(self.limits.eager_bytes));
        let unread = self.stage.unread().get(PREFIX..).unwrap_or_default();
        let here = unread.get(..left).unwrap_or(unread);
        buffer.bytes().extend_from_slice(here);
        let taken = here.len();
        self.stage.start += PREFIX + taken;
        self.reading = Reading::Body {
            buffer,
            left: left - taken,
        };
        Ok(())
    }

    fn deliver(&mut self, rest: Bytes) -> Result<(), NetError> {
        let Some(request) = self.in_flight.pop_front() else {
            return Err(self.malformed("an answer to no request"));
        };
        let body = response_body(request.flexible_response, rest);
        // ApiVersions alone says nothing about whether the listener lets us in.
        self.answered |= request.api != 18;
        match body {
            Ok(body) => {
                let _ = request.answer.send(Ok(body));
                Ok(())
            }
            Err(e) => {
                let name = request_name(request.api, request.version);
                let error = self.malformed(&format!("the answer to {name}: {e}"));
                let _ = request.answer.send(Err(error.clone()));
                Err(error)
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, NetError> {
        if self.writing.is_none() {
            let Some(request) = self.queued.pop_front() else {
                return Ok(false);
            };
            self.begin_frame(request)?;
        }
        let Some(writing) = &mut self.writing else {
            return Ok(false);
        };
        let allowed = writing.guard.as_ref().is_none_or(|g| g.may_write());
        if writing.segments.is_empty() {
            // All of it has been handed over, so that it may be carried out whatever we do. TLS may
            // still hold a part of it back, which is worth stopping.
            if !allowed && matches!(self.stream, Stream::Tls(_)) {
                return Err(self.closed("the permission to write has lapsed"));
            }
            return match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => Ok(false),
                Poll::Ready(Err(e)) => Err(self.closed(&io_cause(&e))),
                Poll::Ready(Ok(())) => {
                    self.writing = None;
                    Ok(true)
                }
            };
        }
        // Asked before every write, not only the first: a frame that is stuck half way when the
        // permission lapses is never completed, so it is certain that it is not carried out.
        if !allowed {
            return Err(self.refused());
        }
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS];
        let mut used = 0;
        for (slot, segment) in slices.iter_mut().zip(&writing.segments) {
            *slot = IoSlice::new(segment);
            used += 1;
        }
        match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..used]) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(self.closed("it takes no more bytes")),
            Poll::Ready(Err(e)) => Err(self.closed(&io_cause(&e))),
            Poll::Ready(Ok(n)) => {
                writing.written(n);
                Ok(true)
            }
        }
    }

    /// Gives the request its correlation id and header, and expects its answer.
    fn begin_frame(&mut self, request: Outgoing) -> Result<(), NetError> {
        let body_len = request
            .body
            .iter()
            .fold(0usize, |sum, s| sum.saturating_add(s.len()));
        let correlation = self.next_correlation;
        let Some(head) = request_head(
            request.api,
            request.version,
            correlation,
            &self.client_id,
            request.header.flexible_request,
            body_len,
        ) else {
            let _ = request.answer.send(Err(NetError::Invalid {
                what: format!(
                    "{} with a body of {body_len} bytes or a client id of {} bytes does not fit into a request",
                    request_name(request.api, request.version),
                    self.client_id.len()
                ),
            }));
            return Ok(());
        };
        self.next_correlation = correlation.wrapping_add(1) & i32::MAX;
        let mut segments = VecDeque::with_capacity(request.body.len() + 1);
        segments.push_back(head);
        segments.extend(request.body.into_iter().filter(|s| !s.is_empty()));
        self.writing = Some(Writing {
            segments,
            guard: request.guard,
        });
        self.in_flight.push_back(InFlight {
            api: request.api,
            version: request.version,
            correlation,
            flexible_response: request.header.flexible_response,
            timeout: request.timeout,
            deadline: request.deadline,
            answer: request.answer,
        });
        Ok(())
    }

    /// Makes sure that the timer wakes at `deadline` or before.
    fn arm(&mut self, deadline: Instant) {
        match &mut self.timer {
            Some(timer) if timer.deadline() <= deadline => {}
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
    }

    fn check_deadlines(&mut self, cx: &mut Context<'_>) -> Result<(), NetError> {
        while let Some(timer) = &mut self.timer {
            if timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            let (now, progress) = (self.rt.now(), self.progress);
            let waiting = self
                .in_flight
                .iter()
                .map(|r| (r.deadline, r.api, r.version, r.timeout));
            let queued = self
                .queued
                .iter()
                .map(|r| (r.deadline, r.api, r.version, r.timeout));
            let due = |(deadline, api, version, timeout)| {
                (due(progress, deadline, timeout), api, version, timeout)
            };
            match waiting.chain(queued).map(due).min_by_key(|r| r.0) {
                Some((deadline, api, version, after)) if deadline <= now => {
                    return Err(NetError::TimedOut {
                        what: request_name(api, version),
                        peer: self.shared.peer.clone(),
                        after,
                    });
                }
                Some((deadline, ..)) => timer.as_mut().reset(deadline),
                None => self.timer = None,
            }
        }
        Ok(())
    }

    /// The refused frame's own error goes to its sender; the others learn that the connection ended.
    fn refused(&mut self) -> NetError {
        let Some(request) = self.in_flight.pop_back() else {
            return self.closed("the permission to write has lapsed");
        };
        let what = request_name(request.api, request.version);
        let _ = request.answer.send(Err(NetError::GuardRefused {
            peer: self.shared.peer.clone(),
            what,
        }));
        self.closed("the permission to write has lapsed")
    }

    fn closed(&self, why: &str) -> NetError {
        NetError::Closed {
            peer: self.shared.peer.clone(),
            why: why.to_owned(),
        }
    }

    fn closed_by_peer(&self) -> NetError {
        let inside = match &self.reading {
            Reading::Prefix if self.stage.unread().is_empty() => "",
            _ => " in the middle of an answer",
        };
        let hint = if self.answered || self.in_flight.is_empty() {
            ""
        } else {
            "; if it always does, this listener may want TLS or SASL"
        };
        self.closed(&format!("the broker closed it{inside}{hint}"))
    }

    fn mismatch(&self, why: &str) -> NetError {
        NetError::Mismatch {
            peer: self.shared.peer.clone(),
            why: why.to_owned(),
        }
    }

    /// A TLS alert is shorter than the prefix of a frame.
    fn cut_short(&self) -> Option<NetError> {
        match &self.reading {
            Reading::Prefix => other_protocol(self.stage.unread()).map(|why| self.mismatch(why)),
            _ => None,
        }
    }

    fn malformed(&self, what: &str) -> NetError {
        NetError::Malformed {
            peer: self.shared.peer.clone(),
            what: what.to_owned(),
        }
    }

    /// Tells everybody who waits. Requests whose own deadline has passed get the timeout itself,
    /// the others that the connection ended because of it.
    fn finish(&mut self, error: NetError) {
        tracing::debug!(peer = %self.shared.peer, %error, "connection ended");
        let for_others = match &error {
            NetError::TimedOut { .. } => self.closed(&error.to_string()),
            _ => error.clone(),
        };
        let _ = self.shared.reason.set(for_others.clone());
        self.shared.closed.store(true, Ordering::Release);
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Send(request) = command {
                self.queued.push_back(request);
            }
        }
        let now = self.rt.now();
        let peer = self.shared.peer.clone();
        let progress = self.progress;
        let tell = |api, version, timeout, deadline: Instant| match &error {
            NetError::TimedOut { .. } if due(progress, deadline, timeout) <= now => {
                NetError::TimedOut {
                    what: request_name(api, version),
                    peer: peer.clone(),
                    after: timeout,
                }
            }
            _ => for_others.clone(),
        };
        for r in self.in_flight.drain(..) {
            let _ = r
                .answer
                .send(Err(tell(r.api, r.version, r.timeout, r.deadline)));
        }
        for r in self.queued.drain(..) {
            let _ = r
                .answer
                .send(Err(tell(r.api, r.version, r.timeout, r.deadline)));
        }
    }
}

impl Writing {
    /// Removes the `n` bytes that the stream took.
    fn written(&mut self, mut n: usize) {
        while let Some(segment) = self.segments.front_mut() {
            if n < segment.len() {
                segment.advance(n);
                return;
            }
            n -= segment.len();
            self.segments.pop_front();
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..MAX_TURNS {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => {
                    self.finish(error);
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// When a request has waited for too long: so long after it was sent, and after the last progress of its connection.
fn due(progress: Option<Instant>, deadline: Instant, timeout: Duration) -> Instant {
    let moved = progress.and_then(|at| at.checked_add(timeout));
    moved.map_or(deadline, |moved| moved.max(deadline))
}

/// What the first bytes of an answer say about a listener that is not spoken to as it wants.
fn other_protocol(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x15, 3, ..] => {
            Some("a TLS alert: this listener speaks TLS, configure tls for this cluster")
        }
        [b'H', b'T', b'T', b'P', ..] => {
            Some("it answers like an HTTP server: this is no Kafka broker, correct the address")
        }
        _ => None,
    }
}
