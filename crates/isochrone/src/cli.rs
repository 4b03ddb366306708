//! The command line: tasks, and every setting as a flag.

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, error::ErrorKind};
use isochrone_daemon::settings::{Source, declarations};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// The main job, all in this process.
    Run,
    /// The report of a run in the store.
    Report {
        /// Until it is closed.
        wait: bool,
    },
    /// Which runs there are.
    Runs,
    /// The samples of a response topic (the setting `topic`) that are still in the store.
    Samples,
    /// Deletes a run's keys, and its sessions at the broker.
    Purge,
    /// Checks what a run stands on.
    Doctor,
    /// Asks the daemon of this host or container for its health.
    Health,
    /// Says what would be used, and whether it is valid.
    Check,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object.
    Json,
    /// A picture, of a report alone.
    Svg,
}

/// A parsed command line.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// What to do.
    pub task: Task,
    /// How to print.
    pub format: Format,
    /// A row for each topic.
    pub per_topic: bool,
    /// The response topic that `samples` is about.
    pub topic: Option<String>,
    /// Environment, flags, and the all-in-one's own defaults.
    pub source: Source,
}

/// The all-in-one's defaults where they differ from the daemons': a small fleet for ten seconds, quiet logs.
const DEFAULTS: [(&str, &str); 5] = [
    ("devices", "10"),
    ("rate", "100"),
    ("duration", "10s"),
    ("claims", "unlimited"),
    ("log", "warn"),
];

/// Without a store of its own there would be nothing to report on, so this is the main job's default alone.
const EMBEDDED_STORE: (&str, &str) = ("redis_url", "memory:");

/// What this process has of its own unless one is named: whatever the daemons' defaults are, this is what is shown.
pub const EMBEDDED: [&str; 2] = ["broker", "redis_url"];

const ABOUT: &str = "Loads a messaging system with a fleet of devices and measures how late every message arrives, and \
where lost ones went.";

const AFTER: &str = "Without a command it runs the fleet in this process, on an embedded broker and store; --broker and \
--redis-url put real ones in their place.\n\nExit codes: 0 done, 1 failed, 2 bad settings, 3 an unequal equation of the \
ledger, 4 a missed objective, 130 interrupted twice.";

impl Invocation {
    /// Reads the process's arguments and environment. Prints help, version and mistakes itself, and then exits.
    pub fn parse() -> Invocation {
        let invocation = Invocation::from_matches(&command().get_matches());
        if !invocation.has_picture() {
            let what = "--format svg is for the report of a run";
            command().error(ErrorKind::ArgumentConflict, what).exit();
        }
        invocation
    }

    /// Whether there is a picture of it, where one is asked for.
    fn has_picture(&self) -> bool {
        self.format != Format::Svg || matches!(self.task, Task::Run | Task::Report { .. } | Task::Check)
    }

    fn from_matches(matches: &ArgMatches) -> Invocation {
        let task = match matches.subcommand() {
            Some(("report", matches)) => Task::Report {
                wait: matches.get_flag("wait"),
            },
            Some(("runs", _)) => Task::Runs,
            Some(("samples", _)) => Task::Samples,
            Some(("purge", _)) => Task::Purge,
            Some(("doctor", _)) => Task::Doctor,
            Some(("health", _)) => Task::Health,
            _ if matches.get_flag("check") => Task::Check,
            _ => Task::Run,
        };
        let inner = matches.subcommand().map_or(matches, |(_, inner)| inner);
        let format = match inner.get_one::<String>("format").map(String::as_str) {
            Some("json") => Format::Json,
            Some("svg") => Format::Svg,
            _ => Format::Text,
        };
        let names: Vec<_> = flags().map(|(name, _)| name).collect();
        let given = names
            .iter()
            .filter_map(|name| Some((name.as_str(), inner.get_one::<String>(name)?.as_str())));
        let embedded = matches!(task, Task::Run | Task::Check).then_some(EMBEDDED_STORE);
        let source = Source::environment()
            .flags(given)
            .defaults(DEFAULTS.into_iter().chain(embedded));
        Invocation {
            task,
            format,
            per_topic: inner.get_flag("per_topic"),
            topic: inner.get_one("topic").cloned(),
            source,
        }
    }
}

