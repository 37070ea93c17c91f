//! Copying: every byte, every end, every error, and nothing left behind.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::io::{AssertAsync, AsyncReadExt, BufWriter, Cursor};
use netpoller::net::{self, Relay};
use netpoller::{NetError, Runtime, TcpListener, UnixStream, spawn, time, yield_now};

use crate::support::bytes::{noise, read_all};
use crate::support::loopback::pair;
use crate::support::run::{run, run_virtual};
use crate::support::temp_path::TempPath;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_byte_arrives_in_order_and_is_counted() {
    run(async {
        let sent = noise(16 << 20);
        let (a, source) = pair().await;
        let (sink, b) = pair().await;
        let writing = spawn(async move {
            source.write_all(&sent).await.unwrap();
            sent
        });
        let reading = spawn(async move { read_all(&sink).await.unwrap() });
        assert_eq!(net::copy(&a, &b).await.unwrap(), 16 << 20);
        b.close_write().unwrap();
        assert!(writing.await.unwrap() == reading.await.unwrap());
    });
}

#[test]
fn every_byte_arrives_between_unix_and_tcp_streams_in_any_combination() {
    run(async {
        let sent = Rc::new(noise(3 << 20));
        let (unix_source, a) = UnixStream::pair().unwrap();
        let (tcp_source, b) = pair().await;
        let (c, tcp_sink) = pair().await;
        let (unix_between, d) = UnixStream::pair().unwrap();
        let (unix_sink, e) = UnixStream::pair().unwrap();
        // Unix to TCP to TCP to Unix to Unix.
        let copies = [
            spawn(async move { Relay::new().run(&a, &b).await }),
            spawn(async move { Relay::new().run(&tcp_source, &tcp_sink).await }),
            spawn(async move { Relay::new().run(&c, &d).await }),
            spawn(async move { Relay::new().run(&unix_between, &e).await }),
        ];
        let bytes = sent.clone();
        let writing = spawn(async move {
            unix_source.write_all(&bytes).await.unwrap();
            unix_source.close_write().unwrap();
            assert_eq!(unix_source.read(&mut [0]).await.unwrap(), 0);
        });
        assert!(read_all(&unix_sink).await.unwrap() == *sent);
        unix_sink.close().unwrap();
        for copy in copies {
            assert_eq!(copy.await.unwrap().unwrap(), (3 << 20, 0));
        }
        writing.await.unwrap();
    });
}

