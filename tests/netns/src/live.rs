//! Single connections of clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use trireme_testkit::lab::{Family, Pu, uninterrupted};

use crate::PATIENT;

/// Says a byte to an echo server and hears it back, with patience.
#[must_use]
pub fn is_alive(stream: &TcpStream) -> bool {
    is_alive_within(stream, PATIENT)
}

/// Says a byte to an echo server and hears it back within this time.
#[must_use]
pub fn is_alive_within(mut stream: &TcpStream, limit: Duration) -> bool {
    let mut byte = [9];
    stream.set_read_timeout(Some(limit)).is_ok()
        && stream.write_all(&byte).is_ok()
        && uninterrupted(|| stream.read_exact(&mut byte)).is_ok()
}

/// Connects from a port of the client's, also if an earlier connection used it.
///
/// # Errors
/// Whatever the sockets say.
///
/// # Panics
/// If the namespace cannot be entered.
pub fn connect_from(pu: &Pu, port: u16, to: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let open = || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(pu.address(family), port).into())?;
        socket.connect_timeout(&to.into(), limit)?;
        Ok(TcpStream::from(socket))
    };
    pu.namespace.enter(open).expect("the workload's namespace can be entered")
}

/// Ends a connection with a reset.
pub fn abort(stream: TcpStream) {
    // Without the option it is an ordinary close, which the test then sees.
    drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
    drop(stream);
}
