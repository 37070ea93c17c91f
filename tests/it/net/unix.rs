//! Unix sockets: streams, listeners and datagrams, as Go's `UnixConn` and `UnixListener` are.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::net as std_unix;
use std::path::Path;
use std::time::Duration;

use netpoller::{
    NetError, Runtime, UnixDatagram, UnixListener, UnixStream, spawn, time, yield_now,
};

use crate::support::hooked::with_room_for;
use crate::support::run::{run, run_in};
use crate::support::schedule::virtual_runtime;
use crate::support::temp_path::TempPath;

async fn dialled(listener: &UnixListener, path: impl AsRef<Path>) -> (UnixStream, UnixStream) {
    let client = UnixStream::connect(path).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[test]
fn streams_carry_everything_both_ways_and_end() {
    run(async {
        let temp = TempPath::new();
        let listener = UnixListener::bind(&temp).await.unwrap();
        let (client, server) = dialled(&listener, &temp).await;
        let echo = spawn(async move {
            let mut sum = 0;
            loop {
                let bytes = server.read_with(<[u8]>::to_vec).await.unwrap();
                if bytes.is_empty() {
                    break sum;
                }
                sum += bytes.len();
                server.write_all(&bytes).await.unwrap();
            }
        });
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7 / 3) as u8).collect();
        let writer = spawn({
            let (client, sent) = (client.clone(), sent.clone());
            async move {
                client.write_all(&sent).await.unwrap();
                client.close_write().unwrap();
            }
        });
        let mut back = vec![0; sent.len()];
        client.read_exact(&mut back).await.unwrap();
        assert!(back == sent);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        writer.await.unwrap();
        assert_eq!(echo.await.unwrap(), sent.len());
    });
}

#[test]
fn addresses_are_stds_and_errors_name_both_ends_after_close() {
    run(async {
        let temp = TempPath::new();
        let listener = UnixListener::bind(&temp).await.unwrap();
        let client = UnixStream::connect(&temp).await.unwrap();
        let (server, from) = listener.accept().await.unwrap();
        assert!(from.is_unnamed());
        assert_eq!(
            listener.local_addr().unwrap().as_pathname(),
            Some(temp.as_ref())
        );
        assert_eq!(
            client.peer_addr().unwrap().as_pathname(),
            Some(temp.as_ref())
        );
        assert!(client.local_addr().unwrap().is_unnamed());
        assert_eq!(
            server.local_addr().unwrap().as_pathname(),
            Some(temp.as_ref())
        );
        let other = client.clone();
        other.close().unwrap();
        assert_eq!(
            client.read(&mut [0]).await.unwrap_err().to_string(),
            format!(
                "read unix @->{}: use of closed network connection",
                temp.0.display()
            )
        );
    });
}

#[test]
fn dial_and_listen_errors_read_as_in_go() {
    run(async {
        let temp = TempPath::new();
        let path = temp.0.display();
        let error = UnixStream::connect(&temp).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("dial unix {path}: connect: no such file or directory")
        );
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&temp).await.unwrap();
        let error = UnixListener::bind(&temp).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("listen unix {path}: bind: address already in use")
        );
        listener.set_unlink_on_close(false);
        listener.close().unwrap();
        let error = UnixStream::connect(&temp).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("dial unix {path}: connect: connection refused")
        );
        let error = listener.accept().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("accept unix {path}: use of closed network connection")
        );
    });
}

