"""The servers that are measured: the floors, which are built here, and echo servers given by a command line."""

import os
import shlex
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from . import process
from .process import Failure

ROOT = Path(__file__).resolve().parents[2]
FLOOR = ROOT / "benches" / "floor"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BUILT = TARGET / "floor"
ECHO_SERVER = TARGET / "release" / "examples" / "echo_server"

BASELINE = "C epoll"
EDGE = "C epoll --edge"
DRAIN = "C epoll --drain"
MIO = "mio by hand"
MODES = ("reactor", "protocol", "async")


@dataclass(frozen=True)
class Contestant:
    name: str
    command: tuple
    mode: str = ""  # of echo_server; empty for others

    def timed(self, seconds):
        """With an idle deadline, which every read moves; in protocol mode with a heartbeat too."""
        flags, note = ["--idle-timeout", f"{seconds}s"], "idle timeout"
        if self.mode == "protocol":
            flags, note = flags + ["--heartbeat", f"{seconds}s"], "idle timeout, heartbeat"
        return self.flagged(flags, note)

    def flagged(self, flags, note):
        return replace(self, name=f"{self.name}, {note}", command=self.command + tuple(flags))


class Roster:
    """The contestants that were asked for. Without --server: the floors and our modes."""

    def __init__(self, servers=(), only=(), build=True):
        self.notes = []
        self._build_c()
        floor = Contestant(BASELINE, (str(BUILT / "epoll"), "--addr", "{addr}"))
        contestants = [floor] + [replace(floor, name=f"{BASELINE} {flag}", command=floor.command + (flag,)) for flag in ("--edge", "--drain")]
        if self._cargo("mio by hand", ["--locked", "--target-dir", str(BUILT)], FLOOR / "mio-echo", build):
            contestants.append(Contestant(MIO, (str(BUILT / "release" / "mio-echo"), "--addr", "{addr}")))
        if servers:
            contestants += [self._parse(text) for text in servers]
        elif self._cargo("echo_server", ["--example", "echo_server", "--target-dir", str(TARGET)], ROOT, build):
            # One thread, as the other contestants.
            command = (str(ECHO_SERVER), "--addr", "{addr}", "--no-dumps", "--mode")
            contestants += [Contestant(mode, command + (mode,), mode) for mode in MODES]
        unknown = set(only) - {contestant.name for contestant in contestants}
        if unknown:
            self.notes.append(f"--only names no contestant: {', '.join(sorted(unknown))}")
        self.contestants = [c for c in contestants if not only or c.name in only or c.name == BASELINE]

    @staticmethod
    def _parse(text):
        name, equals, command = text.partition("=")
        if not equals or "{addr}" not in command:
            raise Failure(f"--server wants 'name=command with {{addr}}', not {text!r}")
        return Contestant(name.strip(), tuple(shlex.split(command)))

    @staticmethod
    def _build_c():
        BUILT.mkdir(parents=True, exist_ok=True)
        for name in ("epoll", "load", "pings"):
            command = [os.environ.get("CC", "gcc"), "-O2", "-Wall", "-Wextra", "-o", BUILT / name, FLOOR / f"{name}.c"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            except OSError as error:
                raise Failure(f"{command[0]}: {error.strerror}; a C compiler is needed") from None
            if done.returncode:
                raise Failure(f"{name}.c does not compile: {done.stderr.strip().splitlines()[0]}")
        process.LOAD = str(BUILT / "load")

    def _cargo(self, name, options, directory, build):
        """Builds with cargo; when that fails the others are measured without."""
        if not build:
            return True
        try:
            done = subprocess.run(
                ["cargo", "build", "--release", "--quiet", *options], cwd=directory, capture_output=True, text=True, timeout=1800
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self.notes.append(f"{name} is left out: cargo: {error}")
            return False
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
            self.notes.append(f"{name} is left out, it does not build: {(errors or ['cargo failed'])[0]}")
        return done.returncode == 0

    def plain(self, without=(DRAIN,)):
        return [c for c in self.contestants if c.name not in without]

    def timed(self, seconds):
        """Ours with an idle timeout, the floors and the servers of others as they are."""
        return [c.timed(seconds) if c.mode else c for c in self.plain(without=(EDGE, DRAIN))]
