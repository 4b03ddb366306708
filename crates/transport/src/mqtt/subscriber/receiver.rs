//! Subscriptions, deliveries and acknowledgements: all of a subscriber but the connection.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::Context,
    time::Duration,
};

use isochrone_model::time::{Clock, Monotonic};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    Deliveries, Delivery, DeliveryId, Disconnected, MqttVersion, SubscribeEvent, SubscriberConfig,
    mqtt::{
        codec, reason,
        wire::{self, Frame, packet},
    },
};

/// Filters and bytes of one SUBSCRIBE.
const FILTERS: usize = 500;
const FILTER_BYTES: usize = 32 * 1024;
/// What a packet has beside its filters, at most: header, packet id, no properties.
const OVERHEAD: usize = 8;
/// SUBSCRIBE packets that may await their SUBACK.
const ASKED: usize = 8;
/// How long a SUBACK may take.
const SUBACK: Duration = Duration::from_secs(5);

/// Subscriptions and acknowledgements: all but the connection.
pub(super) struct Receiver {
    version: MqttVersion,
    qos: u8,
    at_once: bool,
    topics: HashMap<Arc<str>, Subscription>,
    wanted: VecDeque<Arc<str>>,
    unwanted: VecDeque<Arc<str>>,
    asked: Vec<Asked>,
    /// UNSUBSCRIBE packets that await their UNSUBACK: a session that is resumed may not have heard them.
    leaving: Vec<(u16, Vec<Arc<str>>)>,
    last_id: u16,
    delivered: u64,
    acknowledged: u64,
    /// Deliveries of this connection that await [`Subscriber::acknowledge`], in the order they came.
    owed: VecDeque<(u64, u16, u8)>,
    /// QoS 2 packet ids between PUBLISH and PUBREL, and the delivery whose PUBREC is still owed.
    unreleased: HashMap<u16, Option<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subscription {
    /// Queued or asked for.
    Wanted,
    /// The broker said yes.
    Active,
    /// The broker said no.
    Refused,
}

struct Asked {
    id: u16,
    topics: Vec<Arc<str>>,
    at: Monotonic,
}

impl Receiver {
    pub(super) fn new(config: &SubscriberConfig) -> Receiver {
        Receiver {
            version: config.connection.version,
            qos: config.qos,
            at_once: config.acknowledge_at_once,
            topics: HashMap::new(),
            wanted: VecDeque::new(),
            unwanted: VecDeque::new(),
            asked: Vec::new(),
            leaving: Vec::new(),
            last_id: 0,
            delivered: 0,
            acknowledged: 0,
            owed: VecDeque::new(),
            unreleased: HashMap::new(),
        }
    }

    /// Topics to be heard.
    pub(super) fn want(&mut self, topics: &[Arc<str>]) {
        for topic in topics {
            if !matches!(
                self.topics.get(topic),
                Some(Subscription::Wanted | Subscription::Active)
            ) {
                self.topics.insert(topic.clone(), Subscription::Wanted);
                self.wanted.push_back(topic.clone());
            }
        }
    }

    /// Topics to be heard no more.
    pub(super) fn drop_topics(&mut self, topics: &[Arc<str>]) {
        for topic in topics {
            if self.topics.remove(topic).is_some() {
                self.wanted.retain(|wanted| wanted != topic);
                self.unwanted.push_back(topic.clone());
            }
        }
    }

    /// Everything delivered up to here may be acknowledged.
    pub(super) fn acknowledge(&mut self, up_to: DeliveryId) {
        self.acknowledged = self.acknowledged.max(up_to.0);
    }

