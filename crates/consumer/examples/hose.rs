//! How fast one consumer reads: a fire hose in place of a broker writes stamped QoS 0 messages as fast as the socket takes
//! them, a whole consumer with the store in memory receives them. Prints messages a second and CPU seconds a million.
//!
//! `cargo run --release -p isochrone-consumer --example hose -- 5000000`

use std::{
    ffi::OsString,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{
    Context, Health, Metrics, Shared, Stop,
    clock::SystemClock,
    settings::{self, ConsumerSettings, Source},
};
use isochrone_model::{
    id::{DaemonId, Domain, Epoch, RunName, Topic},
    row::{Device, SendRow},
    stamp::Stamp,
    time::Clock,
};
use isochrone_store::{
    Registry, Samples,
    memory::MemoryStore,
    types::{DeviceState, OpenRun, Pins, Role, SCHEMA, SendFlush, TopicStatus},
};

const TOPIC: &str = "isochrone/hose/0-0";
const EPOCH: Epoch = Epoch(7);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(3_000_000), |text| text.parse())?;
    let clock = SystemClock::alone(None);
    let store = MemoryStore::new(clock.clone());
    let run: RunName = "hose".parse()?;
    let producer = DaemonId(1);
    let pins = Pins {
        schema: SCHEMA,
        partitions: 64,
        claim_unit: "topic".to_owned(),
    };
    let request = OpenRun {
        run: Some(run.clone()),
        pins,
        keep: Duration::from_secs(3600),
    };
    store.open_run(&request).await?;
    store.enlist(&run, producer, Role::Producer, None).await?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let device = Device {
        epoch: EPOCH,
        device: "0-0".to_owned(),
        client_id: String::new(),
        topic: TOPIC.into(),
        response_topic: TOPIC.into(),
        url: format!("mqtt://{}", listener.local_addr()?),
        qos: 0,
        mqtt_version: "3.1.1".to_owned(),
        rate: None,
        domain: clock.domain(),
        producer,
        ordinal: 0,
        number: 0,
    };
    let partition = Topic::from(TOPIC).partition(64);
    let state = DeviceState {
        device,
        row: SendRow::default(),
    };
    store.register(&run, partition, producer, &[state]).await?;
    let variables = [
        ("ISOCHRONE_RUN", "hose"),
        ("ISOCHRONE_LOG", "warn"),
        ("ISOCHRONE_LEASE", "1h"),
        ("ISOCHRONE_BUFFER", "100000000"),
    ];
    let variables = variables.map(|(name, text)| (OsString::from(name), OsString::from(text)));
    let loaded = settings::load::<ConsumerSettings>(&Source::from_variables(variables))?;
    isochrone_daemon::start_logs(&loaded.common);
    let shared = Shared {
        common: Arc::new(loaded.common),
        store: store.another(),
        clock: clock.clone(),
        health: Health::new("hose"),
        metrics: Metrics::new(),
    };
    let stop = Stop::new();
    let context = Context::new(Role::Consumer, &shared, stop.clone());
    let consumer = tokio::spawn(isochrone_consumer::run(context, loaded.settings, None));
    let hose = std::thread::spawn({
        let clock = clock.clone();
        move || hose(&listener, count, &clock)
    });
    let status = async || {
        let topics = store.topics(&run, partition).await.unwrap_or_default();
        topics.first().map(|topic| (topic.status, topic.stored + topic.dropped))
    };
    while status().await.is_none_or(|(status, _)| status != TopicStatus::Ready) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (start, before) = (clock.monotonic(), cpu_seconds("receive-0")?);
    let row = SendRow {
        scheduled: count,
        sent: count,
        ended: true,
        ..SendRow::default()
    };
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    while status().await.is_none_or(|(_, counted)| counted < count) {
        if tokio::time::Instant::now() > limit {
            return Err(format!(
                "{:?} of {count} messages after a minute; {}",
                status().await,
                shared.metrics.encode()
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let wall = clock.monotonic().since_ns(start) as f64 / 1e9;
    let cpu = cpu_seconds("receive-0")? - before;
    let millions = count as f64 / 1e6;
    println!(
        "{:.0} messages/s; receiving thread: {:.3} CPU s per million",
        count as f64 / wall,
        cpu / millions
    );
    let flush = SendFlush {
        batch: 1,
        entries: Vec::new(),
        rows: vec![(EPOCH, row)],
    };
    store.append_sends(&run, partition, producer, &flush).await?;
    stop.finish();
    consumer.await??;
    hose.join().map_err(|_| "the hose broke")??;
    Ok(())
}

/// A broker for one subscriber: CONNACK, SUBACK, then messages until there are enough.
fn hose(listener: &TcpListener, count: u64, clock: &SystemClock) -> std::io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    frame(&mut socket)?;
    socket.write_all(&[0x20, 2, 0, 0])?;
    let subscribe = frame(&mut socket)?;
    socket.write_all(&[0x90, 3, subscribe[0], subscribe[1], 0])?;
    let mut buffer = Vec::with_capacity(80_000);
    let domain: Domain = clock.domain();
    for sequence in 0..count {
        let sent_monotonic = clock.monotonic();
        let sent = clock.offset().at(sent_monotonic);
        let stamp = Stamp {
            domain,
            epoch: EPOCH,
            sequence,
            warmup: false,
            due: sent,
            sent,
            sent_monotonic,
        };
        let payload = stamp.to_text();
        buffer.push(0x30);
        buffer.push((2 + TOPIC.len() + payload.len()) as u8);
        buffer.extend_from_slice(&(TOPIC.len() as u16).to_be_bytes());
        buffer.extend_from_slice(TOPIC.as_bytes());
        buffer.extend_from_slice(payload.as_bytes());
        if buffer.len() > 64 * 1024 {
            socket.write_all(&buffer)?;
            buffer.clear();
        }
    }
    socket.write_all(&buffer)?;
    // Until the consumer goes.
    while socket.read(&mut [0; 64])? > 0 {}
    Ok(())
}

/// One short packet's body.
fn frame(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 2];
    socket.read_exact(&mut head)?;
    let mut body = vec![0; usize::from(head[1])];
    socket.read_exact(&mut body)?;
    Ok(body)
}

/// CPU time of this process's thread of that name, in seconds.
fn cpu_seconds(name: &str) -> std::io::Result<f64> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        if let Some((_, rest)) = stat.split_once(&format!("({name})")) {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            return Ok((ticks(11) + ticks(12)) / 100.0);
        }
    }
    Ok(0.0)
}
