//! From another thread into a loop of netpoller that sleeps: through std's channel and `Handle::wake`,
//! or with `--spawn` as a task of its own, by `Handle::spawn`.

use std::io;
use std::sync::mpsc;

use clap::Parser;
use netpoller::Runtime;
use peers::{WakeFlags, Wakes};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    wake: WakeFlags,
    #[arg(long)]
    spawn: bool,
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    let wakes = match flags.spawn {
        true => spawned(flags.wake)?,
        false => sent(flags.wake)?,
    };
    wakes.print();
    Ok(())
}

fn sent(flags: WakeFlags) -> io::Result<Wakes> {
    let runtime = Runtime::new()?;
    let mut wakes = Wakes::default();
    let (sender, receiver) = mpsc::channel();
    let handle = runtime.handle();
    flags.send_all(move |now| {
        sender.send(now).expect("it is received");
        handle.wake();
    });
    while wakes.count() < flags.count.into() {
        runtime.turn(None)?;
        receiver
            .try_iter()
            .for_each(|sent| wakes.took(sent.elapsed()));
    }
    Ok(wakes)
}

fn spawned(flags: WakeFlags) -> io::Result<Wakes> {
    let runtime = Runtime::new()?;
    let mut wakes = Wakes::default();
    let (sender, receiver) = mpsc::channel();
    let handle = runtime.handle();
    flags.send_all(move |now| {
        let sender = sender.clone();
        handle.spawn(move || async move { sender.send(now.elapsed()).expect("it is received") });
    });
    while wakes.count() < flags.count.into() {
        runtime.turn(None)?;
        receiver.try_iter().for_each(|took| wakes.took(took));
    }
    Ok(wakes)
}
