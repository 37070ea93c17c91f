//! The run: cell after cell on the loader's thread, while the main one shows a progress bar and
//! keeps the time.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::flags::Plan;
use crate::measure::cpu::{ClientThreads, MachineTime};
use crate::measure::deadline::{DeadlineCost, deadline_cost};
use crate::measure::system;
use crate::measure::{self, Cell, Cpus, Order, Target};
use crate::report;

/// The time that is left over for the pictures.
const RESERVE: Duration = Duration::from_millis(200);
/// How far a run may exceed its time before it is given up. The loader's own limits for a dead or
/// slow server are shorter, so that this one is for faults of the bench.
const GRACE: Duration = Duration::from_secs(30);

pub struct Results {
    pub cells: Vec<Cell>,
    pub deadline: Option<DeadlineCost>,
    pub cpus: Cpus,
    pub loader_cpu: Option<usize>,
    /// How many CPUs other processes took on average: a lower bound.
    pub others: Option<f64>,
}

/// Carries out the plan.
pub fn run(plan: &Plan) -> Result<Results, String> {
    let start = Instant::now();
    let mut clients = ClientThreads::default();
    clients.add_this_one();
    let (say, said) = mpsc::channel();
    let its_plan = plan.clone();
    let loader = thread::Builder::new()
        .name("loader".to_owned())
        .spawn(move || load(&its_plan, start, clients, &say))
        .map_err(|error| format!("no thread for the loader: {error}"))?;

    let bar = progress_bar(plan.length);
    loop {
        match said.recv_timeout(Duration::from_millis(100)) {
            Ok(message) => bar.set_message(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let elapsed = start.elapsed();
        bar.set_position(elapsed.min(plan.length).as_millis() as u64);
        if elapsed > plan.length + GRACE {
            bar.finish_and_clear();
            return Err(format!(
                "given up after {} s: the run does not end",
                elapsed.as_secs()
            ));
        }
    }
    bar.finish_and_clear();
    loader
        .join()
        .unwrap_or_else(|_| Err("the loader panicked: a bug of this bench".to_owned()))
}

/// Draws nothing where standard error is not a terminal.
fn progress_bar(length: Duration) -> ProgressBar {
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target(Some(length.as_millis() as u64), target);
    let style = ProgressStyle::with_template("{bar:30.cyan/dim} {percent:>3} %  {msg}");
    bar.set_style(style.expect("the template is right").progress_chars("━━─"));
    bar
}

/// The loader's thread. Modes follow one another for each number of connections, so that other work
/// of the computer disturbs them alike.
fn load(
    plan: &Plan,
    start: Instant,
    mut clients: ClientThreads,
    say: &Sender<String>,
) -> Result<Results, String> {
    clients.add_this_one();
    let (cpus, loader_cpu) = place();
    if let Some(cpu) = loader_cpu {
        system::pin_to(cpu);
    }
    let machine = MachineTime::now();
    let own = matches!(plan.targets[..], [Target::Own(_), ..]);
    let deadline = own.then(deadline_cost).transpose();
    let deadline = deadline.map_err(|error| format!("measuring deadlines: {error}"))?;
    let end = start + plan.length.saturating_sub(RESERVE);
    let mut cells = Vec::new();
    for &connections in &plan.counts {
        for &target in &plan.targets {
            let now = Instant::now();
            let left = end.saturating_duration_since(now) / (plan.cells() - cells.len()) as u32;
            let order = Order {
                target,
                connections,
                shape: plan.shape,
                cpus,
                end: now + left,
            };
            let name = format!("{}, {}", target.name(), report::connections(connections));
            let tell = |what: &str| drop(say.send(format!("{name}: {what}")));
            cells.push(
                measure::run(&order, &clients, tell).map_err(|what| format!("{name}: {what}"))?,
            );
        }
    }
    Ok(Results {
        cells,
        deadline,
        cpus,
        loader_cpu,
        others: machine.and_then(MachineTime::others_since),
    })
}

/// With two CPUs or more, one is the server's and one the loader's.
fn place() -> (Cpus, Option<usize>) {
    let several = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let (server, loader) = match system::cpus()[..] {
        [first, second, ..] => (Some(first), Some(second)),
        _ => (None, None),
    };
    (
        Cpus {
            server,
            loader_has_its_own: several,
        },
        loader,
    )
}
