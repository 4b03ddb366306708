//! The command line: tasks, and every setting as a flag.

mod commands;

use clap::{Arg, ArgMatches, error::ErrorKind, parser::ValueSource};
use isochrone_daemon::settings::Source;

use self::commands::{SAMPLES_OF, command, dashed, flags};

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
    /// The samples of a response topic that are still in the store.
    Samples {
        /// Which.
        topic: String,
    },
    /// Deletes a run's keys, and its sessions at the broker.
    Purge {
        /// Also when sessions may be left at the broker.
        force: bool,
    },
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
    /// Environment, flags, and the all-in-one's own defaults.
    pub source: Source,
}

/// The all-in-one's defaults where they differ from the daemons': a small fleet for ten seconds, quiet logs. Its one consumer is
/// there from the start: a topic that it cannot listen on in this time is one that nobody will, and the run is to end.
const DEFAULTS: [(&str, &str); 6] = [
    ("devices", "10"),
    ("rate", "100"),
    ("duration", "10s"),
    ("claims", "unlimited"),
    ("wait_for_consumer", "30s"),
    ("log", "warn"),
];

/// Without a store of its own there would be nothing to report on, so this is the main job's default alone.
const EMBEDDED_STORE: (&str, &str) = ("redis_url", "memory:");

/// What this process has of its own unless one is named: whatever the daemons' defaults are, this is what is shown.
pub const EMBEDDED: [&str; 2] = ["broker", "redis_url"];

impl Invocation {
    /// Reads the process's arguments and environment. Prints help, version and mistakes itself, and then exits.
    pub fn parse() -> Invocation {
        Invocation::from_matches(&command().get_matches())
            .unwrap_or_else(|what| command().error(ErrorKind::ArgumentConflict, what).exit())
    }

    fn from_matches(matches: &ArgMatches) -> Result<Invocation, String> {
        let line = Line::new(matches)?;
        let task = match matches.subcommand() {
            Some(("report", _)) => Task::Report { wait: line.has("wait") },
            Some(("runs", _)) => Task::Runs,
            Some(("samples", _)) => {
                let topic = line.text(SAMPLES_OF).or_else(|| line.text("topic"));
                Task::Samples {
                    topic: topic.ok_or("`isochrone samples` needs --topic")?.to_owned(),
                }
            }
            Some(("purge", _)) => Task::Purge {
                force: line.has("force"),
            },
            Some(("doctor", _)) => Task::Doctor,
            Some(("health", _)) => Task::Health,
            _ if line.has("check") => Task::Check,
            _ => Task::Run,
        };
        let format = match line.text("format") {
            Some("json") => Format::Json,
            Some("svg") if !task.has_picture() => {
                return Err("--format svg is for the report of a run".to_owned());
            }
            Some("svg") => Format::Svg,
            _ => Format::Text,
        };
        let mut names: Vec<_> = flags(None).into_iter().map(|(name, _)| name).collect();
        // Before `samples` it is what is asked for, too, and no setting.
        names.retain(|name| name != "topic" || !matches!(task, Task::Samples { .. }));
        let given = names.iter().filter_map(|name| Some((name.as_str(), line.text(name)?)));
        let embedded = matches!(task, Task::Run | Task::Check).then_some(EMBEDDED_STORE);
        let source = Source::environment()
            .flags(given)
            .defaults(DEFAULTS.into_iter().chain(embedded));
        Ok(Invocation {
            format,
            per_topic: line.has("per_topic"),
            source,
            task,
        })
    }
}

impl Task {
    /// Whether there is a picture of it.
    fn has_picture(&self) -> bool {
        matches!(self, Task::Run | Task::Report { .. } | Task::Check)
    }
}

/// What was typed, on both sides of the command: `isochrone --run a report` is `isochrone report --run a`.
struct Line<'a> {
    /// The command's own first.
    sides: Vec<&'a ArgMatches>,
}

impl<'a> Line<'a> {
    /// Refuses what stands before a command that does not take it, as clap does behind it.
    fn new(matches: &'a ArgMatches) -> Result<Line<'a>, String> {
        let Some((name, inner)) = matches.subcommand() else {
            return Ok(Line { sides: vec![matches] });
        };
        let line = command();
        let taken = |id: &str| {
            let subcommand = line.find_subcommand(name);
            let flag = dashed(id);
            let takes = |argument: &Arg| argument.get_long() == Some(&flag);
            subcommand.is_some_and(|subcommand| subcommand.get_arguments().any(takes))
        };
        let stray = matches
            .ids()
            .map(|id| id.as_str())
            .find(|id| is_typed(matches, id) && !taken(id));
        match stray {
            Some(id) => Err(format!("`isochrone {name}` takes no --{}", dashed(id))),
            None => Ok(Line {
                sides: vec![inner, matches],
            }),
        }
    }

    fn text(&self, id: &str) -> Option<&'a str> {
        let side = self.sides.iter().find(|side| is_typed(side, id))?;
        side.get_one::<String>(id).map(String::as_str)
    }

