//! mosquitto and Redis on free loopback ports, killed by handle.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use isochrone_e2e::servers::free_port;

/// A server of this test's own.
pub struct Server {
    child: Child,
    command: Command,
    /// Where it listens.
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Redis without persistence.
    pub fn redis() -> Server {
        Server::start("/usr/bin/redis-server", |command, port, _| {
            let port = port.to_string();
            command.args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port,
                "--save",
                "",
                "--appendonly",
                "no",
            ]);
        })
    }

    /// mosquitto without limits on its queues.
    pub fn mosquitto() -> Server {
        Server::start("/usr/sbin/mosquitto", |command, port, folder| {
            let config = format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nuser root\n"
            );
            let path = folder.join("mosquitto.conf");
            std::fs::write(&path, config).expect("a configuration");
            command.arg("-c").arg(path);
        })
    }

    fn start(program: &str, arguments: impl FnOnce(&mut Command, u16, &Path)) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let mut command = Command::new(program);
        command
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        arguments(&mut command, port, folder.path());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
        let server = Server {
            child,
            command,
            port,
            _folder: folder,
        };
        server.await_port();
        server
    }

    fn await_port(&self) {
        let limit = deadline(Duration::from_secs(20));
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(!limit(), "{:?} did not start", self.command.get_program());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has Redis save everything as it is now.
    pub fn save(&self) {
        assert_eq!(self.ask("SAVE"), "+OK");
    }

    /// The first line of what Redis answers to a command.
    pub fn ask(&self, command: &str) -> String {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).expect("Redis");
        connection
            .write_all(format!("{command}\r\n").as_bytes())
            .expect("a command");
        let mut answer = String::new();
        BufReader::new(connection).read_line(&mut answer).expect("an answer");
        answer.trim_end().to_owned()
    }

    /// Kills Redis and starts it again with what was saved.
    pub fn roll_back(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
        self.child = self.command.spawn().expect("the same as before");
        self.await_port();
    }

    /// Freezes it: connections stand, nothing answers.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a signal to our own child");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.thaw();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True once the time is up.
pub fn deadline(after: Duration) -> impl Fn() -> bool {
    #[expect(clippy::disallowed_methods, reason = "a deadline of a test")]
    let start = Instant::now();
    move || start.elapsed() > after
}
