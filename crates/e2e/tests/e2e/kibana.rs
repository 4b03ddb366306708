//! The objects that the stack imports into Kibana: whole, and true of what the plotter writes to a real Elasticsearch. Kibana
//! itself cannot be had here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use isochrone_e2e::servers::Elasticsearch;
use serde_json::{Value, json};

use crate::troubled::Troubled;

/// What Lens calls the documents themselves.
const RECORDS: &str = "___records___";

fn objects() -> Vec<Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kibana");
    let files = fs::read_dir(folder)
        .expect("deploy/kibana")
        .map(|entry| entry.expect("an entry").path());
    let mut all = Vec::new();
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "ndjson")) {
        let text = fs::read_to_string(&file).expect("a file");
        let parsed = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        all.extend(parsed);
    }
    assert!(!all.is_empty());
    all
}

fn each<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// JSON within a string.
fn inner(value: &Value) -> Value {
    serde_json::from_str(text(value)).unwrap_or_else(|error| panic!("{error}: {value}"))
}

fn of_type<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["type"] == kind)
}

/// The indices an object reads, by its data view: `isochrone-samples` or `isochrone-windows`.
fn indices(object: &Value) -> String {
    let references = each(object, "references");
    let view = references.iter().find(|reference| reference["type"] == "index-pattern");
    text(&view.expect("a data view")["id"]).to_owned()
}

/// KQL as far as it is used here, in the words of `query_string`.
fn lucene(kql: &str) -> String {
    let pairs = [
        (" and ", " AND "),
        (" or ", " OR "),
        ("not ", "NOT "),
        (" >= ", ":>="),
        (" <= ", ":<="),
        (" > ", ":>"),
        (" < ", ":<"),
        (": ", ":"),
    ];
    let plain = pairs
        .iter()
        .fold(kql.to_owned(), |query, (from, to)| query.replace(from, to));
    if plain.is_empty() { "*".to_owned() } else { plain }
}

/// The fields that a query names.
fn queried(kql: &str) -> Vec<String> {
    let query = lucene(kql);
    let words = query.split(' ').filter_map(|word| word.split_once(':'));
    words
        .map(|(field, _)| field.trim_start_matches('(').to_owned())
        .collect()
}

