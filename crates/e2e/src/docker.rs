//! A Docker engine of the test's own. It lives in namespaces of its own: its networks, mounts, firewall rules and
//! containers end with it, and no port it publishes can clash with one of the machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, id},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{daemon::binary, process::Process, servers::elasticsearch_parts, wait};

const START: Duration = Duration::from_secs(60);
/// What one command of the client may take, in seconds: an engine that answers no more must not keep a test from ending.
const AT_MOST: &str = "600";

/// The running engine.
#[derive(Debug)]
pub struct Docker {
    /// Ended by dropping it: the engine is the first process of its namespace, so everything in there ends with it.
    process: Option<Process>,
    folder: TempDir,
}

/// A server's image made of this machine's own programs.
struct Server {
    tag: &'static str,
    programs: &'static [&'static str],
    /// Writable by any user.
    folders: &'static [&'static str],
    changes: &'static [&'static str],
    /// Files and folders beside the programs: where they are here, and where in the image.
    more: fn() -> Vec<(PathBuf, &'static str)>,
}

/// Under the very names that the Compose file, the stack and the chart use.
const SERVERS: &[Server] = &[
    Server {
        tag: "eclipse-mosquitto:2.0.22",
        programs: &["mosquitto", "mosquitto_sub"],
        folders: &["mosquitto/data", "mosquitto/config"],
        changes: &["CMD [\"mosquitto\", \"-c\", \"/mosquitto/config/mosquitto.conf\"]"],
        more: Vec::new,
    },
    Server {
        tag: "redis:7.4.2",
        programs: &["redis-server", "redis-cli"],
        folders: &["data"],
        changes: &["WORKDIR /data"],
        more: Vec::new,
    },
    Server {
        tag: "prom/prometheus:v3.16.0",
        programs: &["prometheus", "wget"],
        folders: &["prometheus"],
        changes: &["ENTRYPOINT [\"prometheus\"]"],
        more: Vec::new,
    },
    Server {
        tag: "otel/opentelemetry-collector-contrib:0.162.0",
        programs: &["collector"],
        folders: &[],
        changes: &["ENTRYPOINT [\"collector\"]"],
        more: Vec::new,
    },
    // Without what is licensed, but with the same address, volume, variable and health check.
    Server {
        tag: "docker.elastic.co/elasticsearch/elasticsearch:9.5.3",
        programs: &["curl", "sh"],
        folders: &["tmp", "usr/share/elasticsearch/data"],
        changes: &[
            "ENTRYPOINT [\"sh\", \"-c\", \"exec /java/bin/java $ES_JAVA_OPTS -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
             --enable-native-access=ALL-UNNAMED -cp '/node/elasticsearch-one-1.jar:/node/lib/*' \
             Main 9200 /usr/share/elasticsearch /node/mods network.host=0.0.0.0\"]",
        ],
        more: elasticsearch_parts,
    },
];