#[test]
fn a_stream_copied_to_itself_is_an_echo_server() {
    run(async {
        let (server, client) = pair().await;
        let echo = spawn(async move { net::copy(&server, &server).await });
        for message in [&b"one"[..], b"two", b"a longer third"] {
            client.write_all(message).await.unwrap();
            let mut back = vec![0; message.len()];
            client.read_exact(&mut back).await.unwrap();
            assert_eq!(back, message);
        }
        client.close_write().unwrap();
        assert_eq!(echo.await.unwrap().unwrap(), 20);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn the_source_s_read_deadline_ends_it_with_a_timeout_that_says_how_much_had_gone() {
    run_virtual(async {
        let (a, source) = pair().await;
        let (sink, b) = pair().await;
        source.write_all(b"twelve bytes").await.unwrap();
        a.set_read_deadline(Some(time::now() + SECOND)).unwrap();
        let error = net::copy(&a, &b).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.op_error().unwrap().op, "read");
        assert_eq!(error.op_error().unwrap().written, 12);
        sink.read_exact(&mut [0; 12]).await.unwrap();
        // And the connection works again.
        a.set_read_deadline(None).unwrap();
        source.write_all(b"!").await.unwrap();
        source.close_write().unwrap();
        assert_eq!(net::copy(&a, &b).await.unwrap(), 1);
    });
}

#[test]
fn the_sink_s_write_deadline_ends_it_with_a_timeout_that_says_how_much_had_gone() {
    run_virtual(async {
        let (a, source) = pair().await;
        let (sink, b) = pair().await;
        let sent = vec![b'x'; 32 << 20];
        let writing = spawn(async move {
            let _cut_off = source.write_all(&sent).await;
        });
        b.set_write_deadline(Some(time::now() + SECOND)).unwrap();
        let error = net::copy(&a, &b).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        let error = error.op_error().unwrap();
        assert_eq!(error.op, "write");
        assert!(error.written > 0 && error.written < 32 << 20, "{error}");
        let written = error.written;
        drop((writing, a));
        b.close().unwrap();
        assert_eq!(read_all(&sink).await.unwrap().len(), written);
    });
}

#[test]
fn closing_either_stream_ends_it() {
    run(async {
        let (a, _source) = pair().await;
        let (_sink, b) = pair().await;
        for closes_source in [false, true] {
            let (from, to) = (a.clone(), b.clone());
            let copying = spawn(async move { net::copy(&from, &to).await });
            netpoller::yield_now().await;
            if closes_source {
                a.close().unwrap();
            } else {
                // Until the copy has something to write, nothing shows the close.
                b.close().unwrap();
                _source.write_all(b"x").await.unwrap();
            }
            let error = copying.await.unwrap().unwrap_err();
            assert!(error.is_closed(), "{error}");
        }
    });
}

#[test]
fn an_urgent_byte_in_the_source_holds_nothing_up() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let a = listener.accept().await.unwrap().0;
        let (sink, b) = pair().await;
        let copying = spawn(async move { net::copy(&a, &b).await });
        let send_urgent = || {
            (&source).write_all(b"abc").unwrap();
            let socket = socket2::SockRef::from(&source);
            socket.send_out_of_band(b"U").unwrap();
            (&source).write_all(b"def").unwrap();
        };
        for _ in 0..10 {
            send_urgent();
            let mut got = [0; 6];
            sink.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"abcdef");
        }
        // After a flood the copy splices.
        let flood = vec![b'x'; 32 << 10];
        for _ in 0..10 {
            (&source).write_all(&flood).unwrap();
            let mut got = vec![0; flood.len()];
            sink.read_exact(&mut got).await.unwrap();
            send_urgent();
            sink.read_exact(&mut got[..6]).await.unwrap();
            assert_eq!(&got[..6], b"abcdef");
        }
        // With the end already behind the urgent mark, splice would take the mark for the end.
        (&source).write_all(&flood).unwrap();
        send_urgent();
        source.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let mut got = [0; 4096];
        while let n @ 1.. = sink.read(&mut got).await.unwrap() {
            rest.extend_from_slice(&got[..n]);
            if rest.len() == flood.len() + 6 {
                break;
            }
        }
        assert!(rest.ends_with(b"abcdef"));
        let all = 20 * 6 + 10 * flood.len() + rest.len();
        assert_eq!(copying.await.unwrap().unwrap(), all as u64);
    });
}

#[test]
fn others_can_write_to_the_sink_between_steps() {
    run(async {
        let (a, source) = pair().await;
        let (sink, b) = pair().await;
        let (from, to) = (a.clone(), b.clone());
        let copying = spawn(async move { net::copy(&from, &to).await });
        for _ in 0..10 {
            source.write_all(b"copied").await.unwrap();
            let mut got = [0; 6];
            sink.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"copied");
            // The copy waits for its source now, and does not hold the sink.
            b.write_all(b"other").await.unwrap();
            sink.read_exact(&mut got[..5]).await.unwrap();
            assert_eq!(&got[..5], b"other");
        }
        source.close().unwrap();
        assert_eq!(copying.await.unwrap().unwrap(), 60);
    });
}

#[test]
fn a_copy_that_is_dropped_while_it_waits_loses_nothing() {
    let runtime = Runtime::new().unwrap();
    let body = async {
        let (a, source) = pair().await;
        let (_sink, b) = pair().await;
        for _ in 0..100 {
            let short = time::timeout(Duration::ZERO, net::copy(&a, &b));
            assert!(short.await.is_err());
        }
        source.write_all(b"still here").await.unwrap();
        let mut got = [0; 10];
        a.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"still here");
        b.write_all(b"and not locked").await.unwrap();
    };
    let watched = runtime.block_on(async { time::timeout(30 * SECOND, body).await });
    watched.expect("hangs");
    assert_eq!(runtime.stats().waiters, 0);
}

#[test]
fn memory_files_and_pipes_are_copied() {
    run(async {
        let sent = noise(200_000);
        let (server, client) = pair().await;

        // Memory to a stream, and the stream to a file.
        let path = TempPath::new();
        let file = std::fs::File::create(&path).unwrap();
        let saving = spawn(async move { net::copy(&server, &mut AssertAsync::new(file)).await });
        assert_eq!(net::copy(&mut &sent[..], &client).await.unwrap(), 200_000);
        client.close().unwrap();
        assert_eq!(saving.await.unwrap().unwrap(), 200_000);

        // The file to memory.
        let file = std::fs::File::open(&path).unwrap();
        let mut memory = Cursor::new(Vec::new());
        net::copy(&mut AssertAsync::new(file), &mut memory)
            .await
            .unwrap();
        assert!(memory.into_inner() == sent);

        // Memory to a pipe, and the pipe to memory.
        let (reader, writer) = io::pipe().unwrap();
        net::copy(&mut &sent[..4096], &mut AssertAsync::new(writer))
            .await
            .unwrap();
        let mut memory = Cursor::new(Vec::new());
        net::copy(&mut AssertAsync::new(reader), &mut memory)
            .await
            .unwrap();
        assert!(memory.into_inner() == sent[..4096]);
    });
}

