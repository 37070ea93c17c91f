//! The descriptor that a runtime lends is its selector's, also after the selector has closed its own
//! and opened another. The number that became free is then a file's.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use netpoller::Runtime;
use netpoller::reactor::{Break, Event, Harvest, MioSelector, Readiness, Selector, Token, Traits};

use crate::child::in_child;

/// The system's, opened anew when it is told to.
struct Reopened {
    inner: MioSelector,
    reopen: Rc<Cell<bool>>,
}

impl Selector for Reopened {
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        self.inner.open(source, token)
    }

    fn rearm(
        &mut self,
        source: &mut dyn Source,
        token: Token,
        wanted: Readiness,
    ) -> io::Result<()> {
        self.inner.rearm(source, token, wanted)
    }

    fn close(&mut self, source: &mut dyn Source) -> io::Result<()> {
        self.inner.close(source)
    }

    fn netpoll(&mut self, wait: Option<Duration>, events: &mut Vec<Event>) -> io::Result<Harvest> {
        if self.reopen.take() {
            self.inner = MioSelector::new()?;
        }
        self.inner.netpoll(wait, events)
    }

    fn breaker(&self) -> Arc<dyn Break> {
        self.inner.breaker()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }
}

/// What a descriptor is of, in the system's words.
fn what(number: i32) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{number}")).unwrap()
}

#[test]
fn a_runtime_lends_a_selector_also_after_its_selector_opened_another() {
    in_child(|| {
        let reopen = Rc::new(Cell::new(false));
        let selector = Reopened {
            inner: MioSelector::new().unwrap(),
            reopen: reopen.clone(),
        };
        let selector = Box::new(selector);
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        let before = what(runtime.as_fd().as_raw_fd());
        reopen.set(true);
        runtime.turn(Some(Duration::ZERO)).unwrap();
        // What is opened next has the numbers that have become free.
        let _files = [(); 8].map(|()| File::open("/dev/null").unwrap());
        assert_eq!(what(runtime.as_fd().as_raw_fd()), before);
    });
}
