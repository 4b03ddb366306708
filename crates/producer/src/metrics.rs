//! What a producer tells about itself at `/metrics`.

use isochrone_daemon::{Metric, Metrics};
use isochrone_model::{entry::SendPart, range::SeqRange, row::Connects};
use prometheus::{Gauge, IntCounter, IntCounterVec};

const SCHEDULED: Metric = Metric::counter(
    "isochrone_producer_scheduled_total",
    "Places in the schedule that came due.",
);
const SENT: Metric = Metric::counter("isochrone_producer_sent_total", "Messages offered to a socket.");
const UNSENT: Metric = Metric::counter(
    "isochrone_producer_unsent_total",
    "Messages given up before they were offered.",
);
const ACKED: Metric = Metric::counter("isochrone_producer_acked_total", "Messages the broker acknowledged.");
const REFUSED: Metric = Metric::counter("isochrone_producer_refused_total", "Messages the broker refused.");
const LATE: Metric = Metric::counter(
    "isochrone_producer_late_total",
    "Messages sent later than ISOCHRONE_VALID_LATE by our own doing.",
);
const ATTEMPTS: Metric = Metric::counter(
    "isochrone_producer_connect_attempts_total",
    "Attempts of devices to connect to the broker.",
);
const FAILED: Metric = Metric::counter(
    "isochrone_producer_connects_failed_total",
    "Attempts that failed and connections that ended badly, by reason.",
)
.labelled(&["reason"]);
const LIVES: Metric = Metric::counter("isochrone_producer_lives_total", "Times this daemon entered a run.");
const DEVICES: Metric = Metric::gauge("isochrone_producer_devices", "Devices of this producer.");
const WAITING: Metric = Metric::gauge(
    "isochrone_producer_devices_waiting",
    "Devices that wait for a consumer.",
);

/// The counters, looked up once.
pub struct Counters {
    scheduled: IntCounter,
    sent: IntCounter,
    unsent: IntCounter,
    acked: IntCounter,
    refused: IntCounter,
    late: IntCounter,
    attempts: IntCounter,
    failed: IntCounterVec,
    /// See its help.
    pub lives: IntCounter,
    /// See its help.
    pub devices: Gauge,
    /// See its help.
    pub waiting: Gauge,
}

impl Counters {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Counters {
        Counters {
            scheduled: metrics.counter(&SCHEDULED),
            sent: metrics.counter(&SENT),
            unsent: metrics.counter(&UNSENT),
            acked: metrics.counter(&ACKED),
            refused: metrics.counter(&REFUSED),
            late: metrics.counter(&LATE),
            attempts: metrics.counter(&ATTEMPTS),
            failed: metrics.counter_vec(&FAILED),
            lives: metrics.counter(&LIVES),
            devices: metrics.gauge(&DEVICES),
            waiting: metrics.gauge(&WAITING),
        }
    }

    /// Adds what a device counted in a due-second, `late` of it late.
    pub fn add(&self, part: &SendPart, late: u64) {
        self.scheduled.inc_by(part.scheduled);
        self.sent.inc_by(part.sent);
        self.unsent.inc_by(part.unsent);
        self.acked.inc_by(part.acked);
        self.refused
            .inc_by(part.refused.iter().copied().map(SeqRange::count).sum());
        self.late.inc_by(late);
    }
    /// Adds what a device's connections came to since its last row.
    pub fn connects(&self, before: &Connects, now: &Connects) {
        self.attempts.inc_by(now.attempts.saturating_sub(before.attempts));
        for (reason, count) in &now.failed {
            let known = before.failed.get(reason).copied().unwrap_or_default();
            self.failed
                .with_label_values(&[reason.as_str()])
                .inc_by(count.saturating_sub(known));
        }
    }
}