#[test]
fn what_a_sink_keeps_in_its_buffer_goes_out_while_the_source_is_silent() {
    run(async {
        let (server, client) = pair().await;
        let (sink, arrives) = UnixStream::pair().unwrap();
        let copying = spawn(async move {
            net::copy(&server, &mut BufWriter::new(&sink))
                .await
                .unwrap()
        });
        // Each is answered before the next comes, as in a dialogue.
        for said in [b"one", b"two"] {
            client.write_all(said).await.unwrap();
            let mut heard = [0; 3];
            let hearing = time::timeout(10 * SECOND, arrives.read_exact(&mut heard)).await;
            hearing.expect("it stays in the buffer").unwrap();
            assert_eq!(&heard, said);
        }
        client.close().unwrap();
        assert_eq!(copying.await.unwrap(), 6);
    });
}

#[test]
fn a_source_that_is_always_ready_leaves_other_tasks_their_turn() {
    run(async {
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let counting = spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                netpoller::yield_now().await;
            }
        });
        let for_ever = &mut futures_lite::io::repeat(b'x').take(16 << 20);
        assert_eq!(
            net::copy(for_ever, &mut futures_lite::io::sink())
                .await
                .unwrap(),
            16 << 20
        );
        assert!(turns.get() > 100, "{} turns", turns.get());
        counting.abort();
    });
}

#[test]
fn an_error_of_any_reader_or_writer_passes_through() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::InvalidData, "broken"))
        }
    }
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Ok(0)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    run(async {
        let mut sink = futures_lite::io::sink();
        let error = net::copy(&mut AssertAsync::new(Broken), &mut sink).await;
        assert_eq!(error.unwrap_err().to_string(), "broken");
        let error = net::copy(&mut &b"x"[..], &mut AssertAsync::new(Broken)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::WriteZero);
    });
}

#[test]
fn a_reader_that_claims_more_than_its_buffer_holds_is_not_believed() {
    struct Liar(u32);
    impl Read for Liar {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            Ok(if self.0 == 1 { buffer.len() + 1 } else { 0 })
        }
    }
    run(async {
        let mut sink = Cursor::new(Vec::new());
        let copied = net::copy(&mut AssertAsync::new(Liar(0)), &mut sink).await;
        assert_eq!(copied.unwrap(), sink.into_inner().len() as u64);
    });
}

/// A pipe has sixteen slots, and each segment that is spliced takes one, however small: it is full
/// long before it holds 64 KiB, and then says EAGAIN although the source has more.
#[test]
fn a_pipe_full_of_small_segments_holds_nothing_up() {
    run(async {
        let (a, source) = pair().await;
        let (sink, b) = pair().await;
        // Enough at once that it is spliced, then segment by segment to a sink that does not read.
        let flood = noise(64 << 10);
        let segments = noise(1_400 * 1_000);
        let copying = spawn(async move {
            let copied = net::copy(&a, &b).await;
            b.close_write().unwrap();
            copied
        });
        let sent = [&flood[..], &segments].concat();
        let writing = spawn(async move {
            source.write_all(&flood).await.unwrap();
            for segment in segments.chunks(1_400) {
                source.write_all(segment).await.unwrap();
                yield_now().await;
            }
            source.close_write().unwrap();
        });
        for _ in 0..200 {
            yield_now().await;
        }
        assert!(read_all(&sink).await.unwrap() == sent);
        writing.await.unwrap();
        assert_eq!(copying.await.unwrap().unwrap(), sent.len() as u64);
    });
}

#[test]
fn a_sink_that_takes_a_pipe_in_parts_gets_all_of_it() {
    run(async {
        let sent = noise(2 << 20);
        let (a, source) = pair().await;
        let (sink, b) = pair().await;
        // Less than a pipe holds.
        b.set_write_buffer(16 << 10).unwrap();
        let writing = spawn(async move {
            source.write_all(&sent).await.unwrap();
            sent
        });
        let reading = spawn(async move { read_all(&sink).await.unwrap() });
        assert_eq!(net::copy(&a, &b).await.unwrap(), 2 << 20);
        b.close_write().unwrap();
        assert!(writing.await.unwrap() == reading.await.unwrap());
    });
}
