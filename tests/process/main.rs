//! Tests that count the process's descriptors, memory or threads, fork, or lower limits. Each test
//! runs its body in a process of its own (`child::in_child`), so that other tests neither disturb
//! it nor are disturbed.

mod allocator;
mod child;
mod dead_worker;
mod descriptors;
#[cfg(feature = "signal")]
mod drain_on;
mod dump;
#[cfg(target_os = "linux")]
mod families;
mod fork;
mod held_loop;
mod idle_connections;
mod inherited_runtime;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod interrupted;
mod lanes;
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
mod lent_selector;
mod logged;
mod look_ups;
mod memory;
mod queues;
mod server;
mod signals;

#[path = "../it/support/mod.rs"]
mod support;
