//! Settings as a user meets them: names, values, files, problems, help and the reference page.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use isochrone_daemon::settings::{
    ConsumerSettings, Loaded, PlotterSettings, Problems, ProducerSettings, RoleSettings, Source, declarations, help,
    load, load_all, reference, without_secrets,
};
use isochrone_store::types::Role;

/// A certificate like any other.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBiTCCAS+gAwIBAgIUSb3eHLTb5gt9LrLpXyOevzRjJ/AwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOSXNvY2hyb25lIHRlc3QwIBcNMjYxMTI2MDUzNjIzWhgPMjEy
NjExMDIwNTM2MjNaMBkxFzAVBgNVBAMMDklzb2Nocm9uZSB0ZXN0MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEs6HB5wR52teobTOL/feOUtcxM87V9NZBaFc6HNVC
U0IFaG0+M/entNDb+JqsNXu7B+gn9uW0OMhAmPqYBqnO46NTMFEwHQYDVR0OBBYE
FLRTVlkWN6lcQHZ6I/4NpR30hz/mMB8GA1UdIwQYMBaAFLRTVlkWN6lcQHZ6I/4N
pR30hz/mMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIgLruleV1C
z38yUocY4re0rLc694nhTJ5s69kmCIHd52YCIQDVpjC8aKYNXT2xWkvW7+T3KkmO
bUcHxxjaPUGQs9XGbw==
-----END CERTIFICATE-----
";

/// Sentence, variables, line.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

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

/// Where a broker cannot say how many QoS 2 messages it takes, few are in flight, unless somebody says otherwise.
#[test]
fn in_flight_follows_qos_and_version() {
    for (qos, version, set, in_flight) in [
        ("0", "3.1.1", None, 1_000),
        ("1", "3.1.1", None, 1_000),
        ("2", "3.1.1", None, 20),
        ("2", "5", None, 1_000),
        ("2", "3.1.1", Some("300"), 300),
        ("1", "5", Some("7"), 7),
    ] {
        let mut variables = vec![("ISOCHRONE_QOS", qos), ("ISOCHRONE_MQTT_VERSION", version)];
        variables.extend(set.map(|set| ("ISOCHRONE_IN_FLIGHT", set)));
        let settings = producer(&variables).unwrap().settings;
        assert_eq!(settings.in_flight(), in_flight, "{variables:?}");
    }
}

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

/// Who we are at Elasticsearch, and where that is, go together; no secret is told.
#[test]
fn elasticsearch_settings_go_together() {
    const URL: (&str, &str) = ("ISOCHRONE_ELASTICSEARCH_URL", "http://localhost:9200");
    const USER: (&str, &str) = ("ISOCHRONE_ELASTICSEARCH_USERNAME", "elastic");
    const PASSWORD: (&str, &str) = ("ISOCHRONE_ELASTICSEARCH_PASSWORD", "012345");
    const KEY: (&str, &str) = ("ISOCHRONE_ELASTICSEARCH_API_KEY", "a2V5");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[URL], ""),
        (&[URL, USER, PASSWORD], ""),
        (&[URL, KEY, ("ISOCHRONE_ELASTICSEARCH_SAMPLES", "1/10")], ""),
        (&[URL, USER], "ISOCHRONE_ELASTICSEARCH_PASSWORD is not set"),
        (&[URL, PASSWORD], "ISOCHRONE_ELASTICSEARCH_USERNAME is not set"),
        (&[URL, USER, PASSWORD, KEY], "are both set: must be one of them"),
        (&[KEY], "ISOCHRONE_ELASTICSEARCH_URL is not set"),
        (
            &[URL, ("ISOCHRONE_ELASTICSEARCH_CA", "/dev/null")],
            "must begin with https://",
        ),
        (
            &[URL, ("ISOCHRONE_ELASTICSEARCH_SAMPLES", "10%")],
            "must be all, off or a share such as 1/10",
        ),
        (
            &[URL, ("ISOCHRONE_ELASTICSEARCH_RETENTION", "36h")],
            "must be whole days",
        ),
        (
            &[("ISOCHRONE_ELASTICSEARCH_URL", "http://elastic:012345@localhost")],
            "must be a URL such as http://localhost:9200",
        ),
        (
            &[("ISOCHRONE_ELASTICSEARCH_URL", "localhost:9200")],
            "must be a URL such as http://localhost:9200",
        ),
        (
            &[URL, ("ISOCHRONE_ELASTICSEARCH_API_KEY", "012345 \n")],
            "must be an encoded API key",
        ),
    ];
    for (variables, expected) in cases {
        let said = lines::<PlotterSettings>(variables).join("\n");
        assert!(
            said.contains(expected) && expected.is_empty() == said.is_empty(),
            "{variables:?}: {said}"
        );
        assert!(!said.contains("012345"), "{variables:?}: {said}");
    }
}

