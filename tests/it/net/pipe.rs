//! `Pipe`: pipes, fifos, terminals and other descriptors keep the contract of streams.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use netpoller::{Direction, NetError, Pipe, Runtime, net, spawn, time, yield_now};

use crate::support::run::{run, run_clean, run_virtual};
use crate::support::temp_path::TempPath;
use crate::support::watchdog::watchdog;

/// More than a pipe holds.
const MUCH: usize = 300_000;

#[test]
fn a_write_of_more_than_a_pipe_holds_arrives_whole_and_then_the_end() {
    run_clean(async {
        let (reader, writer) = Pipe::pair().unwrap();
        let sent: Vec<u8> = (0..MUCH).map(|i| i as u8).collect();
        let written = sent.clone();
        let writing = spawn(async move { writer.write_all(&written).await });
        let mut got = vec![0; MUCH];
        reader.read_exact(&mut got).await.unwrap();
        assert!(got == sent);
        writing.await.unwrap().unwrap();
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
        let error = reader.read_exact(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn the_deadlines_are_those_of_streams() {
    run_virtual(async {
        let (reader, writer) = Pipe::pair().unwrap();
        let soon = time::now() + Duration::from_secs(1);
        reader.set_deadline(Some(soon)).unwrap();
        let error = reader.read(&mut [0; 8]).await.unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(error.to_string(), "read file: i/o timeout");
        assert!(time::now() >= soon);

        // It stays expired although data waits, until it is cleared.
        writer.write_all(b"x").await.unwrap();
        assert!(reader.read(&mut [0; 8]).await.unwrap_err().is_timeout());
        assert!(reader.try_read(&mut [0; 8]).unwrap_err().is_timeout());
        reader.set_read_deadline(None).unwrap();
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 1);

        writer.set_write_deadline(Some(time::now())).unwrap();
        assert!(writer.write_all(b"x").await.unwrap_err().is_timeout());
        assert!(writer.write_all(b"").await.unwrap_err().is_timeout());
    });
}

#[test]
fn a_write_that_times_out_half_way_says_how_much_had_gone() {
    run_virtual(async {
        let (_reader, writer) = Pipe::pair().unwrap();
        let soon = time::now() + Duration::from_millis(50);
        writer.set_write_deadline(Some(soon)).unwrap();
        let error = writer.write_all(&vec![0; MUCH]).await.unwrap_err();
        assert!(error.is_timeout());
        let written = error.op_error().unwrap().written;
        assert!(0 < written && written < MUCH, "{written}");
    });
}

#[test]
fn a_close_wakes_what_is_parked_on_every_handle() {
    run_clean(async {
        let (reader, _writer) = Pipe::pair().unwrap();
        let other = reader.clone();
        let reading = spawn(async move { other.read(&mut [0; 8]).await });
        yield_now().await;
        reader.close().unwrap();
        assert!(reading.await.unwrap().unwrap_err().is_closed());
        assert!(reader.close().unwrap_err().is_closed());
        assert!(reader.try_write(b"x").unwrap_err().is_closed());
        assert_eq!(reader.as_raw_fd(), -1);
    });
}

#[test]
fn a_writer_that_waits_is_woken_when_the_last_reader_goes() {
    let _watchdog = watchdog();
    run(async {
        let (reader, writer) = Pipe::pair().unwrap();
        let writer = Rc::new(writer);
        let other = writer.clone();
        let writing = spawn(async move { other.write_all(&vec![0; MUCH]).await });
        let other = writer.clone();
        while other.try_write(&[0]).is_ok() {}
        yield_now().await;
        drop(reader);
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(
            writer.write(b"x").await.unwrap_err().to_string(),
            "write file: write: broken pipe"
        );
    });
}

#[test]
fn a_regular_file_a_directory_and_a_device_without_readiness_are_refused_with_the_reason() {
    run(async {
        let path = TempPath::new();
        let file = File::create(&path).unwrap();
        for refused in [file, File::open("/").unwrap()] {
            let error = Pipe::new(refused).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(
                error.to_string(),
                "open file: a regular file is always ready, so it can't be waited for: \
                 read and write it in spawn_blocking"
            );
        }
        // poll(2) takes every descriptor.
        #[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
        {
            let device = File::open("/dev/null").unwrap();
            let shared = device.try_clone().unwrap();
            let error = Pipe::new(device).unwrap_err();
            assert_eq!(
                error.to_string(),
                "open file: epoll_ctl: operation not permitted"
            );
            // SAFETY: the descriptor is open, and F_GETFL takes nothing else.
            let flags = unsafe { libc::fcntl(shared.as_raw_fd(), libc::F_GETFL) };
            assert_eq!(flags & libc::O_NONBLOCK, 0, "what was refused is as it was");
        }
    });
}

#[test]
fn a_child_echoes_what_it_reads_and_ends_at_the_end() {
    let _watchdog = watchdog();
    run(async {
        let mut cat = Command::new("cat");
        cat.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = cat.spawn().unwrap();
        let input = Pipe::new(child.stdin.take().unwrap()).unwrap();
        let output = Pipe::new(child.stdout.take().unwrap()).unwrap();
        let sending = spawn(async move { input.write_all(&vec![7; MUCH]).await });
        let mut got = 0;
        loop {
            match output.read_with(<[u8]>::len).await.unwrap() {
                0 => break,
                some => got += some,
            }
        }
        assert_eq!(got, MUCH);
        sending.await.unwrap().unwrap();
        assert!(child.wait().unwrap().success());
    });
}

/// A single poll.
fn once<R>(operation: impl Future<Output = R>) -> Poll<R> {
    pin!(operation).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_closure_of_read_with_may_read_from_the_same_pipe() {
    run(async {
        let (reader, writer) = Pipe::pair().unwrap();
        writer.write_all(b"first").await.unwrap();
        let within = reader.read_with(|bytes| {
            assert_eq!(bytes, b"first");
            writer.try_write(b"second").unwrap();
            once(reader.read_with(<[u8]>::to_vec)).map(Result::unwrap)
        });
        let within = within.await.unwrap();
        assert_eq!(within, Poll::Ready(b"second".to_vec()));
    });
}

#[test]
fn the_closure_of_read_with_may_panic_and_the_pipe_can_be_read_again() {
    run(async {
        let (reader, writer) = Pipe::pair().unwrap();
        writer.write_all(b"first").await.unwrap();
        let mut reading = pin!(reader.read_with(|_| panic!("of the closure's own")));
        let mut cx = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| reading.as_mut().poll(&mut cx)));
        assert!(polled.is_err());
        // The future is still there, and holds nothing.
        writer.write_all(b"second").await.unwrap();
        assert_eq!(
            once(reader.read(&mut [0; 8])).map(Result::unwrap),
            Poll::Ready(6)
        );
    });
}

#[test]
fn a_fifo_is_read_and_written_by_path() {
    run(async {
        let path = TempPath::new();
        assert!(
            Command::new("mkfifo")
                .arg(&path.0)
                .status()
                .unwrap()
                .success()
        );
        // For both ends, so that opening waits for nothing.
        let both = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let (reader, writer) = (Pipe::new(reader).unwrap(), Pipe::new(both).unwrap());
        let reading = spawn(async move { reader.read_with(|bytes| bytes.to_vec()).await });
        yield_now().await;
        writer.write_all(b"by path").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), b"by path");
    });
}

