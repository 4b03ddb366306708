//! Real Redis servers, started by the tests on free ports, killed by handle.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
};

use isochrone_e2e::servers::free_port;
use isochrone_store::{
    Store,
    redis::{RedisConfig, RedisStore},
};
use tempfile::TempDir;

use crate::fixture::until;

pub struct Server {
    pub port: u16,
    args: Vec<String>,
    process: Child,
    dir: TempDir,
}

impl Server {
    pub fn start(args: &[&str]) -> Server {
        let dir = TempDir::new().unwrap();
        let args: Vec<String> = args
            .iter()
            .map(|arg| arg.replace("DIR", dir.path().to_str().unwrap()))
            .collect();
        let port = free_port();
        let process = launch(port, &args, &dir);
        Server {
            port,
            args,
            process,
            dir,
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn store(&self) -> Arc<RedisStore> {
        connect(&[self.url()])
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub fn stop(&mut self) {
        Command::new("kill")
            .arg(self.process.id().to_string())
            .status()
            .unwrap();
        self.process.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        self.process = launch(self.port, &self.args, &self.dir);
    }

    /// What redis itself answers.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query_async(&mut connection).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns when it accepts connections.
fn launch(port: u16, args: &[String], dir: &TempDir) -> Child {
    let mut command = Command::new("/usr/bin/redis-server");
    command
        .args(["--save", "", "--bind", "127.0.0.1", "--dir"])
        .arg(dir.path());
    if !args.iter().any(|arg| arg == "--tls-port") {
        command.arg("--port").arg(port.to_string());
    }
    command.args(args.iter().map(|arg| arg.replace("PORT", &port.to_string())));
    let mut process = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    for _ in 0..500 {
        assert_eq!(process.try_wait().unwrap(), None, "redis-server ended");
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return process;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("redis-server does not listen on port {port}");
}

pub fn connect(urls: &[String]) -> Arc<RedisStore> {
    RedisStore::connect(&RedisConfig {
        urls: urls.to_vec(),
        tls_ca: None,
        announce: true,
    })
    .unwrap()
}

/// Two nodes with half of the slots each.
pub struct Cluster {
    nodes: [Server; 2],
}

impl Cluster {
    pub async fn start() -> Cluster {
        let node = || Server::start(&["--cluster-enabled", "yes"]);
        let nodes = [node(), node()];
        let _: () = nodes[0].ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]).await;
        let _: () = nodes[1].ask(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]).await;
        let _: () = nodes[0]
            .ask(&["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port.to_string()])
            .await;
        for node in &nodes {
            until("the cluster is up", || async {
                node.ask::<String>(&["CLUSTER", "INFO"])
                    .await
                    .contains("cluster_state:ok")
            })
            .await;
        }
        Cluster { nodes }
    }

    pub fn store(&self) -> Arc<dyn Store> {
        connect(&self.nodes.iter().map(Server::url).collect::<Vec<_>>())
    }
}