#[test]
fn a_path_too_long_or_with_a_zero_byte_is_one_clear_error() {
    run(async {
        let long = format!("/tmp/{}", "x".repeat(200));
        let why = "path too long for a Unix socket";
        let error = UnixListener::bind(&long).await.unwrap_err();
        assert_eq!(error.to_string(), format!("listen unix {long}: {why}"));
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = UnixStream::connect(&long).await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial unix {long}: {why}"));
        let error = UnixDatagram::bind(&long).await.unwrap_err();
        assert_eq!(error.to_string(), format!("listen unixgram {long}: {why}"));
        let socket = UnixDatagram::unbound().unwrap();
        let error = socket.send_to(b"x", &long).await.unwrap_err();
        assert_eq!(error.to_string(), format!("write unixgram {long}: {why}"));
        assert_eq!(
            socket.connect(&long).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        let error = UnixListener::bind("/tmp/a\0b").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let abstract_name = format!("@{}", "x".repeat(200));
        assert!(UnixListener::bind(abstract_name).await.is_err());
    });
}

#[test]
fn closing_the_listener_removes_its_path_and_ends_accept() {
    run(async {
        let temp = TempPath::new();
        let listener = UnixListener::bind(&temp).await.unwrap();
        assert!(temp.0.exists());
        let accepting = spawn({
            let listener = listener.clone();
            async move { listener.accept().await.unwrap_err() }
        });
        yield_now().await;
        listener.close().unwrap();
        assert!(!temp.0.exists());
        assert!(accepting.await.unwrap().is_closed());
        // Once only: what is put there later stays.
        std::fs::write(&temp, "").unwrap();
        assert!(listener.close().is_err());
        drop(listener);
        assert!(temp.0.exists());
    });
}

#[test]
fn dropping_the_last_handle_removes_the_path_too_even_after_the_runtime() {
    let temp = TempPath::new();
    run(async {
        let listener = UnixListener::bind(&temp).await.unwrap();
        let other = listener.clone();
        drop(listener);
        assert!(temp.0.exists());
        drop(other);
        assert!(!temp.0.exists());
    });
    let outlives = run(async { UnixListener::bind(&temp).await.unwrap() });
    drop(outlives);
    assert!(!temp.0.exists());
}

#[test]
fn a_listener_from_std_leaves_its_path_unless_told_to_unlink() {
    run(async {
        let temp = TempPath::new();
        let listener = UnixListener::bind(&temp).await.unwrap();
        let std = listener.into_std().unwrap();
        assert!(temp.0.exists());
        let listener = UnixListener::from_std(std).unwrap();
        let (client, server) = dialled(&listener, &temp).await;
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        listener.close().unwrap();
        assert!(temp.0.exists());

        std::fs::remove_file(&temp).unwrap();
        let std = std_unix::UnixListener::bind(&temp).unwrap();
        let listener = UnixListener::from_std(std).unwrap();
        listener.set_unlink_on_close(true);
        listener.close().unwrap();
        assert!(!temp.0.exists());
    });
}

#[test]
fn accept_has_a_deadline() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let temp = TempPath::new();
        let listener = UnixListener::bind(&temp).await.unwrap();
        let deadline = time::now() + Duration::from_secs(3);
        listener.set_deadline(Some(deadline)).unwrap();
        let error = listener.accept().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("accept unix {}: i/o timeout", temp.0.display())
        );
        listener.set_deadline(None).unwrap();
        dialled(&listener, &temp).await;
    });
}

#[test]
#[cfg(target_os = "linux")]
fn abstract_names_work_and_leave_no_file() {
    use std::os::linux::net::SocketAddrExt;
    run(async {
        let name = format!("@np-abstract-{}", std::process::id());
        let listener = UnixListener::bind(&name).await.unwrap();
        let error = UnixListener::bind(&name).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("listen unix {name}: bind: address already in use")
        );
        let (client, server) = dialled(&listener, &name).await;
        let address = client.peer_addr().unwrap();
        assert_eq!(address.as_abstract_name(), Some(&name.as_bytes()[1..]));
        assert_eq!(
            server.local_addr().unwrap().as_abstract_name(),
            Some(&name.as_bytes()[1..])
        );
        client.close().unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        listener.close().unwrap();
        let error = listener.accept().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("accept unix {name}: use of closed network connection")
        );
    });
}

