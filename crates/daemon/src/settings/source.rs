//! Where settings come from: layers of raw strings, the higher over the lower. Nothing guesses types, so `012345` stays
//! a string.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use figment::{
    Error, Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Tag, Value},
};

use super::{Declaration, PREFIX, load::Problem, names, table::declarations};

/// The layers, merged; and what was wrong with names and files in them.
#[derive(Clone, Debug)]
pub struct Source {
    figment: Figment,
    problems: Vec<Problem>,
}

/// One text and where it came from.
pub(super) struct Found {
    pub text: String,
    pub origin: String,
}

/// A figment provider of plain strings.
struct Raw {
    origin: String,
    values: BTreeMap<String, String>,
}

impl Source {
    /// This process's environment.
    pub fn environment() -> Source {
        Source::from_variables(std::env::vars_os())
    }

    /// Environment variables as given; those without the prefix are left alone.
    pub fn from_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Source {
        let mut source = Source {
            figment: Figment::new(),
            problems: Vec::new(),
        };
        let mut texts = BTreeMap::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            match value.to_str() {
                Some("") => {}
                Some(text) => drop(texts.insert(name.to_owned(), text.to_owned())),
                None => source.problems.push(Problem::new(
                    name,
                    format!("{name} is not UTF-8: must be a text in UTF-8"),
                )),
            }
        }
        source.layer("environment", texts);
        source
    }

    /// Puts flags over what is there: `("rate", "100")` or `("password_file", "/run/secrets/password")`. Later flags win.
    #[must_use]
    pub fn flags<'a>(mut self, flags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Source {
        let texts = flags
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(field, text)| {
                (
                    format!("{PREFIX}{}", field.replace('-', "_").to_ascii_uppercase()),
                    text.to_owned(),
                )
            })
            .collect();
        self.layer("flags", texts);
        self
    }

    /// Puts other defaults under what is there.
    #[must_use]
    pub fn defaults<'a>(mut self, defaults: impl IntoIterator<Item = (&'a str, &'a str)>) -> Source {
        let values = defaults
            .into_iter()
            .map(|(field, text)| (field.to_owned(), text.to_owned()))
            .collect();
        self.figment = self.figment.join(Raw {
            origin: "default".to_owned(),
            values,
        });
        self
    }

    /// Whether a setting was given by environment or flags (not by other defaults).
    pub fn is_set(&self, field: &str) -> bool {
        self.find(field).is_some_and(|found| found.origin != "default")
    }

    pub(super) fn find(&self, field: &str) -> Option<Found> {
        let value = self.figment.find_value(field).ok()?;
        let origin = self
            .figment
            .get_metadata(value.tag())
            .map(|metadata| metadata.name.to_string());
        let text = value.into_string()?;
        Some(Found {
            text,
            origin: origin.unwrap_or_default(),
        })
    }

    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Sorts one layer's names: settings, files of settings, what is not ours, and what nobody knows.
    fn layer(&mut self, origin: &str, texts: BTreeMap<String, String>) {
        let mut values = BTreeMap::new();
        for declaration in declarations() {
            let variable = declaration.variable();
            let path = declaration
                .file
                .then(|| texts.get(&format!("{variable}_FILE")))
                .flatten();
            match (texts.get(&variable), path) {
                (Some(_), Some(_)) => self.problems.push(Problem::new(
                    &variable,
                    format!("{variable} and {variable}_FILE are both set: must be one of them"),
                )),
                (Some(text), None) => drop(values.insert(declaration.field.to_owned(), text.clone())),
                (None, Some(path)) => self.file(declaration, Path::new(path)),
                (None, None) => {}
            }
        }
        self.figment = std::mem::take(&mut self.figment).merge(Raw {
            origin: origin.to_owned(),
            values,
        });
        for (name, text) in &texts {
            if !names::known(name) && !names::injected(name, text) {
                self.problems.push(Problem::new(name, names::unknown(name)));
            }
        }
    }

    fn file(&mut self, declaration: &Declaration, path: &Path) {
        let variable = format!("{}_FILE", declaration.variable());
        let text = match fs::read(path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()))
        {
            Ok(text) => text,
            Err(cause) => {
                let line = format!(
                    "{variable} is {:?}: must be a file that can be read ({cause})",
                    path.display().to_string()
                );
                // Named without `_FILE` as well, so that no later check speaks of the setting.
                self.problems.push(Problem::new(&declaration.variable(), line));
                return;
            }
        };
        let text = text
            .strip_suffix('\n')
            .map(|text| text.strip_suffix('\r').unwrap_or(text))
            .unwrap_or(&text);
        if text.is_empty() {
            return;
        }
        let values = BTreeMap::from([(declaration.field.to_owned(), text.to_owned())]);
        self.figment = std::mem::take(&mut self.figment).merge(Raw {
            origin: format!("file {}", path.display()),
            values,
        });
    }
}

impl Provider for Raw {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let dict: Dict = self
            .values
            .iter()
            .map(|(key, text)| (key.clone(), Value::String(Tag::Default, text.clone())))
            .collect();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}