/// What belongs to a back end needs its address, and a CA needs TLS; no secret is told.
#[test]
fn back_ends_need_their_address() {
    const OTLP: (&str, &str) = ("ISOCHRONE_OTLP_ENDPOINT", "http://localhost:4318");
    const HEADERS: (&str, &str) = ("ISOCHRONE_OTLP_HEADERS", "authorization=012345");
    const NO_HEADERS: &str = "ISOCHRONE_OTLP_HEADERS: must be name=value pairs separated by commas, values percent-encoded, \
                              Content-* and Host left to the plotter";
    const INFLUXDB: (&str, &str) = ("ISOCHRONE_INFLUXDB_URL", "http://localhost:8086");
    const BUCKET: (&str, &str) = ("ISOCHRONE_INFLUXDB_BUCKET", "b");
    const TOKEN: (&str, &str) = ("ISOCHRONE_INFLUXDB_TOKEN", "012345");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[OTLP, HEADERS], ""),
        (
            &[HEADERS],
            "ISOCHRONE_OTLP_ENDPOINT is not set: must be set when ISOCHRONE_OTLP_HEADERS is set",
        ),
        (
            &[("ISOCHRONE_OTLP_CA", "/dev/null")],
            "ISOCHRONE_OTLP_ENDPOINT is not set: must be set when ISOCHRONE_OTLP_CA is set",
        ),
        (
            &[OTLP, ("ISOCHRONE_OTLP_CA", "/dev/null")],
            "ISOCHRONE_OTLP_CA is set: ISOCHRONE_OTLP_ENDPOINT must begin with https://",
        ),
        (&[INFLUXDB, BUCKET, TOKEN], ""),
        (
            &[BUCKET, TOKEN, ("ISOCHRONE_INFLUXDB_ORG", "o")],
            "ISOCHRONE_INFLUXDB_URL is not set: must be set when ISOCHRONE_INFLUXDB_ORG is set",
        ),
        (
            &[
                ("ISOCHRONE_INFLUXDB_USERNAME", "u"),
                ("ISOCHRONE_INFLUXDB_PASSWORD", "012345"),
            ],
            "ISOCHRONE_INFLUXDB_URL is not set: must be set when ISOCHRONE_INFLUXDB_PASSWORD is set",
        ),
        (
            &[INFLUXDB, ("ISOCHRONE_INFLUXDB_USERNAME", "u")],
            "ISOCHRONE_INFLUXDB_PASSWORD is not set: must be set beside ISOCHRONE_INFLUXDB_USERNAME",
        ),
        (
            &[("ISOCHRONE_INFLUXDB_URL", "http://localhost:8086/?u=me&p=012345")],
            "ISOCHRONE_INFLUXDB_URL is \"http://localhost:8086/?u=***&p=***\": must be a URL such as http://localhost:8086, without \
             user and query (no query in it)",
        ),
        (
            &[OTLP, ("ISOCHRONE_OTLP_HEADERS", "x=012345,Content-Type=text/plain")],
            NO_HEADERS,
        ),
        (
            &[OTLP, ("ISOCHRONE_OTLP_HEADERS", "authorization=Bearer%2s012345")],
            NO_HEADERS,
        ),
        (
            &[INFLUXDB, ("ISOCHRONE_INFLUXDB_CA", "/dev/null")],
            "ISOCHRONE_INFLUXDB_CA is set: ISOCHRONE_INFLUXDB_URL must begin with https://",
        ),
    ];
    for (variables, expected) in cases {
        let said = lines::<PlotterSettings>(variables);
        assert!(
            said.is_empty() == expected.is_empty() && (said.is_empty() || said.iter().any(|line| line == expected)),
            "{variables:?}: {said:#?}"
        );
        assert!(!said.concat().contains("012345"), "{variables:?}: {said:#?}");
    }
}

/// A file of certificates that is missing, has none, or has a bad one is found with all other problems, whosever it is; one
/// that is good is not.
#[test]
fn certificates_are_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = file("good.pem", &CERTIFICATE.repeat(2));
    let cases = [
        (
            folder.path().join("missing.pem").display().to_string(),
            "a file that can be read",
        ),
        (file("empty.pem", ""), "(there is none in it)"),
        (
            file("key.pem", &CERTIFICATE.replace("CERTIFICATE", "PRIVATE KEY")),
            "(there is none in it)",
        ),
        (file("cut.pem", &CERTIFICATE[..200]), "a PEM file with certificates"),
        (
            file(
                "odd.pem",
                "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
            ),
            "a PEM file with certificates",
        ),
    ];
    let settings = |path: &str| {
        let variables = [
            ("ISOCHRONE_QOS", "9"),
            ("ISOCHRONE_REDIS_URL", "rediss://localhost"),
            ("ISOCHRONE_ELASTICSEARCH_URL", "https://localhost"),
            ("ISOCHRONE_OTLP_ENDPOINT", "https://localhost"),
            ("ISOCHRONE_INFLUXDB_URL", "https://localhost"),
            ("ISOCHRONE_REDIS_TLS_CA", path),
            ("ISOCHRONE_TLS_CA", path),
            ("ISOCHRONE_ELASTICSEARCH_CA", path),
            ("ISOCHRONE_OTLP_CA", path),
            ("ISOCHRONE_INFLUXDB_CA", path),
        ];
        load_all(&source(&variables)).unwrap_err().to_string()
    };
    assert_eq!(settings(&good).lines().count(), 1, "{}", settings(&good));
    for (path, expected) in cases {
        let said = settings(&path);
        for variable in ["REDIS_TLS", "TLS", "ELASTICSEARCH", "OTLP", "INFLUXDB"] {
            let begin = format!("ISOCHRONE_{variable}_CA is {path:?}: must be ");
            let line = said.lines().find(|line| line.starts_with(&begin));
            assert!(
                line.is_some_and(|line| line.contains(expected)),
                "{path} {variable}: {said}"
            );
        }
        assert_eq!(said.lines().count(), 6, "{said}");
    }
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