    fn has(&self, id: &str) -> bool {
        self.sides.iter().any(|side| is_typed(side, id))
    }
}

/// Not by a default; one that the command does not know was not typed either.
fn is_typed(matches: &ArgMatches, id: &str) -> bool {
    matches.ids().any(|known| known == id) && matches.value_source(id) == Some(ValueSource::CommandLine)
}

#[cfg(test)]
mod tests {
    use isochrone_daemon::settings::declarations;

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
            let file = format!("[secret: better in a file, {}-file]", declaration.flag());
            assert_eq!(
                help.contains(&file),
                declaration.secret,
                "{}: {help}",
                declaration.field
            );
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
            let invocation = invoked(&line).unwrap();
            assert_eq!(invocation.task, Task::Report { wait: false });
            assert!(invocation.source.is_set("run"));
            assert!(!invocation.source.is_set("rate"));
        }
    }

    /// Only what is a report has a picture.
    #[test]
    fn pictures_are_of_reports() {
        for (task, has) in [("report", true), ("runs", false), ("doctor", false)] {
            for line in [
                ["isochrone", task, "--format", "svg"],
                ["isochrone", "--format", "svg", task],
            ] {
                match invoked(&line) {
                    Ok(invocation) => assert!(has && invocation.format == Format::Svg, "{line:?}"),
                    Err(what) => assert!(!has && what == "--format svg is for the report of a run", "{what}"),
                }
            }
        }
    }

    /// A command's help lists the settings that it reads and no other, and what is not listed is refused on either side of it.
    #[test]
    fn commands_take_what_they_list() {
        for (task, takes, refuses) in [
            (
                "report",
                vec!["--run", "--slo", "--redis-url"],
                vec!["--rate", "--broker"],
            ),
            ("runs", vec!["--redis-url", "--log"], vec!["--run", "--rate"]),
            ("samples", vec!["--run", "--topic"], vec!["--rate", "--broker"]),
            ("purge", vec!["--run", "--password"], vec!["--rate", "--slo"]),
            ("doctor", vec!["--broker", "--devices", "--rate"], vec!["--per-topic"]),
            ("health", vec!["--listen"], vec!["--redis-url", "--format"]),
        ] {
            let mut line = command();
            let help = line.find_subcommand_mut(task).unwrap().render_help().to_string();
            let listed = |flag: &str| help.split_whitespace().any(|word| word == flag);
            assert!(!help.contains("a producer joins") || task == "doctor", "{task}: {help}");
            for flag in takes {
                assert!(listed(flag), "{task} {flag}: {help}");
            }
            for flag in refuses {
                assert!(!listed(flag), "{task} {flag}: {help}");
                let value = (flag != "--per-topic").then_some("json");
                let mut behind = vec!["isochrone", task, flag];
                behind.extend(value);
                assert!(command().try_get_matches_from(behind).is_err(), "{task} {flag}");
                let mut before = vec!["isochrone", flag];
                before.extend(value);
                before.push(task);
                if task == "samples" {
                    before.extend(["--topic", "t"]);
                }
                assert_eq!(
                    invoked(&before).unwrap_err(),
                    format!("`isochrone {task}` takes no {flag}")
                );
            }
        }
    }

    /// The topic whose samples are asked for is no setting: it may be what no topic to publish to is.
    #[test]
    fn samples_are_of_a_topic() {
        for line in [
            &["isochrone", "samples", "--topic", "a/{{b}}"][..],
            &["isochrone", "--topic", "a/{{b}}", "samples"],
            &["isochrone", "--topic", "c", "samples", "--topic", "a/{{b}}"],
        ] {
            let invocation = invoked(line).unwrap();
            let topic = "a/{{b}}".to_owned();
            assert_eq!(invocation.task, Task::Samples { topic });
            assert!(!invocation.source.is_set("topic"), "{line:?}");
        }
        assert_eq!(
            invoked(&["isochrone", "samples"]).unwrap_err(),
            "`isochrone samples` needs --topic"
        );
    }

    fn invoked(line: &[&str]) -> Result<Invocation, String> {
        Invocation::from_matches(&command().get_matches_from(line))
    }
}
