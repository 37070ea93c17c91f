//! One connection, as a machine that runs when its id comes up.
//!
//! | state | what it does | its deadline | on to |
//! |---|---|---|---|
//! | Request | reads up to the blank line | for the whole request, never moved | Answer |
//! | Answer | writes the head, then the file, a piece at a time | for the client to take something, moved when it does | Closing |
//! | Closing | has sent its FIN, and reads past whatever still comes | for the client's FIN, never moved | the end |
//!
//! Closing a socket with unread input sends a RST, which may overtake the last bytes of an answer.
//! Closing is for that.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use netpoller::reactor::{Descriptor, Direction, Refusal, TryIo};
use socket2::SockRef;

use super::request;

/// Read from a socket or a file at a time.
const PIECE: usize = 64 * 1024;

/// What all connections share.
pub struct Site {
    pub root: PathBuf,
    timeout: Duration,
    /// Room for one piece: a connection that waits for a request holds none.
    buffer: Box<[u8; PIECE]>,
}

impl Site {
    pub fn new(root: &Path, timeout: Duration) -> io::Result<Site> {
        Ok(Site {
            root: root.canonicalize()?,
            timeout,
            buffer: Box::new([0; PIECE]),
        })
    }

    fn deadline(&self) -> Option<Instant> {
        // A time that is too far off for the clock is none.
        Instant::now().checked_add(self.timeout)
    }
}

pub struct Connection {
    pub stream: TcpStream,
    pub descriptor: Descriptor<usize>,
    pub peer: SocketAddr,
    state: State,
}

enum State {
    /// What has come of it. Shorter than `request::LONGEST`.
    Request(Vec<u8>),
    Answer {
        /// Read from the file, or made up here. From `sent` on the kernel has not taken it.
        piece: Vec<u8>,
        sent: usize,
        /// The rest of the body.
        body: Option<(File, u64)>,
    },
    Closing,
}

/// What a step came to.
pub enum Next {
    /// It is parked: a turn will hand its id out.
    Parked,
    /// It can go on, when the others have had their turn.
    Again,
    End(io::Result<()>),
}

impl Connection {
    pub fn new(
        stream: TcpStream,
        descriptor: Descriptor<usize>,
        peer: SocketAddr,
        site: &Site,
    ) -> Connection {
        descriptor.set_deadline(Direction::Read, site.deadline());
        Connection {
            stream,
            descriptor,
            peer,
            state: State::Request(Vec::new()),
        }
    }

    /// At most one read or write, so that a long file does not keep the others waiting.
    pub fn step(&mut self, id: usize, site: &mut Site) -> Next {
        match self.state {
            State::Request(_) => self.read_request(id, site),
            State::Answer { .. } => self.write_answer(id, site),
            State::Closing => self.read_past(id, site),
        }
    }

    fn read_request(&mut self, id: usize, site: &mut Site) -> Next {
        let got = match self.read(id, &mut site.buffer[..]) {
            Ok(0) => return Next::End(Err(ErrorKind::UnexpectedEof.into())),
            Ok(got) => got,
            Err(next) => return next,
        };
        let State::Request(head) = &mut self.state else {
            unreachable!("only a request is read here");
        };
        head.extend_from_slice(&site.buffer[..got]);
        let Some(answer) = request::answer(head, &site.root) else {
            return Next::Again;
        };
        log::debug!("{}: {}", self.peer, answer.status);
        // The answer has a deadline of its own, for the other direction.
        self.descriptor.set_deadline(Direction::Read, None);
        self.descriptor
            .set_deadline(Direction::Write, site.deadline());
        self.state = State::Answer {
            piece: answer.head,
            sent: 0,
            body: answer.body,
        };
        Next::Again
    }

    fn write_answer(&mut self, id: usize, site: &mut Site) -> Next {
        let State::Answer { piece, sent, body } = &mut self.state else {
            unreachable!("only an answer is written here");
        };
        // All of this piece is gone: read the next. A page that is not in memory holds the loop up
        // until the disk has it. A server that must not wait for it reads on a thread.
        if *sent == piece.len() {
            (*sent, *piece) = (0, Vec::new());
            let Some((file, left)) = body.as_mut().filter(|(_, left)| *left > 0) else {
                return self.finish(site);
            };
            let most = usize::try_from(*left).map_or(PIECE, |left| left.min(PIECE));
            match file.read(&mut site.buffer[..most]) {
                // Another program has shortened the file, and its length has been announced.
                Ok(0) => return Next::End(Err(ErrorKind::UnexpectedEof.into())),
                Ok(got) => {
                    *left -= got as u64;
                    piece.extend_from_slice(&site.buffer[..got]);
                }
                Err(error) => return Next::End(Err(error)),
            }
        }
        // The kernel takes what it has room for, and the rest waits for the next step.
        let mut write = || (&self.stream).write(&piece[*sent..]);
        let written = match self.descriptor.try_io(Direction::Write, id, &mut write) {
            TryIo::Parked => return Next::Parked,
            TryIo::Done(written, _) => written,
            // The kernel tells of room once a third of its buffer is free, which a slow client may not
            // reach in time. So before it is judged, a write shows whether it has taken anything.
            TryIo::Refused(refusal, _) => write().map_err(|_| refused(refusal)),
        };
        match written {
            Err(error) => Next::End(Err(error)),
            Ok(gone) => {
                *sent += gone;
                // A client that takes something, however little, is given time for the next piece.
                self.descriptor
                    .set_deadline(Direction::Write, site.deadline());
                Next::Again
            }
        }
    }

    /// Before the end: an answer that was cut off ends with a RST, which no client takes for the
    /// end of the file.
    pub fn reset_if_cut_off(&self) {
        if matches!(self.state, State::Answer { .. }) {
            // If it fails the end is a FIN, and the length in the head tells.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn finish(&mut self, site: &Site) -> Next {
        self.state = State::Closing;
        self.descriptor
            .set_deadline(Direction::Read, site.deadline());
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) => Next::Again,
            // The client has closed both ways meanwhile.
            Err(error) if error.kind() == ErrorKind::NotConnected => Next::End(Ok(())),
            Err(error) => Next::End(Err(error)),
        }
    }

    fn read_past(&mut self, id: usize, site: &mut Site) -> Next {
        match self.read(id, &mut site.buffer[..]) {
            Ok(0) => Next::End(Ok(())),
            Ok(_) => Next::Again,
            // All is written, and the kernel goes on sending it after the close.
            Err(Next::End(_)) => Next::End(Ok(())),
            Err(next) => next,
        }
    }

    /// Reads once. `Err` says that nothing was read, and what comes next.
    fn read(&mut self, id: usize, buffer: &mut [u8]) -> Result<usize, Next> {
        let read = || self.stream.read(buffer);
        match self.descriptor.try_io(Direction::Read, id, read) {
            TryIo::Parked => Err(Next::Parked),
            TryIo::Refused(refusal, _) => Err(Next::End(Err(refused(refusal)))),
            TryIo::Done(result, _) => result.map_err(|error| Next::End(Err(error))),
        }
    }
}

fn refused(refusal: Refusal) -> io::Error {
    let kind = match refusal {
        Refusal::TimedOut => ErrorKind::TimedOut,
        Refusal::Closed => ErrorKind::NotConnected,
    };
    io::Error::new(kind, refusal)
}
