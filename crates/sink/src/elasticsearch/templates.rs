//! Mappings and lifecycle, installed and upgraded by the plotter itself; and what the server can do.

use std::time::Duration;

use elasticsearch::http::Method;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    answer::request_error,
    client::{Answer, Client, OBJECT},
    document::{SAMPLES, WINDOWS},
};
use crate::Error;

/// Raised with every change of what is below.
pub const VERSION: u64 = 1;

/// The lifecycle policy's name.
const POLICY: &str = "isochrone";

/// Above the templates that come with servers (100), below what people add to overrule it.
const PRIORITY: u64 = 200;

/// Lucene takes terms of at most 32,766 bytes; a character has up to four. Longer texts are kept, not indexed.
const LONGEST_KEYWORD: u64 = 8191;

const PATIENCE: Duration = Duration::from_secs(8);
const TEMPLATES_RIGHT: &str = "manage_index_templates";
const LIFECYCLE_RIGHT: &str = "manage_ilm";

/// What the server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The field type `histogram`.
    pub histogram: bool,
    /// Index lifecycle management.
    pub lifecycle: bool,
}

/// Makes sure that our templates (or newer ones) are there.
pub async fn install(client: &Client, retention: Option<Duration>) -> Result<Features, Error> {
    let server = server(client).await?;
    let lifecycle = lifecycle(client, retention).await?;
    let (_, new_samples) = component(client, "isochrone-samples", lifecycle, &[sample_fields()]).await?;
    let variants = [window_fields(true), window_fields(false)];
    let (windows, new_windows) = component(client, "isochrone-windows", lifecycle, &variants).await?;
    index_template(client, "isochrone-samples", SAMPLES).await?;
    index_template(client, "isochrone-windows", WINDOWS).await?;
    let features = Features {
        histogram: windows
            .pointer("/properties/response_ns/properties/histogram")
            .is_some(),
        lifecycle,
    };
    info!(
        sink = "elasticsearch",
        address = client.address(),
        server,
        histogram_fields = features.histogram,
        lifecycle,
        installed_templates = new_samples || new_windows,
        "connected"
    );
    Ok(features)
}

/// What it calls itself. Some accounts may not ask, and some servers do not say.
async fn server(client: &Client) -> Result<String, Error> {
    let answer = get(client, "/").await?;
    if answer.status == 401 || answer.status >= 500 {
        return Err(client.refusal(&answer, "monitor"));
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let name = body["version"]["distribution"].as_str().unwrap_or("elasticsearch");
    let number = body["version"]["number"].as_str().unwrap_or("of unknown version");
    Ok(format!("{name} {number}"))
}

/// Whether the server manages lifecycles; if so, our policy is there, with the retention that is set.
async fn lifecycle(client: &Client, retention: Option<Duration>) -> Result<bool, Error> {
    let path = format!("_ilm/policy/{POLICY}");
    let answer = get(client, &path).await?;
    match answer.status {
        200 => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let kept = body[POLICY]["policy"]["_meta"]["retention_s"].as_u64();
            // Unset, whatever people made of the policy stays.
            let wanted = retention.map(|retention| retention.as_secs());
            if wanted.is_some() && wanted != kept {
                put(client, &path, &policy(retention), LIFECYCLE_RIGHT).await?;
            }
            Ok(true)
        }
        // There is lifecycle management, and no policy of that name.
        404 if request_error(&answer.body).0 == "resource_not_found_exception" => {
            put(client, &path, &policy(retention), LIFECYCLE_RIGHT).await?;
            Ok(true)
        }
        401 | 403 | 408 | 429 | 500.. => Err(client.refusal(&answer, LIFECYCLE_RIGHT)),
        // No such thing: the open distribution (400), OpenSearch (400), serverless (410).
        _ => Ok(false),
    }
}

fn policy(retention: Option<Duration>) -> Value {
    let mut policy = json!({
        "policy": {
            "_meta": { "managed_by": "isochrone", "version": VERSION },
            "phases": { "hot": { "min_age": "0ms", "actions": {} } },
        }
    });
    if let Some(retention) = retention {
        let seconds = retention.as_secs();
        policy["policy"]["_meta"]["retention_s"] = json!(seconds);
        policy["policy"]["phases"]["delete"] = json!({ "min_age": format!("{seconds}s"), "actions": { "delete": {} } });
    }
    policy
}

/// The mappings that are in place afterwards, and whether they were put there now. `variants`: the best first; the server
/// takes the first whose field types it knows.
async fn component(client: &Client, name: &str, lifecycle: bool, variants: &[Value]) -> Result<(Value, bool), Error> {
    let path = format!("_component_template/{name}");
    let there = in_place(client, &path, "/component_templates/0/component_template").await?;
    if let Some((version, template)) = there
        && !is_older(name, version)
    {
        return Ok((template["template"]["mappings"].clone(), false));
    }
    let mut refused = None;
    for mappings in variants {
        let body = json!({
            "version": VERSION,
            "_meta": { "managed_by": "isochrone" },
            "template": { "settings": settings(lifecycle), "mappings": mappings },
        });
        let answer = send(client, &path, &body).await?;
        if answer.is_success() {
            return Ok((mappings.clone(), true));
        }
        let (kind, _) = request_error(&answer.body);
        let unknown_type = answer.status == 400 && kind.contains("mapper_parsing");
        refused = Some(client.refusal(&answer, TEMPLATES_RIGHT));
        if !unknown_type {
            break;
        }
    }
    Err(refused.unwrap_or_else(|| client.busy(format!("no variant of template {name}"), None)))
}