/// Go's TestUnixgramLinuxAbstractLongName and TestUnixAbstractLongNameNulStart.
#[test]
#[cfg(target_os = "linux")]
fn an_abstract_name_may_be_as_long_as_fits_and_have_zero_bytes() {
    use std::ffi::OsStr;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    run(async {
        for first in [b'@', 0] {
            let mut name = [0; 108];
            let start = [
                &[first],
                format!("np-long-{}", std::process::id()).as_bytes(),
            ]
            .concat();
            name[..start.len()].copy_from_slice(&start);
            let path = OsStr::from_bytes(&name);

            let socket = UnixDatagram::bind(path).await.unwrap();
            let address = std_unix::SocketAddr::from_abstract_name(&name[1..]).unwrap();
            let own = socket.local_addr().unwrap();
            assert_eq!(own.as_abstract_name(), address.as_abstract_name());
            let sender = std_unix::UnixDatagram::unbound().unwrap();
            sender.send_to_addr(b"\x01\x02", &address).unwrap();
            let mut buffer = [0; 64];
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"\x01\x02");
            assert!(from.is_unnamed());

            let listener = UnixListener::bind(path).await.unwrap();
            let (client, _server) = dialled(&listener, path).await;
            let peer = client.peer_addr().unwrap();
            assert_eq!(peer.as_abstract_name(), address.as_abstract_name());
        }
    });
}

/// Go's TestUnixgramAutobind and TestUnixAutobindClose.
#[test]
#[cfg(target_os = "linux")]
fn without_a_name_the_system_gives_one() {
    use std::ffi::OsStr;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    run(async {
        let socket = UnixDatagram::bind("").await.unwrap();
        let own = socket.local_addr().unwrap();
        let name = own.as_abstract_name().expect("a name of the system's");
        assert!(!name.is_empty());
        let other = UnixDatagram::unbound().unwrap();
        let path = [b"@", name].concat();
        other.connect(OsStr::from_bytes(&path)).unwrap();
        let peer = other.peer_addr().unwrap();
        assert_eq!(peer.as_abstract_name(), Some(name));
        UnixListener::bind("").await.unwrap().close().unwrap();
    });
}

#[test]
fn a_pair_is_connected_and_has_deadlines_and_no_names() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let (one, other) = UnixStream::pair().unwrap();
        one.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 5];
        other.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        let deadline = time::now() + Duration::from_secs(3);
        other.set_read_deadline(Some(deadline)).unwrap();
        let error = other.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.to_string(), "read unix @->@: i/o timeout");
        other.set_write_deadline(Some(deadline)).unwrap();
        assert!(other.write(b"x").await.unwrap_err().is_timeout());
        drop(other);
        one.hung_up().await.unwrap();
        assert_eq!(one.read(&mut buffer).await.unwrap(), 0);
        let error = one.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

/// Binds a socket to a path that fills the system's address, without the zero at its end: allowed,
/// and nothing that std or socket2 would do.
#[cfg(target_os = "linux")]
fn bind_to_the_last_byte(socket: &socket2::Socket) -> TempPath {
    let mut path = std::env::temp_dir().join(format!("np-last-{}-", std::process::id()));
    let room = 108 - path.as_os_str().len();
    path.as_mut_os_string().push("x".repeat(room));
    let _ = std::fs::remove_file(&path);
    let bytes = path.as_os_str().as_encoded_bytes();
    // SAFETY: plain integers, for which zero is a value; and its very size is given.
    let bound = unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (at, &byte) in address.sun_path.iter_mut().zip(bytes) {
            *at = byte as libc::c_char;
        }
        let size = size_of_val(&address) as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size)
    };
    assert_eq!(bound, 0, "{}", io::Error::last_os_error());
    TempPath(path)
}

