//! Cuts made by hand, and a runner around the sink.

use std::{
    collections::BTreeMap,
    io::Write,
    ops::RangeInclusive,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use isochrone_model::{
    entry::{ConsumerDelay, ReceiptHead, ReceiptPart, Sample, SendPart},
    id::{Epoch, Partition, RunName, Topic},
    row::Device,
    thinning::Thinning,
    time::{Clock, Monotonic, Offset, Reference, Second},
    window::{CutEntry, Totals, windows_of_cut},
};
use isochrone_sink::{
    Counts, Cut, Departure, Hold,
    elasticsearch::{Access, Config, Elasticsearch, Login},
    runner::{Limits, Offer, Passed, Runner},
};
use tokio::{sync::mpsc, time::timeout};

use crate::entries;

/// Nothing takes longer, or something is broken: two busy cores carry a Java server beside the test.
const SOON: Duration = Duration::from_secs(90);

/// The day the cuts are of.
pub const DAY: &str = "2026.11.23";
/// Its first second.
const MIDNIGHT: i64 = 1_795_392_000;

const EPOCH: Epoch = Epoch(0xffff_ffff_ffff_ff01);

struct NoClock;

impl Clock for NoClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(0)
    }
    fn offset(&self) -> Offset {
        Offset {
            reference_minus_monotonic_ns: MIDNIGHT * 1_000_000_000,
            bound_ns: 0,
            era: 0,
        }
    }
}

pub fn access(url: &str) -> Access {
    Access {
        url: url.to_owned(),
        login: Login::None,
        ca: None,
    }
}

pub fn config(access: Access) -> Config {
    Config {
        access,
        samples: Thinning::All,
        retention: None,
    }
}

/// A sink at work on one partition of a run.
pub struct Work {
    run: RunName,
    sink: Arc<Elasticsearch>,
    runner: Runner,
    passed: mpsc::Receiver<Passed>,
    hold: Hold,
    log: Log,
    _logging: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Work {
    pub fn start(config: Config, run: &str) -> Work {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let sink = Arc::new(Elasticsearch::new(config, Arc::new(NoClock)).unwrap());
        let (sender, passed) = mpsc::channel(64);
        let limits = Limits {
            retry: (Duration::from_millis(50), Duration::from_millis(500)),
            ..Limits::default()
        };
        let runner = Runner::start(sink.clone(), limits, sender);
        Work {
            run: run.parse().unwrap(),
            sink,
            runner,
            passed,
            hold: Hold::new(|| true),
            log,
            _logging,
        }
    }

    /// One cut a second of the day, `count` samples each.
    pub fn offer(&self, seconds: RangeInclusive<i64>, count: u64) -> Vec<Arc<Cut>> {
        self.offer_with(seconds, count, |_| {})
    }

    pub fn offer_with(&self, seconds: RangeInclusive<i64>, count: u64, change: impl Fn(&mut Sample)) -> Vec<Arc<Cut>> {
        let cuts = seconds.map(|second| Arc::new(cut(&self.run, &self.hold, second, count, &change)));
        let cuts: Vec<_> = cuts.collect();
        for cut in &cuts {
            assert_eq!(self.runner.offer(cut.clone()), Offer::Taken);
        }
        cuts
    }

    /// Waits for so many cuts, in order, and gives the sum of what became of their samples.
    pub async fn passed(&mut self, cuts: usize) -> Counts {
        let mut sum = Counts::default();
        let mut last = 0;
        for _ in 0..cuts {
            let passed = timeout(SOON, self.passed.recv()).await;
            let passed = passed
                .unwrap_or_else(|_| self.is_late("a cut"))
                .expect("the runner lives");
            assert!(passed.cut.number > last, "in order");
            last = passed.cut.number;
            let samples: u64 = passed.cut.samples.values().sum();
            let counts = passed.delivery.iter().flat_map(|delivery| delivery.topics.values());
            let all: u64 = counts
                .clone()
                .map(|counts| counts.exported + counts.thinned + counts.set_aside)
                .sum();
            assert_eq!(all, samples, "every sample is accounted for");
            for counts in counts {
                sum.exported += counts.exported;
                sum.thinned += counts.thinned;
                sum.set_aside += counts.set_aside;
            }
        }
        sum
    }

    /// Waits until an attempt has failed and is to be repeated.
    pub async fn retried(&self) {
        let before = self.runner.counters().retries.load(Ordering::Relaxed);
        self.soon("a retry", || {
            self.runner.counters().retries.load(Ordering::Relaxed) > before
        })
        .await;
    }

    pub async fn said_soon(&self, what: &str) {
        self.soon(what, || self.said().contains(what)).await;
    }

    async fn soon(&self, what: &str, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| self.is_late(what));
    }

    #[expect(clippy::panic, reason = "a helper of tests fails the test")]
    fn is_late(&self, what: &str) -> ! {
        panic!("waited in vain for {what}; it said:\n{}", self.said())
    }

    /// Its log.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned()
    }

    /// The sum of a metric's series; of those with this fate only.
    pub fn counter(&self, name: &str, fate: Option<&str>) -> f64 {
        let families = self.sink.families();
        let series = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric());
        let with_fate = |metric: &&prometheus::proto::Metric| {
            fate.is_none_or(|fate| metric.get_label().iter().any(|label| label.value() == fate))
        };
        series
            .filter(with_fate)
            .map(|metric| metric.get_counter().get_value())
            .sum()
    }

    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    pub fn depart(&self, how: Departure) {
        self.runner.depart(&self.run, Partition(3), how);
    }

    pub async fn close(self) {
        self.runner.close(SOON).await;
    }
}

/// The cut of one second: every sample is due in it, at 10 ms and as many nanoseconds as its sequence, and is on its way for
/// one millisecond.
fn cut(run: &RunName, hold: &Hold, second: i64, count: u64, change: &dyn Fn(&mut Sample)) -> Cut {
    let second = Second(MIDNIGHT + second);
    let topic = Topic::from("t/1");
    let first = (second.0 - MIDNIGHT - 1) as u64 * count;
    let sample = |sequence: u64| {
        let due = Reference(second.start().0 + 10_000_000 + sequence as i64);
        let mut sample = Sample {
            epoch: EPOCH,
            sequence,
            due,
            sent: due + 100_000,
            received: due + 1_100_000,
            transit_ns: 1_000_000,
            delay: ConsumerDelay::Late,
            warmup: false,
        };
        change(&mut sample);
        sample
    };
    let part = ReceiptPart {
        samples: (first..first + count).map(sample).collect(),
        ..ReceiptPart::default()
    };
    let head = ReceiptHead {
        bound_ns: 7,
        ..entries::receipt_head()
    };
    let sends = SendPart {
        epoch: EPOCH,
        scheduled: count,
        sent: count,
        ..SendPart::default()
    };
    let both = vec![
        CutEntry::Receipt {
            second,
            head,
            parts: vec![(topic.clone(), part)],
        },
        CutEntry::Send {
            second,
            head: entries::send_head(count),
            parts: vec![sends],
        },
    ];
    let mut totals = Totals::new();
    totals.know_device(&Device {
        device: "dev-1".to_owned(),
        ..entries::device("t/1", EPOCH.0)
    });
    Cut {
        run: run.clone(),
        partition: Partition(3),
        number: (second.0 - MIDNIGHT) as u64,
        second,
        windows: windows_of_cut(&both, totals.devices()),
        entries: both,
        totals: Arc::new(totals),
        samples: BTreeMap::from([(topic, count)]),
        hold: hold.clone(),
    }
}
