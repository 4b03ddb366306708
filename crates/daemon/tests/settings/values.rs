//! What single settings take.

use isochrone_daemon::settings::{ConsumerSettings, PlotterSettings, ProducerSettings};

use super::{lines, producer};

/// Sentence, variables, line.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// A sentence per row: what is set, and the one line that comes of it (empty: it is accepted).
#[test]
fn each_setting_says_what_is_valid() {
    let table: &[Row<'_>] = &[
        (
            "a QoS beyond 2",
            &[("ISOCHRONE_QOS", "3")],
            "ISOCHRONE_QOS is \"3\": must be 0, 1 or 2",
        ),
        (
            "a version of MQTT that is none",
            &[("ISOCHRONE_MQTT_VERSION", "4")],
            "ISOCHRONE_MQTT_VERSION is \"4\": must be 3.1.1 or 5",
        ),
        (
            "a rate in words",
            &[("ISOCHRONE_RATE", "fast")],
            "ISOCHRONE_RATE is \"fast\": must be messages a second such as 1000, 0.5 or 1/30s, or max",
        ),
        (
            "a rate that is none in a life",
            &[("ISOCHRONE_RATE", "1/600y")],
            "ISOCHRONE_RATE is \"1/600y\": must be messages a second such as 1000, 0.5 or 1/30s, or max (less than one message in 31 years)",
        ),
        (
            "a duration beyond nanoseconds",
            &[("ISOCHRONE_VALID_LATE", "300y")],
            "ISOCHRONE_VALID_LATE is \"300y\": must be a duration above zero such as 1ms (longer than 136 years)",
        ),
        ("a rate each 30 s", &[("ISOCHRONE_RATE", "1/30s")], ""),
        ("flat out", &[("ISOCHRONE_RATE", "max")], ""),
        (
            "no devices",
            &[("ISOCHRONE_DEVICES", "0")],
            "ISOCHRONE_DEVICES is \"0\": must be a whole number from 1 to 1000000",
        ),
        (
            "a duration without a unit",
            &[("ISOCHRONE_DURATION", "10")],
            "ISOCHRONE_DURATION is \"10\": must be a duration above zero such as 10m, or unlimited",
        ),
        ("an unlimited duration", &[("ISOCHRONE_DURATION", "unlimited")], ""),
        (
            "a lease too short to renew",
            &[("ISOCHRONE_LEASE", "100ms")],
            "ISOCHRONE_LEASE is \"100ms\": must be a duration from 1s to 1h",
        ),
        (
            "keys that may go while a lease still holds",
            &[("ISOCHRONE_KEEP", "60s"), ("ISOCHRONE_LEASE", "30s")],
            "ISOCHRONE_KEEP is 60s: must be at least 4 times ISOCHRONE_LEASE, 120s with ISOCHRONE_LEASE=30s",
        ),
        (
            "keys that outlive their leases",
            &[("ISOCHRONE_KEEP", "2m"), ("ISOCHRONE_LEASE", "30s")],
            "",
        ),
        (
            "a run name with a blank",
            &[("ISOCHRONE_RUN", "my run")],
            "ISOCHRONE_RUN is \"my run\": must be 1 to 128 of the characters A-Z a-z 0-9 . _ -",
        ),
        (
            "a log level that is none",
            &[("ISOCHRONE_LOG", "inof")],
            "ISOCHRONE_LOG is \"inof\": must be error, warn, info, debug, trace, or target=level pairs separated by commas",
        ),
        (
            "a log filter by target",
            &[("ISOCHRONE_LOG", "info,isochrone_store=debug")],
            "",
        ),
        (
            "a topic with a wildcard",
            &[("ISOCHRONE_TOPIC", "a/+/b")],
            "ISOCHRONE_TOPIC is \"a/+/b\": must be a topic without + and #, with placeholders from {{run}} {{device}} {{producer}} {{n}}",
        ),
        (
            "a broker that is no URL",
            &[("ISOCHRONE_BROKER", "localhost")],
            "ISOCHRONE_BROKER is \"localhost\": must be a URL such as mqtt://localhost:1883 or mqtts://broker.example.com:8883 (relative URL without a base)",
        ),
        (
            "a broker of a kind that is not known",
            &[("ISOCHRONE_BROKER", "http://x")],
            "ISOCHRONE_BROKER is \"http://x\": must be a URL such as mqtt://localhost:1883 or mqtts://broker.example.com:8883 (its scheme is none of mqtt:, mqtts:, memory:)",
        ),
        (
            "a store that is no Redis",
            &[("ISOCHRONE_REDIS_URL", "http://x")],
            "ISOCHRONE_REDIS_URL is \"http://x\": must be one or several URLs such as redis://localhost:6379 or rediss://:password@host:6380, separated by commas",
        ),
        (
            "a longest backoff below the first",
            &[("ISOCHRONE_RECONNECT", "10s..1s")],
            "ISOCHRONE_RECONNECT is \"10s..1s\": must be two durations such as 100ms..10s, both above zero, the first not the longer",
        ),
        (
            "a keep alive in halves",
            &[("ISOCHRONE_KEEP_ALIVE", "1500ms")],
            "ISOCHRONE_KEEP_ALIVE is \"1500ms\": must be whole seconds from 0s to 65535s",
        ),
        (
            "a word for a truth value",
            &[("ISOCHRONE_TLS_INSECURE", "yes")],
            "ISOCHRONE_TLS_INSECURE is \"yes\": must be true or false",
        ),
        (
            "a certificate without its key",
            &[("ISOCHRONE_TLS_CERT", "/c.pem")],
            "ISOCHRONE_TLS_KEY is not set: must be a path when ISOCHRONE_TLS_CERT is set",
        ),
        (
            "a password alone in MQTT 3.1.1",
            &[("ISOCHRONE_PASSWORD", "x")],
            "ISOCHRONE_USERNAME is not set: must be set beside ISOCHRONE_PASSWORD with MQTT 3.1.1",
        ),
        (
            "the user in the address, the password beside it",
            &[("ISOCHRONE_BROKER", "mqtt://me@localhost"), ("ISOCHRONE_PASSWORD", "x")],
            "",
        ),
        (
            "flat out, and at random times",
            &[("ISOCHRONE_RATE", "max"), ("ISOCHRONE_SCHEDULE", "poisson")],
            "ISOCHRONE_SCHEDULE is \"poisson\": must be constant with ISOCHRONE_RATE=max, which knows no times to send at",
        ),
        (
            "flat out, evenly",
            &[("ISOCHRONE_RATE", "max"), ("ISOCHRONE_SCHEDULE", "constant")],
            "",
        ),
        (
            "a password alone in MQTT 5",
            &[("ISOCHRONE_PASSWORD", "x"), ("ISOCHRONE_MQTT_VERSION", "5")],
            "",
        ),
        (
            "a stamp in a property that MQTT 3.1.1 lacks",
            &[("ISOCHRONE_STAMP", "property")],
            "ISOCHRONE_STAMP is \"property\": must be text or bytes with ISOCHRONE_MQTT_VERSION=3.1.1, which has no properties",
        ),
        (
            "a stamp in a property of MQTT 5",
            &[("ISOCHRONE_STAMP", "property"), ("ISOCHRONE_MQTT_VERSION", "5")],
            "",
        ),
        (
            "nothing left after the warm-up",
            &[("ISOCHRONE_DURATION", "5s"), ("ISOCHRONE_WARMUP", "5s")],
            "ISOCHRONE_DURATION is 5s: must be longer than ISOCHRONE_RAMP and ISOCHRONE_WARMUP together",
        ),
        (
            "a CA for a store without TLS",
            &[("ISOCHRONE_REDIS_TLS_CA", "/dev/null")],
            "ISOCHRONE_REDIS_TLS_CA is \"/dev/null\": must be a PEM file with certificates (there is none in it)\n\
             ISOCHRONE_REDIS_TLS_CA is set: ISOCHRONE_REDIS_URL must begin with rediss://",
        ),
        (
            "a CA that is not there",
            &[("ISOCHRONE_TLS_CA", "/no/ca.pem")],
            "ISOCHRONE_TLS_CA is \"/no/ca.pem\": must be a file that can be read (No such file or directory (os error 2))",
        ),
        ("another daemon's setting", &[("ISOCHRONE_GRACE", "5s")], ""),
        (
            "another daemon's setting, whatever its value",
            &[("ISOCHRONE_GRACE", "soon")],
            "",
        ),
        (
            "a typing mistake",
            &[("ISOCHRONE_DEVICE", "3")],
            "ISOCHRONE_DEVICE is no setting: did you mean ISOCHRONE_DEVICES?",
        ),
        (
            "a file for what is a path itself",
            &[("ISOCHRONE_TLS_CA_FILE", "/ca.pem")],
            "ISOCHRONE_TLS_CA_FILE is no setting: did you mean ISOCHRONE_TLS_CA?",
        ),
        (
            "a typing mistake in the name of a file",
            &[("ISOCHRONE_PASWORD_FILE", "/run/secrets/password")],
            "ISOCHRONE_PASWORD_FILE is no setting: did you mean ISOCHRONE_PASSWORD_FILE?",
        ),
        (
            "a word too many, in the end of which there is a mistake",
            &[("ISOCHRONE_TLS_KEY_FIEL", "/key.pem")],
            "ISOCHRONE_TLS_KEY_FIEL is no setting: did you mean ISOCHRONE_TLS_KEY_FILE?",
        ),
        (
            "a short name near to nothing",
            &[("ISOCHRONE_FOO", "1")],
            "ISOCHRONE_FOO is no setting: --help lists them",
        ),
        (
            "a long name near to nothing",
            &[("ISOCHRONE_KAFKA_BOOTSTRAP", "1")],
            "ISOCHRONE_KAFKA_BOOTSTRAP is no setting: --help lists them",
        ),
        (
            "what Kubernetes injects: a port",
            &[("ISOCHRONE_PLOTTER_PORT", "tcp://10.0.0.1:9463")],
            "",
        ),
        (
            "what Kubernetes injects: a host",
            &[("ISOCHRONE_REDIS_SERVICE_HOST", "10.0.0.1")],
            "",
        ),
        (
            "what Kubernetes injects: a named port",
            &[("ISOCHRONE_PLOTTER_SERVICE_PORT_METRICS", "9463")],
            "",
        ),
        (
            "what Kubernetes injects: an address",
            &[("ISOCHRONE_PLOTTER_PORT_9463_TCP_ADDR", "10.0.0.1")],
            "",
        ),
        (
            "what Kubernetes injects for a service named isochrone",
            &[
                ("ISOCHRONE_PORT", "tcp://10.0.0.1:1"),
                ("ISOCHRONE_SERVICE_HOST", "10.0.0.1"),
            ],
            "",
        ),
        (
            "a port that nobody injected",
            &[("ISOCHRONE_LISTEN_PORT", "9000")],
            "ISOCHRONE_LISTEN_PORT is no setting: did you mean ISOCHRONE_LISTEN?",
        ),
        ("an empty value", &[("ISOCHRONE_QOS", "")], ""),
        (
            "two payloads",
            &[("ISOCHRONE_PAYLOAD", "a"), ("ISOCHRONE_PAYLOAD_FILE", "/dev/null")],
            "ISOCHRONE_PAYLOAD and ISOCHRONE_PAYLOAD_FILE are both set: must be one of them",
        ),
        (
            "a value of two lines",
            &[("ISOCHRONE_RATE", "1\n2")],
            "ISOCHRONE_RATE is \"1\\n2\": must be messages a second such as 1000, 0.5 or 1/30s, or max",
        ),
        (
            "other programs' variables",
            &[("PATH", "x"), ("isochrone_rate", "x")],
            "",
        ),
    ];
    for (sentence, variables, line) in table {
        assert_eq!(lines::<ProducerSettings>(variables).join("\n"), *line, "{sentence}");
    }
}

