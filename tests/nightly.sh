#!/usr/bin/env bash
# Proofs that take too long for each change. A table of part, time and result ends the run; a part
# that fails stops no other. docs/proofs.md says what each part covers.
#
#     tests/nightly.sh               all parts
#     tests/nightly.sh quick         of each part a minute or two, its build aside
#     tests/nightly.sh errno soak    these parts; also `quick errno soak`
#
# SOAK, FUZZ: the seconds of the soak, and of each target of the fuzzer. SEEDS: how many seeds and
# programs. RUNS: how often what was once wrong is run.
set -euo pipefail
cd "$(dirname "$0")/.."
host=x86_64-unknown-linux-gnu
quick=
if [ "${1:-}" = quick ]; then
    shift
    quick=1
    : "${SOAK:=30}" "${SEEDS:=3}" "${FUZZ:=10}" "${RUNS:=1}"
fi

# Each system call made to fail in each way, in each server.
errno() {
    cargo build --quiet --examples
    python3 tests/errno_matrix.py ${quick:+--errno EINTR}
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

# The suite with AddressSanitizer; leaks are memcheck's, since some tests leak on purpose. Left out:
# what measures memory, or limits it, by the allocator or the address space that the sanitizer replaces.
address() {
    ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address CARGO_INCREMENTAL=0 \
        CARGO_TARGET_DIR=target/address RUST_TEST_THREADS=2 \
        cargo +nightly test --quiet --target $host --all-features --lib --test it --test process -- \
        ${quick:+--skip every_short_sequence reactor:: runtime:: fork::} \
        --skip memory:: --skip queues:: --skip idle_connections:: --skip allocator:: \
        --skip no_thread_can_be_made --skip a_worker_whose_runtime_cannot_be_made \
        --skip signals:: --skip interrupted::
}

# Data races, by ThreadSanitizer, in what has threads. Debian's compiler builds std with it too,
# from Debian's source (rustc-web, cargo-web, rust-web-src). The nightly one has the runtime, and the
# linker that takes it. Left out: what a sanitizer makes too slow, what limits the address space,
# and children of fork, which a sanitizer with threads of its own can't follow.
thread() {
    local nightly
    nightly=$(rustc +nightly --print sysroot)/lib/rustlib/$host
    local runtime=$nightly/lib/librustc-nightly_rt.tsan.a
    local flags="-Zsanitizer=thread -Zexternal-clangrt -Clink-arg=-B$nightly/bin/gcc-ld"
    flags+=" -Clink-arg=-fuse-ld=lld -Clink-arg=-Wl,--whole-archive,$runtime,--no-whole-archive"
    local tests=(runtime:: held_loop:: dump:: lanes::)
    [ "$quick" ] || tests+=(server:: connection::ids connection::handles net::dial net::look_ups net::pipe)
    PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags \
        CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=target/thread RUST_TEST_THREADS=2 RUST_BACKTRACE=0 \
        cargo test --quiet -Zbuild-std --target $host --all-features --lib --test it --test process -- \
        "${tests[@]}" --skip a_payload_for_a_thousand_peers --skip inherited_runtime:: \
        --skip a_task_that_waits_for_20_000_things --skip no_thread_can_be_made
}

# More seeds and more programs than each change has.
seeds() {
    SCHEDULES="${SEEDS:-2000}" cargo test --quiet --test it schedules
    PROGRAMS="${SEEDS:-2000}" cargo test --quiet --test it models
    SEEDS="${SEEDS:-2000}" cargo test --quiet --test it faulty_selector
}

# A minute of each target of the fuzzer.
fuzz() {
    for target in fuzz/fuzz_targets/*.rs; do
        cargo +nightly fuzz run --fuzz-dir fuzz "$(basename "$target" .rs)" -- -max_total_time="${FUZZ:-60}"
    done
}

# Each deliberate fault is found.
deliberate() {
    python3 tests/deliberate_faults.py ${quick:+lost_wake_up double_close dropped_read_stays_parked}
}

# The tests of what was once wrong, RUNS times in a row on a busy computer.
regressions() {
    local tests=(
        # The loop: deadlines that are early, or forgotten; time that is stale.
        runtime::fresh_time:: runtime::late_news:: reactor::stalls::
        an_operation_that_is_not_polled a_polled_write_heeds_its_deadline
        # What runs when, and how often; what a turn says.
        runtime::turns:: runtime::yielding:: net::yielding::
        # Ends and panics.
        runtime::ending:: runtime::panics:: lent_selector:: runtime::machine::tests::invariant_2::
        # Memory that grows.
        a_task_stands_in_the_mail_once a_task_that_is_aborted_leaves_the_queue
        a_thread_that_reads_after_its_runtime_is_gone queues::
        a_limit_holds_and_queued_is_right_while_more_is_written_in_each_turn
        # The server.
        a_server_of_many_workers_survives loads_that_change_while_a_worker_is_chosen
        a_drain_ends_at_its_limit a_drain_ends_although clients_that_were_queued
        clients_in_the_accept_queue_are_answered
        # Connections.
        requests_that_were_received_are_answered an_answer_of_a_task_is_traffic
        a_busy_connection_is_waited_for a_download_goes_on what_idle_writes_arrives
        what_waits_for_a_slow_peer a_close_ends_in_time a_close_goes_on_while_the_peer_takes
        a_peer_that_does_not_read_harms_no_peer_that_does what_came_after_the_last_offer
        a_connection_over_its_limit_is_reset
        # Sockets and names.
        what_is_no_address_is_refused a_receive_into_an_empty_buffer a_mapped_address
        closes_that_linger_hold_up_no_look_up a_child_looks_names_up without_descriptors_a_look_up
        that_connected_to_itself_by_an_address_with_a_zone names_both_ends_after_its_peer_has_reset_it
        an_answer_that_came_before_a_reset after_a_try_that_would_block io_parks_after_eagain
    )
    local run=(cargo test --quiet --lib --test it --test process --test examples --)
    local known test
    known=$("${run[@]}" --list)
    for test in "${tests[@]}"; do
        grep --quiet --fixed-strings "$test" <<<"$known" || { echo "no test is named $test"; return 1; }
    done
    stress-ng --quiet --cpu 4 &
    trap "kill $!" EXIT
    for ((n = 1; n <= ${RUNS:-20}; n++)); do
        echo "run $n"
        "${run[@]}" "${tests[@]}"
    done
    kill $!
    trap - EXIT
}

parts=(errno soak memcheck address thread seeds fuzz deliberate regressions)
rows=() failed=0
[ $# != 0 ] || set -- "${parts[@]}"
for part; do
    [[ " ${parts[*]} " == *" $part "* ]] || { echo "no part is named $part: ${parts[*]}"; exit 2; }
done
for part; do
    printf '\n== %ss: %s\n' "$SECONDS" "$part"
    began=$SECONDS
    # In no condition: there `set -e` would not hold.
    set +e
    (set -e && "$part")
    status=$?
    set -e
    result=passed
    [ $status = 0 ] || { result="FAILED: status $status" failed=1; }
    rows+=("| $part | $((SECONDS - began)) | $result |")
done
printf '\n| part | seconds, builds included | result |\n|---|---|---|\n'
printf '%s\n' "${rows[@]}"
exit $failed
