/* A neutral load generator for echo servers: one thread, epoll, no library.
 *
 *   cc -O2 -o load load.c
 *   load --addr A --connections 50 --size 64 --depth 1 --seconds 5 [--warmup 1]
 *        closed loop: `depth` messages in flight on each connection.
 *        --messages M   stop after exactly M echoed messages in all, spread evenly
 *        --check        at the end close our half and want the rest, then end of file
 *        --spin         never sleep while waiting
 *   load --addr A --churn --connections 50 --seconds 5
 *        connect, one echo, close, over and over, with that many at once.
 *   load --addr A --quiet 1000 --quiet-rate 2000 --firehoses 8 --firehose-write 65536
 *        quiet connections on a fixed schedule, their latency counted from the scheduled
 *        time, beside firehoses that write as fast as they can and read everything back.
 *   load --addr A --idle 10000
 *        one echo on each, prints `idle`, holds them till stdin ends or for --seconds.
 *        --pings        the server may send `ping`, over and over: counted, every byte checked
 *
 * All modes: every echoed byte is checked; --server-pid P adds that process's CPU time
 * in the measured window; the last line of stdout is one line of JSON; 0 when all was
 * right, 1 when an echo was wrong or missing, 2 when it could not be run.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "load/connection.h"
#include "load/cpu.h"
#include "load/histogram.h"

static struct {
    const char *addr;
    uint64_t connections, messages, quiet, quiet_rate, firehoses, firehose_write, idle;
    double seconds, warmup;
    int server_pid;
    bool check, churn, spin, pings;
} options = {.connections = 50, .quiet_rate = 2000, .firehose_write = BUFFER};

/* ---- The measured window ------------------------------------------------------- */

enum phase { OPENING, WARMING, MEASURING, STOPPING };
static enum phase phase;
static uint64_t messages, total_messages; /* in the window; since the start */
static struct histogram latency;
static uint64_t measure_at, stop_at;   /* when the window should begin and end */
static uint64_t measured_ns;           /* how long it was */

static struct cpu_meter server_meter, load_meter;
static struct cpu server_cpu, load_cpu;

static void sample_cpu(void) {
    if (options.server_pid) server_cpu = cpu_meter_read(&server_meter);
    load_cpu = cpu_meter_read(&load_meter);
}

static void begin_phases(uint64_t time) {
    phase = WARMING;
    measure_at = time + (options.messages ? 0 : options.warmup * SECOND);
    stop_at = measure_at + options.seconds * SECOND;
}

/* Goes on to the next phase when its time has come. */
static void advance(uint64_t time) {
    static uint64_t began;
    if (phase == WARMING && time >= measure_at) {
        phase = MEASURING;
        began = time;
        sample_cpu();
    } else if (phase == MEASURING && time >= stop_at) {
        phase = STOPPING;
        measured_ns = time - began;
        sample_cpu();
    }
}

/* Nothing is left to measure. */
static void end_window(void) {
    stop_at = 0;
    while (phase < STOPPING) advance(measure_at = now());
}

/* How long epoll may sleep: milliseconds to the end of the phase, at most 100. */
static int sleep_ms(uint64_t time) {
    if (options.spin) return 0;
    uint64_t until = phase == WARMING ? measure_at : stop_at;
    if (phase == STOPPING || until > time + SECOND / 10) return 100;
    return until > time ? (until - time + 999999) / 1000000 : 0;
}

static inline void count_message(uint64_t nanoseconds) {
    total_messages++;
    if (phase != MEASURING) return;
    messages++;
    histogram_add(&latency, nanoseconds);
}

/* ---- Closed loop ---------------------------------------------------------------- */

static struct connection *connections;
static uint64_t finished; /* connections that have sent and got back all they were to, with --messages */

/* Of --messages, the share of connection `index`. */
static uint64_t share(uint64_t index) {
    return options.messages / options.connections + (index < options.messages % options.connections);
}

static inline void aim(struct connection *connection) {
    uint64_t target = completed(connection) + depth;
    if (options.messages && target > share(connection->id)) target = share(connection->id);
    if (phase < STOPPING) connection->target = target * message_size;
    else connection->target = (connection->sent + message_size - 1) / message_size * message_size;
}

