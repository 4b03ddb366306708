//! The Helm chart: lint, schemas, what its pods are given.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use isochrone_e2e::{
    daemon,
    docker::{self, succeeded, tool, top},
    process::Process,
    servers::{free_port, program, wait_for_port},
    wait,
};
use serde_json::Value;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(30);
/// The newest that the validator knows, and the oldest that the chart names.
const KUBERNETES: [&str; 2] = ["1.37", "1.25"];

/// Helm finds nothing wrong, and each object is valid for Kubernetes, by default and with everything on.
#[test]
fn every_object_is_valid() {
    let folder = tempfile::tempdir().expect("temp dir");
    for values in [None, Some(everything())] {
        let mut arguments = vec!["lint", "--strict"];
        let path = values.as_ref().map(|path| path.display().to_string());
        arguments.extend(path.iter().flat_map(|path| ["--values", path]));
        succeeded("helm lint", &helm(&arguments));

        let objects = render(&arguments[2..], &folder);
        // The operator's own kind is not one of Kubernetes.
        let (monitors, known): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object["kind"] == "PodMonitor");
        assert_eq!(monitors.len(), if values.is_some() { 3 } else { 0 });
        for monitor in monitors {
            let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
            assert_eq!(
                (&endpoint["port"], &endpoint["path"]),
                (&"http".into(), &"/metrics".into())
            );
            assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
            // As the dashboards' up{job=~"isochrone.*"} has it.
            let job = endpoint["relabelings"][0]["replacement"].as_str();
            assert!(job.is_some_and(|job| job.starts_with("isochrone")), "{monitor:#}");
        }
        assert!(known.len() >= 11, "{} objects", known.len());
        let file = folder.path().join("objects.yaml");
        let documents: Vec<_> = known.iter().map(|object| object.to_string()).collect();
        fs::write(&file, documents.join("\n---\n")).expect("write the objects");
        for version in KUBERNETES {
            let checked = Command::new(tool("kubernetes-validate", "bin/kubernetes-validate"))
                .args(["--strict", "-k", version])
                .arg(&file)
                .output();
            succeeded("kubernetes-validate", &checked.expect("kubernetes-validate"));
        }
    }
}

