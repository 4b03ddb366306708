//! How single settings are read where their type alone says too little.

use std::{ops::RangeBounds, time::Duration};

use isochrone_model::{quantity, template::Template};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{types::Secret, value::Value};

/// Reads an optional setting with a reader of the plain one.
macro_rules! some {
    ($read:expr) => {
        |text| $read(text).map(Some)
    };
}
pub(super) use some;

/// What templates of a device may name.
const DEVICE: &[&str] = &["run", "device", "producer", "n"];
/// What templates of a claim may name; `device` is the first that shares the response topic.
const CLAIM: &[&str] = &["run", "device", "topic"];

pub fn within<T: Value + PartialOrd>(text: &str, range: impl RangeBounds<T>) -> Result<T, String> {
    T::parse(text).and_then(|value| {
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(String::new())
        }
    })
}

pub fn positive(text: &str) -> Result<f64, String> {
    f64::parse(text).and_then(|value| if value > 0.0 { Ok(value) } else { Err(String::new()) })
}

pub fn positive_time(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_nanos(1)..)
}

/// `unlimited`, or what `read` reads.
pub fn unlimited<T>(text: &str, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text == "unlimited" {
        Ok(None)
    } else {
        read(text).map(Some)
    }
}

pub fn whole_seconds(text: &str) -> Result<Duration, String> {
    seconds_up_to(text, u64::from(u16::MAX))
}

pub fn whole_seconds_long(text: &str) -> Result<Duration, String> {
    seconds_up_to(text, u64::from(u32::MAX))
}

fn seconds_up_to(text: &str, most: u64) -> Result<Duration, String> {
    match Duration::parse(text)? {
        whole if whole.subsec_nanos() == 0 && whole.as_secs() <= most => Ok(whole),
        _ => Err(String::new()),
    }
}

pub fn byte_size(text: &str) -> Result<u64, String> {
    match quantity::size(text) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(String::new()),
    }
}

/// `100ms..10s`
pub fn reconnect(text: &str) -> Result<(Duration, Duration), String> {
    let (first, longest) = text.split_once("..").ok_or_else(String::new)?;
    let (first, longest) = (positive_time(first.trim())?, positive_time(longest.trim())?);
    if first <= longest {
        Ok((first, longest))
    } else {
        Err(String::new())
    }
}

impl Value for (Duration, Duration) {
    const VALID: &'static str = "two durations such as 100ms..10s";
    fn parse(text: &str) -> Result<Self, String> {
        reconnect(text)
    }
    fn show(&self) -> String {
        format!("{:?}..{:?}", self.0, self.1)
    }
}

pub fn buckets(text: &str) -> Result<Vec<f64>, String> {
    let bounds = Vec::<f64>::parse(text)?;
    let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if rising && bounds.first().is_some_and(|first| *first > 0.0) {
        Ok(bounds)
    } else {
        Err(String::new())
    }
}

pub fn mqtt_version(text: &str) -> Result<String, String> {
    match text {
        "3.1.1" | "5" => Ok(text.to_owned()),
        _ => Err(String::new()),
    }
}

pub fn log_filter(text: &str) -> Result<String, String> {
    // EnvFilter takes any word for a target, and `ISOCHRONE_LOG=inof` would silence everything.
    let level =
        |word: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&word.to_ascii_lowercase().as_str());
    let known = text
        .split(',')
        .map(str::trim)
        .all(|part| part.contains(['=', '[']) || level(part));
    if known && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err(String::new())
    }
}

/// `http://…` or `https://…` without a user and a query: secrets have settings of their own, and paths are added to it.
pub fn http_url(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if !["http", "https"].contains(&url.scheme()) || url.host().is_none() => Err(String::new()),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => Err("no user in it".to_owned()),
        Ok(url) if url.query().is_some() || url.fragment().is_some() => Err("no query in it".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err(String::new())
    } else {
        Ok(text.to_owned())
    }
}

