//! `docker compose up`, scaled up and down.

use std::{process::Command, time::Duration};

use isochrone_e2e::{
    docker::{Docker, assert_content, succeeded, tool, top},
    report::{assert_whole, ledger},
    wait,
};
use serde_json::Value;

use crate::until;

/// For two hundred containers on two cores.
const START: Duration = Duration::from_secs(300);
/// A topic is taken within a second of its consumer's start; the rest is for a busy machine.
const TAKEN: Duration = Duration::from_secs(60);
/// What Prometheus says of the daemons: it looks for them, and at them, every 15 seconds.
const SEEN: Duration = Duration::from_secs(120);
/// How long each device sends: much longer than it takes to start a hundred of them. A device that has ended gives its number,
/// and with it its topic, to one that starts later.
const SENDING: &str = "240s";
const END: Duration = Duration::from_secs(420);
/// Of each device, in messages a second (`.env`).
const RATE: u64 = 10;
const FLEET: usize = 100;
const SMALL: usize = 10;
/// Everything for which an image can be had without a registry, which is all but Grafana, Kibana and redis-commander.
const SERVICES: [&str; 8] = [
    "mosquitto",
    "redis",
    "prometheus",
    "elasticsearch",
    "otel-collector",
    "plotter",
    "consumer",
    "producer",
];
const PROFILES: (&str, &str) = ("COMPOSE_PROFILES", "prometheus,otlp,elastic");
/// A fleet of a hundred without it: as many documents as messages would take what two cores have left.
const NO_DOCUMENTS: (&str, &str) = ("ISOCHRONE_ELASTICSEARCH_URL", "");
/// As docs/compose.md says of hundreds of daemons on few cores.
const SELDOM: (&str, &str) = ("HEALTH_INTERVAL", "120s");

/// A hundred producers and as many consumers. Everything becomes healthy and works 1:1; when half of the consumers go their
/// topics wait, and are taken when they are back. Then once more at QoS 0, with producers that end by themselves: each message
/// is there. And nothing is left over.
#[test]
fn compose_scales_up_and_down() {
    let docker = Docker::start();
    let project = Project {
        docker: &docker,
        variables: vec![PROFILES, NO_DOCUMENTS, SELDOM, ("ISOCHRONE_QOS", "1")],
    };
    let begun = wait::now();
    project.up(FLEET, FLEET);
    let up = begun.elapsed();
    until("every topic to be taken", TAKEN, || project.heard() == FLEET);
    let taken = begun.elapsed();
    // All but the Collector, whose image has nothing to ask it with.
    until("every container to be healthy", START, || {
        project.healthy() == 2 * FLEET + SERVICES.len() - 3
    });
    let (memory, containers) = docker.memory();
    println!(
        "{containers} containers: started in {up:.0?}, every topic heard after {taken:.0?}, healthy after {:.0?}, {memory} MiB",
        begun.elapsed()
    );
    assert_eq!(containers, 2 * FLEET + SERVICES.len() - 2);
    until("every consumer to say that it holds one topic", SEEN, || {
        project.claims() == (FLEET, 1)
    });
    project.up(FLEET, FLEET / 2);
    until("half of the topics to wait", SEEN, || project.claims().0 == FLEET / 2);
    let begun = wait::now();
    project.up(FLEET, FLEET);
    let up = begun.elapsed();
    until("every topic to be taken again", SEEN, || project.claims() == (FLEET, 1));
    println!(
        "half of the consumers back: started in {up:.0?}, every topic held after {:.0?}",
        begun.elapsed()
    );
    project.compose(&["stop", "producer"]);
    let report = project.report(&["--wait"]);
    assert_whole(&report);
    assert_eq!(report["topics"], FLEET, "{report:#}");
    all_at_once(&docker);
    project.down();
}

