#!/usr/bin/env python3
"""Puts each deliberate fault of src/ in, one at a time, and says which proof finds it, and how fast.

    python3 tests/deliberate_faults.py [FAULT ...]     all of them, or those
    python3 tests/deliberate_faults.py --list

A fault is one line that `fault!("NAME")` guards (src/lib.rs). One build has all of them, and breaks the one
that the environment names. The proofs run in the order of their cost until one fails. Without a fault, every
proof must pass first; or, where faults are named, each test that found one. Exits with 1 if a fault is not
found.
"""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target" / "faults"
# In the order of their cost.
PROOFS = [
    ("unit tests", ["cargo", "test", "--lib"]),
    ("tests/it", ["cargo", "test", "--test", "it"]),
    ("tests/process", ["cargo", "test", "--test", "process"]),
    ("loom", ["cargo", "test", "-p", "netpoller-loom", "--test", "loom"]),
]
# Seconds that a proof may take, its build aside.
LIMIT = 900

FAILED = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. FAILED")
HANGS = re.compile(r"^(.+) hangs$")
RUNNING = re.compile(r"^\s+Running ")


def faults():
    """Each fault, with the file it is in."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.rs")):
        for name in re.findall(r'fault!\("(\w+)"\)', path.read_text()):
            found[name] = path.relative_to(ROOT).as_posix()
    return found


def wrapper():
    """A compiler for the workspace's own crates that has the faults; the others are built without."""
    path = TARGET / "rustc"
    path.write_text("""#!/bin/sh\nexec "$@" --cfg 'netpoller_fault="any"'\n""")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def run(command, fault, only=None):
    """The test that finds the fault, or None, and the seconds that it took. `only`: run that test alone."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(TARGET), CARGO_INCREMENTAL="0")
    environment["RUSTC_WORKSPACE_WRAPPER"] = str(wrapper())
    environment["NETPOLLER_FAULT"] = fault or ""
    built = subprocess.run([*command, "--no-run"], env=environment, cwd=ROOT, capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit(f"{fault}: {' '.join(command)} does not build:\n{built.stderr}")
    start = time.monotonic()
    proof = subprocess.Popen(
        [*command, "--", "--exact", only] if only else command, env=environment, cwd=ROOT, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(proof.pid, signal.SIGKILL))
    signal.alarm(LIMIT)
    found, last = None, ""
    for line in proof.stdout:
        if RUNNING.match(line):
            start = time.monotonic()
        failed = FAILED.match(line)
        hangs = HANGS.match(line)
        if failed or hangs:
            found = f"`{failed[1]}`" if failed else f"`{hangs[1]}`, which hangs"
            break
        last = line.strip() or last
    seconds = time.monotonic() - start
    if found:
        os.killpg(proof.pid, signal.SIGKILL)
    code = proof.wait()
    signal.alarm(0)
    if not found and code != 0:
        found = f"the end of the test program ({last[:60]})"
    return found, seconds


def main():
    known = faults()
    if sys.argv[1:] == ["--list"]:
        print(*(f"{name} {path}" for name, path in known.items()), sep="\n")
        return
    asked = sys.argv[1:] or list(known)
    if unknown := [name for name in asked if name not in known]:
        sys.exit(f"no such fault: {unknown}")
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, command in [] if sys.argv[1:] else PROOFS:
        found, seconds = run(command, None)
        if found:
            sys.exit(f"{name} fails without any fault: {found}")
        print(f"without a fault: {name} pass in {seconds:.0f} s", flush=True)
    print("\n| fault | in | found by | after (s) |\n|---|---|---|---|", flush=True)
    missed = []
    for fault in asked:
        for name, command in PROOFS:
            found, seconds = run(command, fault)
            if found:
                print(f"| {fault} | `{known[fault]}` | {name}: {found} | {seconds:.1f} |", flush=True)
                test = re.match("`(.+?)`", found)
                if sys.argv[1:] and test and run(command, None, test[1])[0]:
                    sys.exit(f"{test[1]} fails without any fault")
                break
        else:
            missed.append(fault)
            print(f"| {fault} | `{known[fault]}` | **nothing** | |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
