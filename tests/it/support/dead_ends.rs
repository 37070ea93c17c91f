//! Addresses where no connection comes about.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// Never answers a SYN: its backlog is full.
pub struct Silent {
    pub address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl Silent {
    pub fn on(address: impl Into<SocketAddr>) -> io::Result<Silent> {
        let address = address.into();
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            listener.set_only_v6(true)?;
        }
        listener.bind(&address.into())?;
        listener.listen(0)?;
        let address = listener.local_addr()?.as_socket().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..8 {
            let client = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            client.set_nonblocking(true)?;
            let _ = client.connect(&address.into());
            sockets.push(client);
        }
        Ok(Silent {
            address,
            _sockets: sockets,
        })
    }

    pub fn v4() -> Silent {
        Silent::on((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }
}

/// A port without a listener in both families. It stays bound, so that no listener can take it.
pub struct Closed {
    pub port: u16,
    _held: [Socket; 2],
}

pub fn closed() -> Closed {
    loop {
        let held = hold((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = held.local_addr().unwrap().as_socket().unwrap().port();
        if let Ok(other) = hold((Ipv6Addr::LOCALHOST, port).into()) {
            let _held = [held, other];
            return Closed { port, _held };
        }
    }
}

/// Bound and not listening. Another socket can bind there only with SO_REUSEADDR.
fn hold(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
