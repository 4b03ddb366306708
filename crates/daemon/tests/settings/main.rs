//! Settings as a user meets them: names, values, files, problems, help and the reference page.

mod reference;
mod secrets;
mod sources;
mod together;
mod values;

use std::ffi::OsString;

use isochrone_daemon::settings::{Loaded, Problems, ProducerSettings, RoleSettings, Source, load, load_all};

fn source(variables: &[(&str, &str)]) -> Source {
    Source::from_variables(
        variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value))),
    )
}

fn producer(variables: &[(&str, &str)]) -> Result<Loaded<ProducerSettings>, Problems> {
    load(&source(variables))
}

fn lines<S: RoleSettings>(variables: &[(&str, &str)]) -> Vec<String> {
    match load::<S>(&source(variables)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

/// With nothing set, each daemon has settings, and every default is valid.
#[test]
fn defaults_serve() {
    assert!(load_all(&source(&[])).is_ok(), "{:?}", load_all(&source(&[])).err());
    let producer = producer(&[]).unwrap();
    assert_eq!(producer.settings.broker, "mqtt://localhost:1883");
    assert_eq!(producer.common.redis_url, ["redis://localhost:6379"]);
}

/// Ten wrong variables at once give ten lines, each with the full name and what would be valid.
#[test]
fn all_problems_are_told_at_once() {
    let wrong: &[(&str, &str)] = &[
        ("ISOCHRONE_QOS", "9"),
        ("ISOCHRONE_RATE", "fast"),
        ("ISOCHRONE_DEVICES", "-1"),
        ("ISOCHRONE_LEASE", "5"),
        ("ISOCHRONE_LISTEN", "here"),
        ("ISOCHRONE_STAMP", "ink"),
        ("ISOCHRONE_PASSWORD", "{{secret}}"),
        ("ISOCHRONE_TLS_KEY", "/key.pem"),
        ("ISOCHRONE_PAYLOAD_SIZE", "3"),
        ("ISOCHRONE_RATTE", "1"),
    ];
    let lines = lines::<ProducerSettings>(wrong);
    assert_eq!(lines.len(), 10, "{lines:#?}");
    for name in [
        "QOS", "RATE", "DEVICES", "LEASE", "LISTEN", "STAMP", "PASSWORD", "TLS_CERT", "RATTE",
    ] {
        let name = format!("ISOCHRONE_{name}");
        assert_eq!(
            lines.iter().filter(|line| line.starts_with(&name)).count(),
            1,
            "{name} in {lines:#?}"
        );
    }
    let unnamed = lines
        .iter()
        .find(|line| !line.contains("must be") && !line.contains("did you mean"));
    assert_eq!(unnamed, None);
    assert!(!lines.iter().any(|line| line.contains("secret")), "{lines:#?}");
}
