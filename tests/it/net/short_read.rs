//! Invariant 6: a short read counts as the last only where the kernel has no more.
//!
//! In both tests the reader is parked when the bytes come, so that one edge announces them all.

use std::rc::Rc;

use netpoller::{spawn, yield_now};
use socket2::SockRef;

use crate::support::loopback::pair;
use crate::support::run::run;

#[test]
fn a_tcp_read_that_stops_at_an_urgent_byte_loses_nothing_behind_it() {
    run(async {
        let (receiver, sender) = pair().await;
        let receiver = Rc::new(receiver);
        for _ in 0..20 {
            let receiver = receiver.clone();
            let reader = spawn(async move {
                let (mut all, mut buffer) = (Vec::new(), [0; 64]);
                while all.len() < 4 {
                    let got = receiver.read(&mut buffer).await.unwrap();
                    all.extend_from_slice(&buffer[..got]);
                }
                all
            });
            yield_now().await;
            yield_now().await;
            sender.try_write(b"ab").unwrap();
            let urgent = sender.with_fd(|fd| SockRef::from(&fd).send_out_of_band(b"!"));
            assert_eq!(urgent.unwrap().unwrap(), 1);
            sender.try_write(b"cd").unwrap();
            // The urgent byte itself is out of band, and not read.
            assert_eq!(reader.await.unwrap(), b"abcd");
        }
    });
}

/// The control message is put together by hand, as Linux has it.
#[cfg(target_os = "linux")]
mod passed_descriptors {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;

    use netpoller::{UnixListener, UnixStream, spawn, yield_now};
    use socket2::{MsgHdr, SockRef};

    use super::run;
    use crate::support::temp_path::TempPath;

    /// A control message with one descriptor, as bytes: a `cmsghdr` of length, level and type, then
    /// the number.
    fn passed_descriptor(fd: i32) -> Vec<u8> {
        let length = size_of::<usize>() + 2 * size_of::<i32>() + size_of::<i32>();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(libc::SOL_SOCKET.to_ne_bytes());
        message.extend(libc::SCM_RIGHTS.to_ne_bytes());
        message.extend(fd.to_ne_bytes());
        message.resize(length.next_multiple_of(size_of::<usize>()), 0);
        message
    }

    #[test]
    fn a_unix_read_that_stops_at_passed_descriptors_loses_nothing_behind_them() {
        run(async {
            // An accepted stream: one from std, such as those of a pair, never counts as drained.
            let path = TempPath::new();
            let listener = UnixListener::bind(&path).await.unwrap();
            let sender = UnixStream::connect(&path).await.unwrap();
            let (receiver, _) = listener.accept().await.unwrap();
            drop(listener);
            let reader = spawn(async move {
                let (mut all, mut buffer) = (Vec::new(), [0; 64]);
                while all.len() < 4 {
                    let got = receiver.read(&mut buffer).await.unwrap();
                    all.extend_from_slice(&buffer[..got]);
                }
                all
            });
            yield_now().await;
            yield_now().await;
            sender.try_write(b"a").unwrap();
            let file = std::fs::File::open("/dev/null").unwrap();
            for byte in [b"b", b"c"] {
                let control = passed_descriptor(file.as_raw_fd());
                let bytes = [IoSlice::new(byte)];
                let message = MsgHdr::new().with_buffers(&bytes).with_control(&control);
                let sent = sender.with_fd(|fd| SockRef::from(&fd).sendmsg(&message, 0));
                assert_eq!(sent.unwrap().unwrap(), 1);
            }
            sender.try_write(b"d").unwrap();
            assert_eq!(reader.await.unwrap(), b"abcd");
        });
    }
}
