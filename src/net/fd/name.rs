//! The names in an error: the operation, the network, both ends, the system call.

// Mirrors Go's `net/net.go` (`OpError`) and `net/fd_posix.go` (`wrapSyscallError`).

use std::fmt;
use std::io::{self, ErrorKind::NotConnected, ErrorKind::UnexpectedEof, ErrorKind::WouldBlock};

use super::Fd;
use crate::endpoints::{Addr, End};
use crate::net::addr::Kind;
use crate::net::error::{Cause, OpError};
use crate::reactor::{Direction, Refusal};
use crate::sys;

/// Why an operation failed, before its names are added: that is done once, out of the hot path.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Refusal),
    System(io::Error),
}

impl Failure {
    pub(crate) fn cause(self, call: &'static str) -> Cause {
        match self {
            Failure::Refused(refusal) => Cause::from(refusal),
            Failure::System(error) => Cause::System { call, error },
        }
    }
}

/// An operation, as its errors name it. A byte, because each operation that waits keeps one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Read,
    Write,
    Accept,
    Connect,
    Close,
}

impl Name {
    /// Of an operation that has no name of its own.
    pub(crate) const fn of(direction: Direction) -> Self {
        match direction {
            Direction::Read => Name::Read,
            Direction::Write => Name::Write,
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        ["read", "write", "accept", "connect", "close"][self as usize]
    }
}

impl Fd {
    /// An end's address: known, or asked of the system.
    pub(crate) fn endpoint(&self, end: End) -> Option<Addr> {
        self.socket().find_endpoint(end).ok()
    }

    /// As [`Fd::endpoint`], with the reason if there is none.
    pub(crate) fn socket_addr(&self, end: End) -> io::Result<Addr> {
        let found = self.socket().find_endpoint(end);
        found.map_err(|error| {
            let call = ["getsockname", "getpeername"][end as usize];
            match self.check_open() {
                Ok(()) if error.kind() == NotConnected => NotConnected.into(),
                Ok(()) => self.op_error("get", Cause::System { call, error }),
                Err(failure) => self.error("get", failure),
            }
        })
    }

    /// As [`Fd::socket_addr`], in the type that the kind of socket has.
    pub(crate) fn addr<K: Kind>(&self, end: End) -> io::Result<K::Addr> {
        K::addr(&self.socket_addr(end)?).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Asks for both ends while the system can tell: after a reset it knows no peer.
    pub(crate) fn learn_endpoints(&self) {
        self.endpoint(End::Local);
        self.endpoint(End::Peer);
    }

    /// Asks for both ends anew, of a socket that was connected: a datagram socket's own may change with
    /// the peer's. If the system no longer tells the peer, it is `to`.
    pub(crate) fn learn_new_endpoints(&self, to: Addr) {
        let socket = self.socket();
        if let Ok(local) = socket.ask_endpoint(End::Local) {
            socket.set_endpoint(End::Local, local);
        }
        let peer = socket.ask_endpoint(End::Peer).unwrap_or(to);
        socket.set_endpoint(End::Peer, peer);
    }

    /// The error for a failed operation, with the socket's ends.
    ///
    /// `WouldBlock` and `UnexpectedEof` come back as they are: the first is the usual answer to a try,
    /// and needs no names; the second says that the stream has ended, which is no failure.
    #[cold]
    pub(crate) fn error(&self, op: &'static str, failure: Failure) -> io::Error {
        let call = match op {
            "set" => "setsockopt",
            "get" => "getsockopt",
            "accept" => sys::ACCEPTS_BY,
            // System errors of "close" come only from shutdown(2).
            "close" => "shutdown",
            op => op,
        };
        let cause = match failure {
            Failure::System(error) if matches!(error.kind(), WouldBlock | UnexpectedEof) => {
                return error;
            }
            // In a child of fork, the parent's descriptor counts as closed: this error says why.
            Failure::Refused(Refusal::Closed) if self.desc.core.is_inherited() => Cause::Inherited,
            failure => failure.cause(call),
        };
        self.op_error(op, cause)
    }

    /// As [`Fd::error`], with a cause of the caller's.
    #[cold]
    pub(crate) fn op_error(&self, op: &'static str, cause: Cause) -> io::Error {
        let (source, addr) = match op {
            // Go names the local end alone, as the address.
            "accept" | "set" | "get" | "raw-control" => (None, self.endpoint(End::Local)),
            _ => (self.endpoint(End::Local), self.endpoint(End::Peer)),
        };
        let error = OpError {
            source,
            ..OpError::new(op, self.network().name(), addr, cause)
        };
        error.into()
    }

    /// The fields that every handle's `Debug` shows.
    pub(crate) fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct(name);
        debug.field("network", &self.network().name());
        for (name, end) in [("local", End::Local), ("peer", End::Peer)] {
            if let Some(address) = self.endpoint(end) {
                debug.field(name, &format_args!("{address}"));
            }
        }
        debug.field("closed", &self.is_closed()).finish()
    }
}

/// As log lines name it: `tcp 127.0.0.1:1->127.0.0.1:2 (Token(3.0))`.
impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.network().name())?;
        if let Some(local) = self.endpoint(End::Local) {
            write!(f, " {local}")?;
        }
        if let Some(peer) = self.endpoint(End::Peer) {
            write!(f, "->{peer}")?;
        }
        write!(f, " ({:?})", self.desc.token())
    }
}