fn query_of(object: &Value) -> String {
    let query = match text(&object["type"]) {
        "search" => inner(&object["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"].clone(),
        _ => object["attributes"]["state"]["query"].clone(),
    };
    assert_eq!(query["language"], "kuery");
    text(&query["query"]).to_owned()
}

/// One pair, or a list of pairs.
fn sorts(search: &Value) -> Vec<(String, String)> {
    let pair = |value: &Value| (text(&value[0]).to_owned(), text(&value[1]).to_owned());
    let sort = &search["attributes"]["sort"];
    if sort[0].is_string() {
        vec![pair(sort)]
    } else {
        each(&search["attributes"], "sort").iter().map(pair).collect()
    }
}

fn columns(lens: &Value) -> BTreeMap<String, Value> {
    let layers = &lens["attributes"]["state"]["datasourceStates"]["formBased"]["layers"];
    let layers = layers.as_object().expect("layers");
    assert_eq!(layers.len(), 1, "{}", lens["id"]);
    let columns = layers.values().next().and_then(|layer| layer["columns"].as_object());
    columns.expect("columns").clone().into_iter().collect()
}

/// The fields that documents must have for an object to show something.
fn needed(object: &Value) -> BTreeSet<String> {
    let mut fields: BTreeSet<String> = queried(&query_of(object)).into_iter().collect();
    if object["type"] == "search" {
        let shown = each(&object["attributes"], "columns")
            .iter()
            .map(text)
            .map(str::to_owned);
        fields.extend(shown.chain(sorts(object).into_iter().map(|(field, _)| field)));
    } else {
        for column in columns(object).values() {
            fields.insert(text(&column["sourceField"]).to_owned());
            fields.extend(queried(text(&column["filter"]["query"])));
        }
    }
    fields.remove(RECORDS);
    fields
}

/// Ids are unique and ours, versions are there so that Kibana migrates what is older than itself, every reference leads to an
/// object of the set, and what refers by name finds its name.
#[test]
fn objects_are_whole() {
    let objects = objects();
    let mut known = BTreeSet::new();
    for object in &objects {
        let id = text(&object["id"]);
        assert!(id.starts_with("isochrone-"), "{id}");
        assert!(known.insert((text(&object["type"]), id)), "{id} twice");
        for version in ["coreMigrationVersion", "typeMigrationVersion"] {
            assert!(text(&object[version]).starts_with("8."), "{id}: {version}");
        }
        assert!(!text(&object["attributes"]["title"]).is_empty(), "{id}");
        if object["type"] != "index-pattern" {
            assert!(!text(&object["attributes"]["description"]).is_empty(), "{id}");
        }
    }
    for object in &objects {
        for reference in each(object, "references") {
            let to = (text(&reference["type"]), text(&reference["id"]));
            assert!(known.contains(&to), "{}: {to:?}", object["id"]);
        }
        for name in names(object) {
            let found = each(object, "references")
                .iter()
                .any(|reference| reference["name"] == name);
            assert!(found, "{}: no reference {name}", object["id"]);
        }
    }
    for (kind, least) in [("index-pattern", 2), ("search", 4), ("lens", 8), ("dashboard", 1)] {
        assert!(of_type(&objects, kind).count() >= least, "{kind}");
    }
    for view in of_type(&objects, "index-pattern") {
        let attributes = &view["attributes"];
        assert_eq!(text(&attributes["title"]), format!("{}-*", text(&view["id"])));
        assert_eq!(attributes["timeFieldName"], "@timestamp");
    }
    let dashboard = of_type(&objects, "dashboard").next().expect("a dashboard");
    let panels = inner(&dashboard["attributes"]["panelsJSON"]);
    let panels = panels.as_array().expect("panels");
    for panel in panels {
        let place = |of: &Value, field: &str| of["gridData"][field].as_u64().expect("a number");
        assert!(place(panel, "x") + place(panel, "w") <= 48, "{panel}");
        for other in panels.iter().filter(|other| other["panelIndex"] != panel["panelIndex"]) {
            let overlaps = |at, size| {
                place(panel, at) < place(other, at) + place(other, size)
                    && place(other, at) < place(panel, at) + place(panel, size)
            };
            assert!(!(overlaps("x", "w") && overlaps("y", "h")), "{panel} lies over {other}");
        }
    }
}

/// The names of references that an object asks for.
fn names(object: &Value) -> Vec<String> {
    let attributes = &object["attributes"];
    match text(&object["type"]) {
        "search" => {
            let source = inner(&attributes["kibanaSavedObjectMeta"]["searchSourceJSON"]);
            vec![text(&source["indexRefName"]).to_owned()]
        }
        "lens" => {
            let layers = attributes["state"]["datasourceStates"]["formBased"]["layers"].as_object();
            let layers = layers.expect("layers").keys();
            layers
                .map(|layer| format!("indexpattern-datasource-layer-{layer}"))
                .collect()
        }
        "dashboard" => {
            let panels = inner(&attributes["panelsJSON"]);
            let panels = panels.as_array().expect("panels").iter();
            let of_panel = |panel: &Value| format!("{}:{}", text(&panel["panelIndex"]), text(&panel["panelRefName"]));
            let controls = inner(&attributes["controlGroupInput"]["panelsJSON"]);
            let controls = controls.as_object().expect("controls").keys();
            let of_control = |id: &String| format!("controlGroup_{id}:optionsListDataView");
            panels.map(of_panel).chain(controls.map(of_control)).collect()
        }
        _ => Vec::new(),
    }
}

/// After a run in which everything happens every field is in the templates that the plotter installed and has documents, every
/// saved search finds some, and every visualisation has values.
#[test]
fn queries_find_what_the_plotter_writes() {
    let mut run = Troubled::start();
    run.happen();
    let report = run.end();
    assert!(report["ledger"]["lost"].as_u64() > Some(0), "{:#}", report["ledger"]);
    let elasticsearch = &run.elasticsearch;
    run.write_backwards();
    elasticsearch.ask("POST", "/isochrone-*/_refresh", "");

    let objects = objects();
    for view in of_type(&objects, "index-pattern") {
        let template = text(&view["id"]);
        let formats = inner(&view["attributes"]["fieldFormatMap"]);
        let described = inner(&view["attributes"]["fieldAttrs"]);
        let fields = [&formats, &described].into_iter().filter_map(Value::as_object);
        for field in fields.flat_map(|map| map.keys()).chain([&"@timestamp".to_owned()]) {
            assert!(is_mapped(elasticsearch, template, field), "{template}: {field}");
        }
    }
    for object in of_type(&objects, "search").chain(of_type(&objects, "lens")) {
        let (id, template) = (text(&object["id"]), indices(object));
        for field in needed(object) {
            assert!(is_mapped(elasticsearch, &template, &field), "{id}: {template}: {field}");
            let exists = json!({"exists": {"field": field}});
            assert!(
                elasticsearch.count(&format!("{template}-*"), &exists) > 0,
                "{id}: no {field}"
            );
        }
    }
    for search in of_type(&objects, "search") {
        let sort: Vec<_> = sorts(search)
            .into_iter()
            .map(|(field, order)| json!({field: {"order": order}}))
            .collect();
        let body = json!({"size": 10, "query": query_string(&query_of(search)), "sort": sort});
        let found = ask(elasticsearch, search, &body);
        assert!(!each(&found["hits"], "hits").is_empty(), "{}: {body}", search["id"]);
    }
    for lens in of_type(&objects, "lens") {
        has_values(elasticsearch, lens);
    }
}

fn query_string(kql: &str) -> Value {
    json!({"query_string": {"query": lucene(kql)}})
}

fn ask(elasticsearch: &Elasticsearch, object: &Value, body: &Value) -> Value {
    elasticsearch.ask("POST", &format!("/{}-*/_search", indices(object)), &body.to_string())
}

/// Whether the component template in place knows a field (`response_ns.p50` is an object's).
fn is_mapped(elasticsearch: &Elasticsearch, template: &str, field: &str) -> bool {
    let found = elasticsearch.ask("GET", &format!("/_component_template/{template}"), "");
    let mappings = &found["component_templates"][0]["component_template"]["template"]["mappings"];
    let place = format!("/properties/{}/type", field.replace('.', "/properties/"));
    mappings.pointer(&place).is_some()
}

/// Every column of a visualisation yields a number in some bucket.
fn has_values(elasticsearch: &Elasticsearch, lens: &Value) {
    let (mut metrics, mut buckets) = (json!({}), Vec::new());
    for (name, column) in columns(lens) {
        let (field, params) = (&column["sourceField"], &column["params"]);
        let metric = match text(&column["operationType"]) {
            "date_histogram" => {
                buckets.push(json!({"date_histogram": {"field": field, "fixed_interval": "1s"}}));
                continue;
            }
            "terms" => {
                buckets.push(json!({"terms": {"field": field, "size": params["size"]}}));
                let by = text(&params["orderBy"]["columnId"]);
                assert!(columns(lens).contains_key(by), "{}: ordered by {by}", lens["id"]);
                continue;
            }
            "count" => json!({"value_count": {"field": "run"}}),
            "percentile" => json!({"percentiles": {"field": field, "percents": [params["percentile"]]}}),
            "unique_count" => json!({"cardinality": {"field": field}}),
            kind @ ("sum" | "max") => json!({kind: {"field": field}}),
            other => panic!("{}: {other}", lens["id"]),
        };
        metrics[&name] = match column["filter"]["query"].as_str() {
            Some(filter) => json!({"filter": query_string(filter), "aggs": {"filtered": metric}}),
            None => metric,
        };
    }
    let wanted: Vec<String> = metrics.as_object().expect("metrics").keys().cloned().collect();
    assert!(!wanted.is_empty() && buckets.len() <= 1, "{}", lens["id"]);
    let aggregations = match buckets.pop() {
        Some(mut bucket) => {
            bucket["aggs"] = metrics;
            json!({ "bucket": bucket })
        }
        None => metrics,
    };
    let body = json!({"size": 0, "query": query_string(&query_of(lens)), "aggs": aggregations});
    let answer = ask(elasticsearch, lens, &body);
    let all = &answer["aggregations"];
    let found = match all.get("bucket") {
        Some(bucket) => each(bucket, "buckets").to_vec(),
        None => vec![all.clone()],
    };
    for name in wanted {
        let has = found.iter().any(|bucket| {
            let metric = bucket[&name].get("filtered").unwrap_or(&bucket[&name]);
            let values = metric["values"].as_object().into_iter().flat_map(|all| all.values());
            metric["value"].is_number() || values.into_iter().any(Value::is_number)
        });
        assert!(has, "{}: no value of {name} in {answer:#}", lens["id"]);
    }
    assert_ne!(answer["hits"]["total"]["value"], 0, "{}: {body}", lens["id"]);
}
