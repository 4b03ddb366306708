//! How a text becomes a value: each type's own parser, and one phrase that says what would be valid.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use isochrone_model::{
    id::{Domain, RunName},
    payload::{SizeSpec, StampPlace},
    quantity::{self, BadDuration},
    rate::{BadRate, Rate},
    schedule::ScheduleKind,
    slo::{self, Objective},
    thinning::Thinning,
};

use super::{
    hide::without_secrets,
    types::{Ack, AtEnd, ClaimUnit, LogFormat, OtlpProtocol, Secret, Temporality, WaitForConsumer},
};

/// A type that a setting may have.
pub trait Value: Sized {
    /// What would be valid, as it fits after "must be".
    const VALID: &'static str;
    /// Whether the text must never be shown.
    const SECRET: bool = false;
    /// Whether the text is a path, which `X_FILE` would only confuse.
    const PATH: bool = false;

    /// Reads the text. The error may add a detail to [`Value::VALID`]; it may be empty.
    fn parse(text: &str) -> Result<Self, String>;
    /// The value of a setting that is not set and has no default.
    fn unset() -> Option<Self> {
        None
    }
    /// For `Debug`: never a secret.
    fn show(&self) -> String;
}

impl<T: Value> Value for Option<T> {
    const VALID: &'static str = T::VALID;
    const SECRET: bool = T::SECRET;
    const PATH: bool = T::PATH;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn unset() -> Option<Self> {
        Some(None)
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "unset".to_owned(), T::show)
    }
}

/// Implements [`Value`] over `FromStr` and `Debug`.
macro_rules! from_str {
    ($($type:ty: $valid:literal, detail $detail:literal);* $(;)?) => {
        $(impl Value for $type {
            const VALID: &'static str = $valid;
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|error| if $detail { format!("{error}") } else { String::new() })
            }
            fn show(&self) -> String {
                format!("{self:?}")
            }
        })*
    };
}

from_str! {
    u8: "a whole number from 0 to 255", detail false;
    u16: "a whole number from 0 to 65535", detail false;
    u32: "a whole number from 0 to 4294967295", detail false;
    u64: "a whole number from 0 to 18446744073709551615", detail false;
    usize: "a whole number, 0 or more", detail false;
    SocketAddr: "an address and a port such as 0.0.0.0:9461 or [::]:9461", detail false;
    RunName: "1 to 128 of the characters A-Z a-z 0-9 . _ -", detail false;
    ScheduleKind: "constant, jitter(20%), poisson or burst(10,1s)", detail true;
    SizeSpec: "a size such as 100 or 64KiB, gauss(100,5) or uniform(64,1024)", detail true;
    LogFormat: "text or json", detail false;
    ClaimUnit: "topic or partition", detail false;
    AtEnd: "exit or idle", detail false;
    Ack: "received or stored", detail false;
    OtlpProtocol: "http/protobuf or grpc", detail false;
    Temporality: "cumulative or delta", detail false;
    WaitForConsumer: "true, false or how long at most, such as 30s", detail false;
}

impl Value for Rate {
    const VALID: &'static str = "messages a second such as 1000, 0.5 or 1/30s, or max";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| match error {
            BadRate::Text(_) => String::new(),
            BadRate::TooFast | BadRate::TooSlow => error.to_string(),
        })
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for bool {
    const VALID: &'static str = "true or false";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    const VALID: &'static str = "a number";
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(String::new()),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const VALID: &'static str = "a text";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        format!("{:?}", without_secrets(self))
    }
}

impl Value for PathBuf {
    const VALID: &'static str = "a path";
    const PATH: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(PathBuf::from(text))
    }
    fn show(&self) -> String {
        format!("{:?}", self.display().to_string())
    }
}

impl Value for Secret {
    const VALID: &'static str = "a text";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Secret::new(text))
    }
    fn show(&self) -> String {
        "***".to_owned()
    }
}

impl Value for Duration {
    const VALID: &'static str = "a duration such as 250ms, 30s or 5m";
    fn parse(text: &str) -> Result<Self, String> {
        quantity::duration(text).map_err(|error| match error {
            BadDuration::Text(_) => String::new(),
            BadDuration::TooLong(_) => "longer than 136 years".to_owned(),
        })
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for Domain {
    const VALID: &'static str = "a number from 0 to 4294967295";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Domain).map_err(|_| String::new())
    }
    fn show(&self) -> String {
        format!("{}", self.0)
    }
}

impl Value for Thinning {
    const VALID: &'static str = "all, off or a share such as 1/10";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| String::new())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for StampPlace {
    const VALID: &'static str = "text, bytes or property";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(StampPlace::Text),
            "bytes" => Ok(StampPlace::Bytes),
            "property" => Ok(StampPlace::Property),
            _ => Err(String::new()),
        }
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

/// Shows a list item by item.
macro_rules! list {
    ($item:ty: $valid:literal, $parse:expr) => {
        impl Value for Vec<$item> {
            const VALID: &'static str = $valid;
            fn parse(text: &str) -> Result<Self, String> {
                let parse: fn(&str) -> Result<$item, String> = $parse;
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(parse)
                    .collect()
            }
            fn show(&self) -> String {
                format!(
                    "[{}]",
                    self.iter().map(Value::show).collect::<Vec<_>>().join(", ")
                )
            }
        }
    };
}

list!(String: "texts separated by commas", String::parse);
list!(f64: "numbers separated by commas", f64::parse);
impl Value for Vec<Objective> {
    const VALID: &'static str = "objectives such as p99<50ms, max(transit)<1s, loss<0.01%";
    fn parse(text: &str) -> Result<Self, String> {
        slo::list(text)
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}
