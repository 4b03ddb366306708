//! A Go that is new enough for the servers the tests build. Debian 12's is not, but it can fetch one: toolchains are modules
//! (<https://go.dev/doc/toolchain>), which Go 1.21 and later run by themselves and earlier ones can at least download.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run;

/// What the servers' go.mod files ask for.
pub const VERSION: (u32, u32, u32) = (1, 26, 8);
const LEAST: (u32, u32, u32) = (1, 26, 7);

/// The first Go that is new enough: on PATH, in its usual place, or fetched by [`install`] into `folder`.
pub fn find(folder: &Path) -> Option<PathBuf> {
    candidates(folder).find(|go| version(go).is_some_and(|version| version >= LEAST))
}

/// Whether there is any Go, which is enough to fetch the right one.
pub fn any(folder: &Path) -> bool {
    candidates(folder).any(|go| version(&go).is_some())
}

fn candidates(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    folders.push("/usr/local/go/bin".into());
    folders.push(folder.join("bin"));
    folders.into_iter().map(|folder| folder.join("go"))
}

fn version(go: &Path) -> Option<(u32, u32, u32)> {
    let output = Command::new(go)
        .arg("version")
        .env("GOTOOLCHAIN", "local")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.split_whitespace().nth(2)?.strip_prefix("go")?.split('.');
    let mut next = || numbers.next().and_then(|number| number.parse().ok());
    Some((next()?, next()?, next().unwrap_or(0)))
}

/// Fetches the toolchain as a module, and makes it one that runs: modules have no executable files.
pub fn install(folder: &Path) -> Result<(), String> {
    let go = candidates(folder)
        .find(|go| version(go).is_some())
        .ok_or("no go, not even an old one")?;
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let (major, minor, patch) = VERSION;
    let version = format!("v0.0.1-go{major}.{minor}.{patch}.linux-{architecture}");
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    // In a folder of its own: with a go.mod around, an old Go would read that first.
    fs::create_dir_all(folder).map_err(wrong)?;
    run(Command::new(&go)
        .args(["mod", "download", &format!("golang.org/toolchain@{version}")])
        .current_dir(folder))?;
    let cache = Command::new(&go).args(["env", "GOMODCACHE"]).output().map_err(wrong)?;
    let cache = String::from_utf8_lossy(&cache.stdout).trim().to_owned();
    let module = Path::new(&cache).join(format!("golang.org/toolchain@{version}"));
    run(Command::new("cp")
        .args(["-r", "--no-preserve=mode"])
        .arg(module.join("."))
        .arg(folder))?;
    let tools = format!("pkg/tool/linux_{architecture}");
    for programs in ["bin", tools.as_str()] {
        for entry in fs::read_dir(folder.join(programs)).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(wrong)?;
        }
    }
    Ok(())
}