impl Docker {
    /// Starts the engine and gives it every image that can be had without a registry: the servers', made of this machine's
    /// programs, and ours, built from the Dockerfile with the programs that were built already.
    pub fn start() -> Docker {
        let folder = tempfile::Builder::new()
            .prefix("isochrone-docker")
            .tempdir()
            .expect("temp dir");
        let path = folder.path().display();
        // Without loopback no health check inside of it could work.
        let script = format!(
            "ip link set lo up && exec dockerd --data-root {path}/data --exec-root {path}/exec --pidfile {path}/pid \
             --host unix://{path}/docker.sock --cgroup-parent {} --userland-proxy=false",
            cgroup()
        );
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ]);
        command.args(["/bin/sh", "-c", &script]);
        let docker = Docker {
            process: Some(Process::start("dockerd", command, folder.path())),
            folder,
        };
        wait::until("the Docker engine", START, || {
            docker.try_run(&["version"]).status.success()
        });
        docker.images();
        docker
    }

    /// What all its containers use of memory by now, in MiB, and how many of them run.
    ///
    /// # Panics
    /// When the engine does not say.
    pub fn memory(&self) -> (u64, usize) {
        let said = self.run(&["stats", "--no-stream", "--format", "{{.MemUsage}}"]);
        let used: Vec<_> = said.lines().filter_map(mebibytes).collect();
        (used.iter().sum::<f64>() as u64, used.len())
    }

    /// Runs `docker` to its end; what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        succeeded(&format!("docker {}", arguments.join(" ")), &self.try_run(arguments))
    }

    /// What each container said last, for who reads why a test failed.
    fn tell_logs(&self) {
        let names = self.try_run(&["ps", "--all", "--format", "{{.Names}}"]).stdout;
        for name in String::from_utf8_lossy(&names).lines() {
            let said = self.try_run(&["logs", "--tail", "4", name]);
            let said = [said.stdout, said.stderr].concat();
            eprintln!("── {name} said last:\n{}", String::from_utf8_lossy(&said));
        }
    }

    /// Runs `docker` to its end, well or not; one that took too long has the status of timeout(1).
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("timeout");
        command.args([AT_MOST, "docker"]).args(arguments);
        command.output().expect("timeout")
    }

    /// A command that talks to this engine, through the client that came with it: another that PATH may find first can be
    /// without BuildKit.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("/usr/sbin:/usr/bin:{path}"))
            .env(
                "DOCKER_HOST",
                format!("unix://{}/docker.sock", self.folder.path().display()),
            )
            .env("DOCKER_BUILDKIT", "1")
            .env("DOCKER_CONFIG", self.folder.path())
            .current_dir(top());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("ISOCHRONE_") || name.starts_with("COMPOSE_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs `docker compose` of the repository's own file with these variables over `.env`.
    ///
    /// # Panics
    /// When it fails.
    pub fn compose(&self, variables: &[(&str, &str)], arguments: &[&str]) -> String {
        succeeded(
            &format!("docker compose {}", arguments.join(" ")),
            &self.try_compose(variables, arguments),
        )
    }

    /// The same, well or not.
    pub fn try_compose(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = self.command(tool("compose", "compose"));
        let output = command.envs(variables.iter().copied()).args(arguments).output();
        output.expect("docker compose")
    }

    fn images(&self) {
        let base = tool("debian.tar", "debian.tar");
        self.run(&["import", &base.display().to_string(), "debian:bookworm-slim"]);
        for server in SERVERS {
            self.import(server);
        }
        // Of the context only the programs are used, so it has nothing else.
        let context = self.folder.path().join("context");
        let programs = context.join("target/release");
        fs::create_dir_all(&programs).expect("context");
        for name in [
            "isochrone",
            "isochrone-producer",
            "isochrone-consumer",
            "isochrone-plotter",
        ] {
            fs::copy(binary(name), programs.join(name)).expect("copy a program");
        }
        let (file, context) = (top().join("deploy/Dockerfile"), context.display().to_string());
        self.run(&[
            "build",
            "--quiet",
            "--build-arg",
            "PROGRAMS=prebuilt",
            "--file",
            &file.display().to_string(),
            "--tag",
            "isochrone:latest",
            &context,
        ]);
    }

    fn import(&self, server: &Server) {
        let root = self.folder.path().join("root");
        for program in server.programs {
            let source = found(program);
            copy(&source, &root.join("usr/local/bin").join(program));
            for library in libraries(&source) {
                copy(&library, &root.join(relative(&library)));
            }
        }
        for (source, place) in (server.more)() {
            copy_whole(&source, &root, place);
        }
        for folder in server.folders {
            fs::create_dir_all(root.join(folder)).expect("folder");
            fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o777)).expect("permissions");
        }
        // Mosquitto looks for the user of its image, and gives up what root may.
        let accounts = [
            ("passwd", "root:x:0:0::/:\nmosquitto:x:1883:1883::/:\n"),
            ("group", "root:x:0:\nmosquitto:x:1883:\n"),
        ];
        fs::create_dir_all(root.join("etc")).expect("folder");
        for (file, lines) in accounts {
            fs::write(root.join("etc").join(file), lines).expect("accounts");
        }
        let archive = self.folder.path().join("root.tar");
        let packed = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .output();
        succeeded("tar", &packed.expect("tar"));
        let archive = archive.display().to_string();
        let mut arguments = vec!["import", "--change", "ENV PATH=/usr/local/bin"];
        arguments.extend(server.changes.iter().flat_map(|change| ["--change", *change]));
        arguments.extend([archive.as_str(), server.tag]);
        self.run(&arguments);
        fs::remove_dir_all(root).expect("remove the root folder");
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_logs();
        }
        drop(self.process.take());
        // The kernel keeps emptied control groups until somebody removes them, and refuses while a process of them ends.
        let script = format!(
            "for n in 1 2 3 4 5; do find /sys/fs/cgroup -depth -type d -path '*{group}*' -exec rmdir {{}} + 2> /dev/null; \
             find /sys/fs/cgroup -type d -name '{group}' | grep -q . || break; sleep 0.2; done",
            group = cgroup().trim_start_matches('/')
        );
        let _ = Command::new("/bin/sh").args(["-c", &script]).status();
    }
}

