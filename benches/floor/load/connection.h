/* One connection of the load: opening, sending, receiving, checking; and what all
 * modes share: options, the clock, how trouble is reported. */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pattern.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define SECOND 1000000000ull /* all times are nanoseconds of CLOCK_MONOTONIC */
enum { BUFFER = 64 * 1024, EVENTS = 256, OPENING_AT_ONCE = 128, ERRORS_SHOWN = 5, ERRORS_ENOUGH = 1000,
       FEW = 10000 /* connections from one address: Linux takes half of its ports at once, and searches long for one of the others */ };

struct connection {
    int fd; /* -1: not open */
    int epoll;
    uint32_t id;             /* of its stream of bytes */
    uint32_t watched;        /* what epoll reports */
    bool opened;             /* its first message has come back */
    bool ending;             /* our half is closed: end of file is right */
    uint64_t sent, received; /* bytes */
    uint64_t target;         /* send up to here */
    uint64_t *times;         /* when each message in flight began to be sent; a ring of `depth` */
};

static struct sockaddr_in server;
static uint64_t message_size = 64, depth = 1;
static uint8_t *out;           /* BUFFER, or what a firehose writes at once */
static uint8_t in[BUFFER];
static uint64_t errors;
static size_t live;            /* connections open */

static inline uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(2);
}

/* Something is wrong with this connection: says what, counts it, and closes it. */
static __attribute__((cold, noinline, format(printf, 2, 3))) void fail(struct connection *connection, const char *format, ...) {
    if (errors++ < ERRORS_SHOWN) {
        va_list arguments;
        va_start(arguments, format);
        fprintf(stderr, "load: connection %u: ", connection->id);
        vfprintf(stderr, format, arguments);
        fprintf(stderr, "\n");
    }
    if (errors == ERRORS_ENOUGH) die("%d errors are enough", ERRORS_ENOUGH);
    if (connection->fd >= 0) close(connection->fd);
    connection->fd = -1;
    live--;
}

static void watch(struct connection *connection, uint32_t events) {
    if (connection->watched == events) return;
    struct epoll_event event = {.events = events, .data.ptr = connection};
    int operation = connection->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(connection->epoll, operation, connection->fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
    connection->watched = events;
}

/* Whole messages echoed so far. */
static inline uint64_t completed(const struct connection *connection) { return connection->received / message_size; }

/* One write of at most `chunk` bytes of the stream. False when the socket takes no more for now. */
static inline bool send_chunk(struct connection *connection, size_t chunk) {
    pattern_fill(connection->id, connection->sent, out, chunk);
    ssize_t written = send(connection->fd, out, chunk, MSG_NOSIGNAL);
    if (written < 0) {
        if (errno != EAGAIN && errno != EINTR) fail(connection, "write: %s", strerror(errno));
        return false;
    }
    connection->sent += written;
    return (size_t)written == chunk;
}

/* Sends up to the target, as far as the socket takes it; the rest goes when epoll says so.
 * `time` is noted as the start of every message begun here. */
static inline void send_to_target(struct connection *connection, uint64_t time) {
    while (connection->sent < connection->target) {
        uint64_t before = connection->sent, left = connection->target - before;
        bool whole = send_chunk(connection, left < BUFFER ? left : BUFFER);
        for (uint64_t message = (before + message_size - 1) / message_size; message * message_size < connection->sent; message++)
            connection->times[message % depth] = time;
        if (connection->fd < 0) return;
        if (!whole) return watch(connection, EPOLLIN | EPOLLOUT);
    }
    watch(connection, EPOLLIN);
}

/* One read, every byte of it checked. The number of bytes: 0 when there were none, or the connection failed. */
static inline size_t receive(struct connection *connection) {
    ssize_t length = recv(connection->fd, in, sizeof in, 0);
    if (length < 0) {
        if (errno != EAGAIN && errno != EINTR) fail(connection, "read: %s", strerror(errno));
        return 0;
    }
    uint64_t offset = connection->received, owed = connection->sent - offset;
    if (length == 0) {
        if (!connection->ending || owed) fail(connection, "end of file while %lu bytes of echo are owed", owed);
        else close(connection->fd), connection->fd = -1, live--;
        return 0;
    }
    if ((uint64_t)length > owed) {
        fail(connection, "%zd bytes came where %lu were owed", length, owed);
        return 0;
    }
    size_t wrong = pattern_check(connection->id, offset, in, length);
    if (wrong < (size_t)length) {
        fail(connection, "wrong echo: byte %lu of its stream came as 0x%02x, sent was 0x%02x", offset + wrong, in[wrong],
             pattern_byte(connection->id, offset + wrong));
        return 0;
    }
    connection->received += length;
    return length;
}

/* One of 250 addresses of our own to connect from, so that none runs out of ports; 0 when it has to be the usual one. */
static inline unsigned source_of(uint32_t id) {
    bool loopback = ntohl(server.sin_addr.s_addr) >> 24 == 127;
    return loopback ? 2 + id % 250 : 0;
}

/* Begins to connect; from 127.0.0.`source` when that is not 0. */
static void dial(struct connection *connection, unsigned source) {
    connection->sent = connection->received = connection->watched = 0;
    connection->opened = connection->ending = false;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) die("socket: %s", strerror(errno));
    live++;
    if (source) {
        int on = 1;
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7F000000u | source)};
        setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(connection->fd, (struct sockaddr *)&address, sizeof address) < 0) return fail(connection, "bind: %s", strerror(errno));
    }
    if (connect(connection->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        fail(connection, "connect: %s", strerror(errno));
}

/* Opens `count` connections and waits for one echo on each: then the server has taken all of them,
 * and never were more than a few waiting to be accepted. */
static void open_all(struct connection *connections, size_t count, int epoll, uint64_t deadline) {
    struct epoll_event events[EVENTS];
    for (size_t begun = 0, opening = 0; begun < count || opening;) {
        for (; begun < count && opening < OPENING_AT_ONCE; begun++, opening++) {
            struct connection *connection = &connections[begun];
            connection->epoll = epoll;
            connection->target = message_size;
            dial(connection, count > FEW ? source_of(connection->id) : 0);
            if (connection->fd >= 0) send_to_target(connection, now());
            if (connection->fd < 0) die("cannot connect to %s:%d", inet_ntoa(server.sin_addr), ntohs(server.sin_port));
        }
        if (now() > deadline) die("only %zu of %zu connections got their first echo in time", begun - opening, count);
        int ready = epoll_wait(epoll, events, EVENTS, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_to_target(connection, now());
            if (connection->fd >= 0) receive(connection);
            if (connection->fd < 0) die("a connection was lost while opening");
            if (completed(connection) && !connection->opened) connection->opened = true, opening--;
        }
    }
}

static struct connection *make_connections(size_t count, uint32_t first_id) {
    struct connection *connections = calloc(count, sizeof *connections);
    uint64_t *times = calloc(count * depth, sizeof *times);
    if (count && (!connections || !times)) die("out of memory");
    for (size_t i = 0; i < count; i++) connections[i] = (struct connection){.fd = -1, .id = first_id + i, .times = times + i * depth};
    return connections;
}
