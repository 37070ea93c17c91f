"""The parts of benches/peers/run.py. Processes, rounds and the load are those of benches/figures.

roster     the contestants, how each is built, which are left out and why
measures   one measurement each: echo, churn, memory, system calls, firehoses, ...
more       those that are more than echo: proxies, timers, wake-ups, heartbeats, workers
about      what the report says of each scenario
plan       which of them, with which parameters: quick, by default, in full
results    medians, spreads, and where we lose
markdown   the report to read in a terminal, and the table of docs/peers.md
charts     bars with whiskers, as SVG
page       one self-contained HTML page
cli        the command line
"""
