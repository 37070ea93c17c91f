"""The page of the example metrics, as its readers see it: `metrics.py EXAMPLE DIRECTORY`.

`promtool check metrics` reads Prometheus' own format, and finds nothing to complain of.
`prometheus_client` parses the OpenMetrics text. A real Prometheus scrapes it twice, with traffic in
between, and its counters rise.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

EXAMPLE, WORK = sys.argv[1:]
OPEN_METRICS = "application/openmetrics-text"
# Only a fault makes it wait for so long.
PATIENCE = 120

started = []


def start(command, **more):
    process = subprocess.Popen(command, text=True, **more)
    started.append(process)
    return process


def give_up():
    print(f"not done after {PATIENCE} s", file=sys.stderr)
    end_all()
    os._exit(1)


def end_all():
    for process in started:
        process.kill()


def get(url, accept=None):
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def echo(address, text):
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        heard = b""
        while more := client.recv(65536):
            heard += more
    assert heard == text, heard


def samples(page):
    families = list(text_string_to_metric_families(page))
    return families, {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def total(all_samples, name, **labels):
    return sum(
        value
        for (other, theirs), value in all_samples.items()
        if other == name and labels.items() <= dict(theirs).items()
    )


def check_page(url, address):
    kind, page = get(url, OPEN_METRICS)
    assert kind == f"{OPEN_METRICS}; version=1.0.0; charset=utf-8", kind
    families, before = samples(page)
    for family in families:
        assert family.name.startswith("netpoller_"), family.name
        assert family.documentation and family.type != "unknown", family
    echo(address, b"x" * 1000)
    # The client has read its end, which the server sends before it counts the connection as ended.
    while True:
        _, after = samples(get(url, OPEN_METRICS)[1])
        if total(after, "netpoller_connections") == 0:
            break
    rose = lambda name, **labels: total(after, name, **labels) - total(before, name, **labels)
    assert rose("netpoller_received_bytes_total") == 1000
    assert rose("netpoller_sent_bytes_total") == 1000
    assert rose("netpoller_connections_accepted_total") == 1
    assert rose("netpoller_connections_ended_total", reason="peer") == 1
    assert rose("netpoller_loop_turns_total") > 0
    assert rose("netpoller_loop_turn_seconds_count") > 0
    assert rose("netpoller_loop_run_seconds_count", kind="connection") > 0
    print(f"prometheus_client: {len(families)} families, {len(after)} samples")


def check_by_promtool(url):
    kind, page = get(url, "text/plain")
    assert kind.startswith("text/plain; version=0.0.4"), kind
    said = subprocess.run(
        ["promtool", "check", "metrics"], input=page, text=True, capture_output=True, timeout=PATIENCE
    )
    assert said.returncode == 0 and not said.stdout + said.stderr, said
    print("promtool: nothing to complain of")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def check_by_prometheus(url, address):
    target = urllib.parse.urlparse(url).netloc
    directory = os.path.join(WORK, "prometheus")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    config = os.path.join(directory, "prometheus.yml")
    with open(config, "w") as file:
        json.dump(  # which is YAML too
            {
                "global": {"scrape_interval": "1s"},
                "scrape_configs": [
                    {"job_name": "netpoller", "static_configs": [{"targets": [target]}]}
                ],
            },
            file,
        )
    # Prometheus does not tell which port it took of its own choice.
    port = free_port()
    prometheus = start(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.PIPE,
    )
    while "Server is ready" not in (line := prometheus.stderr.readline()):
        assert line, "prometheus has ended"
    threading.Thread(target=prometheus.stderr.read, daemon=True).start()

    def scrapes(series):
        """The values that Prometheus has of a series, by the time of the scrape."""
        query = urllib.parse.urlencode({"query": f"{series}[5m]"})
        answer = json.loads(get(f"http://127.0.0.1:{port}/api/v1/query?{query}")[1])
        assert answer["status"] == "success", answer
        values = {}
        for result in answer["data"]["result"]:
            for time, value in result["values"]:
                values[time] = values.get(time, 0) + float(value)
        return [values[time] for time in sorted(values)]

    received = "netpoller_received_bytes_total"
    while not (first := scrapes(received)):
        pass
    echo(address, b"y" * 500)
    # It scrapes again, and sees what was echoed meanwhile.
    while not (later := scrapes(received)) or later[-1] < first[-1] + 500:
        pass
    assert len(later) >= 2 and later == sorted(later), later
    assert later[-1] == first[-1] + 500, later
    assert scrapes("up")[-1] == 1
    turns = scrapes("netpoller_loop_turn_seconds_count")
    assert turns[-1] > turns[0], turns
    print(f"prometheus: {len(later)} scrapes, bytes {later[0]:.0f} to {later[-1]:.0f}")


def main():
    watchdog = threading.Timer(PATIENCE, give_up)
    watchdog.daemon = True
    watchdog.start()
    example = start([EXAMPLE, "--workers", "2"], stdout=subprocess.PIPE)
    address = example.stdout.readline().removeprefix("listening on ").strip()
    url = example.stdout.readline().removeprefix("metrics at ").strip()
    check_page(url, address)
    check_by_promtool(url)
    check_by_prometheus(url, address)
    example.send_signal(signal.SIGTERM)
    assert example.wait() == 0
    watchdog.cancel()


try:
    main()
finally:
    end_all()
