"""Servers and loads as processes: pinned, bounded in time, always stopped."""

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path


class Failure(Exception):
    """One contestant cannot be measured; the text says why, in one line."""


class Cpus:
    """Where the server and the load run: two CPUs when there are two."""

    server, load = 0, 0

    @classmethod
    def choose(cls, wanted=None):
        mine = sorted(os.sched_getaffinity(0))
        cls.server, cls.load = wanted or (mine[0], mine[min(1, len(mine) - 1)])


LOAD = None  # path of the load generator, once built
PR_SET_THP_DISABLE = 41
LIBC = ctypes.CDLL(None)


def pinned(cpu, huge_pages=True):
    def before_exec():
        os.sched_setaffinity(0, {cpu})
        if not huge_pages:  # one of them would count as 2 MiB of memory
            LIBC.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

    return before_exec


def kill_group(process):
    """Ends a process that we started, and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Server:
    """A running echo server: `with Server(contestant) as server: ... server.address`."""

    def __init__(self, contestant, wrapper=(), huge_pages=True, start_within=30):
        self.contestant = contestant
        self.wrapper = list(wrapper)
        self.huge_pages = huge_pages
        self.start_within = start_within

    def __enter__(self):
        command = self.wrapper + [part.replace("{addr}", "127.0.0.1:0") for part in self.contestant.command]
        self.out = tempfile.TemporaryFile()
        self.err = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err,
                start_new_session=True, preexec_fn=pinned(Cpus.server, self.huge_pages),
            )
        except OSError as error:
            raise Failure(f"{command[0]}: {error.strerror}") from None
        try:
            self.pid = self.process.pid
            self.address = self._wait_for_address()
        except BaseException:
            kill_group(self.process)
            raise
        return self

    def _wait_for_address(self):
        until = time.monotonic() + self.start_within
        while time.monotonic() < until:
            found = re.search(rb"listening on (\S+)\n", os.pread(self.out.fileno(), 4096, 0))
            if found:
                return found[1].decode()
            if self.process.poll() is not None:
                raise Failure(f"did not start: {self.complaint()}")
            time.sleep(0.005)
        raise Failure(f"printed no `listening on ADDR` within {self.start_within} s")

    def complaint(self):
        """The line of stderr that says most: the first that is not empty."""
        text = os.pread(self.err.fileno(), 65536, 0).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[0] if lines else f"exit status {self.process.poll()}"

    def stop(self):
        """SIGTERM, and a while for valgrind and the like to write their files."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        try:
            status = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            raise Failure("did not end within 20 s of SIGTERM") from None
        if status not in (0, -signal.SIGTERM):
            raise Failure(f"ended with {status} on SIGTERM: {self.complaint()}")

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.stop()
        finally:
            kill_group(self.process)
            self.out.close()
            self.err.close()

    def memory(self):
        """Bytes of anonymous memory, that is heap and stacks, the user-space share.

        From smaps_rollup, which walks the pages: RssAnon of /proc/PID/status comes from
        counters that are exact only to some hundred KiB on some kernels.
        """
        for name, key in (("smaps_rollup", "Anonymous:"), ("status", "RssAnon:")):
            try:
                text = Path(f"/proc/{self.pid}/{name}").read_text()
                return 1024 * int(re.search(rf"^{key}\s+(\d+) kB", text, re.M)[1])
            except (OSError, TypeError):
                continue
        raise Failure("its memory cannot be read from /proc")

    def wake_ups(self):
        """How often its threads have gone to sleep or were made to."""
        total = 0
        for status in Path(f"/proc/{self.pid}/task").glob("*/status"):
            total += sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", status.read_text()))
        return total


def run_load(server, *options, within):
    """Runs the load generator to its end. Its JSON line; a Failure when an echo was wrong."""
    command = [LOAD, "--addr", server.address, "--server-pid", server.pid, *options]
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=within + 150,
            stdin=subprocess.DEVNULL, preexec_fn=pinned(Cpus.load),
        )
    except subprocess.TimeoutExpired:
        raise Failure("the load did not end in time") from None
    if done.returncode != 0:
        died = f" (the server died: {server.complaint()})" if server.process.poll() is not None else ""
        raise Failure((done.stderr.strip().splitlines() or [f"load: status {done.returncode}"])[0] + died)
    return json.loads(done.stdout.splitlines()[-1])


class IdleLoad:
    """Idle connections, held while the `with` block runs; `report` is there when it has ended."""

    def __init__(self, server, count, seconds=120, options=()):
        self.server, self.count, self.seconds, self.options = server, count, seconds, options

    def __enter__(self):
        self.process = subprocess.Popen(
            [LOAD, "--addr", self.server.address, "--idle", str(self.count), "--seconds", str(self.seconds), *self.options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=pinned(Cpus.load),
        )
        ready, _, _ = select.select([self.process.stdout], [], [], 120)
        if not ready or self.process.stdout.readline() != "idle\n":
            kill_group(self.process)
            raise Failure((self.process.stderr.read().strip().splitlines() or ["load: no connections in time"])[0])
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                out, complaints = self.process.communicate(timeout=60)
                self.report = json.loads(out.splitlines()[-1])
                if self.report["disturbed"]:
                    raise Failure(f"{self.report['disturbed']} idle connections were closed or got bytes")
                if self.process.returncode:
                    raise Failure((complaints.strip().splitlines() or ["load: idle connections went wrong"])[0])
        finally:
            kill_group(self.process)
