//! The descriptor that a runtime lends is its selector's, also after the selector has closed its own
//! and opened another. The number that became free is then a file's.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use netpoller::Runtime;
use netpoller::reactor::{MioSelector, Selector};

use crate::child::{in_child, open_files};
use crate::support::hooked::{Hook, hooked, hooked_by};

/// Lends its descriptor only if told so.
struct Lends(Rc<Cell<bool>>);

impl Hook for Lends {
    fn lends(&self) -> bool {
        self.0.get()
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
        let told = reopen.clone();
        let selector = hooked(move |system, wait, events| {
            if told.take() {
                *system = MioSelector::new()?;
            }
            system.netpoll(wait, events)
        });
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        let before = what(runtime.as_fd().as_raw_fd());
        reopen.set(true);
        runtime.turn(Some(Duration::ZERO)).unwrap();
        // What is opened next has the numbers that have become free.
        let _files = [(); 8].map(|()| File::open("/dev/null").unwrap());
        assert_eq!(what(runtime.as_fd().as_raw_fd()), before);
    });
}

#[test]
fn a_descriptor_that_the_selector_got_after_the_runtime_is_lent_as_a_copy() {
    in_child(|| {
        let lends = Rc::new(Cell::new(false));
        let selector = hooked_by(Lends(lends.clone()));
        let runtime = Runtime::builder().selector(selector).build().unwrap();
        lends.set(true);
        // What is lent must stay open as long as it is borrowed, and the selector may close its own.
        let before = open_files();
        let lent = runtime.as_fd();
        assert_eq!(open_files(), before + 1, "{lent:?} is a copy");
    });
}
