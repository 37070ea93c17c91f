//! What a failure is called: the operation, the network, both ends.
//!
//! May touch: `error.rs`. Mirrors Go's `net/net.go` (`OpError`) and `fd_posix.go` (`wrapSyscallError`).

use std::io;

use super::Fd;
use crate::endpoints::{Addr, End};
use crate::net::addr;
use crate::net::error::{Cause, OpError};
use crate::reactor::Refusal;
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
            Failure::System(error) => Cause::system(call, error),
        }
    }
}

impl Fd {
    /// An end's address: known, or asked of the system.
    pub(crate) fn endpoint(&self, end: End) -> Option<Addr> {
        let resource = self.resource();
        if let Some(known) = resource.endpoint(end) {
            return Some(known);
        }
        // Somebody else's source is no socket of ours to ask.
        if self.is_closed() || resource.handle.raw() < 0 {
            return None;
        }
        let socket = self.socket();
        let address = match end {
            End::Local => socket.local_addr(),
            End::Peer => socket.peer_addr(),
        };
        let address = addr::from_system(&address.ok()?)?;
        resource.set_endpoint(end, address.clone());
        Some(address)
    }

    /// Why an end has no address.
    #[cold]
    pub(crate) fn no_address(&self) -> io::Error {
        match self.is_closed() {
            true => self.error("get", Failure::Refused(Refusal::Closed), 0),
            false => io::ErrorKind::NotConnected.into(),
        }
    }

    pub(crate) fn learn_endpoints(&self) {
        self.endpoint(End::Local);
        self.endpoint(End::Peer);
    }

    /// The error for a failed operation, with both ends.
    #[cold]
    #[inline(never)]
    pub(crate) fn error(&self, op: &'static str, failure: Failure, written: usize) -> io::Error {
        let call = match op {
            "set" => "setsockopt",
            "get" => "getsockopt",
            "accept" => sys::ACCEPTS_BY,
            op => op,
        };
        OpError {
            written,
            ..self.name_error(op, failure.cause(call))
        }
        .into()
    }

    /// As [`Fd::error`], for a system call that is not named like the operation.
    #[cold]
    pub(crate) fn op_error(&self, op: &'static str, cause: Cause) -> io::Error {
        self.name_error(op, cause).into()
    }

    fn name_error(&self, op: &'static str, cause: Cause) -> OpError {
        let (source, addr) = match op {
            // A listener has one end, and Go names that as the address.
            "accept" | "set" | "get" | "raw-control" => (None, self.endpoint(End::Local)),
            _ => (self.endpoint(End::Local), self.endpoint(End::Peer)),
        };
        OpError {
            op,
            net: self.network().name(),
            source,
            addr,
            written: 0,
            cause,
        }
    }
}
