//! A connection: pipelining, keep-alive, and its deadlines.
//!
//! ```text
//!   read ──► take requests ──► answer them all, in one write ──► keep-alive? ──► read …
//!    │            └─ refused: answer, close                          └─ no: close
//!    └─ nothing for too long: close; half a request: 408, close
//! ```

use std::io;
use std::time::Duration;

use netpoller::net::Serve;
use netpoller::{NetError, TcpListener, TcpStream, time};

use super::request::{Taken, take};
use super::response::{CONTINUE, Status, refuse, respond};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a request's first byte to its last; and for the client to take its answers.
    pub request: Duration,
    /// Between two requests.
    pub idle: Duration,
    pub connections: usize,
}

/// How long the client has to read the answer and close.
const GOODBYE: Duration = Duration::from_secs(2);

pub async fn serve(listener: TcpListener, limits: Limits) -> io::Result<()> {
    let serve = Serve::new(listener).max_connections(limits.connections);
    let each = move |stream, peer| async move {
        if let Err(error) = converse(&stream, limits).await {
            // Load generators leave in the midst of a response, so this is no warning.
            log::debug!("{peer}: {error}");
        }
    };
    serve.run(each).await
}

async fn converse(stream: &TcpStream, limits: Limits) -> io::Result<()> {
    let mut bytes = Vec::new();
    // Whether a request has come in part and has its deadline. The deadline does not move with the
    // bytes: a client that sends a byte now and then gets no more time than others.
    let mut begun = false;
    loop {
        if !begun {
            begun = !bytes.is_empty();
            let limit = if begun { limits.request } else { limits.idle };
            stream.set_read_deadline(Some(time::now() + limit))?;
        }
        let mut answers = Vec::new();
        let mut keep_alive = true;
        let read = stream.read_with(|more| {
            bytes.extend_from_slice(more);
            more.len()
        });
        match read.await {
            Ok(0) => return stream.close(),
            Ok(_) => {}
            Err(error) if error.is_timeout() && begun => {
                keep_alive = false;
                refuse(Status::TIMEOUT).put(&mut answers, keep_alive, true);
            }
            Err(error) if error.is_timeout() => return stream.close(),
            Err(error) => return Err(error),
        }
        while keep_alive {
            match take(&mut bytes) {
                Ok(Taken::Part) => break,
                Ok(Taken::Expects) => {
                    answers.extend(CONTINUE);
                    break;
                }
                Ok(Taken::Request(request)) => {
                    begun = false;
                    keep_alive = request.keep_alive;
                    let with_body = request.method != "HEAD";
                    respond(&request).put(&mut answers, keep_alive, with_body);
                }
                Err(status) => {
                    keep_alive = false;
                    refuse(status).put(&mut answers, keep_alive, true);
                }
            }
        }
        stream.set_write_deadline(Some(time::now() + limits.request))?;
        stream.write_all(&answers).await?;
        if !keep_alive {
            return say_goodbye(stream).await;
        }
    }
}

/// Closes so that the answer is read. Closing with unread bytes sends a RST, which may overtake the
/// answer.
async fn say_goodbye(stream: &TcpStream) -> io::Result<()> {
    stream.close_write()?;
    stream.set_read_deadline(Some(time::now() + GOODBYE))?;
    loop {
        match stream.read_with(<[u8]>::len).await {
            Ok(0) => return stream.close(),
            Ok(_) => {}
            Err(error) if error.is_timeout() => return stream.close(),
            Err(error) => return Err(error),
        }
    }
}