/// A small fleet, with everything for which there is an image: every store has seen it, Elasticsearch each sample once, the
/// servers are as `doctor` wants them, and nothing is left over.
#[test]
fn every_store_of_the_compose_file_is_fed() {
    let docker = Docker::start();
    let project = Project {
        docker: &docker,
        variables: vec![PROFILES, ("ISOCHRONE_QOS", "1")],
    };
    project.up(SMALL, SMALL);
    until("every topic to be taken", TAKEN, || project.heard() == SMALL);
    project.assert_doctor_is_content();
    until("Prometheus to see the run", SEEN, || {
        project
            .query("sum(isochrone_received_total)")
            .is_some_and(|sum| sum > 0.0)
    });
    until("the Collector to hand it on", SEEN, || {
        project
            .query("sum({__name__=\"isochrone.received\"})")
            .is_some_and(|sum| sum > 0.0)
            && project
                .query("histogram_count(sum({__name__=\"isochrone.response\"}))")
                .is_some_and(|count| count > 0.0)
    });
    project.compose(&["stop", "producer"]);
    let report = project.report(&["--wait"]);
    assert_whole(&report);
    assert_eq!(report["topics"], SMALL, "{report:#}");
    project.assert_documents(&report);
    project.down();
}

/// The fleet anew, all devices together for a minute and more: producers end by themselves, and every message that was due was
/// sent and has arrived.
fn all_at_once(docker: &Docker) {
    let project = Project {
        docker,
        variables: vec![PROFILES, NO_DOCUMENTS, SELDOM, ("ISOCHRONE_DURATION", SENDING)],
    };
    let begun = wait::now();
    project.up(FLEET, FLEET);
    let up = begun.elapsed();
    until("every topic to be taken", TAKEN, || project.heard() == FLEET);
    let taken = begun.elapsed();
    until("every producer to end", END, || project.running("producer") == 0);
    let report = project.report(&["--wait"]);
    println!(
        "{FLEET} devices for {SENDING}: started in {up:.0?}, every topic heard after {taken:.0?}, closed after {:.0?}; \
         response {:#}, seconds {}",
        begun.elapsed(),
        report["latency_ns"]["response"],
        report["seconds"]
    );
    assert_whole(&report);
    assert_eq!(report["topics"], FLEET, "{report:#}");
    assert_eq!(
        ledger(&report, "scheduled"),
        FLEET as u64 * RATE * seconds(SENDING),
        "{report:#}"
    );
}

/// Compose and Swarm give a daemon longer than ISOCHRONE_SHUTDOWN to finish, and a memory limit to every container.
#[test]
fn containers_have_time_to_finish() {
    let settings = std::fs::read_to_string(top().join("config/common.env")).expect("common.env");
    let shutdown = settings
        .lines()
        .find_map(|line| line.strip_prefix("#ISOCHRONE_SHUTDOWN="));
    let shutdown = seconds(shutdown.expect("ISOCHRONE_SHUTDOWN"));
    let mut compose = Command::new(tool("compose", "compose"));
    compose.current_dir(top());
    let output = compose.args(["--profile", "*", "config", "--format", "json"]).output();
    let config = succeeded("docker compose config", &output.expect("docker compose"));
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let services = config["services"].as_object().expect("services");
    for role in ["producer", "consumer", "plotter"] {
        let grace = services[role]["stop_grace_period"].as_str().expect("a grace period");
        assert!(seconds(grace) > shutdown, "{role}: {grace}");
    }
    for (name, service) in services {
        assert!(!service["mem_limit"].is_null(), "{name} has no memory limit");
    }
    let stack = std::fs::read_to_string(top().join("deploy/swarm/stack.yml")).expect("stack.yml");
    let graces: Vec<_> = stack
        .lines()
        .filter_map(|line| line.trim().strip_prefix("stop_grace_period: "))
        .map(seconds)
        .collect();
    assert!(
        graces.len() == 3 && graces.iter().all(|grace| *grace > shutdown),
        "{graces:?}"
    );
}

/// The file says what the settings say: every setting of `.env` handed on, one build, pinned tags, and each server's image the
/// one that the chart and the stack use.
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
    // Built for each service, the images would differ in a label, and the next `up` would start every daemon anew.
    assert_eq!(text.lines().filter(|line| line.trim() == "build:").count(), 1);
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

/// The Compose file with some variables over `.env`, on an engine.
struct Project<'a> {
    docker: &'a Docker,
    variables: Vec<(&'a str, &'a str)>,
}

