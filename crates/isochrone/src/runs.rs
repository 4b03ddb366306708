//! Which runs the store knows, and choosing one.

use std::time::Duration;

use isochrone_model::id::RunName;
use isochrone_store::{
    Error, Store,
    types::{RunRecord, RunState},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{cli::Format, facts::utc, text::plain_table};

/// The named run, or the newest.
///
/// # Errors
/// The store's, or that there is no such run.
pub async fn choose(store: &dyn Store, name: Option<&RunName>) -> Result<RunRecord, Error> {
    let found = match name {
        Some(name) => store.run(name).await?,
        None => store.runs().await?.into_iter().next(),
    };
    let unknown = || match name {
        Some(name) => Error::Run {
            run: name.clone(),
            cause: "unknown; `isochrone runs` lists them".to_owned(),
        },
        None => Error::Corrupt {
            key: "runs".to_owned(),
            cause: "there is no run".to_owned(),
        },
    };
    found.ok_or_else(unknown)
}

/// Runs named where one must be chosen; a store may know hundreds.
const NAMED: usize = 10;

/// Which runs could have been named, in one line, for what may not choose by itself.
///
/// # Errors
/// The store's.
pub async fn candidates(store: &dyn Store) -> Result<String, Error> {
    let runs = store.runs().await?;
    let mut named: Vec<_> = runs
        .iter()
        .take(NAMED)
        .map(|run| format!("{} ({})", run.run, run.state.as_str()))
        .collect();
    if runs.len() > NAMED {
        named.push(format!("and {} more", runs.len() - NAMED));
    }
    if named.is_empty() {
        return Ok("there is no run".to_owned());
    }
    Ok(format!("there are, newest first: {}", named.join(", ")))
}

/// All runs, newest first.
///
/// # Errors
/// The store's.
pub async fn list(store: &dyn Store, format: Format) -> Result<String, Error> {
    let runs = store.runs().await?;
    if format == Format::Json {
        let runs: Vec<_> = runs.iter().map(describe).collect();
        return Ok(format!("{:#}", json!(runs)));
    }
    if runs.is_empty() {
        return Ok("no runs".to_owned());
    }
    let mut table = plain_table();
    table.set_header(["run", "state", "opened", "closed", "partitions", "claim unit"]);
    for run in runs {
        table.add_row([
            run.run.to_string(),
            run.state.as_str().to_owned(),
            utc(run.opened_at),
            run.closed_at.map(utc).unwrap_or_default(),
            run.pins.partitions.to_string(),
            run.pins.claim_unit,
        ]);
    }
    Ok(table.to_string())
}

fn describe(run: &RunRecord) -> serde_json::Value {
    json!({
        "run": run.run,
        "state": run.state.as_str(),
        "opened_at": utc(run.opened_at),
        "closed_at": run.closed_at.map(utc),
        "partitions": run.pins.partitions,
        "claim_unit": run.pins.claim_unit,
        "restored": run.restored,
    })
}

/// How often a run is looked at.
const POLL: Duration = Duration::from_millis(250);
/// How long the store may be away while somebody waits for a run to close: as long as a restart takes.
const AWAY: Duration = Duration::from_secs(60);

/// Waits until a run is closed. Somebody must close it: its daemons, or a warden of our own.
///
/// # Errors
/// The store's; when it is away, after a minute.
pub async fn closed(store: &dyn Store, run: &RunRecord) -> Result<RunRecord, Error> {
    let mut away: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        match store.run(&run.run).await {
            Ok(Some(record)) if record.state == RunState::Closed => return Ok(record),
            Ok(Some(_)) => away = None,
            Ok(None) => {
                return Err(Error::Run {
                    run: run.run.clone(),
                    cause: "it was purged".to_owned(),
                });
            }
            Err(error @ Error::Away { .. }) => {
                let since = *away.get_or_insert_with(|| {
                    tracing::warn!(%error, "wait for the run to close; trying again");
                    asked
                });
                if since.elapsed() > AWAY {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        sleep(POLL).await;
    }
}
