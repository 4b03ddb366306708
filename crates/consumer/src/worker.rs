//! The threads that listen: each with a runtime of its own, its partitions, their connections and their tenders.

use std::{rc::Rc, sync::Arc};

use isochrone_daemon::wake_promptly;
use isochrone_model::{
    id::{Partition, RunName, Token, Topic},
    time::{Clock, Monotonic},
};
use isochrone_store::types::Claimed;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
    task::spawn_local,
};

use crate::{
    Error,
    absence::WokenAt,
    connect,
    desk::{Desk, Equipment},
    link::Link,
    slice::NO_LINK,
    tender::{Hold, Tender},
};

/// Commands on their way to a worker. A full queue makes the control wait: workers answer within a turn.
const COMMANDS: usize = 256;

/// A turn of the runtime serves so many tasks before it looks at sockets and timers again.
const EVENT_INTERVAL: u32 = 16;

/// What a worker is told.
pub enum Command {
    /// Listen for these topics.
    Claim {
        /// The run.
        hold: Arc<Hold>,
        /// Their partition.
        partition: Partition,
        /// With all that the store knows of them.
        claimed: Vec<Claimed>,
    },
    /// A renewal's list of what is held there.
    Held {
        /// The run.
        run: RunName,
        /// The partition.
        partition: Partition,
        /// Before the store was asked.
        asked_at: Monotonic,
        /// Topics and their tokens.
        claims: Vec<(Topic, Token)>,
    },
    /// The lease of a partition is gone.
    Lost {
        /// The run.
        run: RunName,
        /// The partition.
        partition: Partition,
    },
    /// The store's server lost its newest writes.
    WriteAgain {
        /// The run.
        run: RunName,
    },
    /// Give a partition back for another consumer.
    Yield {
        /// The run.
        run: RunName,
        /// The partition.
        partition: Partition,
        /// Told when it is done.
        done: oneshot::Sender<()>,
    },
    /// Give everything of the run back.
    Leave {
        /// The run.
        run: RunName,
        /// Told when it is done.
        done: oneshot::Sender<()>,
    },
    /// The run is closed: forget it.
    Dismiss {
        /// The run.
        run: RunName,
    },
}

/// The workers of a daemon. A partition always belongs to the same one.
pub struct Pool {
    workers: Vec<mpsc::Sender<Command>>,
}

impl Pool {
    /// Starts as many threads as there are `equipment`s.
    pub fn start(equipment: Vec<Equipment>) -> Result<Pool, Error> {
        let start = |(number, equipment): (usize, Equipment)| {
            let (sender, commands) = mpsc::channel(COMMANDS);
            let fail = equipment.fail.clone();
            let body = move || {
                wake_promptly();
                let ended = work(equipment, commands);
                if let Err(problem) = ended {
                    fail(format!("keep a receiving thread running: {problem}"));
                }
            };
            let thread = std::thread::Builder::new().name(format!("receive-{number}"));
            thread.spawn(body).map_err(Error::Thread)?;
            Ok(sender)
        };
        let workers = equipment.into_iter().enumerate().map(start);
        Ok(Pool {
            workers: workers.collect::<Result<_, Error>>()?,
        })
    }

    /// Tells the worker of a partition.
    pub async fn tell(&self, partition: Partition, command: Command) {
        let worker = usize::from(partition.0) % self.workers.len();
        // A worker that has ended has stopped the daemon already.
        let _ = self.workers[worker].send(command).await;
    }

    /// Tells every worker.
    pub async fn tell_all(&self, mut command: impl FnMut() -> Command) {
        for worker in &self.workers {
            let _ = worker.send(command()).await;
        }
    }

    /// Has the claims of one partition given back, and waits until they are.
    pub async fn give_back(&self, run: &RunName, partition: Partition) {
        let (done, given_back) = oneshot::channel();
        let run = run.clone();
        self.tell(partition, Command::Yield { run, partition, done }).await;
        // An error means that nothing is held there any more.
        let _ = given_back.await;
    }

    /// Has a run's claims given back, and waits until they are.
    pub async fn leave(&self, run: &RunName) {
        let mut waiting = Vec::new();
        for worker in &self.workers {
            let (done, left) = oneshot::channel();
            let run = run.clone();
            if worker.send(Command::Leave { run, done }).await.is_ok() {
                waiting.push(left);
            }
        }
        for left in waiting {
            // An error means that the worker has ended: nothing is left to wait for.
            let _ = left.await;
        }
    }
}

fn work(equipment: Equipment, commands: mpsc::Receiver<Command>) -> std::io::Result<()> {
    let woken = WokenAt::default();
    let (hook, clock): (_, Arc<dyn Clock>) = (woken.clone(), equipment.clock.clone());
    // A local runtime: its timers and sockets wake tasks without a system call, as those of a LocalSet inside of one would not.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .on_thread_unpark(move || hook.set(clock.monotonic()))
        .build_local(LocalOptions::default())?;
    runtime.block_on(obey(Rc::new(Desk::new(equipment, woken)), commands));
    Ok(())
}

