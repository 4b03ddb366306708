//! Sends one bulk until every document of it is settled: written, or refused for good.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use elasticsearch::http::Method;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    Elasticsearch,
    answer::{self, Outcome},
    bulk::{Bulk, Item},
    counters::Fate,
};
use crate::{Cut, Error};

/// Status of each document and the reasons of those that failed, nothing else.
const BULK: &str = "_bulk?filter_path=errors,items.*.status,items.*.error";
const LINES: &str = "application/x-ndjson";

/// Pauses before single documents are sent again; after them the runner's longer ones begin.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(900),
];

/// Requests are not made smaller than this for what refuses large ones: one large document does not make all slow.
const LEAST_BYTES: usize = 64 * 1024;

/// A request that has less time than this left is not begun.
const LEAST_TIME: Duration = Duration::from_millis(500);

impl Elasticsearch {
    /// Afterwards `bulk` is empty and `progress` knows how far each cut has come. On an error nothing is noted: all of it is
    /// sent again, and what was written answers 409.
    pub(super) async fn settle(&self, bulk: &mut Bulk, batch: &[Arc<Cut>], deadline: Instant) -> Result<(), Error> {
        let mut settled: Vec<Option<Outcome>> = vec![None; bulk.items().len()];
        let mut open: Vec<usize> = (0..settled.len()).collect();
        let mut pauses = PAUSES.iter();
        while !open.is_empty() {
            let outcomes = self.send(bulk, &open, deadline).await?;
            let mut later = None;
            for (&place, outcome) in open.iter().zip(outcomes) {
                match outcome {
                    Outcome::Later(cause) => later = Some(cause),
                    Outcome::Denied(cause) => return Err(self.client.denied(&cause, "create_doc on isochrone-*")),
                    done => settled[place] = Some(done),
                }
            }
            open.retain(|place| settled[*place].is_none());
            let Some(cause) = later else { break };
            self.counters.retries.inc_by(open.len() as u64);
            let pause = pauses.next().filter(|pause| Instant::now() + **pause < deadline);
            let Some(pause) = pause else {
                return Err(self.client.busy(cause, None));
            };
            sleep(*pause).await;
        }
        self.note(bulk, batch, settled);
        bulk.clear();
        Ok(())
    }

    async fn send(&self, bulk: &Bulk, open: &[usize], deadline: Instant) -> Result<Vec<Outcome>, Error> {
        let body = if open.len() == bulk.items().len() {
            bulk.body().to_vec()
        } else {
            bulk.part(open)
        };
        let bytes = body.len();
        let left = deadline.saturating_duration_since(Instant::now());
        if left < LEAST_TIME {
            return Err(self.client.busy("answers slowly".to_owned(), None));
        }
        let answer = self.client.call(Method::Post, BULK, LINES, Some(body), left).await?;
        self.counters.bulks.inc();
        self.counters.bytes.inc_by(bytes as u64);
        if answer.status == 413 {
            return self.too_large(bulk, open, bytes, deadline).await;
        }
        if !answer.is_success() {
            return Err(self.client.refusal(&answer, "create_doc on isochrone-*"));
        }
        let outcomes = answer::outcomes(&answer.body, open.len());
        outcomes.ok_or_else(|| {
            self.client
                .busy("an answer that is not Elasticsearch's".to_owned(), None)
        })
    }

    /// Something in between takes less: the request goes in halves, down to where a single document is refused, and those
    /// after it are smaller from the start.
    async fn too_large(
        &self,
        bulk: &Bulk,
        open: &[usize],
        bytes: usize,
        deadline: Instant,
    ) -> Result<Vec<Outcome>, Error> {
        if open.len() == 1 {
            return Ok(vec![Outcome::Refused {
                kind: "request_too_large".to_owned(),
                reason: format!("413 for one document of {bytes} bytes"),
            }]);
        }
        let half = (bytes / 2).max(LEAST_BYTES);
        if self.bulk_bytes.fetch_min(half, Ordering::Relaxed) > half {
            warn!(
                sink = "elasticsearch",
                "413 for a request of {bytes} bytes: it goes in halves, and later ones have {half} bytes or little more"
            );
        }
        let (one, other) = open.split_at(open.len() / 2);
        let mut outcomes = Box::pin(self.send(bulk, one, deadline)).await?;
        outcomes.extend(Box::pin(self.send(bulk, other, deadline)).await?);
        Ok(outcomes)
    }

    fn note(&self, bulk: &Bulk, batch: &[Arc<Cut>], settled: Vec<Option<Outcome>>) {
        let mut progress = self.progress();
        for (item, outcome) in bulk.items().iter().zip(settled) {
            let Some(cut) = batch.get(item.cut) else { continue };
            progress.advance(cut, item.index + 1);
            let fate = match outcome {
                Some(Outcome::Created) => Fate::Created,
                Some(Outcome::Refused { kind, reason }) => {
                    if let Some(topic) = &item.sample_of {
                        progress.set_aside(cut, topic);
                    }
                    self.complain(cut, item, kind, &reason);
                    Fate::SetAside
                }
                _ => Fate::Existed,
            };
            self.counters.count(item.sample_of.is_some(), fate);
        }
        for &(at, count) in bulk.ends() {
            if let Some(cut) = batch.get(at) {
                progress.advance(cut, count);
                progress.complete(cut);
            }
        }
    }

    /// Once for each kind.
    fn complain(&self, cut: &Cut, item: &Item, kind: String, reason: &str) {
        if self.counters.is_new_kind(&kind) {
            let what = if item.sample_of.is_some() { "sample" } else { "window" };
            warn!(sink = "elasticsearch", run = %cut.run, partition = %cut.partition, cut = cut.number, what, kind, reason,
                "set a document aside; others of this kind are only counted");
        }
    }
}
