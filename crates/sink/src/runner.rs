//! The queue, batching, retrying and counting around every sink, written once.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use isochrone_model::id::{Partition, RunName};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tracing::{Instrument, debug, debug_span, error, info, warn};

use crate::{Cut, Delivery, Departure, Error, Fate, Needs, Sink};

/// How much a runner holds and how long it tries.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Cuts in the queue. Full: [`Offer::Full`], the cut stays in the store and is offered again (nothing is dropped here).
    pub queue: usize,
    /// Samples in the queue beyond which it is full too, however few cuts they are in.
    pub samples: u64,
    /// Cuts in one delivery.
    pub batch: usize,
    /// One attempt's deadline.
    pub attempt: Duration,
    /// First and longest pause between attempts.
    pub retry: (Duration, Duration),
    /// The longest pause that a back end may ask for.
    pub patience: Duration,
}

impl Limits {
    /// The pause that a back end asks for; "at once" is no invitation to ask in a loop.
    pub fn heeded(&self, after: Duration) -> Duration {
        after.max(self.retry.0).min(self.patience)
    }
}

impl Default for Limits {
    /// A partition makes one cut a second: a queue of four for each of 64 partitions rides out short pauses in memory.
    fn default() -> Limits {
        Limits {
            queue: 256,
            // Decoded, a sample is about 100 bytes.
            samples: 500_000,
            batch: 64,
            attempt: Duration::from_secs(10),
            retry: (Duration::from_millis(200), Duration::from_secs(10)),
            patience: Duration::from_secs(300),
        }
    }
}

impl Limits {
    fn are_reached_by(&self, queue: &Queue) -> bool {
        queue.cuts.len() >= self.queue || queue.samples >= self.samples
    }
}

/// The samples of a whole cut; running totals have none.
fn weight(cut: &Cut) -> u64 {
    cut.samples.values().sum()
}

/// The answer to [`Runner::offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It will be delivered, or be a [`Passed`] in another way.
    Taken,
    /// The queue is full: offer it again later.
    Full,
}

/// A cut that a sink has no more to do with, in the order of numbers within a partition.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Which sink.
    pub sink: &'static str,
    /// Which cut.
    pub cut: Arc<Cut>,
    /// What became of its samples; nothing when it is running totals that the back end refused for good. A newer total makes
    /// them good where there is one; offered again, they are tried again, by themselves.
    pub delivery: Option<Delivery>,
}

/// What a runner has counted since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Cuts delivered.
    pub delivered: AtomicU64,
    /// Attempts that failed and were repeated.
    pub retries: AtomicU64,
    /// Samples set aside.
    pub set_aside: AtomicU64,
    /// Offers refused because the queue was full.
    pub full: AtomicU64,
}

/// One sink at work. Dropping it stops the task at once; [`Runner::close`] lets it finish.
pub struct Runner {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    sink: Arc<dyn Sink>,
    limits: Limits,
    queue: Mutex<Queue>,
    wake: Notify,
    closing: AtomicBool,
    counters: Arc<Counters>,
    /// What a refusal last said: a back end that refuses one cut after the other is not logged each time.
    refusal: Mutex<String>,
}

#[derive(Default)]
struct Queue {
    cuts: VecDeque<Arc<Cut>>,
    samples: u64,
    /// Partitions that left while one of their cuts was being delivered.
    departed: HashSet<(RunName, Partition)>,
}

/// How a row of attempts ended.
enum Outcome<T> {
    Done(T),
    Refused,
    /// A partition it was about has left.
    Departed,
}

impl Runner {
    /// Starts the sink's task. What has passed goes to `passed`, which blocks the sink when nobody reads it.
    pub fn start(sink: Arc<dyn Sink>, limits: Limits, passed: mpsc::Sender<Passed>) -> Runner {
        let shared = Arc::new(Shared {
            sink,
            limits,
            queue: Mutex::default(),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            counters: Arc::default(),
            refusal: Mutex::default(),
        });
        let task = tokio::spawn(work(shared.clone(), passed));
        Runner { shared, task }
    }

