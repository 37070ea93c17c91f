"""The parts of benches/figures.py.

contestants   who is measured, and how the floors are built
process       starts servers and loads, pinned, and always stops them
rounds        interleaves the contestants, medians, tables
instructions  valgrind: instructions per message, and the check against committed ones
wall          by the clock: throughput, firehose, churn, spin
system        what the system sees: memory, syscalls, idle
cli           the command line
"""
