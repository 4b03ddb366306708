//! An established connection: bytes out, frames in, keep alive.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use isochrone_model::time::{Clock, Monotonic};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    Disconnected,
    mqtt::{
        codec::MAX_PACKET,
        dial::Established,
        reason,
        stream::Stream,
        wire::{self, Frame, PINGREQ, packet},
    },
};

/// Room offered to one read(2).
const READ: usize = 64 * 1024;
/// The most that is written at once.
pub(super) const WRITE: usize = 64 * 1024;
/// A peer that reads nothing while it sends is not read from beyond this many unsent bytes.
const TAIL_LIMIT: usize = 256 * 1024;
/// What an idle connection may keep of a buffer.
const KEEP: usize = 4 * 1024;

/// What takes frames: the frame, when its read returned, and where answers are appended.
pub(super) type Handle<'a> = dyn FnMut(Frame<'_>, Monotonic, &mut Vec<u8>) -> Result<(), Disconnected> + 'a;

/// An established connection.
pub(super) struct Link {
    pub stream: Stream,
    pub max_packet: usize,
    /// What must be written before anything else; of it, `tail_sent` bytes have been.
    tail: Vec<u8>,
    tail_sent: usize,
    /// TLS holds bytes that the socket did not take.
    unflushed: bool,
    /// The start of a frame whose end has not come.
    partial: Vec<u8>,
    /// `partial` may hold whole frames (they came with the CONNACK).
    unread: bool,
    /// Length of the frame in `partial`, once known.
    expected: usize,
    up_since: Monotonic,
    last_read: Monotonic,
    last_write: Monotonic,
    ping: Option<Monotonic>,
    keep_alive: Option<KeepAlive>,
}

struct KeepAlive {
    /// Silence after which PINGREQ is sent.
    idle_ns: u64,
    /// Silence after PINGREQ that ends the connection.
    answer_ns: u64,
    timer: Pin<Box<Sleep>>,
}

impl Link {
    pub fn new(established: Established, keep_alive: Duration) -> Link {
        let Established {
            stream,
            connected,
            accepted,
            rest,
        } = established;
        let seconds = accepted.keep_alive.unwrap_or(keep_alive);
        let keep_alive = (!seconds.is_zero()).then(|| {
            let idle = seconds.mul_f64(0.75);
            let answer = (seconds / 2).max(Duration::from_secs(5));
            KeepAlive {
                idle_ns: idle.as_nanos() as u64,
                answer_ns: answer.as_nanos() as u64,
                timer: Box::pin(sleep_until(Instant::now() + idle)),
            }
        });
        Link {
            stream,
            max_packet: accepted.max_packet,
            tail: Vec::new(),
            tail_sent: 0,
            unflushed: false,
            unread: !rest.is_empty(),
            partial: rest,
            expected: 0,
            up_since: connected.at,
            last_read: connected.at,
            last_write: connected.at,
            ping: None,
            keep_alive,
        }
    }

    /// When CONNACK had come.
    pub fn up_since(&self) -> Monotonic {
        self.up_since
    }

    /// Whether something waits for the socket.
    pub fn blocked(&self) -> bool {
        self.tail_sent < self.tail.len()
    }

    /// Where control packets are appended; [`Link::flush`] writes them.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// What has not been written yet, to be written on the way out.
    pub fn into_rest(mut self) -> (Stream, Vec<u8>) {
        (self.stream, self.tail.split_off(self.tail_sent))
    }

