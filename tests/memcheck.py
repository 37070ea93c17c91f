#!/usr/bin/env python3
"""echo_server in its three modes under load, in valgrind: no invalid access, no leak.

    cargo build --examples && python3 tests/memcheck.py

The load is that of errno_matrix.py, and checks every byte.
"""

import os
import signal
import subprocess
import sys
import time

import errno_matrix

# valgrind is some thirty times slower.
errno_matrix.PATIENCE = 120.0
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full",
            "--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect",
            "--track-fds=no"]


class Checked(errno_matrix.Server):
    """A server in valgrind."""

    def __init__(self, mode):
        command = [*VALGRIND, os.path.join(errno_matrix.EXAMPLES, "echo_server"),
                   "--addr", "127.0.0.1:0", "--mode", mode, "--workers", "2"]
        self.name, self.is_lied_to = mode, False
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])


def main():
    wrong = False
    for mode in ["reactor", "protocol", "async"]:
        start, server = time.monotonic(), Checked(mode)
        failed = errno_matrix.load(server)
        server.process.send_signal(signal.SIGTERM)
        _, said = server.process.communicate(timeout=errno_matrix.PATIENCE)
        good = not failed and server.process.returncode == 0
        wrong |= not good
        print(f"{mode}: {'clean' if good else 'NOT CLEAN'}, {time.monotonic() - start:.0f} s")
        if not good:
            print(failed, said)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
