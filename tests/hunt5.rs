use netpoller::{Runtime, TcpStream, spawn, time};
use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
#[path = "common/loopback.rs"]
mod loopback;
#[path = "common/watchdog.rs"]
mod watchdog;
use loopback::plain_pair;
use watchdog::watchdog;

static HOSE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
fn starve(with: bool) {
    let _w = watchdog();
    let rt = Runtime::new().unwrap();
    let (hose, mut peer) = plain_pair(&rt);
    let (quiet, mut qpeer) = plain_pair(&rt);
    let stop = Arc::new(AtomicBool::new(false));
    let s2 = stop.clone();
    let t = std::thread::spawn(move || {
        let b = vec![7; 1 << 20];
        while !s2.load(Ordering::Relaxed) && peer.write_all(&b).is_ok() {}
    });
    let echoed = Rc::new(Cell::new(0));
    let e2 = echoed.clone();
    rt.block_on(async {
        let main = spawn(async move {
            let a = async {
                let mut b = vec![0; 16];
                loop {
                    if with {
                        hose.read_with(|b| b.len()).await.unwrap();
                    } else {
                        hose.read(&mut b).await.unwrap();
                    }
                    HOSE.fetch_add(1, Ordering::Relaxed);
                }
            };
            let b = async {
                let mut b = [0; 4];
                loop {
                    if with {
                        let n = quiet
                            .read_with(|x| {
                                b[..x.len()].copy_from_slice(x);
                                x.len()
                            })
                            .await
                            .unwrap();
                        if n == 0 {
                            break;
                        }
                        quiet.write_all(&b[..n]).await.unwrap();
                    } else {
                        let n = quiet.read(&mut b).await.unwrap();
                        if n == 0 {
                            break;
                        }
                        quiet.write_all(&b[..n]).await.unwrap();
                    }
                    e2.set(e2.get() + 1);
                }
            };
            futures_lite::future::or(a, b).await;
        });
        let cl = std::thread::spawn(move || {
            qpeer
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            for _ in 0..20 {
                qpeer.write_all(b"ping").unwrap();
                let mut b = [0; 4];
                if qpeer.read_exact(&mut b).is_err() {
                    return false;
                }
            }
            true
        });
        while !cl.is_finished() {
            time::sleep(Duration::from_millis(5)).await;
        }
        stop.store(true, Ordering::Relaxed);
        let ok = cl.join().unwrap();
        main.abort();
        println!(
            "hose {} with {with} ok {ok} echoed {}",
            HOSE.load(Ordering::Relaxed),
            echoed.get()
        );
        assert!(ok);
    });
    t.join().unwrap();
}
#[test]
fn starve_read() {
    starve(false)
}
#[test]
fn starve_read_with() {
    starve(true)
}
