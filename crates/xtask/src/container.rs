//! What the tests of containers and chart need and no package has.

use std::{fs, path::Path, process::Command};

use crate::run;

/// A package of PyPI in an environment of its own.
///
/// # Errors
/// The command that failed, and how.
pub fn python(folder: &Path, package: &str, version: &str) -> Result<(), String> {
    let wanted = format!("{package}=={version}");
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))
        .map_err(|error| format!("python3 -m venv: {error}"))?;
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", &wanted]))
        .map_err(|error| format!("pip install {wanted}: {error}"))
}

/// Debian 12 with the certificates that our own image takes over, as a tar file. Made under another name, so that one that was
/// interrupted is not taken for whole.
///
/// # Errors
/// The command that failed, and how.
pub fn debian_image(folder: &Path, name: &str) -> Result<(), String> {
    let part = folder.join("part.tar");
    fs::create_dir_all(folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--include=ca-certificates", "bookworm"])
        .arg(&part))
    .map_err(|error| format!("mmdebstrap: {error}"))?;
    fs::rename(&part, folder.join(name)).map_err(|error| format!("rename {}: {error}", part.display()))
}
