//! What only the system can tell or do: descriptors, CPUs, and the few calls of libc that these need.
#![allow(unsafe_code)]

/// Raises the limit on open descriptors as far as it goes. Returns it.
pub fn descriptor_limit() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit that the call fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 256;
    }
    // The second is for macOS, where the hard limit reads as infinite and cannot be set.
    for wanted in [limit.rlim_max, limit.rlim_max.min(10_240)] {
        let raised = libc::rlimit {
            rlim_cur: wanted,
            ..limit
        };
        // SAFETY: the pointer is to a live rlimit that the call only reads.
        if wanted > limit.rlim_cur && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0
        {
            return usize::try_from(wanted).unwrap_or(usize::MAX);
        }
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// The CPUs this process may run on, where the system says.
pub fn cpus() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    parse_cpu_list(list.unwrap_or_default().trim()).unwrap_or_default()
}

/// `0-3,8` is 0, 1, 2, 3, 8.
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// Keeps the calling thread, and threads it starts, on one CPU. Best effort.
#[cfg(target_os = "linux")]
pub fn pin_to(cpu: usize) {
    if cpu >= libc::CPU_SETSIZE as usize {
        return;
    }
    // SAFETY: an all-zero cpu_set_t is an empty set; `cpu` is within it; the call only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

#[cfg(not(target_os = "linux"))]
pub fn pin_to(_cpu: usize) {}

/// How many connections to one address there are local ports for.
pub fn local_ports() -> usize {
    let range =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range
        .split_whitespace()
        .map_while(|end| end.parse::<usize>().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) if last > first => last - first,
        _ => 16_383,
    }
}

/// One line on where this runs.
pub fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let system = format!("{} {}", std::env::consts::OS, release.trim());
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    format!(
        "{}, {model}, {cpus} CPU{}",
        system.trim(),
        if cpus == 1 { "" } else { "s" }
    )
}
