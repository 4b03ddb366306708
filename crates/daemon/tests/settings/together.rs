//! Settings that go together, or do not.

use std::fs;

use isochrone_daemon::settings::{ConsumerSettings, PlotterSettings, ProducerSettings, load_all};

use super::{lines, producer, source};

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

/// So is one client id, or one name, for the devices of a producer.
#[test]
fn devices_are_told_apart() {
    let said = |id: &str, name: &str, devices: &str| {
        lines::<ProducerSettings>(&[
            ("ISOCHRONE_CLIENT_ID", id),
            ("ISOCHRONE_DEVICE_NAME", name),
            ("ISOCHRONE_DEVICES", devices),
        ])
    };
    for (id, name, devices) in [
        ("fix", "fix", "1"),
        ("{{device}}", "d{{n}}", "2"),
        ("c{{n}}", "{{n}}", "9"),
    ] {
        assert!(said(id, name, devices).is_empty(), "{id} {name} {devices}");
    }
    assert_eq!(
        said("{{run}}", "{{producer}}", "2"),
        [
            "ISOCHRONE_CLIENT_ID is \"{{run}}\": must name {{device}} or {{n}} with ISOCHRONE_DEVICES=2, each needs an id of its own",
            "ISOCHRONE_DEVICE_NAME is \"{{producer}}\": must name {{n}} with ISOCHRONE_DEVICES=2, each needs a name of its own",
        ]
    );
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
