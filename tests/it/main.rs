//! One binary: a folder for each layer, a file for each subject.

mod connection;
mod guide;
mod models;
mod net;
mod reactor;
mod runtime;
mod schedules;
mod server;
mod support;
mod wheel;
