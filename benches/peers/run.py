#!/usr/bin/env python3
"""Measures netpoller beside its peers on this computer: one command, a table and a page. See README.md here."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # no build output in the source tree
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for the package `figures`

from runner.cli import main  # the package beside this file

if __name__ == "__main__":
    sys.exit(main())