#[test]
#[cfg(target_os = "linux")]
fn a_peer_with_the_longest_possible_path_is_accepted_and_received_from_as_unnamed() {
    use socket2::{Domain, SockAddr, Socket, Type};
    run(async {
        let temp = TempPath::new();
        let listener = UnixListener::bind(&temp).await.unwrap();
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let name = bind_to_the_last_byte(&client);
        client.connect(&SockAddr::unix(&temp).unwrap()).unwrap();
        let (server, from) = listener.accept().await.unwrap();
        assert!(from.is_unnamed() && server.peer_addr().unwrap().is_unnamed());
        drop(name);

        let temp = TempPath::new();
        let receiver = UnixDatagram::bind(&temp).await.unwrap();
        let sender = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        let _name = bind_to_the_last_byte(&sender);
        let to = SockAddr::unix(&temp).unwrap();
        sender.send_to(b"hello", &to).unwrap();
        let (length, from) = receiver.recv_from(&mut [0; 8]).await.unwrap();
        assert!(length == 5 && from.is_unnamed());
    });
}

#[test]
fn datagrams_go_by_path_and_the_sender_is_known_if_it_has_a_name() {
    run(async {
        let (here, there) = (TempPath::new(), TempPath::new());
        let server = UnixDatagram::bind(&here).await.unwrap();
        let named = UnixDatagram::bind(&there).await.unwrap();
        let unnamed = UnixDatagram::unbound().unwrap();
        assert_eq!(named.send_to(b"ping", &here).await.unwrap(), 4);
        let mut buffer = [0; 9];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(
            (length, from.as_pathname()),
            (4, Some(there.as_ref() as &Path))
        );
        let back = from.as_pathname().unwrap();
        server.send_to(b"pong!", back).await.unwrap();
        assert_eq!(named.recv(&mut buffer).await.unwrap(), 5);

        unnamed.connect(&here).unwrap();
        assert_eq!(
            unnamed.peer_addr().unwrap().as_pathname(),
            Some(here.as_ref() as &Path)
        );
        unnamed.send(b"").await.unwrap();
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!((length, from.is_unnamed()), (0, true));
        let error = unnamed.send_to(b"x", &there).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        drop(server);
        assert!(here.0.exists(), "as in Go, a datagram socket's path stays");
        let error = named.send_to(b"x", &here).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "write unixgram {}->{}: sendto: connection refused",
                there.0.display(),
                here.0.display()
            )
        );
    });
}

#[test]
fn a_datagram_longer_than_the_buffer_is_cut() {
    run(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        one.send(b"0123456789").await.unwrap();
        one.send(b"next").await.unwrap();
        let mut buffer = [0; 4];
        assert_eq!(other.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(other.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer, b"next");
    });
}

#[test]
fn a_datagram_sender_waits_for_a_full_receiver() {
    run(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        let sender = spawn(async move {
            for n in 0..2000_u32 {
                one.send(&n.to_be_bytes()).await.unwrap();
            }
        });
        yield_now().await;
        let mut buffer = [0; 9];
        for n in 0..2000_u32 {
            assert_eq!(other.recv(&mut buffer).await.unwrap(), 4);
            assert_eq!(buffer[..4], n.to_be_bytes());
        }
        sender.await.unwrap();

        // Without a connection too: each of its messages makes room when it is received, and the
        // sender is woken.
        let temp = TempPath::new();
        let receiver = UnixDatagram::bind(&temp).await.unwrap();
        let path = temp.0.clone();
        let sender = spawn(async move {
            let socket = UnixDatagram::unbound().unwrap();
            for n in 0..2000_u32 {
                socket.send_to(&n.to_be_bytes(), &path).await.unwrap();
            }
        });
        yield_now().await;
        for n in 0..2000_u32 {
            assert_eq!(receiver.recv(&mut buffer).await.unwrap(), 4);
            assert_eq!(buffer[..4], n.to_be_bytes());
        }
        sender.await.unwrap();
    });
}

