"""What is measured, with which parameters: quick, by default, in full."""

import os
import resource
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from figures.process import Cpus

from . import measures, more
from .results import Metric

AT_ONCE = 1 << 30  # bytes in flight: more than this no cell of the cross product asks for


@dataclass
class Step:
    """A scenario with its parameters, ready to run."""

    name: str
    title: str
    about: str
    metrics: list
    contestants: list
    measure: object
    by_clock: bool = True
    rounds: int = None  # None: as many as asked for
    parameters: dict = field(default_factory=dict)


RATE = Metric("rate", "messages/s", better="higher", chart=True)
P50, P99, P999 = (Metric(q, f"{q} us", better="lower", chart=q == "p99") for q in ("p50", "p99", "p99.9"))
MIDDLE = replace(P50, better="")  # of a closed loop: the rate, told again
USER = Metric("user_us", "user us each", "{:.3f}", "lower", chart=True)
SYSTEM = Metric("system_us", "system us each", "{:.2f}", "lower")
CPU = Metric("cpu_us", "CPU us each", "{:.2f}", "lower", chart=True)
BUSY = Metric("load_busy", "load busy", "{:.0%}")
MB = Metric("mb", "MB/s", better="higher", chart=True)
BYTES = Metric("bytes", "bytes each", better="lower", chart=True)


