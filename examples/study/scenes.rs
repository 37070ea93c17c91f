//! The servers on the stage, one for each step of the tour. The page shows them as they stand here.

use std::future::Future;
use std::io;
use std::net::TcpListener as Listening;
use std::rc::Rc;
use std::time::Duration;

use netpoller::{Conn, Limits, Protocol, Server, TcpListener, TcpStream, spawn_named, time};

use super::stage::{Gate, Say, Stage, grouped};

/// Accepts, and gives each connection a task.
fn serve<F>(stage: &mut Stage, name: &'static str, each: impl Fn(TcpStream) -> F + 'static)
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let (listening, say) = (stage.listener(), stage.say.clone());
    let accepting = async move {
        if let Err(error) = accept(listening, name, each, &say).await {
            say.say(format!("the accepting task ends: {error}"));
        }
    };
    drop(stage.runtime.spawn_named("acceptor", accepting));
}

async fn accept<F>(
    listening: Listening,
    name: &'static str,
    each: impl Fn(TcpStream) -> F,
    say: &Say,
) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let listener = TcpListener::from_std(listening)?;
    loop {
        let (stream, _) = listener.accept().await?;
        say.say(format!(
            "the acceptor accepts a connection and spawns a {name}"
        ));
        let (serving, said) = (each(stream), say.clone());
        spawn_named(name, async move {
            if let Err(error) = serving.await {
                said.say(format!("the {name} ends: {error}"));
            }
        });
    }
}

// ---- 1: a read that parks ----

async fn read_for_ever(stream: TcpStream, say: Say) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let got = stream.read(&mut buffer).await?;
        say.say(format!("the reader gets {got} bytes"));
        if got == 0 {
            return Ok(());
        }
    }
}

pub fn read(stage: &mut Stage) {
    let say = stage.say.clone();
    serve(stage, "reader", move |stream| {
        read_for_ever(stream, say.clone())
    });
}

// ---- 2: readiness between the try and the park ----

async fn try_then_wait(stream: TcpStream, say: Say, gate: Rc<Gate>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let error = stream.try_read(&mut buffer).unwrap_err();
    say.say(format!("the reader tries: {:?}", error.kind()));
    // The bytes come now, and a turn takes their event in. Nothing is parked.
    gate.pass().await;
    say.say("the reader wants to wait for bytes".to_owned());
    let got = stream.read(&mut buffer).await?;
    say.say(format!("the reader gets {got} bytes, and did not park"));
    stream.read(&mut buffer).await.map(drop)
}

pub fn gap(stage: &mut Stage) {
    let (say, gate) = (stage.say.clone(), stage.gate.clone());
    serve(stage, "reader", move |stream| {
        try_then_wait(stream, say.clone(), gate.clone())
    });
}

// ---- 3: a partial write ----

pub const MUCH: usize = 400_000;

async fn write_much(stream: TcpStream, say: Say, gate: Rc<Gate>) -> io::Result<()> {
    gate.pass().await;
    let much = vec![b'.'; MUCH];
    let mut rest = &much[..];
    while !rest.is_empty() {
        let took = stream.write(rest).await?;
        say.say(format!(
            "write(2) takes {} of {} bytes",
            grouped(took),
            grouped(rest.len())
        ));
        rest = &rest[took..];
    }
    say.say("the writer has written all".to_owned());
    gate.pass().await; // The connection stays open.
    Ok(())
}

pub fn write(stage: &mut Stage) {
    let (say, gate) = (stage.say.clone(), stage.gate.clone());
    serve(stage, "writer", move |stream| {
        write_much(stream, say.clone(), gate.clone())
    });
}

// ---- 4: readiness that must be drained ----

async fn read_two_bytes_at_a_time(stream: TcpStream, say: Say, gate: Rc<Gate>) -> io::Result<()> {
    let mut buffer = [0; 2];
    loop {
        let got = stream.read(&mut buffer).await?;
        say.say(format!("the reader gets {got} bytes; its buffer holds 2"));
        if got == 0 {
            return Ok(());
        }
        gate.pass().await; // It does something else for a while.
    }
}

