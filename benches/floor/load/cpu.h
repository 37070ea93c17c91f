/* The CPU time of another process, user and system apart.
 *
 * The sum is the scheduler's, exact. How it splits is sampled: by the timer tick, which
 * is coarse (4 ms, where a message costs 5 us), or, where perf_event_open(2) is allowed,
 * by a high-resolution timer that counts what falls in user code. No hardware counter
 * is needed, so it works in virtual machines. */
#pragma once
#include <dirent.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct cpu { double user, system; }; /* seconds */

enum { CPU_RINGS = 64, CPU_PERIOD = 199000 /* ns; no multiple of a tick */, CPU_RING_PAGES = 1 };

struct cpu_meter {
    int pid;
    double last[3]; /* ticks, user ticks, exact */
    struct perf_event_mmap_page *rings[CPU_RINGS];
    int count; /* of rings; 0: the tick splits */
};

static double cpu_clock(int pid, int which) {
    struct timespec time = {0}; /* the kernel's CPU clocks of a process, see clock_getcpuclockid(3) */
    clock_gettime((clockid_t)(~(unsigned)pid << 3 | which), &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Counts, from now on, the samples of one thread, and of those that it starts, that fall in user code on
 * one CPU: each is 8 bytes in a ring that is never read and overwrites itself; only its head counts.
 * One CPU, since only such a ring can be shared with inherited events. */
static struct perf_event_mmap_page *cpu_sample(int thread, int cpu) {
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_CPU_CLOCK, .size = sizeof attributes,
        .sample_period = CPU_PERIOD, .exclude_kernel = 1, .exclude_hv = 1, .inherit = 1,
    };
    int event = syscall(SYS_perf_event_open, &attributes, thread, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    if (event < 0) return NULL;
    void *ring = mmap(NULL, (1 + CPU_RING_PAGES) * sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, event, 0);
    return ring == MAP_FAILED ? NULL : ring; /* the event lives as long as the mapping's descriptor: till we exit */
}

/* Samples one thread on every CPU where it may run. False when that cannot be. */
static bool cpu_sample_thread(struct cpu_meter *meter, int thread) {
    cpu_set_t cpus;
    if (sched_getaffinity(thread, sizeof cpus, &cpus) < 0) return false;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &cpus)) continue;
        struct perf_event_mmap_page *ring = meter->count < CPU_RINGS ? cpu_sample(thread, cpu) : NULL;
        if (!ring) return false;
        meter->rings[meter->count++] = ring;
    }
    return true;
}

/* Samples every thread that the process has now, and those that they start. */
static void cpu_meter_start(struct cpu_meter *meter, int pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    meter->pid = pid;
    DIR *tasks = opendir(path);
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.' || cpu_sample_thread(meter, atoi(entry->d_name))) continue;
        meter->count = 0;
        break;
    }
    if (tasks) closedir(tasks);
}

static double cpu_sampled_user(const struct cpu_meter *meter) {
    uint64_t bytes = 0;
    for (int i = 0; i < meter->count; i++) bytes += __atomic_load_n(&meter->rings[i]->data_head, __ATOMIC_RELAXED);
    return bytes / sizeof(struct perf_event_header) * (CPU_PERIOD / 1e9);
}

/* CPU time since the last call. */
static struct cpu cpu_meter_read(struct cpu_meter *meter) {
    enum { TICKS, USER_TICKS, EXACT };
    double delta[3];
    for (int which = TICKS; which <= EXACT; which++) {
        double value = which == USER_TICKS && meter->count ? cpu_sampled_user(meter) : cpu_clock(meter->pid, which);
        delta[which] = value - meter->last[which];
        meter->last[which] = value;
    }
    double user = delta[USER_TICKS];
    if (!meter->count) user = delta[TICKS] > 0 ? delta[EXACT] * user / delta[TICKS] : 0;
    return (struct cpu){user, delta[EXACT] > user ? delta[EXACT] - user : 0};
}
