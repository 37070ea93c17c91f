//! The book: one stage for all readers, and what it looks like now.
//!
//! A command names the version that its reader has seen. If another reader was faster, the version
//! is out of date: the command is refused, and its reader sees what the other did. So of two
//! commands at once, one is carried out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};

use super::code;
use super::response::Status;
use super::scenes;
use super::stage::{MOST_BYTES, Stage};
use super::tour::STEPS;

/// What a command came to: the state, or why it is refused.
type Outcome = Result<Rc<str>, (Status, String)>;

struct Order {
    words: Vec<String>,
    outcome: Rc<Cell<Option<Outcome>>>,
    waker: Waker,
}

/// What the tasks of the page share with the stage. The stage runs between two turns of the page's
/// runtime: a turn inside a turn would be refused.
pub struct Book {
    orders: RefCell<VecDeque<Order>>,
    version: Cell<u64>,
    state: RefCell<Rc<str>>,
    /// Tasks that wait for a new version.
    readers: RefCell<Vec<Waker>>,
    /// The tour and the code, which do not change.
    pub tour: String,
}

/// The free stage: an echo server, without a step of the tour.
const FREE: usize = 0;

/// Carries out the commands on the stage.
pub struct Commander {
    book: Rc<Book>,
    stage: Stage,
    scene: usize,
    /// Whether nothing has happened since the scene was set.
    is_fresh: bool,
}

impl Book {
    /// Gives a command to the stage, and waits until it has been done.
    pub async fn order(&self, words: Vec<String>) -> Outcome {
        let outcome = Rc::new(Cell::new(None));
        let mut words = Some(words);
        poll_fn(|cx| {
            if let Some(outcome) = outcome.take() {
                return Poll::Ready(outcome);
            }
            if let Some(words) = words.take() {
                let (outcome, waker) = (outcome.clone(), cx.waker().clone());
                let order = Order {
                    words,
                    outcome,
                    waker,
                };
                self.orders.borrow_mut().push_back(order);
            }
            Poll::Pending
        })
        .await
    }

    pub fn state(&self) -> (u64, Rc<str>) {
        (self.version.get(), self.state.borrow().clone())
    }

