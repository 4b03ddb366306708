//! InfluxDB 1 (`/write`), and VictoriaMetrics, which takes the same lines at InfluxDB 2's address.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{START, folder, free_port, get, percent_encode, program, wait_for_port};
use crate::{process::Process, wait};

const OK: u16 = 200;
const UNAUTHORIZED: u16 = 401;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// InfluxDB 1. It may be started after those that write to it.
#[derive(Debug)]
pub struct InfluxDb {
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl InfluxDb {
    /// Its port is chosen, nothing listens there yet.
    pub fn prepare() -> InfluxDb {
        InfluxDb::prepare_with("auth-enabled = false")
    }

    /// Started, letting in only this user.
    pub fn start_with_users(user: &str, password: &str) -> InfluxDb {
        let mut influxdb = InfluxDb::prepare_with("auth-enabled = true");
        influxdb.run();
        let query = format!("CREATE USER {user} WITH PASSWORD '{password}' WITH ALL PRIVILEGES");
        let mut asked = false;
        wait::until("the first user", START, || {
            // Once there is a user nobody may ask without one: a repeat after a lost answer is refused, and that is success.
            let (status, answer) = influxdb.answer("", &query).unwrap_or_default();
            let done = succeeded(&answer) || (asked && status == UNAUTHORIZED);
            asked = true;
            done
        });
        influxdb
    }

    fn prepare_with(http: &str) -> InfluxDb {
        let (folder, port) = (folder("influxdb"), free_port());
        let path = folder.path().display();
        let config = format!(
            "reporting-disabled = true\nbind-address = '127.0.0.1:{}'\n[meta]\ndir = '{path}/meta'\n\
             [data]\ndir = '{path}/data'\nwal-dir = '{path}/wal'\n[http]\nbind-address = '127.0.0.1:{port}'\n{http}\n\
             [monitor]\nstore-enabled = false\n",
            free_port()
        );
        fs::write(folder.path().join("influxdb.conf"), config).expect("influxdb.conf");
        InfluxDb {
            port,
            folder,
            process: None,
        }
    }

    /// Prepared, started, and with the database `isochrone`.
    pub fn start() -> InfluxDb {
        let mut influxdb = InfluxDb::prepare();
        influxdb.run();
        influxdb.create("isochrone");
        influxdb
    }

    /// Starts it.
    pub fn run(&mut self) {
        let mut command = program("influxd");
        command.arg("-config").arg(self.folder.path().join("influxdb.conf"));
        self.process = Some(Process::start("influxdb", command, self.folder.path()));
        // The page answers 204, which is no page to `get`.
        wait_for_port(self.port);
    }

    /// Ends it; what it has stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(START);
        }
    }

    /// Creates a database.
    pub fn create(&self, database: &str) {
        self.must("", &format!("CREATE DATABASE {database}"));
    }

    /// `http://…`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The answer to a query in the database `isochrone`.
    pub fn query(&self, query: &str) -> Value {
        self.ask("isochrone", query)
    }

    /// The value in the second column (the first is the time) of the first row, if there is one.
    pub fn number(&self, query: &str) -> Option<f64> {
        self.query(query).pointer("/results/0/series/0/values/0/1")?.as_f64()
    }

    /// Writes one line as another writer would.
    pub fn write(&self, line: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("InfluxDB");
        let request = format!(
            "POST /write?db=isochrone HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{line}",
            line.len()
        );
        stream.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 204 "), "{answer}");
    }

    /// Asks until it is done.
    fn must(&self, database: &str, query: &str) {
        wait::until(query, START, || succeeded(&self.ask(database, query)));
    }

    /// What it answers when all is well.
    fn ask(&self, database: &str, query: &str) -> Value {
        match self.answer(database, query) {
            Some((OK, answer)) => answer,
            _ => Value::Null,
        }
    }

    /// Status and body, whatever the status; nothing without an answer.
    fn answer(&self, database: &str, query: &str) -> Option<(u16, Value)> {
        let path = format!("/query?db={database}&q={}", percent_encode(query));
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or_default()))
    }
}

fn succeeded(answer: &Value) -> bool {
    answer["results"].is_array() && answer.pointer("/results/0/error").is_none()
}

/// VictoriaMetrics.
#[derive(Debug)]
pub struct VictoriaMetrics {
    port: u16,
    _folder: TempDir,
    _process: Process,
}

impl VictoriaMetrics {
    /// Starts it on a free port.
    pub fn start() -> VictoriaMetrics {
        let (folder, port) = (folder("victoria-metrics"), free_port());
        let mut command = program("victoria-metrics");
        command
            .arg(format!("-storageDataPath={}", folder.path().join("data").display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .arg("-retentionPeriod=1y");
        let process = Process::start("victoria-metrics", command, folder.path());
        wait::until("VictoriaMetrics to be ready", START, || get(port, "/health").is_some());
        VictoriaMetrics {
            port,
            _folder: folder,
            _process: process,
        }
    }

    /// `http://…`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The value of an instant query (PromQL) that yields one number, if it yields any.
    pub fn query(&self, expression: &str) -> Option<f64> {
        // What was just written is searchable only after a flush.
        get(self.port, "/internal/force_flush")?;
        super::query(self.port, expression)
    }
}