impl Project<'_> {
    fn compose(&self, arguments: &[&str]) -> String {
        self.docker.compose(&self.variables, arguments)
    }

    fn up(&self, producers: usize, consumers: usize) {
        let scales = [format!("producer={producers}"), format!("consumer={consumers}")];
        let mut arguments = vec!["up", "--detach", "--no-build", "--quiet-pull"];
        arguments.extend(scales.iter().flat_map(|scale| ["--scale", scale]));
        arguments.extend(SERVICES);
        self.compose(&arguments);
    }

    /// Nothing of it is left.
    fn down(&self) {
        self.compose(&["down", "--volumes"]);
        for arguments in [
            &["ps", "--all", "--quiet"][..],
            &["volume", "ls", "--quiet"],
            &["network", "ls", "--quiet", "--filter", "type=custom"],
        ] {
            assert_eq!(self.docker.run(arguments), "", "{arguments:?}");
        }
    }

    /// Containers that are healthy.
    fn healthy(&self) -> usize {
        let healthy = self.docker.run(&["ps", "--quiet", "--filter", "health=healthy"]);
        healthy.lines().count()
    }

    /// Containers of a service that run.
    fn running(&self, service: &str) -> usize {
        let label = format!("label=com.docker.compose.service={service}");
        self.docker.run(&["ps", "--quiet", "--filter", &label]).lines().count()
    }

    /// Nothing to mend, but for what is this machine's own.
    fn assert_doctor_is_content(&self) {
        let found = self.compose(&["exec", "-T", "producer", "isochrone", "doctor", "--format", "json"]);
        assert_content(&found);
    }

    /// The newest run's.
    fn report(&self, more: &[&str]) -> Value {
        let mut arguments = vec!["exec", "-T", "plotter", "isochrone", "report"];
        arguments.extend(["--format", "json", "--per-topic"]);
        arguments.extend(more);
        serde_json::from_str(&self.compose(&arguments)).expect("a report")
    }

    /// The same, when it can be had: on a busy machine Redis may answer too late for it.
    fn try_report(&self) -> Option<Value> {
        let arguments = [
            "exec",
            "-T",
            "plotter",
            "isochrone",
            "report",
            "--format",
            "json",
            "--per-topic",
        ];
        let output = self.docker.try_compose(&self.variables, &arguments);
        if !output.status.success() {
            println!("no report: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Topics of which something has arrived.
    fn heard(&self) -> usize {
        let report = self.try_report().unwrap_or_default();
        let topics = report["per_topic"].as_array().cloned().unwrap_or_default();
        let heard = |topic: &&Value| topic["ledger"]["unique"].as_u64().is_some_and(|unique| unique > 0);
        let heard = topics.iter().filter(heard).count();
        println!("{heard} of {} topics heard so far", topics.len());
        heard
    }

    /// Topics held now, and how many one consumer holds at most: each says so on its page.
    fn claims(&self) -> (usize, usize) {
        let number = |expression| self.query(expression).map_or(0, |number| number as usize);
        (
            number("sum(isochrone_consumer_claims)"),
            number("max(isochrone_consumer_claims)"),
        )
    }

    /// An instant query to Prometheus that yields one number.
    fn query(&self, expression: &str) -> Option<f64> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("http://localhost:9090/api/v1/query?query={encoded}");
        let arguments = ["exec", "-T", "prometheus", "wget", "-q", "-O", "-", &url];
        let output = self.docker.try_compose(&self.variables, &arguments);
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
    }

    /// Elasticsearch has each sample of a closed run once.
    fn assert_documents(&self, report: &Value) {
        let run = report["run"].as_str().expect("a run");
        let ask = |path: &str| {
            let url = format!("http://localhost:9200/isochrone-samples-*/{path}");
            self.compose(&["exec", "-T", "elasticsearch", "curl", "-fsS", &url])
        };
        ask("_refresh");
        let counted: Value = serde_json::from_str(&ask(&format!("_count?q=run:%22{run}%22"))).expect("a count");
        assert_eq!(counted["count"], report["ledger"]["unique"], "{counted:#}");
    }
}

/// `35s`
fn seconds(text: &str) -> u64 {
    let number = text.strip_suffix('s').map(str::parse);
    number.expect("a number of seconds").expect("a number of seconds")
}
