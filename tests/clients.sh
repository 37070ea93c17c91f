#!/usr/bin/env bash
# Tests with programs that others wrote: `tests/clients.sh`, or some of them by name: `tests/clients.sh study`.
# Each installs what it needs, and fails without it. What they leave is in target/clients.
set -euo pipefail
cd "$(dirname "$0")/.."
work=target/clients
mkdir -p $work

# Installs Debian's packages that are not there.
install() {
    dpkg -s "$@" >/dev/null 2>&1 && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The figures of a server: promtool and Python's parser accept them, and a Prometheus scrapes them twice.
metrics() {
    command -v promtool >/dev/null || install prometheus
    command -v prometheus >/dev/null || install prometheus
    local python=$work/python/bin/python
    [ -x $python ] || python3 -m venv $work/python
    $python -m pip install --quiet --disable-pip-version-check prometheus-client
    cargo build --quiet --features observe --example metrics
    $python tests/clients/metrics.py target/debug/examples/metrics $work
}

all=(metrics)
for name in "${@:-${all[@]}}"; do
    printf '\n== %ss: %s\n' "$SECONDS" "$name"
    "$name"
done
