//! A real mosquitto on a free port, gone when dropped.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use isochrone_e2e::servers::free_port;
use tempfile::TempDir;

pub struct Broker {
    child: Child,
    pub directory: TempDir,
    pub port: u16,
}

impl Broker {
    /// Starts one that lets everyone in.
    pub fn start() -> Broker {
        Broker::with(|_| "allow_anonymous true\n".to_owned())
    }

    /// Starts one with further lines of configuration, made in its directory.
    pub fn with(configure: impl FnOnce(&Path) -> String) -> Broker {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let more = configure(directory.path());
        let config = directory.path().join("mosquitto.conf");
        let text = format!(
            "per_listener_settings false\nuser root\npersistence false\nset_tcp_nodelay true\nmax_queued_messages 0\nlog_type none\n\
             listener {port} 127.0.0.1\n{more}"
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is not installed: apt-get install mosquitto");
        let broker = Broker { child, directory, port };
        for _ in 0..500 {
            if TcpStream::connect(broker.address()).is_ok() {
                return broker;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("mosquitto does not answer");
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
