//! Every query of the Grafana dashboards, against the real stores and with the shipped configuration of Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use isochrone_e2e::{
    servers::{Elasticsearch, Prometheus},
    wait,
};
use serde_json::{Value, json};

use crate::troubled::Troubled;

const PATIENCE: Duration = Duration::from_secs(90);

/// How far back queries look: more than a run of the tests lasts.
const MINUTES: u32 = 10;

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn dashboards() -> Vec<Value> {
    let folder = fs::read_dir(top().join("grafana/dashboards")).expect("dashboards");
    let read = |path: PathBuf| serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON");
    let all: Vec<Value> = folder.map(|entry| read(entry.expect("an entry").path())).collect();
    assert!(all.len() >= 4, "{}", all.len());
    all
}

fn each<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    each(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

/// What a dashboard's variables stand for: "All", or the first choice.
fn variables(dashboard: &Value) -> BTreeMap<String, String> {
    let value = |variable: &Value| {
        if variable["includeAll"] == true {
            text(&variable["allValue"]).to_owned()
        } else {
            text(&variable["options"][0]["value"]).to_owned()
        }
    };
    each(&dashboard["templating"], "list")
        .iter()
        .map(|variable| (format!("${}", text(&variable["name"])), value(variable)))
        .collect()
}

/// The step of a target in seconds when one looks closely: what it is scraped at.
fn step_s(target: &Value) -> u32 {
    let interval = text(&target["interval"]).trim_end_matches('s');
    interval.parse().unwrap_or(1)
}

/// A query as Grafana sends it (<https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables>).
fn expanded(query: &str, variables: &BTreeMap<String, String>, step_s: u32) -> String {
    let mut out = query
        .replace("$__rate_interval", &format!("{}s", 4 * step_s))
        .replace("$__interval", &format!("{step_s}s"));
    for (name, value) in variables {
        out = out.replace(name, value);
    }
    assert!(!out.contains('$'), "{out}");
    out
}

/// Uids are stable and unique, dashboards lead to each other, every panel says what it shows and in which unit, and every data
/// source is provisioned.
#[test]
fn dashboards_are_whole() {
    let provisioned =
        fs::read_to_string(top().join("grafana/provisioning/datasources/isochrone.yml")).expect("sources");
    let source = |of: &Value, what: &str| {
        let uid = text(&of["datasource"]["uid"]);
        assert!(provisioned.contains(&format!("uid: {uid}\n")), "{what}: {uid:?}");
    };
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        let uid = text(&dashboard["uid"]);
        assert!(uid.starts_with("isochrone-"), "{uid}");
        assert!(uids.insert(uid.to_owned()), "{uid} twice");
        assert!(dashboard["schemaVersion"].as_u64() >= Some(39), "{uid}");
        let links = each(&dashboard, "links").iter().flat_map(|link| each(link, "tags"));
        for tag in links {
            assert!(
                dashboards().iter().all(|other| each(other, "tags").contains(tag)),
                "{uid}: {tag}"
            );
        }
        assert!(!each(&dashboard, "links").is_empty(), "{uid} leads nowhere");
        for annotation in each(&dashboard["annotations"], "list") {
            source(annotation, uid);
        }
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = format!("{uid}: {}", text(&panel["title"]));
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!text(&panel["title"]).is_empty(), "{title}");
            assert!(!text(&panel["description"]).is_empty(), "{title}");
            assert!(!text(&defaults["unit"]).is_empty(), "{title}");
            assert!(!each(&defaults["thresholds"], "steps").is_empty(), "{title}");
            assert!(ids.insert(panel["id"].to_string()), "{title} shares its id");
            assert!(!each(panel, "targets").is_empty(), "{title}");
            for target in each(panel, "targets") {
                source(target, &title);
            }
        }
    }
}

/// With a run in which everything happens, every panel, annotation and variable has something to show, and the alerts that
/// must go off do.
#[test]
fn every_query_returns_data() {
    let mut run = Troubled::start();
    let prometheus = Prometheus::shipped(&run.ports());
    // What has counted before it was first seen has not increased.
    wait::until_equal("consumers scraped", Some(5.0), PATIENCE, || {
        prometheus.query("count(isochrone_consumer_takeovers_total)")
    });
    run.happen();
    run.write_backwards();

    let mut asked = 0;
    for dashboard in dashboards() {
        let variables = variables(&dashboard);
        for panel in panels(&dashboard) {
            for target in each(panel, "targets") {
                let title = format!("{}: {}", text(&dashboard["title"]), text(&panel["title"]));
                if target["datasource"]["type"] == "prometheus" {
                    let step_s = step_s(target);
                    let query = expanded(text(&target["expr"]), &variables, step_s);
                    shows(&prometheus, &title, &query, step_s);
                } else {
                    finds(&run.elasticsearch, &title, target, &variables);
                }
                asked += 1;
            }
        }
        for annotation in each(&dashboard["annotations"], "list") {
            let title = format!("annotation {}", text(&annotation["name"]));
            shows(
                &prometheus,
                &title,
                &expanded(text(&annotation["expr"]), &variables, 1),
                1,
            );
        }
        for variable in each(&dashboard["templating"], "list") {
            has_values(&prometheus, &run.elasticsearch, variable, &variables);
        }
    }
    assert!(asked > 100, "{asked}");

    wait::until("every alert rule to be evaluated", PATIENCE, || {
        let rules = prometheus.rules();
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")
    });
    for alert in [
        "IsochroneMessagesLost",
        "IsochroneSecondsNotValid",
        "IsochroneDaemonAway",
    ] {
        shows(&prometheus, alert, &format!("ALERTS{{alertname=\"{alert}\"}}"), 1);
    }
    let report = run.end();
    assert!(report["ledger"]["unique"].as_u64().is_some_and(|unique| unique > 0));
}

