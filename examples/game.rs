//! A game of sixty frames a second, whose players come by TCP or by UDP. Players send which way they
//! go; each frame moves all of them and sends every one the same state. Who is silent for three
//! seconds is dropped.
//!
//! ```text
//! cargo run --release --example game                    # 200 simulated players, 5 s; then prints how even the frames were
//! cargo run --example game -- --clients 0 --seconds 600 --addr 127.0.0.1:7777
//! (printf '\1\0'; sleep 1) | nc 127.0.0.1 7777 | xxd    # goes right, and sees the world
//! ```
//!
//! The host is the game. It has one thread, and its frame is: the game's own work, the state to all,
//! the network's turn, and sleep. `Runtime::turn_for` bounds the network's part, so a flood of input
//! takes from the sleep and not from the next frame. In the end the same frames are played without a
//! network, to compare.
//!
//! On the wire, all numbers little-endian: an input is two bytes, the steps right and down; a state
//! is the frame (4 bytes), the number of players (2), and for each its place (2 and 2).

mod common;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use netpoller::{
    CancelToken, Conn, ConnHandle, Limits, Protocol, Runtime, Server, TcpStream, UdpSocket, spawn,
    time,
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
    /// The game's own work in each frame
    #[arg(long, default_value = "4ms", value_parser = common::duration)]
    work: Duration,
    /// The network's part of a frame
    #[arg(long, default_value = "8ms", value_parser = common::duration)]
    network: Duration,
}

const FRAME: Duration = Duration::from_micros(16_667);

/// A simulated player says where it goes so often.
const INPUT: Duration = Duration::from_millis(50);

/// The state of more would not fit into a datagram.
const MAX_PLAYERS: usize = 16_000;

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| {
        let runtime = Runtime::new()?;
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

        let signals = common::stop_signals()?;
        signals.set_nonblocking(true)?;
        let mut stopped = false;
        let mut goes_on = || {
            stopped |= (&signals).read(&mut [0]).is_ok();
            !stopped
        };
        let mut longest = Duration::ZERO;
        let beside = play(flags.seconds, &mut goes_on, |number, end| {
            work(flags.work);
            world.step(flags.patience);
            world.send_state(number, &runtime, &socket);
            // The network has its part, but never more than the frame has left.
            let start = Instant::now();
            let left = end.saturating_duration_since(start);
            runtime.turn_for(flags.network.min(left))?;
            longest = longest.max(start.elapsed());
            Ok(())
        })?;
        end.cancel();
        let left = world.players.borrow().len();
        let heard = clients.join().expect("no client panics")?;
        drop(runtime);
        let seconds = flags.seconds.min(Duration::from_secs(5));
        let alone = play(seconds, &mut goes_on, |_, _| {
            work(flags.work);
            Ok(())
        })?;

        println!("lateness of frames   frames    median       p99   longest");
        show("with the network", beside);
        show("without it", alone);
        println!(
            "the network's part: {:.1?} at most, of {:.1?}",
            longest, flags.network
        );
        println!(
            "{} inputs, {heard} states heard, {} players dropped, {} left",
            world.inputs.get(),
            world.dropped.get(),
            left
        );
        Ok(())
    })
}

// ---- frames ----

