//! Settings: declared once, in `table.rs`; parsing, `--help`, `docs/settings.md` and flags all come from there.

mod check;
mod env_file;
mod help;
mod hide;
mod load;
mod names;
mod rules;
mod source;
mod table;
mod types;
mod value;

pub use env_file::env_file;
pub use help::{help, reference};
pub use hide::without_secrets;
pub use load::{All, Effective, Loaded, Problem, Problems, RoleSettings, load, load_all};
pub use rules::BROKER_SCHEMES;
pub use source::Source;
pub use table::{Common, ConsumerSettings, PlotterSettings, ProducerSettings, declarations};
pub use types::{Ack, AtEnd, BadWord, ClaimUnit, LogFormat, OtlpProtocol, Secret, Temporality, WaitForConsumer};
pub use value::Value;

use isochrone_model::schedule::ScheduleSpec;
use isochrone_store::types::Role;

/// What every variable begins with.
pub const PREFIX: &str = "ISOCHRONE_";

/// One setting, as data.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// The field's name: the variable's without its prefix, in lower case.
    pub field: &'static str,
    /// The text used when it is not set.
    pub default: Option<&'static str>,
    /// What it does, one or a few sentences.
    pub help: String,
    /// What is valid, as it fits after "must be".
    pub valid: &'static str,
    /// Who reads it; all three: everyone.
    pub readers: &'static [Role],
    /// Its value is never shown.
    pub secret: bool,
    /// `<NAME>_FILE` may name a file that holds the value.
    pub file: bool,
}

impl ProducerSettings {
    /// When a device's messages are due.
    pub fn schedule_spec(&self) -> ScheduleSpec {
        ScheduleSpec {
            rate: self.rate,
            kind: self.schedule,
            ramp: self.ramp,
            warmup: self.warmup,
            duration: self.duration,
            count: self.count,
        }
    }
}

impl Declaration {
    /// The environment variable: `ISOCHRONE_RATE`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.field.to_ascii_uppercase())
    }

    /// The flag of the all-in-one: `--rate`.
    pub fn flag(&self) -> String {
        format!("--{}", self.field.replace('_', "-"))
    }
}
