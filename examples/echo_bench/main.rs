//! A bench of the echo server that needs nothing but this crate: `cargo run --release --example echo_bench`.
//!
//! The server runs on one thread and the load on another, over real loopback TCP. Every echoed byte is checked.
//! In under half a minute there is a table, and a page with pictures; `--help` explains the flags.
//!
//! | where | what |
//! |---|---|
//! | `flags.rs` | the flags, and the plan that is made of them |
//! | `run.rs` | the order of things: one measurement after the other |
//! | `load/` | the load generator |
//! | `measure/` | one measurement: the server under test, its CPU time, its memory, the cost of moving a deadline |
//! | `report/` | the table, the page, JSON |

#[path = "../common/mod.rs"]
mod common;
mod flags;
mod load;
mod measure;
mod report;
mod run;

/// The server is that of the echo server. This bench uses some of its options.
#[path = "../echo_server/serve.rs"]
#[allow(dead_code)]
mod serve;

use std::io;
use std::process::ExitCode;

use flags::Flags;
use report::{html, json};

fn main() -> ExitCode {
    common::run_blocking(|flags: Flags| bench(flags).map_err(io::Error::other))
}

fn bench(flags: Flags) -> Result<(), String> {
    // Every measurement ends with a drain, which would be logged beside the progress bar.
    if std::env::var_os("RUST_LOG").is_none() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    let plan = flags.plan()?;
    if cfg!(debug_assertions) {
        eprintln!("echo_bench: a debug build: its figures mean nothing; build with --release");
    }
    let results = run::run(&plan)?;
    let path = plan.html.display();
    let page = html::page(&plan, &results)?;
    std::fs::write(&plan.html, page).map_err(|error| format!("--html {path}: {error}"))?;
    let shown = format!("{}\nPictures: {path}\n", report::text(&plan, &results));
    // With --json, standard output holds nothing else.
    if plan.json {
        eprint!("{shown}");
        print!("{}", json::json(&plan, &results));
    } else {
        print!("{shown}");
    }
    Ok(())
}