/// Every setting, and for those that may be read from a file the flag that names it.
fn flags() -> impl Iterator<Item = (String, String)> {
    declarations().iter().flat_map(|declaration| {
        let own = DEFAULTS.into_iter().chain(EMBEDDED.map(|field| (field, "embedded")));
        let default = own
            .into_iter()
            .find(|(field, _)| *field == declaration.field)
            .map(|(_, text)| text);
        let default = default.or(declaration.default).filter(|text| !text.is_empty());
        let default = default.map_or_else(String::new, |text| format!(" [default: {text}]"));
        let own = (declaration.field.to_owned(), format!("{}{default}", declaration.help));
        let file = (
            format!("{}_file", declaration.field),
            format!("A file that holds --{}", dashed(declaration.field)),
        );
        std::iter::once(own).chain(declaration.file.then_some(file))
    })
}

/// clap takes `{n}` for a line break, also within `{{n}}`, and has no way to write it. An escape code that changes nothing keeps
/// it from being found; clap leaves that out where no terminal reads.
fn as_typed(help: &str) -> String {
    help.replace("{n}", "{\u{1b}[0mn}")
}

fn dashed(field: &str) -> String {
    field.replace('_', "-")
}

fn command() -> Command {
    let mut command = Command::new("isochrone")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .arg(
            Arg::new("format")
                .long("format")
                .global(true)
                .value_parser(PossibleValuesParser::new(["text", "json", "svg"]))
                .default_value("text")
                .help("How to print the report: for people, as one object, as a picture; stdout holds it alone"),
        )
        .arg(flag("per_topic", "A row for each topic in the report").global(true))
        .arg(flag("check", "Say what would be used, and whether it is valid"))
        .subcommand(
            Command::new("report")
                .about("The report of a run in the store (the newest, or --run), also while it is under way")
                .arg(flag("wait", "Wait until the run is closed")),
        )
        .subcommand(Command::new("runs").about("Which runs the store knows"))
        .subcommand(
            Command::new("samples").about("The samples of a response topic (--topic) that are still in the store"),
        )
        .subcommand(
            Command::new("purge").about("Delete a run (--run) from the store, and its sessions from the broker"),
        )
        .subcommand(Command::new("doctor").about("Check what a run stands on: settings, store, broker, clock, limits"))
        .subcommand(
            Command::new("health").about("Ask the daemon on this host (at --listen) for its health; for containers"),
        );
    for (name, help) in flags() {
        let long = dashed(&name);
        let hidden = name.ends_with("_file") && name != "payload_file";
        command = command.arg(
            Arg::new(name)
                .long(long)
                .global(true)
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

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(dashed(name)).action(ArgAction::SetTrue).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every setting is a flag, and clap finds nothing wrong with any.
    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    /// Placeholders stand in the help as a user types them.
    #[test]
    fn help_is_as_declared() {
        let help = command().render_help().to_string();
        for declaration in declarations() {
            assert!(help.contains(&declaration.help), "{}: {help}", declaration.field);
        }
        assert!(help.contains("[default: {{producer}}-{{n}}]"), "{help}");
        assert!(
            help.matches("[default: embedded]").count() == 2 && !help.contains("[default: mqtt:"),
            "{help}"
        );
    }

    /// A flag reaches the settings, whichever side of the command it stands on.
    #[test]
    fn flags_are_settings() {
        for line in [
            ["isochrone", "--run", "a", "report"],
            ["isochrone", "report", "--run", "a"],
        ] {
            let invocation = Invocation::from_matches(&command().get_matches_from(line));
            assert_eq!(invocation.task, Task::Report { wait: false });
            assert!(invocation.source.is_set("run"));
            assert!(!invocation.source.is_set("rate"));
        }
    }

    /// Only what is a report has a picture.
    #[test]
    fn pictures_are_of_reports() {
        for (task, has) in [("report", true), ("runs", false), ("doctor", false), ("purge", false)] {
            let line = ["isochrone", task, "--format", "svg"];
            let invocation = Invocation::from_matches(&command().get_matches_from(line));
            assert_eq!(
                (invocation.format, invocation.has_picture()),
                (Format::Svg, has),
                "{task}"
            );
        }
    }
}
