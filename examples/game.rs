//! A game of sixty frames a second, with players over TCP and UDP. A player sends where it goes. Each
//! frame moves all players and sends the same state to each. A player that is silent for three seconds
//! is dropped.
//!
//! ```text
//! cargo run --release --example game                    # 200 simulated players, 5 s; prints how even the frames were
//! cargo run --example game -- --clients 0 --seconds 600 --addr 127.0.0.1:7777
//! (printf '\1\0'; sleep 1) | nc 127.0.0.1 7777 | xxd    # goes right, and sees the world
//! ```
//!
//! The game is the host. In each frame its thread does its own work, sends the state, runs the
//! network, sleeps. `Runtime::turn_for` bounds the network's part, so much input shortens the sleep
//! and does not delay the next frame. At the end the same frames are played without a network, to
//! compare.
//!
//! All numbers on the wire are little-endian. An input is two bytes: steps right, steps down. A state is
//! the frame (4 bytes), the number of players (2), and the place of each (2 and 2).

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use netpoller::{
    Addr, CancelToken, Conn, ConnHandle, Limits, Protocol, Runtime, Server, TcpStream, UdpSocket,
    spawn, time,
};

/// A game of sixty frames a second, with players over TCP and UDP.
#[derive(Clone, Parser)]
struct Flags {
    /// Where to listen, as HOST:PORT; with port 0, TCP and UDP take a free one each
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
    /// How long to play; then it plays without a network, up to 5 s, to compare
    #[arg(long, default_value = "5", value_parser = common::duration)]
    seconds: Duration,
    /// How many players are simulated, half of them by TCP, half by UDP
    #[arg(long, default_value_t = 200)]
    clients: u16,
    /// How many of them fall silent after a second
    #[arg(long, default_value_t = 20)]
    silent: u16,
    /// A player that sends nothing for this time is dropped
    #[arg(long, default_value = "3s", value_parser = common::duration)]
    patience: Duration,
}

const FRAME: Duration = Duration::from_micros(16_667);

/// The game's own work in each frame.
const WORK: Duration = Duration::from_millis(4);

/// The network's part of a frame.
const NETWORK: Duration = Duration::from_millis(8);

/// The time between two inputs of a simulated player.
const INPUT: Duration = Duration::from_millis(50);

/// The state of more players would not fit into a datagram.
const MAX_PLAYERS: usize = 16_000;

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        common::exit_on_signals()?;
        let runtime = Runtime::new()?;
        common::dump_on_quit(runtime.handle())?;
        let world = Rc::new(World::default());
        let bound = server(&world, flags.patience).bind(flags.addr.as_str())?;
        let socket = runtime.block_on(UdpSocket::bind(flags.addr.as_str()))?;
        let (tcp, udp) = (bound.local_addr(), socket.local_addr()?);
        common::announce(tcp)?;
        println!("and on {udp} by UDP");
        drop(bound.run_in(&runtime)?);
        drop(runtime.spawn(listen(socket.clone(), world.clone())));
        let end = CancelToken::new();
        let (simulated, until) = (flags.clone(), end.clone());
        let clients = thread::spawn(move || simulate(&simulated, tcp, udp, &until));

        let mut longest = Duration::ZERO;
        let beside = play(flags.seconds, |number, end| {
            work();
            world.advance();
            world.send_state(number, &runtime, &socket);
            // The network gets its part, but no more time than the frame has left.
            let start = Instant::now();
            let turn = runtime.turn_for(NETWORK.min(end.saturating_duration_since(start)))?;
            // All that had come before `start` has been heard, also if the process was paused.
            if !turn.more {
                world.drop_silent(start, flags.patience);
            }
            longest = longest.max(start.elapsed());
            Ok(())
        })?;
        end.cancel();
        let heard = clients.join().expect("no client panics")?;
        let alone = play(flags.seconds.min(Duration::from_secs(5)), |_, _| {
            work();
            Ok(())
        })?;

        println!("lateness of frames   frames    median       p99   longest");
        show("with the network", beside);
        show("without it", alone);
        println!("the network's part: {longest:.1?} at most, of {NETWORK:.1?}");
        let (inputs, dropped) = (world.inputs.get(), world.dropped.get());
        println!("{inputs} inputs, {heard} states heard, {dropped} players dropped");
        Ok(())
    })
}

// ---- frames ----

