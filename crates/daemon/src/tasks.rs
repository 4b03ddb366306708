//! Tasks by name: one that ends early stops the daemon with a failure.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::task::JoinHandle;

use crate::Stop;

/// Starts tasks and knows which still run. Clones are the same tasks.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: Stop,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    names: BTreeMap<u64, &'static str>,
}

/// When a task may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// Only once the daemon is finishing.
    EndLast,
    /// Whenever it is done.
    EndAnyTime,
}

/// Takes the task off the list however it ends.
struct Entry {
    tasks: Tasks,
    id: u64,
    name: &'static str,
    may: May,
    done: bool,
}

impl Tasks {
    /// No tasks yet.
    pub fn new(stop: Stop) -> Tasks {
        Tasks {
            stop,
            running: Arc::default(),
        }
    }

    /// Starts a task that works until the daemon is finishing; ending before that, or a panic, stops the daemon with a failure.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.start(name, May::EndLast, task)
    }

    /// Starts a task that may end when it is done; only a panic stops the daemon with a failure.
    pub fn spawn_job(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.start(name, May::EndAnyTime, task)
    }

    /// Names of the tasks that still run.
    pub fn running(&self) -> Vec<&'static str> {
        self.lock().names.values().copied().collect()
    }

    fn start(&self, name: &'static str, may: May, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let id = {
            let mut running = self.lock();
            running.next += 1;
            let id = running.next;
            running.names.insert(id, name);
            id
        };
        let entry = Entry {
            tasks: self.clone(),
            id,
            name,
            may,
            done: false,
        };
        tokio::spawn(async move {
            task.await;
            entry.finished();
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// A method, so that the task captures the whole entry and not a copy of one field.
    fn finished(mut self) {
        self.done = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tasks.lock().names.remove(&self.id);
        let stop = &self.tasks.stop;
        if self.done && (self.may == May::EndAnyTime || stop.is_finishing()) {
            return;
        }
        // Neither done nor panicking: the runtime is being dropped, which is no failure of the task.
        if self.done || std::thread::panicking() {
            stop.fail(format!("keep task {} running: it ended early", self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;

    /// A task that ends before the daemon is finishing stops it with a failure that names the task.
    #[tokio::test]
    async fn an_early_end_is_a_failure() {
        let stop = Stop::new();
        let tasks = Tasks::new(stop.clone());
        drop(tasks.spawn("early", async {}).await);
        assert_eq!(
            stop.cause(),
            Cause::Failed("keep task early running: it ended early".to_owned())
        );
        assert!(tasks.running().is_empty());
    }

    /// A job may end; a panic in one is a failure all the same.
    #[tokio::test]
    async fn a_job_may_end_but_not_panic() {
        let stop = Stop::new();
        let tasks = Tasks::new(stop.clone());
        drop(tasks.spawn_job("job", async {}).await);
        assert!(!stop.is_finishing());
        drop(tasks.spawn_job("broken", async { panic!("on purpose") }).await);
        assert!(stop.is_finishing());
    }

    /// Ending once the daemon is finishing is what tasks are for.
    #[tokio::test]
    async fn an_end_while_finishing_is_no_failure() {
        let stop = Stop::new();
        let tasks = Tasks::new(stop.clone());
        let task = tasks.spawn("steady", {
            let stop = stop.clone();
            async move { stop.finishing().await }
        });
        assert_eq!(tasks.running(), ["steady"]);
        stop.finish();
        task.await.unwrap();
        assert_eq!(stop.cause(), Cause::Asked);
    }
}
