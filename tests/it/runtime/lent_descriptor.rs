//! The descriptor that a runtime lends for nesting is one of its selector, whatever that selector does.
#![cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use netpoller::Runtime;
use netpoller::reactor::{Break, Event, Harvest, MioSelector, Readiness, Selector, Token, Traits};

/// The system's selector, opened anew when it is told to.
struct Reopened {
    inner: MioSelector,
    reopen: Rc<Cell<bool>>,
}

impl Selector for Reopened {
    fn open(&mut self, source: &mut dyn Source, token: Token) -> io::Result<()> {
        self.inner.open(source, token)
    }

    fn rearm(&mut self, source: &mut dyn Source, token: Token, r: Readiness) -> io::Result<()> {
        self.inner.rearm(source, token, r)
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

/// What a descriptor is of.
fn what(fd: RawFd) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    link.display().to_string()
}

#[test]
fn a_selector_that_is_opened_anew_is_lent_and_no_other_file_of_the_same_number() {
    let reopen = Rc::new(Cell::new(false));
    let selector = Reopened {
        inner: MioSelector::new().unwrap(),
        reopen: reopen.clone(),
    };
    let builder = Runtime::builder().selector(Box::new(selector));
    let runtime = builder.build().unwrap();
    let before = runtime.as_fd();
    let selectors = what(before.as_raw_fd());
    reopen.set(true);
    runtime.turn(Some(Duration::ZERO)).unwrap();
    // What is opened next gets the numbers that have become free.
    let files: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
    assert_eq!(what(runtime.as_fd().as_raw_fd()), selectors);
    // What was borrowed before is still open, and still a selector's.
    assert_eq!(what(before.as_raw_fd()), selectors);
    drop(files);
}
