"""More than echo: proxies, timers, wake-ups, heartbeats, workers. One measurement each."""

import subprocess
import time

from figures.contestants import TARGET
from figures.process import Cpus, Failure, IdleLoad, Server, kill_group, pinned
from figures.system import WARM_UP as HELD

from .measures import backend, cpu_seconds, echo, last_json, load, on_cpus, warmed_up
from .roster import BUILT, Peer, rust

GO = str(BUILT / "go_peer")


def proxies():
    ours = Peer("ours: Relay", (str(TARGET / "release" / "examples" / "proxy"), "--addr", "{addr}", "--to", "{to}"), "ours")
    return [
        ours,
        Peer("Go: io.Copy", (GO, "proxy", "{addr}", "--to", "{to}"), "peer"),
        Peer("tokio: copy_bidirectional", (rust("tokio_proxy"), "{addr}", "--to", "{to}"), "peer"),
    ]


def proxy(roster, connections, size, seconds, warmup=0.3):
    """The load talks through the proxy to a C epoll echo, which shares the load's CPU."""

    def measure(peer):
        with backend(roster) as target:
            command = tuple(part.replace("{to}", target.address) for part in peer.command)
            with Server(Peer(peer.name, command, peer.family)) as server:
                warmed_up(server)
                flat = load(server, seconds, warmup, "--connections", connections, "--size", size)
        flat["mb"] = flat["rate"] * size / 1e6
        flat["cpu_us_per_mb"] = flat["cpu_us"] / (size / 1e6)
        return flat

    return measure


def programs(kind):
    """Programs that measure themselves and print a line of JSON."""
    if kind == "timers":
        return [
            Peer("ours: the wheel", (rust("netpoller_timers"), "--wheel"), "ours"),
            Peer("ours: Sleep futures", (rust("netpoller_timers"),), "ours"),
            Peer("tokio: Sleep futures", (rust("tokio_timers"),), "peer"),
            Peer("Go: time.AfterFunc", (GO, "timers"), "peer"),
        ]
    return [
        Peer("ours: Handle::wake", (rust("netpoller_wake"),), "ours"),
        Peer("ours: Handle::spawn", (rust("netpoller_wake"), "--spawn"), "ours"),
        Peer("tokio: mpsc channel", (rust("tokio_wake"),), "peer"),
        Peer("tokio: Handle::spawn", (rust("tokio_wake"), "--spawn"), "peer"),
        Peer("Go: channel, a thread each", (GO, "wake", "--locked"), "peer"),
        Peer("Go: channel", (GO, "wake"), "peer"),
    ]


def run_program(*flags, cpus, within):
    """Runs it to its end, where it prints what it has measured."""

    def measure(peer):
        command = on_cpus(cpus()) + [*peer.command, *map(str, flags)]
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=pinned(Cpus.server, huge_pages=False),
        )
        try:
            out, complaints = program.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            raise Failure(f"did not end within {within} s") from None
        finally:
            kill_group(program)
        if program.returncode:
            raise Failure((complaints.strip().splitlines() or [f"status {program.returncode}"])[0])
        return last_json(out)

    return measure


def heartbeats(count, interval, seconds):
    """Idle connections, each pinged when it has been silent for `interval`: memory, and CPU for a while."""

    def measure(peer):
        with Server(peer.flagged("--heartbeat", f"{interval}s"), huge_pages=False) as server:
            with IdleLoad(server, HELD, options=["--pings"]):
                before = server.memory()
                with IdleLoad(server, count, options=["--pings"]) as idle:
                    began, cpu = time.monotonic(), cpu_seconds(server)
                    time.sleep(seconds)
                    spent, took = cpu_seconds(server) - cpu, time.monotonic() - began
                    memory = server.memory() - before
        pings = idle.report["pings"]
        if pings < 0.5 * count * seconds / interval:
            raise Failure(f"only {pings:,} pings came, of {count * seconds / interval:,.0f}")
        return {"bytes": memory / count, "cpu": spent / took, "pings": pings / took, "us_per_ping": 1e6 * spent / pings}

    return measure


def workers(number, connections, depth, seconds):
    """Both CPUs for the server, one of them shared with the load."""

    def measure(peer):
        wide = on_cpus({Cpus.server, Cpus.load})
        return echo(connections, 64, depth, seconds, prepare=lambda peer: peer.flagged("--workers", number), wrapper=wide)(peer)

    return measure
