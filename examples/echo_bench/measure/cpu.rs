//! What the server costs, seen from outside: the CPU time of its threads.
//!
//! The scheduler's run time of each thread is exact; its split into user and system time comes from
//! `stat`, which counts ticks of 10 ms: over a second it is exact to about 1 %. Where there is no
//! /proc there are no figures, and the report prints `-`.

use std::fs;
use std::ops::Sub;
use std::time::Instant;

use crate::measure::memory;

/// CPU time of the server's threads so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// In nanoseconds.
    run: u64,
    /// In ticks.
    user: u64,
    system: u64,
}

const TICK_NANOSECONDS: u64 = 10_000_000;

impl Cpu {
    /// In nanoseconds.
    pub fn total(self) -> f64 {
        match self.run {
            0 => ((self.user + self.system) * TICK_NANOSECONDS) as f64,
            run => run as f64,
        }
    }

    /// In nanoseconds: user and system, where enough ticks were seen to split the total.
    pub fn split(self) -> Option<(f64, f64)> {
        let ticks = self.user + self.system;
        let user = self.user as f64 / ticks as f64;
        (ticks >= 5).then(|| (self.total() * user, self.total() * (1.0 - user)))
    }

    /// Whether the split rests on too few ticks of user time.
    pub fn split_is_rough(self) -> bool {
        self.user < 25
    }
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, earlier: Cpu) -> Cpu {
        Cpu {
            run: self.run.saturating_sub(earlier.run),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// The threads that are the loader's side; every other one is the server's.
#[derive(Clone, Default)]
pub struct ClientThreads(Vec<String>);

impl ClientThreads {
    /// Adds the calling thread.
    pub fn add_this_one(&mut self) {
        memory::client_thread();
        let link = fs::read_link("/proc/thread-self").ok();
        let name = link.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        self.0.extend(name);
    }

    /// CPU time of all the other threads.
    pub fn server_cpu(&self) -> Option<Cpu> {
        let mut sum = Cpu::default();
        for thread in fs::read_dir("/proc/self/task").ok()? {
            let name = thread.ok()?.file_name().into_string().ok()?;
            // A thread that has just ended has nothing to read, and nothing to add.
            if !self.0.contains(&name)
                && let Some(cpu) = thread_cpu(&name)
            {
                sum.run += cpu.run;
                sum.user += cpu.user;
                sum.system += cpu.system;
            }
        }
        Some(sum)
    }
}

fn thread_cpu(thread: &str) -> Option<Cpu> {
    let (user, system) = stat_times(&format!("/proc/self/task/{thread}/stat"))?;
    let schedstat =
        fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    let run = schedstat
        .split(' ')
        .next()
        .and_then(|run| run.parse().ok())
        .unwrap_or(0);
    Some(Cpu { run, user, system })
}

/// User and system time, in ticks.
fn stat_times(path: &str) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(path).ok()?;
    // The second field is the thread's name in brackets, and may hold anything; what follows starts
    // with the third.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields
        .split(' ')
        .skip(14 - 3)
        .map_while(|field| field.parse().ok());
    Some((fields.next()?, fields.next()?))
}

/// CPU time of the whole computer so far, in ticks: a bench shares its CPUs with other processes.
#[derive(Clone, Copy)]
pub struct MachineTime {
    /// User and system time, and what a hypervisor gave to others. Interrupts are left out:
    /// loopback makes many, and the kernel decides whether they count as a process's own time. So
    /// the result is a lower bound.
    busy: u64,
    own: u64,
    at: Instant,
}

impl MachineTime {
    pub fn now() -> Option<MachineTime> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let mut ticks = stat
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .map_while(|field| field.parse::<u64>().ok());
        let (user, nice, system) = (ticks.next()?, ticks.next()?, ticks.next()?);
        let stolen = ticks.nth(7 - 3).unwrap_or(0);
        let own = stat_times("/proc/self/stat")?;
        Some(MachineTime {
            busy: user + nice + system + stolen,
            own: own.0 + own.1,
            at: Instant::now(),
        })
    }

    /// How many CPUs other processes took on average since then: a lower bound.
    pub fn others_since(self) -> Option<f64> {
        let now = MachineTime::now()?;
        let others = (now.busy - self.busy).saturating_sub(now.own - self.own) * TICK_NANOSECONDS;
        Some(others as f64 / (now.at - self.at).as_nanos() as f64)
    }
}
