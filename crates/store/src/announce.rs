//! Announcements, told to whoever waits in this process.

use std::time::Duration;

use tokio::{
    sync::{
        Mutex,
        broadcast::{Receiver, Sender, channel, error::TryRecvError},
    },
    time::timeout,
};

use crate::types::Change;

/// Announcements a waiting daemon may fall behind; one further behind polls, as it would without any.
const BACKLOG: usize = 1024;

/// One daemon's ear: it hears what was said since it last listened.
pub(crate) struct Announcements {
    sender: Sender<Change>,
    /// The ear of whoever waits first; others that wait at the same time listen from that moment on.
    receiver: Mutex<Receiver<Change>>,
}

impl Announcements {
    pub fn new() -> Announcements {
        let (sender, receiver) = channel(BACKLOG);
        Announcements {
            sender,
            receiver: Mutex::new(receiver),
        }
    }

    /// A second ear for the same announcements.
    pub fn another(&self) -> Announcements {
        Announcements {
            sender: self.sender.clone(),
            receiver: Mutex::new(self.sender.subscribe()),
        }
    }

    pub fn sender(&self) -> Sender<Change> {
        self.sender.clone()
    }

    pub fn announce(&self, change: Change) {
        // Nobody listening is no error: everyone polls as well.
        let _ = self.sender.send(change);
    }

    /// What was announced; waits at most `at_most` for the first.
    pub async fn wait(&self, at_most: Duration) -> Vec<Change> {
        match self.receiver.try_lock() {
            Ok(mut receiver) => hear(&mut receiver, at_most).await,
            Err(_) => hear(&mut self.sender.subscribe(), at_most).await,
        }
    }
}

async fn hear(receiver: &mut Receiver<Change>, at_most: Duration) -> Vec<Change> {
    let mut changes = Vec::new();
    // Too late, closed, or fallen behind: nothing is known, the caller looks for itself.
    if let Ok(Ok(first)) = timeout(at_most, receiver.recv()).await {
        changes.push(first);
    }
    loop {
        match receiver.try_recv() {
            Ok(change) if !changes.contains(&change) => changes.push(change),
            Ok(_) | Err(TryRecvError::Lagged(_)) => {}
            Err(_) => return changes,
        }
    }
}
