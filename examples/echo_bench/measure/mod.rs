//! One cell of the run: one mode, one number of connections, from the server's start to its stop.

pub mod cpu;
pub mod deadline;
pub mod memory;
pub mod server;
pub mod system;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::load::connection::Shape;
use crate::load::{FlatOut, Load, Paced, STEP};
use crate::serve::{Counts, Mode};
use cpu::{ClientThreads, Cpu};
use server::Server;

/// Below this, what a server holds without connections hides what it holds for each.
const ENOUGH_FOR_MEMORY: usize = 500;

/// The server that is loaded.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Own(Mode),
    /// A server that runs already: no figures of its inside are available.
    Running(SocketAddr),
}

impl Target {
    pub fn name(self) -> String {
        match self {
            Target::Own(mode) => mode.to_string(),
            Target::Running(address) => address.to_string(),
        }
    }
}

/// Where the two sides run.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    pub server: Option<usize>,
    pub loader_has_its_own: bool,
}

pub struct Order {
    pub target: Target,
    pub connections: usize,
    pub shape: Shape,
    pub cpus: Cpus,
    /// The end of the time for this cell.
    pub end: Instant,
}

pub struct Cell {
    pub target: Target,
    pub connections: usize,
    pub flat_out: FlatOut,
    pub paced: Paced,
    /// CPU time of the server's threads, while flat out.
    pub cpu: Option<Cpu>,
    /// Bytes of the server for each idle connection.
    pub memory: Option<f64>,
    pub counts: Option<Counts>,
}

impl Cell {
    pub fn messages_per_second(&self) -> f64 {
        self.flat_out.messages as f64 / self.flat_out.elapsed.as_secs_f64()
    }

    /// In microseconds, from the time a message was due.
    pub fn latency(&self, percentile: f64) -> f64 {
        self.paced.latencies.value_at_percentile(percentile) as f64 / 1000.0
    }

    pub fn latency_max(&self) -> f64 {
        self.paced.latencies.max() as f64 / 1000.0
    }

    /// User and system nanoseconds of the server for each message.
    pub fn cpu_per_message(&self) -> Option<(f64, f64)> {
        let (user, system) = self.cpu?.split()?;
        let messages = self.flat_out.messages as f64;
        (messages > 0.0).then(|| (user / messages, system / messages))
    }

    /// How much of the time the server's threads ran, while flat out. 1 is one CPU's worth.
    pub fn server_busy(&self) -> Option<f64> {
        Some(self.cpu?.total() / self.flat_out.elapsed.as_nanos() as f64)
    }
}

/// Runs one cell. `say` receives what is going on.
pub fn run(order: &Order, clients: &ClientThreads, say: impl Fn(&str)) -> Result<Cell, String> {
    say("starting");
    let mut load = Load::new(order.shape, order.cpus.loader_has_its_own)?;
    match order.target {
        Target::Running(address) => measure(order, address, &mut load, None, say),
        Target::Own(mode) => {
            let server = Server::start(mode, order.cpus.server)?;
            match measure(order, server.address, &mut load, Some(clients), say) {
                Ok(mut cell) => {
                    drop(load);
                    cell.counts = Some(server.stop()?);
                    Ok(cell)
                }
                Err(seen) => Err(server.post_mortem(seen)),
            }
        }
    }
}

fn measure(
    order: &Order,
    address: SocketAddr,
    load: &mut Load,
    clients: Option<&ClientThreads>,
    say: impl Fn(&str),
) -> Result<Cell, String> {
    say("connecting");
    let memory = connect(order, address, load)?.filter(|_| clients.is_some());

    // A tenth of what is left is for stopping, a tenth for warming up, the rest for the two parts that count.
    let left = order.end.saturating_duration_since(Instant::now());
    say("warming up");
    load.begin()?;
    load.flat_out(part(left / 10, order.connections))?;

    say("flat out");
    let length = part(left * 4 / 10, order.connections);
    let before = clients.and_then(ClientThreads::server_cpu);
    let flat_out = load.flat_out(length)?;
    let after = clients.and_then(ClientThreads::server_cpu);
    load.settle()?;

    say("paced at half of that");
    let rate = flat_out.messages as f64 / flat_out.elapsed.as_secs_f64() / 2.0;
    let paced = load.paced(length, rate.max(1.0))?;
    Ok(Cell {
        target: order.target,
        connections: order.connections,
        flat_out,
        paced,
        cpu: before.zip(after).map(|(before, after)| after - before),
        memory,
        counts: None,
    })
}

/// Opens the connections and serves each once. What the server holds is read after the first and after the last, so
/// that what it allocates once is not counted.
fn connect(order: &Order, address: SocketAddr, load: &mut Load) -> Result<Option<f64>, String> {
    load.connect(address, 1)?;
    let before = memory::server_bytes();
    load.connect(address, order.connections)?;
    let grown = memory::server_bytes() - before;
    let more = order.connections - 1;
    Ok((more >= ENOUGH_FOR_MEMORY).then(|| grown as f64 / more as f64))
}

/// Whole steps, and enough time for a turn of every connection.
fn part(length: Duration, connections: usize) -> Duration {
    let length = length.max(Duration::from_micros(20) * connections as u32);
    STEP * (length.as_millis() / STEP.as_millis()).max(1) as u32
}