/// A query yields something at some time of the run.
fn shows(prometheus: &Prometheus, title: &str, query: &str, step_s: u32) {
    wait::until(&format!("{title}: {query}"), PATIENCE, || {
        prometheus
            .results_over(query, MINUTES, step_s)
            .is_some_and(|found| found > 0)
    });
}

fn has_values(
    prometheus: &Prometheus,
    elasticsearch: &Elasticsearch,
    variable: &Value,
    variables: &BTreeMap<String, String>,
) {
    if variable["type"] != "query" {
        assert!(each(variable, "options").len() > 1, "{variable}");
    } else if variable["datasource"]["type"] == "prometheus" {
        let query = text(&variable["query"]["query"]);
        let inner = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let (series, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values");
        let query = format!("count by ({label}) ({})", expanded(series, variables, 1));
        shows(prometheus, "variable", &query, 1);
    } else {
        let find: Value = serde_json::from_str(text(&variable["query"])).expect("a query of a variable");
        assert_eq!(find["find"], "terms");
        let query = find["query"].as_str().unwrap_or("*");
        let body = json!({"size": 0, "query": lucene(query, variables),
            "aggs": {"values": {"terms": {"field": find["field"]}}}});
        let found = ask(elasticsearch, "samples", &body);
        assert!(!each(&found["aggregations"]["values"], "buckets").is_empty(), "{found}");
    }
}

fn lucene(query: &str, variables: &BTreeMap<String, String>) -> Value {
    json!({"query_string": {"query": expanded(query, variables, 1)}})
}

fn ask(elasticsearch: &Elasticsearch, what: &str, body: &Value) -> Value {
    elasticsearch.ask("POST", &format!("/isochrone-{what}-*/_search"), &body.to_string())
}

/// Asks what Grafana would ask of a target of Elasticsearch: documents are found, and each metric has a value.
fn finds(elasticsearch: &Elasticsearch, title: &str, target: &Value, variables: &BTreeMap<String, String>) {
    let what = text(&target["datasource"]["uid"])
        .trim_start_matches("isochrone-")
        .to_owned();
    let metrics = each(target, "metrics");
    let query = lucene(text(&target["query"]), variables);
    if metrics[0]["type"] == "raw_data" {
        let body = json!({"size": 10, "query": query, "sort": [{"@timestamp": "desc"}]});
        wait::until(&format!("{title}: {query}"), PATIENCE, || {
            !each(&ask(elasticsearch, &what, &body)["hits"], "hits").is_empty()
        });
        return;
    }
    let mut aggregations = json!({});
    for metric in metrics.iter().filter(|metric| metric["type"] != "count") {
        let mut settings = metric["settings"].as_object().cloned().unwrap_or_default();
        settings.insert("field".into(), metric["field"].clone());
        aggregations[text(&metric["id"])] = json!({ text(&metric["type"]): settings });
    }
    for bucket in each(target, "bucketAggs").iter().rev() {
        let settings = &bucket["settings"];
        let kind = match text(&bucket["type"]) {
            "date_histogram" => json!({"date_histogram": {"field": bucket["field"], "fixed_interval": "1s"}}),
            "terms" => {
                let order = text(&settings["orderBy"]).replace("_term", "_key");
                json!({"terms": {"field": bucket["field"], "order": {order: settings["order"]}}})
            }
            other => panic!("{title}: {other}"),
        };
        let mut outer = kind;
        outer["aggs"] = aggregations;
        aggregations = json!({ text(&bucket["id"]): outer });
    }
    let body = json!({"size": 0, "query": query, "aggs": aggregations});
    wait::until(&format!("{title}: {body}"), PATIENCE, || {
        let answer = ask(elasticsearch, &what, &body);
        let leaves = leaves(&answer["aggregations"]);
        let valued = |metric: &Value| {
            metric["type"] == "count" || leaves.iter().any(|leaf| has_number(&leaf[text(&metric["id"])]))
        };
        !leaves.is_empty() && metrics.iter().all(valued)
    });
}

/// The innermost buckets that hold documents.
fn leaves(aggregations: &Value) -> Vec<Value> {
    let inner = aggregations.as_object().into_iter().flat_map(|all| all.values());
    let buckets: Vec<&Value> = inner.flat_map(|one| each(one, "buckets")).collect();
    if buckets.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for bucket in buckets
        .into_iter()
        .filter(|bucket| bucket["doc_count"].as_u64() > Some(0))
    {
        let deeper = leaves(bucket);
        if deeper.is_empty() {
            found.push(bucket.clone());
        } else {
            found.extend(deeper);
        }
    }
    found
}

fn has_number(value: &Value) -> bool {
    let values = value["values"].as_object().into_iter().flat_map(|all| all.values());
    value["value"].is_number() || values.into_iter().any(Value::is_number)
}
