//! The daemon: one life after another until the work is done.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use isochrone_daemon::{
    Context,
    settings::{AtEnd, ProducerSettings},
};
use isochrone_model::{
    id::{DaemonId, RunName},
    row::SendRow,
};
use isochrone_store::{Error as StoreError, Fate};
use isochrone_transport::Transport;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::{
    Error,
    life::{End, Life},
    metrics::Counters,
};

/// What became of it, over all lives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The run it worked in; none when it was stopped before it joined one.
    pub run: Option<RunName>,
    /// How often it entered the run.
    pub lives: u64,
    /// Devices, of all lives.
    pub devices: u64,
    /// Places in the schedule.
    pub scheduled: u64,
    /// Offered to a socket.
    pub sent: u64,
    /// Given up before.
    pub unsent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Refused.
    pub refused: u64,
    /// Never answered.
    pub unconfirmed: u64,
}

/// Emulates the devices until their schedule or the stop ends them; with ISOCHRONE_AT_END=idle until the stop.
///
/// `transport` replaces what ISOCHRONE_BROKER names. A stop that finishes is no error, nor is one that aborts.
///
/// Errors: a setting that cannot be used, a run that refuses, a store that stays away at the end; see [`Error`].
pub async fn run(
    context: Context,
    settings: ProducerSettings,
    transport: Option<Arc<dyn Transport>>,
) -> Result<Outcome, Error> {
    let transport = match transport {
        Some(transport) => transport,
        None => isochrone_transport::open(&settings.broker)?,
    };
    let counters = Counters::new(&context.metrics);
    let settings = Arc::new(settings);
    let mut outcome = Outcome::default();
    let mut context = context;
    loop {
        context.health.set_ready(false, "joins a run");
        let wanted = outcome.run.clone().or_else(|| context.common.run.clone());
        let Some(life) = Box::pin(Life::begin(&context, &settings, &transport, &counters, wanted)).await? else {
            break;
        };
        outcome.run = Some(life.run().clone());
        let (end, rows) = Box::pin(life.live()).await?;
        outcome.add(&rows);
        match end {
            End::Done => break,
            End::Aborted => return Ok(outcome),
            End::Lost if context.stop.is_finishing() => break,
            End::Lost => {
                warn!(daemon = %context.daemon, "the store gave this producer's place away; it starts again as another");
                context.daemon = DaemonId(rand::random());
            }
        }
    }
    info!("{outcome}");
    if settings.at_end == AtEnd::Idle && !context.stop.is_finishing() {
        context.health.set_ready(true, "done; idles until it is stopped");
        context.stop.finishing().await;
    }
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, rows: &[SendRow]) {
        self.lives += 1;
        self.devices += rows.len() as u64;
        for row in rows {
            self.scheduled += row.scheduled;
            self.sent += row.sent;
            self.unsent += row.unsent;
            self.acked += row.acked;
            self.refused += row.refused;
            self.unconfirmed += row.unconfirmed;
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(run) = &self.run else {
            return f.write_str("stopped before it joined a run");
        };
        let Outcome {
            devices,
            scheduled,
            sent,
            unsent,
            acked,
            refused,
            unconfirmed,
            ..
        } = self;
        write!(
            f,
            "run {run}: {devices} devices are done: scheduled {scheduled}, sent {sent}, unsent {unsent}"
        )?;
        write!(f, ", acked {acked}, refused {refused}, unconfirmed {unconfirmed}")
    }
}

/// How long a call to the store is repeated while the store is away.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Until the daemon is told to finish; a store that answers is not left half-way.
    UntilFinishing,
    /// Until then, or until it is told to abort.
    Until(Instant),
}

/// Repeats a call to the store while its fate says so. None when patience ended.
pub async fn persist<T, F, C>(
    context: &Context,
    patience: Patience,
    what: &str,
    mut call: C,
) -> Result<Option<T>, StoreError>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T, StoreError>>,
{
    let stop = &context.stop;
    let longest = context.common.lease / 6;
    let mut said = false;
    loop {
        let answer = tokio::select! {
            biased;
            () = stop.aborting() => return Ok(None),
            answer = call() => answer,
        };
        let error = match answer {
            Ok(value) => {
                if said {
                    info!("the store is back");
                }
                return Ok(Some(value));
            }
            Err(error) => error,
        };
        let Fate::Retry(after) = error.fate() else {
            return Err(error);
        };
        if !said {
            said = true;
            context.health.set_ready(false, "waits for the store");
            warn!("failed to {error}; tries again until it can {what}");
        }
        let pause = sleep(after.min(longest).max(Duration::from_millis(10)));
        tokio::select! {
            biased;
            () = out_of(patience, context) => return Ok(None),
            () = pause => {}
        }
    }
}

async fn out_of(patience: Patience, context: &Context) {
    match patience {
        Patience::UntilFinishing => context.stop.finishing().await,
        Patience::Until(at) => {
            // Either way it is over.
            let _ = timeout_at(at, context.stop.aborting()).await;
        }
    }
}
