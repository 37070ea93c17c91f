//! The claims of `golang.org/x/net/nettest.TestConn`, one after the other, in its order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use netpoller::net::Stream;
use netpoller::{NetError, spawn, time, yield_now};

use super::transport::*;
use crate::support::bytes::noise;

async fn basic_io<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let sent = noise(1 << 20);
    let expected = sent.clone();
    let writer = spawn(async move {
        for chunk in sent.chunks(1024) {
            near.write_all(chunk).await.unwrap();
        }
        near.close().unwrap();
    });
    let got = read_to_end(&far).await.unwrap();
    far.close().unwrap();
    writer.await.unwrap();
    assert!(got == expected, "transmitted data differs");
}

#[test]
fn what_is_written_is_read_and_then_the_end() {
    over_streams(
        Clock::Real,
        basic_io::<Tcp4>,
        basic_io::<Tcp6>,
        basic_io::<UnixPath>,
    );
}

async fn ping_pong<T: Transport>() {
    async fn play<K>(stream: Stream<K>) {
        let mut buffer = [0; 8];
        let mut earlier = 0;
        while stream.read_exact(&mut buffer).await.is_ok() {
            let ball = u64::from_le_bytes(buffer);
            assert!(earlier == 0 || ball == earlier + 2, "{earlier}, {ball}");
            earlier = ball;
            if ball == 1000 {
                break;
            }
            let next = (ball + 1).to_le_bytes();
            stream.write_all(&next).await.unwrap();
        }
        assert!(earlier >= 999, "the game ended at {earlier}");
        stream.close().unwrap();
    }
    let (near, far) = pair::<T>().await;
    near.write_all(&[0; 8]).await.unwrap();
    let players = [spawn(play(near)), spawn(play(far))];
    for player in players {
        player.await.unwrap();
    }
}

#[test]
fn both_ends_take_turns_a_thousand_times() {
    over_streams(
        Clock::Real,
        ping_pong::<Tcp4>,
        ping_pong::<Tcp6>,
        ping_pong::<UnixPath>,
    );
}

