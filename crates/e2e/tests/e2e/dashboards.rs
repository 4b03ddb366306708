//! Every query of the dashboards and alerts, against the real stores during a real run.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use isochrone_e2e::{
    daemon::{Site, ready},
    report::closed,
    servers::{Elasticsearch, Prometheus},
    wait,
};
use serde_json::Value;

const START: Duration = Duration::from_secs(60);

/// What panels say that show only trouble.
const MAY_BE_EMPTY: &str = "Empty is good.";

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

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let all = dashboard["panels"].as_array().expect("panels");
    all.iter().filter(|panel| panel["type"] != "row")
}

/// Targets of panels, with their panel.
fn targets<'a>(dashboards: &'a [Value], kind: &'a str) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let of_panel = |panel: &'a Value| {
        let targets = panel["targets"].as_array().expect("targets");
        targets.iter().map(move |target| (panel, target))
    };
    dashboards
        .iter()
        .flat_map(panels)
        .flat_map(of_panel)
        .filter(move |(_, target)| target["datasource"]["type"] == kind)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A query as it is with all variables at "All".
fn expanded(expression: &str) -> String {
    expression
        .replace("$percentile", "0.99")
        .replace("$run", ".*")
        .replace("$topic", ".*")
}

/// The expressions of `config/prometheus-alerts.yml`, each on a line of its own.
fn alerts() -> Vec<String> {
    let rules = fs::read_to_string(top().join("config/prometheus-alerts.yml")).expect("alert rules");
    let found = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: ").map(str::to_owned));
    found.collect()
}

/// Uids are stable and unique, every panel says what it shows and in which unit, and every data source is provisioned.
#[test]
fn dashboards_are_whole() {
    let provisioned =
        fs::read_to_string(top().join("grafana/provisioning/datasources/isochrone.yml")).expect("sources");
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        let uid = text(&dashboard["uid"]);
        assert!(uid.starts_with("isochrone-"), "{uid}");
        assert!(uids.insert(uid.to_owned()), "{uid} twice");
        assert!(
            dashboard["links"].as_array().is_some_and(|links| !links.is_empty()),
            "{uid} has no links"
        );
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = text(&panel["title"]);
            assert!(
                !title.is_empty() && !text(&panel["description"]).is_empty(),
                "{uid}: {title}"
            );
            assert!(
                !text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(),
                "{uid}: {title}"
            );
            assert!(ids.insert(panel["id"].to_string()), "{uid}: {title} shares its id");
            for target in panel["targets"].as_array().expect("targets") {
                let source = text(&target["datasource"]["uid"]);
                assert!(
                    provisioned.contains(&format!("uid: {source}\n")),
                    "{uid}: {title}: {source}"
                );
            }
        }
    }
}

/// Panels show something while a run is under way, alerts and annotations evaluate, variables have values, and fields of
/// Elasticsearch queries are there.
#[test]
fn every_query_returns_data() {
    let elasticsearch = Elasticsearch::start();
    let url = elasticsearch.url();
    let site = Site::start(&[("ISOCHRONE_ELASTICSEARCH_URL", &url)]);
    let plotter = site.daemon("plotter", &[]);
    let consumers = site.daemons("consumer", 2, &[]);
    let settings = [
        ("ISOCHRONE_RATE", "50"),
        ("ISOCHRONE_QOS", "1"),
        ("ISOCHRONE_AT_END", "idle"),
    ];
    let producers = site.daemons("producer", 2, &settings);
    let ports: Vec<_> = [&plotter]
        .into_iter()
        .chain(&consumers)
        .chain(&producers)
        .map(|daemon| ready(daemon, START))
        .collect();
    let prometheus = Prometheus::start(&ports);

    let dashboards = dashboards();
    let mut queries = 0;
    for (panel, target) in targets(&dashboards, "prometheus") {
        let expression = expanded(text(&target["expr"]));
        let may_be_empty = text(&panel["description"]).contains(MAY_BE_EMPTY);
        wait::until(&format!("{}: {expression}", text(&panel["title"])), START, || {
            prometheus
                .results(&expression)
                .is_some_and(|found| found > 0 || may_be_empty)
        });
        queries += 1;
    }
    assert!(queries > 50, "{queries}");
    for dashboard in &dashboards {
        for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
            let expression = expanded(text(&annotation["expr"]));
            assert!(prometheus.results(&expression).is_some(), "{expression}");
        }
        for variable in dashboard["templating"]["list"].as_array().expect("variables") {
            let query = text(&variable["query"]["query"]);
            if let Some((series, label)) = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.rsplit_once(", "))
            {
                let label = label.trim_end_matches(')');
                let expression = format!("count by ({label}) ({})", expanded(series));
                assert!(
                    prometheus.results(&expression).is_some_and(|found| found > 0),
                    "{expression}"
                );
            }
        }
    }
    let alerts = alerts();
    assert!(alerts.len() >= 6);
    for expression in alerts {
        assert!(prometheus.results(&expression).is_some(), "{expression}");
    }

    let mut fields = BTreeSet::from(["@timestamp".to_owned(), "run".to_owned()]);
    for (_, target) in targets(&dashboards, "elasticsearch") {
        assert_eq!(target["query"], "run:$run");
        let parts = [&target["metrics"], &target["bucketAggs"]];
        let named = parts
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .map(|part| text(&part["field"]));
        fields.extend(named.filter(|field| !field.is_empty()).map(str::to_owned));
    }
    for field in fields {
        let path = format!(
            "/isochrone-samples-*/_search?size=1&q=run:*%20AND%20_exists_:{}",
            field.replace('@', "%40")
        );
        wait::until(&format!("documents with {field}"), START, || {
            elasticsearch.ask("GET", &path, "")["hits"]["hits"]
                .as_array()
                .is_some_and(|hits| !hits.is_empty())
        });
    }
    drop(producers);
    let (report, _) = closed(&site, None);
    assert!(report["ledger"]["unique"].as_u64().is_some_and(|unique| unique > 0));
}
