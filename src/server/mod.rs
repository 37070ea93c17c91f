//! Threads that serve connections: accepting, dispatch, orders.
//!
//! | file | what it is |
//! |---|---|
//! | `builder.rs` | the settings of a server |
//! | `bound.rs` | a server that listens, and the handle to it |
//! | `worker_loop.rs` | one worker's life: serve, drain, stop |
//! | `accept.rs` | accepting, for this worker or for others |
//! | `dispatch.rs` | sockets handed to the worker with the fewest connections |
//! | `orders.rs` | serve, drain, stop: told to every worker |

mod accept;
mod bound;
pub(crate) mod builder;
mod dispatch;
mod orders;
mod worker_loop;

pub use bound::{Bound, ServerHandle};
pub use builder::{Accept, Server};