/// Plays a frame each 16.7 ms, until `time` has passed. `frame` is given its number and when the next one
/// begins. Returns how late each frame began.
fn play(
    time: Duration,
    mut frame: impl FnMut(u32, Instant) -> io::Result<()>,
) -> io::Result<Vec<Duration>> {
    let start = Instant::now();
    let (mut begins, mut late) = (start, Vec::new());
    // One at least, however short the time is.
    while late.is_empty() || begins - start < time {
        thread::sleep(begins.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        late.push(began - begins);
        // Later frames make up for a delay of a millisecond. A longer one moves all of them, so that no
        // frame has less time than the others.
        begins = begins.max(began - Duration::from_millis(1)) + FRAME;
        frame(late.len() as u32, begins)?;
    }
    Ok(late)
}

/// What the game computes and draws.
fn work() {
    let start = Instant::now();
    while start.elapsed() < WORK {
        std::hint::spin_loop();
    }
}

fn show(what: &str, mut late: Vec<Duration>) {
    late.sort_unstable();
    let at = |share: f64| late[(late.len() as f64 * share) as usize];
    let (frames, median, p99) = (late.len(), at(0.5), at(0.99));
    let longest = late[frames - 1];
    println!("{what:<20}{frames:>7}{median:>10.0?}{p99:>10.0?}{longest:>10.0?}");
}

// ---- the world ----

/// It belongs to the game's thread. The connections run there too, so it needs no lock.
#[derive(Default)]
struct World {
    players: RefCell<BTreeMap<Name, Player>>,
    inputs: Cell<u64>,
    dropped: Cell<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// Counted from zero.
    Tcp(u64),
    Udp(SocketAddr),
}

struct Player {
    place: [u16; 2],
    /// Steps right and down in each frame.
    steps: [i8; 2],
    heard: Instant,
    /// Of a player over TCP.
    handle: Option<ConnHandle>,
}

impl World {
    /// A new player. False if there is no room.
    fn join(&self, name: Name, handle: Option<ConnHandle>) -> bool {
        let mut players = self.players.borrow_mut();
        let has_room = players.len() < MAX_PLAYERS;
        if has_room {
            let player = Player {
                place: [0, 0],
                steps: [0, 0],
                heard: Instant::now(),
                handle,
            };
            players.insert(name, player);
        }
        has_room
    }

    /// An input, unless there is no such player.
    fn input(&self, name: Name, steps: [u8; 2]) {
        if let Some(player) = self.players.borrow_mut().get_mut(&name) {
            player.steps = steps.map(u8::cast_signed);
            player.heard = Instant::now();
            self.inputs.set(self.inputs.get() + 1);
        }
    }

    /// Moves all players.
    fn advance(&self) {
        for player in self.players.borrow_mut().values_mut() {
            for (place, steps) in player.place.iter_mut().zip(player.steps) {
                *place = place.wrapping_add_signed(i16::from(steps));
            }
        }
    }

    /// Drops the players over UDP that were silent at this time. Over TCP the idle timeout does that.
    fn drop_silent(&self, at: Instant, patience: Duration) {
        self.players.borrow_mut().retain(|name, player| {
            let silence = at.saturating_duration_since(player.heard);
            let is_silent = matches!(name, Name::Udp(_)) && silence > patience;
            self.dropped.set(self.dropped.get() + u64::from(is_silent));
            !is_silent
        });
    }

    /// Sends the same bytes to all players, and waits for none: by TCP they are queued, within the
    /// limits; a task of its own sends the datagrams, and waits while the system has no room for one.
    fn send_state(&self, frame: u32, runtime: &Runtime, socket: &UdpSocket) {
        let players = self.players.borrow();
        let mut state = frame.to_le_bytes().to_vec();
        state.extend((players.len() as u16).to_le_bytes());
        let places = players.values().flat_map(|player| player.place);
        state.extend(places.flat_map(u16::to_le_bytes));
        let state: Rc<[u8]> = state.into();
        for handle in players.values().filter_map(|player| player.handle.as_ref()) {
            // A connection that takes no more ends, and `closed` takes it out of the world.
            let _ = handle.write_shared(&state);
        }
        let addresses = players.keys().filter_map(|name| match name {
            Name::Udp(address) => Some(*address),
            Name::Tcp(_) => None,
        });
        let (addresses, socket) = (addresses.collect::<Vec<_>>(), socket.clone());
        drop(runtime.spawn(async move {
            for address in addresses {
                if let Err(error) = socket.send_to(&state, address).await {
                    log::debug!("{error}");
                }
            }
        }));
    }
}

// ---- players by TCP ----

struct TcpPlayer {
    world: Rc<World>,
    name: Name,
}

fn server(world: &Rc<World>, patience: Duration) -> Server<impl Fn(Addr) -> TcpPlayer + use<>> {
    let (world, joined) = (world.clone(), Cell::new(0));
    let player = move |_peer| TcpPlayer {
        world: world.clone(),
        name: Name::Tcp(joined.replace(joined.get() + 1)),
    };
    Server::new(player)
        .idle_timeout(patience)
        // Some seconds of states. A player so far behind is dropped.
        .limits(Limits::default().with_most_queued(64 << 10))
}

impl Protocol for TcpPlayer {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        match self.world.join(self.name, Some(conn.handle())) {
            true => Ok(()),
            false => Err(io::Error::other("the world is full")),
        }
    }

    fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        let (inputs, half) = bytes.as_chunks();
        for steps in inputs {
            self.world.input(self.name, *steps);
        }
        Ok(bytes.len() - half.len())
    }

    fn idle(&mut self, _: &mut Conn) -> io::Result<()> {
        self.world.dropped.set(self.world.dropped.get() + 1);
        Ok(())
    }

    fn closed(&mut self, _why: io::Result<()>) {
        self.world.players.borrow_mut().remove(&self.name);
    }
}

