//! A Redis server of a test's own: near or far, killed and brought back as it once was.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{
    Metrics, Stop, Tasks,
    clock::{SystemClock, discipline},
};
use isochrone_e2e::servers::free_port;
use isochrone_store::{
    Registry, Store,
    redis::{RedisConfig, RedisStore},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::Deadline;

/// A Redis server of this test's own.
pub struct Server {
    child: Child,
    command: Command,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts one on a free port.
    pub async fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new("redis-server");
        command
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(dir.path())
            .stdout(Stdio::null());
        let child = command
            .spawn()
            .expect("redis-server is needed: apt-get install redis-server");
        let server = Server {
            child,
            command,
            port,
            dir,
        };
        server.answers().await;
        server
    }

    async fn answers(&self) {
        let store = self.store();
        let up = Deadline::new("redis-server to answer");
        while store.runs().await.is_err() {
            up.moment().await;
        }
    }

    pub fn store(&self) -> Arc<RedisStore> {
        store(self.port)
    }

    /// The store over a line that takes so long each way.
    pub async fn far_store(&self, way: Duration) -> Arc<RedisStore> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = (listener.local_addr().unwrap().port(), self.port);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", far)).await.unwrap();
                let (client, server) = (client.into_split(), server.into_split());
                tokio::spawn(carry(client.0, server.1, way));
                tokio::spawn(carry(server.0, client.1, way));
            }
        });
        store(near)
    }

    /// A clock that follows this server, and knows of each life of it.
    pub async fn clock(&self, stop: &Stop) -> Arc<SystemClock> {
        let (clock, store): (_, Arc<dyn Store>) = (SystemClock::new(None), self.store());
        discipline::start(&clock, &store, &Metrics::new(), &Tasks::new(stop.clone()), stop);
        let read = Deadline::new("a reading of the reference clock");
        while !clock.is_disciplined() {
            read.moment().await;
        }
        clock
    }

    /// One command; the answer's first byte says of what kind it is.
    pub fn ask(&self, command: &str) -> String {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        connection
            .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn saved(&self) -> PathBuf {
        self.dir.path().join("dump.rdb")
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("kept.rdb")
    }

    /// Has it save everything as it is now.
    pub fn save(&self) {
        assert!(self.ask("SAVE").starts_with("+OK"));
    }

    /// Remembers what was saved.
    pub fn keep(&self) {
        std::fs::copy(self.saved(), self.kept()).unwrap();
    }

    /// Kills it: nothing more is saved.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with what was kept.
    pub async fn restart_from_kept(&mut self) {
        std::fs::copy(self.kept(), self.saved()).expect("something was kept");
        self.child = self.command.spawn().unwrap();
        self.answers().await;
    }
}

fn store(port: u16) -> Arc<RedisStore> {
    let config = RedisConfig {
        urls: vec![format!("redis://127.0.0.1:{port}")],
        tls_ca: None,
        announce: true,
    };
    RedisStore::connect(&config).unwrap()
}

async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, way: Duration) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        // Not a wait for anything: the line is as long as that.
        tokio::time::sleep(way).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
