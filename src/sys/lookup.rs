//! Names and services: getaddrinfo, and the interfaces that IPv6 zones name.
// Mirrors Go's `net/cgo_unix.go`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ptr;

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// Why getaddrinfo gave no address or port.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// There is none of that name.
    NoSuch,
    /// It could not be asked now.
    Again(io::Error),
    /// Anything else.
    System(io::Error),
}

/// Asks the system for a host's addresses or a service's port, and blocks until it knows. Unlike
/// std it tells "none of that name" from "can't say now", and knows services.
pub(crate) fn address_info(
    host: Option<&str>,
    service: Option<&str>,
    kind: Type,
) -> Result<Vec<SocketAddr>, NotFound> {
    let text = |text: Option<&str>| text.map(CString::new).transpose();
    // No name has a NUL in it.
    let (Ok(host), Ok(service)) = (text(host), text(service)) else {
        return Err(NotFound::NoSuch);
    };
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: plain integers and pointers, for which zero means "anything".
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_socktype = kind.into();
    let mut list = ptr::null_mut();
    // Before and after the call: a shortage may end meanwhile.
    let short_before = shortage();
    // SAFETY: the strings end in NUL and outlive the call, as do the hints and the place for the
    // answer, which is ours to free if the call succeeds.
    let code =
        unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), &hints, &raw mut list) };
    if code != 0 {
        let failed = not_found(code);
        return Err(match short_before.or_else(shortage) {
            Some(shortage) => NotFound::System(shortage),
            None => failed,
        });
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: a member of the list that getaddrinfo made and that is not freed yet.
        let entry = unsafe { &*next };
        found.extend(socket_addr(entry));
        next = entry.ai_next;
    }
    // SAFETY: made by the call above, freed once, and nothing of it is kept.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

/// Whether the process or the system is short of descriptors or memory, so that a failed look-up says
/// nothing of the name: getaddrinfo calls it "not known" when it could not open the list of hosts.
fn shortage() -> Option<io::Error> {
    /// As many as a look-up may have open at once: a list and, for DNS, a socket for each family.
    const DESCRIPTORS: usize = 3;
    let open = |_| Socket::new(Domain::UNIX, Type::DGRAM, None);
    let probe: io::Result<Vec<_>> = (0..DESCRIPTORS).map(open).collect();
    // Sockets may open where files do not.
    let failed = probe.err().or_else(|| File::open("/dev/null").err());
    failed.filter(is_shortage)
}

/// Whether an error says only that the process or the system is short of something.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)
    )
}

fn not_found(code: libc::c_int) -> NotFound {
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
    const NO_DATA: libc::c_int = libc::EAI_NONAME;
    #[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
    const NO_DATA: libc::c_int = libc::EAI_NODATA;
    // A closure: errno must be read first, and `gai_strerror` may open a file.
    let error = || {
        // SAFETY: the system's own text, which ends in NUL and is never freed.
        let words = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
        io::Error::other(words.to_string_lossy())
    };
    match code {
        libc::EAI_SYSTEM => NotFound::System(io::Error::last_os_error()),
        libc::EAI_MEMORY => NotFound::System(io::Error::from_raw_os_error(libc::ENOMEM)),
        libc::EAI_AGAIN => NotFound::Again(error()),
        libc::EAI_NONAME | libc::EAI_SERVICE => NotFound::NoSuch,
        _ if code == NO_DATA => NotFound::NoSuch,
        _ => NotFound::System(error()),
    }
}

/// The address of an entry, if it is of IP.
fn socket_addr(entry: &libc::addrinfo) -> Option<SocketAddr> {
    let (mut storage, length) = (SockAddrStorage::zeroed(), entry.ai_addrlen);
    if entry.ai_addr.is_null() || length > storage.size_of() {
        return None;
    }
    // SAFETY: getaddrinfo says how many bytes the address has; they fit, and are copied over zeroes.
    let address = unsafe {
        let from = entry.ai_addr.cast::<u8>();
        ptr::copy_nonoverlapping(from, (&raw mut storage).cast(), length as usize);
        SockAddr::new(storage, length)
    };
    address.as_socket()
}

/// The number of a network interface, by its name. `None` if there is none of that name.
pub(crate) fn interface_index(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else {
        return Ok(None);
    };
    let short_before = shortage();
    // SAFETY: a string that ends in NUL and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        // The error number is no help: the call tries several kinds of sockets to ask with.
        0 => short_before.or_else(shortage).map_or(Ok(None), Err),
        index => Ok(Some(index)),
    }
}
