//! A process for one test, and what that process may count and limit.

use std::fs;
use std::process::Command;

/// Set in a child.
const CHILD: &str = "NETPOLLER_TEST_CHILD";

/// After so many seconds the system ends a child.
const SECONDS: u32 = 60;

/// Runs `body` in a process of its own: this binary again, with the calling test alone. Panics with
/// what the child has printed if the test fails there. Call it once, as all that a test does, with
/// a closure written in the test itself: its type names the test.
///
/// The child's body runs on its main thread, and there is no second thread before it makes one.
pub fn in_child<F: FnOnce()>(body: F) {
    if std::env::var_os(CHILD).is_some() {
        // SAFETY: it takes no pointer, and this process belongs to this test.
        unsafe { libc::alarm(SECONDS) };
        return body();
    }
    let test = name::<F>();
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (said, failed) = (utf8(&ended.stdout), utf8(&ended.stderr));
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "the child of {test}: {}\n{said}{failed}",
        ended.status
    );
}

/// The test whose closure `F` is, as the harness names it.
fn name<F>() -> &'static str {
    let path = std::any::type_name::<F>();
    let (_, path) = path.split_once("::").expect("a path in this crate");
    path.trim_end_matches("::{{closure}}")
}

fn utf8(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Descriptors that this process has open.
pub fn open_files() -> usize {
    // The listing itself is one of them.
    fs::read_dir("/dev/fd").unwrap().count() - 1
}

/// Pipes among them, both ends of each.
pub fn open_pipes() -> usize {
    let files = fs::read_dir("/dev/fd").unwrap();
    let targets = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    let names = targets.map(|target| target.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("pipe:")).count()
}

/// Threads of this process.
#[cfg(target_os = "linux")]
pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Lowers what this process may have open, until it ends.
pub fn limit_open_files(most: u64) {
    limit(libc::RLIMIT_NOFILE, most);
}

/// Lowers one of the limits of `setrlimit(2)`, for instance `RLIMIT_AS`.
pub fn limit(resource: impl TryInto<i32>, most: u64) {
    let resource = resource.try_into().ok().unwrap();
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: the pointer is to a live rlimit that the call only reads.
    assert_eq!(unsafe { libc::setrlimit(resource as _, &limit) }, 0);
}

/// Lets the system decide by `filter` on each later system call of this process.
#[cfg(target_os = "linux")]
pub fn filter_calls(filter: &mut [libc::sock_filter]) {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: it takes no pointer, and this process belongs to this test.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(set, 0);
    // SAFETY: the program is live, and the system copies it.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Opens files until this process may open no more. Dropping them makes room again.
pub fn take_all_descriptors() -> Vec<fs::File> {
    std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect()
}

/// Runs `body` in a child of fork(2), and says whether it ended without a panic.
pub fn in_fork(body: impl FnOnce()) -> bool {
    // SAFETY: the child runs `body` and ends without the parent's destructors.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: it takes no pointer; an alarm is not inherited.
        unsafe { libc::alarm(SECONDS / 2) };
        let body = std::panic::AssertUnwindSafe(body);
        let well = std::panic::catch_unwind(body).is_ok();
        // SAFETY: it ends this process.
        unsafe { libc::_exit(i32::from(!well)) };
    }
    let mut status = 0;
    // SAFETY: our own child, and a live place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status == 0
}

#[test]
fn a_child_that_fails_fails_its_test() {
    let failed = std::panic::catch_unwind(|| in_child(|| panic!("as asked")));
    if std::env::var_os(CHILD).is_some() {
        std::panic::resume_unwind(failed.unwrap_err());
    }
    let why = *failed.unwrap_err().downcast::<String>().unwrap();
    assert!(why.contains("as asked"), "{why}");
}
