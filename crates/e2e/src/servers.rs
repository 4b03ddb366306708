//! The real servers, each on a free loopback port with its files in a temporary folder.

mod collector;
mod elasticsearch;
mod influxdb;
mod otlp_prometheus;
mod shipped_prometheus;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tempfile::TempDir;

pub use collector::{Collector, Point};
pub use elasticsearch::Elasticsearch;
pub(crate) use elasticsearch::parts as elasticsearch_parts;
pub use influxdb::{InfluxDb, VictoriaMetrics};
pub use otlp_prometheus::OtlpPrometheus;
pub use shipped_prometheus::promtool_with;

use crate::{process::Process, wait};

const START: Duration = Duration::from_secs(20);

/// Ports for servers: below those that Linux gives to connections (32768 and above), so that none is taken by one between its choice
/// and its use. A Redis cluster's bus has ports 10,000 above.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// A port nobody listens on, and that this process gave to nobody before.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Processes side by side begin at different ones.
    let first = std::process::id().wrapping_mul(61);
    let next = || PORTS.start + (first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count) as u16;
    let mut ports = (0..count).map(|_| next());
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(is_free).expect("a free port")
}

/// Waits until something accepts connections on the port.
pub fn wait_for_port(port: u16) {
    wait::until(&format!("a server on port {port}"), START, || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

/// A server or a tool of a Debian package.
///
/// # Panics
/// When it is missing.
pub fn program(name: &str) -> Command {
    let path = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file());
    Command::new(path.unwrap_or_else(|| panic!("{name} is missing: cargo xtask test --install gets it")))
}

/// Where `cargo xtask test --install` puts what it builds.
fn servers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers")
}

/// A server that the tests' own tools build from source, see `servers/` beside this crate's sources.
fn built(name: &str) -> Command {
    let path = servers().join(name).join(name);
    assert!(
        path.is_file(),
        "{} is missing: cargo xtask test --install builds it",
        path.display()
    );
    Command::new(path)
}

fn folder(name: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix(&format!("isochrone-{name}")).tempdir();
    folder.expect("temp dir")
}

/// Mosquitto.
#[derive(Debug)]
pub struct Mosquitto {
    /// Where it listens without TLS.
    pub port: u16,
    folder: TempDir,
    process: Process,
    starts: u32,
}

impl Mosquitto {
    /// Anonymous access, no limits that would throttle a test.
    pub fn start() -> Mosquitto {
        Mosquitto::start_with("allow_anonymous true\n", free_port())
    }

    /// With these lines in its configuration beside the listener on `port`. `FOLDER` stands for its folder.
    pub fn start_with(lines: &str, port: u16) -> Mosquitto {
        let folder = tempfile::Builder::new()
            .prefix("isochrone-mosquitto")
            .tempdir()
            .expect("temp dir");
        let lines = lines.replace("FOLDER", &folder.path().display().to_string());
        let config = format!(
            "listener {port} 127.0.0.1\n{lines}\nset_tcp_nodelay true\nmax_queued_messages 0\nsys_interval 1\n\
             persistence true\npersistence_location {}/\nuser root\n",
            folder.path().display()
        );
        fs::write(folder.path().join("mosquitto.conf"), config).expect("mosquitto.conf");
        let process = Mosquitto::spawn(folder.path(), 1);
        wait_for_port(port);
        Mosquitto {
            port,
            folder,
            process,
            starts: 1,
        }
    }

    fn spawn(folder: &Path, start: u32) -> Process {
        let mut command = program("mosquitto");
        command.arg("-c").arg(folder.join("mosquitto.conf"));
        Process::start(&format!("mosquitto-{start}"), command, folder)
    }

    /// `mqtt://…`
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Stops it in order (state is saved) and starts it again on the same port.
    pub fn restart(&mut self) {
        self.process.stop(START);
        self.starts += 1;
        self.process = Mosquitto::spawn(self.folder.path(), self.starts);
        wait_for_port(self.port);
    }

    /// One value of `$SYS`. The broker publishes it when it has changed, at one of its looks, two seconds apart; one that
    /// falls between the accept and the CONNECT of a client counts that as less than none, down to -1. So the question
    /// stays for longer than that, and the last word counts.
    pub fn sys(&self, topic: &str) -> u64 {
        let (port, topic) = (self.port.to_string(), format!("$SYS/broker/{topic}"));
        wait::until_some(&topic, START, || {
            let mut command = program("mosquitto_sub");
            command.args(["-p", &port, "-W", "3", "-t", &topic]);
            let output = command.output().expect("mosquitto_sub");
            let values = String::from_utf8_lossy(&output.stdout);
            values.lines().rev().find_map(|value| value.trim().parse().ok())
        })
    }

    /// Publishes with `mosquitto_pub` and these further arguments.
    pub fn publish(&self, arguments: &[&str]) {
        let mut command = program("mosquitto_pub");
        let status = command
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .status()
            .expect("mosquitto_pub");
        assert!(status.success(), "mosquitto_pub {arguments:?}");
    }

    /// A shell pipeline with `$PORT` set, for platforms in the middle.
    pub fn pipeline(&self, script: &str) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env("PORT", self.port.to_string());
        Process::start("pipeline", command, self.folder.path())
    }
}

