//! Entries of a cut made by hand, and the device they are of.

use isochrone_model::{
    entry::{ConsumerDelay, ReceiptHead, ReceiptPart, Sample, SendHead, SendPart},
    histogram::Histogram,
    id::{DaemonId, Domain, Epoch, Topic},
    row::Device,
    time::{Reference, Second},
    window::CutEntry,
};

pub fn device(topic: &str, epoch: u64) -> Device {
    Device {
        epoch: Epoch(epoch),
        device: format!("d{epoch}"),
        client_id: String::new(),
        topic: Topic::from(topic),
        response_topic: Topic::from(topic),
        url: "mqtts://localhost:8883".to_owned(),
        qos: 1,
        mqtt_version: "5".to_owned(),
        rate: Some(1.0),
        domain: Domain(1),
        producer: DaemonId(1),
        ordinal: 0,
        number: 0,
    }
}

pub fn receipt_head() -> ReceiptHead {
    ReceiptHead {
        daemon: DaemonId(2),
        domain: Domain(1),
        bound_ns: 0,
        era_changed: false,
        ack_limited: false,
        absences: Vec::new(),
    }
}

pub fn send_head(messages: u64) -> SendHead {
    SendHead {
        daemon: DaemonId(1),
        domain: Domain(1),
        messages,
        late: 0,
        extreme: 0,
        bound_ns: 0,
        era_changed: false,
    }
}

/// Messages due at the beginning of the second, sent `delay_ns` later, with these transits; and one duplicate.
pub fn receipt(topic: &str, epoch: u64, second: i64, delay_ns: i64, transits: &[i64]) -> CutEntry {
    let due = Second(second).start();
    let sample = |(sequence, transit): (usize, &i64)| Sample {
        epoch: Epoch(epoch),
        sequence: sequence as u64,
        due,
        sent: due + delay_ns,
        received: Reference(due.0 + delay_ns + transit),
        transit_ns: *transit,
        delay: ConsumerDelay::None,
        warmup: false,
    };
    let part = ReceiptPart {
        samples: transits.iter().enumerate().map(sample).collect(),
        duplicates: 1,
        ..ReceiptPart::default()
    };
    CutEntry::Receipt {
        second: Second(second),
        head: receipt_head(),
        parts: vec![(Topic::from(topic), part)],
    }
}

/// So many messages sent, each acknowledged, each 20 us late.
pub fn sends(epoch: u64, second: i64, count: u64) -> CutEntry {
    let mut late = Histogram::default();
    late.record_n(20_000, count);
    let part = SendPart {
        epoch: Epoch(epoch),
        scheduled: count,
        sent: count,
        acked: count,
        late: late.clone(),
        ack: late,
        ..SendPart::default()
    };
    CutEntry::Send {
        second: Second(second),
        head: send_head(count),
        parts: vec![part],
    }
}
