//! `docker compose up`, scaled up and down.

use std::time::Duration;

use isochrone_e2e::{
    docker::{Docker, top},
    report::{assert_whole, ledger},
    wait,
};
use serde_json::Value;

const START: Duration = Duration::from_secs(180);
/// A topic is taken within a second; this is for a busy machine.
const TAKEN: Duration = Duration::from_secs(60);
const FLEET: usize = 20;

/// Prometheus and the Collector beside the servers and daemons: of everything else no image can be had without a registry.
const VARIABLES: [(&str, &str); 5] = [
    ("COMPOSE_PROFILES", "prometheus,otlp"),
    ("ISOCHRONE_ELASTICSEARCH_URL", ""),
    ("PRODUCERS", "20"),
    ("CONSUMERS", "20"),
    ("ISOCHRONE_QOS", "1"),
];

/// Everything becomes healthy and works 1:1; when half of the consumers go their topics wait, and are taken when they are
/// back; nothing is lost; Prometheus has seen it; the servers are as `doctor` wants them; and nothing is left over.
#[test]
fn compose_scales_up_and_down() {
    let docker = Docker::start();
    docker.compose(&VARIABLES, &["up", "--detach", "--no-build", "--quiet-pull"]);
    wait::until("every container to be healthy", START, || {
        healthy(&docker) == 2 * FLEET + 4
    });
    wait::until("every topic to be taken", TAKEN, || sending(&docker) == FLEET);

    let found = docker.compose(
        &VARIABLES,
        &["exec", "-T", "producer", "isochrone", "doctor", "--format", "json"],
    );
    let findings: Value = serde_json::from_str(&found).expect("findings");
    for finding in findings.as_array().expect("a list") {
        assert!(
            finding["mend"].is_null() || finding["what"].as_str().is_some_and(|what| what.starts_with("clock")),
            "{finding:#}"
        );
    }

    docker.compose(
        &VARIABLES,
        &[
            "up",
            "--detach",
            "--no-build",
            "--no-recreate",
            "--scale",
            "consumer=10",
        ],
    );
    let before = received(&docker);
    wait::until("half of the topics to wait", TAKEN, || claims(&docker) == FLEET / 2);
    docker.compose(&VARIABLES, &["up", "--detach", "--no-build", "--no-recreate"]);
    wait::until("every topic to be taken again", TAKEN, || claims(&docker) == FLEET);
    wait::until("messages to arrive again", TAKEN, || received(&docker) > before);
    wait::until("Prometheus to see the run", TAKEN, || {
        query(&docker, "sum(isochrone_received_total)").is_some_and(|sum| sum > 0.0)
    });
    wait::until("the Collector to hand it on", TAKEN, || {
        query(&docker, "sum({__name__=\"isochrone.received\"})").is_some_and(|sum| sum > 0.0)
            && query(&docker, "histogram_count(sum({__name__=\"isochrone.response\"}))")
                .is_some_and(|count| count > 0.0)
    });

    docker.compose(&VARIABLES, &["stop", "producer"]);
    let report = report(&docker, &["--wait"]);
    assert_whole(&report);
    assert_eq!(report["topics"], FLEET, "{report:#}");
    assert!(ledger(&report, "unique") > 0);

    docker.compose(&VARIABLES, &["down", "--volumes"]);
    assert_eq!(docker.run(&["ps", "--all", "--quiet"]), "");
    assert_eq!(docker.run(&["volume", "ls", "--quiet"]), "");
    assert_eq!(docker.run(&["network", "ls", "--quiet", "--filter", "type=custom"]), "");
}

/// The file says what the daemons and the settings say: grace beyond ISOCHRONE_SHUTDOWN, every setting of `.env` handed on,
/// no fixed port of a daemon, pinned tags, and each server's image the one that the chart uses.
#[test]
fn the_compose_file_is_sound() {
    let text = std::fs::read_to_string(top().join("docker-compose.yml")).expect("docker-compose.yml");
    let common = std::fs::read_to_string(top().join(".env")).expect(".env");
    for line in common.lines().filter(|line| line.starts_with("ISOCHRONE_")) {
        let (name, _) = line.split_once('=').expect("an assignment");
        assert!(
            text.contains(&format!("{name}: ${{{name}:-")),
            "{name} is not handed on"
        );
    }
    let chart = std::fs::read_to_string(top().join("deploy/helm/isochrone/values.yaml")).expect("values.yaml");
    let stack = std::fs::read_to_string(top().join("deploy/swarm/stack.yml")).expect("stack.yml");
    for image in text.lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
        let (repository, tag) = image.rsplit_once(':').expect("a tag");
        assert!(tag != "latest" && !tag.is_empty(), "{image}");
        if ["redis", "eclipse-mosquitto"].contains(&repository) {
            assert!(
                chart.contains(&format!("repository: {repository}, tag: {tag}")),
                "{image}"
            );
            assert!(stack.contains(image), "{image}");
        }
    }
}

/// Containers that are healthy.
fn healthy(docker: &Docker) -> usize {
    docker
        .run(&["ps", "--quiet", "--filter", "health=healthy"])
        .lines()
        .count()
}

fn report(docker: &Docker, more: &[&str]) -> Value {
    let mut arguments = vec![
        "exec",
        "-T",
        "plotter",
        "isochrone",
        "report",
        "--format",
        "json",
        "--per-topic",
    ];
    arguments.extend(more);
    serde_json::from_str(&docker.compose(&VARIABLES, &arguments)).expect("a report")
}

/// Topics of which something has arrived.
fn sending(docker: &Docker) -> usize {
    let report = report(docker, &[]);
    let topics = report["per_topic"].as_array().cloned().unwrap_or_default();
    let heard = |topic: &&Value| topic["unique"].as_u64().is_some_and(|unique| unique > 0);
    topics.iter().filter(heard).count()
}

fn received(docker: &Docker) -> u64 {
    ledger(&report(docker, &[]), "unique")
}

/// Topics held now: each consumer holds one at most, and says so on its page.
fn claims(docker: &Docker) -> usize {
    query(docker, "sum(isochrone_consumer_claims)").map_or(0, |sum| sum as usize)
}

/// An instant query that yields one number.
fn query(docker: &Docker, expression: &str) -> Option<f64> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let url = format!("http://localhost:9090/api/v1/query?query={encoded}");
    let answer = docker.compose(&VARIABLES, &["exec", "-T", "prometheus", "wget", "-q", "-O", "-", &url]);
    let answer: Value = serde_json::from_str(&answer).ok()?;
    answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
}
