//! What a crash leaves behind, removed.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use isochrone_e2e::{
    daemon::{Site, ready},
    process::Process,
    report::read,
    wait,
};
use rustix::process::Signal;

const START: Duration = Duration::from_secs(30);

/// A fleet of three under names of its own, killed while it sends; its site.
fn crashed() -> Site {
    let site = Site::start(&[("ISOCHRONE_RUN", "crashed")]);
    let mut consumer = site.daemon("consumer", &[("ISOCHRONE_CLAIMS", "3")]);
    let settings = [
        ("ISOCHRONE_DEVICES", "3"),
        ("ISOCHRONE_QOS", "1"),
        ("ISOCHRONE_DEVICE_NAME", "{{n}}-of-{{producer}}"),
        ("ISOCHRONE_CLIENT_ID", "id/{{producer}}/{{n}}"),
    ];
    let mut producer = site.daemon("producer", &settings);
    ready(&producer, START);
    wait::until("all devices to be heard", START, || heard(&site) == 3);
    for daemon in [&mut producer, &mut consumer] {
        Process::kill(daemon);
    }
    site
}

/// How many devices were heard: each of them has a session at the broker, and so has the consumer of its topic.
fn heard(site: &Site) -> usize {
    let arguments = ["report", "--run", "crashed", "--format", "json", "--per-topic"];
    let (report, _) = read(&site.isochrone(&arguments));
    let topics = report["per_topic"].as_array().expect("topics").iter();
    topics
        .filter(|topic| topic["devices"][0]["unique"].as_u64() > Some(0))
        .count()
}

/// Whether the broker has a session of this client id: CONNECT of MQTT 3.1.1 without a clean session tells.
fn has_session(port: u16, client_id: &str) -> bool {
    let id = client_id.as_bytes();
    let length = u8::try_from(12 + id.len()).expect("a short id");
    let mut connect = vec![0x10, length, 0, 4];
    connect.extend_from_slice(b"MQTT\x04\0\0\x3c\0");
    connect.push(id.len() as u8);
    connect.extend_from_slice(id);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker");
    stream.write_all(&connect).expect("CONNECT");
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).expect("CONNACK");
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    connack[2] & 1 == 1
}

/// Sessions of devices and consumers go, whatever the devices are called, and are counted because they were there.
#[test]
fn a_crashed_run_leaves_nothing_at_the_broker() {
    let site = crashed();
    let output = site.isochrone(&["purge", "--run", "crashed"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(
        said.trim(),
        "purged run crashed: 3 devices, 6 broker sessions removed",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let port = site.mosquitto.port;
    for n in 0..3 {
        assert!(!has_session(port, &format!("id/0/{n}")), "{n}");
    }
}

/// Sessions under the consumers' own identity go, too.
#[test]
fn a_crashed_consumer_of_another_name_leaves_nothing_at_the_broker() {
    let site = Site::start(&[("ISOCHRONE_RUN", "crashed"), ("ISOCHRONE_QOS", "1")]);
    let own = ("ISOCHRONE_CONSUMER_CLIENT_ID", "ear-of-{{device}}");
    let mut consumer = site.daemon("consumer", &[own]);
    let mut producer = site.daemon("producer", &[]);
    ready(&producer, START);
    wait::until("the device to be heard", START, || heard(&site) == 1);
    for daemon in [&mut producer, &mut consumer] {
        Process::kill(daemon);
    }
    let output = site.isochrone(&["purge", "--run", "crashed", "--consumer-client-id", own.1]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), "purged run crashed: 1 devices, 2 broker sessions removed");
    assert!(!has_session(site.mosquitto.port, "ear-of-0-0"));
}

/// A broker that does not answer is given up after a few steps. The run stays, for only it knows the sessions, until they can be
/// removed or `--force` lets them be.
#[test]
fn a_silent_broker_does_not_hold_a_purge_up() {
    let mut site = crashed();
    site.mosquitto.process().signal(Signal::STOP);
    let purge = |more: &[&str]| {
        let begun = wait::now();
        let output = site.isochrone(&[&["purge", "--run", "crashed"], more].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(begun.elapsed() < Duration::from_secs(25), "{said}");
        assert!(
            said.contains(" run crashed: 3 devices, 0 broker sessions removed, ") && said.contains("may be left"),
            "{said}"
        );
        assert!(said.contains(&site.mosquitto.url()), "{said}");
        let runs = site.isochrone(&["runs"]);
        let is_known = String::from_utf8_lossy(&runs.stdout).contains("crashed");
        (
            output.status.code(),
            said.split(' ').next().map(str::to_owned),
            is_known,
        )
    };
    let (kept, forced) = (purge(&[]), purge(&["--force"]));
    site.mosquitto.process().signal(Signal::CONT);
    assert_eq!(kept, (Some(1), Some("kept".to_owned()), true));
    assert_eq!(forced, (Some(0), Some("purged".to_owned()), false));
}

/// Without a name nothing is purged, and the line that says so has the runs to choose from, newest first.
#[test]
fn a_run_that_nobody_named_stays() {
    let site = Site::start(&[]);
    let said = |output: &std::process::Output| {
        let both = [&output.stdout[..], &output.stderr[..]].concat();
        String::from_utf8_lossy(&both).into_owned()
    };
    let unnamed = site.isochrone(&["purge"]);
    assert_eq!(unnamed.status.code(), Some(2), "{}", said(&unnamed));
    assert!(said(&unnamed).contains("there is no run"), "{}", said(&unnamed));
    let mut producers = Vec::new();
    for run in ["older", "newer"] {
        producers.push(site.daemon("producer", &[("ISOCHRONE_RUN", run)]));
        wait::until("the run", START, || said(&site.isochrone(&["runs"])).contains(run));
    }
    let unnamed = site.isochrone(&["purge"]);
    assert_eq!(
        (unnamed.status.code(), said(&unnamed).trim()),
        (
            Some(2),
            "isochrone: purge needs the run's name, --run or ISOCHRONE_RUN; \
             there are, newest first: newer (open), older (open)"
        )
    );
    let runs = said(&site.isochrone(&["runs"]));
    assert!(runs.contains("older") && runs.contains("newer"), "{runs}");
}
