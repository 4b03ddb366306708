//! What the command line says of itself, pinned.

use std::process::Command;

/// The commands and exit codes of `--help`; the settings below them are pinned in docs/settings.md.
#[test]
fn help_is_pinned() {
    let output = Command::new(env!("CARGO_BIN_EXE_isochrone"))
        .arg("--help")
        .output()
        .expect("isochrone");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let head: Vec<_> = text.lines().take_while(|line| !line.starts_with("Settings")).collect();
    insta::assert_snapshot!(head.join("\n"));
}