/// Nothing guesses a type: what looks like a number stays the text it was.
#[test]
fn a_password_arrives_as_typed() {
    let loaded = producer(&[("ISOCHRONE_USERNAME", "u"), ("ISOCHRONE_PASSWORD", "012345")]).unwrap();
    assert_eq!(loaded.settings.password.unwrap().reveal(), "012345");
    let loaded = producer(&[("ISOCHRONE_USERNAME", "true"), ("ISOCHRONE_PASSWORD", " [1, \"x\"] ")]).unwrap();
    assert_eq!(loaded.settings.password.unwrap().reveal(), " [1, \"x\"] ");
}

/// One client id for several connections is refused: they would throw each other out for ever.
#[test]
fn a_client_id_of_many_claims_tells_them_apart() {
    let id = |id: &str, claims: &str, unit: &str| {
        lines::<ConsumerSettings>(&[
            ("ISOCHRONE_CONSUMER_CLIENT_ID", id),
            ("ISOCHRONE_CLAIMS", claims),
            ("ISOCHRONE_CLAIM_UNIT", unit),
        ])
    };
    for (name, claims, unit) in [
        ("c", "1", "topic"),
        ("c-{{topic}}", "9", "topic"),
        ("c-{{device}}", "1", "partition"),
    ] {
        assert!(id(name, claims, unit).is_empty(), "{name} {claims} {unit}");
    }
    for (claims, unit) in [("2", "topic"), ("unlimited", "topic"), ("1", "partition")] {
        assert_eq!(
            id("c-{{run}}", claims, unit),
            [
                "ISOCHRONE_CONSUMER_CLIENT_ID is \"c-{{run}}\": must name {{topic}} or {{device}} unless ISOCHRONE_CLAIMS=1 in claim unit topic"
            ]
        );
    }
}

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

/// A payload must hold its stamp, whatever size it draws.
#[test]
fn payload_and_size_go_together() {
    let tight = lines::<ProducerSettings>(&[("ISOCHRONE_PAYLOAD_SIZE", "10")]);
    assert_eq!(tight.len(), 1, "{tight:#?}");
    assert!(tight[0].starts_with("ISOCHRONE_PAYLOAD_SIZE"), "{tight:#?}");
    assert_eq!(lines::<ProducerSettings>(&[("ISOCHRONE_PAYLOAD_SIZE", "100")]), [""; 0]);
    let template = lines::<ProducerSettings>(&[("ISOCHRONE_PAYLOAD", "{{stmp}}")]);
    assert_eq!(template.len(), 1, "{template:#?}");
    assert!(
        template[0].starts_with("ISOCHRONE_PAYLOAD cannot be used"),
        "{template:#?}"
    );
    for place in ["text", "bytes"] {
        assert_eq!(
            lines::<ProducerSettings>(&[("ISOCHRONE_STAMP", place)]),
            [""; 0],
            "{place}"
        );
    }
    assert_eq!(
        lines::<ProducerSettings>(&[("ISOCHRONE_STAMP", "property"), ("ISOCHRONE_MQTT_VERSION", "5")]),
        [""; 0]
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

/// Every setting is declared once, with help, and what its default says is what it must be.
#[test]
fn declarations_are_complete() {
    let mut seen = BTreeMap::new();
    for declaration in declarations() {
        assert!(
            seen.insert(declaration.field, ()).is_none(),
            "{} twice",
            declaration.field
        );
        assert!(
            declaration.help.ends_with('.'),
            "{}: {}",
            declaration.field,
            declaration.help
        );
        assert!(
            !declaration.help.contains('\\'),
            "{}: {}",
            declaration.field,
            declaration.help
        );
        assert!(!declaration.readers.is_empty());
    }
    for name in ["password", "consumer_password"] {
        assert!(
            declarations()
                .iter()
                .any(|declaration| declaration.field == name && declaration.secret && declaration.file)
        );
    }
}

/// What `--help` prints, per daemon.
#[test]
fn help_is_pinned() {
    insta::assert_snapshot!("help_producer", help(Role::Producer));
    insta::assert_snapshot!("help_consumer", help(Role::Consumer));
    insta::assert_snapshot!("help_plotter", help(Role::Plotter));
}

/// `docs/settings.md` is what the declarations say. `UPDATE=1` writes it.
#[test]
fn the_reference_page_matches() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, reference()).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == reference(),
        "docs/settings.md is out of date: run with UPDATE=1"
    );
}
