//! After fork(2): a child makes a runtime of its own, and takes nothing from its parent.

use std::sync::mpsc;
use std::time::Duration;

use netpoller::{Dialer, Runtime, TcpStream, time};

use crate::child::{in_child, in_fork};
use crate::support::run::run;

const SECOND: Duration = Duration::from_secs(1);

/// Looks a name up, on a thread of the pool, and connects.
fn dial_by_name(port: u16) {
    run(async {
        let dialer = Dialer::new().network("tcp4");
        let dial = dialer.dial(("localhost", port));
        let dialled = time::timeout(20 * SECOND, dial).await;
        dialled.expect("the look-up hangs").unwrap();
    });
}

#[test]
fn a_child_looks_names_up_before_and_after_its_parent_has() {
    in_child(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(in_fork(|| dial_by_name(port)), "before the first look-up");
        dial_by_name(port);
        assert!(in_fork(|| dial_by_name(port)), "after the first look-up");
    });
}

#[test]
fn a_child_and_its_child_look_names_up_while_a_look_up_of_the_parent_is_under_way() {
    in_child(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (began, begins) = mpsc::channel();
        let (ends, end) = mpsc::channel::<()>();
        let end = std::sync::Mutex::new(end);
        let dialer = Dialer::new().resolver(move |_| {
            began.send(()).unwrap();
            let _ = end.lock().unwrap().recv();
            Ok(vec![[127, 0, 0, 1].into()])
        });
        Runtime::new().unwrap().block_on(async {
            let dialling = async move { dialer.dial(("slow.test", port)).await };
            let dialling = netpoller::spawn(dialling);
            while begins.try_recv().is_err() {
                netpoller::yield_now().await;
            }
            let both = move || {
                dial_by_name(port);
                assert!(in_fork(|| dial_by_name(port)), "in the child's child");
            };
            // Not in this runtime, which is the parent's.
            assert!(in_fork(|| std::thread::spawn(both).join().unwrap()));
            drop(ends);
            dialling.await.unwrap().unwrap();
            TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        });
    });
}