async fn index_template(client: &Client, name: &str, prefix: &str) -> Result<(), Error> {
    let path = format!("_index_template/{name}");
    let there = in_place(client, &path, "/index_templates/0/index_template").await?;
    if there.is_some_and(|(version, _)| !is_older(name, version)) {
        return Ok(());
    }
    let body = json!({
        "version": VERSION,
        "_meta": { "managed_by": "isochrone" },
        "index_patterns": [format!("{prefix}*")],
        "priority": PRIORITY,
        "composed_of": [name],
    });
    put(client, &path, &body, TEMPLATES_RIGHT).await
}

/// What is in place of that name, and its version.
async fn in_place(client: &Client, path: &str, at: &str) -> Result<Option<(u64, Value)>, Error> {
    let answer = get(client, path).await?;
    match answer.status {
        200 => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let found = body.pointer(at).cloned();
            Ok(found.map(|template| (template["version"].as_u64().unwrap_or(0), template)))
        }
        404 => Ok(None),
        _ => Err(client.refusal(&answer, TEMPLATES_RIGHT)),
    }
}

/// Whether what is in place is to be replaced.
fn is_older(name: &str, version: u64) -> bool {
    if version > VERSION {
        warn!(
            sink = "elasticsearch",
            template = name,
            version,
            ours = VERSION,
            "a newer Isochrone has installed this template; left as it is"
        );
    } else if version < VERSION {
        info!(
            sink = "elasticsearch",
            template = name,
            version,
            ours = VERSION,
            "upgrades the template"
        );
    }
    version < VERSION
}

async fn get(client: &Client, path: &str) -> Result<Answer, Error> {
    client.call(Method::Get, path, OBJECT, None, PATIENCE).await
}

async fn send(client: &Client, path: &str, body: &Value) -> Result<Answer, Error> {
    let body = body.to_string().into_bytes();
    client.call(Method::Put, path, OBJECT, Some(body), PATIENCE).await
}

async fn put(client: &Client, path: &str, body: &Value, right: &str) -> Result<(), Error> {
    let answer = send(client, path, body).await?;
    if answer.is_success() {
        Ok(())
    } else {
        Err(client.refusal(&answer, right))
    }
}

fn settings(lifecycle: bool) -> Value {
    let mut index = json!({
        // No copy on a single node, one where there are more.
        "auto_expand_replicas": "0-1",
    });
    if lifecycle {
        // An index's age counts from the day in its name.
        index["lifecycle"] = json!({ "name": POLICY, "parse_origination_date": true });
    }
    json!({ "index": index })
}

fn keyword() -> Value {
    json!({ "type": "keyword", "ignore_above": LONGEST_KEYWORD })
}

/// Fields that a mapping does not know are kept and not indexed: a newer plotter's documents are no poison in an older index.
fn mappings(fields: Value) -> Value {
    json!({ "dynamic": false, "properties": fields })
}

fn sample_fields() -> Value {
    let (long, time, flag) = (
        json!({ "type": "long" }),
        json!({ "type": "date_nanos" }),
        json!({ "type": "boolean" }),
    );
    mappings(json!({
        "@timestamp": time,
        "run": keyword(),
        "topic": keyword(),
        "device": keyword(),
        "epoch": keyword(),
        "sequence": long,
        "due": time,
        "sent": time,
        "received": time,
        "transit_ns": long,
        "response_ns": long,
        "publish_delay_ns": long,
        "clock_bound_ns": long,
        "consumer_delay": keyword(),
        "warmup": flag,
        "verdict": keyword(),
        "reasons": keyword(),
    }))
}

fn window_fields(with_histogram: bool) -> Value {
    let long = json!({ "type": "long" });
    let mut fields = json!({
        "@timestamp": { "type": "date_nanos" },
        "run": keyword(),
        "topic": keyword(),
        "kind": keyword(),
        "partition": long,
        "cut": long,
        "warmup": { "type": "boolean" },
        "verdict": keyword(),
        "reasons": keyword(),
        "clock_bound_ns": long,
    });
    for count in [
        "scheduled",
        "sent",
        "unsent",
        "acked",
        "refused",
        "unconfirmed",
        "received",
        "dropped",
        "lost",
        "unrecorded",
        "unheard",
        "lost_found",
        "unrecorded_found",
        "unheard_found",
        "duplicates",
        "retained",
        "unstamped",
        "foreign",
        "reordered",
    ] {
        fields[count] = long.clone();
    }
    for distribution in [
        "response_ns",
        "transit_ns",
        "publish_delay_ns",
        "late_ns",
        "ack_ns",
        "complete_ns",
    ] {
        let mut figures = json!({ "mean": { "type": "double" } });
        for figure in ["count", "negative", "min", "p50", "p90", "p99", "p999", "max"] {
            figures[figure] = long.clone();
        }
        if with_histogram {
            figures["histogram"] = json!({ "type": "histogram" });
        }
        fields[distribution] = json!({ "properties": figures });
    }
    mappings(fields)
}
