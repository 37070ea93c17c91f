//! What the process has logged.

use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Keeps;

static LOGGED: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

impl Log for Keeps {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        LOGGED.lock().unwrap().push(line);
    }
    fn flush(&self) {}
}

/// From here on lines up to debug are kept.
pub fn keep_log() {
    log::set_logger(&Keeps).unwrap();
    log::set_max_level(LevelFilter::Debug);
}

/// The lines kept so far at `level`, without the port.
pub fn logged(level: Level, port: u16) -> Vec<String> {
    let lines = LOGGED.lock().unwrap();
    let of_level = lines.iter().filter(|(logged, _)| *logged == level);
    let port = format!(":{port}");
    of_level.map(|(_, line)| line.replace(&port, "")).collect()
}