static inline void closed_event(struct connection *connection, uint32_t events) {
    uint64_t time = 0;
    if (events & ~EPOLLOUT) {
        uint64_t before = completed(connection);
        receive(connection);
        time = now();
        for (uint64_t message = before; message < completed(connection); message++) count_message(time - connection->times[message % depth]);
        if (connection->fd < 0) return;
        if (options.messages && before < share(connection->id) && completed(connection) == share(connection->id)) finished++;
    }
    aim(connection);
    send_to_target(connection, time ? time : now());
}

static void closed_turn(int epoll, int milliseconds) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, milliseconds);
    for (int i = 0; i < ready; i++) closed_event(events[i].data.ptr, events[i].events);
}

static uint64_t owing(const struct connection *all, size_t count) {
    uint64_t owing = 0;
    for (size_t i = 0; i < count; i++) owing += all[i].fd >= 0 && all[i].received < all[i].sent;
    return owing;
}

static void complain_of_debts(uint64_t debtors) {
    if (!debtors) return;
    fprintf(stderr, "load: %lu connections are owed an echo that did not come\n", debtors);
    errors += debtors;
}

/* Every connection gets the rest of its echo; with --check, then end of file. */
static void closed_end(int epoll) {
    uint64_t deadline = now() + 5 * SECOND;
    while (owing(connections, options.connections) && now() < deadline) closed_turn(epoll, 10);
    complain_of_debts(owing(connections, options.connections));
    if (!options.check) return;
    for (size_t i = 0; i < options.connections; i++) {
        if (connections[i].fd < 0) continue;
        connections[i].ending = true;
        shutdown(connections[i].fd, SHUT_WR);
    }
    deadline = now() + 5 * SECOND;
    while (live && now() < deadline) closed_turn(epoll, 10);
    if (!live) return;
    fprintf(stderr, "load: %zu connections got no end of file after theirs\n", live);
    errors += live;
}

static void closed_loop(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    connections = make_connections(options.connections, 0);
    open_all(connections, options.connections, epoll, now() + 60 * SECOND);
    total_messages = options.connections;
    for (size_t i = 0; i < options.connections; i++) finished += options.messages && share(i) == 1;

    begin_phases(now());
    advance(now());
    for (size_t i = 0; i < options.connections; i++) closed_event(&connections[i], EPOLLOUT);
    while (phase < STOPPING && live) {
        if (options.messages && finished + errors >= options.connections) stop_at = 0;
        advance(now());
        closed_turn(epoll, sleep_ms(now()));
    }
    end_window();
    if (options.messages && total_messages != options.messages) {
        fprintf(stderr, "load: %lu of %lu messages came back in time\n", total_messages, options.messages);
        errors++;
    }
    closed_end(epoll);
}

/* ---- Churn ---------------------------------------------------------------------- */

static void churn_start(struct connection *connection) {
    static uint32_t serial;
    connection->fd = -1;
    while (connection->fd < 0 && phase < STOPPING && !(options.messages && serial >= options.messages)) {
        uint64_t time = connection->times[0] = now(); /* latency counts from here */
        connection->id = serial++;
        dial(connection, source_of(connection->id));
        if (connection->fd >= 0) send_to_target(connection, time); /* on loopback it is connected by now */
    }
}

static void churn_event(struct connection *connection, uint32_t events) {
    if (events & EPOLLOUT) send_to_target(connection, connection->times[0]);
    if (connection->fd >= 0 && events & ~EPOLLOUT) receive(connection);
    if (connection->fd >= 0) {
        if (!completed(connection)) return;
        count_message(now() - connection->times[0]);
        close(connection->fd);
        live--;
    }
    churn_start(connection);
}

static void churn(void) {
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    connections = make_connections(options.connections, 0);
    begin_phases(now());
    advance(now());
    for (size_t i = 0; i < options.connections; i++) {
        connections[i].epoll = epoll;
        connections[i].target = message_size;
        churn_start(&connections[i]);
    }
    for (uint64_t deadline = UINT64_MAX; live && now() < deadline;) {
        int ready = epoll_wait(epoll, events, EVENTS, sleep_ms(now()));
        for (int i = 0; i < ready; i++) churn_event(events[i].data.ptr, events[i].events);
        if (options.messages && total_messages + errors >= options.messages) stop_at = 0;
        advance(now());
        if (phase == STOPPING && deadline == UINT64_MAX) deadline = now() + 5 * SECOND;
    }
    end_window();
    complain_of_debts(live);
}