    /// Writes the tail. True when all of it has gone.
    pub fn flush(&mut self, cx: &mut Context<'_>, clock: &dyn Clock) -> Result<bool, Disconnected> {
        while self.tail_sent < self.tail.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.tail[self.tail_sent..]) {
                Poll::Ready(Ok(0)) => return Err(reason::broken(None)),
                Poll::Ready(Ok(written)) => {
                    self.tail_sent += written;
                    self.unflushed = true;
                    self.last_write = clock.monotonic();
                }
                Poll::Ready(Err(error)) => return Err(reason::broken(Some(&error))),
                Poll::Pending => return Ok(false),
            }
        }
        self.tail.clear();
        self.tail_sent = 0;
        if self.tail.capacity() > KEEP {
            self.tail = Vec::new();
        }
        self.flush_tls(cx)?;
        Ok(true)
    }

    /// Writes fresh frames once, at `now`; returns how many bytes were accepted. Only while [`Link::flush`] says true.
    pub fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8], now: Monotonic) -> Result<usize, Disconnected> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => Err(reason::broken(None)),
            Poll::Ready(Ok(written)) => {
                self.unflushed = true;
                self.last_write = now;
                self.flush_tls(cx)?;
                Ok(written)
            }
            Poll::Ready(Err(error)) => Err(reason::broken(Some(&error))),
            Poll::Pending => Ok(0),
        }
    }

    fn flush_tls(&mut self, cx: &mut Context<'_>) -> Result<(), Disconnected> {
        if self.unflushed && matches!(self.stream, Stream::Tls(_)) {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(reason::broken(Some(&error))),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Reads once and hands over the frames that are complete. `buffer` is the worker's.
    pub fn read(
        &mut self,
        cx: &mut Context<'_>,
        clock: &dyn Clock,
        buffer: &mut Vec<u8>,
        handle: &mut Handle<'_>,
    ) -> Poll<Result<(), Disconnected>> {
        if self.blocked() && self.tail.len() > TAIL_LIMIT {
            return Poll::Pending;
        }
        if std::mem::take(&mut self.unread) {
            return Poll::Ready(self.take_partial(handle));
        }
        if self.expected > READ {
            // A large frame is read into a buffer of its own, which grows as bytes come, not as its header promises.
            let missing = self.expected.saturating_sub(self.partial.len());
            self.partial.reserve(missing.clamp(READ, 1024 * 1024));
            match poll_read(&mut self.stream, cx, &mut self.partial) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(reason::broken(None))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(reason::broken(Some(&error)))),
                Poll::Pending => return Poll::Pending,
            }
            self.last_read = clock.monotonic();
            if self.partial.len() < self.expected {
                return Poll::Ready(Ok(()));
            }
            return Poll::Ready(self.take_partial(handle));
        }
        buffer.clear();
        buffer.extend_from_slice(&self.partial);
        buffer.reserve(READ);
        match poll_read(&mut self.stream, cx, buffer) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(reason::broken(None))),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(reason::broken(Some(&error)))),
            Poll::Pending => return Poll::Pending,
        }
        self.last_read = clock.monotonic();
        let consumed = match self.frames(buffer, handle) {
            Ok(consumed) => consumed,
            Err(error) => return Poll::Ready(Err(error)),
        };
        self.partial.clear();
        if consumed < buffer.len() {
            self.partial.extend_from_slice(&buffer[consumed..]);
        } else if self.partial.capacity() > KEEP {
            self.partial = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn take_partial(&mut self, handle: &mut Handle<'_>) -> Result<(), Disconnected> {
        let mut bytes = std::mem::take(&mut self.partial);
        let consumed = self.frames(&bytes, handle)?;
        // The rest moves to a buffer of its own size.
        self.partial = bytes.split_off(consumed);
        Ok(())
    }

    /// Hands over all complete frames and returns how many bytes they took.
    fn frames(&mut self, bytes: &[u8], handle: &mut Handle<'_>) -> Result<usize, Disconnected> {
        let mut consumed = 0;
        self.expected = 0;
        while let Some(bounds) = wire::bounds(&bytes[consumed..]).map_err(reason::protocol)? {
            if bounds.total > MAX_PACKET {
                let detail = format!("the broker sent a packet of {} bytes, above {MAX_PACKET}", bounds.total);
                return Err(reason::disconnected("packet too large", detail));
            }
            let Some(raw) = bytes.get(consumed..consumed + bounds.total) else {
                self.expected = bounds.total;
                break;
            };
            let frame = Frame::new(raw, bounds);
            match frame.kind() {
                packet::PINGRESP => self.answered(),
                packet::DISCONNECT => return Err(reason::disconnect(frame.body.first().copied().unwrap_or(0))),
                _ => handle(frame, self.last_read, &mut self.tail)?,
            }
            consumed += bounds.total;
        }
        Ok(consumed)
    }

    /// PINGRESP came: the next silence counts from the last packet, also when it is shorter than the wait for this one.
    fn answered(&mut self) {
        self.ping = None;
        if let Some(keep) = &mut self.keep_alive {
            let silent_ns = self.last_read.since_ns(self.last_read.min(self.last_write)).max(0) as u64;
            let wait = Duration::from_nanos(keep.idle_ns.saturating_sub(silent_ns));
            keep.timer.as_mut().reset(Instant::now() + wait);
        }
    }

    /// Appends PINGREQ to the tail when the connection has been silent (and says so), and ends it when nothing answers.
    pub fn keep_alive(&mut self, cx: &mut Context<'_>, clock: &dyn Clock) -> Result<bool, Disconnected> {
        let Some(keep) = &mut self.keep_alive else {
            return Ok(false);
        };
        let mut silent = false;
        while keep.timer.as_mut().poll(cx).is_ready() {
            let now = clock.monotonic();
            if self.ping.is_some_and(|asked| self.last_read > asked) {
                self.ping = None;
            }
            let next = match self.ping {
                Some(asked) if now >= asked + keep.answer_ns => {
                    let seconds = keep.answer_ns / 1_000_000_000;
                    let detail = format!("nothing came for {seconds} s after PINGREQ: ISOCHRONE_KEEP_ALIVE");
                    return Err(reason::disconnected("keep alive", detail));
                }
                Some(asked) => asked + keep.answer_ns,
                None => {
                    let silent_since = self.last_read.min(self.last_write);
                    if now >= silent_since + keep.idle_ns {
                        self.tail.extend_from_slice(&PINGREQ);
                        self.ping = Some(now);
                        silent = true;
                        now + keep.answer_ns
                    } else {
                        silent_since + keep.idle_ns
                    }
                }
            };
            let wait = Duration::from_nanos(next.since_ns(now).max(1_000_000) as u64);
            keep.timer.as_mut().reset(Instant::now() + wait);
        }
        Ok(silent)
    }
}

fn poll_read(stream: &mut Stream, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
    pin!(stream.read_buf(buffer)).poll(cx)
}
