//! The programs under test as processes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    process::Process,
    servers::{Mosquitto, Redis, get, sum},
    wait,
};

/// No command takes longer: `report --wait` waits for the end of a run, and that for a sink that is away.
const COMMAND: Duration = Duration::from_secs(240);

/// The release binary of that name, beside the test's own.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let folder = test.parent().and_then(Path::parent).expect("target folder");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: cargo build --release --workspace --bins",
        path.display()
    );
    path
}

/// A command of a program with no ISOCHRONE_ variable but these.
pub fn command(name: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary(name));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("ISOCHRONE_") {
            command.env_remove(key);
        }
    }
    command.envs(environment.iter().copied());
    command
}

/// Runs a program to its end, with no ISOCHRONE_ variable but these.
///
/// # Panics
/// When it takes longer than any command may.
pub fn output(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("temp dir");
    let mut command = command(name, environment);
    command.args(arguments);
    Process::start(name, command, folder.path()).output(COMMAND)
}

/// A broker, a store, and a folder for what the daemons say.
#[derive(Debug)]
pub struct Site {
    /// The broker.
    pub mosquitto: Mosquitto,
    /// The store.
    pub redis: Redis,
    /// Daemons' output.
    pub folder: TempDir,
    common: Vec<(String, String)>,
    started: std::cell::Cell<u32>,
}

impl Site {
    /// Starts both servers. `settings` go to every daemon.
    pub fn start(settings: &[(&str, &str)]) -> Site {
        Site::with(Mosquitto::start(), Redis::start(), settings)
    }

    /// On servers already running.
    pub fn with(mosquitto: Mosquitto, redis: Redis, settings: &[(&str, &str)]) -> Site {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let folder = tempfile::Builder::new()
            .prefix("isochrone-site")
            .tempdir()
            .expect("temp dir");
        let common = settings.iter().map(own).collect();
        Site {
            mosquitto,
            redis,
            folder,
            common,
            started: std::cell::Cell::new(0),
        }
    }

    /// The environment of a daemon at this site.
    pub fn environment(&self, settings: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all = vec![
            ("ISOCHRONE_REDIS_URL".to_owned(), self.redis.url()),
            ("ISOCHRONE_BROKER".to_owned(), self.mosquitto.url()),
            ("ISOCHRONE_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ];
        all.extend(self.common.iter().cloned());
        for (key, value) in settings {
            all.retain(|(other, _)| other != key);
            all.push(((*key).to_owned(), (*value).to_owned()));
        }
        all
    }

    /// Starts `isochrone-<role>`.
    pub fn daemon(&self, role: &str, settings: &[(&str, &str)]) -> Process {
        self.started.set(self.started.get() + 1);
        let environment = self.environment(settings);
        let pairs: Vec<_> = environment
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let name = format!("{role}-{}", self.started.get());
        Process::start(&name, command(&format!("isochrone-{role}"), &pairs), self.folder.path())
    }

    /// Starts several of one role.
    pub fn daemons(&self, role: &str, count: usize, settings: &[(&str, &str)]) -> Vec<Process> {
        (0..count).map(|_| self.daemon(role, settings)).collect()
    }

    /// Runs `isochrone` with arguments to its end.
    pub fn isochrone(&self, arguments: &[&str]) -> Output {
        self.started.set(self.started.get() + 1);
        let url = self.redis.url();
        let mut command = command("isochrone", &[("ISOCHRONE_REDIS_URL", &url)]);
        command.args(arguments);
        let name = format!("isochrone-{}", self.started.get());
        Process::start(&name, command, self.folder.path()).output(COMMAND)
    }
}

/// Waits until one of them holds a response topic; which.
pub fn holder(consumers: &[Process], deadline: Duration) -> usize {
    let ports: Vec<_> = consumers.iter().map(|consumer| ready(consumer, deadline)).collect();
    wait::until_some("a holder", deadline, || {
        ports
            .iter()
            .position(|port| sum(*port, "isochrone_consumer_claims") > 0.0)
    })
}

/// Waits until the daemon's page answers 200 on `/readyz`, and gives its port (from the log line that names it).
pub fn ready(process: &Process, deadline: Duration) -> u16 {
    let port = listening(process, deadline);
    wait::until("a daemon to be ready", deadline, || get(port, "/readyz").is_some());
    port
}

/// The port of a daemon's page, from its log.
pub fn listening(process: &Process, deadline: Duration) -> u16 {
    wait::until_some("a daemon's page", deadline, || {
        let log = process.stderr();
        let line = log.lines().find(|line| line.contains("/metrics"))?;
        let (_, rest) = line.rsplit_once("127.0.0.1:")?;
        rest.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .ok()
    })
}
