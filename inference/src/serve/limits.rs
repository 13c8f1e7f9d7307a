//! How much a connection may send, and how long it may take.

use std::time::Duration;

/// Bytes, and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the body of one request may have.
    pub body_bytes: usize,
    /// Bytes that the bodies of all connections may have together.
    pub all_body_bytes: usize,
    /// Connections at a time.
    pub connections: usize,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// From the first byte of a body to its last.
    pub body: Duration,
    /// Between two requests of one connection.
    pub idle: Duration,
    /// For a reader to take what is written, beside the time that its size allows.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            all_body_bytes: 64 << 20,
            connections: 1024,
            head: Duration::from_secs(10),
            body: Duration::from_mins(1),
            idle: Duration::from_mins(1),
            write: Duration::from_secs(30),
        }
    }
}
