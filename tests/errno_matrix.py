#!/usr/bin/env python3
"""Each error into each system call, in each server, under load: what is lost, what spins, what hangs.

    cargo build --examples && python3 tests/errno_matrix.py [--server NAME] [--call NAME] [--errno NAME]

strace makes some calls of a running server fail: the second, and each fifth after it. Meanwhile eight
clients open four connections each and check every byte. Then strace goes, and the server has to
serve without a fault, to be idle, and to end by SIGTERM with status 0. A cell says `calls that were
made to fail / connections that failed`: at most one connection for each call. Where a call is not
made, the cell is empty. `ends` is a server that ended at once and said why; it may do so only where
ENDS says so.

No system says EAGAIN while there is something, so an injected one loses an edge, and no server can
know. So it is injected only a few times in each server, and new messages bring the edge: after half a
second without an answer a client sends another, and opens another connection. NEVER lists the calls
that this does not help.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

EXAMPLES = os.path.join("target", "debug", "examples")
ERRORS = ["EINTR", "EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "ECONNABORTED", "EPERM",
          "ENOSPC", "EIO", "ETIMEDOUT"]
CALLS = ["epoll_wait", "epoll_ctl", "accept4", "recvfrom", "sendto", "sendmsg", "writev", "splice",
         "connect", "socket", "close"]
# If descriptors or memory run out, the server waits up to a second. A lost edge costs half a second.
PATIENCE = 20.0
NUDGE = 0.5
CLIENTS, CONNECTIONS, MESSAGES = 8, 4, 10

# Errors that no listener and no selector gives for a moment: trying again does not help, so the
# server ends, and says so.
ENDS = ({("epoll_wait", error) for error in ERRORS if error != "EINTR"}
        | {("accept4", "EIO"), ("epoll_ctl", "EIO"), ("epoll_ctl", "EAGAIN")})
# strace makes a call fail by asking for one that does not exist. When it goes away in the midst of that, the
# server is told so (ENOSYS), and rightly ends. Such a cell is tried again.
STRACES = "os error 38"
# A copy then waits for room at its sink, and no edge comes if there was room already.
NEVER = {("proxy", "sendto", "EAGAIN"), ("proxy", "splice", "EAGAIN")}


class Server:
    """One of ours, as a process."""

    def __init__(self, name, target):
        example, *flags = {
            "reactor": ["echo_server", "--mode", "reactor"],
            "protocol": ["echo_server", "--mode", "protocol"],
            "async": ["echo_server", "--mode", "async"],
            "proxy": ["proxy", "--linger", "1s", "--to", f"localhost:{target}"],
            "http": ["http"],
        }[name]
        command = [os.path.join(EXAMPLES, example), "--addr", "127.0.0.1:0", *flags]
        self.name, self.is_lied_to = name, False
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env={**os.environ, "RUST_LOG": "warn", "RUST_BACKTRACE": "0"},
                                        text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def cpu(self):
        """Seconds of CPU that it has used."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ended(self):
        return self.process.poll() is not None

    def await_end(self):
        """Waits a second: it may be about to end."""
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            pass

    def stop(self):
        """Ends it. Returns its status, and what it wrote to stderr."""
        if not self.ended():
            self.process.send_signal(signal.SIGTERM)
        try:
            _, said = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            return None, "it does not end by SIGTERM"
        return self.process.returncode, said.strip()


class Strace:
    """Attached to a server; `inject` is strace's expression, or nothing."""

    def __init__(self, server, calls, inject=None):
        self.log = f"/tmp/errno-matrix-{os.getpid()}.log"
        command = ["strace", "-f", "-e", "signal=none", "-o", self.log,
                   "-e", f"trace={','.join(calls)}", "-p", str(server.process.pid)]
        if inject:
            command += ["-e", f"inject={inject}"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        if "attached" not in line:
            sys.exit(f"strace: {line}")

    def stop(self):
        """Detaches, and returns the log."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # strace that detaches while the server ends may wait for ever for its first thread, if that has
            # ended before the others. A killed strace detaches.
            self.process.kill()
            self.process.communicate()
        with open(self.log, errors="replace") as log:
            text = log.read()
        os.remove(self.log)
        return text


class Hang(Exception):
    """A client waited in vain."""


class Wrong(Exception):
    """A client got other bytes than it should."""


class Connection:
    """One connection of a client. All that comes is compared with what is owed."""

    def __init__(self, server, number):
        self.server, self.number, self.sent = server, number, 0
        self.owed = bytearray()
        self.until = time.monotonic() + PATIENCE
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)

    def ask(self, length):
        self.sent += 1
        if self.server.name == "http":
            self.socket.sendall(b"GET /headers HTTP/1.1\r\nHost: here\r\nX-Number: %d-%d\r\n\r\n"
                                % (self.number, self.sent))
            self.owed += b"%d-%d;" % (self.number, self.sent)
        else:
            head = b"%d-%d;" % (self.number, self.sent)
            message = (head * (length // len(head) + 1))[:length]
            self.socket.sendall(message)
            self.owed += message

    def answers(self):
        """Waits for all that is owed. If the server is lied to, sends another message after a while."""
        got = bytearray()
        while len(got) < len(self.owed):
            self.socket.settimeout(NUDGE)
            try:
                more = self.socket.recv(1 << 16)
            except TimeoutError:
                if time.monotonic() > self.until:
                    raise Hang(f"{len(got)} of {len(self.owed)} bytes have come") from None
                if self.server.is_lied_to:
                    self.ask(64)
                    nudge(self.server)
                continue
            if not more:
                raise ConnectionError("the end comes early")
            got += self.numbers(more) if self.server.name == "http" else more
        if got != self.owed:
            raise Wrong(f"{bytes(got[:80])} for {bytes(self.owed[:80])}")
        self.owed.clear()

    def numbers(self, more):
        """The numbers that HTTP answers repeat."""
        self.rest = getattr(self, "rest", b"") + more
        found = bytearray()
        while match := re.search(rb"HTTP/1\.1 (\d+).*?\r\n\r\n", self.rest, re.S):
            length = re.search(rb"(?i)content-length: (\d+)", match[0])
            end = match.end() + (int(length[1]) if length else 0)
            if len(self.rest) < end:
                break
            body = self.rest[match.end():end]
            self.rest = self.rest[end:]
            if match[1] != b"200":
                raise ConnectionError(f"status {match[1]}")
            found += re.search(rb"(?i)x-number: ?([\d-]+)", body)[1] + b";"
        return found

    def finish(self):
        self.socket.close()


def nudge(server):
    """Connects: the edge makes the server accept all that wait in the listener's queue."""
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    except OSError:
        pass


def load(server, clients=CLIENTS, connections=CONNECTIONS):
    """The messages of failed connections. Raises Hang or Wrong."""
    failed, worst = [], []

    def client(first):
        for number in range(first, first + connections):
            try:
                connection = Connection(server, number)
                try:
                    for message in range(MESSAGES):
                        connection.ask(40_000 if message % 5 == 4 else 64)
                        connection.answers()
                finally:
                    connection.finish()
            except (Hang, Wrong) as error:
                worst.append(error)
                return
            except OSError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=client, args=(1000 * at,)) for at in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if worst:
        raise worst[0]
    return failed


