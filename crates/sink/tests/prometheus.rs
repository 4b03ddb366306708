//! The Prometheus page from the outside: promtool reads it, counters are followed over takeovers.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

#[path = "support/entries.rs"]
mod entries;

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use entries::{device, receipt, sends};
use isochrone_model::{
    id::{Partition, RunName},
    time::{Clock, Monotonic, Offset, Second},
    window::Totals,
};
use isochrone_sink::{
    Cut, Departure, Hold, Sink,
    prometheus::{Config, LINGER, Prometheus},
};
use prometheus::TextEncoder;

const BUCKETS: [f64; 5] = [0.0, 0.000_1, 0.001, 0.01, 1.0];

#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.load(Ordering::SeqCst))
    }
    fn offset(&self) -> Offset {
        Offset {
            reference_minus_monotonic_ns: 0,
            bound_ns: 0,
            era: 0,
        }
    }
}

impl TestClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }
}

struct Page {
    clock: Arc<TestClock>,
    sink: Prometheus,
    held: Arc<AtomicBool>,
    run: RunName,
}

impl Page {
    fn new(topics: usize, hold_back: Duration) -> Page {
        let clock = Arc::new(TestClock::default());
        let config = Config {
            topics,
            buckets: BUCKETS.to_vec(),
            hold_back,
        };
        let sink = Prometheus::new(config, clock.clone());
        let run: RunName = "r1".parse().unwrap();
        Page {
            clock,
            sink,
            held: Arc::new(AtomicBool::new(true)),
            run,
        }
    }

    fn take(&self, partition: u16, kept: &[(String, Vec<u8>)]) {
        self.sink.recall(&self.run, Partition(partition), kept);
        self.sink
            .describe(&self.run, vec![("schema".to_owned(), "1".to_owned())]);
    }

    async fn cut(&self, partition: u16, number: u64, totals: &Totals) -> Vec<(String, Vec<u8>)> {
        let kept = self
            .sink
            .keep(&self.run, Partition(partition), Second(number as i64), totals);
        let held = self.held.clone();
        let cut = Cut {
            run: self.run.clone(),
            partition: Partition(partition),
            number,
            second: Second(number as i64),
            entries: Vec::new(),
            windows: Vec::new(),
            totals: Arc::new(totals.clone()),
            samples: BTreeMap::new(),
            hold: Hold::new(move || held.load(Ordering::SeqCst)),
        };
        self.sink.deliver(&[Arc::new(cut)]).await.unwrap();
        kept
    }

    fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.sink.families()).unwrap()
    }

    /// All series by their text, with their values.
    fn series(&self) -> BTreeMap<String, f64> {
        let text = self.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    fn sum(&self, metric: &str) -> f64 {
        let prefix = format!("{metric}{{");
        self.series()
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(_, value)| value)
            .sum()
    }
}

fn add(totals: &mut Totals, topic: &str, epoch: u64, second: i64, transits: &[i64]) {
    totals.know_device(&device(topic, epoch));
    totals.apply(&sends(epoch, second, transits.len() as u64));
    totals.apply(&receipt(topic, epoch, second, 50_000, transits));
}

/// `promtool check metrics` finds nothing to say of a page with every family on it.
#[tokio::test]
async fn promtool_finds_nothing() {
    let page = Page::new(10, Duration::ZERO);
    page.take(3, &[]);
    let mut totals = Totals::new();
    add(&mut totals, "a/\"b\"\\\n", 1, 1, &[-5_000, 90_000, 2_000_000]);
    page.cut(3, 1, &totals).await;
    let text = page.text();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: apt-get install prometheus");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "promtool: {said}\n{text}"
    );
    for family in [
        "isochrone_response_seconds",
        "isochrone_messages_scheduled_total",
        "isochrone_run_info",
        "isochrone_seconds_total",
    ] {
        assert!(
            text.contains(&format!("# TYPE {family} ")),
            "{family} is missing in\n{text}"
        );
    }
}

/// Negative transits are in the lowest bucket and in the count; buckets are cumulative; units are seconds.
#[tokio::test]
async fn negative_transits_count() {
    let page = Page::new(10, Duration::ZERO);
    page.take(3, &[]);
    let mut totals = Totals::new();
    add(&mut totals, "t", 1, 1, &[-5_000, 90_000, 2_000_000]);
    page.cut(3, 1, &totals).await;
    let series = page.series();
    let bucket = |bound: &str| {
        series[&format!("isochrone_transit_seconds_bucket{{run=\"r1\",partition=\"3\",topic=\"t\",le=\"{bound}\"}}")]
    };
    assert_eq!(
        [
            bucket("0"),
            bucket("0.0001"),
            bucket("0.001"),
            bucket("0.01"),
            bucket("+Inf")
        ],
        [1.0, 2.0, 2.0, 3.0, 3.0]
    );
    assert_eq!(page.sum("isochrone_transit_seconds_count"), 3.0);
    assert!((page.sum("isochrone_transit_seconds_sum") - 0.002_085).abs() < 1e-9);
    assert_eq!(page.sum("isochrone_received_total"), 3.0);
    assert_eq!(page.sum("isochrone_sent_total"), 3.0);
}