    /// The sink's name.
    pub fn name(&self) -> &'static str {
        self.shared.sink.name()
    }

    /// What the sink must be given.
    pub fn needs(&self) -> Needs {
        self.shared.sink.needs()
    }

    /// What it has counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// Whether the task has ended; it does so only after [`Runner::close`] or when nobody takes its results.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Queues a cut. A running total that waits is replaced by a newer one of the same partition.
    pub fn offer(&self, cut: Arc<Cut>) -> Offer {
        let mut queue = self.shared.queue();
        queue.departed.remove(&(cut.run.clone(), cut.partition));
        if self.needs() == Needs::Totals {
            let same = |other: &&mut Arc<Cut>| other.run == cut.run && other.partition == cut.partition;
            if let Some(waiting) = queue.cuts.iter_mut().find(same) {
                *waiting = cut;
                return Offer::Taken;
            }
        }
        if self.shared.limits.are_reached_by(&queue) {
            self.shared.counters.full.fetch_add(1, Ordering::Relaxed);
            return Offer::Full;
        }
        queue.samples += weight(&cut);
        queue.cuts.push_back(cut);
        drop(queue);
        self.shared.wake.notify_one();
        Offer::Taken
    }

    /// Whether an offer would find the queue full, before anything is made to be offered; counts like one.
    pub fn is_full(&self) -> bool {
        let full = self.shared.limits.are_reached_by(&self.shared.queue());
        self.shared.counters.full.fetch_add(u64::from(full), Ordering::Relaxed);
        full
    }

    /// Forgets what waits of a partition that is no longer ours and tells the sink.
    pub fn depart(&self, run: &RunName, partition: Partition, how: Departure) {
        let mut queue = self.shared.queue();
        queue.cuts.retain(|cut| cut.run != *run || cut.partition != partition);
        queue.samples = queue.cuts.iter().map(|cut| weight(cut)).sum();
        queue.departed.insert((run.clone(), partition));
        drop(queue);
        self.shared.sink.depart(run, partition, how);
    }

    /// Delivers what is queued, closes the sink, and ends; what is not done by `deadline` stays in the store for the next plotter.
    pub async fn close(mut self, deadline: Duration) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        let sink = self.name();
        match timeout(deadline, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(ended)) => error!(sink, "failed to finish: {ended}"),
            // How much that is, the ledger knows: what waits here may long have left, and the store holds more.
            Err(_) => warn!(
                sink,
                "sink did not finish in time; what it has not had stays in the store, pending in the ledger"
            ),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Arc<Cut>> {
        let mut queue = self.queue();
        let count = queue.cuts.len().min(self.limits.batch.max(1));
        // Whoever left before this batch is no longer in the queue: only leaving from here on concerns it.
        queue.departed.clear();
        let batch: Vec<_> = queue.cuts.drain(..count).collect();
        queue.samples -= batch.iter().map(|cut| weight(cut)).sum::<u64>();
        batch
    }

    fn has_departed(&self, cut: &Cut) -> bool {
        self.queue().departed.contains(&(cut.run.clone(), cut.partition))
    }

    fn is_news(&self, refusal: &str) -> bool {
        let mut last = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *last != refusal;
        refusal.clone_into(&mut last);
        news
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

async fn work(shared: Arc<Shared>, passed: mpsc::Sender<Passed>) {
    let mut opened = false;
    loop {
        let batch = shared.take();
        if batch.is_empty() {
            if shared.is_closing() {
                break;
            }
            shared.wake.notified().await;
            continue;
        }
        if !opened {
            let outcome = attempt(&shared, "open", || false, || shared.sink.open()).await;
            opened = matches!(outcome, Outcome::Done(()));
        }
        for (cut, delivery) in deliver(&shared, batch).await {
            if let Some(delivery) = &delivery {
                let set_aside = delivery.topics.values().map(|counts| counts.set_aside).sum();
                shared.counters.set_aside.fetch_add(set_aside, Ordering::Relaxed);
                shared.counters.delivered.fetch_add(1, Ordering::Relaxed);
            }
            if passed
                .send(Passed {
                    sink: shared.sink.name(),
                    cut,
                    delivery,
                })
                .await
                .is_err()
            {
                return;
            }
        }
    }
    if let Err(error) = shared.sink.close().await {
        warn!(sink = shared.sink.name(), "failed to close the sink: failed to {error}");
    }
}

/// Delivers a batch however long it takes; what the back end refuses for good is found by halving and set aside.
async fn deliver(shared: &Shared, batch: Vec<Arc<Cut>>) -> Vec<(Arc<Cut>, Option<Delivery>)> {
    let mut done = Vec::with_capacity(batch.len());
    let mut rest = vec![batch];
    while let Some(mut piece) = rest.pop() {
        piece.retain(|cut| !shared.has_departed(cut));
        if piece.is_empty() {
            continue;
        }
        let left = || piece.iter().any(|cut| shared.has_departed(cut));
        let way = debug_span!(target: "isochrone::way", "export", sink = shared.sink.name(), cuts = piece.len(),
            samples = piece.iter().flat_map(|cut| cut.samples.values()).sum::<u64>());
        let delivering = attempt(shared, "deliver", left, || shared.sink.deliver(&piece));
        match delivering.instrument(way).await {
            Outcome::Done(deliveries) => {
                let later = piece.split_off(deliveries.len().min(piece.len()));
                done.extend(piece.into_iter().zip(deliveries.into_iter().map(Some)));
                rest.push(later);
            }
            Outcome::Departed => rest.push(piece),
            Outcome::Refused if piece.len() > 1 => {
                let second = piece.split_off(piece.len() / 2);
                rest.push(second);
                rest.push(piece);
            }
            // A newer total makes it good; until one is taken, all since the last that was is pending.
            Outcome::Refused if shared.sink.needs() == Needs::Totals => {
                done.extend(piece.into_iter().map(|cut| (cut, None)));
            }
            Outcome::Refused => {
                for cut in piece {
                    let samples: u64 = cut.samples.values().sum();
                    // Why was said; how much there is of it, the counters and the ledger say.
                    debug!(sink = shared.sink.name(), run = %cut.run, partition = %cut.partition, cut = cut.number,
                        samples, "set a cut aside");
                    let delivery = cut.set_aside();
                    done.push((cut, Some(delivery)));
                }
            }
        }
    }
    done
}

/// Tries until it succeeds, is refused for good, or `left` says it is nobody's business here. Says once that it fails and
/// once that it works again.
async fn attempt<T, F>(shared: &Shared, what: &str, left: impl Fn() -> bool, mut call: impl FnMut() -> F) -> Outcome<T>
where
    F: Future<Output = Result<T, Error>>,
{
    let name = shared.sink.name();
    let mut pause = shared.limits.retry.0;
    let mut warned = None;
    loop {
        let error = match timeout(shared.limits.attempt, call()).await {
            Ok(Ok(value)) => {
                if warned.is_some() {
                    info!(sink = name, "sink works again");
                }
                return Outcome::Done(value);
            }
            Ok(Err(error)) => error,
            Err(_) => Error::Away {
                address: name.to_owned(),
                cause: "no answer in time".to_owned(),
            },
        };
        let wait = match error.fate() {
            Fate::Retry(after) => after.map_or(pause, |after| shared.limits.heeded(after)),
            Fate::SetAside => {
                let error = error.to_string();
                if shared.is_news(&error) {
                    warn!(
                        sink = name,
                        "failed to {what}: failed to {error}; what is refused is set aside and counted"
                    );
                }
                return Outcome::Refused;
            }
        };
        // Another kind of trouble is news: it came up, and now refuses the password.
        let kind = trouble(&error);
        if warned.replace(kind.clone()) != Some(kind) {
            warn!(sink = name, "failed to {what}: failed to {error}; retrying");
        }
        shared.counters.retries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(wait).await;
        if left() {
            return Outcome::Departed;
        }
        pause = (pause * 2).min(shared.limits.retry.1);
    }
}

/// What makes one trouble another than the last. Of a right that is lacking, which one; of others the kind: their words change
/// with every attempt.
fn trouble(error: &Error) -> String {
    match error {
        Error::Denied { cause, .. } => cause.clone(),
        Error::Away { .. } => "away".to_owned(),
        Error::Busy { .. } => "busy".to_owned(),
        Error::Poison { .. } => "poison".to_owned(),
    }
}
