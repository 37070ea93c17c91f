//! From another thread into a tokio loop that sleeps: through a channel that a task awaits, or with
//! `--spawn` as a task of its own.

use clap::Parser;
use peers::{WakeFlags, Wakes};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    wake: WakeFlags,
    #[arg(long)]
    spawn: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let flags = Flags::parse();
    let wakes = match flags.spawn {
        true => spawned(flags.wake).await,
        false => sent(flags.wake).await,
    };
    wakes.print();
}

async fn sent(flags: WakeFlags) -> Wakes {
    let mut wakes = Wakes::default();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    flags.send_all(move |now| sender.send(now).expect("it is received"));
    while let Some(sent) = receiver.recv().await {
        wakes.took(sent.elapsed());
    }
    wakes
}

async fn spawned(flags: WakeFlags) -> Wakes {
    let mut wakes = Wakes::default();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let handle = Handle::current();
    flags.send_all(move |now| {
        let sender = sender.clone();
        handle.spawn(async move { sender.send(now.elapsed()).expect("it is received") });
    });
    while let Some(took) = receiver.recv().await {
        wakes.took(took);
    }
    wakes
}