def fault_of(name, call, error, usual, target):
    """The cell, and whether it is a fault."""
    if (name, call, error) in NEVER:
        return "never", False
    server = Server(name, target)
    when = "2+5"
    if (call, error) in ENDS or (call, error) == ("connect", "EINTR"):
        when = "2"
    elif error == "EAGAIN":
        when = "2..32+5"
        server.is_lied_to = True
    before, start = server.cpu(), time.monotonic()
    strace = Strace(server, [call], f"{call}:error={error}:when={when}")
    fault, failed = None, []
    try:
        failed = load(server)
    except (Hang, Wrong) as caught:
        fault = f"{type(caught).__name__}: {caught}"
    took = time.monotonic() - start
    if (call, error) in ENDS:
        server.await_end()
    hits = strace.stop().count("(INJECTED)")
    if server.ended():
        status, said = server.stop()
        tells = status == 1 and len(said.splitlines()) >= 1
        tells |= status == 101 and "the selector failed" in said
        return f"ends, {status}: {said[:200]}", not (tells and (call, error) in ENDS)
    if fault is None and len(failed) > hits:
        fault = f"{len(failed)} connections failed of {hits} calls: {failed[0]}"
    used = server.cpu() - before
    if fault is None and used > 4 * usual + 0.25:
        fault = f"spins: {used:.2f} s of CPU in {took:.1f} s; it is {usual:.2f} s without errors"
    if fault is None:
        try:
            after = load(server, 2, 2)
            fault = f"afterwards: {after[0]}" if after else None
        except (Hang, Wrong) as caught:
            fault = f"afterwards: {type(caught).__name__}: {caught}"
    idle = server.cpu()
    time.sleep(0.2)
    idle = server.cpu() - idle
    if fault is None and idle > 0.05:
        fault = f"spins when idle: {idle:.2f} s of CPU in 0.2 s"
    status, said = server.stop()
    if fault is None and status != 0:
        fault = f"status {status}"
    if fault is not None:
        return f"{fault}\n    it said last: {said[-400:]}", True
    return f"{hits}/{len(failed)}", False


def baseline(name, target):
    """CPU seconds of the load under strace, and the calls that it makes."""
    server = Server(name, target)
    before = server.cpu()
    strace = Strace(server, CALLS)
    failed = load(server)
    used = server.cpu() - before
    log = strace.stop()
    status, said = server.stop()
    if failed or status != 0:
        sys.exit(f"{name} without errors: {failed} {status} {said}")
    return used, [call for call in CALLS if f"{call}(" in log]


def main():
    flags = argparse.ArgumentParser(description="Each error into each system call of each server.")
    names = ["reactor", "protocol", "async", "proxy", "http"]
    flags.add_argument("--server", choices=names)
    flags.add_argument("--call", choices=CALLS)
    flags.add_argument("--errno", choices=ERRORS)
    flags = flags.parse_args()
    servers = [name for name in names if flags.server in (None, name)]
    # The target of the proxy.
    target = Server("protocol", 0)
    start, faults, cells = time.monotonic(), [], 0
    usual = {name: baseline(name, target.port) for name in servers}
    print("| call | error | " + " | ".join(servers) + " |")
    print("|---|---|" + "---|" * len(servers))
    for call in CALLS:
        if flags.call not in (None, call):
            continue
        if not any(call in usual[name][1] for name in servers):
            continue
        for error in ERRORS:
            if flags.errno not in (None, error):
                continue
            row = []
            for name in servers:
                if call not in usual[name][1]:
                    row.append("")
                    continue
                for _ in range(3):
                    cell, is_fault = fault_of(name, call, error, usual[name][0], target.port)
                    if STRACES not in cell:
                        break
                cells += 1
                row.append("**fault**" if is_fault else cell.split(",")[0])
                if is_fault:
                    faults.append(f"{name}, {call}, {error}: {cell}")
            print(f"| {call} | {error} | " + " | ".join(row) + " |", flush=True)
    target.stop()
    print(f"\n{cells} cells in {time.monotonic() - start:.0f} s, {len(faults)} faults")
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