/// Headers that say how a request is written.
const OUR_HEADERS: [&str; 4] = ["content-type", "content-encoding", "content-length", "host"];

/// `name=value,name=value`; the error must not tell what a value is.
pub fn header_list(text: &str) -> Result<Secret, String> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    // Each % begins a byte in two hexadecimal digits.
    let is_encoded = |value: &str| {
        let escapes = value.split('%').skip(1).map(str::as_bytes);
        escapes
            .map(|escape| escape.get(..2))
            .all(|digits| digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
    };
    let is_ours = |name: &str| OUR_HEADERS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    let is_valid = |pair: &str| {
        pair.split_once('=').is_some_and(|(name, value)| {
            let name = name.trim();
            is_name(name) && !is_ours(name) && is_encoded(value)
        })
    };
    if text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .all(is_valid)
    {
        Ok(Secret::new(text))
    } else {
        Err(String::new())
    }
}

/// Schemes that a transport can be opened by.
pub const BROKER_SCHEMES: [&str; 3] = ["mqtt", "mqtts", "memory"];

pub fn broker_url(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if !BROKER_SCHEMES.contains(&url.scheme()) => {
            Err(format!("its scheme is none of {}:", BROKER_SCHEMES.join(":, ")))
        }
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What goes into an HTTP header as it is.
pub fn header_secret(text: &str) -> Result<Secret, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Secret::new(text))
    } else {
        Err(String::new())
    }
}

/// Whole days.
pub fn whole_days(text: &str) -> Result<Duration, String> {
    const DAY: u64 = 86_400;
    match Duration::parse(text)? {
        whole
            if whole.subsec_nanos() == 0
                && whole.as_secs() % DAY == 0
                && (1..=36_500).contains(&(whole.as_secs() / DAY)) =>
        {
            Ok(whole)
        }
        _ => Err(String::new()),
    }
}

pub fn urls(text: &str) -> Result<Vec<String>, String> {
    let list = Vec::<String>::parse(text)?;
    let known = |url: &String| {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        Url::parse(url).is_ok() && ["redis", "rediss", "memory"].contains(&scheme)
    };
    if !list.is_empty() && list.iter().all(known) {
        Ok(list)
    } else {
        Err(String::new())
    }
}

pub fn name_list(text: &str) -> Result<Vec<String>, String> {
    let list = Vec::<String>::parse(text)?;
    if list.iter().all(|name| name.len() <= 255) {
        Ok(list)
    } else {
        Err(String::new())
    }
}

impl Value for Template {
    const VALID: &'static str = "a text with placeholders";
    fn parse(text: &str) -> Result<Self, String> {
        template(text, DEVICE)
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

fn template(text: &str, allowed: &[&str]) -> Result<Template, String> {
    Template::parse(text, allowed).map_err(|error| error.to_string())
}

pub fn device_template(text: &str) -> Result<Template, String> {
    template(text, DEVICE)
}

pub fn claim_template(text: &str) -> Result<Template, String> {
    template(text, CLAIM)
}

pub fn device_name(text: &str) -> Result<Template, String> {
    template(text, &["run", "producer", "n"])
}

pub fn topic_template(text: &str) -> Result<Template, String> {
    topic(text, DEVICE)
}

pub fn response_template(text: &str) -> Result<Template, String> {
    topic(text, &["run", "device", "producer", "n", "topic"])
}

fn topic(text: &str, allowed: &[&str]) -> Result<Template, String> {
    if text.contains(['+', '#', '\0']) {
        return Err(String::new());
    }
    template(text, allowed)
}

/// The error must not tell what the secret holds.
pub fn secret_of_device(text: &str) -> Result<Secret, String> {
    device_template(text)
        .map(|_| Secret::new(text))
        .map_err(|_| String::new())
}

/// As for a device.
pub fn secret_of_claim(text: &str) -> Result<Secret, String> {
    claim_template(text)
        .map(|_| Secret::new(text))
        .map_err(|_| String::new())
}
