#!/usr/bin/env python3
"""Measures echo servers against the plain C epoll floor. See benches/README.md."""

import sys

sys.dont_write_bytecode = True  # no build output in the source tree

from figures.cli import main  # the package beside this file

if __name__ == "__main__":
    sys.exit(main())
