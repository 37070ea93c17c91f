#!/usr/bin/env bash
# Proofs that take too long for each change: `tests/nightly.sh`, or some of them by name:
# `tests/nightly.sh errno soak`. docs/proofs.md says what each covers, and its time. A shorter night:
# `SOAK=60 SEEDS=20 FUZZ=10 tests/nightly.sh`, the seconds of the soak and of each target, and the seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
host=x86_64-unknown-linux-gnu

# Each system call made to fail in each way, in each server.
errno() {
    cargo build --quiet --examples
    python3 tests/errno_matrix.py
}

# Ten minutes of abuse: memory, descriptors, wake-ups and p99 stay flat.
soak() {
    cargo run --quiet --release -p netpoller-benches --example soak -- --seconds "${SOAK:-600}" --plot target/soak.svg
}

# Accesses and leaks of echo_server in its three modes, by valgrind.
memcheck() {
    cargo build --quiet --examples
    python3 tests/memcheck.py
}

# The suite with AddressSanitizer; leaks are memcheck's, since some tests leak on purpose. Left out: what measures memory, or limits it, by the allocator or
# the address space that the sanitizer replaces.
address() {
    ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/address RUST_TEST_THREADS=2 \
        cargo +nightly test --quiet --target $host --lib --test it --test process -- \
        --skip memory:: --skip queues:: --skip idle_connections:: --skip allocator:: \
        --skip no_thread_can_be_made --skip a_worker_whose_runtime_cannot_be_made \
        --skip signals:: --skip interrupted::
}

# More seeds and more programs than each change has.
seeds() {
    SCHEDULES="${SEEDS:-2000}" cargo test --quiet --test it schedules
    PROGRAMS="${SEEDS:-2000}" cargo test --quiet --test it models
}

# A minute of each target of the fuzzer.
fuzz() {
    for target in fuzz/fuzz_targets/*.rs; do
        cargo +nightly fuzz run --fuzz-dir fuzz "$(basename "$target" .rs)" -- -max_total_time="${FUZZ:-60}"
    done
}

# Each deliberate fault is found.
faults() {
    python3 tests/deliberate_faults.py
}

for proof in "${@:-errno soak memcheck address seeds fuzz faults}"; do
    for name in $proof; do
        printf '\n== %ss: %s\n' "$SECONDS" "$name"
        "$name"
    done
done
printf '\n== %ss: all is well\n' "$SECONDS"
