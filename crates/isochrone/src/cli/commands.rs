//! What clap is told: the commands, and as flags the settings that each reads.

use clap::{
    Arg, ArgAction, Command,
    builder::{PossibleValue, PossibleValuesParser},
};
use isochrone_daemon::settings::{Declaration, declarations};

use super::{DEFAULTS, EMBEDDED};

const ABOUT: &str = "Loads a messaging system with a fleet of devices and measures how late every message arrives, and \
where lost ones went.";

const AFTER: &str = "Without a command it runs the fleet in this process, on an embedded broker and store; --broker and \
--redis-url put real ones in their place.\n\nExit codes: 0 done, 1 failed, 2 bad settings, 3 an unequal equation of the \
ledger, 4 a missed objective, 130 interrupted twice.";

/// What every command needs that opens the store.
const STORE: [&str; 4] = ["redis_url", "redis_tls_ca", "log", "log_format"];
/// Who the run's devices and consumers were at the broker.
const IDENTITY: [&str; 14] = [
    "client_id",
    "username",
    "password",
    "consumer_broker",
    "consumer_client_id",
    "consumer_username",
    "consumer_password",
    "mqtt_version",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "tls_server_name",
    "tls_alpn",
    "tls_insecure",
];
/// What decides when a run is over, for `report --wait` where no other daemon is left.
const CLOSING: [&str; 3] = ["lease", "drain", "clock_domain"];

/// Whether a command reads a setting. Without a command it is the main job, which reads all; `doctor` checks all.
fn reads(command: Option<&str>, field: &str) -> bool {
    let of_store = STORE.contains(&field);
    match command {
        Some("report") => of_store || CLOSING.contains(&field) || ["run", "slo"].contains(&field),
        Some("runs") => of_store,
        Some("samples") => of_store || field == "run",
        Some("purge") => of_store || IDENTITY.contains(&field) || field == "run",
        Some("health") => field == "listen",
        _ => true,
    }
}

/// The whole command line.
pub fn command() -> Command {
    let command = Command::new("isochrone")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .arg(format(true, "the report"))
        .arg(per_topic())
        .arg(flag("check", "Say what would be used, and whether it is valid"))
        .subcommand(
            subcommand(
                "report",
                "The report of a run in the store (the newest, or --run), also while it is under way",
            )
            .arg(format(true, "the report"))
            .arg(per_topic())
            .arg(flag("wait", "Wait until the run is closed")),
        )
        .subcommand(subcommand("runs", "Which runs the store knows").arg(format(false, "them")))
        .subcommand(
            subcommand(
                "samples",
                "The samples of a response topic (--topic) that are still in the store",
            )
            .arg(
                Arg::new(SAMPLES_OF)
                    .long("topic")
                    .value_name("VALUE")
                    .help("The response topic"),
            )
            // It may stand before the command, where clap does not look for what a command requires.
            .override_usage("isochrone samples [OPTIONS] --topic <VALUE>")
            .arg(format(false, "them")),
        )
        .subcommand(
            subcommand(
                "purge",
                "Delete a run (--run) from the store, and its sessions from the broker",
            )
            .arg(flag(
                "force",
                "Delete the run also when sessions may be left at the broker, which only the run's keys can tell",
            )),
        )
        .subcommand(
            subcommand(
                "doctor",
                "Check what a run stands on: settings, store, broker, clock, limits",
            )
            .arg(format(false, "what it finds")),
        )
        .subcommand(subcommand(
            "health",
            "Ask the daemon on this host (at --listen) for its health; for containers",
        ));
    with_settings(command, None)
}

/// Not the setting `topic`, which is what devices publish to.
pub const SAMPLES_OF: &str = "samples_of";

/// One command, with the settings it reads.
fn subcommand(name: &'static str, about: &'static str) -> Command {
    with_settings(Command::new(name).about(about), Some(name))
}

fn with_settings(mut command: Command, name: Option<&str>) -> Command {
    for (field, help) in flags(name) {
        let hidden = field.ends_with("_file") && field != "payload_file";
        command = command.arg(
            Arg::new(field.clone())
                .long(dashed(&field))
                .value_name("VALUE")
                .allow_hyphen_values(true)
                .action(ArgAction::Set)
                .hide(hidden)
                .help_heading("Settings (each also as ISOCHRONE_<NAME>)")
                .help(as_typed(&help)),
        );
    }
    command
}

/// Every setting that the command reads, and for those that may be read from a file the flag that names it.
pub fn flags(command: Option<&str>) -> Vec<(String, String)> {
    let embedded = EMBEDDED.map(|field| (field, "embedded"));
    let own: Vec<(&str, &str)> = DEFAULTS
        .into_iter()
        .chain(embedded.into_iter().filter(|_| command.is_none()))
        .collect();
    declarations()
        .iter()
        .filter(|declaration| reads(command, declaration.field))
        .flat_map(|declaration| {
            let default = own.iter().find(|(field, _)| *field == declaration.field);
            let default = default.map(|(_, text)| *text).or(declaration.default);
            let default = default.filter(|text| !text.is_empty());
            let default = default.map_or_else(String::new, |text| format!(" [default: {text}]"));
            // Other users of the host see a process's flags.
            let secret = if declaration.secret {
                format!(" [secret: better in a file, --{}-file]", dashed(declaration.field))
            } else {
                String::new()
            };
            let own = (
                declaration.field.to_owned(),
                format!("{}{default}{secret}", meaning(command, declaration)),
            );
            let file = (
                format!("{}_file", declaration.field),
                format!("A file that holds --{}", dashed(declaration.field)),
            );
            std::iter::once(own).chain(declaration.file.then_some(file))
        })
        .collect()
}

/// What a setting means to a command: which run is another matter to those that look at one.
fn meaning(command: Option<&str>, declaration: &'static Declaration) -> &'static str {
    match (command, declaration.field) {
        (Some("purge"), "run") => "The run to delete.",
        (Some("report" | "samples"), "run") => "Which run. Unset: the newest.",
        _ => &declaration.help,
    }
}

fn format(picture: bool, what: &str) -> Arg {
    // Whoever asks for a picture where there is none is told why, so it is known everywhere and listed where it is of use.
    let svg = PossibleValue::new("svg").hide(!picture);
    let kinds = if picture { ", as a picture" } else { "" };
    Arg::new("format")
        .long("format")
        .value_parser(PossibleValuesParser::new([
            PossibleValue::new("text"),
            PossibleValue::new("json"),
            svg,
        ]))
        .default_value("text")
        .help(format!(
            "How to print {what}: for people, as JSON{kinds}; stdout holds it alone"
        ))
}

fn per_topic() -> Arg {
    flag("per_topic", "A row for each topic in the report")
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(dashed(name)).action(ArgAction::SetTrue).help(help)
}

/// clap takes `{n}` for a line break, also within `{{n}}`, and has no way to write it. An escape code that changes nothing keeps
/// it from being found; clap leaves that out where no terminal reads.
fn as_typed(help: &str) -> String {
    help.replace("{n}", "{\u{1b}[0mn}")
}

/// A name as it stands in a flag.
pub fn dashed(field: &str) -> String {
    field.replace('_', "-")
}
