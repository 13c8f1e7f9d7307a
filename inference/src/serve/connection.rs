//! HTTP/1.1 on one connection: heads and bodies in, responses and streams of events out, every wait with an end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::body::{Body, Held};
use super::head::{Head, Length, MAX_HEAD, parse_head};
use super::limits::Limits;
use super::problem::Problem;

/// How often a wait looks whether the server stops.
const TICK: Duration = Duration::from_millis(250);
/// Bytes read at once.
const PIECE: usize = 16 << 10;
/// A reader that takes fewer bytes a second than this is given up after [`Limits::write`].
const SLOWEST_READER: u64 = 16 << 10;
/// A connection that is closed is read to its end, so far at most.
const MAX_UNREAD: usize = 4 << 20;

/// The client went away, or does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    stream: TcpStream,
    /// Bytes read but not used yet.
    unread: Vec<u8>,
    limits: &'a Limits,
    /// Set when the server takes no more requests.
    stopping: &'a AtomicBool,
    /// Whether the next byte begins a request.
    between: bool,
}

enum Filled {
    Some,
    /// The other side has closed.
    End,
    TimedOut,
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: TcpStream, limits: &'a Limits, stopping: &'a AtomicBool) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new(), limits, stopping, between: true })
    }

    /// The next head; `None` when no further one comes.
    pub(super) fn read_head(&mut self) -> Result<Option<Head>, Problem> {
        let mut end = Instant::now() + self.limits.idle;
        let mut begun = false;
        loop {
            // Empty lines before a request are passed over.
            let blank = self.unread.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
            self.unread.drain(..blank);
            if !self.unread.is_empty() {
                if !std::mem::replace(&mut begun, true) {
                    end = Instant::now() + self.limits.head;
                }
                if let Some((head, length)) = parse_head(&self.unread)? {
                    self.unread.drain(..length);
                    self.between = head.length == Length::Known(0);
                    return Ok(Some(head));
                }
            }
            match self.fill(end.min(Instant::now() + TICK)) {
                Ok(Filled::Some) => {}
                Ok(Filled::End) if begun => return Err(Problem::new(400, "the head ends half-way".to_owned())),
                Ok(Filled::TimedOut) if Instant::now() < end && (begun || !self.stopping.load(Ordering::Relaxed)) => {}
                Ok(Filled::TimedOut) if begun => {
                    return Err(Problem::new(408, "the head did not arrive in time".to_owned()));
                }
                _ => return Ok(None),
            }
        }
    }

    /// The body behind a head.
    pub(super) fn read_body<'h>(&mut self, head: &Head, held: &'h Held) -> Result<Body<'h>, Problem> {
        let mut body = Body { bytes: Vec::new(), held };
        let end = Instant::now() + self.limits.body;
        if let Length::Known(length) = head.length
            && length > self.limits.body_bytes
        {
            return Err(Problem::too_large(self.limits.body_bytes));
        }
        if head.expects_continue && head.length != Length::Known(0) {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|Gone| Problem::cut_off())?;
        }
        match head.length {
            Length::Known(length) => self.take(length, end, &mut body)?,
            Length::Chunked => {
                loop {
                    let size = self.chunk_size(end)?;
                    if size == 0 {
                        break;
                    }
                    self.take(size, end, &mut body)?;
                    if !self.line(end)?.is_empty() {
                        return Err(Problem::new(400, "a chunk of the body is longer than it says".to_owned()));
                    }
                }
                // Trailers say nothing here.
                while !self.line(end)?.is_empty() {}
            }
        }
        self.between = true;
        Ok(body)
    }

    /// Whether the last request was read to its end, so that another may follow.
    pub(super) fn is_between(&self) -> bool {
        self.between
    }

    fn chunk_size(&mut self, end: Instant) -> Result<usize, Problem> {
        let line = self.line(end)?;
        let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
        let text = std::str::from_utf8(digits).unwrap_or_default().trim();
        let hexadecimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(text, 16).ok().filter(|_| hexadecimal);
        size.ok_or_else(|| Problem::new(400, "a chunk of the body has no size".to_owned()))
    }

    /// A line of the framing, without its end.
    fn line(&mut self, end: Instant) -> Result<Vec<u8>, Problem> {
        loop {
            if let Some(at) = self.unread.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=at).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if self.unread.len() > MAX_HEAD {
                return Err(Problem::new(400, "a line between chunks does not end".to_owned()));
            }
            self.more(end)?;
        }
    }

    fn take(&mut self, length: usize, end: Instant, body: &mut Body<'_>) -> Result<(), Problem> {
        let mut left = length;
        while left > 0 {
            if self.unread.is_empty() {
                self.more(end)?;
            }
            let piece = left.min(self.unread.len());
            body.extend(&self.unread[..piece], self.limits)?;
            self.unread.drain(..piece);
            left -= piece;
        }
        Ok(())
    }

    /// Reads more of a body, or says why there is no more.
    fn more(&mut self, end: Instant) -> Result<(), Problem> {
        match self.fill(end) {
            Ok(Filled::Some) => Ok(()),
            Ok(Filled::TimedOut) => Err(Problem::new(408, "the body did not arrive in time".to_owned())),
            Ok(Filled::End) | Err(_) => Err(Problem::cut_off()),
        }
    }

    fn fill(&mut self, end: Instant) -> std::io::Result<Filled> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Filled::TimedOut);
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut piece = [0; PIECE];
        match self.stream.read(&mut piece) {
            Ok(0) => Ok(Filled::End),
            Ok(read) => {
                self.unread.extend_from_slice(&piece[..read]);
                Ok(Filled::Some)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(Filled::TimedOut),
                _ => Err(error),
            },
        }
    }

    /// Whether the client has closed its side: then nobody waits for an answer.
    pub(super) fn is_gone(&self) -> bool {
        let mut byte = [0];
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut byte));
        let restored = self.stream.set_nonblocking(false);
        match peeked {
            Ok(read) => read == 0 || restored.is_err(),
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Writes all, in bounded time.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        let allowed = Duration::from_secs(bytes.len() as u64 / SLOWEST_READER);
        let end = Instant::now() + self.limits.write + allowed;
        while !bytes.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_write_timeout(Some(left)).is_err() {
                return Err(Gone);
            }
            match self.stream.write(bytes) {
                Ok(0) => return Err(Gone),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// A whole response.
    pub(super) fn respond(&mut self, reply: &Reply, keep_alive: bool) -> Result<(), Gone> {
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            reply.status,
            phrase(reply.status),
            reply.content_type,
            reply.body.len()
        );
        for (name, value) in &reply.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str(if keep_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
        bytes.push_str(&reply.body);
        self.write(bytes.as_bytes())
    }

    /// Begins a stream of server-sent events.
    pub(super) fn begin_stream(&mut self, head: &Head) -> Result<(), Gone> {
        let framing = if head.knows_chunks { "Transfer-Encoding: chunked" } else { "Connection: close" };
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n{framing}\r\n\r\n"
        );
        self.write(text.as_bytes())
    }

    /// One event of a stream.
    pub(super) fn event(&mut self, head: &Head, data: &str) -> Result<(), Gone> {
        let event = format!("data: {data}\n\n");
        if head.knows_chunks {
            self.write(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
        } else {
            self.write(event.as_bytes())
        }
    }

    /// Ends a stream.
    pub(super) fn end_stream(&mut self, head: &Head) -> Result<(), Gone> {
        self.event(head, "[DONE]")?;
        if head.knows_chunks { self.write(b"0\r\n\r\n") } else { Ok(()) }
    }

    /// Closes so that what was written arrives: a socket closed with bytes unread would take it back.
    pub(super) fn close(mut self) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let end = Instant::now() + Duration::from_secs(1);
        let mut read = 0;
        while let Ok(Filled::Some) = self.fill(end) {
            read += self.unread.len();
            self.unread.clear();
            if read > MAX_UNREAD {
                return;
            }
        }
    }
}

/// A response that is sent as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn json(status: u16, value: &serde_json::Value) -> Self {
        Self { status, content_type: "application/json", headers: Vec::new(), body: value.to_string() }
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
