"""The parts of benches/figures.py.

contestants   the servers that are measured; the floors are built here
process       starts servers and loads, pinned, and always stops them
rounds        interleaves the contestants, medians, tables
instructions  valgrind: instructions per message, and the check against their ceilings
wall          by the clock: throughput, firehose, churn, spin
system        what the system sees: memory, syscalls, idle
heartbeats    CPU of many connections that are pinged, beside the pings alone
cli           the command line
"""
