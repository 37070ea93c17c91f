//! The flags, and the plan that is made of them. Everything that can be wrong is found here, before the run.

use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::load::connection::Shape;
use crate::measure::Target;
use crate::measure::system;
use crate::report::grouped;
use crate::serve::Mode;

/// Descriptors that are not connections: the standard three, listeners, polls, /proc.
const OTHER_DESCRIPTORS: usize = 64;
/// The most that `max` stands for: more connections take much kernel memory.
const MOST_UNASKED: usize = 20_000;
/// The most bytes in flight at once: the kernel has to hold them.
const MOST_IN_FLIGHT: u64 = 1 << 30;
/// Below this a cell has no time for its parts.
const LEAST_CELL: Duration = Duration::from_millis(500);

/// Starts the echo server, loads it over loopback TCP, checks every echoed byte, and shows what it can do.
#[derive(Parser, Debug)]
pub struct Flags {
    /// Length of the whole run in seconds, set-up included
    #[arg(long, default_value_t = 24.0)]
    seconds: f64,
    /// Numbers of connections, as 1,50,max or one at a time; max is what the descriptor limit allows
    /// [default: 1,50,1000,max]
    #[arg(long, value_delimiter = ',', value_parser = parse_count)]
    connections: Vec<Count>,
    /// Bytes in a message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    size: u64,
    /// Messages in flight on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    depth: u64,
    /// How the server is written [default: all ways]
    #[arg(long, value_delimiter = ',', value_enum, conflicts_with = "addr")]
    mode: Vec<Mode>,
    /// Print JSON, and nothing else, on standard output
    #[arg(long)]
    json: bool,
    /// Where the page with the pictures goes [default: target/echo_bench.html, or the temporary directory]
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
    /// Load a server that is already running, as HOST:PORT
    #[arg(long)]
    addr: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Count {
    Exactly(usize),
    Max,
}

/// Numbers that the descriptor limit does not allow are left out.
const DEFAULT_COUNTS: [Count; 4] = [
    Count::Exactly(1),
    Count::Exactly(50),
    Count::Exactly(1000),
    Count::Max,
];

fn parse_count(text: &str) -> Result<Count, String> {
    match text.trim() {
        "max" => Ok(Count::Max),
        number => match number.parse() {
            Ok(0) => Err("a load needs at least 1 connection".to_owned()),
            Ok(count) => Ok(Count::Exactly(count)),
            Err(_) => Err("neither a number nor max".to_owned()),
        },
    }
}

/// What is going to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub length: Duration,
    pub targets: Vec<Target>,
    pub counts: Vec<usize>,
    pub shape: Shape,
    pub json: bool,
    pub html: PathBuf,
}

impl Flags {
    /// Checks the flags, and makes the plan.
    pub fn plan(self) -> Result<Plan, String> {
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(format!(
                "--seconds {}: it takes more than 0 and at most 3600",
                self.seconds
            ));
        }
        let targets = self.targets()?;
        let counts = self.counts()?;
        let plan = Plan {
            length: Duration::from_secs_f64(self.seconds),
            targets,
            counts,
            shape: Shape {
                size: self.size,
                depth: self.depth,
            },
            json: self.json,
            html: self.html.unwrap_or_else(default_page),
        };
        plan.check_time()?;
        plan.check_in_flight()?;
        check_writable(&plan.html)
            .map_err(|error| format!("--html {}: {error}", plan.html.display()))?;
        Ok(plan)
    }

    fn targets(&self) -> Result<Vec<Target>, String> {
        let Some(text) = &self.addr else {
            let mut modes = if self.mode.is_empty() {
                Mode::value_variants().to_vec()
            } else {
                self.mode.clone()
            };
            let mut seen = Vec::new();
            modes.retain(|&mode| {
                !seen.contains(&mode) && {
                    seen.push(mode);
                    true
                }
            });
            return Ok(modes.into_iter().map(Target::Own).collect());
        };
        let address = reachable(text).map_err(|error| format!("--addr {text}: {error}"))?;
        Ok(vec![Target::Running(address)])
    }

    fn counts(&self) -> Result<Vec<usize>, String> {
        let (each, limit) = (
            if self.addr.is_some() { 1 } else { 2 },
            system::descriptor_limit(),
        );
        let by_descriptors = limit.saturating_sub(OTHER_DESCRIPTORS) / each;
        let most = by_descriptors.min(system::local_ports());
        let given = !self.connections.is_empty();
        let mut counts = Vec::new();
        for &count in if given {
            &self.connections
        } else {
            &DEFAULT_COUNTS[..]
        } {
            let count = match count {
                Count::Max => most.min(MOST_UNASKED),
                Count::Exactly(count) if count <= most => count,
                Count::Exactly(_) if !given => continue,
                Count::Exactly(count) if count > by_descriptors => {
                    return Err(format!(
                        "--connections {count}: each takes {each} of the {limit} descriptors, \
                         so {by_descriptors} is the most (ulimit -n raises it)"
                    ));
                }
                Count::Exactly(count) => {
                    return Err(format!(
                        "--connections {count}: there are local ports for {most} to one address"
                    ));
                }
            };
            if count > 0 && !counts.contains(&count) {
                counts.push(count);
            }
        }
        if counts.is_empty() {
            return Err(format!(
                "a limit of {limit} descriptors leaves none for connections (ulimit -n raises it)"
            ));
        }
        Ok(counts)
    }
}

impl Plan {
    pub fn cells(&self) -> usize {
        self.targets.len() * self.counts.len()
    }

    fn check_time(&self) -> Result<(), String> {
        let least = LEAST_CELL * self.cells() as u32;
        if self.length >= least {
            return Ok(());
        }
        let (given, cells, least) = (self.length.as_secs_f64(), self.cells(), least.as_secs_f64());
        Err(format!(
            "--seconds {given}: {cells} measurements need at least {least}"
        ))
    }

    fn check_in_flight(&self) -> Result<(), String> {
        let most = self.counts.iter().copied().max().unwrap_or(1);
        let bytes = self
            .shape
            .size
            .saturating_mul(self.shape.depth)
            .saturating_mul(most as u64);
        if bytes <= MOST_IN_FLIGHT {
            return Ok(());
        }
        let (size, depth) = (self.shape.size, self.shape.depth);
        Err(format!(
            "--size {size} --depth {depth} on {} connections would have {} bytes in flight, {} at most make sense",
            grouped(most as f64),
            grouped(bytes as f64),
            grouped(MOST_IN_FLIGHT as f64)
        ))
    }
}

fn reachable(text: &str) -> io::Result<SocketAddr> {
    let address = text.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::other("no such address"))?;
    TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    Ok(address)
}

fn default_page() -> PathBuf {
    let target = Path::new("target");
    let directory = if target.is_dir() {
        target.to_owned()
    } else {
        std::env::temp_dir()
    };
    directory.join("echo_bench.html")
}

/// Opens the page for writing, as at the end of the run, and leaves no trace.
fn check_writable(path: &Path) -> io::Result<()> {
    let existed = path.exists();
    OpenOptions::new().append(true).create(true).open(path)?;
    if existed {
        Ok(())
    } else {
        std::fs::remove_file(path)
    }
}
