//! What the server says of each document, and of a request as a whole.

use serde::Deserialize;
use serde_json::Value;

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written now.
    Created,
    /// Written before (409): a cut never changes, so it is the same.
    Exists,
    /// Not now: overload, a block, a shard that is away.
    Later(String),
    /// Not by us: a right is missing.
    Denied(String),
    /// Never: `kind` is the server's name of the reason.
    Refused {
        /// The server's name of it, such as `document_parsing_exception`.
        kind: String,
        /// In its words.
        reason: String,
    },
}

#[derive(Deserialize)]
struct BulkAnswer {
    items: Vec<ItemAnswer>,
}

#[derive(Deserialize)]
struct ItemAnswer {
    create: Created,
}

#[derive(Deserialize)]
struct Created {
    status: u16,
    #[serde(default)]
    error: Value,
}

/// What the server answers to `count` documents; `None` when that is not an answer of Elasticsearch.
pub fn outcomes(body: &[u8], count: usize) -> Option<Vec<Outcome>> {
    let answer: BulkAnswer = serde_json::from_slice(body).ok()?;
    if answer.items.len() != count {
        return None;
    }
    let outcome = |item: ItemAnswer| outcome(item.create.status, &item.create.error);
    Some(answer.items.into_iter().map(outcome).collect())
}

fn outcome(status: u16, error: &Value) -> Outcome {
    let (kind, reason) = reason(error);
    match (status, kind.as_str()) {
        (200..300, _) => Outcome::Created,
        (409, _) => Outcome::Exists,
        (401, _) | (403, "security_exception") => Outcome::Denied(format!("{status} {reason}")),
        // A read-only index, also for a full disk: 403 or 429, by version. No room for another index: 400. No index and no
        // right to make one: 404. People mend all of these.
        (_, "cluster_block_exception" | "validation_exception" | "index_not_found_exception")
        | (408 | 429 | 500.., _) => Outcome::Later(format!("{status} {reason}")),
        _ => Outcome::Refused { kind, reason },
    }
}

/// Kind and words of an error, cause included, whatever shape it has.
fn reason(error: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(&error["type"]).unwrap_or_else(|| "error".to_owned());
    let mut reason = text(&error["reason"])
        .or_else(|| text(error))
        .unwrap_or_else(|| error.to_string());
    if let Some(cause) = text(&error["caused_by"]["reason"]).filter(|cause| !reason.contains(cause.as_str())) {
        reason = format!("{reason}: {cause}");
    }
    (kind, reason)
}

/// What an answer that is an error says in one line.
pub fn request_error(body: &[u8]) -> (String, String) {
    match serde_json::from_slice::<Value>(body) {
        Ok(answer) => reason(&answer["error"]),
        Err(_) => ("error".to_owned(), "an answer that is not Elasticsearch's".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each answer as servers give it, with its fate.
    #[test]
    fn fates() {
        let fate = |status, kind: &str| outcome(status, &json!({"type": kind, "reason": "why"}));
        let later = |status| Outcome::Later(format!("{status} why"));
        assert_eq!(outcome(201, &Value::Null), Outcome::Created);
        assert_eq!(fate(409, "version_conflict_engine_exception"), Outcome::Exists);
        assert_eq!(fate(429, "es_rejected_execution_exception"), later(429));
        assert_eq!(fate(503, "unavailable_shards_exception"), later(503));
        assert_eq!(fate(403, "cluster_block_exception"), later(403));
        assert_eq!(fate(400, "validation_exception"), later(400));
        assert_eq!(fate(403, "security_exception"), Outcome::Denied("403 why".to_owned()));
        for kind in [
            "document_parsing_exception",
            "mapper_parsing_exception",
            "illegal_argument_exception",
        ] {
            let refused = Outcome::Refused {
                kind: kind.to_owned(),
                reason: "why".to_owned(),
            };
            assert_eq!(fate(400, kind), refused);
        }
    }

    /// The cause is told too; bodies of proxies and of the bare handler do not confuse it.
    #[test]
    fn reasons() {
        let error = json!({"type": "t", "reason": "field [x]", "caused_by": {"reason": "not a number"}});
        assert_eq!(reason(&error).1, "field [x]: not a number");
        assert_eq!(
            request_error(br#"{"error":"no handler found","status":400}"#).1,
            "no handler found"
        );
        assert_eq!(request_error(b"<html>").1, "an answer that is not Elasticsearch's");
        assert_eq!(outcomes(br#"{"items":[{"create":{"status":201}}]}"#, 2), None);
    }
}
