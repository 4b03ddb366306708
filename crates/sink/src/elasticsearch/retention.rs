//! Deletes old indices where the server has no lifecycle management.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use elasticsearch::http::Method;
use isochrone_model::time::{Clock, Second};
use jiff::{civil::Date, tz::TimeZone};
use serde_json::{Map, Value};
use tracing::{info, warn};

use super::{
    client::{Client, OBJECT},
    document::{SAMPLES, WINDOWS},
};
use crate::Error;

/// Days are what it is about.
const EVERY_S: i64 = 3_600;
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks once an hour, while something is written.
pub struct Sweeper {
    clock: Arc<dyn Clock>,
    last: Mutex<Option<Second>>,
}

impl Sweeper {
    /// Has never looked.
    pub fn new(clock: Arc<dyn Clock>) -> Sweeper {
        Sweeper {
            clock,
            last: Mutex::default(),
        }
    }

    /// Deletes indices whose day ended longer ago than `retention`, when it is time to look again. A failure is said and
    /// tried again the next hour: it must not keep documents waiting.
    pub async fn sweep(&self, client: &Client, retention: Duration) {
        let now = self.clock.reference().second();
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now.0 - last.0 < EVERY_S) {
                return;
            }
            *last = Some(now);
        }
        if let Err(error) = delete_before(client, now.0.saturating_sub(retention.as_secs() as i64)).await {
            warn!(
                sink = "elasticsearch",
                "failed to delete old indices: failed to {error}"
            );
        }
    }
}

async fn delete_before(client: &Client, end: i64) -> Result<(), Error> {
    let path = format!("{SAMPLES}*,{WINDOWS}*?filter_path=*.settings.index.creation_date");
    let answer = client.call(Method::Get, &path, OBJECT, None, PATIENCE).await?;
    if !answer.is_success() {
        return Err(client.refusal(&answer, "view_index_metadata on isochrone-*"));
    }
    let indices: Map<String, Value> = serde_json::from_slice(&answer.body).unwrap_or_default();
    for index in indices
        .keys()
        .filter(|index| day_end(index).is_some_and(|at| at <= end))
    {
        let answer = client.call(Method::Delete, index, OBJECT, None, PATIENCE).await?;
        match answer.status {
            200 => info!(
                sink = "elasticsearch",
                index, "deleted an index beyond ISOCHRONE_ELASTICSEARCH_RETENTION"
            ),
            // Another plotter was first.
            404 => {}
            _ => return Err(client.refusal(&answer, "delete_index on isochrone-*")),
        }
    }
    Ok(())
}

/// When the day of one of our indices ends, in seconds since 1970; `None` for an index that is not ours.
fn day_end(index: &str) -> Option<i64> {
    let day = index.strip_prefix(SAMPLES).or_else(|| index.strip_prefix(WINDOWS))?;
    let day = Date::strptime("%Y.%m.%d", day).ok()?;
    let end = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(end.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only indices of ours, by the day in their name.
    #[test]
    fn days() {
        assert_eq!(day_end("isochrone-samples-1970.01.01"), Some(86_400));
        assert_eq!(day_end("isochrone-windows-1970.01.31"), Some(31 * 86_400));
        for other in [
            "isochrone-samples-backup",
            "logs-1970.01.01",
            "isochrone-samples-1970.13.01",
            "",
        ] {
            assert_eq!(day_end(other), None, "{other}");
        }
    }
}
