//! TLS, identities and refusals: each failure is one clear line, and no secret is anywhere.

use std::time::Duration;

use isochrone_e2e::{
    certs::Authority,
    daemon::{Site, output},
    report::{assert_whole, closed, ledger, read},
    servers::{Mosquitto, Redis, free_port},
    wait,
};

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(90);
const DEVICES: usize = 100;

/// Each device with its own certificate, allowed by common name to its own topic only; a consumer with one for all of them.
#[test]
fn every_device_has_its_certificate() {
    a_hundred_certificates("consumer", "100", "write");
}

/// The same where each topic is listened for with its device's certificate, which may read no other.
#[test]
fn every_topic_is_read_with_its_devices_certificate() {
    a_hundred_certificates("{{device}}", "unlimited", "readwrite");
}

/// `right`: what each device's certificate may do on its own topic.
fn a_hundred_certificates(listens_as: &str, claims: &str, right: &str) {
    let folder = tempfile::tempdir().expect("temp dir");
    let authority = Authority::new("Isochrone test");
    authority.write(&folder.path().join("ca.pem"));
    authority.server(folder.path(), "server", "localhost", false);
    let mut acl = String::from("user consumer\ntopic read fleet/#\n");
    for n in 0..DEVICES {
        authority.client(folder.path(), &format!("0-{n}"));
        acl += &format!("user 0-{n}\ntopic {right} fleet/0-{n}\n");
    }
    authority.client(folder.path(), "consumer");
    std::fs::write(folder.path().join("acl"), acl).expect("acl");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let lines = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\nacl_file {}",
        at("ca.pem"),
        at("server.pem"),
        at("server.key"),
        at("acl")
    );
    let port = free_port();
    let site = Site::with(Mosquitto::start_with(&lines, port), Redis::start(), &[]);
    let (broker, ca) = (format!("mqtts://localhost:{port}"), at("ca.pem"));
    let common = [("ISOCHRONE_BROKER", broker.as_str()), ("ISOCHRONE_TLS_CA", ca.as_str())];
    let identity = |stem: &str| (at(&format!("{stem}.pem")), at(&format!("{stem}.key")));
    let (cert, key) = identity(listens_as);
    let consumer = [
        ("ISOCHRONE_TLS_CERT", cert.as_str()),
        ("ISOCHRONE_TLS_KEY", &key),
        ("ISOCHRONE_CLAIMS", claims),
    ];
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[&common[..], &consumer[..]].concat());
    let (cert, key) = identity("{{device}}");
    let fleet = [
        ("ISOCHRONE_TLS_CERT", cert.as_str()),
        ("ISOCHRONE_TLS_KEY", &key),
        ("ISOCHRONE_DEVICES", "100"),
        ("ISOCHRONE_TOPIC", "fleet/{{device}}"),
        ("ISOCHRONE_RATE", "20"),
        ("ISOCHRONE_DURATION", "3s"),
        ("ISOCHRONE_QOS", "1"),
    ];
    let mut producer = site.daemon("producer", &[&common[..], &fleet[..]].concat());
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, None);
    assert_whole(&report);
    assert_eq!((code, ledger(&report, "acked")), (0, 6_000));
}

/// Wrong CA, expired certificate, wrong host name, wrong password: each names the cause and the setting.
#[test]
fn refusals_name_cause_and_setting() {
    let folder = tempfile::tempdir().expect("temp dir");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    ours.write(&folder.path().join("ours.pem"));
    theirs.write(&folder.path().join("theirs.pem"));
    let at = |name: &str| folder.path().join(name).display().to_string();
    let cases = [
        ("localhost", false, "theirs.pem", "ISOCHRONE_TLS_CA"),
        ("localhost", true, "ours.pem", "expired"),
        ("elsewhere.example", false, "ours.pem", "ISOCHRONE_TLS_SERVER_NAME"),
    ];
    for (number, (host, expired, ca, expected)) in cases.into_iter().enumerate() {
        ours.server(folder.path(), &format!("server{number}"), host, expired);
        let lines = format!(
            "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}",
            at("ours.pem"),
            at(&format!("server{number}.pem")),
            at(&format!("server{number}.key"))
        );
        let port = free_port();
        let site = Site::with(Mosquitto::start_with(&lines, port), Redis::start(), &[]);
        let (broker, ca) = (format!("mqtts://localhost:{port}"), at(ca));
        let settings = [
            ("ISOCHRONE_BROKER", broker.as_str()),
            ("ISOCHRONE_TLS_CA", ca.as_str()),
            ("ISOCHRONE_WAIT_FOR_CONSUMER", "false"),
        ];
        let producer = site.daemon("producer", &settings);
        wait::until(expected, START, || producer.stderr().contains(expected));
    }
}

