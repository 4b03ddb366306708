//! OTLP to a real Prometheus 3 and a real Collector.

use std::{collections::BTreeMap, time::Duration};

use isochrone_e2e::{
    servers::{Collector, OtlpPrometheus, free_port},
    wait,
};
use isochrone_sink::{
    Error, Sink,
    otlp::{Config, Otlp, Protocol, Temporality},
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;

use crate::{
    scripted::Scripted,
    story::{Story, recent},
};

const SOON: Duration = Duration::from_secs(20);

fn sink(endpoint: &str, protocol: Protocol, temporality: Temporality) -> Otlp {
    let config = Config {
        endpoint: endpoint.to_owned(),
        protocol,
        headers: vec![("authorization".to_owned(), "Bearer s3cret".to_owned())],
        temporality,
        ca: None,
        topics: 2,
        hold_back: Duration::ZERO,
    };
    Otlp::new(&config).unwrap()
}

/// 1 to 1,000 in steps, from 100 us to 100 ms, and below zero as clock skew makes them.
fn spread() -> Vec<i64> {
    (1..=1_000).map(|n| n * 100_000).chain([-40_000, -30_000, 0]).collect()
}

/// Counts, sums and quantiles are there as native histograms; cuts that end with the same second, and a takeover, are taken
/// like any other; topics beyond the bound share a name.
#[tokio::test]
async fn prometheus_shows_native_histograms() {
    let server = OtlpPrometheus::start();
    let values = spread();
    let first = sink(&server.endpoint(), Protocol::Http, Temporality::Cumulative);
    let second = recent();
    let mut story = Story::new(&first, "r1", 7);
    story
        .deliver(second, &[("a", &values), ("b", &[1_000_000])])
        .await
        .unwrap();
    story
        .deliver(second, &[("a", &[2_000_000]), ("c", &[5])])
        .await
        .unwrap();
    let next = sink(&server.endpoint(), Protocol::Http, Temporality::Cumulative);
    let mut moved = story.moved(&next);
    moved.deliver(second, &[("d", &[6])]).await.unwrap();
    moved.deliver(second + 1, &[("d", &[7])]).await.unwrap();

    let query = |expression: &str| wait::until_some(expression, SOON, || server.query(expression));
    assert_eq!(query("sum(histogram_count(isochrone_transit_seconds))"), 1_008.0);
    assert_eq!(
        query(r#"histogram_count(isochrone_transit_seconds{messaging_destination_name="other"})"#),
        3.0
    );
    assert_eq!(
        query(r#"sum(isochrone_received_total{job="isochrone", isochrone_run="r1"})"#),
        1_008.0
    );
    assert_eq!(
        query(r#"sum(messaging_client_sent_messages_total{instance="r1/7", messaging_system="mqtt"})"#),
        1_008.0
    );
    let p50 = query(r#"histogram_quantile(0.5, isochrone_transit_seconds{messaging_destination_name="a"})"#);
    let p99 = query(r#"histogram_quantile(0.99, isochrone_transit_seconds{messaging_destination_name="a"})"#);
    assert!((p50 - 0.0499).abs() < 0.0499 * 0.012, "{p50}");
    assert!((p99 - 0.099).abs() < 0.099 * 0.012, "{p99}");
    let negative = query(r#"histogram_fraction(-Inf, 0, isochrone_transit_seconds{messaging_destination_name="a"})"#);
    assert!((negative * 1_004.0 - 2.5).abs() < 1.0, "{negative}");
    assert_eq!(
        query("histogram_sum(isochrone_transit_seconds{messaging_destination_name=\"b\"})"),
        0.001
    );
    assert_eq!(query("isochrone_transit_bound_seconds"), 0.0);
    assert_eq!((first.rejected_points(), next.rejected_points()), (0, 0));
}

/// Both protocols bring the same, running totals or differences; differences add up to the totals and leave no gap between
/// their times.
#[tokio::test]
async fn the_collector_takes_either_protocol() {
    let values = spread();
    let second = recent();
    for (protocol, temporality) in [
        (Protocol::Http, Temporality::Cumulative),
        (Protocol::Grpc, Temporality::Cumulative),
        (Protocol::Http, Temporality::Delta),
        (Protocol::Grpc, Temporality::Delta),
    ] {
        let server = Collector::start();
        let endpoint = if protocol == Protocol::Grpc {
            server.grpc()
        } else {
            server.http()
        };
        let sink = sink(&endpoint, protocol, temporality);
        let mut story = Story::new(&sink, "r1", 7);
        story.deliver(second, &[("a", &values[..600])]).await.unwrap();
        let two = [
            story.cut(second + 3, &[("a", &values[600..])]),
            story.cut(second + 3, &[("a", &[5_000])]),
        ];
        sink.deliver(&two).await.unwrap();

        let points = wait::until_some("all points", SOON, || {
            let points = server.points("isochrone.transit");
            (points.len() == 3).then_some(points)
        });
        let counts: Vec<_> = points.iter().map(|point| point.number("count")).collect();
        let times: Vec<_> = points
            .iter()
            .map(|point| (point.number("startTimeUnixNano"), point.number("timeUnixNano")))
            .collect();
        let at = |seconds: i64| (second + seconds) as f64 * 1e9;
        match temporality {
            Temporality::Cumulative => {
                assert_eq!(counts, [600.0, 1_003.0, 1_004.0], "{protocol:?}");
                assert_eq!(times, [(at(0), at(1)), (at(0), at(4)), (at(0), at(4) + 1e6)]);
            }
            Temporality::Delta => {
                assert_eq!(counts, [600.0, 403.0, 1.0], "{protocol:?}");
                assert_eq!(times, [(at(0), at(1)), (at(1), at(4)), (at(4), at(4) + 1e6)]);
            }
        }
        let delta = u64::from(temporality == Temporality::Delta);
        assert!(
            points
                .iter()
                .all(|point| point.temporality == 2 - delta && point.instance == "r1/7")
        );
        assert_eq!(points[0].attribute("messaging.destination.name").as_deref(), Some("a"));
        let negative = points[1].value["negative"]["bucketCounts"].as_array().map(Vec::len);
        assert!(negative.is_some_and(|buckets| buckets > 0), "{:#}", points[1].value);
        let sent: f64 = server
            .points("messaging.client.sent.messages")
            .iter()
            .map(|point| point.number("asInt"))
            .sum();
        assert_eq!(sent, counts.iter().sum::<f64>());
    }
}

/// What many topics need is split into requests that any receiver takes, nothing twice and nothing missing.
#[tokio::test]
async fn requests_are_bounded() {
    let server = Scripted::start(Vec::new()).await;
    let config = Config {
        endpoint: server.url.clone(),
        protocol: Protocol::Http,
        headers: Vec::new(),
        temporality: Temporality::Cumulative,
        ca: None,
        topics: 10_000,
        hold_back: Duration::ZERO,
    };
    let sink = Otlp::new(&config).unwrap();
    let mut story = Story::new(&sink, "r1", 1);
    let names: Vec<_> = (0..2_000).map(|n| format!("topic/{n}")).collect();
    let topics: Vec<(&str, &[i64])> = names
        .iter()
        .map(|name| (name.as_str(), [1, 1_000_000].as_slice()))
        .collect();
    story.deliver(recent(), &topics).await.unwrap();
    let mut seen = BTreeMap::new();
    let requests = server.requests();
    assert!(requests.len() > 1, "{}", requests.len());
    for (_, body) in &requests {
        let bytes = gunzip(body);
        assert!(bytes.len() < 4 << 20, "{}", bytes.len());
        let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
        for metric in request
            .resource_metrics
            .iter()
            .flat_map(|one| &one.scope_metrics)
            .flat_map(|one| &one.metrics)
        {
            *seen.entry(metric.name.clone()).or_insert(0) += points(metric);
        }
    }
    assert_eq!((seen["isochrone.transit"], seen["isochrone.lost"]), (2_000, 2_000));
    assert_eq!(seen["isochrone.transit.bound"], 1);
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut out).unwrap();
    out
}

fn points(metric: &opentelemetry_proto::tonic::metrics::v1::Metric) -> usize {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => sum.data_points.len(),
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        _ => 0,
    }
}

/// Each answer has the fate that the protocol gives it; what needs a person names the setting, and no secret is told.
#[tokio::test]
async fn answers_have_fates() {
    let partial = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "no".to_owned(),
        }),
    };
    let server = Scripted::start(vec![
        ("429 Too Many Requests\r\nRetry-After: 42\r\n", Vec::new()),
        ("503 Service Unavailable\r\n", Vec::new()),
        ("400 Bad Request\r\n", b"bad\n point".to_vec()),
        ("500 Internal Server Error\r\n", Vec::new()),
        ("401 Unauthorized\r\n", Vec::new()),
        ("404 Not Found\r\n", Vec::new()),
        (
            "308 Permanent Redirect\r\nLocation: https://elsewhere.example/v1/metrics?token=s3cret\r\n",
            Vec::new(),
        ),
        ("200 OK\r\n", partial.encode_to_vec()),
    ])
    .await;
    let sink = sink(&server.url, Protocol::Http, Temporality::Delta);
    let mut story = Story::new(&sink, "r1", 1);
    let cut = [story.cut(recent(), &[("a", &[1, 2])])];
    let mut errors = Vec::new();
    for _ in 0..7 {
        errors.push(sink.deliver(&cut).await.unwrap_err());
    }
    let text: Vec<_> = errors.iter().map(Error::to_string).collect();
    let address = format!("{}/v1/metrics", server.url);
    assert!(matches!(errors[0], Error::Busy { after: Some(after), .. } if after == Duration::from_secs(42)));
    assert!(matches!(errors[1], Error::Busy { after: None, .. }));
    assert!(matches!(errors[2], Error::Poison { .. }));
    assert_eq!(text[2], format!("write to {address}: 400 Bad Request: bad point"));
    assert!(matches!(errors[3], Error::Poison { .. }));
    assert!(
        matches!(errors[4], Error::Denied { .. }) && text[4].ends_with("(see ISOCHRONE_OTLP_HEADERS)"),
        "{text:?}"
    );
    assert!(
        matches!(errors[5], Error::Denied { .. }) && text[5].ends_with("(see ISOCHRONE_OTLP_ENDPOINT)"),
        "{text:?}"
    );
    assert!(matches!(errors[6], Error::Denied { .. }));
    let moved = "308 Permanent Redirect to https://elsewhere.example/v1/metrics (see ISOCHRONE_OTLP_ENDPOINT)";
    assert_eq!(text[6], format!("write to {address}: {moved}"));
    assert!(!text.concat().contains("s3cret"));
    let deliveries = sink.deliver(&cut).await.unwrap();
    assert_eq!(deliveries, [cut[0].set_aside()]);
    assert_eq!(sink.rejected_points(), 3);
    assert!(
        server
            .requests()
            .iter()
            .all(|(head, _)| head.contains("authorization: bearer s3cret"))
    );
}

/// Running totals of which points were refused did not go out, and neither is known to have that shared a request: nothing is
/// sent again, the next total of each goes alone, and the ledger says exported when one was taken whole.
#[tokio::test]
async fn refused_points_of_running_totals() {
    let partial = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "too old".to_owned(),
        }),
    };
    let refusal = || ("200 OK\r\n", partial.encode_to_vec());
    let server = Scripted::start(vec![refusal(), ("200 OK\r\n", Vec::new()), refusal()]).await;
    let sink = sink(&server.url, Protocol::Http, Temporality::Cumulative);
    let (mut first, mut second) = (Story::new(&sink, "r1", 1), Story::new(&sink, "r1", 2));
    let mut batch = |at: i64| [first.cut(at, &[("a", &[1])]), second.cut(at, &[("b", &[2])])];
    let at = recent();
    let both = batch(at);
    let error = sink.deliver(&both).await.unwrap_err();
    assert!(
        matches!(error, Error::Poison { .. }) && error.to_string().contains("too old"),
        "{error}"
    );
    // As the runner halves it.
    for piece in [&both[..1], &both[1..]] {
        assert!(matches!(sink.deliver(piece).await, Err(Error::Poison { .. })));
    }
    assert_eq!((server.requests().len(), sink.rejected_points()), (1, 3));

    let next = batch(at + 1);
    assert!(matches!(sink.deliver(&next).await, Err(Error::Poison { .. })));
    assert_eq!(sink.deliver(&next[..1]).await.unwrap(), [next[0].delivered()]);
    assert!(matches!(sink.deliver(&next[1..]).await, Err(Error::Poison { .. })));
    assert_eq!((server.requests().len(), sink.rejected_points()), (3, 6));

    // The last total of a run: nothing newer follows, so it comes again, and is sent again.
    assert_eq!(sink.deliver(&next[1..]).await.unwrap(), [next[1].delivered()]);
    assert_eq!((server.requests().len(), sink.rejected_points()), (4, 6));

    let last = batch(at + 2);
    assert_eq!(sink.deliver(&last).await.unwrap().len(), 2);
    assert_eq!(sink.rejected_points(), 6);
}

/// Nobody there, or one who speaks another protocol: one line that names the setting, to be tried again.
#[tokio::test]
async fn nobody_there() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let server = Collector::start();
    for (endpoint, protocol) in [
        (nowhere.clone(), Protocol::Http),
        (nowhere, Protocol::Grpc),
        (server.http(), Protocol::Grpc),
        ("http://no-such-host.invalid:4318".to_owned(), Protocol::Http),
    ] {
        let sink = sink(&endpoint, protocol, Temporality::Cumulative);
        let mut story = Story::new(&sink, "r1", 1);
        let error = story.deliver(recent(), &[("a", &[1])]).await.unwrap_err();
        let text = error.to_string();
        assert!(!matches!(error, Error::Poison { .. }), "{text}");
        assert!(
            text.contains("ISOCHRONE_OTLP_ENDPOINT") && text.contains(&endpoint) && !text.contains('\n'),
            "{text}"
        );
        println!("{text}");
    }
}