def most_connections():
    """As many as the limit of descriptors and the ports of one source address allow."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return max(1_000, min(descriptors - 400, high - low - 1_000) // 100 * 100)


def size_name(size):
    return f"{size} B" if size < 1024 else f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


class Plan:
    def __init__(self, roster, settings):
        self.roster, self.settings = roster, settings
        self.quick, self.full = settings.quick, settings.full
        self.seconds = settings.seconds or (0.5 if self.quick else 4 if self.full else 1)
        self.warmup = 0.2 if self.quick else 0.3
        self.most = most_connections()
        self.left_out = []

    def steps(self):
        scenarios = {
            "echo": self.echo, "churn": self.churn, "memory": self.memory, "syscalls": self.syscalls, "deadline": self.deadline,
            "firehose": self.firehose, "proxy": self.proxy, "timers": self.timers, "wake": self.wake, "heartbeats": self.heartbeats,
            "workers": self.workers,
        }
        for name, make in scenarios.items():
            if not self.settings.scenario or name in self.settings.scenario:
                yield from make()

    def _pick(self, quick, usual, full):
        return quick if self.quick else full if self.full else usual

    def _there(self, peers):
        """Of programs that are no echo servers: those that are built, of whom --only names."""
        words = [word.lower() for word in self.settings.only]
        peers = [peer for peer in peers if not words or any(word in peer.name.lower() for word in words)]
        missing = [peer for peer in peers if not Path(peer.command[0]).exists()]
        self.left_out += [f"{peer.name} is not built" for peer in missing]
        return [peer for peer in peers if peer not in missing]

    def echo(self):
        everywhere = [(c, s, d) for s in (64, 16_384, 1 << 20) for d in (1, 16) for c in (1, 50, 1_000, self.most)]
        usual = [(1, 64, 1), (50, 64, 1), (1_000, 64, 1), (self.most, 64, 1), (50, 64, 16), (50, 16_384, 1), (50, 1 << 20, 1)]
        for connections, size, depth in self._pick([(1, 64, 1), (50, 64, 1)], usual, everywhere):
            title = f"Echo: {connections:,} connection{'s' * (connections > 1)}, {size_name(size)}, {depth} in flight on each"
            if connections * size * depth > AT_ONCE:
                self.left_out.append(f"{title}: that would be more than {size_name(AT_ONCE)} in flight")
                continue
            metrics = [RATE] if size < 1 << 14 else [MB]
            metrics += [MIDDLE, P99, P999, USER, SYSTEM, BUSY]
            yield Step(
                "echo", title, "A closed loop: the next message goes when an earlier one has come back.", metrics, self.roster.everybody,
                measures.echo(connections, size, depth, self.seconds, self.warmup),
                parameters={"connections": connections, "size": size, "depth": depth},
            )

    def churn(self):
        metrics = [Metric("rate", "connections/s", better="higher", chart=True), MIDDLE, P99, USER, SYSTEM, BUSY]
        about = "Connecting costs the load more than accepting costs the server: where `load busy` is near 100 %, compare the CPU."
        yield Step("churn", "Connect, one echo, close; 50 at once", about, metrics, self.roster.everybody, measures.churn(self.seconds, self.warmup))

    def memory(self):
        count = self._pick(1_000, min(10_000, self.most - 500), self.most - 500)
        about = "Anonymous memory of the process, no page of the kernel's. The idle timeout is armed where there is one: not on the floors."
        yield Step(
            "memory", f"Memory of an idle connection, idle timeout armed; {count:,} of them", about, [BYTES], self.roster.everybody,
            measures.memory(count), by_clock=False, rounds=self._pick(1, 1, 3), parameters={"connections": count},
        )

    def syscalls(self):
        if not shutil.which("strace"):
            self.left_out.append("system calls: strace is not installed")
            return
        short, long = self._pick((500, 1_500), (1_000, 4_000), (2_000, 12_000))
        metrics = [Metric("calls", "calls each", "{:.2f}", "lower", chart=True), Metric("failed", "failed", "{:.2f}"), Metric("names", "by name")]
        about = "Under strace the server is slow and the load is not, so many connections are ready at once: as when busy. io_uring does its work in few calls, which is the point of it."
        yield Step(
            "syscalls", "System calls per message, 50 connections", about, metrics, self.roster.everybody, measures.syscalls(short, long),
            by_clock=False, rounds=1,
        )

    def deadline(self):
        timed = [peer for peer in self.roster.everybody if peer.deadlines]
        metrics = [
            RATE, Metric("ratio", "of the rate without", "{:.2f}"), USER,
            Metric("added_ns", "user ns it added", "{:.0f}"),
        ]
        about = "The idle timeout is moved by every read: SetReadDeadline in Go, `timeout` around the read in tokio, a timer started again in libuv. What it added is the difference of two noisy figures; believe it where the spread is small."
        yield Step("deadline", "A deadline moved on every read; 50 connections, 64 B", about, metrics, timed, measures.deadline(self.seconds, self.warmup))

    def firehose(self):
        metrics = [P50, P99, P999, Metric("firehose_mb_per_second", "firehose MB/s", better="higher"), Metric("send_lag_p99_us", "the load late, p99 us")]
        about = "Latency of the quiet ones, from the scheduled time of each message. Who lets firehoses have less serves the quiet ones sooner: look at both."
        for firehoses in self._pick((8,), (1, 8), (1, 8)):
            yield Step(
                "firehose", f"1,000 quiet connections beside {firehoses} firehose{'s' * (firehoses > 1)} of 64 KiB writes", about, metrics,
                self.roster.everybody, measures.firehose(firehoses, max(self.seconds, 1), self.warmup), parameters={"firehoses": firehoses},
            )

    def proxy(self):
        metrics = [MB, Metric("cpu_us_per_mb", "CPU us per MB", "{:.0f}", "lower", chart=True), MIDDLE, P99, BUSY]
        about = "The load, the proxy, and a C epoll echo behind it, which shares the load's CPU: both directions carry every byte. Ours and Go's splice, tokio's copies through a buffer."
        for connections, size in self._pick([(8, 65_536)], [(50, 64), (8, 65_536), (8, 1 << 20)], [(50, 64), (8, 65_536), (8, 1 << 20), (500, 65_536)]):
            yield Step(
                "proxy", f"Proxy: {connections} connections, {size_name(size)}", about, metrics, self._there(more.proxies()),
                more.proxy(self.roster, connections, size, self.seconds, self.warmup), parameters={"connections": connections, "size": size},
            )

    def timers(self):
        count = self._pick(100_000, 10_000_000, 10_000_000)
        each = [Metric(step, f"{step}, ns", "{:.0f}", "lower", chart=step == "insert") for step in ("insert", "move", "cancel")]
        about = "Deadlines in no order, one to two minutes away; each step does them all in the order of insertion. Bytes include the program's own handle of each timer."
        yield Step(
            "timers", f"{count:,} timers at once", about, [*each, BYTES], self._there(more.programs("timers")),
            more.run_program("--count", count, cpus=lambda: {Cpus.server}, within=180), rounds=self._pick(1, 1, 3), parameters={"timers": count},
        )

    def wake(self):
        count = self._pick(1_000, 5_000, 20_000)
        about = "From a thread that is none of the loop's, while the loop sleeps: time from sending to running. Both CPUs are theirs. Go's scheduler may keep both goroutines on one thread, where nobody has to be woken; with a thread for each, it has to wake one as the others do."
        metrics = [Metric(q, f"{q} us", "{:.1f}", "lower", chart=q == "p50") for q in ("p50", "p99", "p99.9")]
        yield Step(
            "wake", "Waking a sleeping loop from another thread", about, metrics, self._there(more.programs("wake")),
            more.run_program("--count", count, cpus=lambda: {Cpus.server, Cpus.load}, within=60), parameters={"wakes": count},
        )

    def heartbeats(self):
        count = min(self._pick(1_000, 15_000, 15_000), self.most - 500)
        interval, seconds = self._pick((1, 2), (2, 6), (2, 20))
        beating = [peer for peer in self.roster.everybody if peer.heartbeats]
        metrics = [Metric("us_per_ping", "CPU us per ping", "{:.2f}", "lower", chart=True), BYTES, Metric("cpu", "of a CPU", "{:.0%}"), Metric("pings", "pings/s")]
        about = "Nobody says anything but the server, which pings who has been silent for so long."
        yield Step(
            "heartbeats", f"{count:,} idle connections, pinged every {interval} s", about, metrics, beating,
            more.heartbeats(count, interval, seconds), rounds=self._pick(1, 1, 3), parameters={"connections": count, "interval": interval},
        )

    def workers(self):
        parallel = [peer for peer in self.roster.everybody if peer.workers]
        about = "The server may use the load's CPU too" + (
            "; there are only two on this machine, so a second worker takes from the load what it gives." if os.cpu_count() <= 2 else "."
        )
        for number in (1, 2):
            yield Step(
                "workers", f"{number} worker{'s' * (number > 1)}: 50 connections, 64 B, 16 in flight on each", about, [RATE, P99, CPU, BUSY], parallel,
                more.workers(number, 50, 16, self.seconds), parameters={"workers": number},
            )