#[test]
fn a_terminal_is_read_and_written() {
    run(async {
        // SAFETY: plain calls; descriptors that are not negative are ours.
        let (master, slave) = unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
            assert!(master >= 0 && libc::grantpt(master) == 0 && libc::unlockpt(master) == 0);
            let name = libc::ptsname(master);
            let slave = libc::open(name, libc::O_RDWR | libc::O_NOCTTY);
            assert!(slave >= 0);
            (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
        };
        let (master, slave) = (Pipe::new(master).unwrap(), Pipe::new(slave).unwrap());
        let reading = spawn(async move { slave.read_with(|bytes| bytes.to_vec()).await });
        yield_now().await;
        master.write_all(b"a line\n").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), b"a line\n");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn an_event_descriptor_is_waited_for() {
    run(async {
        // SAFETY: a plain call; the descriptor is ours.
        let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        let event = Pipe::new(event).unwrap();
        let other = event.clone();
        let waiting = spawn(async move {
            let mut count = [0; 8];
            other
                .read_exact(&mut count)
                .await
                .map(|()| u64::from_ne_bytes(count))
        });
        yield_now().await;
        event.write_all(&5u64.to_ne_bytes()).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 5);
        // A number that it does not hold is the system's error.
        assert!(event.write_all(&[0; 3]).await.is_err());
    });
}

