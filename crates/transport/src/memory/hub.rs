//! Topics and the inboxes that listen to them.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

/// What an inbox holds at most: a quarter of a second at a hundred thousand messages a second.
const MESSAGES: usize = 25_000;
const BYTES: usize = 32 * 1024 * 1024;

static HUBS: LazyLock<Mutex<HashMap<String, Weak<Hub>>>> = LazyLock::new(Mutex::default);
static HOLDERS: AtomicU64 = AtomicU64::new(1);

/// All topics and sessions of one name.
#[derive(Default)]
pub(super) struct Hub {
    topics: Mutex<HashMap<Arc<str>, Arc<TopicInboxes>>>,
    sessions: Mutex<HashMap<String, Arc<Inbox>>>,
}

/// Who listens to a topic.
#[derive(Default)]
pub(super) struct TopicInboxes(Mutex<Vec<Listener>>);

struct Listener {
    inbox: Arc<Inbox>,
    qos: u8,
}

/// A session: what has arrived for one client id.
#[derive(Default)]
pub(super) struct Inbox(Mutex<InboxState>);

#[derive(Default)]
struct InboxState {
    queue: Queue,
    /// Who is attached; 0 for nobody.
    holder: u64,
    receiver: Option<Waker>,
    senders: Vec<Waker>,
    overflowed: bool,
}

/// Messages behind each other in one buffer.
#[derive(Default)]
pub(super) struct Queue {
    pub bytes: Vec<u8>,
    pub messages: Vec<Message>,
}

/// Where a message lies in its queue.
#[derive(Clone)]
pub(super) struct Message {
    pub topic: Arc<str>,
    pub qos: u8,
    /// The property's bytes come first.
    pub property: usize,
    pub length: usize,
}

impl Hub {
    /// The hub of a name, made when there is none.
    pub fn named(name: &str) -> Arc<Hub> {
        let mut hubs = lock(&HUBS);
        if let Some(hub) = hubs.get(name).and_then(Weak::upgrade) {
            return hub;
        }
        hubs.retain(|_, hub| hub.strong_count() > 0);
        let hub = Arc::new(Hub::default());
        hubs.insert(name.to_owned(), Arc::downgrade(&hub));
        hub
    }

    /// The listeners of a topic.
    pub fn topic(&self, topic: &Arc<str>) -> Arc<TopicInboxes> {
        lock(&self.topics).entry(topic.clone()).or_default().clone()
    }

    /// The session of a client id, and whether there was one.
    pub fn session(&self, client_id: &str) -> (Arc<Inbox>, bool) {
        let mut sessions = lock(&self.sessions);
        if let Some(inbox) = sessions.get(client_id) {
            return (inbox.clone(), true);
        }
        let inbox = Arc::new(Inbox::default());
        sessions.insert(client_id.to_owned(), inbox.clone());
        (inbox, false)
    }

    /// Deletes a session with its subscriptions.
    pub fn remove_session(&self, client_id: &str) {
        if let Some(inbox) = lock(&self.sessions).remove(client_id) {
            lock(&self.topics).values().for_each(|topic| topic.remove(&inbox));
            inbox.detach(None);
        }
    }
}

impl TopicInboxes {
    /// Subscribes; again with another QoS replaces it.
    pub fn add(&self, inbox: &Arc<Inbox>, qos: u8) {
        let mut listeners = lock(&self.0);
        listeners.retain(|listener| !Arc::ptr_eq(&listener.inbox, inbox));
        listeners.push(Listener {
            inbox: inbox.clone(),
            qos,
        });
    }

    pub fn remove(&self, inbox: &Arc<Inbox>) {
        lock(&self.0).retain(|listener| !Arc::ptr_eq(&listener.inbox, inbox));
    }

    /// Whether all listeners take more; else `waker` fires when one does.
    pub fn has_room(&self, waker: &Waker) -> bool {
        lock(&self.0).iter().all(|listener| listener.inbox.has_room(waker))
    }

    /// Hands one message to all listeners; false when there are none.
    pub fn publish(&self, topic: &Arc<str>, qos: u8, property: &[u8], payload: &[u8]) -> bool {
        let listeners = lock(&self.0);
        for listener in &*listeners {
            let message = Message {
                topic: topic.clone(),
                qos: qos.min(listener.qos),
                property: property.len(),
                length: property.len() + payload.len(),
            };
            listener.inbox.push(message, property, payload);
        }
        !listeners.is_empty()
    }

    /// Wakes those that have something to take.
    pub fn wake(&self) {
        for listener in &*lock(&self.0) {
            let waker = lock(&listener.inbox.0).receiver.take();
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Inbox {
    /// Attaches a new holder, which throws out the one before.
    pub fn attach(&self) -> u64 {
        let holder = HOLDERS.fetch_add(1, Ordering::Relaxed);
        let mut state = lock(&self.0);
        state.holder = holder;
        let before = state.receiver.take();
        drop(state);
        before.into_iter().for_each(Waker::wake);
        holder
    }

    /// Detaches `holder`, or whoever it is.
    pub fn detach(&self, holder: Option<u64>) {
        let mut state = lock(&self.0);
        if holder.is_some_and(|holder| holder != state.holder) {
            return;
        }
        state.holder = 0;
        let mut wakers = std::mem::take(&mut state.senders);
        wakers.extend(state.receiver.take());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Puts messages back in front of what has come since.
    pub fn put_back(&self, mut queue: Queue) {
        let mut state = lock(&self.0);
        queue.bytes.append(&mut state.queue.bytes);
        queue.messages.append(&mut state.queue.messages);
        state.queue = queue;
    }

    /// Swaps what has come into `empty`; false when `holder` has been thrown out. `waker` fires when more comes.
    pub fn take(&self, holder: u64, empty: &mut Queue, waker: &Waker) -> bool {
        let mut state = lock(&self.0);
        if state.holder != holder {
            return false;
        }
        std::mem::swap(&mut state.queue, empty);
        state.receiver = Some(waker.clone());
        let senders = std::mem::take(&mut state.senders);
        drop(state);
        senders.into_iter().for_each(Waker::wake);
        true
    }

    fn has_room(&self, waker: &Waker) -> bool {
        let mut state = lock(&self.0);
        let full = state.holder != 0 && state.is_full();
        if full && !state.senders.iter().any(|known| known.will_wake(waker)) {
            state.senders.push(waker.clone());
        }
        !full
    }

    fn push(&self, message: Message, property: &[u8], payload: &[u8]) {
        let mut state = lock(&self.0);
        if state.holder == 0 && (message.qos == 0 || state.is_full()) {
            if message.qos > 0 && !std::mem::replace(&mut state.overflowed, true) {
                tracing::warn!(topic = %message.topic, "a session without subscriber is full: messages are dropped");
            }
            return;
        }
        state.queue.bytes.extend_from_slice(property);
        state.queue.bytes.extend_from_slice(payload);
        state.queue.messages.push(message);
    }
}

impl InboxState {
    fn is_full(&self) -> bool {
        self.queue.messages.len() >= MESSAGES || self.queue.bytes.len() >= BYTES
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