/// Redis.
#[derive(Debug)]
pub struct Redis {
    /// Where it listens.
    pub port: u16,
    folder: TempDir,
    process: Process,
    arguments: Vec<String>,
    starts: u32,
}

impl Redis {
    /// With an append-only file, as doctor asks for.
    pub fn start() -> Redis {
        Redis::start_with(&["--appendonly", "yes"], free_port())
    }

    /// With these arguments.
    pub fn start_with(arguments: &[&str], port: u16) -> Redis {
        let folder = tempfile::Builder::new()
            .prefix("isochrone-redis")
            .tempdir()
            .expect("temp dir");
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = Redis::spawn(folder.path(), port, &arguments, 1);
        wait_for_port(port);
        Redis {
            port,
            folder,
            process,
            arguments,
            starts: 1,
        }
    }

    fn spawn(folder: &Path, port: u16, arguments: &[String], start: u32) -> Process {
        let mut command = program("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--daemonize",
            "no",
            "--dir",
        ]);
        command.arg(folder).args(arguments);
        Process::start(&format!("redis-{start}"), command, folder)
    }

    /// `redis://…`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it in order (the append-only file is written).
    pub fn stop(&mut self) {
        self.process.stop(START);
    }

    /// Starts it again on the same port and files.
    pub fn start_again(&mut self) {
        self.starts += 1;
        self.process = Redis::spawn(self.folder.path(), self.port, &self.arguments, self.starts);
        wait_for_port(self.port);
    }

    /// A connection.
    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url())
            .and_then(|client| client.get_connection())
            .expect("redis")
    }

    /// Runs one command.
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command
            .query(&mut self.connection())
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Everything in it as bytes: what a search for secrets must not find.
    pub fn dump(&self) -> Vec<u8> {
        let mut connection = self.connection();
        let mut all = Vec::new();
        for key in redis::cmd("KEYS")
            .arg("*")
            .query::<Vec<Vec<u8>>>(&mut connection)
            .expect("keys")
        {
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).expect("type");
            let words: &[&str] = match kind.as_str() {
                "hash" => &["HGETALL"],
                "set" => &["SMEMBERS"],
                "list" => &["LRANGE", "0", "-1"],
                "zset" => &["ZRANGE", "0", "-1"],
                "stream" => &["XRANGE", "-", "+"],
                _ => &["GET"],
            };
            let mut command = redis::cmd(words[0]);
            command.arg(&key);
            for word in &words[1..] {
                command.arg(*word);
            }
            let value: redis::Value = command.query(&mut connection).expect("value");
            all.extend_from_slice(&key);
            collect(&value, &mut all);
        }
        all
    }
}

fn collect(value: &redis::Value, out: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => out.extend_from_slice(bytes),
        redis::Value::SimpleString(text) => out.extend_from_slice(text.as_bytes()),
        redis::Value::Array(items) | redis::Value::Set(items) => items.iter().for_each(|item| collect(item, out)),
        _ => {}
    }
    out.push(b'\n');
}

/// Prometheus, scraping these targets each second.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    _folder: TempDir,
    _process: Process,
}

impl Prometheus {
    /// Starts it on plotters' `/metrics`.
    pub fn start(targets: &[u16]) -> Prometheus {
        let folder = tempfile::Builder::new()
            .prefix("isochrone-prometheus")
            .tempdir()
            .expect("temp dir");
        let targets: Vec<_> = targets.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n\
             - job_name: isochrone\n  static_configs: [ {{ targets: [{}] }} ]\n",
            targets.join(", ")
        );
        fs::write(folder.path().join("prometheus.yml"), config).expect("prometheus.yml");
        let port = free_port();
        let mut command = program("prometheus");
        command
            .arg(format!(
                "--config.file={}",
                folder.path().join("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start("prometheus", command, folder.path());
        wait_for_port(port);
        Prometheus {
            port,
            _folder: folder,
            _process: process,
        }
    }

    /// The value of an instant query that yields one number, if it yields any.
    pub fn query(&self, expression: &str) -> Option<f64> {
        query(self.port, expression)
    }

    /// How many series an instant query yields; none when it is refused.
    pub fn results(&self, expression: &str) -> Option<usize> {
        let body = get(
            self.port,
            &format!("/api/v1/query?query={}", percent_encode(expression)),
        )?;
        let answer: serde_json::Value = serde_json::from_str(&body).ok()?;
        Some(answer.pointer("/data/result")?.as_array()?.len())
    }
}

/// The value of an instant query to a Prometheus that yields one number, if it yields any.
fn query(port: u16, expression: &str) -> Option<f64> {
    let body = get(port, &format!("/api/v1/query?query={}", percent_encode(expression)))?;
    let answer: serde_json::Value = serde_json::from_str(&body).ok()?;
    answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
}

/// A body over plain HTTP/1.0 from a local port.
pub fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                (byte as char).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Runs `promtool check metrics` on a page; what it has to say, empty when nothing.
pub fn promtool(page: &str) -> String {
    let mut child = program("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(page.as_bytes())
        .expect("write");
    let output = child.wait_with_output().expect("promtool");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        .trim()
        .to_owned()
}

/// The sum of all series of a metric on a daemon's page; 0 when it has none.
pub fn sum(port: u16, metric: &str) -> f64 {
    let page = get(port, "/metrics").unwrap_or_default();
    let series = page.lines().filter(|line| {
        line.strip_prefix(metric)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    series
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
