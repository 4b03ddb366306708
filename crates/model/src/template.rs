//! Templates of identities, topics and device names: text with names in double braces.

use std::fmt;

/// A parsed template such as `isochrone/{{run}}/{{device}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// A text that is no template. The messages never repeat the text around the fault: it may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// A name that means nothing here.
    #[error("unknown {{{{{name}}}}}; known here: {known}")]
    Unknown {
        /// The name as written.
        name: String,
        /// What would be valid, in braces, with commas between.
        known: String,
    },
    /// Opening braces that are never closed.
    #[error("{{{{ at byte {0} is never closed by }}}}")]
    Unclosed(usize),
}

impl Template {
    /// Parses `text`, in which the names of `allowed` may stand in double braces, with spaces around them or not.
    pub fn parse(text: &str, allowed: &[&str]) -> Result<Template, BadTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let at = text.len() - after.len() - 2;
            let (name, behind) = after.split_once("}}").ok_or(BadTemplate::Unclosed(at))?;
            let name = name.trim();
            if !allowed.contains(&name) {
                let known: Vec<String> = allowed.iter().map(|name| format!("{{{{{name}}}}}")).collect();
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                return Err(BadTemplate::Unknown {
                    name: name.to_owned(),
                    known,
                });
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template { parts })
    }

    /// The text with each name replaced by its value in `values`; by nothing when it has none there.
    pub fn render(&self, values: &[(&str, &str)]) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Name(name) => {
                    let value = values.iter().find(|(other, _)| *other == name.as_str());
                    text.push_str(value.map_or("", |(_, value)| *value));
                }
            }
        }
        text
    }

    /// True when `name` stands in the template.
    pub fn uses(&self, name: &str) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Name(other) if other == name))
    }
}

/// What [`Template::parse`] reads back as the same.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Name(name) => write!(f, "{{{{{name}}}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 3] = ["run", "device", "n"];

    proptest! {
        /// Nothing panics; what is taken is shown as what is read back as the same.
        #[test]
        fn round_trip(text in "([a-z/{} ]|\\{\\{run\\}\\}|\\{\\{ n \\}\\}){0,12}") {
            if let Ok(template) = Template::parse(&text, &NAMES) {
                prop_assert_eq!(Template::parse(&template.to_string(), &NAMES), Ok(template));
            }
        }

        /// Text without braces stands for itself.
        #[test]
        fn plain(text in "[^{]*") {
            prop_assert_eq!(Template::parse(&text, &[]).unwrap().render(&[]), text);
        }
    }

    #[test]
    fn renders() {
        let template = Template::parse("a/{{run}}/{{ device }}{{n}}!", &NAMES).unwrap();
        assert_eq!(
            template.render(&[("run", "r1"), ("device", "{{n}}"), ("n", "7")]),
            "a/r1/{{n}}7!"
        );
        assert!(template.uses("n") && !template.uses("producer"));
    }

    #[test]
    fn faults_are_named() {
        let unknown = Template::parse("x {{devise}}", &["run", "device"]).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "unknown {{devise}}; known here: {{run}}, {{device}}"
        );
        let unclosed = Template::parse("secret{{run", &["run"]).unwrap_err();
        assert_eq!(unclosed.to_string(), "{{ at byte 6 is never closed by }}");
    }
}
