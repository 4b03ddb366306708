//! Loading: everything is read, every problem is found, and only then something is refused.

use std::fmt;

use isochrone_store::types::Role;

use super::{
    Source, check,
    hide::without_secrets,
    table::{Common, ConsumerSettings, PlotterSettings, ProducerSettings, declarations},
};

/// One thing that is wrong, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable it is about.
    pub variable: String,
    /// The line: full variable name, value unless secret, what would be valid.
    pub line: String,
}

/// All that is wrong. `Display` gives one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

/// One setting as it will be used, for `--check`; a secret shows as `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The environment variable.
    pub variable: String,
    /// Its text; `None` when it is not set and has no default.
    pub text: Option<String>,
    /// `default`, `environment`, `flags` or `file <path>`.
    pub origin: String,
}

/// What one daemon needs.
#[derive(Clone, Debug)]
pub struct Loaded<S> {
    /// What every daemon reads.
    pub common: Common,
    /// What this one reads.
    pub settings: S,
    /// All of both, as text.
    pub effective: Vec<Effective>,
}

/// Settings of one role. Implemented by the three structs and nothing else.
pub trait RoleSettings: Sized + Send + 'static {
    /// Who reads them.
    const ROLE: Role;
    /// Reads every field.
    #[doc(hidden)]
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
    /// Finds what does not go together.
    #[doc(hidden)]
    fn check(&self, common: &Common, findings: &mut check::Findings<'_>);
}

/// Reads single settings and notes what is wrong.
pub struct Reader<'a> {
    source: &'a Source,
    problems: Vec<Problem>,
    effective: Vec<Effective>,
}

/// Loads what one daemon needs.
pub fn load<S: RoleSettings>(source: &Source) -> Result<Loaded<S>, Problems> {
    let mut reader = Reader::new(source);
    let loaded = Common::read(&mut reader).zip(S::read(&mut reader));
    if let Some((common, settings)) = &loaded {
        let mut findings = check::Findings::new(&mut reader.problems);
        check::common(common, &mut findings);
        settings.check(common, &mut findings);
    }
    match loaded {
        Some((common, settings)) if reader.problems.is_empty() => Ok(Loaded {
            common,
            settings,
            effective: reader.effective,
        }),
        _ => Err(Problems(reader.problems)),
    }
}

/// Everything, for a process that does all of it.
#[derive(Clone, Debug)]
pub struct All {
    /// What every daemon reads.
    pub common: Common,
    /// What producers read.
    pub producer: ProducerSettings,
    /// What consumers read.
    pub consumer: ConsumerSettings,
    /// What plotters read.
    pub plotter: PlotterSettings,
    /// All of it, as text.
    pub effective: Vec<Effective>,
}

/// Loads the settings of all three daemons.
pub fn load_all(source: &Source) -> Result<All, Problems> {
    let (producer, consumer, plotter) = (
        load::<ProducerSettings>(source),
        load::<ConsumerSettings>(source),
        load::<PlotterSettings>(source),
    );
    let mut problems = Problems::default();
    for found in [producer.as_ref().err(), consumer.as_ref().err(), plotter.as_ref().err()]
        .into_iter()
        .flatten()
    {
        for problem in &found.0 {
            if !problems.0.contains(problem) {
                problems.0.push(problem.clone());
            }
        }
    }
    match (producer, consumer, plotter) {
        (Ok(producer), Ok(consumer), Ok(plotter)) => {
            let mut effective = producer.effective;
            for one in consumer.effective.into_iter().chain(plotter.effective) {
                if !effective.contains(&one) {
                    effective.push(one);
                }
            }
            Ok(All {
                common: producer.common,
                producer: producer.settings,
                consumer: consumer.settings,
                plotter: plotter.settings,
                effective,
            })
        }
        _ => Err(problems),
    }
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source) -> Reader<'a> {
        Reader {
            source,
            problems: source.problems().to_vec(),
            effective: Vec::new(),
        }
    }

    /// One setting. A text that is not valid is noted, and the default stands in for it, so that checks go on.
    pub(super) fn read<T: super::Value>(&mut self, field: &str, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let declaration = declarations().iter().find(|declaration| declaration.field == field)?;
        let default = || declaration.default.and_then(|text| parse(text).ok()).or_else(T::unset);
        let variable = declaration.variable();
        let Some(found) = self.source.find(field) else {
            let text = declaration.default.map(str::to_owned);
            self.effective.push(Effective {
                variable,
                text,
                origin: "default".to_owned(),
            });
            return default();
        };
        let shown = if declaration.secret {
            "***".to_owned()
        } else {
            without_secrets(&found.text)
        };
        let value = match parse(&found.text) {
            Ok(value) => Some(value),
            Err(detail) => {
                let shown = if declaration.secret {
                    String::new()
                } else {
                    format!(" is {:?}", shorten(&shown))
                };
                let detail = if detail.is_empty() || declaration.secret {
                    String::new()
                } else {
                    format!(" ({})", without_secrets(&detail))
                };
                let place = if found.origin.starts_with("file ") {
                    format!(" (from {})", found.origin)
                } else {
                    String::new()
                };
                let line = format!("{variable}{shown}{place}: must be {}{detail}", declaration.valid);
                self.problems.push(Problem::new(&variable, line));
                default()
            }
        };
        self.effective.push(Effective {
            variable,
            text: Some(shown),
            origin: found.origin,
        });
        value
    }
}

/// A long value says nothing more in a message.
fn shorten(text: &str) -> String {
    const MOST: usize = 100;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

impl Problem {
    pub(super) fn new(variable: &str, line: String) -> Problem {
        // One problem, one line, whatever the value holds.
        Problem {
            variable: variable.to_owned(),
            line: line.replace(['\n', '\r'], " "),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&problem.line)?;
        }
        Ok(())
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{}={text}  ({})", self.variable, self.origin),
            None => write!(f, "{} is not set", self.variable),
        }
    }
}

/// Implements [`RoleSettings`] by the functions beside.
macro_rules! role {
    ($($struct:ident $role:ident $check:path;)*) => {
        $(impl RoleSettings for $struct {
            const ROLE: Role = Role::$role;
            fn read(reader: &mut Reader<'_>) -> Option<Self> {
                $struct::read(reader)
            }
            fn check(&self, common: &Common, findings: &mut check::Findings<'_>) {
                $check(self, common, findings);
            }
        })*
    };
}

role! {
    ProducerSettings Producer check::producer;
    ConsumerSettings Consumer check::consumer;
    PlotterSettings Plotter check::plotter;
}
