//! `Source`: any other descriptor in the runtime, and what its attempts answer.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use mio::net::UnixStream;
use mio::unix::pipe;
use netpoller::{Direction, NetError, Runtime, Source, spawn, yield_now};

use crate::support::run::run;
use crate::support::watchdog::watchdog;

fn source() -> (Source<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Source::new(ours).unwrap(), theirs)
}

#[test]
fn the_error_of_an_attempt_names_its_operation_and_no_address() {
    run(async {
        let (ours, theirs) = source();
        drop(theirs);
        let write = |source: &mut UnixStream| source.write(b"unread");
        let error = ours.io(Direction::Write, write).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(error.to_string(), "write file: write: broken pipe");
        let failed = error.op_error().unwrap();
        assert_eq!((&failed.source, &failed.addr), (&None, &None));

        let own = |_: &mut UnixStream| Err::<(), _>(io::Error::other("made up"));
        let error = ours.io(Direction::Read, own).await.unwrap_err();
        assert_eq!(error.to_string(), "read file: read: made up");
    });
}

#[test]
fn attempts_of_one_direction_come_first_come_first_served_and_the_other_goes_on() {
    run(async {
        let (ours, mut theirs) = source();
        let (ours, order) = (Rc::new(ours), Rc::new(RefCell::new(Vec::new())));
        let readers = [0, 1, 2].map(|number| {
            let (ours, order) = (ours.clone(), order.clone());
            spawn(async move {
                let mut byte = [0];
                let read = |source: &mut UnixStream| source.read_exact(&mut byte);
                ours.io(Direction::Read, read).await.unwrap();
                order.borrow_mut().push((number, byte[0]));
            })
        });
        yield_now().await;
        let write = |source: &mut UnixStream| source.write(b"!");
        assert_eq!(ours.io(Direction::Write, write).await.unwrap(), 1);
        theirs.write_all(b"abc").unwrap();
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(*order.borrow(), [(0, b'a'), (1, b'b'), (2, b'c')]);
    });
}

#[test]
fn an_attempt_that_is_given_up_leaves_its_place_to_the_next() {
    run(async {
        let (mut writer, reader) = pipe::new().unwrap();
        let ours = Source::new(reader).unwrap();
        let read = |source: &mut pipe::Receiver| source.read(&mut [0]);
        let waiting = futures_lite::future::poll_once(ours.io(Direction::Read, read)).await;
        assert!(waiting.is_none());
        writer.write_all(b"a").unwrap();
        assert_eq!(ours.io(Direction::Read, read).await.unwrap(), 1);
    });
}

#[test]
fn after_its_runtime_has_gone_a_source_is_closed() {
    let _watchdog = watchdog();
    let runtime = Runtime::new().unwrap();
    let (ours, _theirs) = runtime.block_on(async { source() });
    drop(runtime);
    let error = futures_lite::future::block_on(ours.readable()).unwrap_err();
    assert!(error.is_closed(), "{error}");
    assert_eq!(
        error.to_string(),
        "read file: use of closed network connection"
    );
}

/// Linux reports that a pipe's reader has gone as EPOLLERR, and that its writer has as EPOLLHUP,
/// with no other event.
#[test]
fn a_write_to_a_full_pipe_ends_when_its_reader_goes() {
    run(async {
        let (mut sender, receiver) = pipe::new().unwrap();
        while sender.write(&[0; 4096]).is_ok() {}
        let sender = Rc::new(Source::new(sender).unwrap());
        let writing = spawn({
            let sender = sender.clone();
            async move {
                let write = |source: &mut pipe::Sender| source.write(b"no room");
                sender.io(Direction::Write, write).await
            }
        });
        yield_now().await;
        yield_now().await;
        assert!(!writing.is_finished());
        drop(receiver);
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
    });
}

#[test]
fn a_read_of_an_empty_pipe_ends_when_its_writer_goes() {
    run(async {
        let (sender, receiver) = pipe::new().unwrap();
        let receiver = Source::new(receiver).unwrap();
        let reading = spawn(async move {
            let read = |source: &mut pipe::Receiver| source.read(&mut [0]);
            receiver.io(Direction::Read, read).await
        });
        yield_now().await;
        yield_now().await;
        assert!(!reading.is_finished());
        drop(sender);
        assert_eq!(reading.await.unwrap().unwrap(), 0);
    });
}
