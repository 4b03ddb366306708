//! The Swarm stack, by its own commands.

use std::time::Duration;

use isochrone_e2e::{
    docker::{Docker, succeeded, top},
    report::{assert_whole, ledger},
};
use serde_json::Value;

use crate::until;

const START: Duration = Duration::from_secs(180);
const TAKEN: Duration = Duration::from_secs(90);
/// A name resolves to a task after its first health check, and Prometheus asks for it every 15 seconds.
const SEEN: Duration = Duration::from_secs(180);

/// Deployed, scaled, a task killed, stopped in order, and nothing of it is left; secrets come as files alone.
#[test]
fn the_stack_is_deployed_scaled_hurt_and_removed() {
    let docker = Docker::start();
    docker.run(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    let secrets = tempfile::tempdir().expect("temp dir");
    let script = |name: &str, arguments: &[&str]| {
        let mut command = docker.command(top().join("deploy/swarm").join(name));
        command.args(arguments).env("SECRETS", secrets.path());
        command.envs([("PRODUCERS", "5"), ("CONSUMERS", "5"), ("ISOCHRONE_QOS", "1")]);
        succeeded(name, &command.output().expect("script"))
    };
    script("build", &["--quiet", "--build-arg", "PROGRAMS=prebuilt"]);
    script("deploy", &[]);
    until("every topic to be taken", START, || sending(&docker) == 5);

    docker.run(&[
        "service",
        "scale",
        "--detach",
        "isochrone_consumer=8",
        "isochrone_producer=8",
    ]);
    until("the new topics to be taken", TAKEN, || sending(&docker) == 8);
    until("Prometheus to find every task, with its alerts", SEEN, || {
        let ask = |path: &str| {
            let prometheus = container(&docker, "prometheus")?;
            let url = format!("http://localhost:9090/api/v1/{path}");
            let answer = docker.try_run(&["exec", &prometheus, "wget", "-q", "-O", "-", &url]);
            serde_json::from_slice::<Value>(&answer.stdout).ok()
        };
        let up = ask("query?query=sum(up)").unwrap_or_default();
        let rules = ask("rules").unwrap_or_default();
        up.pointer("/data/result/0/value/1") == Some(&Value::from((8 + 8 + 1).to_string()))
            && rules.pointer("/data/groups/0/name") == Some(&Value::from("isochrone"))
    });

    let victim = container(&docker, "consumer").expect("a consumer");
    docker.run(&["kill", "--signal", "KILL", &victim]);
    until("the dead consumer to be replaced", TAKEN, || {
        let running = docker.run(&[
            "ps",
            "--quiet",
            "--filter",
            "label=com.docker.swarm.service.name=isochrone_consumer",
        ]);
        running.lines().count() == 8 && !running.contains(&victim[..12])
    });
    let before = heard(&docker);
    until("every topic to be heard again", TAKEN, || {
        let now = heard(&docker);
        before
            .iter()
            .all(|(topic, count)| now.iter().any(|(other, more)| other == topic && more > count))
    });

    let password = std::fs::read_to_string(secrets.path().join("redis_url")).expect("redis_url");
    let password = password
        .trim()
        .trim_start_matches("redis://:")
        .trim_end_matches("@redis:6379");
    assert!(password.len() >= 32, "a password was drawn");
    for service in ["producer", "consumer", "plotter", "redis"] {
        let container = container(&docker, service).expect("a container");
        assert!(!docker.run(&["inspect", &container]).contains(password), "{service}");
        assert!(
            !docker
                .run(&["service", "inspect", &format!("isochrone_{service}")])
                .contains(password),
            "{service}"
        );
        let logs = docker.try_run(&["logs", &container]);
        assert!(
            !String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).contains(password),
            "{service}"
        );
    }

    // In order by hand, so that the report can be read before the store goes.
    docker.run(&["service", "scale", "--detach", "isochrone_producer=0"]);
    let report = report(&docker, &["--wait"]).expect("a report");
    // What the killed consumer had received and not yet written is told, and nothing else is missing.
    assert_eq!(report["ledger"]["balanced"], true, "{report:#}");
    assert_eq!(ledger(&report, "lost"), 0, "{report:#}");
    if ledger(&report, "unrecorded") == 0 {
        assert_whole(&report);
    }

    script("stop", &["--volumes"]);
    assert_eq!(docker.run(&["ps", "--all", "--quiet"]), "");
    for kind in ["service", "config", "secret", "volume"] {
        assert_eq!(docker.run(&[kind, "ls", "--quiet"]), "", "{kind}");
    }
    let label = "label=com.docker.stack.namespace=isochrone";
    assert_eq!(docker.run(&["network", "ls", "--quiet", "--filter", label]), "");
}

/// A running container of a service.
fn container(docker: &Docker, service: &str) -> Option<String> {
    let label = format!("label=com.docker.swarm.service.name=isochrone_{service}");
    let running = docker.run(&["ps", "--quiet", "--no-trunc", "--filter", &label]);
    running.lines().next().map(str::to_owned)
}

fn report(docker: &Docker, more: &[&str]) -> Option<Value> {
    let plotter = container(docker, "plotter")?;
    let mut arguments = vec![
        "exec",
        &plotter,
        "isochrone",
        "report",
        "--format",
        "json",
        "--per-topic",
    ];
    arguments.extend(more);
    serde_json::from_slice(&docker.try_run(&arguments).stdout).ok()
}

/// Each topic, and how many of its messages have arrived.
fn heard(docker: &Docker) -> Vec<(String, u64)> {
    let report = report(docker, &[]).unwrap_or_default();
    let topics = report["per_topic"].as_array().cloned().unwrap_or_default();
    let row = |topic: &Value| {
        (
            topic["topic"].to_string(),
            topic["ledger"]["unique"].as_u64().unwrap_or(0),
        )
    };
    topics.iter().map(row).collect()
}

fn sending(docker: &Docker) -> usize {
    heard(docker).iter().filter(|(_, count)| *count > 0).count()
}