/// The control group of this test's containers.
fn cgroup() -> String {
    format!("/isochrone-test-{}", id())
}

/// The repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What the tests' own tools were built or made into.
///
/// # Panics
/// When it is missing.
pub fn tool(name: &str, file: &str) -> PathBuf {
    let path = top().join("target/servers").join(name).join(file);
    assert!(
        path.is_file(),
        "{} is missing: cargo xtask test --install gets it",
        path.display()
    );
    path
}

/// What a program printed.
///
/// # Panics
/// When it failed, with all that it said.
pub fn succeeded(what: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{what}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// `doctor` finds nothing to mend but what is the machine's own: its clock.
///
/// # Panics
/// When it does, with the finding.
pub fn assert_content(findings: &str) {
    let findings: Value = serde_json::from_str(findings).expect("findings");
    for finding in findings.as_array().expect("a list") {
        let of_machine = finding["what"].as_str().is_some_and(|what| what.starts_with("clock"));
        assert!(finding["mend"].is_null() || of_machine, "{finding:#}");
    }
}

/// A program of this machine; one built for the tests wins over a package's.
fn found(program: &str) -> PathBuf {
    let built = top().join("target/servers").join(program).join(program);
    ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin"]
        .iter()
        .fold(built.is_file().then_some(built), |found, folder| {
            found.or_else(|| Some(Path::new(folder).join(program)).filter(|path| path.is_file()))
        })
        .unwrap_or_else(|| panic!("{program} is missing: cargo xtask test --install gets it"))
}

/// What the loader would load for it.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(|path| PathBuf::from(path.trim_end_matches(':'))).collect()
}

/// The same path below another root.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").expect("an absolute path")
}

/// What is used of `12.5MiB / 256MiB`.
fn mebibytes(text: &str) -> Option<f64> {
    let (used, _) = text.split_once(" / ")?;
    let unit = used.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = used[..unit].parse().ok()?;
    match &used[unit..] {
        "GiB" => Some(number * 1024.0),
        "MiB" => Some(number),
        "KiB" => Some(number / 1024.0),
        _ => Some(0.0),
    }
}

/// A file, or everything below a folder with the libraries that it loads from outside of it.
fn copy_whole(from: &Path, root: &Path, place: &str) {
    let to = root.join(relative(Path::new(place)));
    if from.is_file() {
        return copy(from, &to);
    }
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("read {}: {error}", from.display())) {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        copy_whole(&path, root, &format!("{place}/{name}"));
        if place.starts_with("/java/") && path.is_file() {
            for library in libraries(&path) {
                copy(&library, &root.join(relative(&library)));
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).expect("folder");
    }
    fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
}