// ---- players by UDP ----

/// A datagram from a new address is a new player.
async fn listen(socket: UdpSocket, world: Rc<World>) {
    let mut steps = [0; 2];
    loop {
        match socket.recv_from(&mut steps).await {
            Ok((2, address)) => {
                let name = Name::Udp(address);
                let is_known = world.players.borrow().contains_key(&name);
                if is_known || world.join(name, None) {
                    world.input(name, steps);
                }
            }
            Ok(_) => {}
            Err(error) => log::debug!("{error}"),
        }
    }
}

// ---- simulated players, on a thread of their own ----

/// Returns how many states they heard.
fn simulate(flags: &Flags, tcp: SocketAddr, udp: SocketAddr, end: &CancelToken) -> io::Result<u64> {
    let heard = Rc::new(Cell::new(0));
    Runtime::new()?.block_on(async {
        for number in 0..flags.clients {
            let talks = match number < flags.silent {
                true => Duration::from_secs(1),
                false => Duration::MAX,
            };
            let heard = heard.clone();
            drop(spawn(async move {
                let played = match number % 2 {
                    0 => play_by_tcp(tcp, talks, &heard).await,
                    _ => play_by_udp(udp, talks, &heard).await,
                };
                if let Err(error) = played {
                    log::info!("player {number}: {error}");
                }
            }));
        }
        end.canceled().await;
    });
    Ok(heard.get())
}

/// Sends an input each `INPUT`, for the time `talks`.
async fn talk(talks: Duration, mut send: impl AsyncFnMut() -> io::Result<()>) {
    let mut interval = time::interval(INPUT);
    let start = Instant::now();
    while start.elapsed() < talks && send().await.is_ok() {
        interval.tick().await;
    }
}

async fn play_by_tcp(server: SocketAddr, talks: Duration, heard: &Cell<u64>) -> io::Result<()> {
    let stream = TcpStream::connect(server).await?;
    let writer = stream.clone();
    let send = async move || writer.write_all(&[1, 0]).await;
    drop(spawn(talk(talks, send)));
    let (mut head, mut places) = ([0; 6], Vec::new());
    // Until it is dropped.
    while stream.read_exact(&mut head).await.is_ok() {
        places.resize(4 * usize::from(u16::from_le_bytes([head[4], head[5]])), 0);
        stream.read_exact(&mut places).await?;
        heard.set(heard.get() + 1);
    }
    Ok(())
}

async fn play_by_udp(server: SocketAddr, talks: Duration, heard: &Cell<u64>) -> io::Result<()> {
    let socket = UdpSocket::bind(":0").await?;
    socket.connect(server).await?;
    let writer = socket.clone();
    let send = async move || writer.send(&[0, 1]).await.map(drop);
    drop(spawn(talk(talks, send)));
    let mut state = vec![0; 6 + 4 * MAX_PLAYERS];
    loop {
        socket.recv(&mut state).await?;
        heard.set(heard.get() + 1);
    }
}