/// A wrong password is one line that names the setting; it is in no log, not in Redis, not in `--check`.
#[test]
fn a_wrong_password_is_said_and_kept() {
    let port = free_port();
    let lines = "allow_anonymous false\npassword_file FOLDER/passwords";
    let folder = tempfile::tempdir().expect("temp dir");
    std::fs::write(folder.path().join("passwords"), "").expect("file");
    let lines = lines.replace("FOLDER", &folder.path().display().to_string());
    let site = Site::with(Mosquitto::start_with(&lines, port), Redis::start(), &[]);
    let settings = [
        ("ISOCHRONE_USERNAME", "someone"),
        ("ISOCHRONE_PASSWORD", "hunter2-secret"),
        ("ISOCHRONE_LOG", "debug"),
    ];
    let consumer = site.daemon("consumer", &settings);
    let producer = site.daemon(
        "producer",
        &[&settings[..], &[("ISOCHRONE_WAIT_FOR_CONSUMER", "false")]].concat(),
    );
    for daemon in [&producer, &consumer] {
        wait::until("the setting to be named", START, || {
            daemon.stderr().contains("ISOCHRONE_PASSWORD")
        });
        assert!(!daemon.stderr().contains("hunter2"), "{}", daemon.stderr());
    }
    assert!(!site.redis.dump().windows(7).any(|window| window == b"hunter2"));
}

/// A refused subscription is one line that names the topic.
#[test]
fn a_refused_subscription_is_said() {
    // Mosquitto's access list does not refuse subscriptions, its dynamic security does.
    let folder = tempfile::tempdir().expect("temp dir");
    let rules = r#"{"defaultACLAccess": {"publishClientSend": true, "publishClientReceive": true, "subscribe": false,
        "unsubscribe": true}, "clients": [], "groups": [], "roles": []}"#;
    let path = folder.path().join("rules.json");
    std::fs::write(&path, rules).expect("rules");
    let plugin = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so";
    let lines = format!(
        "allow_anonymous true\nplugin {plugin}\nplugin_opt_config_file {}",
        path.display()
    );
    let site = Site::with(Mosquitto::start_with(&lines, free_port()), Redis::start(), &[]);
    for (version, topic) in [("3.1.1", "not/for/you"), ("5", "nor/for/you")] {
        let consumer = site.daemon("consumer", &[("ISOCHRONE_CLAIMS", "1"), ("ISOCHRONE_RUN", version)]);
        let settings = [
            ("ISOCHRONE_TOPIC", topic),
            ("ISOCHRONE_MQTT_VERSION", version),
            ("ISOCHRONE_RUN", version),
        ];
        let _producer = site.daemon("producer", &settings);
        wait::until("the refusal to be said", START, || {
            consumer
                .stderr()
                .lines()
                .any(|line| line.contains(topic) && line.contains("refused"))
        });
        wait::until("the refusal to be counted", START, || {
            let (report, _) = read(&site.isochrone(&["report", "--run", version, "--format", "json"]));
            report["connects"]["failed"]["subscription refused"] == 1
        });
    }
    // In one process nobody else will listen: it waits so long, and ends.
    let broker = format!("mqtt://127.0.0.1:{}", site.mosquitto.port);
    let run = [
        "--broker",
        &broker,
        "--devices",
        "2",
        "--wait-for-consumer",
        "1s",
        "--duration",
        "1s",
        "--qos",
        "1",
    ];
    let run = [&run[..], &["--drain", "1s", "--lease", "1s", "--format", "json"]].concat();
    let (report, code) = read(&output("isochrone", &run, &[]));
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["connects"]["failed"]["subscription refused"], 2, "{report:#}");
    assert_eq!(
        (ledger(&report, "sent"), ledger(&report, "unheard")),
        (200, 200),
        "{report:#}"
    );
}

/// TLS set up for a broker that is reached without: said by each side, once for all devices (a consumer's workers each say it).
#[test]
fn tls_without_effect_is_said() {
    let site = Site::start(&[("ISOCHRONE_TLS_ALPN", "mqtt"), ("ISOCHRONE_DEVICES", "3")]);
    let consumer = site.daemon("consumer", &[("ISOCHRONE_CLAIMS", "3")]);
    let producer = site.daemon("producer", &[]);
    wait::until("every topic to be heard", START, || {
        consumer.stderr().matches("claimed a topic").count() == 3
    });
    let said = |log: String| log.matches("ISOCHRONE_TLS_ALPN without effect").count();
    assert_eq!(said(producer.stderr()), 1, "{}", producer.stderr());
    assert!(said(consumer.stderr()) > 0, "{}", consumer.stderr());
}

/// Messages that the broker refuses are one line with its reason, and counted.
#[test]
fn refused_messages_are_said() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("access");
    std::fs::write(&path, "topic read #").expect("access list");
    let lines = format!("allow_anonymous true\nacl_file {}", path.display());
    let site = Site::with(Mosquitto::start_with(&lines, free_port()), Redis::start(), &[]);
    let broker = site.mosquitto.url();
    let run = [
        "--broker",
        &broker,
        "--mqtt-version",
        "5",
        "--qos",
        "1",
        "--devices",
        "3",
    ];
    let run = [
        &run[..],
        &["--count", "20", "--drain", "1s", "--lease", "1s", "--format", "json"],
    ]
    .concat();
    let ended = output("isochrone", &run, &[]);
    let said = String::from_utf8_lossy(&ended.stderr);
    let refusals = said
        .lines()
        .filter(|line| line.contains("refuses messages (not authorised)"));
    assert!((1..=2).contains(&refusals.count()), "once for each worker: {said}");
    let (report, code) = read(&ended);
    assert_eq!((code, ledger(&report, "lost")), (0, 60), "{report:#}");
    // With queues without limit mosquitto 2.0.11 closes the connection after a refusal: some messages end without an answer.
    let (refused, unconfirmed) = (ledger(&report, "refused"), ledger(&report, "unconfirmed"));
    assert!(refused > 0 && refused + unconfirmed == 60, "{report:#}");
}
