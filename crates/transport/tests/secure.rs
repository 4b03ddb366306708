//! TLS and refusals against a real mosquitto: each failure is one line that names the cause and the setting.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test program")]

#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "support/bench.rs"]
mod bench;
#[path = "support/broker.rs"]
mod broker;

use std::{fs, path::Path, sync::Arc};

use bench::{connection, receiving, sending, until};
use broker::Broker;
use isochrone_model::payload::StampPlace;
use isochrone_transport::{
    ConnectionConfig, Disconnected, MqttVersion, PublishEvent, SubscribeEvent, TlsConfig, Transport, open,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, directory: &Path, name: &str, host: &str, expired: bool) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(directory.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// A broker that wants client certificates and takes the common name as user; its certificate is for `host`.
fn tls_broker(host: &str, expired: bool) -> Broker {
    Broker::with(|directory| {
        let authority = Authority::new("our ca");
        fs::write(directory.join("ca.crt"), authority.0.pem()).unwrap();
        fs::write(directory.join("other.crt"), Authority::new("other ca").0.pem()).unwrap();
        authority.issue(directory, "server", host, expired);
        authority.issue(directory, "device", "device", false);
        let at = |name: &str| directory.join(name).display().to_string();
        fs::write(directory.join("acl"), "user device\ntopic readwrite mine/#\n").unwrap();
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\nacl_file {}\n",
            at("ca.crt"),
            at("server.crt"),
            at("server.key"),
            at("acl")
        )
    })
}

fn tls(broker: &Broker, version: MqttVersion, client_id: &str) -> ConnectionConfig {
    let at = |name: &str| Some(broker.directory.path().join(name));
    let mut config = connection(client_id, version);
    config.tls = TlsConfig {
        ca: at("ca.crt"),
        cert: at("device.crt"),
        key: at("device.key"),
        ..TlsConfig::default()
    };
    config
}

fn secure(broker: &Broker) -> Arc<dyn Transport> {
    open(&format!("mqtts://localhost:{}", broker.port)).unwrap()
}

async fn failure(transport: &dyn Transport, config: ConnectionConfig) -> Disconnected {
    let mut sender = sending(transport, config, "mine/t", 1);
    let failed = |event: &PublishEvent| matches!(event, PublishEvent::Disconnected(_));
    until("a failure", &mut [&mut sender], &mut [], |s, _| s[0].count(failed) > 0).await;
    sender
        .events
        .iter()
        .find_map(|event| match event {
            PublishEvent::Disconnected(disconnected) => Some(disconnected.clone()),
            _ => None,
        })
        .unwrap()
}

#[tokio::test]
async fn messages_pass_over_mutual_tls() {
    let broker = tls_broker("localhost", false);
    let transport = secure(&broker);
    for version in [MqttVersion::V311, MqttVersion::V5] {
        for qos in 0..3_u8 {
            let topic = format!("mine/{version:?}/{qos}");
            let mut receiver = receiving(
                &*transport,
                tls(&broker, version, &format!("r{topic}")),
                &[&topic],
                qos,
                true,
            );
            until("subscribed", &mut [], &mut [&mut receiver], |_, r| {
                r[0].got.subscribed() == 1
            })
            .await;
            let mut sender = sending(&*transport, tls(&broker, version, &format!("s{topic}")), &topic, qos);
            sender.send(500);
            until("arrived", &mut [&mut sender], &mut [&mut receiver], |_, r| {
                r[0].got.messages.len() >= 500
            })
            .await;
            assert_eq!(receiver.got.sequences(), (0..500).collect::<Vec<_>>());
            let PublishEvent::Connected(connected) = &sender.events[0] else {
                panic!("not connected")
            };
            assert!(connected.tls_ns.is_some_and(|ns| ns > 0) && connected.tcp_ns > 0 && connected.connack_ns > 0);
        }
        let mut refused = receiving(&*transport, tls(&broker, version, "refused"), &["theirs/t"], 1, true);
        let told = |event: &SubscribeEvent| matches!(event, SubscribeEvent::SubscribeRefused { .. });
        if version == MqttVersion::V5 {
            // mosquitto answers a 3.1.1 client that lacks the right to read with success.
            until("answered", &mut [], &mut [&mut refused], |_, r| {
                r[0].got.events.iter().any(told) || r[0].got.subscribed() > 0
            })
            .await;
        }
    }
}

