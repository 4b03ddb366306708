//! A Docker engine of the test's own. It lives in namespaces of its own: its networks, mounts, firewall rules and
//! containers end with it, and no port it publishes can clash with one of the machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, id},
    time::Duration,
};

use tempfile::TempDir;

use crate::{daemon::binary, process::Process, wait};

const START: Duration = Duration::from_secs(60);

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
}

/// Under the very names that the Compose file, the stack and the chart use.
const SERVERS: &[Server] = &[
    Server {
        tag: "eclipse-mosquitto:2.0.22",
        programs: &["mosquitto", "mosquitto_sub"],
        folders: &["mosquitto/data", "mosquitto/config"],
        changes: &["CMD [\"mosquitto\", \"-c\", \"/mosquitto/config/mosquitto.conf\"]"],
    },
    Server {
        tag: "redis:7.4.2",
        programs: &["redis-server", "redis-cli"],
        folders: &["data"],
        changes: &["WORKDIR /data"],
    },
    Server {
        tag: "prom/prometheus:v3.16.0",
        programs: &["prometheus", "wget"],
        folders: &["prometheus"],
        changes: &["ENTRYPOINT [\"prometheus\"]"],
    },
    Server {
        tag: "otel/opentelemetry-collector-contrib:0.162.0",
        programs: &["collector"],
        folders: &[],
        changes: &["ENTRYPOINT [\"collector\"]"],
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

    /// Runs `docker` to its end; what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        succeeded(&format!("docker {}", arguments.join(" ")), &self.try_run(arguments))
    }

    /// Runs `docker` to its end, well or not.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.command("docker").args(arguments).output().expect("docker")
    }

    /// A command that talks to this engine.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
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
        let mut command = self.command(tool("compose", "compose"));
        let output = command.envs(variables.iter().copied()).args(arguments).output();
        succeeded(
            &format!("docker compose {}", arguments.join(" ")),
            &output.expect("docker compose"),
        )
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
                let relative = library.strip_prefix("/").expect("an absolute path");
                copy(&library, &root.join(relative));
            }
        }
        for folder in server.folders {
            fs::create_dir_all(root.join(folder)).expect("folder");
            fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o777)).expect("permissions");
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

fn copy(from: &Path, to: &Path) {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).expect("folder");
    }
    fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
}
