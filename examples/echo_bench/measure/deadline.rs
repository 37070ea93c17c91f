//! What it costs to move a deadline, through the library and nothing else.
//!
//! A server moves one on every read. The first figure is for a time that stays, the second for one that is new
//! with each move; both are counted from the loop's last reading of the clock (`coarse_now`). The third reads
//! the clock for each move (`now`), as `echo_server` does.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use netpoller::{Runtime, TcpListener, TcpStream, time};

const ROUNDS: usize = 5;
const MOVES: u32 = 200_000;
const IDLE: Duration = Duration::from_secs(30);

/// In nanoseconds, the call for the time included.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineCost {
    pub same_time: f64,
    pub new_time: f64,
    pub fresh_time: f64,
}

pub fn deadline_cost() -> io::Result<DeadlineCost> {
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let stream = TcpStream::connect(listener.local_addr()?).await?;
        let set = |when: Instant| stream.set_read_deadline(Some(when + IDLE));
        Ok(DeadlineCost {
            same_time: median(|_| set(time::coarse_now()))?,
            new_time: median(|step| set(time::coarse_now() + step))?,
            fresh_time: median(|_| set(time::now()))?,
        })
    })
}

/// The median round's cost of one move; `one_move` receives a step that grows by a microsecond.
fn median(mut one_move: impl FnMut(Duration) -> io::Result<()>) -> io::Result<f64> {
    let mut rounds = [0.0; ROUNDS];
    for round in &mut rounds {
        let start = Instant::now();
        for step in 0..MOVES {
            one_move(black_box(Duration::from_micros(u64::from(step))))?;
        }
        *round = start.elapsed().as_nanos() as f64 / f64::from(MOVES);
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}
