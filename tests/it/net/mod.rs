mod close;
mod conformance;
mod copy;
mod datagram;
mod deadlines;
mod dial;
// poll(2) reports POLLERR for as long as a message is there, so its loop does not rest meanwhile.
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
mod error_queue;
mod from_std;
mod futures_io;
mod io;
mod listen;
mod locks;
mod look_ups;
mod options;
mod pipe;
mod read;
mod relay;
mod resolve;
mod serve;
mod short_read;
mod source;
mod unix;
mod write;
mod yielding;
