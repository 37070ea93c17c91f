//! A bench of the echo server that needs nothing but this crate: `cargo run --release --example echo_bench`.
//!
//! The server runs on one thread and the load on another, over real loopback TCP; every echoed byte is checked.
//! In under half a minute there is a table, and a page with pictures; `--help` tells the flags.
//!
//! Where to read on: `flags` what was asked for, `run` the order of things, `cell` one measurement,
//! `load` and `connection` the load generator, `measure` and `allocator` what the server costs, `deadline` what
//! moving a deadline costs, `report`, `json` and `html` what is shown.

mod allocator;
mod cell;
mod connection;
mod deadline;
mod flags;
mod html;
mod json;
mod load;
mod measure;
mod pictures;
mod report;
mod run;
mod server;
mod system;

/// The server is the echo server's own; what of its flags this bench does not use, it does not use.
#[path = "../echo_server/serve.rs"]
#[allow(dead_code)]
mod serve;

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("echo_bench: {message}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), String> {
    let Some(plan) = flags::plan()? else {
        return Ok(());
    };
    if cfg!(debug_assertions) {
        eprintln!(
            "echo_bench: this is a debug build, its figures mean nothing; build with --release"
        );
    }
    let results = run::run(&plan)?;
    let table = report::text(&plan, &results);
    if plan.json {
        eprint!("{table}");
        print(&json::json(&plan, &results))?;
    } else {
        print(&table)?;
    }

    let page = html::page(&plan, &results)?;
    let path = plan.html.display();
    std::fs::write(&plan.html, page).map_err(|error| format!("--html {path}: {error}"))?;
    let where_it_is = format!("\nPictures: {path}\n");
    if plan.json {
        eprint!("{where_it_is}");
        Ok(())
    } else {
        print(&where_it_is)
    }
}

/// A reader that has heard enough (`| head`) is no trouble.
fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}