/* ---- Quiet connections beside firehoses ------------------------------------------ */

static struct connection *firehoses;
static struct histogram lag; /* how late this program itself sent: what it adds to the latency */
static uint64_t schedule_from, scheduled;
static uint64_t firehose_bytes;

static uint64_t scheduled_time(uint64_t message) { return schedule_from + message * SECOND / options.quiet_rate; }

static void quiet_send_due(uint64_t time) {
    for (; phase < STOPPING && scheduled_time(scheduled) <= time; scheduled++) {
        struct connection *connection = &connections[scheduled % options.quiet];
        if (connection->fd < 0) continue;
        connection->target += message_size;
        send_to_target(connection, time);
        if (phase == MEASURING) histogram_add(&lag, now() - scheduled_time(scheduled));
    }
}

static void quiet_event(struct connection *connection, uint32_t events) {
    if (events & EPOLLOUT) send_to_target(connection, now());
    if (connection->fd < 0 || !(events & ~EPOLLOUT)) return;
    uint64_t before = completed(connection);
    receive(connection);
    uint64_t time = now();
    for (uint64_t message = before; message < completed(connection); message++) {
        /* The opening echo was message 0; message 1 was the first on the schedule. */
        uint64_t due = scheduled_time((message - 1) * options.quiet + connection->id);
        total_messages++;
        if (due < measure_at || due >= stop_at) continue;
        messages++;
        histogram_add(&latency, time - due);
    }
}

/* Sends what is due and takes what has come; called after every single firehose operation,
 * so that the firehoses make the quiet ones wait in the server, not here. */
static int quiet_turn(int epoll) {
    struct epoll_event events[EVENTS];
    uint64_t time = now();
    advance(time);
    quiet_send_due(time);
    int ready = epoll_wait(epoll, events, EVENTS, 0);
    for (int i = 0; i < ready; i++) quiet_event(events[i].data.ptr, events[i].events);
    return ready;
}

static void firehose_read(struct connection *connection) {
    size_t length = receive(connection);
    if (phase == MEASURING) firehose_bytes += length;
}

static void firehose_write(struct connection *connection) {
    if (connection->fd >= 0 && phase < STOPPING) send_chunk(connection, options.firehose_write);
}

/* Sleeps until either has something or the next quiet message is due. */
static void quiet_sleep(int quiet_epoll, int firehose_epoll) {
    struct pollfd both[] = {{quiet_epoll, POLLIN, 0}, {firehose_epoll, POLLIN, 0}};
    uint64_t time = now(), due = phase < STOPPING ? scheduled_time(scheduled) : time + SECOND / 100;
    if (due <= time || options.spin) return;
    ppoll(both, 2, &(struct timespec){.tv_sec = (due - time) / SECOND, .tv_nsec = (due - time) % SECOND}, NULL);
}

static void quiet_beside_firehoses(void) {
    struct epoll_event events[EVENTS];
    int quiet_epoll = epoll_create1(EPOLL_CLOEXEC), firehose_epoll = epoll_create1(EPOLL_CLOEXEC);
    prctl(PR_SET_TIMERSLACK, 1ul); /* or ppoll sleeps 50 us too long */
    connections = make_connections(options.quiet, 0);
    firehoses = make_connections(options.firehoses, options.quiet);
    open_all(connections, options.quiet, quiet_epoll, now() + 60 * SECOND);
    open_all(firehoses, options.firehoses, firehose_epoll, now() + 60 * SECOND);
    for (size_t i = 0; i < options.firehoses; i++) watch(&firehoses[i], EPOLLIN | EPOLLOUT);

    schedule_from = now();
    begin_phases(schedule_from);
    uint64_t deadline = stop_at + 5 * SECOND;
    while (live && (phase < STOPPING || (now() < deadline && owing(connections, options.quiet) + owing(firehoses, options.firehoses)))) {
        int taken = quiet_turn(quiet_epoll);
        int ready = epoll_wait(firehose_epoll, events, EVENTS, 0);
        if (!ready && !taken) quiet_sleep(quiet_epoll, firehose_epoll);
        for (int i = 0; i < ready; i++) {
            if (events[i].events & ~EPOLLOUT) firehose_read(events[i].data.ptr), quiet_turn(quiet_epoll);
            if (events[i].events & EPOLLOUT) firehose_write(events[i].data.ptr), quiet_turn(quiet_epoll);
        }
    }
    end_window();
    complain_of_debts(owing(connections, options.quiet) + owing(firehoses, options.firehoses));
}

