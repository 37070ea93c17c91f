/* The plain C epoll echo: the floor that everything else is measured against.
 *
 * One thread, non-blocking sockets, one 64 KiB buffer for all. Three flavours:
 *
 *   (default)  level-triggered: one read and one write an event, then back to epoll.
 *              No probe for EAGAIN: what is left is reported again. The fewest
 *              instructions of its own, but epoll looks at each socket once more.
 *   --edge     edge-triggered, registered once for both directions; each edge is read
 *              until a short read, which emptied the socket.
 *   --drain    edge-triggered, each edge read until EAGAIN.
 *
 * A write that the kernel takes only in part leaves the rest in the connection's
 * own pending buffer, and the connection is not read again until that is gone:
 * so a peer that does not read costs at most 64 KiB.
 * At end of file everything read has been echoed, so closing is right for a peer
 * that closed only its sending half.
 *
 *   cc -O2 -o epoll epoll.c && ./epoll --addr 127.0.0.1:0 [--edge | --drain]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024, EVENTS = 1024 };

struct connection {
    int fd;
    char *pending; /* what the kernel would not take yet, or NULL */
    size_t pending_from, pending_to;
};

static char buffer[BUFFER];
static int epoll, listener;
static enum flavour { LEVEL, EDGE, DRAIN } flavour;

static void die(const char *what) {
    fprintf(stderr, "epoll: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void stop(int signal) {
    (void)signal;
    _exit(0);
}

static void watch(int operation, int fd, uint32_t events, void *data) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll, operation, fd, &event) < 0) die("epoll_ctl");
}

static void forget(struct connection *connection) {
    close(connection->fd);
    free(connection->pending);
    free(connection);
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN) return;
            if (errno == EINTR || errno == ECONNABORTED) continue;
            die("accept4"); /* out of descriptors: a floor says so and stops */
        }
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection) die("calloc");
        connection->fd = fd;
        watch(EPOLL_CTL_ADD, fd, flavour != LEVEL ? EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET : EPOLLIN, connection);
    }
}

/* Keeps what was not written. False when the connection is lost. */
static __attribute__((noinline, cold)) bool keep_rest(struct connection *connection, ssize_t written, size_t length) {
    if (written < 0) {
        if (errno != EAGAIN && errno != EINTR) return false;
        written = 0;
    }
    connection->pending = malloc(length - written);
    if (!connection->pending) die("malloc");
    memcpy(connection->pending, buffer + written, length - written);
    connection->pending_from = 0;
    connection->pending_to = length - written;
    if (flavour == LEVEL) watch(EPOLL_CTL_MOD, connection->fd, EPOLLOUT, connection);
    return true;
}

/* Writes what is pending. False when the connection is lost; pending is NULL when all is written. */
static __attribute__((noinline, cold)) bool flush(struct connection *connection) {
    while (connection->pending_from < connection->pending_to) {
        ssize_t written = write(connection->fd, connection->pending + connection->pending_from,
                                connection->pending_to - connection->pending_from);
        if (written < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN;
        }
        connection->pending_from += written;
    }
    free(connection->pending);
    connection->pending = NULL;
    if (flavour == LEVEL) watch(EPOLL_CTL_MOD, connection->fd, EPOLLIN, connection);
    return true;
}

/* Is there more to read, after a read that gave `length`? An end of file that came together with
 * the bytes makes no edge of its own, so it is read now. */
static inline bool more(enum flavour how, ssize_t length, uint32_t events) {
    if (how == EDGE) return length == BUFFER || events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    return how == DRAIN;
}

/* One event. False when the connection is done with. */
static inline __attribute__((always_inline)) bool serve(enum flavour how, struct connection *connection, uint32_t events) {
    if (__builtin_expect(connection->pending != NULL, 0)) {
        if (!flush(connection)) return false;
        if (connection->pending) return true;
    }
    ssize_t length;
    do {
        length = read(connection->fd, buffer, BUFFER);
        if (__builtin_expect(length <= 0, 0)) return length < 0 && (errno == EAGAIN || errno == EINTR);
        ssize_t written = write(connection->fd, buffer, length);
        /* EINTR cannot come between: the only handler ends the process. */
        if (__builtin_expect(written != length, 0)) return keep_rest(connection, written, length);
    } while (__builtin_expect(more(how, length, events), 0));
    return true;
}

/* The loop, compiled once for each flavour. */
static inline __attribute__((always_inline)) void run(enum flavour how) {
    static struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (__builtin_expect(connection == NULL, 0)) {
                accept_all();
            } else if (__builtin_expect(!serve(how, connection, events[i].events), 0)) {
                forget(connection);
            }
        }
    }
}

static void listen_on(const char *addr) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(addr, ':');
    if (!colon || (size_t)(colon - addr) >= sizeof host) {
        fprintf(stderr, "epoll: --addr wants IPV4:PORT, not '%s'\n", addr);
        exit(2);
    }
    snprintf(host, sizeof host, "%.*s", (int)(colon - addr), addr);
    address.sin_port = htons(atoi(colon + 1));
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "epoll: '%s' is no IPv4 address\n", host);
        exit(2);
    }
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0) die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* Linux: accepted sockets inherit it */
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(listener, 65535) < 0) die("listen"); /* the kernel caps it at somaxconn */
    socklen_t length = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("listening on %s:%d\n", host, ntohs(address.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv) {
    const char *addr = "127.0.0.1:0";
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--addr") && i + 1 < argc) {
            addr = argv[++i];
        } else if (!strcmp(argv[i], "--edge")) {
            flavour = EDGE;
        } else if (!strcmp(argv[i], "--drain")) {
            flavour = DRAIN;
        } else {
            fprintf(stderr, "usage: epoll [--addr IPV4:PORT] [--edge | --drain]\n");
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop);
    signal(SIGINT, stop);

    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1");
    listen_on(addr);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);

    if (flavour == LEVEL) run(LEVEL);
    else if (flavour == EDGE) run(EDGE);
    else run(DRAIN);
}
