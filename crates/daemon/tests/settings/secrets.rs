//! No secret is shown.

use isochrone_daemon::settings::{PlotterSettings, ProducerSettings, declarations, help, reference, without_secrets};

use super::{lines, producer};

/// A secret is in no `Debug`, no `--check` line and no message; nor is the user part of a URL.
#[test]
fn secrets_are_never_shown() {
    let variables = [
        ("ISOCHRONE_USERNAME", "u"),
        ("ISOCHRONE_PASSWORD", "hunter2"),
        ("ISOCHRONE_BROKER", "mqtt://me:hunter2@localhost"),
        ("ISOCHRONE_REDIS_URL", "redis://:hunter2@a:1,redis://b:2"),
    ];
    let loaded = producer(&variables).unwrap();
    let check: String = loaded.effective.iter().map(|one| format!("{one}\n")).collect();
    for text in [
        format!("{:?}{:?}", loaded.common, loaded.settings),
        format!("{loaded:?}"),
        check.clone(),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(check.contains("ISOCHRONE_PASSWORD=***  (environment)\n"), "{check}");
    assert!(
        check.contains("ISOCHRONE_REDIS_URL=redis://***@a:1,redis://b:2  (environment)\n"),
        "{check}"
    );
    let wrong = lines::<ProducerSettings>(&[
        ("ISOCHRONE_REDIS_URL", "http://:hunter2@a"),
        ("ISOCHRONE_BROKER", "mqtt://:hunter2@["),
    ]);
    assert_eq!(wrong.len(), 2);
    assert!(!wrong.join("\n").contains("hunter2"), "{wrong:#?}");
}

/// Tokens in the address of a back end are refused and not in the message; which settings are secrets is told by help and
/// reference page.
#[test]
fn tokens_in_addresses_are_hidden() {
    const ADDRESSES: [&str; 3] = [
        "ISOCHRONE_ELASTICSEARCH_URL",
        "ISOCHRONE_OTLP_ENDPOINT",
        "ISOCHRONE_INFLUXDB_URL",
    ];
    for address in ADDRESSES {
        for wrong in ["http://h/w?token=hunter2", "ftp://h/w?token=hunter2"] {
            let said = lines::<PlotterSettings>(&[(address, wrong)]).join("\n");
            assert!(said.contains("token=***") && !said.contains("hunter2"), "{said}");
        }
    }
    for declaration in declarations() {
        let variable = declaration.variable();
        let page = reference();
        let row = page
            .lines()
            .find(|line| line.contains(&format!("| `{variable}` |")))
            .unwrap();
        assert_eq!(row.contains(" Secret. |"), declaration.secret, "{row}");
        for role in declaration.readers {
            let text = help(*role);
            let line = text
                .lines()
                .find(|line| line.trim().split(' ').next() == Some(&variable))
                .unwrap();
            assert_eq!(line.ends_with("[file] [secret]"), declaration.secret, "{line}");
        }
    }
}

/// Whatever the text, what stands between `//` and `@` of a URL in it is hidden, and so are the values of its query.
#[test]
fn user_parts_and_queries_of_urls_are_hidden() {
    let table = [
        ("redis://h:1", "redis://h:1"),
        ("redis://u:p@h:1", "redis://***@h:1"),
        ("redis://u:p@h:1,redis://:q@i:2", "redis://***@h:1,redis://***@i:2"),
        ("redis://u:p/w@x@h", "redis://***@h"),
        // Whether a `?` before an `@` begins a query cannot be told, so what follows is not shown either.
        ("redis://u:p?a,b@h", "redis://***@***"),
        ("u:p@h:1", "***@h:1"),
        ("plain text @ home", "plain text @ home"),
        ("http://h:1/a?token=x&db=y", "http://h:1/a?token=***&db=***"),
        ("http://h/?x", "http://h/?***"),
        ("http://h/?", "http://h/?"),
        ("http://h/?token=a=b#c d?e=f", "http://h/?token=*** d?e=f"),
        ("http://h/?mail=a@b&token=x", "http://***@***&token=***"),
        ("http://h/?token=a@bcd", "http://***@***"),
        ("http://h/?token=a@b?c=d&e=f@g&h", "http://***@***&***"),
        ("http://u:p@h/?token=x", "http://***@h/?token=***"),
        ("http://u:p?q@h/?token=x", "http://***@***"),
        ("redis://a/?p=1,redis://b/?p=2", "redis://a/?p=***,redis://b/?p=***"),
        ("h:1/?token=x", "h:1/?token=***"),
        ("h:1/?token=a@bcd", "***@***"),
        ("h/w?token=x", "h/w?token=***"),
        ("h/w?token=a@bcd", "***@***"),
        ("{\"a\":\"b?c=d\"}", "{\"a\":\"b?c=d\"}"),
    ];
    for (text, shown) in table {
        assert_eq!(without_secrets(text), shown, "{text}");
    }
}