/// Plays for so long or until a signal, a frame each 16.7 ms. `frame` is given its number, and when the next one is to
/// begin. Returns by how much each began too late. One that is late moves those after it, so that
/// none has less time than the others.
fn play(
    time: Duration,
    goes_on: &mut dyn FnMut() -> bool,
    mut frame: impl FnMut(u32, Instant) -> io::Result<()>,
) -> io::Result<Vec<Duration>> {
    let start = Instant::now();
    let (mut begins, mut late) = (start, Vec::new());
    while begins < start + time && goes_on() {
        thread::sleep(begins.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        let number = late.len() as u32;
        late.push(began - begins);
        // A late frame of a millisecond is made up for; a longer stall is not.
        begins = begins.max(began - Duration::from_millis(1)) + FRAME;
        frame(number, begins)?;
    }
    Ok(late)
}

/// What the game computes and draws.
fn work(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn show(what: &str, mut late: Vec<Duration>) {
    late.sort_unstable();
    let at = |share: f64| late.get((late.len() as f64 * share) as usize).copied();
    let [median, p99] = [0.5, 0.99].map(|share| at(share).unwrap_or_default());
    let longest = late.last().copied().unwrap_or_default();
    println!(
        "{what:<20}{:>7}{median:>10.0?}{p99:>10.0?}{longest:>10.0?}",
        late.len()
    );
}

// ---- the world ----

struct Player {
    place: [u16; 2],
    /// Steps right and down in each frame.
    steps: [i8; 2],
    heard: Instant,
    link: Link,
}

enum Link {
    Tcp(ConnHandle),
    Udp(SocketAddr),
}

/// All of it belongs to the game's thread, on which the connections run too.
#[derive(Default)]
struct World {
    players: RefCell<BTreeMap<u32, Player>>,
    by_address: RefCell<HashMap<SocketAddr, u32>>,
    /// Players so far.
    joined: Cell<u32>,
    inputs: Cell<u64>,
    dropped: Cell<u64>,
}

impl World {
    /// A new player, if there is room.
    fn join(&self, link: Link) -> Option<u32> {
        let mut players = self.players.borrow_mut();
        if players.len() == MAX_PLAYERS {
            return None;
        }
        let id = self.joined.get();
        self.joined.set(id + 1);
        let player = Player {
            place: [0, 0],
            steps: [0, 0],
            heard: Instant::now(),
            link,
        };
        players.insert(id, player);
        Some(id)
    }

    fn input(&self, id: u32, [right, down]: [u8; 2]) {
        if let Some(player) = self.players.borrow_mut().get_mut(&id) {
            player.steps = [right.cast_signed(), down.cast_signed()];
            player.heard = Instant::now();
            self.inputs.set(self.inputs.get() + 1);
        }
    }

    /// Moves all players. UDP has no end, so who is silent for long is dropped here; over TCP, by the
    /// server's idle timeout.
    fn step(&self, patience: Duration) {
        self.players.borrow_mut().retain(|_, player| {
            for (place, steps) in player.place.iter_mut().zip(player.steps) {
                *place = place.wrapping_add_signed(i16::from(steps));
            }
            match player.link {
                Link::Udp(address) if player.heard.elapsed() > patience => {
                    self.by_address.borrow_mut().remove(&address);
                    self.dropped.set(self.dropped.get() + 1);
                    false
                }
                _ => true,
            }
        });
    }

    /// The same bytes to all. The frame does not wait for any: to TCP it is queued, within the
    /// limits; a datagram that finds no room is lost, as on its way.
    fn send_state(&self, frame: u32, runtime: &Runtime, socket: &UdpSocket) {
        let players = self.players.borrow();
        let mut state = frame.to_le_bytes().to_vec();
        state.extend((players.len() as u16).to_le_bytes());
        let places = players.values().flat_map(|player| player.place);
        state.extend(places.flat_map(u16::to_le_bytes));
        let state: Rc<[u8]> = state.into();
        let mut addresses = Vec::new();
        for player in players.values() {
            match &player.link {
                Link::Tcp(handle) => {
                    // Its own end takes it out of the world.
                    let _ = handle.write_shared(&state);
                }
                Link::Udp(address) => addresses.push(*address),
            }
        }
        let socket = socket.clone();
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
    id: Option<u32>,
}

fn server(
    world: &Rc<World>,
    patience: Duration,
) -> Server<impl Fn(netpoller::Addr) -> TcpPlayer + use<>> {
    let world = world.clone();
    Server::new(move |_peer| TcpPlayer {
        world: world.clone(),
        id: None,
    })
    .idle_timeout(patience)
    // A player that does not read is a second behind, and ends.
    .limits(Limits::default().with_most_queued(64 << 10))
}

impl Protocol for TcpPlayer {
    fn open(&mut self, conn: &mut Conn) -> io::Result<()> {
        self.id = self.world.join(Link::Tcp(conn.handle()));
        match self.id {
            Some(_) => Ok(()),
            None => Err(io::Error::other("the world is full")),
        }
    }

    fn data(&mut self, _: &mut Conn, bytes: &[u8]) -> io::Result<usize> {
        let (inputs, half) = bytes.as_chunks();
        for input in inputs {
            self.id.iter().for_each(|&id| self.world.input(id, *input));
        }
        Ok(bytes.len() - half.len())
    }

    fn idle(&mut self, _: &mut Conn) -> io::Result<()> {
        self.world.dropped.set(self.world.dropped.get() + 1);
        Ok(())
    }

    fn closed(&mut self, why: io::Result<()>) {
        if let Err(error) = why {
            log::debug!("a player is lost: {error}");
        }
        if let Some(id) = self.id {
            self.world.players.borrow_mut().remove(&id);
        }
    }
}

// ---- players by UDP ----

/// A datagram from a new address is a new player.
async fn listen(socket: UdpSocket, world: Rc<World>) {
    let mut input = [0; 2];
    loop {
        match socket.recv_from(&mut input).await {
            Ok((2, address)) => {
                let known = world.by_address.borrow().get(&address).copied();
                let id = known.or_else(|| world.join(Link::Udp(address)));
                if let Some(id) = id {
                    world.by_address.borrow_mut().insert(address, id);
                    world.input(id, input);
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

async fn play_by_tcp(server: SocketAddr, talks: Duration, heard: &Cell<u64>) -> io::Result<()> {
    let stream = TcpStream::connect(server).await?;
    let writer = stream.clone();
    drop(spawn(async move {
        let mut interval = time::interval(INPUT);
        let start = Instant::now();
        while start.elapsed() < talks && writer.write_all(&[1, 0]).await.is_ok() {
            interval.tick().await;
        }
    }));
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
    drop(spawn(async move {
        let mut interval = time::interval(INPUT);
        let start = Instant::now();
        while start.elapsed() < talks && writer.send(&[0, 1]).await.is_ok() {
            interval.tick().await;
        }
    }));
    let mut state = vec![0; 6 + 4 * MAX_PLAYERS];
    loop {
        socket.recv(&mut state).await?;
        heard.set(heard.get() + 1);
    }
}
