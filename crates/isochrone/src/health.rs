//! Asks a daemon's `/healthz`: the health check of a container, whose image has no other HTTP client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use isochrone_daemon::page::default_port;
use isochrone_store::types::Role;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The page answers from a thread of its own, under load too: longer is no health.
const ANSWER: Duration = Duration::from_secs(3);
/// A status line and a word; more is not read.
const LIMIT: u64 = 4096;

/// Why a daemon does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Port 0: the daemon alone knows where it listens.
    #[error("ask for health: ISOCHRONE_LISTEN leaves the port open; set a fixed one")]
    AnyPort,
    /// Nothing listens on a default port.
    #[error("find a daemon on the ports 9461, 9462 and 9463: set ISOCHRONE_LISTEN as the daemon has it")]
    Nobody,
    /// Nothing listens there, or no answer came.
    #[error("ask http://{0}/healthz: {1}")]
    Unreachable(SocketAddr, io::Error),
    /// Another answer than 200.
    #[error("find http://{0}/healthz well: it answers {1:?}")]
    Unwell(SocketAddr, String),
}

/// A line for each daemon that is well: the one at `listen`, or without it those on the default ports of this host.
///
/// # Errors
/// The first that is not well, or that there is none.
pub async fn examine(listen: Option<SocketAddr>) -> Result<String, Error> {
    if let Some(listen) = listen {
        return ask(reachable(listen)?).await;
    }
    let mut lines = Vec::new();
    for role in [Role::Producer, Role::Consumer, Role::Plotter] {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, default_port(role)));
        match ask(address).await {
            Ok(line) => lines.push(line),
            Err(Error::Unreachable(_, error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    if lines.is_empty() {
        return Err(Error::Nobody);
    }
    Ok(lines.join("\n"))
}

/// Where an address that a daemon listens on can be asked from the same host.
fn reachable(listen: SocketAddr) -> Result<SocketAddr, Error> {
    if listen.port() == 0 {
        return Err(Error::AnyPort);
    }
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok(SocketAddr::from((host, listen.port())))
}

async fn ask(address: SocketAddr) -> Result<String, Error> {
    let answer = match timeout(ANSWER, get(address)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    let answer = answer.map_err(|error| Error::Unreachable(address, error))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) == Some("200") {
        return Ok(format!("{address} ok"));
    }
    Err(Error::Unwell(address, status.to_owned()))
}

/// One request of HTTP/1.0, whose answer ends with the connection.
async fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /healthz HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use isochrone_daemon::{Health, Metrics, page};
    use tokio::net::TcpListener;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

    /// The page of a daemon is well, also before it is ready.
    #[tokio::test]
    async fn a_daemon_that_listens_everywhere_is_found() {
        let page = page::serve(Some(ANY), Role::Consumer, &Health::new("consumer"), &Metrics::new()).expect("page");
        let found = examine(Some(page)).await.expect("well");
        assert_eq!(found, format!("127.0.0.1:{} ok", page.port()));
    }

    /// Nobody there, an answer that is none, and a port that cannot be known: each is told apart.
    #[tokio::test]
    async fn what_is_not_well_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let address = listener.local_addr().expect("address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("connection");
            let mut request = [0; 256];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\n\r\n").await;
        });
        assert!(matches!(examine(Some(address)).await, Err(Error::Unwell(_, status)) if status.contains("503")));
        server.await.expect("server");
        assert!(matches!(examine(Some(address)).await, Err(Error::Unreachable(..))));
        assert!(matches!(examine(Some(ANY)).await, Err(Error::AnyPort)));
    }
}
