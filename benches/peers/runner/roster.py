"""The contestants: each is built here, or left out with a reason when it does not build."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from figures import contestants as floors
from figures.contestants import BASELINE, MIO, MODES, ROOT, TARGET
from figures.rounds import say

HERE = ROOT / "benches" / "peers"
BUILT = TARGET / "peers"
FEATURES = ("tokio", "smol", "monoio", "may", "netpoller")


@dataclass(frozen=True)
class Peer:
    """A contestant, as figures.process.Server wants it, and what it can be asked for."""

    name: str
    command: tuple  # with {addr} in it
    family: str  # "floor", "ours" or "peer"
    sized: bool = False  # has a buffer for each connection
    deadlines: bool = False
    heartbeats: bool = False
    workers: bool = False

    def flagged(self, *flags):
        return replace(self, command=self.command + tuple(str(flag) for flag in flags))

    def for_messages(self, size):
        """With a buffer that suits: 4 KiB as in tokio's example, or 64 KiB as the floors have."""
        return self.flagged("--buffer", 65_536) if self.sized and size > 4096 else self

    def idle_timeout(self, seconds):
        return self.flagged("--idle-timeout", f"{seconds}s") if self.deadlines else self


def rust(name):
    return str(BUILT / "release" / name)


def servers():
    """All that might be measured, and the program each needs."""
    peer = lambda name, program, *flags, **what: Peer(name, (program, "{addr}", *flags), "peer", deadlines=True, **what)
    tokio, monoio = rust("tokio_echo"), rust("monoio_echo")
    return [
        peer("tokio current_thread", tokio, sized=True, heartbeats=True),
        peer("tokio multi_thread", tokio, "--flavor", "multi-thread", sized=True, workers=True),
        peer("smol", rust("smol_echo"), sized=True),
        peer("monoio epoll", monoio, "--driver", "legacy", sized=True),
        peer("monoio io_uring", monoio, "--driver", "uring", sized=True),
        peer("may", rust("may_echo"), sized=True, workers=True),
        peer("libuv", str(BUILT / "uv_echo")),
        Peer("Go", (str(BUILT / "go_peer"), "echo", "{addr}"), "peer", sized=True, deadlines=True, heartbeats=True, workers=True),
    ]


class Roster:
    """The contestants; `left_out` has the others, with a reason."""

    def __init__(self, only=(), build=True, go=None):
        self.left_out = {}  # name -> why
        self.go = go or os.environ.get("GO") or shutil.which("go")
        BUILT.mkdir(parents=True, exist_ok=True)
        self.contestants = self._ours_and_floors(build)
        if build:
            self._build_proxy()
            self._build_rust()
            self._build_libuv()
            self._build_go()
        self.contestants += [server for server in servers() if self._there(server)]
        if only:
            wanted = lambda name: any(word.lower() in name.lower() for word in only)
            self.contestants = [peer for peer in self.contestants if peer.name == BASELINE or wanted(peer.name)]

    def _ours_and_floors(self, build):
        """By figures.contestants: the load, C epoll, mio by hand, and echo_server in its three modes."""
        say("building the load, the floors and echo_server")
        theirs = floors.Roster(build=build)
        for note in theirs.notes:
            name, _, why = note.partition(" is left out, ")
            self.left_out[name] = why or note
        known = {contestant.name: contestant for contestant in theirs.contestants}
        for name in (MIO, *MODES):
            if name in known and not Path(known[name].command[0]).exists():
                self.left_out[name] = "is not built"
                del known[name]
        peers = [Peer(name, known[name].command, "floor") for name in (BASELINE, MIO) if name in known]
        return peers + [
            Peer(f"ours: {mode}", known[mode].command, "ours", deadlines=True, heartbeats=mode == "protocol", workers=True)
            for mode in MODES
            if mode in known
        ]

    def _there(self, server):
        if Path(server.command[0]).exists():
            return True
        family = server.name.split()[0]
        self.left_out.setdefault(family, "is not built")
        return False

    def _run(self, command, directory, environment=None):
        """None when it went well, or else the line of its complaints that says most."""
        try:
            done = subprocess.run(
                [str(part) for part in command], cwd=directory, capture_output=True, text=True, timeout=3600,
                stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{command[0]}: {error}"
        if done.returncode == 0:
            return None
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or [f"{command[0]} failed"])[0]

    def _cargo(self, *options, directory=HERE):
        return self._run(["cargo", "build", "--release", "--quiet", *options], directory)

    def _build_proxy(self):
        say("building our proxy")
        why = self._cargo("--example", "proxy", "--target-dir", TARGET, directory=ROOT)
        if why:
            self.left_out["ours: proxy"] = f"does not build: {why}"

    def _build_rust(self):
        """All at once; if that fails, one by one, so that one that does not build spoils no other."""
        say("building the peers in Rust")
        options = ["--target-dir", BUILT]  # not --locked: the lock names our own crate, whose version moves
        if self._cargo(*options) is None:
            return
        for feature in FEATURES:
            say(f"  {feature}")
            why = self._cargo(*options, "--no-default-features", "--features", feature)
            if why:
                self.left_out[feature] = f"does not build: {why}"
                for stale in (BUILT / "release").glob(f"{feature}_*"):
                    stale.unlink()

    def _build_libuv(self):
        program = BUILT / "uv_echo"
        program.unlink(missing_ok=True)
        why = self._run([os.environ.get("CC", "gcc"), "-O2", "-Wall", "-o", program, HERE / "c" / "uv_echo.c", "-luv"], HERE)
        if why:
            self.left_out["libuv"] = f"does not build (its headers are in libuv1-dev or the like): {why}"

    def _build_go(self):
        program = BUILT / "go_peer"
        program.unlink(missing_ok=True)
        if not self.go:
            self.left_out["Go"] = "there is no `go` in the PATH (or --go, or $GO)"
            return
        say("building the peer in Go")
        why = self._run([self.go, "build", "-o", program, "."], HERE / "go", {"GOWORK": "off", "GOFLAGS": "-mod=mod"})
        if why:
            self.left_out["Go"] = f"does not build: {why}"

    def versions(self):
        """What was measured, by name."""
        locked = (HERE / "Cargo.lock").read_text() if (HERE / "Cargo.lock").exists() else ""
        found = dict(re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', locked))
        versions = {name: found[name] for name in ("tokio", "smol", "monoio", "may", "mio") if name in found}
        compiler = os.environ.get("CC", "gcc")
        for name, command in {"rustc": ["rustc", "--version"], compiler: [compiler, "--version"], "Go": [self.go, "version"]}.items():
            number = re.search(r"\d+\.\d+(\.\d+)?(?!.*\) \d)", first_line(command))
            versions[name] = number[0] if number else ""
        header = next((path for path in Path("/usr/include").glob("**/uv/version.h")), None)
        if header:
            numbers = dict(re.findall(r"#define UV_VERSION_(MAJOR|MINOR|PATCH) (\d+)", header.read_text()))
            versions["libuv"] = ".".join(numbers.get(part, "?") for part in ("MAJOR", "MINOR", "PATCH"))
        versions["netpoller at"] = first_line(["git", "-C", ROOT, "describe", "--always", "--dirty"])
        return {name: version for name, version in versions.items() if version}


def first_line(command):
    try:
        out = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=20).stdout
        return out.strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return ""
