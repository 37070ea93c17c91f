//! `proxy`, `monitor`, `broadcast`: bytes that are passed on.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use netpoller::{TcpStream, spawn, time};

use crate::broadcast::{self, Room};
use crate::lines::splitter::{Splitter, line};
use crate::loopback::pair;
use crate::{SECOND, listener, monitor, proxy, read_all, run, run_virtual};

#[test]
fn through_the_proxy_ping_is_pong_and_both_sides_close_in_the_end() {
    run(async {
        let (servers, target) = listener().await;
        spawn(async move { servers.serve(proxy::ping_server).await });
        let (proxies, addr) = listener().await;
        spawn(proxy::proxy(proxies, target, 10, Duration::from_secs(60)));
        let client = TcpStream::connect(addr).await.unwrap();
        for (asked, answered) in [("ping", "pong"), ("hello", "hello"), ("ping", "pong")] {
            client.write_all(asked.as_bytes()).await.unwrap();
            let mut answer = vec![0; answered.len()];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, answered.as_bytes());
        }
        client.close_write().unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"");
    });
}

#[test]
fn the_same_function_passes_on_from_any_reader_to_any_writer() {
    run(async {
        let (ours, theirs) = pair().await;
        let mut memory = futures_lite::io::Cursor::new(Vec::new());
        let sent = proxy::pass_on(&mut &b"whatever it is"[..], &ours).await;
        ours.close().unwrap();
        let got = proxy::pass_on(&theirs, &mut memory).await;
        assert_eq!((sent.unwrap(), got.unwrap()), (14, 14));
        assert_eq!(memory.into_inner(), b"whatever it is");
    });
}

/// Takes so many lines, and then fails for ever.
struct FailingLog(std::rc::Rc<std::cell::RefCell<Vec<u8>>>, usize);

impl Write for FailingLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.borrow_mut();
        let lines = written.iter().filter(|&&byte| byte == b'\n').count();
        if lines >= self.1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the log says of three messages that were echoed.
fn logged(lines: usize) -> String {
    let log = std::rc::Rc::default();
    let failing = FailingLog(std::rc::Rc::clone(&log), lines);
    run(async {
        let (server, client) = pair().await;
        let echoing = spawn(monitor::echo(server, failing));
        for message in ["one", "two\n", "three"] {
            client.write_all(message.as_bytes()).await.unwrap();
            let mut echo = vec![0; message.len()];
            client.read_exact(&mut echo).await.unwrap();
            assert_eq!(echo, message.as_bytes());
        }
        client.close_write().unwrap();
        echoing.await.unwrap().unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"");
    });
    String::from_utf8(log.take()).unwrap()
}

#[test]
fn each_message_is_logged_twice_once_each_way() {
    let all = "< one\n> one\n< two\\n\n> two\\n\n< three\n> three\n";
    assert_eq!(logged(usize::MAX), all);
}

#[test]
fn a_log_that_fails_does_not_stop_the_echo() {
    assert_eq!(logged(0), "");
    assert_eq!(logged(1), "< one\n");
}

/// A log whose writer holds until the other end of the channel is dropped.
struct HeldLog(Receiver<()>);

impl Write for HeldLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_blocks_never_breaks_the_flow() {
    let (release, held) = channel();
    let log = monitor::Queued::start(HeldLog(held)).unwrap();
    run(async {
        let (server, client) = pair().await;
        let echoing = spawn(monitor::echo(server, log));
        for _ in 0..2000 {
            client
                .write_all(b"more than the queue holds")
                .await
                .unwrap();
            client.read_exact(&mut [0; 25]).await.unwrap();
        }
        client.close_write().unwrap();
        echoing.await.unwrap().unwrap();
    });
    drop(release);
}

/// Reads until so many lines of `x` have come from other clients of the room.
async fn hears_all(client: &TcpStream, lines: usize) {
    let (mut hears, mut heard) = (Splitter::new(line), 0);
    while heard < lines {
        let line = hears.read(client).await.unwrap().expect("it stays");
        heard += usize::from(line.ends_with(b": x"));
    }
}

#[test]
fn many_lines_in_one_read_drop_no_client_that_reads() {
    run(async {
        let (chat, addr) = listener().await;
        spawn(broadcast::serve(chat));
        let ann = TcpStream::connect(&addr).await.unwrap();
        // Ann is in the room once her line is read.
        ann.write_all(b"hello?\n").await.unwrap();
        let bob = TcpStream::connect(&addr).await.unwrap();
        let lines = b"x\n".repeat(5000);
        bob.write_all(&lines).await.unwrap();
        hears_all(&ann, 5000).await;
    });
}

