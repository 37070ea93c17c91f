"""User-space instructions per echoed message, by callgrind: the slope between a short and a long run."""

import json
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from .process import Failure, Server, run_load
from .rounds import interleave, spread

CONNECTIONS = 50
FIGURES = "instructions per message"
NOISE = 1.05  # two runs of the same code differ by less


def total(contestant, messages):
    """Instructions of a whole run of that many messages."""
    with tempfile.TemporaryDirectory() as directory:
        wrapper = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={directory}/out.%p"]
        with Server(contestant, wrapper) as server:
            run_load(server, "--connections", CONNECTIONS, "--messages", messages, "--check", within=120)
            server.stop()
        text = "".join(path.read_text() for path in Path(directory).glob("out.*"))
    counts = re.findall(r"^totals: (\d+)", text, re.M) or re.findall(r"^summary: (\d+)", text, re.M)
    if not counts:
        raise Failure("callgrind wrote no totals")
    return sum(map(int, counts))


def version(command):
    try:
        return subprocess.run([command, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    except (OSError, IndexError):
        return "unknown"


def measure(roster, report, settings):
    if not shutil.which("valgrind"):
        print("instructions: valgrind is not installed")
        return 2
    short, long = (5_000, 15_000) if settings.quick else (20_000, 60_000)
    contestants = roster.plain(without=())
    contestants += [c.timed(30) for c in contestants if c.mode]

    def slope(contestant):
        return {"instructions": (total(contestant, long) - total(contestant, short)) / (long - short)}

    outcome = interleave(contestants, settings.rounds or (1 if settings.quick else 3), slope, by_clock=False)
    key = lambda m: m["instructions"]
    title = f"User-space instructions per echoed message (64 bytes, {CONNECTIONS} connections, one in flight)"
    report.section("instructions", title, [("instructions", lambda name: spread(outcome.values(name, key), "{:.1f}"))], outcome)

    medians = {name: round(statistics.median(outcome.values(name, key)), 1) for name in outcome.rounds}
    if settings.write:
        write(medians, settings.write)
    return check(medians, settings.check) if settings.check else 0


def write(medians, path):
    """Writes what was measured. The ceilings stay as they are in the file."""
    known = json.loads(path.read_text())[FIGURES] if path.exists() else {}
    rows = {name: {**known.get(name, {}), "measured": now} for name, now in medians.items()}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    made_with = json.dumps(toolchain())
    path.write_text(f'{{\n  "made with": {made_with},\n  "{FIGURES}": {{\n{lines}\n  }}\n}}\n')
    print(f"\nwritten to {path}")


def toolchain():
    return [version("rustc"), version("gcc"), version("valgrind")]


def check(medians, path):
    """Compares with the committed figures. Returns 1 if a figure newly exceeds its ceiling, or exceeded it and has grown."""
    try:
        committed = json.loads(path.read_text())
        figures = committed[FIGURES]
    except (OSError, ValueError, KeyError) as error:
        print(f"instructions: {path} cannot be read: {error}")
        return 2
    print(f"\nAgainst {path}:\n")
    over = False
    for name in {**figures, **medians}:
        if name not in figures or name not in medians:
            print(f"- {name}: {'not measured now' if name in figures else 'no committed figure'}")
            continue
        was, ceiling, now = figures[name]["measured"], figures[name].get("ceiling"), medians[name]
        line = f"- {name}: {was:.1f} -> {now:.1f} ({now / was - 1:+.1%})"
        if ceiling is None:
            print(f"{line}, no ceiling")
        elif now <= ceiling:
            print(f"{line}, below the ceiling of {ceiling}")
        else:
            print(f"{line}, OVER THE CEILING of {ceiling}")
            # A miss that is committed as one stands in docs/measured.md. It may not grow.
            over |= now > max(ceiling, was * NOISE)
    if committed.get("made with") != toolchain():
        print(f"\nThe committed figures were made with {', '.join(committed.get('made with', []))}; now {', '.join(toolchain())}.")
    return 1 if over else 0