#[test]
fn a_descriptor_comes_back_open_and_the_other_handles_find_it_closed() {
    run(async {
        let (reader, writer) = Pipe::pair().unwrap();
        let other = reader.clone();
        let out = reader.into_fd().unwrap();
        assert!(other.read(&mut [0; 1]).await.unwrap_err().is_closed());
        let again = Pipe::new(out).unwrap();
        writer.write_all(b"x").await.unwrap();
        assert_eq!(again.read(&mut [0; 8]).await.unwrap(), 1);
    });
}

#[test]
fn a_read_that_is_given_up_loses_no_byte() {
    run(async {
        let (reader, writer) = Pipe::pair().unwrap();
        let mut buffer = [0; 8];
        let none = time::timeout(Duration::ZERO, reader.read(&mut buffer)).await;
        assert!(none.is_err());
        writer.write_all(b"kept").await.unwrap();
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 4);
    });
}

#[test]
fn empty_buffers_wait_for_nothing() {
    run(async {
        let (reader, writer) = Pipe::pair().unwrap();
        assert_eq!(reader.read(&mut []).await.unwrap(), 0);
        reader.read_exact(&mut []).await.unwrap();
        while writer.try_write(&[0; 4096]).is_ok() {}
        assert_eq!(writer.write(&[]).await.unwrap(), 0);
        writer.write_all(&[]).await.unwrap();
    });
}

#[test]
fn a_pipe_works_with_the_traits_of_futures_io_and_with_copy() {
    run(async {
        let (mut reader, mut writer) = Pipe::pair().unwrap();
        let (mut far_reader, mut far_writer) = Pipe::pair().unwrap();
        let copying = spawn(async move {
            let copied = net::copy(&mut reader, &mut far_writer).await;
            far_writer.close()?;
            copied
        });
        AsyncWriteExt::write_all(&mut writer, b"through two")
            .await
            .unwrap();
        AsyncWriteExt::close(&mut writer).await.unwrap();
        AsyncWriteExt::close(&mut writer).await.unwrap();
        let mut all = Vec::new();
        far_reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"through two");
        assert_eq!(copying.await.unwrap().unwrap(), 11);
    });
}

#[test]
fn a_call_of_the_user_parks_after_would_block() {
    run(async {
        let (reader, writer) = Pipe::pair().unwrap();
        let read = |fd: std::os::fd::BorrowedFd<'_>| {
            let mut bytes = [0u8; 8];
            // SAFETY: the array is valid for writes of its length.
            let got = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), 8) };
            usize::try_from(got).map_err(|_| io::Error::last_os_error())
        };
        let error = reader.try_io(Direction::Read, read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let other = reader.clone();
        let reading = spawn(async move { other.io(Direction::Read, read).await });
        yield_now().await;
        writer.write_all(b"12345").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 5);
    });
}

#[test]
fn after_its_runtime_a_pipe_is_closed() {
    let runtime = Runtime::new().unwrap();
    let (reader, writer) = runtime.block_on(async { Pipe::pair().unwrap() });
    drop(runtime);
    run(async move {
        assert!(reader.read(&mut [0; 8]).await.unwrap_err().is_closed());
        assert!(writer.write_all(b"x").await.unwrap_err().is_closed());
    });
}