/// A name that is no setting is refused before anything is installed.
#[test]
fn a_misspelt_setting_is_refused() {
    for place in ["settings", "producer.settings", "secrets.values"] {
        let output = helm(&["template", "--set", &format!("{place}.ISOCHRONE_PASWORD=x")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("ISOCHRONE_PASWORD"),
            "{place}: {said}"
        );
    }
}

/// Values that cannot work together are refused, with the one to change.
#[test]
fn what_cannot_work_is_refused() {
    for (values, wanted) in [
        (&["mosquitto.enabled=false"][..], "producer.settings.ISOCHRONE_BROKER"),
        (&["redis.enabled=false"], "settings.ISOCHRONE_REDIS_URL"),
        (&["secrets.existing=broker"], "secrets.existingKeys"),
        (&["secrets.existingKeys={ISOCHRONE_PASSWORD}"], "secrets.existing"),
        (
            &["producer.kind=Job", "producer.autoscaling.enabled=true"],
            "producer.autoscaling.enabled",
        ),
        (
            &["producer.kind=Job", "producer.settings.ISOCHRONE_AT_END=idle"],
            "ISOCHRONE_AT_END",
        ),
        (&["producer.settings.ISOCHRONE_PASSWORD=x"], "ISOCHRONE_PASSWORD"),
    ] {
        let sets: Vec<_> = values.iter().flat_map(|value| ["--set", *value]).collect();
        let output = helm(&[&["template"], &sets[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(wanted), "{values:?}: {said}");
    }
    let folder = tempfile::tempdir().expect("temp dir");
    let elsewhere = [
        "mosquitto.enabled=false",
        "producer.settings.ISOCHRONE_BROKER=mqtts://broker.example.com",
        "redis.enabled=false",
        "secrets.values.ISOCHRONE_REDIS_URL=rediss://:secret@redis.example.com",
    ];
    let sets: Vec<_> = elsewhere.iter().flat_map(|value| ["--set", *value]).collect();
    let environment = environment(pod(&render(&sets, &folder), "producer"));
    assert_eq!(environment["ISOCHRONE_BROKER"], "mqtts://broker.example.com");
    assert!(!environment.contains_key("ISOCHRONE_REDIS_URL"));
}

/// Numbers arrive as they were written, secrets as files, and the pod outlives ISOCHRONE_SHUTDOWN.
#[test]
fn pods_are_given_what_the_values_say() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = everything().display().to_string();
    let objects = render(&["--values", &path], &folder);
    let pod = pod(&objects, "producer");
    let environment = environment(pod);
    for (name, text) in [
        ("ISOCHRONE_DEVICES", "1000000"),
        ("ISOCHRONE_RATE", "0.5"),
        ("ISOCHRONE_PARTITIONS", "128"),
        ("ISOCHRONE_SHUTDOWN", "20s"),
        ("ISOCHRONE_PASSWORD_FILE", "/run/secrets/isochrone/ISOCHRONE_PASSWORD"),
        (
            "ISOCHRONE_CONSUMER_PASSWORD_FILE",
            "/run/secrets/isochrone/ISOCHRONE_CONSUMER_PASSWORD",
        ),
    ] {
        assert_eq!(environment.get(name).map(String::as_str), Some(text), "{name}");
    }
    assert!(
        !environment.values().any(|text| text == "012345"),
        "a secret is in the environment"
    );
    assert_eq!(pod["terminationGracePeriodSeconds"], 25);
    for object in &objects {
        if let Some(pod) = object.pointer("/spec/template/spec") {
            assert_eq!(pod["enableServiceLinks"], false, "{object:#}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{object:#}");
        }
    }
}

/// By default and with everything on a daemon has longer than its own time to finish, and the servers it writes to end after it.
#[test]
fn pods_have_time_to_finish() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = everything().display().to_string();
    for values in [Vec::new(), vec!["--values", path.as_str()]] {
        let objects = render(&values, &folder);
        let grace = |pod: &Value| pod["terminationGracePeriodSeconds"].as_u64().expect("a grace period");
        for role in ["producer", "consumer", "plotter"] {
            let daemon = pod(&objects, role);
            let shutdown = &environment(daemon)["ISOCHRONE_SHUTDOWN"];
            let seconds: u64 = shutdown.trim_end_matches('s').parse().expect("seconds");
            assert!(grace(daemon) > seconds, "{role}: {shutdown}");
            for server in ["mosquitto", "redis"] {
                let server = pod(&objects, server);
                let wait = &server["containers"][0]["lifecycle"]["preStop"]["exec"]["command"];
                assert_eq!(*wait, serde_json::json!(["sleep", seconds.to_string()]));
                assert!(grace(server) > seconds && grace(server) > grace(daemon), "{server:#}");
            }
        }
    }
}

/// The servers that the chart brings, with the configuration that it gives them, are as `doctor` wants them; and it is the
/// configuration of the Compose file and the stack.
#[test]
fn the_servers_of_the_chart_satisfy_doctor() {
    let folder = tempfile::tempdir().expect("temp dir");
    let objects = render(&[], &folder);
    let config = |name: &str| {
        let file = format!("{name}.conf");
        let of_chart = objects
            .iter()
            .filter(|object| object["kind"] == "ConfigMap")
            .find_map(|object| object["data"][&file].as_str())
            .expect("a configuration");
        let shipped = fs::read_to_string(top().join("config").join(&file)).expect("a configuration");
        assert_eq!(of_chart.trim(), shipped.trim(), "{file}");
        of_chart.to_owned()
    };
    let (mosquitto_port, redis_port) = (free_port(), free_port());
    // Only where they listen and write is another place here.
    let lines = config("mosquitto")
        .replace(
            "listener 1883",
            &format!("listener {mosquitto_port} 127.0.0.1\nuser root"),
        )
        .replace("/mosquitto/data/", &format!("{}/", folder.path().display()));
    let path = folder.path().join("mosquitto.conf");
    fs::write(&path, lines).expect("mosquitto.conf");
    let mut mosquitto = program("mosquitto");
    mosquitto.arg("-c").arg(&path);
    let _mosquitto = Process::start("mosquitto", mosquitto, folder.path());
    let path = folder.path().join("redis.conf");
    fs::write(&path, config("redis")).expect("redis.conf");
    let mut redis = program("redis-server");
    redis
        .arg(&path)
        .args(["--port", &redis_port.to_string(), "--bind", "127.0.0.1", "--dir"]);
    redis.arg(folder.path());
    let _redis = Process::start("redis", redis, folder.path());
    wait_for_port(mosquitto_port);
    wait_for_port(redis_port);

    let (broker, store) = (
        format!("mqtt://127.0.0.1:{mosquitto_port}"),
        format!("redis://127.0.0.1:{redis_port}"),
    );
    let settings = [("ISOCHRONE_BROKER", broker.as_str()), ("ISOCHRONE_REDIS_URL", &store)];
    let examined = daemon::command("isochrone", &settings)
        .args(["doctor", "--format", "json"])
        .output();
    let findings = succeeded("isochrone doctor", &examined.expect("isochrone doctor"));
    docker::assert_content(&findings);
}

/// With the service links of the chart's own services in its environment (a pod template of one's own may have them) every
/// daemon starts, and says so.
#[test]
fn service_links_disturb_no_daemon() {
    let folder = tempfile::tempdir().expect("temp dir");
    let objects = render(&[], &folder);
    let links = service_links(&objects);
    for name in ["ISOCHRONE_REDIS_PORT_6379_TCP_ADDR", "ISOCHRONE_PLOTTER_PORT"] {
        assert!(links.iter().any(|(link, _)| link == name), "{name}: {links:?}");
    }
    for role in ["producer", "consumer", "plotter"] {
        let mut environment = environment(pod(&objects, role));
        environment.extend(links.iter().cloned());
        environment.insert("ISOCHRONE_LISTEN".to_owned(), "127.0.0.1:0".to_owned());
        let pairs: Vec<_> = environment
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let command = daemon::command(&format!("isochrone-{role}"), &pairs);
        let mut process = Process::start(role, command, folder.path());
        daemon::listening(&process, START);
        wait::until("the daemon to start", START, || {
            process.stderr().contains(&format!("{role} starts"))
        });
        assert_eq!(process.stop(START), 0, "{}", process.stderr());
    }
}

fn everything() -> PathBuf {
    top().join("crates/e2e/tests/deploy/everything.yaml")
}

/// `helm <task> [arguments] <chart>`; a release has the chart's name, as most do.
fn helm(arguments: &[&str]) -> Output {
    let mut command = Command::new(tool("helm", "helm"));
    command.arg(arguments[0]);
    if arguments[0] == "template" {
        command.arg("isochrone");
    }
    command.arg(top().join("deploy/helm/isochrone")).args(&arguments[1..]);
    command.output().expect("helm")
}

/// The objects that the chart makes.
fn render(arguments: &[&str], folder: &TempDir) -> Vec<Value> {
    let text = succeeded("helm template", &helm(&[&["template"], arguments].concat()));
    let file = folder.path().join("rendered.yaml");
    fs::write(&file, text).expect("write the objects");
    json(&file)
}

/// YAML documents as JSON, by the validator's own parser.
fn json(file: &Path) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d]))";
    let output = Command::new(tool("kubernetes-validate", "bin/python"))
        .args(["-c", script])
        .arg(file)
        .output();
    serde_json::from_str(&succeeded("yaml", &output.expect("python"))).expect("JSON")
}

