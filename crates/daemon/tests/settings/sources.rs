//! Where values come from.

use std::fs;

use isochrone_daemon::settings::{ProducerSettings, load_all};

use super::{lines, producer, source};

/// `X_FILE` reads the value, without one newline at its end; both set is a problem, and so is a file that is not there.
#[test]
fn values_come_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (secret, rate, empty) = (
        file("password", "012345\n\n"),
        file("rate", "250\r\n"),
        file("empty", "\n"),
    );
    let loaded = producer(&[
        ("ISOCHRONE_USERNAME", "u"),
        ("ISOCHRONE_PASSWORD_FILE", &secret),
        ("ISOCHRONE_RATE_FILE", &rate),
        ("ISOCHRONE_QOS_FILE", &empty),
    ])
    .unwrap();
    assert_eq!(loaded.settings.password.unwrap().reveal(), "012345\n");
    assert_eq!(loaded.settings.rate.to_string(), "250");
    assert_eq!(loaded.settings.qos, 0);
    assert!(
        loaded
            .effective
            .iter()
            .any(|one| one.to_string() == format!("ISOCHRONE_PASSWORD=***  (file {secret})"))
    );

    let both = lines::<ProducerSettings>(&[("ISOCHRONE_RATE", "1"), ("ISOCHRONE_RATE_FILE", &rate)]);
    assert_eq!(
        both,
        ["ISOCHRONE_RATE and ISOCHRONE_RATE_FILE are both set: must be one of them"]
    );
    let missing = lines::<ProducerSettings>(&[("ISOCHRONE_RATE_FILE", "/no/file")]);
    assert_eq!(
        missing,
        [
            "ISOCHRONE_RATE_FILE is \"/no/file\": must be a file that can be read (No such file or directory (os error 2))"
        ]
    );
    // What is wrong in a file is told with the file, a secret without its text.
    let wrong = file("wrong", "fast {{stmp}}\u{7}");
    let rate = lines::<ProducerSettings>(&[("ISOCHRONE_QOS_FILE", &wrong)]).join("\n");
    assert_eq!(
        rate,
        format!("ISOCHRONE_QOS is \"fast {{{{stmp}}}}\\u{{7}}\" (from file {wrong}): must be 0, 1 or 2")
    );
    let user = ("ISOCHRONE_USERNAME", "u");
    let password = lines::<ProducerSettings>(&[user, ("ISOCHRONE_PASSWORD_FILE", &wrong)]).join("\n");
    assert!(
        password.starts_with(&format!("ISOCHRONE_PASSWORD (from file {wrong}): must be")) && !password.contains("fast"),
        "{password}"
    );
    let payload = lines::<ProducerSettings>(&[("ISOCHRONE_PAYLOAD_FILE", &wrong)]).join("\n");
    assert!(
        payload.starts_with(&format!(
            "ISOCHRONE_PAYLOAD_FILE is {wrong:?}: must be a file with a payload template ("
        )),
        "{payload}"
    );
}

/// Flags win over the environment, the environment over other defaults; empty ones change nothing.
#[test]
fn layers_lie_over_one_another() {
    let layers = source(&[
        ("ISOCHRONE_RATE", "5"),
        ("ISOCHRONE_DEVICES", "7"),
        ("ISOCHRONE_QOS", ""),
    ])
    .defaults([
        ("rate", "100"),
        ("devices", "10"),
        ("duration", "10s"),
        ("claims", "unlimited"),
    ])
    .flags([("rate", "9"), ("payload-size", "128"), ("qos", "")]);
    let all = load_all(&layers).unwrap();
    assert_eq!(all.producer.rate.to_string(), "9");
    assert_eq!(all.producer.devices, 7);
    assert_eq!(all.producer.duration, Some(std::time::Duration::from_secs(10)));
    assert_eq!(all.consumer.claims, None);
    assert!(layers.is_set("rate") && layers.is_set("devices") && !layers.is_set("duration"));
    let wrong = load_all(&source(&[]).flags([("rate", "x"), ("speed", "1")])).unwrap_err();
    assert_eq!(wrong.0.len(), 2, "{wrong}");
}