pub fn small_buffer(stage: &mut Stage) {
    let (say, gate) = (stage.say.clone(), stage.gate.clone());
    serve(stage, "reader", move |stream| {
        read_two_bytes_at_a_time(stream, say.clone(), gate.clone())
    });
}

// ---- 5: a deadline moved by a store ----

async fn read_within_30_seconds(stream: TcpStream, say: Say) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let limit = time::now() + Duration::from_secs(30);
        stream.set_read_deadline(Some(limit))?;
        let got = stream.read(&mut buffer).await?;
        say.say(format!(
            "the reader gets {got} bytes, and moves its deadline"
        ));
        if got == 0 {
            return Ok(());
        }
    }
}

pub fn deadline(stage: &mut Stage) {
    let say = stage.say.clone();
    serve(stage, "reader", move |stream| {
        read_within_30_seconds(stream, say.clone())
    });
}

// ---- 6: a stale event ----

pub fn shared(stage: &mut Stage) {
    let (say, all) = (stage.say.clone(), stage.shared.clone());
    serve(stage, "reader", move |stream| {
        // A clone, so that the server can close it while the reader waits.
        all.borrow_mut().push(stream.clone());
        read_for_ever(stream, say.clone())
    });
}

// ---- 7 to 10: a server of connections ----

/// Sends back what comes. A second after the peer has ended, it says good-bye.
struct Echo(Say);

pub const GOODBYE: &[u8] = b"good-bye";

impl Protocol for Echo {
    fn data(&mut self, conn: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .say(format!("data: {} bytes, echoed", grouped(bytes.len())));
        conn.write(bytes)?;
        Ok(bytes.len())
    }

    fn end(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.0
            .say("end: the peer sends no more; we still may".to_owned());
        conn.set_timer(Some(time::now() + Duration::from_secs(1)));
        Ok(())
    }

    fn timer(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.0.say("timer: says good-bye and closes".to_owned());
        conn.write(GOODBYE)?;
        conn.close();
        Ok(())
    }

    fn writable(&mut self, conn: &mut Conn) -> io::Result<()> {
        let queued = conn.queued();
        self.0.say(format!(
            "writable: {queued} bytes are queued; reading goes on"
        ));
        Ok(())
    }

    fn closed(&mut self, why: io::Result<()>) {
        self.0.say(match why {
            Ok(()) => "closed: in good order".to_owned(),
            Err(error) => format!("closed: {error}"),
        });
    }
}

/// Reading stops above `HIGH_WATER`, and goes on at `LOW_WATER`.
pub const HIGH_WATER: usize = 32 << 10;
pub const LOW_WATER: usize = 8 << 10;

/// The interval of the heartbeats, where there are any.
const BEAT: Duration = Duration::from_secs(16);

fn echo_server(stage: &mut Stage, beats: bool) -> io::Result<()> {
    let (say, listening) = (stage.say.clone(), stage.listener());
    let limits = Limits::default()
        .with_high_water(HIGH_WATER)
        .with_low_water(LOW_WATER);
    let mut server = Server::new(move |_| Echo(say.clone())).limits(limits);
    if beats {
        server = server.heartbeat_with(BEAT, "ping");
    }
    let bound = server.bind_to(listening)?;
    stage.server = Some(bound.handle());
    stage.serving = Some(bound.run_in(&stage.runtime)?);
    Ok(())
}

pub fn echo(stage: &mut Stage) -> io::Result<()> {
    echo_server(stage, false)
}

pub fn beating(stage: &mut Stage) -> io::Result<()> {
    echo_server(stage, true)
}

// ---- 9: a storm of timers ----

pub const STORM: usize = 4_500;

pub fn sleepers(stage: &mut Stage) {
    for _ in 0..STORM {
        let sleep = async { time::sleep(Duration::from_secs(1)).await };
        drop(stage.runtime.spawn_named("sleeper", sleep));
    }
}