/// In Go the buffer of a read that timed out may be written to at once. Here the borrow checker
/// sees to that; the claim that is left is that it took no byte.
async fn racy_read<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let sent = noise(2 << 20);
    let flood = sent.clone();
    let writer = spawn(async move { far.write_all(&flood).await });
    let seen = Rc::new(RefCell::new(Vec::new()));
    let timeouts = Rc::new(Cell::new(0));
    near.set_read_deadline(in_time(millis(1))).unwrap();
    let readers: Vec<_> = (0..10)
        .map(|reader| {
            let (near, seen, timeouts) = (near.clone(), seen.clone(), timeouts.clone());
            spawn(async move {
                let mut buffer = [0; 1024];
                for round in 0..100 {
                    match near.read(&mut buffer).await {
                        Ok(got) => seen.borrow_mut().extend_from_slice(&buffer[..got]),
                        Err(error) => {
                            timeouts.set(timeouts.get() + 1);
                            assert_timeout::<()>(Err(error));
                            near.set_read_deadline(in_time(millis(1))).unwrap();
                        }
                    }
                    if round % 10 == reader {
                        near.set_read_deadline(a_long_time_ago()).unwrap();
                        yield_now().await;
                    }
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(timeouts.get() > 0, "nothing raced");
    assert!(
        sent.starts_with(&seen.borrow()),
        "a byte was lost, or came twice"
    );
    writer.abort();
}

#[test]
fn reads_that_time_out_take_no_byte() {
    over_streams(
        Clock::Real,
        racy_read::<Tcp4>,
        racy_read::<Tcp6>,
        racy_read::<UnixPath>,
    );
}

async fn racy_write<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let reader = spawn(async move { read_to_end(&far).await.unwrap().len() });
    let went = Rc::new(Cell::new(0));
    near.set_write_deadline(in_time(millis(1))).unwrap();
    let writers: Vec<_> = (0..10)
        .map(|writer| {
            let (near, went) = (near.clone(), went.clone());
            spawn(async move {
                for round in 0..100 {
                    let written = match near.write_all(&[writer; 1024]).await {
                        Ok(()) => 1024,
                        Err(error) => {
                            let written = error.op_error().unwrap().written;
                            assert_timeout::<()>(Err(error));
                            near.set_write_deadline(in_time(millis(1))).unwrap();
                            written
                        }
                    };
                    went.set(went.get() + written);
                    if round % 10 == writer {
                        near.set_write_deadline(a_long_time_ago()).unwrap();
                        yield_now().await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    near.close().unwrap();
    assert_eq!(reader.await.unwrap(), went.get());
}

#[test]
fn writes_that_time_out_know_what_went() {
    over_streams(
        Clock::Real,
        racy_write::<Tcp4>,
        racy_write::<Tcp6>,
        racy_write::<UnixPath>,
    );
}

async fn read_timeout<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let reader = spawn(async move { read_to_end(&far).await.unwrap().len() });
    near.set_read_deadline(a_long_time_ago()).unwrap();
    assert_timeout(near.read(&mut [0; 1024]).await);
    near.write_all(&[0; 1024]).await.unwrap();
    near.close().unwrap();
    assert_eq!(reader.await.unwrap(), 1024);
}

#[test]
fn a_read_timeout_does_not_touch_writing() {
    over_streams(
        Clock::Real,
        read_timeout::<Tcp4>,
        read_timeout::<Tcp6>,
        read_timeout::<UnixPath>,
    );
}

async fn write_timeout<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let flood = spawn(async move { far.write_all(&noise(1 << 20)).await });
    near.set_write_deadline(a_long_time_ago()).unwrap();
    assert_timeout(near.write(&[0; 1024]).await);
    assert_timeout(near.write_all(&[0; 1024]).await);
    assert!(near.read(&mut [0; 1024]).await.unwrap() > 0);
    flood.abort();
}

#[test]
fn a_write_timeout_does_not_touch_reading() {
    over_streams(
        Clock::Real,
        write_timeout::<Tcp4>,
        write_timeout::<Tcp6>,
        write_timeout::<UnixPath>,
    );
}

/// nettest's testRoundtrip; the peer must echo.
async fn roundtrip<K>(stream: &Stream<K>) {
    stream.set_deadline(None).unwrap();
    stream.write_all(b"Hello, world!").await.unwrap();
    let mut buffer = [0; 13];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"Hello, world!");
}

/// nettest's resyncConn: reads off what is still on its way; the peer must echo.
async fn resync<K: 'static>(stream: &Stream<K>) {
    stream.set_deadline(None).unwrap();
    let marker = stream.clone();
    let marking = spawn(async move { marker.write_all(&[0xff]).await });
    let mut buffer = [0; 1024];
    loop {
        let got = stream.read(&mut buffer).await.unwrap();
        assert!(got > 0, "the echo ended");
        if buffer[got - 1] == 0xff {
            break;
        }
    }
    marking.await.unwrap().unwrap();
}

async fn past_timeout<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let echo = echo(far);
    roundtrip(&near).await;
    near.set_deadline(a_long_time_ago()).unwrap();
    let write = near.write_all(&[0; 1024]).await;
    assert_eq!(write.as_ref().unwrap_err().op_error().unwrap().written, 0);
    assert_timeout(write);
    assert_timeout(near.read(&mut [0; 1024]).await);
    roundtrip(&near).await;
    near.close().unwrap();
    echo.await.unwrap();
}

#[test]
fn a_deadline_in_the_past_fails_both_directions_at_once() {
    over_streams(
        Clock::Real,
        past_timeout::<Tcp4>,
        past_timeout::<Tcp6>,
        past_timeout::<UnixPath>,
    );
}

async fn present_timeout<T: Transport>() {
    let (near, _far) = pair::<T>().await;
    let set = Rc::new(Cell::new(false));
    let reader = spawn({
        let (near, set) = (near.clone(), set.clone());
        async move {
            assert_timeout(near.read(&mut [0; 1024]).await);
            assert!(set.get(), "timed out before there was a deadline");
        }
    });
    let writer = spawn({
        let (near, set) = (near.clone(), set.clone());
        async move {
            assert_timeout(near.write_all(&vec![0; PLENTY]).await);
            assert!(set.get(), "timed out before there was a deadline");
        }
    });
    time::sleep(millis(100)).await;
    set.set(true);
    near.set_read_deadline(a_long_time_ago()).unwrap();
    near.set_write_deadline(a_long_time_ago()).unwrap();
    reader.await.unwrap();
    writer.await.unwrap();
}

#[test]
fn a_past_deadline_ends_what_is_parked() {
    over_streams(
        Clock::Virtual,
        present_timeout::<Tcp4>,
        present_timeout::<Tcp6>,
        present_timeout::<UnixPath>,
    );
}

async fn future_timeout<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let start = time::now();
    near.set_deadline(in_time(millis(100))).unwrap();
    let reader = spawn({
        let near = near.clone();
        async move { assert_timeout(near.read(&mut [0; 1024]).await) }
    });
    let writer = near.clone();
    let writer = spawn(async move { assert_timeout(writer.write_all(&vec![0; PLENTY]).await) });
    reader.await.unwrap();
    writer.await.unwrap();
    assert_eq!(time::now() - start, millis(100));
    let echo = echo(far);
    resync(&near).await;
    roundtrip(&near).await;
    near.close().unwrap();
    echo.await.unwrap();
}

#[test]
fn a_future_deadline_ends_both_directions_and_the_stream_lives_on() {
    over_streams(
        Clock::Virtual,
        future_timeout::<Tcp4>,
        future_timeout::<Tcp6>,
        future_timeout::<UnixPath>,
    );
}

async fn close_timeout<T: Transport>() {
    let (near, far) = pair::<T>().await;
    near.set_deadline(None).unwrap();
    let reader = near.clone();
    let reader = spawn(async move { assert_closed(reader.read(&mut [0; 1024]).await) });
    let writer = near.clone();
    let writer = spawn(async move { assert_closed(writer.write_all(&vec![0; PLENTY]).await) });
    time::sleep(millis(100)).await;
    near.close().unwrap();
    reader.await.unwrap();
    writer.await.unwrap();
    drop(far);
}

#[test]
fn a_close_ends_what_is_parked() {
    over_streams(
        Clock::Virtual,
        close_timeout::<Tcp4>,
        close_timeout::<Tcp6>,
        close_timeout::<UnixPath>,
    );
}

async fn concurrent_methods<T: Transport>() {
    let (near, far) = pair::<T>().await;
    let echo = echo(far);
    let ends = T::ends(&near);
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let stream = near.clone();
        tasks.push(spawn(
            async move { drop(stream.read(&mut [0; 1024]).await) },
        ));
        let stream = near.clone();
        tasks.push(spawn(async move { drop(stream.write(&[0; 1024]).await) }));
        let stream = near.clone();
        tasks.push(spawn(async move {
            stream.set_deadline(in_time(millis(10))).unwrap()
        }));
        let stream = near.clone();
        tasks.push(spawn(async move {
            stream.set_read_deadline(a_long_time_ago()).unwrap()
        }));
        let stream = near.clone();
        tasks.push(spawn(async move {
            stream.set_write_deadline(a_long_time_ago()).unwrap()
        }));
        let (stream, ends) = (near.clone(), ends.clone());
        tasks.push(spawn(async move { assert_eq!(T::ends(&stream), ends) }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    resync(&near).await;
    roundtrip(&near).await;
    near.close().unwrap();
    echo.await.unwrap();
}

#[test]
fn any_methods_may_run_at_the_same_time() {
    over_streams(
        Clock::Virtual,
        concurrent_methods::<Tcp4>,
        concurrent_methods::<Tcp6>,
        concurrent_methods::<UnixPath>,
    );
}
