//! One connection: a state machine that takes a step each time its id is handed out.
//!
//! | state | what it does | its deadline | on to |
//! |---|---|---|---|
//! | Request | reads up to the blank line | for the whole request | Answer |
//! | Answer | writes the head, then the file, a piece at a time | moved when a part is taken | Closing |
//! | Closing | has sent its FIN, and discards what still comes | for the client's FIN | the end |
//!
//! Closing is there because a close with unread input sends a RST, which may overtake the answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use netpoller::reactor::{Descriptor, Direction, Reactor, TryIo};
use socket2::SockRef;

use super::request::{self, Answer};
use super::{Flags, Id};

/// How much of a file is read at a time.
const PIECE: u64 = 64 * 1024;

pub struct Connection {
    pub stream: TcpStream,
    pub descriptor: Descriptor<Id>,
    state: State,
}

enum State {
    /// What has come so far.
    Request(Vec<u8>),
    /// How many of the answer's `bytes` the kernel has taken.
    Answer(Answer, usize),
    Closing,
}

/// What follows a step. An error ends the connection.
pub enum Next {
    /// It is parked: a turn will hand its id out.
    Parked,
    /// It can go on. The others have their turn first.
    Again,
    End,
}

impl Connection {
    pub fn open(mut stream: TcpStream, reactor: &Reactor<Id>, flags: &Flags) -> io::Result<Self> {
        let connection = Connection {
            descriptor: reactor.open(&mut stream)?,
            stream,
            state: State::Request(Vec::new()),
        };
        connection.set_deadline(Direction::Read, flags);
        Ok(connection)
    }

    /// Reads or writes once, so that a long file does not keep the others waiting.
    pub fn step(&mut self, id: Id, flags: &Flags) -> io::Result<Next> {
        match self.state {
            State::Request(_) => self.read_request(id, flags),
            State::Answer(..) => self.write_answer(id, flags).inspect_err(|_| {
                // The answer is cut off. A RST says so; if it can't be sent, the length in the head does.
                let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
            }),
            State::Closing => match self.read(id, &mut [0; 4096]) {
                Ok(None) => Ok(Next::Parked),
                Ok(Some(1..)) => Ok(Next::Again),
                // The client's FIN; or its RST, or the deadline, which no longer matter.
                Ok(Some(0)) | Err(_) => Ok(Next::End),
            },
        }
    }

    fn read_request(&mut self, id: Id, flags: &Flags) -> io::Result<Next> {
        let mut buffer = [0; 4096];
        let got = match self.read(id, &mut buffer)? {
            None => return Ok(Next::Parked),
            Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Some(got) => got,
        };
        if let State::Request(head) = &mut self.state {
            head.extend_from_slice(&buffer[..got]);
            if let Some(answer) = request::answer(head, &flags.root) {
                self.state = State::Answer(answer, 0);
                self.set_deadline(Direction::Write, flags);
            }
        }
        Ok(Next::Again)
    }

    fn write_answer(&mut self, id: Id, flags: &Flags) -> io::Result<Next> {
        let State::Answer(Answer { bytes, body }, sent) = &mut self.state else {
            unreachable!("called in this state alone");
        };
        // The kernel has taken all of this piece: read the next. A page that is not in memory holds
        // up the loop until the disk has it. A server that must not wait reads on another thread.
        if *sent == bytes.len() {
            (*bytes, *sent) = (Vec::new(), 0);
            body.take(PIECE).read_to_end(bytes)?;
            if bytes.is_empty() {
                if body.limit() > 0 {
                    // The file has become shorter than the head has said.
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                self.stream.shutdown(Shutdown::Write)?;
                self.state = State::Closing;
                self.set_deadline(Direction::Read, flags);
                return Ok(Next::Again);
            }
        }
        // The kernel takes what it has room for. The next step writes the rest.
        let mut write = || (&self.stream).write(&bytes[*sent..]);
        *sent += match self.descriptor.try_io(Direction::Write, id, &mut write) {
            TryIo::Parked => return Ok(Next::Parked),
            TryIo::Done(written, _) => written?,
            // The kernel reports room only when a third of its buffer is free, and a slow client may
            // need longer for so much. This write finds out whether it has taken anything.
            TryIo::Refused(refusal, _) => write().map_err(|_| io::Error::other(refusal))?,
        };
        self.set_deadline(Direction::Write, flags);
        Ok(Next::Again)
    }

    /// Reads once. `None` says that the id is parked.
    fn read(&mut self, id: Id, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = || self.stream.read(buffer);
        match self.descriptor.try_io(Direction::Read, id, read) {
            TryIo::Parked => Ok(None),
            TryIo::Done(got, _) => got.map(Some),
            TryIo::Refused(refusal, _) => Err(io::Error::other(refusal)),
        }
    }

    fn set_deadline(&self, direction: Direction, flags: &Flags) {
        // A timeout that is too long for the clock is none.
        let deadline = Instant::now().checked_add(flags.timeout);
        self.descriptor.set_deadline(direction, deadline);
    }
}
