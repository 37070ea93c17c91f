//! Go's promises about `net.Conn`, as claims about every stream transport we have.
//!
//! The claims are those of `golang.org/x/net/nettest` and of Go's own `net` tests, told in our
//! words; `tests/CONFORMANCE.md` says which is which. Goroutines are tasks here; where time
//! matters the runtime's clock is virtual; sockets are always real.
//! | file | its claims |
//! |---|---|
//! | `transport.rs` | what the suite runs over, and how it is watched |
//! | `test_conn.rs` | nettest's `TestConn` |
//! | `timeouts.rs` | operations that must, and must not, return at their deadline |
//! | `deadlines.rs` | odd deadlines: now, past, extremes, races, a stalled loop |
//! | `closing.rs` | closing from here, half and whole; operations of no bytes |
//! | `peer_gone.rs` | the peer's going, by FIN or by RST |
//! | `aftermath.rs` | what comes too late: stale events, one harvest, keys used again |
//! | `accepting.rs` | listeners: many accepting, servers, ports taken and freed |
//! | `writing.rs` | many buffers, big ones, many writers, short ones |
//! | `errors.rs` | which operation, which addresses, in which words |
//! | `addresses.rs` | dials and listens that fail, by literal addresses |

mod accepting;
mod addresses;
mod aftermath;
mod closing;
mod deadlines;
mod errors;
mod peer_gone;
mod test_conn;
mod timeouts;
mod transport;
mod writing;