/// Settings of consumers and plotters, likewise.
#[test]
fn consumers_and_plotters_say_what_is_valid() {
    let claims = |text| lines::<ConsumerSettings>(&[("ISOCHRONE_CLAIMS", text)]).join("\n");
    assert_eq!(
        claims("0"),
        "ISOCHRONE_CLAIMS is \"0\": must be a whole number above zero, or unlimited"
    );
    assert_eq!(claims("unlimited"), "");
    let buckets = |text| lines::<PlotterSettings>(&[("ISOCHRONE_PROMETHEUS_BUCKETS", text)]).join("\n");
    assert_eq!(
        buckets("1,1"),
        "ISOCHRONE_PROMETHEUS_BUCKETS is \"1,1\": must be rising numbers above zero, separated by commas"
    );
    assert_eq!(buckets("0.5,1"), "");
    let slo = |text| lines::<PlotterSettings>(&[("ISOCHRONE_SLO", text)]).join("\n");
    assert!(
        slo("quick").starts_with("ISOCHRONE_SLO is \"quick\": must be objectives such as p99<50ms"),
        "{}",
        slo("quick")
    );
    assert_eq!(slo("p99<50ms, loss<0.01%"), "");
}

/// Nothing guesses a type: what looks like a number stays the text it was.
#[test]
fn a_password_arrives_as_typed() {
    let loaded = producer(&[("ISOCHRONE_USERNAME", "u"), ("ISOCHRONE_PASSWORD", "012345")]).unwrap();
    assert_eq!(loaded.settings.password.unwrap().reveal(), "012345");
    let loaded = producer(&[("ISOCHRONE_USERNAME", "true"), ("ISOCHRONE_PASSWORD", " [1, \"x\"] ")]).unwrap();
    assert_eq!(loaded.settings.password.unwrap().reveal(), " [1, \"x\"] ");
}
