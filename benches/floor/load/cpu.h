/* The CPU time of another process, user and system apart.
 *
 * The sum is the scheduler's, exact. How it splits is sampled: by the timer tick, which
 * is coarse (4 ms, where a message costs 5 us), or, where perf_event_open(2) is allowed,
 * by a high-resolution timer that counts what falls in user code. No hardware counter
 * is needed, so it works in virtual machines. */
#pragma once
#include <dirent.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct cpu { double user, system; }; /* seconds */

enum { CPU_THREADS = 64, CPU_PERIOD = 199000 /* ns; no multiple of a tick */, CPU_RING_PAGES = 1 };

struct cpu_meter {
    int pid;
    double last[3]; /* ticks, user ticks, exact */
    struct perf_event_mmap_page *rings[CPU_THREADS];
    int threads; /* sampled; 0: the tick splits */
};

static double cpu_clock(int pid, int which) {
    struct timespec time = {0}; /* the kernel's CPU clocks of a process, see clock_getcpuclockid(3) */
    clock_gettime((clockid_t)(~(unsigned)pid << 3 | which), &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Counts, from now on, the samples of one thread that fall in user code: each is 8 bytes in a ring
 * that nobody reads and that overwrites itself; only its head is of interest. */
static struct perf_event_mmap_page *cpu_sample_thread(int thread) {
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_CPU_CLOCK, .size = sizeof attributes,
        .sample_period = CPU_PERIOD, .exclude_kernel = 1, .exclude_hv = 1,
    };
    int event = syscall(SYS_perf_event_open, &attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (event < 0) return NULL;
    void *ring = mmap(NULL, (1 + CPU_RING_PAGES) * sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, event, 0);
    return ring == MAP_FAILED ? NULL : ring; /* the event lives as long as the mapping's descriptor: till we exit */
}

/* Samples every thread that the process has now. */
static void cpu_meter_start(struct cpu_meter *meter, int pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    meter->pid = pid;
    DIR *tasks = opendir(path);
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.') continue;
        struct perf_event_mmap_page *ring = meter->threads < CPU_THREADS ? cpu_sample_thread(atoi(entry->d_name)) : NULL;
        if (!ring) {
            meter->threads = 0;
            break;
        }
        meter->rings[meter->threads++] = ring;
    }
    if (tasks) closedir(tasks);
}

static double cpu_sampled_user(const struct cpu_meter *meter) {
    uint64_t bytes = 0;
    for (int i = 0; i < meter->threads; i++) bytes += __atomic_load_n(&meter->rings[i]->data_head, __ATOMIC_RELAXED);
    return bytes / sizeof(struct perf_event_header) * (CPU_PERIOD / 1e9);
}

/* CPU time since the last call. */
static struct cpu cpu_meter_read(struct cpu_meter *meter) {
    enum { TICKS, USER_TICKS, EXACT };
    double delta[3];
    for (int which = TICKS; which <= EXACT; which++) {
        double value = which == USER_TICKS && meter->threads ? cpu_sampled_user(meter) : cpu_clock(meter->pid, which);
        delta[which] = value - meter->last[which];
        meter->last[which] = value;
    }
    double user = delta[USER_TICKS];
    if (!meter->threads) user = delta[TICKS] > 0 ? delta[EXACT] * user / delta[TICKS] : 0;
    return (struct cpu){user, delta[EXACT] > user ? delta[EXACT] - user : 0};
}
