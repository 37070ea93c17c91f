//! `recvfrom` and `sendto`, straight to the kernel on the systems that most servers run on.
//!
//! May touch: libc. Mirrors `syscall.RawSyscall6` (`internal/runtime/syscall` in Go, which has no
//! C library between either).
//!
//! Why: `recv` and `send` are cancellation points of pthreads. Once a process has ever had a second
//! thread (a worker, a look-up), glibc switches cancellation on and off around each of them: 112
//! instructions for an echoed message, as many as all the rest of the reactor's. Nothing of ours
//! can be cancelled that way.

use std::io;

use super::{Handle, SEND_FLAGS};

#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod kernel {
    use super::Outcome;
    use std::arch::asm;
    use std::os::fd::RawFd;
    use std::ptr;

    /// A system call of four arguments, and two that are null. What it may read or
    /// write is the callers' to see to.
    ///
    /// # Safety
    ///
    /// As for the call of that number.
    #[inline]
    unsafe fn call(
        number: libc::c_long,
        fd: RawFd,
        at: *const u8,
        length: usize,
        flags: i32,
    ) -> isize {
        let returned: isize;
        let null: *const u8 = ptr::null();
        // SAFETY: the caller's; the registers are those of the kernel's calling convention, and the
        // two that the instruction spoils are named.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number as isize => returned,
                in("rdi") fd as isize,
                in("rsi") at,
                in("rdx") length,
                in("r10") flags as isize,
                in("r8") null,
                in("r9") null,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        // SAFETY: as above; here the instruction spoils nothing.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            asm!(
                "svc 0",
                in("x8") number,
                inlateout("x0") fd as isize => returned,
                in("x1") at,
                in("x2") length,
                in("x3") flags as isize,
                in("x4") null,
                in("x5") null,
                options(nostack),
            );
        }
        returned
    }

    #[inline]
    pub(crate) fn receive(fd: RawFd, buffer: &mut [u8]) -> Outcome {
        let (at, length) = (buffer.as_mut_ptr().cast_const(), buffer.len());
        // SAFETY: the slice is valid for writes of its length, and borrowed for the call. A
        // descriptor that is closed is -1, which the system refuses.
        Outcome(unsafe { call(libc::SYS_recvfrom, fd, at, length, 0) })
    }

    #[inline]
    pub(crate) fn send(fd: RawFd, bytes: &[u8], flags: i32) -> Outcome {
        // SAFETY: the slice is valid for reads of its length. As above for the descriptor.
        Outcome(unsafe { call(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags) })
    }
}

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod kernel {
    use super::Outcome;
    use std::os::fd::RawFd;

    #[inline]
    fn outcome(returned: isize) -> Outcome {
        if returned < 0 {
            let error = std::io::Error::last_os_error();
            return Outcome(-(error.raw_os_error().unwrap_or(libc::EIO) as isize));
        }
        Outcome(returned)
    }

    #[inline]
    pub(crate) fn receive(fd: RawFd, buffer: &mut [u8]) -> Outcome {
        // SAFETY: the slice is valid for writes of its length. A descriptor that is closed is -1,
        // which the system refuses.
        outcome(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) })
    }

    #[inline]
    pub(crate) fn send(fd: RawFd, bytes: &[u8], flags: i32) -> Outcome {
        // SAFETY: the slice is valid for reads of its length. As above for the descriptor.
        outcome(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
    }
}

/// What a call returned: a count of bytes, or the negated number of an error. One word, to be
/// compared before it is taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome(isize);

impl Outcome {
    /// Whether it is just so many bytes.
    #[inline]
    pub(crate) fn is(self, count: usize) -> bool {
        self.0 == count as isize
    }

    /// The count, if it is neither zero nor `limit` or more.
    #[inline]
    pub(crate) fn some_below(self, limit: usize) -> Option<usize> {
        let count = self.0 as usize;
        (count.wrapping_sub(1) < limit - 1).then_some(count)
    }

    #[inline]
    pub(crate) fn result(self) -> Result<usize, ErrorNumber> {
        if self.0 < 0 {
            return Err(ErrorNumber(-self.0 as i32));
        }
        Ok(self.0 as usize)
    }
}

/// What a call failed with: a word that needs no drop, for the straight way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorNumber(i32);

impl From<ErrorNumber> for io::Error {
    fn from(ErrorNumber(number): ErrorNumber) -> Self {
        io::Error::from_raw_os_error(number)
    }
}

impl Handle {
    /// Reads what is there.
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Outcome {
        kernel::receive(self.raw(), buffer)
    }

    /// Sends without ever raising SIGPIPE: a C host may not have it ignored.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8]) -> Outcome {
        kernel::send(self.raw(), bytes, SEND_FLAGS)
    }
}
