//! The commented files of `config/`, one per daemon, from the declarations.

use std::fmt::Write;

use isochrone_store::types::Role;

use super::{help::wrap, table::declarations};

const WIDTH: usize = 118;

/// `config/<daemon>.env`, or with `None` `config/common.env`: every setting as a comment with its default. `elsewhere`:
/// variables that Compose takes from `.env`, each of which has one place only.
pub fn env_file(role: Option<Role>, elsewhere: &[&str]) -> String {
    let whose = match role {
        None => "every daemon",
        Some(Role::Producer) => "the producer",
        Some(Role::Consumer) => "the consumer",
        Some(Role::Plotter) => "the plotter",
    };
    let mut text = format!(
        "# Settings of {whose}, with their defaults. Take the # away from a line to change it.\n\
         # For Compose, `docker run --env-file`, or a shell: set -a; . the file. Not here: what .env in the folder above has.\n\
         # A variable with _FILE at its end names a file that holds the value.\n"
    );
    let mine = declarations().iter().filter(|declaration| match role {
        None => declaration.readers.len() == 3,
        Some(role) => declaration.readers.len() < 3 && declaration.readers.contains(&role),
    });
    for declaration in mine {
        let variable = declaration.variable();
        if elsewhere.contains(&variable.as_str()) {
            continue;
        }
        text.push('\n');
        for line in wrap(
            &format!("{} Must be {}.", declaration.help, declaration.valid),
            WIDTH - 2,
        ) {
            let _ = writeln!(text, "# {line}");
        }
        // A secret is better off in a file than in an environment that `docker inspect` shows.
        let suffix = if declaration.secret && declaration.file {
            "_FILE"
        } else {
            ""
        };
        let _ = writeln!(text, "#{variable}{suffix}={}", declaration.default.unwrap_or_default());
    }
    text
}
