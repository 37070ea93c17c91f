//! System calls that a signal interrupts before they have done anything: EINTR. The kernel rarely
//! says so of a socket that does not block, so a filter of system calls says it here.

use std::sync::atomic::{AtomicUsize, Ordering};

use netpoller::{Runtime, Server, TcpStream, UnixStream, net, spawn};

use crate::child::{filter_calls, in_child};
use crate::support::bytes::{noise, read_all};
use crate::support::loopback::pair;
use crate::support::run::run_in;
use crate::support::running::Echo;

/// Calls that were interrupted.
static INTERRUPTED: AtomicUsize = AtomicUsize::new(0);

/// The flag by which the filter knows the calls that it lets through: it changes nothing where the
/// socket does not block.
const THROUGH: i64 = libc::MSG_DONTWAIT as i64;

/// In place of a call that the filter stops: every second is interrupted, the others are made.
extern "C" fn stopped(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system gives a signal handler with SA_SIGINFO a ucontext.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let argument = |register: i32| registers[register as usize];
    let number = argument(libc::REG_RAX);
    let flags_at = match number {
        libc::SYS_sendmsg => libc::REG_RDX,
        _ => libc::REG_R10,
    };
    let [a, b, c, d, e, f] = [
        libc::REG_RDI,
        libc::REG_RSI,
        libc::REG_RDX,
        libc::REG_R10,
        libc::REG_R8,
        libc::REG_R9,
    ]
    .map(|register| match register == flags_at {
        true => argument(register) | THROUGH,
        false => argument(register),
    });
    let result = if INTERRUPTED.load(Ordering::Relaxed).is_multiple_of(2) {
        -i64::from(libc::EINTR)
    } else {
        // SAFETY: it is the call that the program has made, with a flag more.
        match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
            // SAFETY: the thread's own error number.
            -1 => -i64::from(unsafe { *libc::__errno_location() }),
            done => done,
        }
    };
    INTERRUPTED.fetch_add(1, Ordering::Relaxed);
    registers[libc::REG_RAX as usize] = result;
}

/// From here on every second recvfrom, sendto and sendmsg says EINTR.
fn interrupt() {
    const TRAP: u32 = 0x0003_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const NUMBER_AT: u32 = 0;
    const THIRD_ARGUMENT_AT: u32 = 32;
    const FOURTH_ARGUMENT_AT: u32 = 40;
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = stopped as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: the action is live; its handler makes system calls and touches an atomic.
    let set = unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) };
    assert_eq!(set, 0);

    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let has = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        line(load, 0, 0, NUMBER_AT),
        line(equal, 4, 0, libc::SYS_recvfrom as u32),
        line(equal, 3, 0, libc::SYS_sendto as u32),
        line(equal, 0, 5, libc::SYS_sendmsg as u32),
        line(load, 0, 0, THIRD_ARGUMENT_AT),
        line(has, 3, 2, THROUGH as u32),
        line(load, 0, 0, FOURTH_ARGUMENT_AT),
        line(has, 1, 0, THROUGH as u32),
        line(give, 0, 0, TRAP),
        line(give, 0, 0, ALLOW),
    ];
    filter_calls(&mut filter);
}

#[test]
fn calls_that_are_interrupted_are_made_again_and_nothing_waits_for_them() {
    in_child(|| {
        let runtime = Runtime::new().unwrap();
        let bound = Server::new(|_| Echo).bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr();
        let serving = bound.run_in(&runtime).unwrap();
        interrupt();
        run_in(&runtime, async {
            // A server's connection: small messages, and more than goes at once.
            let client = TcpStream::connect(address).await.unwrap();
            for length in (0..100).map(|at| 1 + at * at * at) {
                let sent = noise(length);
                let (writer, bytes) = (client.clone(), sent.clone());
                let writing = spawn(async move { writer.write_all(&bytes).await });
                let mut back = vec![0; length];
                client.read_exact(&mut back).await.unwrap();
                writing.await.unwrap().unwrap();
                assert!(back == sent);
            }
            client.close().unwrap();
            // Tasks, and a copy.
            let (a, source) = pair().await;
            let (unix, b) = UnixStream::pair().unwrap();
            let sent = noise(1 << 20);
            let bytes = sent.clone();
            let writing = spawn(async move {
                for piece in bytes.chunks(1_000) {
                    source.write_all(piece).await.unwrap();
                }
                source.close().unwrap();
            });
            let copying = spawn(async move {
                net::copy(&a, &b).await.unwrap();
                b.close().unwrap();
            });
            assert!(read_all(&unix).await.unwrap() == sent);
            writing.await.unwrap();
            copying.await.unwrap();
            bound.handle().stop();
            serving.await.unwrap().unwrap();
        });
        assert!(INTERRUPTED.load(Ordering::Relaxed) > 1_000);
    });
}
