//! Settings as a user gets them wrong.

use std::process::Output;

use isochrone_e2e::daemon::output;

fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = output(program, arguments, environment);
    (
        status.code(),
        String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned(),
    )
}

/// Ten wrong variables are ten lines, each with its full name, its value and what would be valid.
#[test]
fn all_problems_are_said_at_once() {
    let wrong = [
        ("ISOCHRONE_RATE", "fast"),
        ("ISOCHRONE_QOS", "3"),
        ("ISOCHRONE_MQTT_VERSION", "4"),
        ("ISOCHRONE_DURATION", "10 parsecs"),
        ("ISOCHRONE_DEVICES", "-1"),
        ("ISOCHRONE_LEASE", "soon"),
        ("ISOCHRONE_RUN", "no spaces"),
        ("ISOCHRONE_PAYLOAD_SIZE", "gauss(1)"),
        ("ISOCHRONE_SCHEDULE", "sometimes"),
        ("ISOCHRONE_LOG_FORMAT", "xml"),
    ];
    let (code, text) = run("isochrone-producer", &[], &wrong);
    assert_eq!(code, Some(2), "{text}");
    for (name, value) in wrong {
        let line = text.lines().find(|line| line.contains(name));
        assert!(
            line.is_some_and(|line| line.contains(value)),
            "{name}={value} in:\n{text}"
        );
    }
}

/// A misspelt name is told the nearest one; what Kubernetes injects and other daemons' settings are not.
#[test]
fn unknown_names_are_told_the_nearest() {
    let (code, text) = run("isochrone-producer", &["--check"], &[("ISOCHRONE_RAET", "5")]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("ISOCHRONE_RAET") && text.contains("ISOCHRONE_RATE"),
        "{text}"
    );
    let injected = [
        ("ISOCHRONE_PLOTTER_PORT", "tcp://10.0.0.1:9463"),
        ("ISOCHRONE_REDIS_SERVICE_HOST", "10.0.0.2"),
        ("ISOCHRONE_REDIS_SERVICE_PORT", "6379"),
        ("ISOCHRONE_PLOTTER_PORT_9463_TCP", "tcp://10.0.0.1:9463"),
        ("ISOCHRONE_GRACE", "3s"),
    ];
    let (code, text) = run("isochrone-producer", &["--check"], &injected);
    assert_eq!(code, Some(0), "{text}");
}

/// Secrets are read as typed, from a variable or a file, and never shown.
#[test]
fn secrets_stay_secret() {
    let folder = tempfile::tempdir().expect("temp dir");
    let file = folder.path().join("password");
    std::fs::write(&file, "012345-from-file\n").expect("file");
    let file = file.display().to_string();
    for (name, value) in [
        ("ISOCHRONE_PASSWORD", "012345-typed"),
        ("ISOCHRONE_PASSWORD_FILE", file.as_str()),
    ] {
        let environment = [("ISOCHRONE_USERNAME", "someone"), (name, value)];
        let (code, text) = run("isochrone-producer", &["--check"], &environment);
        assert_eq!(code, Some(0), "{text}");
        assert!(!text.contains("012345"), "{text}");
    }
    let wrong = [
        ("ISOCHRONE_PASSWORD", "012345"),
        ("ISOCHRONE_PASSWORD_FILE", file.as_str()),
    ];
    let (code, text) = run("isochrone-producer", &["--check"], &wrong);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("ISOCHRONE_PASSWORD_FILE") && !text.contains("012345"),
        "{text}"
    );
}

/// Every program explains itself.
#[test]
fn help_names_the_settings() {
    for (program, name) in [
        ("isochrone-producer", "ISOCHRONE_RATE"),
        ("isochrone-consumer", "ISOCHRONE_CLAIMS"),
        ("isochrone-plotter", "ISOCHRONE_GRACE"),
        ("isochrone", "--rate"),
    ] {
        let (code, text) = run(program, &["--help"], &[]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains(name), "{program}: {text}");
    }
}

/// A wrong flag of the all-in-one is the same error as a wrong variable.
#[test]
fn flags_are_settings() {
    let (code, text) = run("isochrone", &["--rate", "fast"], &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("ISOCHRONE_RATE") && text.contains("fast"), "{text}");
}

/// Broker and store of the all-in-one are its own until one is named; `--check` says so, as `--help` does.
#[test]
fn what_is_embedded_is_said() {
    let (code, text) = run("isochrone", &["--check"], &[]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "ISOCHRONE_BROKER is not set: embedded",
        "ISOCHRONE_REDIS_URL is not set: embedded",
    ] {
        assert!(text.lines().any(|one| one == line), "no {line:?} in {text}");
    }
    let named = [
        ("ISOCHRONE_REDIS_URL", "redis://localhost:6379"),
        ("ISOCHRONE_BROKER", "mqtt://localhost:1883"),
    ];
    let (_, text) = run("isochrone", &["--check"], &named);
    for (name, value) in named {
        assert!(text.contains(&format!("{name}={value}  (environment)")), "{text}");
    }
}

/// What devices share is shown as each will use it; what somebody set stays.
#[test]
fn what_is_shared_is_said() {
    for (arguments, queue, in_flight) in [
        (
            &["--devices", "200"][..],
            "1000  (default with 200 devices)",
            "100  (default with 200 devices)",
        ),
        (
            &["--devices", "200", "--queue", "5000", "--in-flight", "30"],
            "5000  (flags)",
            "30  (flags)",
        ),
        (
            &["--devices", "200", "--broker", "mqtt://localhost:1883"],
            "1000  (default with 200 devices)",
            "1000  (default with 200 devices)",
        ),
    ] {
        let (code, text) = run("isochrone", &[arguments, &["--check"]].concat(), &[]);
        assert_eq!(code, Some(0), "{text}");
        for line in [
            format!("ISOCHRONE_QUEUE={queue}"),
            format!("ISOCHRONE_IN_FLIGHT={in_flight}"),
        ] {
            assert_eq!(
                text.lines().filter(|one| *one == line).count(),
                1,
                "no {line:?} in {text}"
            );
        }
    }
}

/// A size that a device's name does not fit into is one clear line, once names are known.
#[test]
fn a_payload_size_below_a_devices_name_is_said() {
    let name = "a-long-name-".repeat(10);
    let payload = r#"{"device":"{{device}}"}"#;
    let arguments = [
        "--payload",
        payload,
        "--payload-size",
        "150",
        "--device-name",
        &name,
        "--devices",
        "1",
    ];
    let (code, text) = run("isochrone", &arguments, &[]);
    assert!(code.is_some_and(|code| code != 0), "{text}");
    assert!(
        text.contains("ISOCHRONE_PAYLOAD_SIZE") && text.contains(&name),
        "{text}"
    );
}