/* ---- Idle ----------------------------------------------------------------------- */

static uint64_t disturbed; /* connections on which something happened while they were held */
static uint64_t pings;

/* Takes what the server sent of its own accord: `ping`, over and over, and nothing else. */
static void take_pings(struct connection *connection) {
    ssize_t length = recv(connection->fd, in, sizeof in, 0);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (length <= 0) return fail(connection, length ? "read: %s" : "end of file where pings were to come", strerror(errno));
    for (ssize_t i = 0; i < length; i++, connection->received++) {
        uint64_t place = (connection->received - message_size) % 4;
        if (in[i] != "ping"[place]) return fail(connection, "0x%02x is not the '%c' of a ping", in[i], "ping"[place]);
        pings += place == 3;
    }
}

/* Waits for stdin or pings; without --pings epoll is left alone, and looked at in the end. */
static void hold(int epoll, uint64_t until) {
    struct epoll_event events[EVENTS];
    struct pollfd inputs[] = {{STDIN_FILENO, POLLIN, 0}, {epoll, POLLIN, 0}};
    char ignored[256];
    for (uint64_t time; (time = now()) < until;) {
        if (poll(inputs, options.pings ? 2 : 1, (until - time) / 1000000 + 1) <= 0) continue;
        if (inputs[0].revents && read(STDIN_FILENO, ignored, sizeof ignored) <= 0) return;
        if (!options.pings || !inputs[1].revents) continue;
        int ready = epoll_wait(epoll, events, EVENTS, 0);
        for (int i = 0; i < ready; i++) take_pings(events[i].data.ptr);
    }
}

static void hold_idle(void) {
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    connections = make_connections(options.idle, 0);
    open_all(connections, options.idle, epoll, now() + 60 * SECOND);
    total_messages = messages = options.idle;
    printf("idle\n");
    fflush(stdout);

    hold(epoll, now() + options.seconds * SECOND);
    if (options.pings) return;
    for (int ready; (ready = epoll_wait(epoll, events, EVENTS, 0)) > 0; disturbed += ready) {
        for (int i = 0; i < ready; i++) close(((struct connection *)events[i].data.ptr)->fd);
    }
}

/* ---- Options, limits, the report ------------------------------------------------- */

static void report(void) {
    double seconds = measured_ns / 1e9;
    printf("{\"mode\":\"%s\"", options.idle ? "idle" : options.quiet ? "quiet" : options.churn ? "churn" : "closed");
    printf(",\"connections\":%lu,\"size\":%lu,\"depth\":%lu", options.idle ? options.idle : options.quiet ? options.quiet : options.connections,
           message_size, depth);
    printf(",\"messages\":%lu,\"total_messages\":%lu,\"seconds\":%.3f", messages, total_messages, seconds);
    if (options.idle) printf(",\"disturbed\":%lu,\"pings\":%lu", disturbed, pings);
    if (seconds > 0) printf(",\"messages_per_second\":%.1f", messages / seconds);
    if (latency.total) {
        printf(",\"latency_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f,\"max\":%.1f}", histogram_quantile(&latency, .5) / 1e3,
               histogram_quantile(&latency, .9) / 1e3, histogram_quantile(&latency, .99) / 1e3, histogram_quantile(&latency, .999) / 1e3,
               latency.max / 1e3);
    }
    if (options.quiet && seconds > 0) {
        printf(",\"firehoses\":%lu,\"firehose_mb_per_second\":%.1f", options.firehoses, firehose_bytes / seconds / 1e6);
        printf(",\"send_lag_p99_us\":%.1f", histogram_quantile(&lag, .99) / 1e3);
    }
    if (options.server_pid) printf(",\"server_cpu\":{\"user\":%.6f,\"system\":%.6f,\"split\":\"%s\"}", server_cpu.user, server_cpu.system,
               server_meter.count ? "sampled" : "ticks");
    if (seconds > 0) printf(",\"load_busy\":%.3f", (load_cpu.user + load_cpu.system) / seconds);
    printf(",\"errors\":%lu}\n", errors);
}

