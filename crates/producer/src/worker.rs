//! A worker thread: its devices' connections, one heap of due times, one precise timer.
//!
//! Everything here belongs to one thread; what it counts leaves it in one report each flush interval.

mod floor;

use std::{future::poll_fn, io, rc::Rc, sync::Arc, task::Poll, thread, time::Duration};

use isochrone_daemon::wake_promptly;
use isochrone_model::{
    id::Domain,
    row::SendRow,
    time::{Clock, Monotonic},
};
use isochrone_transport::{Transport, Worker};
use tokio::{
    runtime::LocalOptions,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::debug;

use crate::{
    Error,
    plan::{Planned, Shared},
    rows::DueSecond,
    timer::Timer,
};
use floor::Floor;

/// Commands waiting for a worker; it takes them at every wake-up, and control waits when there are more.
const COMMANDS: usize = 16;
/// One read buffer serves all connections of the thread.
const READ_BUFFER: usize = 64 * 1024;

/// What control tells a worker. Dropping the sender makes it return at once.
#[derive(Debug)]
pub enum Command {
    /// These devices (by place) may start as soon as they are connected.
    Start(Vec<usize>),
    /// End the schedule; drain; say the last words.
    Finish,
    /// Disconnect; say the last words.
    GiveUp,
}

/// What workers tell control. The channel is bounded: while it is full a worker goes on adding up.
#[derive(Debug)]
pub enum Notice {
    /// What changed.
    Counted(Vec<DeviceReport>),
    /// Every device has ended and everything was reported.
    Ended,
    /// The worker cannot go on. [`Error::Transport`]: its devices have ended and everything was reported.
    Failed(Error),
}

/// One device's news.
#[derive(Debug)]
pub struct DeviceReport {
    /// Its place in the plan.
    pub place: usize,
    /// Its whole row.
    pub row: SendRow,
    /// What was added to each due-second since the last report.
    pub seconds: Vec<DueSecond>,
}

/// What a worker is made from.
pub struct Job {
    /// Number of this worker, and how many there are: device `n` here is in place `n × workers + number`.
    pub number: usize,
    /// See `number`.
    pub workers: usize,
    /// Its devices.
    pub devices: Vec<Planned>,
    /// What they share.
    pub shared: Shared,
    /// Where they connect.
    pub transport: Arc<dyn Transport>,
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
    /// Its domain.
    pub domain: Domain,
    /// To control.
    pub notices: mpsc::Sender<Notice>,
}

impl Job {
    /// Starts the thread. It ends after [`Notice::Ended`] or [`Notice::Failed`], or when the sender is dropped.
    pub fn start(self) -> Result<mpsc::Sender<Command>, Error> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        thread::Builder::new()
            .name(format!("producer-{}", self.number))
            .spawn(move || self.run(commands))
            .map_err(Error::Thread)?;
        Ok(sender)
    }

    fn run(self, commands: mpsc::Receiver<Command>) {
        wake_promptly();
        let mut farewell = Farewell {
            number: self.number,
            notices: self.notices.clone(),
            said: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default());
        let result = match runtime {
            Ok(runtime) => runtime.block_on(self.work(commands)),
            Err(cause) => Err(Error::Thread(cause)),
        };
        farewell.said = true;
        let notice = match result {
            Ok(true) => Notice::Ended,
            Ok(false) => return,
            Err(cause) => Notice::Failed(cause),
        };
        // Control is gone only when it wants nothing more.
        let _ = farewell.notices.blocking_send(notice);
    }

    /// True when all devices ended, false when control left.
    async fn work(self, mut commands: mpsc::Receiver<Command>) -> Result<bool, Error> {
        let mut timer = Timer::new().map_err(Error::Timer)?;
        let worker = Worker {
            clock: self.clock.clone(),
            domain: self.domain,
            read_buffer: Rc::new(vec![0; READ_BUFFER].into()),
        };
        let mut tick = interval(self.shared.flush_interval.max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

        let (number, workers, notices) = (self.number, self.workers, self.notices.clone());
        let rate = self.shared.connect_rate;
        let transport = self.transport.clone();
        let floor = Rc::new(Floor::new(self.shared, self.devices, self.clock));
        floor.spawn(connect(floor.clone(), transport, worker, rate));

        let mut failure = None;
        while !floor.all_ended() {
            let wake = floor.next_pass();
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Start(places)) => floor.allow(places.iter().map(|place| place / workers)),
                    Some(Command::Finish) => floor.finish(),
                    Some(Command::GiveUp) => floor.give_up(),
                    None => return Ok(false),
                },
                _ = tick.tick(), if floor.has_news() => {
                    if let Ok(permit) = notices.try_reserve() {
                        permit.send(Notice::Counted(floor.report(number, workers)));
                    }
                }
                failed = poll_fn(|context| floor.poll_tasks(context)) => match failed {
                    // A connection that cannot be: all end, and what was counted is told.
                    Error::Transport(_) => {
                        failure = Some(failed);
                        floor.give_up();
                    }
                    _ => return Err(failed),
                },
                () = floor.rung() => {}
                result = wait(&mut timer, floor.now(), wake) => result.map_err(Error::Timer)?,
            }
            floor.pass();
        }
        debug!(worker = number, "all devices ended");
        let _ = notices.send(Notice::Counted(floor.report(number, workers))).await;
        failure.map_or(Ok(true), Err)
    }
}

/// Tells control when the thread panics.
struct Farewell {
    number: usize,
    notices: mpsc::Sender<Notice>,
    said: bool,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if !self.said {
            let _ = self.notices.blocking_send(Notice::Failed(Error::Worker(self.number)));
        }
    }
}

async fn wait(timer: &mut Timer, now: Monotonic, wake: Option<Monotonic>) -> io::Result<()> {
    match wake {
        None => std::future::pending().await,
        Some(at) if at > now => timer.until(at).await,
        // Behind: the connections still get their turn.
        Some(_) => {
            tokio::task::yield_now().await;
            Ok(())
        }
    }
}

/// Connects the devices one after the other, at most `rate` a second; a reconnect has a backoff of its own.
async fn connect(floor: Rc<Floor>, transport: Arc<dyn Transport>, worker: Worker, rate: f64) -> Result<(), Error> {
    let begun = Instant::now();
    for place in 0..floor.len() {
        let at = begun + Duration::from_secs_f64(place as f64 / rate);
        if at > Instant::now() {
            sleep_until(at).await;
        }
        let Some(config) = floor.take_config(place) else {
            continue;
        };
        floor.connect(place, transport.publisher(config, &worker)?);
        floor.spawn(drive(floor.clone(), place));
    }
    Ok(())
}

/// Drives one device's connection until the device has ended.
async fn drive(floor: Rc<Floor>, place: usize) -> Result<(), Error> {
    poll_fn(|context| match floor.drive(place, context) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
}