#[test]
fn a_datagram_socket_heeds_deadlines_and_its_close() {
    let runtime = virtual_runtime();
    runtime.block_on(async {
        let (one, _other) = UnixDatagram::pair().unwrap();
        one.set_read_deadline(Some(time::now() + Duration::from_secs(1)))
            .unwrap();
        let error = one.recv_from(&mut [0]).await.unwrap_err();
        assert_eq!(error.to_string(), "read unixgram @->@: i/o timeout");
        one.set_read_deadline(None).unwrap();
        let parked = spawn({
            let one = one.clone();
            async move { one.recv(&mut [0]).await.unwrap_err() }
        });
        yield_now().await;
        one.close().unwrap();
        assert!(parked.await.unwrap().is_closed());
        assert!(one.send(b"x").await.unwrap_err().is_closed());
    });
}

#[test]
fn the_peer_is_what_the_system_says_and_not_the_path_as_dialled() {
    run(async {
        let (path, link) = (TempPath::new(), TempPath::new());
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let name = |address: std_unix::SocketAddr| address.as_pathname().map(Path::to_owned);

        let listener = UnixListener::bind(&path).await.unwrap();
        let (client, _server) = dialled(&listener, &link).await;
        assert_eq!(name(client.peer_addr().unwrap()), Some(path.0.clone()));
        listener.close().unwrap();

        let server = UnixDatagram::bind(&path).await.unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(&link).unwrap();
        assert_eq!(name(client.peer_addr().unwrap()), Some(path.0.clone()));
        drop(server);
        let error = client.send(b"!").await.unwrap_err();
        let expected = format!("write unixgram @->{}: ", path.0.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    });
}

#[test]
fn a_receive_into_an_empty_buffer_takes_no_message() {
    run(async {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        assert_eq!(ours.recv(&mut []).await.unwrap(), 0);
        assert_eq!(ours.peek(&mut []).await.unwrap(), 0);
        theirs.send(b"kept").await.unwrap();
        assert_eq!(ours.recv(&mut []).await.unwrap(), 0);
        assert_eq!(ours.try_recv(&mut []).unwrap(), 0);
        let mut buffer = [0; 8];
        assert_eq!(ours.recv(&mut buffer).await.unwrap(), 4);
        // An empty message is one, and is sent.
        assert_eq!(theirs.send(&[]).await.unwrap(), 0);
        assert_eq!(ours.recv(&mut buffer).await.unwrap(), 0);
    });
}

#[test]
fn a_dial_to_a_listener_whose_queue_is_full_fails_and_gives_out_no_socket() {
    run(async {
        let temp = TempPath::new();
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let address = socket2::SockAddr::unix(&temp).unwrap();
        socket.bind(&address).unwrap();
        socket.listen(1).unwrap();
        let mut queued = Vec::new();
        let error = loop {
            match UnixStream::connect(&temp).await {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 10_000, "the queue has no end");
        };
        // BSD refuses, where Linux says that it would block.
        let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionRefused];
        assert!(kinds.contains(&error.kind()), "{error}");
        assert_eq!(error.op_error().unwrap().op, "dial");
        // Each that was given out is connected; and with room in the queue the next is too.
        for stream in &queued {
            stream.write_all(b"!").await.unwrap();
        }
        drop(socket.accept().unwrap());
        UnixStream::connect(&temp).await.unwrap();
    });
}

#[test]
fn a_bind_that_fails_late_leaves_no_path_in_the_way_of_the_next() {
    let (ours, theirs) = (TempPath::new(), TempPath::new());
    let path = &ours;
    let runtime = Runtime::builder().selector(with_room_for(0));
    run_in(&runtime.build().unwrap(), async {
        let error = UnixListener::bind(path).await.unwrap_err();
        assert!(error.to_string().contains("epoll_ctl"), "{error}");
        assert!(!path.0.exists());
        assert!(UnixDatagram::bind(path).await.is_err());
        assert!(!path.0.exists());
        // The path of another listener stays.
        let _theirs = std_unix::UnixListener::bind(&theirs).unwrap();
        assert!(UnixListener::bind(&theirs).await.is_err());
        assert!(UnixStream::connect(&theirs).await.is_err());
        assert!(theirs.0.exists());
    });
    run(async { drop(UnixListener::bind(path).await.unwrap()) });
}
