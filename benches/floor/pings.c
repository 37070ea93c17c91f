/* Heartbeats: the peers that are pinged, and what the pings alone cost.
 *
 *   cc -O2 -o pings pings.c
 *   pings --connect A --connections 15000
 *        opens them and swallows what comes. Prints `open`, and for each line on stdin how many
 *        bytes have come; ends with stdin.
 *   pings --serve A --connections 15000 --every 10 [--over 1.25]
 *        the floor: accepts them, and once an interval writes `ping` to each, in a plain loop: one
 *        after the other at once, or spread over a time, each millisecond those that are due.
 *        No poller, no timers, no state. Prints `listening on A`.
 *
 * Ends with status 2 when something goes wrong that the figures would not show.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, TICK = 1000000 };
#define SECOND 1000000000ull

static void fail(const char *what) {
    fprintf(stderr, "pings: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void sleep_until(uint64_t when) {
    struct timespec time = {.tv_sec = when / SECOND, .tv_nsec = when % SECOND};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) {}
}

static struct sockaddr_in parse(const char *text) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    unsigned port;
    if (sscanf(text, "%63[0-9.]:%u", host, &port) != 2 || inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        errno = EINVAL;
        fail(text);
    }
    address.sin_port = htons(port);
    return address;
}

/* ---- The peers ------------------------------------------------------------------ */

static void swallow(struct sockaddr_in server, size_t connections) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t n = 0; n < connections; n++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0) fail("socket");
        if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0) fail("connect");
        if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) fail("fcntl");
        struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = 0};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event) < 0) fail("epoll_ctl: stdin");
    printf("open\n");
    fflush(stdout);
    uint64_t came = 0;
    for (;;) {
        static struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) fail("epoll_wait");
        for (int n = 0; n < count; n++) {
            char buffer[4096];
            ssize_t got = read(events[n].data.fd, buffer, sizeof buffer);
            if (events[n].data.fd == 0) {
                if (got <= 0) return;
                printf("%lu\n", came);
                fflush(stdout);
            } else if (got > 0) {
                came += got;
            } else if (got == 0 || errno != EAGAIN) {
                errno = got ? errno : ECONNRESET;
                fail("a connection was closed");
            }
        }
    }
}

/* ---- The floor ------------------------------------------------------------------ */

static void serve(struct sockaddr_in address, size_t connections, uint64_t every, uint64_t over) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* inherited, as in ours */
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) < 0) fail("bind");
    if (listen(listener, 4096) < 0) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    char host[INET_ADDRSTRLEN];
    printf("listening on %s:%u\n", inet_ntop(AF_INET, &address.sin_addr, host, sizeof host), ntohs(address.sin_port));
    fflush(stdout);
    int *peers = calloc(connections, sizeof *peers);
    for (size_t n = 0; n < connections; n++) {
        peers[n] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (peers[n] < 0) fail("accept");
    }
    for (uint64_t start = now() + every;; start += every) {
        sleep_until(start);
        for (size_t done = 0; done < connections;) {
            uint64_t passed = now() - start + TICK;
            size_t due = passed < over ? connections * passed / over : connections;
            for (; done < due; done++)
                if (send(peers[done], "ping", 4, MSG_NOSIGNAL) != 4) fail("send");
            if (done < connections) sleep_until(now() + TICK);
        }
    }
}

int main(int count, char **values) {
    const char *connect_to = NULL, *serve_at = NULL;
    size_t connections = 0;
    double every = 10, over = 0;
    for (int n = 1; n + 1 < count; n += 2) {
        const char *flag = values[n], *value = values[n + 1];
        if (!strcmp(flag, "--connect")) connect_to = value;
        else if (!strcmp(flag, "--serve")) serve_at = value;
        else if (!strcmp(flag, "--connections")) connections = strtoul(value, NULL, 10);
        else if (!strcmp(flag, "--every")) every = strtod(value, NULL);
        else if (!strcmp(flag, "--over")) over = strtod(value, NULL);
        else {
            fprintf(stderr, "pings: what is %s? See the top of pings.c\n", flag);
            return 2;
        }
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (connect_to) swallow(parse(connect_to), connections);
    else if (serve_at) serve(parse(serve_at), connections, every * SECOND, over * SECOND);
    return 0;
}