/// Obeys until the pool is dropped.
async fn obey(desk: Rc<Desk>, mut commands: mpsc::Receiver<Command>) {
    spawn_local(desk.clone().tick());
    spawn_local(desk.clone().recover());
    while let Some(command) = commands.recv().await {
        match command {
            Command::Claim {
                hold,
                partition,
                claimed,
            } => listen(&desk, &hold, partition, claimed),
            Command::Held {
                run,
                partition,
                asked_at,
                claims,
            } => {
                if let Some(tender) = find(&desk, run, partition) {
                    tender.held(&claims, asked_at, &desk);
                }
            }
            Command::Lost { run, partition } => {
                if let Some(tender) = find(&desk, run, partition) {
                    tender.lost(&desk);
                }
            }
            Command::WriteAgain { run } => {
                for tender in of_run(&desk, &run) {
                    tender.write_again();
                }
            }
            Command::Yield { run, partition, done } => {
                // Without a tender nothing is held there: who asked is told by the sender's end.
                if let Some(tender) = find(&desk, run, partition) {
                    tender.start_yielding(done);
                }
            }
            Command::Leave { run, done } => leave(&desk, &run, done),
            Command::Dismiss { run } => {
                for tender in of_run(&desk, &run) {
                    tender.dismiss(&desk);
                }
                desk.tenders.borrow_mut().retain(|(other, _), _| *other != run);
                desk.claims_changed();
            }
        }
    }
}

fn find(desk: &Desk, run: RunName, partition: Partition) -> Option<Rc<Tender>> {
    desk.tenders.borrow().get(&(run, partition)).cloned()
}

fn of_run(desk: &Desk, run: &RunName) -> Vec<Rc<Tender>> {
    let tenders = desk.tenders.borrow();
    let ours = tenders.iter().filter(|((other, _), _)| other == run);
    ours.map(|(_, tender)| tender.clone()).collect()
}

fn leave(desk: &Rc<Desk>, run: &RunName, done: oneshot::Sender<()>) {
    let mut waiting = Vec::new();
    for tender in of_run(desk, run) {
        let (one, left) = oneshot::channel();
        tender.start_leaving(one);
        waiting.push(left);
    }
    let (desk, run) = (desk.clone(), run.clone());
    spawn_local(async move {
        for left in waiting {
            let _ = left.await;
        }
        desk.tenders.borrow_mut().retain(|(other, _), _| *other != run);
        desk.claims_changed();
        // Who asked may have given up waiting.
        let _ = done.send(());
    });
}

fn listen(desk: &Rc<Desk>, hold: &Arc<Hold>, partition: Partition, claimed: Vec<Claimed>) {
    let tender = tender(desk, hold, partition);
    let mut by_link: Vec<(Rc<Link>, Vec<Topic>)> = Vec::new();
    let mut unheard: Option<(isochrone_transport::Error, usize)> = None;
    for claim in &claimed {
        // A claim without devices cannot be listened for: nobody knows where. The next renewals name it, and it goes back.
        let Some(first) = claim
            .devices
            .iter()
            .map(|state| &state.device)
            .max_by_key(|device| device.qos)
        else {
            tracing::error!(run = %hold.run, topic = %claim.topic, "claimed a topic without devices; leaving it");
            hold.room.release(1);
            continue;
        };
        let plan = connect::plan(&desk.equipment.settings, &hold.run, hold.sharing, partition, first);
        let link = match tender.link(plan, desk) {
            Ok((link, new)) => {
                if new {
                    spawn_local(link.clone().drive(tender.clone(), desk.clone()));
                }
                Some(link)
            }
            // Where the daemon has nothing else to do.
            Err(problem) if hold.alone => {
                hold.room.release(1);
                return (desk.equipment.fail)(problem.to_string());
            }
            // Other runs go on. Given back, it would only be claimed again: it is held, and closed when its devices are done.
            Err(problem) => {
                unheard = Some((problem, unheard.map_or(1, |(_, topics)| topics + 1)));
                None
            }
        };
        let now = desk.clock.monotonic();
        let number = link.as_ref().map_or(NO_LINK, |link| link.number);
        let added = tender
            .slice
            .borrow_mut()
            .add(claim, number, (now, desk.clock.offset().at(now)));
        if !added {
            // A claim that is known already has its room.
            hold.room.give_up(1);
            continue;
        }
        desk.equipment.counters.claims.inc();
        let Some(link) = link else { continue };
        match by_link.iter_mut().find(|(other, _)| Rc::ptr_eq(other, &link)) {
            Some((_, topics)) => topics.push(claim.topic.clone()),
            None => by_link.push((link, vec![claim.topic.clone()])),
        }
    }
    if let Some((problem, topics)) = unheard {
        tracing::error!(run = %hold.run, topics, "failed to {problem}; these topics are held and not listened for");
    }
    for (link, topics) in by_link {
        link.subscribe(&topics);
    }
    desk.claims_changed();
    tender.notify.notify_one();
}

fn tender(desk: &Rc<Desk>, hold: &Arc<Hold>, partition: Partition) -> Rc<Tender> {
    let key = (hold.run.clone(), partition);
    if let Some(tender) = desk.tenders.borrow().get(&key) {
        return tender.clone();
    }
    let tender = Rc::new(Tender::new(hold.clone(), partition, desk));
    desk.tenders.borrow_mut().insert(key, tender.clone());
    spawn_local(tender.clone().tend(desk.clone()));
    tender
}
