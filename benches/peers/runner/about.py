"""What the report says of each scenario, above its figures."""

ABOUT = {
    "echo": "A closed loop: the next message goes when an earlier one has come back.",
    "churn": (
        "Connecting costs the load more than accepting costs the server: where `load busy` is near 100 %, compare the CPU."
    ),
    "memory": (
        "Anonymous memory of the process, no page of the kernel's. The idle timeout is armed where there is one: not on the floors."
    ),
    "syscalls": (
        "Under strace the server is slow and the load is not, so many connections are ready at once: as when busy. "
        "io_uring does its work in few calls, which is the point of it."
    ),
    "deadline": (
        "The idle timeout is moved by every read: SetReadDeadline in Go, `timeout` around the read in tokio, a timer started again in "
        "libuv. What it added is the difference of two noisy figures; believe it where the spread is small."
    ),
    "firehose": (
        "Latency of the quiet connections, from the scheduled time of each message. A server that gives the firehoses less serves "
        "the quiet ones sooner: look at both."
    ),
    "proxy": (
        "The load, the proxy, and a C epoll echo behind it, which shares the load's CPU: both directions carry every byte. Go's "
        "splices, tokio's copies through a buffer, ours splices a flood and copies messages."
    ),
    "timers": (
        "Deadlines in no order, one to two minutes away; each step does them all in the order of insertion. Bytes include the "
        "program's own handle of each timer."
    ),
    "wake": (
        "From another thread than the loop's, while the loop sleeps: time from sending to running. The two have both CPUs. Go's "
        "scheduler may keep both goroutines on one thread, where no thread has to be woken; with a thread for each, it wakes one "
        "as the others do."
    ),
    "heartbeats": "The clients send nothing. The server pings each that has been silent for the interval.",
    "workers": (
        "The server may use the load's CPU too. Where there are only two, a second worker takes its CPU time from the load."
    ),
}