/// Beyond the bound topics go under `other`, where they stay, also under a successor that would have room for them; all of
/// them together add up, and no series falls.
#[tokio::test]
async fn cardinality_is_bounded_and_stable() {
    let page = Page::new(2, Duration::ZERO);
    page.take(3, &[]);
    let mut totals = Totals::new();
    add(&mut totals, "m", 1, 1, &[1_000]);
    add(&mut totals, "n", 2, 1, &[1_000]);
    add(&mut totals, "o", 3, 1, &[1_000]);
    let mut stored: BTreeMap<String, Vec<u8>> = page.cut(3, 1, &totals).await.into_iter().collect();
    add(&mut totals, "a", 4, 2, &[1_000, 1_000]);
    stored.extend(page.cut(3, 2, &totals).await);
    let before = page.series();
    let received = |topic: &str| format!("isochrone_received_total{{run=\"r1\",partition=\"3\",topic=\"{topic}\"}}");
    assert_eq!(before[&received("m")], 1.0);
    assert_eq!(before[&received("other")], 3.0);
    assert!(!before.contains_key(&received("a")) && !before.contains_key(&received("o")));
    assert_eq!(page.sum("isochrone_received_total"), 5.0);

    let successor = Page::new(100, Duration::ZERO);
    successor.take(3, &stored.into_iter().collect::<Vec<_>>());
    add(&mut totals, "new", 5, 3, &[1_000]);
    successor.cut(3, 3, &totals).await;
    let after = successor.series();
    for (name, value) in before
        .iter()
        .filter(|(name, _)| name.contains("_total") || name.contains("_count"))
    {
        assert!(after[name] >= *value, "{name} fell from {value} to {}", after[name]);
    }
    assert_eq!(after[&received("new")], 1.0);
    assert_eq!(successor.sum("isochrone_received_total"), 6.0);
}

/// Shown while the lease is valid; gone at once when the partition moves; five minutes longer when the run is closed.
#[tokio::test]
async fn series_leave_with_their_partition() {
    let page = Page::new(10, Duration::ZERO);
    page.take(3, &[]);
    page.take(4, &[]);
    let mut totals = Totals::new();
    add(&mut totals, "t", 1, 1, &[1_000]);
    page.cut(3, 1, &totals).await;
    page.cut(4, 1, &totals).await;
    assert_eq!(page.sum("isochrone_received_total"), 2.0);
    page.held.store(false, Ordering::SeqCst);
    assert_eq!(page.series(), BTreeMap::new());
    page.held.store(true, Ordering::SeqCst);
    page.sink.depart(&page.run, Partition(3), Departure::Moved);
    assert_eq!(page.sum("isochrone_received_total"), 1.0);
    // A straggler does not bring it back.
    page.cut_without_keep(3, &totals).await;
    assert_eq!(page.sum("isochrone_received_total"), 1.0);

    page.sink.depart(&page.run, Partition(4), Departure::Closed);
    page.held.store(false, Ordering::SeqCst);
    page.clock.pass(LINGER - Duration::from_secs(1));
    assert_eq!(page.sum("isochrone_received_total"), 1.0);
    assert_eq!(
        page.sum("isochrone_seconds_total"),
        1.0,
        "a closed run's seconds are all counted"
    );
    assert!(
        !page.text().contains("isochrone_cut_timestamp_seconds"),
        "a closed run does not fall behind"
    );
    page.clock.pass(Duration::from_secs(1));
    assert_eq!(page.text(), "");
}

impl Page {
    async fn cut_without_keep(&self, partition: u16, totals: &Totals) {
        let cut = Cut {
            run: self.run.clone(),
            partition: Partition(partition),
            number: 9,
            second: Second(9),
            entries: Vec::new(),
            windows: Vec::new(),
            totals: Arc::new(totals.clone()),
            samples: BTreeMap::new(),
            hold: Hold::new(|| true),
        };
        self.sink.deliver(&[Arc::new(cut)]).await.unwrap();
    }
}

/// What the store may still lose is not shown yet.
#[tokio::test]
async fn a_cut_is_held_back() {
    let page = Page::new(10, Duration::from_secs(2));
    page.take(3, &[]);
    let mut totals = Totals::new();
    add(&mut totals, "t", 1, 1, &[1_000]);
    page.cut(3, 1, &totals).await;
    page.clock.pass(Duration::from_secs(1));
    assert_eq!(page.sum("isochrone_received_total"), 0.0);
    add(&mut totals, "t", 1, 2, &[1_000]);
    page.cut(3, 2, &totals).await;
    page.clock.pass(Duration::from_secs(1));
    assert_eq!(page.sum("isochrone_received_total"), 1.0);
    page.clock.pass(Duration::from_secs(1));
    assert_eq!(page.sum("isochrone_received_total"), 2.0);
}
