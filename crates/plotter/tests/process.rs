//! The plotter as a real process: it waits for what is not there yet, ends on SIGTERM, and refuses bad settings.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use isochrone_e2e::servers::free_port;

/// Nothing here takes longer, or something is broken.
const SOON: Duration = Duration::from_secs(30);

struct Plotter {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Plotter {
    fn start(variables: &[(&str, &str)]) -> Plotter {
        let mut child = Command::new(env!("CARGO_BIN_EXE_isochrone-plotter"))
            .env("ISOCHRONE_LISTEN", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .all(|line| sender.send(line).is_ok())
        });
        Plotter {
            child,
            lines,
            said: Vec::new(),
        }
    }

    fn wait_for(&mut self, text: &str) {
        while !self.said.iter().any(|line| line.contains(text)) {
            match self.lines.recv_timeout(SOON) {
                Ok(line) => self.said.push(line),
                Err(_) => panic!("never said {text:?} in {:#?}", self.said),
            }
        }
    }

    fn terminate(mut self) -> (ExitStatus, String) {
        let killed = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        // The log ends with the process.
        loop {
            match self.lines.recv_timeout(SOON) {
                Ok(line) => self.said.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("does not end: {:#?}", self.said),
            }
        }
        (self.child.wait().unwrap(), self.said.join("\n"))
    }
}

impl Drop for Plotter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without a Redis it says so once, waits, and ends well when told to.
#[test]
fn ends_on_sigterm_before_redis_is_up() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let mut plotter = Plotter::start(&[("ISOCHRONE_REDIS_URL", &url)]);
    plotter.wait_for("retrying");
    let (status, said) = plotter.terminate();
    assert_eq!(status.code(), Some(0), "{said}");
}

/// With nothing to do it is ready, and ends on SIGTERM.
#[test]
fn ends_on_sigterm_while_idle() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let mut redis = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is needed: apt-get install redis-server");
    let url = format!("redis://127.0.0.1:{port}");
    let mut plotter = Plotter::start(&[("ISOCHRONE_REDIS_URL", &url)]);
    plotter.wait_for("waits for a run");
    let (status, said) = plotter.terminate();
    redis.kill().unwrap();
    redis.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
}

/// A bad setting is exit code 2 and one line that names it.
#[test]
fn refuses_bad_settings() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_isochrone-plotter"))
        .env("ISOCHRONE_GRACE", "soon")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(said.contains("ISOCHRONE_GRACE") && said.contains("soon"), "{said}");
}
