//! The recipes of docs/cookbook.md that need other crates: another runtime above ours, below ours and
//! beside it, channels, `select!`, codecs. Each function here is shown there.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use asynchronous_codec::{Framed, LinesCodec};
use futures_lite::future;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, SinkExt, StreamExt, select};
use netpoller::{CancelToken, Handle, Runtime, TcpListener, TcpStream, spawn, time};
use std::os::fd::AsFd;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

/// Runs a future on our runtime, for half a minute at most.
fn run<T>(future: impl Future<Output = T>) -> T {
    let watched = async { time::timeout(Duration::from_secs(30), future).await };
    let ended = Runtime::new().unwrap().block_on(watched);
    ended.expect("it hangs")
}

fn tokio() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

async fn echo(listener: TcpListener) -> io::Result<()> {
    let (stream, _peer) = listener.accept().await?;
    loop {
        let got = stream.read_with(<[u8]>::to_vec).await?;
        if got.is_empty() {
            return Ok(());
        }
        stream.write_all(&got).await?;
    }
}

// ---- ours inside tokio ----

/// Turns our runtime in a tokio task until `done`.
async fn drive(runtime: &Runtime, done: impl Fn() -> bool) -> io::Result<()> {
    // SAFETY: the runtime is borrowed until after `readable` is dropped, so its descriptor stays open.
    let readable = unsafe { AsyncFd::register_with_interest(runtime.as_fd(), Interest::READABLE) }?;
    while !done() {
        // A deadline does not make the descriptor readable, so it bounds the wait.
        let wait = runtime.next_timeout().unwrap_or(Duration::MAX);
        // Cleared before the turn: what comes during the turn is seen by the next wait.
        if let Ok(ready) = tokio::time::timeout(wait, readable.readable()).await {
            ready?.clear_ready();
        }
        runtime.turn(Some(Duration::ZERO))?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[test]
fn tokio_turns_our_runtime_by_its_descriptor() {
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = runtime.spawn(async move {
        echo(listener).await.unwrap();
        time::sleep(Duration::from_millis(20)).await;
    });
    let client = async {
        let mut stream = tokio::net::TcpStream::connect(addr).await?;
        let mut heard = [0; 5];
        for _ in 0..100 {
            stream.write_all(b"hello").await?;
            stream.read_exact(&mut heard).await?;
            assert_eq!(&heard, b"hello");
        }
        io::Result::Ok(())
    };
    tokio().block_on(async {
        let both = future::zip(drive(&runtime, || serving.is_finished()), client);
        let ended = tokio::time::timeout(Duration::from_secs(30), both).await;
        let (driven, asked) = ended.expect("it hangs");
        driven.unwrap();
        asked.unwrap();
    });
}

// ---- tokio beside ours ----

#[test]
fn tokio_on_a_thread_of_its_own_answers_our_tasks() {
    let (ask, mut asked) =
        tokio::sync::mpsc::channel::<(u32, tokio::sync::oneshot::Sender<u32>)>(8);
    let beside = thread::spawn(move || {
        tokio().block_on(async move {
            while let Some((number, answer)) = asked.recv().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let _ = answer.send(number * 2);
            }
        });
    });
    run(async move {
        for number in 0..10 {
            let (tell, told) = tokio::sync::oneshot::channel();
            ask.send((number, tell)).await.unwrap();
            assert_eq!(told.await.unwrap(), number * 2);
        }
    });
    beside.join().unwrap();
}

/// As a handler of axum does: its future must be `Send`, and our stream is not.
#[test]
fn a_task_of_tokio_uses_our_stream_through_the_handle() {
    let (tell, told) = mpsc::channel();
    let end = CancelToken::new();
    let ended = end.clone();
    let ours = thread::spawn(move || {
        run(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let addr = listener.local_addr()?;
            tell.send((Handle::current(), addr))
                .map_err(io::Error::other)?;
            echo(listener).await?;
            // A runtime that ends answers nothing.
            ended.canceled().await;
            io::Result::Ok(())
        })
    });
    let (handle, addr) = told.recv().unwrap();
    let asking = async move {
        let asked = handle.run(move || async move {
            let stream = TcpStream::connect(addr).await?;
            stream.write_all(b"hello").await?;
            stream.read_with(|bytes| bytes.len()).await
        });
        asked.await.expect("our runtime lives")
    };
    let heard = tokio().block_on(async { tokio::spawn(asking).await });
    assert_eq!(heard.unwrap().unwrap(), 5);
    end.cancel();
    ours.join().unwrap().unwrap();
}

#[test]
fn sockets_of_tokio_do_not_work_in_ours() {
    let joined = run(async {
        spawn(async { tokio::net::TcpListener::bind("127.0.0.1:0").await.map(drop) }).await
    });
    assert!(joined.unwrap_err().is_panic());
}

// ---- channels, select, codecs ----

#[test]
fn a_channel_carries_messages_between_two_of_our_runtimes() {
    let (send, receive) = async_channel::bounded::<u32>(4);
    let worker = thread::spawn(move || {
        run(async move {
            let mut sum = 0;
            while let Ok(number) = receive.recv().await {
                sum += number;
            }
            sum
        })
    });
    run(async move {
        for number in 1..=100 {
            send.send(number).await.unwrap();
        }
    });
    assert_eq!(worker.join().unwrap(), 5050);
}

#[test]
fn select_and_unordered_futures_poll_our_operations() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = spawn(async move {
            let mut reads = FuturesUnordered::new();
            for _ in 0..10 {
                let (stream, _) = listener.accept().await.unwrap();
                reads.push(async move {
                    let length = stream.read_with(|bytes| bytes.len()).await;
                    (length.unwrap(), stream)
                });
            }
            let mut read = Vec::new();
            while let Some(ended) = reads.next().await {
                read.push(ended);
            }
            read
        });
        let mut streams = Vec::new();
        for length in 1..=10 {
            let stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(&vec![0; length]).await.unwrap();
            streams.push(stream);
        }
        // The server sends nothing, so the sleep wins, and the read is given up: it loses no byte.
        let mut byte = [0];
        let silent = select! {
            _ = streams[0].read(&mut byte).fuse() => false,
            _ = time::sleep(Duration::from_millis(5)).fuse() => true,
        };
        assert!(silent);
        let read = serving.await.unwrap().into_iter();
        let mut lengths: Vec<_> = read.map(|(length, _stream)| length).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, (1..=10).collect::<Vec<_>>());
    });
}

#[test]
fn a_codec_over_our_stream_cuts_it_into_lines() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = spawn(async move {
            let (stream, _) = listener.accept().await?;
            let mut lines = Framed::new(stream, LinesCodec);
            while let Some(line) = lines.next().await {
                let line = line?;
                lines.send(format!("you said {line}")).await?;
            }
            io::Result::Ok(())
        });
        let mut lines = Framed::new(TcpStream::connect(addr).await.unwrap(), LinesCodec);
        for word in ["one\n", "two\n"] {
            lines.send(word.to_owned()).await.unwrap();
            let heard = lines.next().await.unwrap().unwrap();
            assert_eq!(heard, format!("you said {word}"));
        }
        drop(lines);
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn the_cookbook_shows_the_recipe_for_tokio_as_it_stands_here() {
    let here = include_str!("recipes.rs");
    let begin = here.find("/// Turns our runtime").unwrap();
    let length = here[begin..].find("\n}\n").unwrap();
    let shown = include_str!("../../docs/cookbook.md");
    assert!(shown.contains(&here[begin..begin + length]));
}
