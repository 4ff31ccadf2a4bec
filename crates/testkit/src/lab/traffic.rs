//! Clients and servers inside workloads, as sockets of this process.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::{LabError, Namespace};

/// How often threads look whether they should end.
const TICK: Duration = Duration::from_millis(20);
/// Threads of connections only copy a few buffers.
const STACK_LEN: usize = 256 * 1024;

/// A TCP server in a namespace, both families on one port; dropping it stops accepting.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a port and runs `serve` on a thread of its own for each connection.
    ///
    /// # Errors
    /// [`LabError`] if the port cannot be had.
    pub fn start(
        namespace: &Namespace,
        port: u16,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Result<Self, LabError> {
        let listener = namespace
            .enter(|| listen_patiently(port))?
            .map_err(LabError::io(format!("listening on port {port}")))?;
        let address = listener.local_addr().map_err(LabError::io("reading the listener's address"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let serve = Arc::new(serve);
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&accepted));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        let serve = Arc::clone(&serve);
                        let worker = move || {
                            if stream.set_nonblocking(false).is_ok() {
                                serve(stream);
                            }
                        };
                        drop(std::thread::Builder::new().stack_size(STACK_LEN).spawn(worker));
                    }
                    Err(_) => std::thread::sleep(Duration::from_micros(200)),
                }
            }
        });
        Ok(Self { address, accepted, stop, thread: Some(thread) })
    }

    /// Answers every byte with itself, until the client has finished.
    ///
    /// # Errors
    /// [`LabError`] if the port cannot be had.
    pub fn echo(namespace: &Namespace, port: u16) -> Result<Self, LabError> {
        Self::start(namespace, port, |mut stream| echo(&mut stream))
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections its stack completed and handed over.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Answers every byte with itself, until the other end has finished.
pub fn echo(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len) = uninterrupted(|| stream.read(&mut buffer)) {
        let Some(chunk) = buffer.get(..len).filter(|chunk| !chunk.is_empty()) else { break };
        if stream.write_all(chunk).is_err() {
            break;
        }
    }
}

/// The port of a server that has just ended is taken for another moment if a program was being started meanwhile: between
/// fork and exec the child has a copy of every socket.
fn listen_patiently(port: u16) -> io::Result<TcpListener> {
    const ATTEMPTS: usize = 100;
    for _ in 1..ATTEMPTS {
        match listen(port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(10));
            }
            listening => return listening,
        }
    }
    listen(port)
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What a client saw of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Connected, and a byte came back.
    Answered,
    /// Connected, but no byte came back in time.
    Mute,
    /// Refused by a reset.
    Refused,
    /// Refused by an ICMP error.
    Prohibited,
    /// Nothing at all in time.
    Silent,
}

/// Repeats a socket operation that the kernel interrupted.
///
/// A stopped or frozen process goes on with `EINTR` in every operation with a time limit (signal(7)).
///
/// # Errors
/// Whatever else the operation says.
pub fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Opens a connection from inside a namespace.
///
/// # Errors
/// [`LabError::Io`] with the connection's error inside.
pub fn connect(namespace: &Namespace, to: SocketAddr, limit: Duration) -> Result<TcpStream, LabError> {
    namespace
        .enter(|| TcpStream::connect_timeout(&to, limit))?
        .map_err(LabError::io(format!("connecting to {to}")))
}

/// Sends one byte to an echo server and tells what came of it.
///
/// # Errors
/// [`LabError`] for anything a peer or a firewall cannot cause.
pub fn probe(namespace: &Namespace, to: SocketAddr, limit: Duration) -> Result<Reach, LabError> {
    let connected = namespace.enter(|| TcpStream::connect_timeout(&to, limit))?;
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return unreached(error, to),
    };
    let mut byte = [0x2a];
    let exchanged = stream
        .set_read_timeout(Some(limit))
        .and_then(|()| stream.write_all(&byte))
        .and_then(|()| stream.read_exact(&mut byte));
    match exchanged {
        Ok(()) => Ok(Reach::Answered),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Reach::Refused),
        Err(_) => Ok(Reach::Mute),
    }
}

fn unreached(error: io::Error, to: SocketAddr) -> Result<Reach, LabError> {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        Ok(Reach::Refused)
    } else if error.kind() == io::ErrorKind::TimedOut {
        Ok(Reach::Silent)
    } else if matches!(
        error.kind(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::PermissionDenied | io::ErrorKind::NetworkUnreachable
    ) {
        Ok(Reach::Prohibited)
    } else {
        Err(LabError::io(format!("connecting to {to}"))(error))
    }
}

/// Connects again and again, one at a time, and returns how long each took.
///
/// # Errors
/// [`LabError::Io`] with the first connection that failed.
pub fn connect_times(namespace: &Namespace, to: SocketAddr, count: usize) -> Result<Vec<Duration>, LabError> {
    const LIMIT: Duration = Duration::from_secs(5);
    let measure = || {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            let stream = TcpStream::connect_timeout(&to, LIMIT)?;
            times.push(start.elapsed());
            drop(stream);
        }
        Ok(times)
    };
    namespace.enter(measure)?.map_err(LabError::io(format!("connecting to {to}")))
}

/// Waits until a condition holds.
///
/// # Errors
/// [`LabError::TimedOut`] with what `detail` tells then; the condition's own error.
pub fn eventually(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool, LabError>,
    detail: impl FnOnce() -> String,
) -> Result<(), LabError> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() > deadline {
            return Err(LabError::TimedOut { what: what.to_owned(), limit, detail: detail() });
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}