    /// A connection came up.
    pub(super) fn begin(&mut self, session_present: bool) {
        self.owed.clear();
        if !session_present {
            self.unreleased.clear();
        }
        self.asked.clear();
        self.wanted.clear();
        for (topic, state) in &mut self.topics {
            if *state != Subscription::Active || !session_present {
                *state = Subscription::Wanted;
                self.wanted.push_back(topic.clone());
            }
        }
        let leaving = self.leaving.drain(..).flat_map(|(_, topics)| topics);
        // One that is wanted again needs no UNSUBSCRIBE: the SUBSCRIBE replaces what stands.
        let topics = &self.topics;
        let gone = leaving.filter(|topic| session_present && !topics.contains_key(topic));
        self.unwanted.extend(gone);
        if !session_present {
            self.unwanted.clear();
        }
    }

    /// Appends SUBSCRIBE and UNSUBSCRIBE packets, of no more bytes than the broker takes unless one topic alone is longer.
    pub(super) fn ask(&mut self, out: &mut Vec<u8>, max_packet: usize, clock: &dyn Clock) -> Result<(), Disconnected> {
        let most = FILTER_BYTES.min(max_packet.saturating_sub(OVERHEAD));
        let failed = |cause: String| {
            reason::needs_setting(
                "subscribe error",
                format!("SUBSCRIBE cannot be encoded ({cause}): check ISOCHRONE_TOPIC"),
            )
        };
        // A topic may have been dropped and wanted again: in that order, then.
        while !self.unwanted.is_empty() {
            let topics = chunk(&mut self.unwanted, most);
            let id = self.next_id();
            out.extend_from_slice(&codec::unsubscribe(self.version, id, &topics).map_err(failed)?);
            self.leaving.push((id, topics));
        }
        while !self.wanted.is_empty() && self.asked.len() < ASKED {
            let topics = chunk(&mut self.wanted, most);
            let id = self.next_id();
            out.extend_from_slice(&codec::subscribe(self.version, id, &topics, self.qos).map_err(failed)?);
            self.asked.push(Asked {
                id,
                topics,
                at: clock.monotonic(),
            });
        }
        Ok(())
    }

    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1).max(1);
            let mut taken = self.asked.iter().map(|asked| asked.id);
            let mut leaving = self.leaving.iter().map(|(id, _)| *id);
            if !taken.any(|id| id == self.last_id) && !leaving.any(|id| id == self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Takes one frame from the broker.
    pub(super) fn take(
        &mut self,
        frame: Frame<'_>,
        at: Monotonic,
        out: &mut Vec<u8>,
        deliveries: &mut dyn Deliveries,
    ) -> Result<(), Disconnected> {
        match frame.kind() {
            packet::PUBLISH => self.deliver(frame, at, out, deliveries),
            packet::PUBREL => {
                let ack = frame.ack().map_err(reason::protocol)?;
                // Also for an id that we do not know: a predecessor's, which the broker must be able to finish.
                self.unreleased.remove(&ack.id);
                wire::push_ack(out, packet::PUBCOMP, ack.id);
                Ok(())
            }
            packet::SUBACK => self.subscribed(frame, at, deliveries),
            packet::UNSUBACK => {
                let ack = frame.ack().map_err(reason::protocol)?;
                self.leaving.retain(|(id, _)| *id != ack.id);
                Ok(())
            }
            kind => Err(reason::protocol(format_args!("packet type {kind} to a subscriber"))),
        }
    }

    fn deliver(
        &mut self,
        frame: Frame<'_>,
        at: Monotonic,
        out: &mut Vec<u8>,
        deliveries: &mut dyn Deliveries,
    ) -> Result<(), Disconnected> {
        let message = frame.publish(self.version).map_err(reason::protocol)?;
        if message.qos == 2
            && let Some(owed) = self.unreleased.get_mut(&message.id)
        {
            // The same message again, after a reconnect: delivered once, its PUBREC is all that is missing.
            match *owed {
                Some(id) if id > self.acknowledged && !self.at_once => self.owed.push_back((id, message.id, 2)),
                _ => {
                    *owed = None;
                    wire::push_ack(out, packet::PUBREC, message.id);
                }
            }
            return Ok(());
        }
        self.delivered += 1;
        let id = self.delivered;
        deliveries.message(Delivery {
            id: DeliveryId(id),
            topic: message.topic,
            payload: message.payload,
            property: message.property,
            retained: message.retained,
            received: at,
        });
        if message.qos == 0 {
            return Ok(());
        }
        if message.qos == 2 {
            self.unreleased.insert(message.id, (!self.at_once).then_some(id));
        }
        if self.at_once {
            let kind = if message.qos == 1 {
                packet::PUBACK
            } else {
                packet::PUBREC
            };
            wire::push_ack(out, kind, message.id);
        } else {
            self.owed.push_back((id, message.id, message.qos));
        }
        Ok(())
    }

    /// Appends the acknowledgements that are owed and allowed.
    pub(super) fn pay(&mut self, out: &mut Vec<u8>) {
        while let Some(&(id, packet_id, qos)) = self.owed.front() {
            if id > self.acknowledged {
                return;
            }
            self.owed.pop_front();
            if qos == 1 {
                wire::push_ack(out, packet::PUBACK, packet_id);
            } else {
                self.unreleased.insert(packet_id, None);
                wire::push_ack(out, packet::PUBREC, packet_id);
            }
        }
    }

    fn subscribed(
        &mut self,
        frame: Frame<'_>,
        at: Monotonic,
        deliveries: &mut dyn Deliveries,
    ) -> Result<(), Disconnected> {
        let (id, answers) = codec::suback(self.version, frame.raw).map_err(reason::protocol)?;
        let Some(position) = self.asked.iter().position(|asked| asked.id == id) else {
            return Err(reason::protocol("a SUBACK that nothing asked for"));
        };
        let asked = self.asked.swap_remove(position);
        if answers.len() != asked.topics.len() {
            return Err(reason::protocol("a SUBACK with another number of answers than filters"));
        }
        let suback_ns = at.since_ns(asked.at).max(0) as u64;
        for (topic, answer) in asked.topics.into_iter().zip(answers) {
            // It may have been unsubscribed in the meantime.
            let Some(state) = self.topics.get_mut(&topic) else {
                continue;
            };
            match answer {
                Ok(granted) => {
                    if granted < self.qos {
                        tracing::warn!(%topic, granted, asked = self.qos, "the broker granted a lower QoS");
                    }
                    *state = Subscription::Active;
                    deliveries.event(SubscribeEvent::Subscribed { topic, at, suback_ns });
                }
                Err(answer) => {
                    *state = Subscription::Refused;
                    let detail = reason::subscription(&topic, &answer);
                    deliveries.event(SubscribeEvent::SubscribeRefused { topic, detail });
                }
            }
        }
        Ok(())
    }

    /// Ends the connection when the oldest SUBSCRIBE has waited too long.
    pub(super) fn watch_suback(
        &self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
        clock: &dyn Clock,
    ) -> Result<(), Disconnected> {
        let Some(oldest) = self.asked.iter().map(|asked| asked.at).min() else {
            *timer = None;
            return Ok(());
        };
        loop {
            let waited = Duration::from_nanos(clock.monotonic().since_ns(oldest).max(0) as u64);
            let Some(left) = SUBACK.checked_sub(waited).filter(|left| !left.is_zero()) else {
                let detail = format!("no SUBACK within {} s", SUBACK.as_secs());
                return Err(reason::disconnected("suback timeout", detail));
            };
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + left)));
            if timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            timer
                .as_mut()
                .reset(Instant::now() + left.max(Duration::from_millis(1)));
        }
    }
}

/// Takes as many topics as one packet may hold, and one at the least.
fn chunk(queue: &mut VecDeque<Arc<str>>, most: usize) -> Vec<Arc<str>> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    while let Some(topic) = queue.front()
        && (taken.is_empty() || (taken.len() < FILTERS && bytes + topic.len() + 3 <= most))
    {
        bytes += topic.len() + 3;
        taken.extend(queue.pop_front());
    }
    taken
}
