//! The health page and the clock discipline, as a prober and a store meet them.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{
    Health, Metric, Metrics, Stop, Tasks,
    clock::{SystemClock, discipline},
    page,
};
use isochrone_model::time::Clock;
use isochrone_store::{Store, memory::MemoryStore, types::Role};

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", address.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Alive at once, ready when said so, and metrics in Prometheus's format; from a thread of its own.
#[test]
fn the_page_tells_health_readiness_and_metrics() {
    let (health, metrics) = (Health::new("consumer"), Metrics::new());
    metrics
        .counter(&Metric::counter("isochrone_test_total", "A test."))
        .inc();
    let address = page::serve(Some(([127, 0, 0, 1], 0).into()), Role::Consumer, &health, &metrics).unwrap();
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200"));
    let answer = get(address, "/readyz");
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.ends_with("consumer not ready: starting\n"),
        "{answer}"
    );
    health.set_ready(true, "claims 1 topic");
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(address, "/metrics").contains("isochrone_test_total 1\n"));
    assert!(get(address, "/nothing").starts_with("HTTP/1.1 404"));
}

/// A taken address is an error when it was set, and moves on when it is a default.
#[test]
fn a_taken_port_is_an_error_or_moves_on() {
    let (health, metrics) = (Health::new("plotter"), Metrics::new());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = TcpListener::bind(taken).unwrap();
    let error = page::serve(Some(taken), Role::Plotter, &health, &metrics)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("listen on ISOCHRONE_LISTEN={taken}: ")),
        "{error}"
    );
    let first = page::serve(None, Role::Plotter, &health, &metrics).unwrap();
    let second = page::serve(None, Role::Plotter, &health, &metrics).unwrap();
    assert_ne!(first.port(), second.port());
    assert!(get(second, "/healthz").starts_with("HTTP/1.1 200"));
}

/// Disciplined by a store whose reference is known, a clock agrees with it within its bound.
#[tokio::test]
async fn a_clock_follows_its_reference() {
    let reference = SystemClock::alone(None);
    let store: Arc<dyn Store> = MemoryStore::new(reference.clone());
    let (clock, stop) = (SystemClock::new(None), Stop::new());
    let tasks = Tasks::new(stop.clone());
    let mut life = clock.server_life();
    discipline::start(&clock, &store, &Metrics::new(), &tasks, &stop);
    tokio::time::timeout(Duration::from_secs(10), async {
        while !clock.is_disciplined() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        life.wait_for(Option::is_some).await.unwrap();
    })
    .await
    .expect("a reading within 10 s");
    let (ours, theirs) = (clock.offset(), reference.offset());
    let off = ours
        .reference_minus_monotonic_ns
        .abs_diff(theirs.reference_minus_monotonic_ns);
    assert!(
        off <= ours.bound_ns + theirs.bound_ns,
        "off {off} ns, bound {} ns",
        ours.bound_ns
    );
    assert_eq!(ours.era, 0);
}