    /// Waits for another version than this.
    pub async fn changed(&self, seen: u64) {
        poll_fn(|cx| {
            if self.version.get() != seen {
                return Poll::Ready(());
            }
            let mut readers = self.readers.borrow_mut();
            if !readers.iter().any(|reader| reader.will_wake(cx.waker())) {
                readers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

fn refuse<T>(status: Status, why: impl Into<String>) -> Result<T, (Status, String)> {
    Err((status, why.into()))
}

impl Commander {
    pub fn new() -> io::Result<Self> {
        let steps: Vec<Value> = STEPS.iter().map(|step| step.to_json()).collect();
        let code: Vec<Value> = code::ALL.iter().map(|shown| shown.to_json()).collect();
        let book = Rc::new(Book {
            orders: RefCell::default(),
            version: Cell::new(0),
            state: RefCell::new("".into()),
            readers: RefCell::default(),
            tour: json!({ "steps": steps, "code": code }).to_string(),
        });
        let (stage, scene) = set(1)?;
        let mut commander = Commander {
            book,
            stage,
            scene,
            is_fresh: true,
        };
        commander.publish();
        Ok(commander)
    }

    pub fn book(&self) -> Rc<Book> {
        self.book.clone()
    }

    /// Does what was ordered. Call it outside of any runtime.
    pub fn carry_out(&mut self) {
        loop {
            let order = self.book.orders.borrow_mut().pop_front();
            let Some(order) = order else { return };
            let outcome = self.command(&order.words);
            order.outcome.set(Some(outcome));
            order.waker.wake();
        }
    }

    fn command(&mut self, words: &[String]) -> Outcome {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some((version, words)) = words.split_first() else {
            return refuse(
                Status::BAD_REQUEST,
                "a command begins with the version that its reader saw",
            );
        };
        match version.parse::<u64>() {
            Err(_) => return refuse(Status::BAD_REQUEST, "the version is a number"),
            Ok(seen) if seen != self.book.version.get() => {
                return refuse(
                    Status::CONFLICT,
                    "another reader was faster: look at what is there now",
                );
            }
            Ok(_) => {}
        }
        let done = self.act(words);
        if let Err(Failed::Refused(why)) = done {
            return refuse(Status::BAD_REQUEST, why);
        }
        self.publish();
        match done {
            Err(Failed::System(error)) => refuse(Status::INTERNAL, error.to_string()),
            _ => Ok(self.book.state().1),
        }
    }

    fn act(&mut self, words: &[&str]) -> Result<(), Failed> {
        let number = |text: &str, most: usize| {
            let number = text.parse::<usize>().ok().filter(|&number| number <= most);
            number.ok_or_else(|| Failed::Refused(format!("{text:?} is no number up to {most}")))
        };
        match words {
            ["scene", scene] => return self.set(number(scene, STEPS.len())?),
            ["act"] if self.scene != FREE => {
                if !self.is_fresh {
                    self.set(self.scene)?;
                }
                (STEPS[self.scene - 1].act)(&mut self.stage)?;
            }
            ["turn"] => drop(self.stage.turn()?),
            ["turns"] => self.stage.turns()?,
            ["next"] => self.stage.pass_to_next(),
            ["pass", seconds] => {
                let seconds = number(seconds, 86_400)? as u64;
                self.stage.pass(Duration::from_secs(seconds));
            }
            ["connect"] => {
                self.stage.may_connect().map_err(Failed::Refused)?;
                self.stage.connect()?;
            }
            ["drain"] => {
                self.stage.may_drain().map_err(Failed::Refused)?;
                self.stage.drain()?;
            }
            [verb, client, rest @ ..] => {
                let most = self.stage.clients().checked_sub(1);
                let most = most.ok_or_else(|| Failed::Refused("there is no client".to_owned()))?;
                let client = number(client, most)?;
                match (*verb, rest) {
                    ("send", [bytes]) => self.stage.send(client, number(bytes, MOST_BYTES)?)?,
                    ("read", []) => self.stage.reads(client, true)?,
                    ("stop", []) => self.stage.reads(client, false)?,
                    ("end", []) => self.stage.end(client)?,
                    ("reset", []) => self.stage.reset(client)?,
                    _ => return Err(Failed::Refused("there is no such command".to_owned())),
                }
            }
            _ => return Err(Failed::Refused("there is no such command".to_owned())),
        }
        self.is_fresh = false;
        Ok(())
    }

    fn set(&mut self, scene: usize) -> Result<(), Failed> {
        (self.stage, self.scene) = set(scene)?;
        self.is_fresh = true;
        Ok(())
    }

    /// A new version, for all readers.
    fn publish(&mut self) {
        let book = &self.book;
        let (version, frames) = (book.version.get() + 1, self.stage.take_frames());
        let state = json!({ "version": version, "scene": self.scene, "frames": frames });
        book.version.set(version);
        *book.state.borrow_mut() = state.to_string().into();
        let readers = book.readers.take();
        readers.into_iter().for_each(Waker::wake);
    }
}

enum Failed {
    /// The command can't be carried out now, or is unknown.
    Refused(String),
    System(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::System(error)
    }
}

/// A stage with this scene.
fn set(scene: usize) -> io::Result<(Stage, usize)> {
    let mut stage = Stage::new()?;
    match scene.checked_sub(1) {
        Some(step) => (STEPS[step].scene)(&mut stage)?,
        None => {
            scenes::beating(&mut stage)?;
            stage.turns()?;
            stage.connect()?;
            stage.prepare()?;
        }
    }
    Ok((stage, scene))
}