static void check_limits(void) {
    uint64_t wanted = options.idle ? options.idle : options.quiet ? options.quiet + options.firehoses : options.connections;
    unsigned low = 32768, high = 60999;
    FILE *range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    if (range && fscanf(range, "%u %u", &low, &high) != 2) low = 32768, high = 60999;
    if (range) fclose(range);
    if (!options.churn && !source_of(0) && wanted > high - low + 1)
        die("%lu connections from one source address are impossible: the system has %u ports for them", wanted, high - low + 1);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (wanted + 16 > limit.rlim_cur)
        die("%lu connections need %lu descriptors, the limit of this process is %lu (ulimit -n)", wanted, wanted + 16, (uint64_t)limit.rlim_cur);
}

static void parse_addr(void) {
    const char *colon = options.addr ? strrchr(options.addr, ':') : NULL;
    char host[64];
    if (!colon || (size_t)(colon - options.addr) >= sizeof host) die("--addr IPV4:PORT is needed");
    snprintf(host, sizeof host, "%.*s", (int)(colon - options.addr), options.addr);
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(colon + 1));
    if (inet_pton(AF_INET, host, &server.sin_addr) != 1) die("'%s' is no IPv4 address", host);
}

static void parse(int argc, char **argv) {
    struct { const char *name; uint64_t *whole; double *real; bool *flag; } table[] = {
        {.name = "--connections", .whole = &options.connections}, {.name = "--size", .whole = &message_size},
        {.name = "--depth", .whole = &depth}, {.name = "--messages", .whole = &options.messages},
        {.name = "--quiet", .whole = &options.quiet}, {.name = "--quiet-rate", .whole = &options.quiet_rate},
        {.name = "--firehoses", .whole = &options.firehoses}, {.name = "--firehose-write", .whole = &options.firehose_write},
        {.name = "--idle", .whole = &options.idle}, {.name = "--seconds", .real = &options.seconds},
        {.name = "--warmup", .real = &options.warmup}, {.name = "--check", .flag = &options.check},
        {.name = "--churn", .flag = &options.churn}, {.name = "--spin", .flag = &options.spin},
        {.name = "--pings", .flag = &options.pings},
    };
    enum { NAMES = sizeof table / sizeof *table };
    for (int i = 1; i < argc; i++) {
        int entry = 0;
        while (entry < NAMES && strcmp(argv[i], table[entry].name)) entry++;
        if (entry < NAMES && table[entry].flag) {
            *table[entry].flag = true;
            continue;
        }
        if (i + 1 == argc) die("'%s' is no option, or wants a value; load.c begins with the list", argv[i]);
        char *end = "";
        const char *value = argv[++i];
        if (entry < NAMES && table[entry].whole) *table[entry].whole = strtoull(value, &end, 10);
        else if (entry < NAMES) *table[entry].real = strtod(value, &end);
        else if (!strcmp(argv[i - 1], "--addr")) options.addr = value;
        else if (!strcmp(argv[i - 1], "--server-pid")) options.server_pid = strtol(value, &end, 10);
        else die("'%s' is no option; load.c begins with the list", argv[i - 1]);
        if (*end || *value == '-') die("%s %s is no number", argv[i - 1], value);
    }
    if (!options.seconds) options.seconds = options.messages || options.idle ? 120 : 5;
    if (!message_size || !depth || !options.connections || !options.quiet_rate || !options.firehose_write) die("zero makes no sense here");
    if (options.firehose_write > 1 << 20 || message_size > 1 << 20) die("more than 1 MiB at once is too much");
    if (options.firehoses && !options.quiet) die("--firehoses goes with --quiet");
    if (options.messages && !options.churn && options.messages < options.connections) die("fewer messages than connections");
}

static void out_of_time(int signal) {
    (void)signal;
    static const char words[] = "load: out of time\n";
    if (write(STDERR_FILENO, words, sizeof words - 1)) _exit(1);
    _exit(1);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    parse_addr();
    check_limits();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, out_of_time);
    alarm((unsigned)(options.seconds + options.warmup) + 90);
    out = malloc(options.firehose_write > BUFFER ? options.firehose_write : BUFFER);
    if (!out) die("out of memory");

    load_meter.pid = getpid();
    if (options.server_pid) cpu_meter_start(&server_meter, options.server_pid);

    if (options.idle) hold_idle();
    else if (options.quiet) quiet_beside_firehoses();
    else if (options.churn) churn();
    else closed_loop();
    report();
    return errors ? 1 : 0;
}
