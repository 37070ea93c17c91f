/* Echo on libuv: a handle and a timer a connection, one read buffer for the whole loop.
 *
 * What uv_try_write does not take goes into a request of its own, and reading stops until
 * that is written: so a peer that does not read costs one buffer.
 *
 *   cc -O2 -o uv_echo uv_echo.c -luv && ./uv_echo 127.0.0.1:0 [--idle-timeout 30s] [--buffer N]
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct connection {
    uv_tcp_t stream;
    uv_timer_t timer;
    int handles; /* not yet closed */
};

struct request {
    uv_write_t write;
    struct connection *connection;
    char bytes[];
};

static uint64_t idle_timeout; /* milliseconds; 0: none */
static char *buffer;
static size_t room = 64 * 1024;

static void check(int status, const char *what) {
    if (status >= 0) return;
    fprintf(stderr, "uv_echo: %s: %s\n", what, uv_strerror(status));
    exit(1);
}

static void closed(uv_handle_t *handle) {
    struct connection *connection = handle->data;
    if (--connection->handles == 0) free(connection);
}

static void end(struct connection *connection) {
    if (uv_is_closing((uv_handle_t *)&connection->stream)) return;
    uv_close((uv_handle_t *)&connection->stream, closed);
    if (idle_timeout) uv_close((uv_handle_t *)&connection->timer, closed);
}

static void expired(uv_timer_t *timer) { end(timer->data); }

static void lend(uv_handle_t *handle, size_t suggested, uv_buf_t *into) {
    (void)handle, (void)suggested;
    *into = uv_buf_init(buffer, room);
}

static void got(uv_stream_t *stream, ssize_t length, const uv_buf_t *bytes);

static void written(uv_write_t *write, int status) {
    struct connection *connection = ((struct request *)write)->connection;
    free(write);
    if (status < 0) end(connection);
    else if (!uv_is_closing((uv_handle_t *)&connection->stream)) uv_read_start((uv_stream_t *)&connection->stream, lend, got);
}

/* Queues what the kernel would not take yet; nothing more is read before it has gone. */
static void write_rest(struct connection *connection, const char *bytes, size_t length) {
    struct request *request = malloc(sizeof *request + length);
    if (!request) abort();
    request->connection = connection;
    memcpy(request->bytes, bytes, length);
    uv_buf_t rest = uv_buf_init(request->bytes, length);
    uv_read_stop((uv_stream_t *)&connection->stream);
    if (uv_write(&request->write, (uv_stream_t *)&connection->stream, &rest, 1, written) < 0) {
        free(request);
        end(connection);
    }
}

static void got(uv_stream_t *stream, ssize_t length, const uv_buf_t *bytes) {
    struct connection *connection = stream->data;
    if (length < 0) return end(connection);
    if (length == 0) return; /* EAGAIN */
    if (idle_timeout) uv_timer_again(&connection->timer);
    uv_buf_t all = uv_buf_init(bytes->base, length);
    int gone = uv_try_write(stream, &all, 1);
    if (gone < 0 && gone != UV_EAGAIN) return end(connection);
    if (gone < 0) gone = 0;
    if (gone < length) write_rest(connection, bytes->base + gone, length - gone);
}

static void connected(uv_stream_t *listener, int status) {
    check(status, "listening");
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) abort();
    uv_tcp_init(listener->loop, &connection->stream);
    connection->stream.data = connection;
    connection->handles = 1;
    if (idle_timeout) {
        uv_timer_init(listener->loop, &connection->timer);
        connection->timer.data = connection;
        connection->handles = 2;
        uv_timer_start(&connection->timer, expired, idle_timeout, idle_timeout);
    }
    if (uv_accept(listener, (uv_stream_t *)&connection->stream) < 0) return end(connection);
    uv_tcp_nodelay(&connection->stream, 1);
    uv_read_start((uv_stream_t *)&connection->stream, lend, got);
}

/* As 30s or 500ms. */
static uint64_t milliseconds(const char *text) {
    char *unit;
    uint64_t number = strtoull(text, &unit, 10);
    if (!strcmp(unit, "s")) return number * 1000;
    if (!strcmp(unit, "ms")) return number;
    fprintf(stderr, "uv_echo: '%s' is no duration\n", text);
    exit(2);
}

static struct sockaddr_in address(const char *text) {
    struct sockaddr_in address;
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host) check(UV_EINVAL, text);
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    check(uv_ip4_addr(host, atoi(colon + 1), &address), text);
    return address;
}

int main(int argc, char **argv) {
    const char *addr = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--idle-timeout") && i + 1 < argc) idle_timeout = milliseconds(argv[++i]);
        else if (!strcmp(argv[i], "--buffer") && i + 1 < argc) room = strtoul(argv[++i], NULL, 10);
        else if (argv[i][0] != '-' && !addr) addr = argv[i];
        else addr = NULL, i = argc;
    }
    if (!addr || !room) {
        fprintf(stderr, "usage: uv_echo IPV4:PORT [--idle-timeout 30s] [--buffer BYTES]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    buffer = malloc(room);
    uv_tcp_t listener;
    struct sockaddr_in where = address(addr);
    uv_loop_t *loop = uv_default_loop();
    check(uv_tcp_init(loop, &listener), "socket");
    check(uv_tcp_bind(&listener, (struct sockaddr *)&where, 0), "bind");
    check(uv_listen((uv_stream_t *)&listener, 4096, connected), "listen");
    int length = sizeof where;
    uv_tcp_getsockname(&listener, (struct sockaddr *)&where, &length);
    char host[64];
    uv_ip4_name(&where, host, sizeof host);
    printf("listening on %s:%d\n", host, ntohs(where.sin_port));
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