#[test]
fn many_clients_that_talk_at_once_drop_no_client_that_reads() {
    run(async {
        let (chat, addr) = listener().await;
        spawn(broadcast::serve(chat));
        let ann = TcpStream::connect(&addr).await.unwrap();
        ann.write_all(b"hello?\n").await.unwrap();
        for _ in 0..100 {
            let talker = TcpStream::connect(&addr).await.unwrap();
            spawn(async move {
                talker.write_all(&b"x\n".repeat(40)).await.unwrap();
                while talker.read_with(|bytes| bytes.len()).await.unwrap() > 0 {}
            });
        }
        hears_all(&ann, 100 * 40).await;
    });
}

#[test]
fn a_line_of_one_client_reaches_all_others() {
    run(async {
        let (chat, addr) = listener().await;
        spawn(broadcast::serve(chat));
        let ann = TcpStream::connect(&addr).await.unwrap();
        let mut ann_hears = Splitter::new(line);
        let mut hears = async |text: &str| {
            let line = ann_hears.read(&ann).await.unwrap().unwrap();
            let line = String::from_utf8(line).unwrap();
            assert!(line.ends_with(text), "{line}");
        };
        // Ann is in the room once her line is read. There is no other client yet, so that it
        // reaches none.
        ann.write_all(b"hello?\n").await.unwrap();
        let bob = TcpStream::connect(&addr).await.unwrap();
        hears("has come").await;
        bob.write_all(b"good morn").await.unwrap();
        bob.write_all(b"ing\nhow are you?\n").await.unwrap();
        hears(": good morning").await;
        hears(": how are you?").await;
        bob.close().unwrap();
        hears("has gone").await;
    });
}

#[test]
fn a_slow_peer_and_a_dead_one_do_not_hold_up_the_others() {
    run_virtual(async {
        let room = Room::default();
        let (fast, fast_client) = pair().await;
        let (slow, slow_client) = pair().await;
        let (dead, dead_client) = pair().await;
        let [slow, _dead, _fast] = [slow, dead, fast].map(|stream| room.enter(stream));
        dead_client.abort().unwrap();
        // Far more than the kernel holds for a peer that does not read.
        let mut sent = Vec::new();
        for n in 0..256_u32 {
            let payload = n.to_be_bytes().repeat(16 << 10);
            room.send(None, &payload);
            sent.extend(payload);
        }
        let start = time::now();
        let mut got = vec![0; sent.len()];
        fast_client.read_exact(&mut got).await.unwrap();
        assert!(got == sent);
        assert!(time::now() - start < 10 * SECOND);

        // Many times its patience: on a busy computer the system goes on taking a little more.
        time::sleep(3600 * SECOND).await;
        let dropped = room.leave(slow).unwrap().to_string();
        assert_eq!(dropped, "dropped: it took nothing for 10s");
        let ended = read_all(&slow_client).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset, "{ended}");
    });
}

#[test]
fn a_client_that_takes_a_little_all_the_time_is_not_dropped() {
    run_virtual(async {
        let room = Room::default();
        let (ours, client) = pair().await;
        client.set_read_buffer(64 << 10).unwrap();
        let key = room.enter(ours);
        room.send(None, &vec![7; 8 << 20]);
        let mut buffer = vec![0; 32 << 10];
        for _ in 0..(8 << 20) / buffer.len() {
            // Less in ten seconds than the socket has to have free before it is ready for writing.
            client.read_exact(&mut buffer).await.unwrap();
            time::sleep(SECOND).await;
        }
        assert!(room.leave(key).is_none());
    });
}

#[test]
fn an_answer_that_a_reset_cut_off_does_not_end_as_a_whole_one_does() {
    run(async {
        let (servers, target) = listener().await;
        let (proxies, addr) = listener().await;
        spawn(proxy::proxy(proxies, target, 10, 60 * SECOND));
        let client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"?").await.unwrap();
        client.close_write().unwrap();
        let (server, _) = servers.accept().await.unwrap();
        server.write_all(b"half of it").await.unwrap();
        client.read_exact(&mut [0; 10]).await.unwrap();
        server.abort().unwrap();
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    });
}