/// The pod of a daemon.
///
/// # Panics
/// When there is none.
fn pod<'a>(objects: &'a [Value], component: &str) -> &'a Value {
    objects
        .iter()
        .filter(|object| object["metadata"]["labels"]["app.kubernetes.io/component"] == component)
        .find_map(|object| object.pointer("/spec/template/spec"))
        .expect("a pod")
}

fn environment(pod: &Value) -> BTreeMap<String, String> {
    let list = pod["containers"][0]["env"].as_array().expect("an environment");
    let pair = |one: &Value| Some((one["name"].as_str()?.to_owned(), one["value"].as_str()?.to_owned()));
    list.iter().filter_map(pair).collect()
}

/// What a kubelet adds for each service that has an address. The plotters' has none by default; here it has one too.
fn service_links(objects: &[Value]) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for service in objects.iter().filter(|object| object["kind"] == "Service") {
        let name = service["metadata"]["name"].as_str().expect("a name");
        let prefix = name.to_uppercase().replace('-', "_");
        let port = &service["spec"]["ports"][0];
        let (number, label) = (
            port["port"].to_string(),
            port["name"].as_str().expect("a name").to_uppercase(),
        );
        let (address, tcp) = ("10.96.0.7", format!("{prefix}_PORT_{number}_TCP"));
        links.extend([
            (format!("{prefix}_SERVICE_HOST"), address.to_owned()),
            (format!("{prefix}_SERVICE_PORT"), number.clone()),
            (format!("{prefix}_SERVICE_PORT_{label}"), number.clone()),
            (format!("{prefix}_PORT"), format!("tcp://{address}:{number}")),
            (tcp.clone(), format!("tcp://{address}:{number}")),
            (format!("{tcp}_PROTO"), "tcp".to_owned()),
            (format!("{tcp}_PORT"), number),
            (format!("{tcp}_ADDR"), address.to_owned()),
        ]);
    }
    links
}
