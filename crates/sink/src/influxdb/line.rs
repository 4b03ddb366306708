//! Line protocol: `measurement,tag=value field=value time`. The crates for it are parsers, or clients of one server; what is
//! written here needs this much of it.

use std::fmt::Write as _;

/// One line in the making.
pub struct Line {
    text: String,
    has_fields: bool,
}

impl Line {
    /// Tags in any order; InfluxDB advises the order of their names.
    pub fn new(measurement: &'static str, tags: &[(&'static str, &str)]) -> Line {
        let mut text = measurement.to_owned();
        for (name, value) in tags {
            let _ = write!(text, ",{name}=");
            escape(&mut text, value);
        }
        Line {
            text,
            has_fields: false,
        }
    }

    /// A whole number.
    pub fn integer(&mut self, name: &str, value: u64) {
        self.field(name);
        let _ = write!(self.text, "{}i", value.min(i64::MAX as u64));
    }

    /// A number; one that is none is left out, as the format cannot hold it.
    pub fn float(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.field(name);
            let _ = write!(self.text, "{value}");
        }
    }

    /// True or false.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.field(name);
        let _ = write!(self.text, "{value}");
    }

    /// A word of ours: without anything to escape.
    pub fn word(&mut self, name: &str, value: &'static str) {
        self.field(name);
        let _ = write!(self.text, "\"{value}\"");
    }

    /// Ends it with its time in nanoseconds since the Unix epoch.
    pub fn end(mut self, time_ns: i64) -> String {
        let _ = writeln!(self.text, " {time_ns}");
        self.text
    }

    fn field(&mut self, name: &str) {
        self.text.push(if self.has_fields { ',' } else { ' ' });
        self.has_fields = true;
        let _ = write!(self.text, "{name}=");
    }
}

/// A tag's value. Servers disagree about backslashes, and a line cannot hold control characters: those go percent-encoded.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            ',' | '=' | ' ' => text.extend(['\\', character]),
            '\\' | '\u{0}'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(text, "%{:02X}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything a topic may hold stays one tag of one line.
    #[test]
    fn lines_hold_together() {
        let mut line = Line::new("m", &[("run", "r1"), ("topic", "a b,c=d\\\n/ö\"")]);
        line.integer("n", 3);
        line.float("f", 0.000_000_001);
        line.float("none", f64::NAN);
        line.boolean("b", false);
        line.word("w", "valid");
        assert_eq!(
            line.end(-5),
            "m,run=r1,topic=a\\ b\\,c\\=d%5C%0A/ö\" n=3i,f=0.000000001,b=false,w=\"valid\" -5\n"
        );
    }
}
