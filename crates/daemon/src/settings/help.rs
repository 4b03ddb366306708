//! `--help` and the reference page, both from the declarations.

use std::fmt::Write;

use isochrone_store::types::Role;

use super::{Declaration, table::declarations};

/// The text of `--help` for one daemon.
pub fn help(role: Role) -> String {
    let (name, job) = match role {
        Role::Producer => (
            "producer",
            "Emulates devices: publishes stamped messages on a schedule, each device over its own connection.",
        ),
        Role::Consumer => (
            "consumer",
            "Claims response topics of producers and measures every message that arrives there.",
        ),
        Role::Plotter => (
            "plotter",
            "Turns samples into seconds and hands them to Prometheus and other sinks.",
        ),
    };
    let mut text = format!(
        "{job}\n\nUsage: isochrone-{name} [--check | --help | --version]\n\n\
         Everything is set by environment variables; with none set it works against Redis and MQTT on localhost.\n\
         A variable with [file] may be given as <NAME>_FILE, a file that holds the value. An empty one counts as unset.\n\
         The value of a [secret] variable is never shown.\n\n  \
         --check    say what would be used, and whether it is valid; exit 0 or 2\n  \
         --help     this text\n  --version  the version\n"
    );
    let (own, common): (Vec<_>, Vec<_>) = declarations()
        .iter()
        .filter(|declaration| declaration.readers.contains(&role))
        .partition(|declaration| declaration.readers.len() < 3);
    for (title, list) in [
        (format!("Settings of the {name}"), own),
        ("Settings of every daemon".to_owned(), common),
    ] {
        let _ = write!(text, "\n{title}:\n");
        for declaration in list {
            entry(&mut text, declaration);
        }
    }
    text
}

fn entry(text: &mut String, declaration: &Declaration) {
    let default = match declaration.default {
        Some("") | None => String::new(),
        Some(default) => format!(" [default: {default}]"),
    };
    let file = if declaration.file { " [file]" } else { "" };
    let secret = if declaration.secret { " [secret]" } else { "" };
    let _ = writeln!(text, "  {}{default}{file}{secret}", declaration.variable());
    for line in wrap(&format!("{} Must be {}.", declaration.help, declaration.valid), 94) {
        let _ = writeln!(text, "      {line}");
    }
}

/// Words in lines of at most `width` characters.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `docs/settings.md`.
pub fn reference() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         <!-- Made from the declarations in crates/daemon/src/settings/table.rs; \
         `UPDATE=1 cargo test --release -p isochrone-daemon --test settings` writes it. -->\n\n\
         The daemons are set by environment variables alone. `isochrone` takes the same settings as flags too, which win over\n\
         the environment: `--rate 100` is `ISOCHRONE_RATE=100`. With nothing set, each daemon works against Redis and MQTT on\n\
         localhost.\n\n\
         - An empty variable counts as unset.\n\
         - `<NAME>_FILE` names a file that holds the value (one newline at its end is left out); not for settings that are\n  \
           paths themselves. Setting both is an error.\n\
         - A variable that begins with `ISOCHRONE_` and is no setting is an error; it names the nearest setting where one is near.\n  \
           Another daemon's setting is accepted, and what Kubernetes injects for services is ignored.\n\
         - `--check` says what would be used, without secrets, and whether it is valid: exit 0 or 2. All problems are told at\n  \
           once.\n\
         - A setting marked Secret is never shown, nor is what may be one in a URL: user, password, the values of its query. With\n  \
           `isochrone` give it by file or environment: others on the host see its flags.\n\
         - Durations: `250ms`, `30s`, `5m`. Sizes: `64KiB`. Rates: `1000`, `1/30s`.\n\
         - `isochrone` alone: 10 devices of 100 messages a second for 10 s, with claims unlimited, which wait 30 s for a consumer, unless\n\
         \x20 set; without any connection by then it fails. Its devices share\n\
         \x20 ISOCHRONE_QUEUE (200,000 in all, at most 10,000 each) and, on the embedded broker, ISOCHRONE_IN_FLIGHT (20,000 in all,\n\
         \x20 at most 1,000 each), unless set. Each gets 100 and 10 at least, so beyond 2,000 devices all together hold more.\n",
    );
    let sections: [(&str, &[Role]); 5] = [
        ("Every daemon", &[Role::Producer, Role::Consumer, Role::Plotter]),
        ("Producer", &[Role::Producer]),
        ("Producer and consumer", &[Role::Producer, Role::Consumer]),
        ("Consumer", &[Role::Consumer]),
        ("Plotter", &[Role::Plotter]),
    ];
    for (title, readers) in sections {
        let _ = write!(
            text,
            "\n## {title}\n\n| setting | default | what it does | must be |\n|---|---|---|---|\n"
        );
        for declaration in declarations()
            .iter()
            .filter(|declaration| declaration.readers == readers)
        {
            let default = match declaration.default {
                Some("") | None => "–".to_owned(),
                Some(default) => format!("`{default}`"),
            };
            let secret = if declaration.secret { " Secret." } else { "" };
            let _ = writeln!(
                text,
                "| `{}` | {default} | {}{secret} | {} |",
                declaration.variable(),
                cell(&declaration.help),
                cell(declaration.valid)
            );
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
