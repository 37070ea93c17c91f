"""What is measured, with which parameters: quick, by default, in full."""

import resource
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from figures.process import Cpus

from . import measures, more
from .results import Metric

AT_ONCE = 1 << 30  # bytes in flight: cells with more are left out


@dataclass
class Step:
    """A scenario with its parameters, ready to run."""

    name: str
    title: str
    metrics: list
    contestants: list
    measure: object
    by_clock: bool = True
    parameters: dict = field(default_factory=dict)


RATE = Metric("rate", "messages/s", better="higher", chart=True)
P50, P99, P999 = (Metric(q, f"{q} us", better="lower", chart=q == "p99") for q in ("p50", "p99", "p99.9"))
MIDDLE = replace(P50, better="")  # in a closed loop this only restates the rate
USER = Metric("user_us", "user us each", "{:.3f}", "lower", chart=True)
SYSTEM = Metric("system_us", "system us each", "{:.2f}", "lower")
CPU = Metric("cpu_us", "CPU us each", "{:.2f}", "lower", chart=True)
BUSY = Metric("load_busy", "load busy", "{:.0%}")
MB = Metric("mb", "MB/s", better="higher", chart=True)
BYTES = Metric("bytes", "bytes each", better="lower", chart=True)


def most_connections():
    """As many as the limit of descriptors allows, and no more than can be opened in a few seconds."""
    return max(1_000, min(resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 400, 50_000) // 100 * 100)


def size_name(size):
    return f"{size} B" if size < 1024 else f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


class Plan:
    def __init__(self, roster, settings):
        self.roster, self.settings = roster, settings
        self.quick, self.full = settings.quick, settings.full
        self.seconds = settings.seconds or self._pick(0.25, 0.5, 4)
        self.warmup = self._pick(0.1, 0.2, 0.5)
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
        """Of programs that are no echo servers: those that are built, among those that --only names."""
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
            many = 1.5 if connections > 5_000 else 0  # seconds: each should come a few times
            measure = measures.echo(connections, size, depth, max(self.seconds, many), max(self.warmup, many / 3))
            metrics = [RATE if size < 1 << 14 else MB, MIDDLE, P99, P999, USER, SYSTEM, BUSY]
            parameters = {"connections": connections, "size": size, "depth": depth}
            yield Step("echo", title, metrics, self.roster.contestants, measure, parameters=parameters)

    def churn(self):
        metrics = [Metric("rate", "connections/s", better="higher", chart=True), MIDDLE, P99, USER, SYSTEM, BUSY]
        measure = measures.churn(self.seconds, self.warmup)
        yield Step("churn", "Connect, one echo, close; 50 at once", metrics, self.roster.contestants, measure)

    def memory(self):
        count = self._pick(1_000, min(10_000, self.most - 500), self.most - 500)
        title = f"Memory of an idle connection, idle timeout armed; {count:,} of them"
        parameters = {"connections": count}
        yield Step("memory", title, [BYTES], self.roster.contestants, measures.memory(count), by_clock=False, parameters=parameters)

    def syscalls(self):
        if not shutil.which("strace"):
            self.left_out.append("system calls: strace is not installed")
            return
        measure = measures.syscalls(*self._pick((500, 1_500), (1_000, 4_000), (2_000, 12_000)))
        calls = Metric("calls", "calls each", "{:.2f}", "lower", chart=True)
        metrics = [calls, Metric("failed", "failed", "{:.2f}"), Metric("names", "by name")]
        yield Step("syscalls", "System calls per message, 50 connections", metrics, self.roster.contestants, measure, by_clock=False)

    def deadline(self):
        timed = [peer for peer in self.roster.contestants if peer.deadlines]
        metrics = [RATE, Metric("ratio", "rate / rate without a deadline", "{:.2f}"), USER, Metric("added_ns", "user ns it added", "{:.0f}")]
        measure = measures.deadline(self.seconds, self.warmup)
        yield Step("deadline", "A deadline moved on every read; 50 connections, 64 B", metrics, timed, measure)

    def firehose(self):
        served = Metric("firehose_mb_per_second", "firehose MB/s", better="higher")
        metrics = [P50, P99, P999, served, Metric("send_lag_p99_us", "the load late, p99 us")]
        for firehoses in self._pick((8,), (1, 8), (1, 8)):
            title = f"1,000 quiet connections beside {firehoses} firehose{'s' * (firehoses > 1)} of 64 KiB writes"
            measure = measures.firehose(firehoses, max(self.seconds, self._pick(0.5, 1, 1)), self.warmup)
            yield Step("firehose", title, metrics, self.roster.contestants, measure, parameters={"firehoses": firehoses})

    def proxy(self):
        each = Metric("cpu_us_per_mb", "CPU us per MB", "{:.0f}", "lower", chart=True)
        usual = [(50, 64), (8, 65_536), (8, 1 << 20)]
        for connections, size in self._pick([(8, 65_536)], usual, [*usual, (500, 65_536)]):
            title = f"Proxy: {connections} connections, {size_name(size)}"
            metrics = [*([RATE, CPU] if size < 1 << 14 else [MB, each]), MIDDLE, P99, BUSY]
            measure = more.proxy(self.roster, connections, size, self.seconds, self.warmup)
            parameters = {"connections": connections, "size": size}
            yield Step("proxy", title, metrics, self._there(more.proxies()), measure, parameters=parameters)

    def timers(self):
        count = self._pick(100_000, 10_000_000, 10_000_000)
        each = [Metric(step, f"{step}, ns", "{:.0f}", "lower", chart=step == "insert") for step in ("insert", "move", "cancel")]
        measure = more.run_program("--count", count, cpus=lambda: {Cpus.server}, within=180)
        programs = self._there(more.programs("timers"))
        yield Step("timers", f"{count:,} timers at once", [*each, BYTES], programs, measure, parameters={"timers": count})

    def wake(self):
        count = self._pick(1_000, 5_000, 20_000)
        metrics = [Metric(q, f"{q} us", "{:.1f}", "lower", chart=q == "p50") for q in ("p50", "p99", "p99.9")]
        measure = more.run_program("--count", count, cpus=lambda: {Cpus.server, Cpus.load}, within=60)
        programs = self._there(more.programs("wake"))
        yield Step("wake", "Waking a sleeping loop from another thread", metrics, programs, measure, parameters={"wakes": count})

    def heartbeats(self):
        count = min(self._pick(1_000, 15_000, 15_000), self.most - 500)
        interval, seconds = self._pick((1, 2), (2, 6), (2, 20))
        each = Metric("us_per_ping", "CPU us per ping", "{:.2f}", "lower", chart=True)
        metrics = [each, BYTES, Metric("cpu", "of a CPU", "{:.0%}"), Metric("pings", "pings/s")]
        title = f"{count:,} idle connections, pinged every {interval} s"
        beating = [peer for peer in self.roster.contestants if peer.heartbeats]
        parameters = {"connections": count, "interval": interval}
        yield Step("heartbeats", title, metrics, beating, more.heartbeats(count, interval, seconds), parameters=parameters)

    def workers(self):
        parallel = [peer for peer in self.roster.contestants if peer.workers]
        for number in (1, 2):
            title = f"{number} worker{'s' * (number > 1)}: 50 connections, 64 B, 16 in flight on each"
            measure = more.workers(number, 50, 16, self.seconds)
            yield Step("workers", title, [RATE, P99, CPU, BUSY], parallel, measure, parameters={"workers": number})
