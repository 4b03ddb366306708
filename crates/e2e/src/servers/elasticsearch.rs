//! A real Elasticsearch node, of the libraries that are in Maven Central (the open distribution: without ILM and
//! `histogram` fields).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    http::{Message, request},
    process::Process,
    servers::free_port,
    wait,
};

/// A Java process on two busy cores.
const START: Duration = Duration::from_secs(90);

/// One node with its data in a temporary folder.
#[derive(Debug)]
pub struct Elasticsearch {
    /// Where it listens.
    pub port: u16,
    folder: TempDir,
    process: Process,
    settings: Vec<String>,
    starts: u32,
}

impl Elasticsearch {
    /// Starts it.
    pub fn start() -> Elasticsearch {
        Elasticsearch::start_with(&[])
    }

    /// With these settings, `name=value` each.
    pub fn start_with(settings: &[&str]) -> Elasticsearch {
        let folder = tempfile::Builder::new()
            .prefix("isochrone-elasticsearch")
            .tempdir()
            .expect("temp dir");
        let settings: Vec<_> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let port = free_port();
        let process = spawn(folder.path(), port, &settings, 1);
        let server = Elasticsearch {
            port,
            folder,
            process,
            settings,
            starts: 1,
        };
        server.wait();
        server
    }

    fn wait(&self) {
        wait::until("Elasticsearch to answer", START, || {
            request(self.port, "GET", "/", "").is_some_and(|answer| answer.status() == 200)
        });
    }

    /// `http://…`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port and data.
    pub fn start_again(&mut self) {
        self.starts += 1;
        self.process = spawn(self.folder.path(), self.port, &self.settings, self.starts);
        self.wait();
    }

    /// One request; the answer must be a success.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.try_ask(method, path, body);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!((200..300).contains(&answer.status()), "{method} {path}: {text}");
        answer.json()
    }

    /// One request, whatever the answer.
    pub fn try_ask(&self, method: &str, path: &str, body: &str) -> Message {
        request(self.port, method, path, body).unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// How many documents of these indices match a query; zero when there is no such index.
    pub fn count(&self, indices: &str, query: &Value) -> u64 {
        self.ask("POST", &format!("/{indices}/_refresh"), "");
        let body = serde_json::json!({ "query": query }).to_string();
        self.ask("POST", &format!("/{indices}/_count"), &body)["count"]
            .as_u64()
            .expect("a count")
    }

    /// The sum of a field over matching documents.
    pub fn sum(&self, indices: &str, field: &str, query: &Value) -> u64 {
        self.ask("POST", &format!("/{indices}/_refresh"), "");
        let body = serde_json::json!({"size": 0, "query": query, "aggs": {"sum": {"sum": {"field": field}}}});
        let answer = self.ask("POST", &format!("/{indices}/_search"), &body.to_string());
        answer["aggregations"]["sum"]["value"].as_f64().expect("a sum") as u64
    }

    /// Matching documents, at most 1,000.
    pub fn documents(&self, indices: &str, query: &Value) -> Vec<Value> {
        self.ask("POST", &format!("/{indices}/_refresh"), "");
        let body = serde_json::json!({"size": 1_000, "query": query}).to_string();
        let answer = self.ask("POST", &format!("/{indices}/_search"), &body);
        answer["hits"]["hits"].as_array().cloned().unwrap_or_default()
    }
}

/// What an image of it needs: what lies here, and where its own places of the image are.
pub(crate) fn parts() -> Vec<(PathBuf, &'static str)> {
    let (home, built) = (java_home(), built());
    vec![
        (home.join("bin/java"), "/java/bin/java"),
        (home.join("lib"), "/java/lib"),
        (home.join("conf"), "/java/conf"),
        (built.join("elasticsearch-one-1.jar"), "/node/elasticsearch-one-1.jar"),
        (built.join("lib"), "/node/lib"),
        (built.join("mods"), "/node/mods"),
    ]
}

fn spawn(folder: &Path, port: u16, settings: &[String], start: u32) -> Process {
    let built = built();
    let mut command = Command::new(java_home().join("bin/java"));
    command
        .args(["-Xmx512m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(["--enable-native-access=ALL-UNNAMED", "-cp"])
        .arg(format!("{0}/elasticsearch-one-1.jar:{0}/lib/*", built.display()))
        .args(["Main", &port.to_string()])
        .arg(folder.join("home"))
        .arg(built.join("mods"))
        .args(settings);
    Process::start(&format!("elasticsearch-{start}"), command, folder)
}

/// What `cargo xtask test --install` has built.
fn built() -> PathBuf {
    let built = super::servers().join("elasticsearch");
    assert!(
        built.join("elasticsearch-one-1.jar").is_file(),
        "{} is missing: cargo xtask test --install builds it",
        built.display()
    );
    built
}

/// A Java of 21 or newer: of JAVA_HOME, of the system, or the one that `cargo xtask test --install` got.
fn java_home() -> PathBuf {
    let system = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let homes = env::var_os("JAVA_HOME")
        .map(PathBuf::from)
        .into_iter()
        .chain(system.map(|entry| entry.path()))
        .chain([super::servers().join("java")]);
    homes
        .filter(|home| is_new_enough(home))
        .find(|home| home.join("bin/java").is_file())
        .expect("a Java of 21 or newer is missing: cargo xtask test --install gets it")
}

fn is_new_enough(home: &Path) -> bool {
    let release = fs::read_to_string(home.join("release")).unwrap_or_default();
    let version = release.split("JAVA_VERSION=\"").nth(1).unwrap_or_default();
    let major = version.split(['.', '"', '-', '+']).next().unwrap_or_default();
    major.parse::<u32>().is_ok_and(|major| major >= 21)
}