#[tokio::test]
async fn tls_failures_name_cause_and_setting() {
    let broker = tls_broker("localhost", false);
    let transport = secure(&broker);
    let mut config = tls(&broker, MqttVersion::V311, "c");
    config.tls.ca = Some(broker.directory.path().join("other.crt"));
    let wrong_ca = failure(&*transport, config.clone()).await;
    assert_eq!(wrong_ca.reason, "tls unknown ca");
    assert!(
        wrong_ca.needs_setting && wrong_ca.detail.contains("set ISOCHRONE_TLS_CA"),
        "{}",
        wrong_ca.detail
    );

    config.tls.insecure = true;
    let mut sender = sending(&*transport, config, "mine/t", 1);
    until("connected", &mut [&mut sender], &mut [], |s, _| {
        matches!(s[0].events.first(), Some(PublishEvent::Connected(_)))
    })
    .await;

    let mut config = tls(&broker, MqttVersion::V5, "c");
    config.tls.server_name = Some("elsewhere.example".to_owned());
    let wrong_name = failure(&*transport, config).await;
    assert_eq!(wrong_name.reason, "tls wrong name");
    assert!(
        wrong_name
            .detail
            .contains("elsewhere.example: set ISOCHRONE_TLS_SERVER_NAME"),
        "{}",
        wrong_name.detail
    );

    let mut config = tls(&broker, MqttVersion::V5, "c");
    (config.tls.cert, config.tls.key) = (None, None);
    let no_certificate = failure(&*transport, config).await;
    assert_eq!(
        no_certificate.reason, "tls client certificate",
        "{}",
        no_certificate.detail
    );
    assert!(
        no_certificate.detail.contains("ISOCHRONE_TLS_CERT"),
        "{}",
        no_certificate.detail
    );

    let expired = tls_broker("localhost", true);
    let late = failure(&*secure(&expired), tls(&expired, MqttVersion::V5, "c")).await;
    assert_eq!(late.reason, "tls expired");
    assert!(late.detail.contains("certificate expired"), "{}", late.detail);

    // By the name it has, a broker is trusted whatever the URL says.
    let named = tls_broker("broker.example", false);
    let mut config = tls(&named, MqttVersion::V5, "c");
    assert_eq!(failure(&*secure(&named), config.clone()).await.reason, "tls wrong name");
    config.tls.server_name = Some("broker.example".to_owned());
    let transport = secure(&named);
    let mut sender = sending(&*transport, config, "mine/t", 1);
    until("connected", &mut [&mut sender], &mut [], |s, _| {
        matches!(s[0].events.first(), Some(PublishEvent::Connected(_)))
    })
    .await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_errors_at_once() {
    let broker = tls_broker("localhost", false);
    let transport = secure(&broker);
    let missing = |setting: &str, change: &dyn Fn(&mut TlsConfig)| {
        let mut config = tls(&broker, MqttVersion::V5, "c");
        change(&mut config.tls);
        let config = isochrone_transport::SubscriberConfig {
            connection: config,
            qos: 0,
            acknowledge_at_once: true,
        };
        let Err(error) = transport.subscriber(config, &bench::worker()) else {
            panic!("taken")
        };
        assert!(error.to_string().contains(setting), "{error}");
    };
    missing("ISOCHRONE_TLS_CA", &|tls| tls.ca = Some("/nowhere".into()));
    missing("ISOCHRONE_TLS_CERT", &|tls| tls.cert = Some("/nowhere".into()));
    missing("ISOCHRONE_TLS_KEY", &|tls| tls.key = None);
    missing("ISOCHRONE_TLS_KEY", &|tls| {
        tls.key = Some(broker.directory.path().join("server.key"))
    });
}

#[tokio::test]
async fn a_wrong_password_is_named_and_not_shown() {
    let broker = Broker::with(|directory| {
        let file = directory.join("passwords");
        fs::write(&file, "").unwrap();
        let made = std::process::Command::new("mosquitto_passwd")
            .args(["-b", &file.display().to_string(), "user", "012345"])
            .status()
            .expect("mosquitto_passwd is not installed");
        assert!(made.success());
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        format!("allow_anonymous false\npassword_file {}\n", file.display())
    });
    let transport = open(&format!("mqtt://127.0.0.1:{}", broker.port)).unwrap();
    for (version, code) in [(MqttVersion::V311, "CONNACK 5"), (MqttVersion::V5, "CONNACK 0x87")] {
        let mut config = connection("c", version);
        config.username = Some("user".to_owned());
        config.password = Some("s3cret".to_owned());
        assert!(!format!("{config:?}").contains("s3cret"));
        let refused = failure(&*transport, config.clone()).await;
        let line = format!("not authorised ({code}): check ISOCHRONE_USERNAME and ISOCHRONE_PASSWORD");
        assert_eq!((refused.reason, refused.detail), ("not authorised", line));
        config.password = Some("012345".to_owned());
        let mut sender = sending(&*transport, config, "t", 1);
        until("connected", &mut [&mut sender], &mut [], |s, _| {
            matches!(s[0].events.first(), Some(PublishEvent::Connected(_)))
        })
        .await;
    }
    let in_url = open(&format!("mqtt://user:012345@127.0.0.1:{}", broker.port)).unwrap();
    assert!(!in_url.url().contains("012345"));
    let mut sender = sending(&*in_url, connection("c", MqttVersion::V311), "t", 1);
    until("connected", &mut [&mut sender], &mut [], |s, _| {
        matches!(s[0].events.first(), Some(PublishEvent::Connected(_)))
    })
    .await;
}

#[tokio::test]
async fn other_failures_are_told_apart() {
    let nobody = open(&format!("mqtt://127.0.0.1:{}", isochrone_e2e::servers::free_port())).unwrap();
    let refused = failure(&*nobody, connection("c", MqttVersion::V5)).await;
    assert_eq!((refused.reason, refused.needs_setting), ("tcp refused", false));
    assert!(refused.detail.contains("ISOCHRONE_BROKER"), "{}", refused.detail);

    let lost = open("mqtt://no-such-host.invalid").unwrap();
    assert_eq!(failure(&*lost, connection("c", MqttVersion::V5)).await.reason, "dns");

    let plain = Broker::start();
    let not_tls = open(&format!("mqtts://localhost:{}", plain.port)).unwrap();
    let mut config = connection("c", MqttVersion::V5);
    config.tls.insecure = true;
    let told = failure(&*not_tls, config).await;
    assert!(told.detail.contains("mqtt://"), "{} {}", told.reason, told.detail);

    let mut config = connection("c", MqttVersion::V311);
    config.stamp = StampPlace::Property;
    let payload = isochrone_model::payload::Payload::compile(b"x", StampPlace::Property, None).unwrap();
    let error = nobody.publisher(
        isochrone_transport::PublisherConfig {
            connection: config,
            topic: "t".into(),
            qos: 0,
            epoch: isochrone_model::id::Epoch(1),
            payload: Arc::new(payload),
            device: isochrone_model::payload::DeviceSeed {
                device: "d".into(),
                run: "r".into(),
                seed: 0,
            },
            in_flight: 1,
        },
        &bench::worker(),
    );
    assert!(error.err().unwrap().to_string().contains("ISOCHRONE_STAMP"));
    for bad in ["http://localhost", "mqtt://", "mqtt://host/path", "nonsense"] {
        assert!(open(bad).is_err(), "{bad}");
    }
}
