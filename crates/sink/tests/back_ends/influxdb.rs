//! Line protocol to a real InfluxDB 1, and to VictoriaMetrics at InfluxDB 2's address.

use std::time::Duration;

use isochrone_e2e::{
    servers::{InfluxDb as Server, VictoriaMetrics, free_port},
    wait,
};
use isochrone_model::id::Topic;
use isochrone_sink::{
    Error, Sink,
    influxdb::{Api, Config, InfluxDb},
};

use crate::{
    scripted::Scripted,
    story::{Story, recent},
};

const SOON: Duration = Duration::from_secs(20);

fn v1(url: &str, database: &str) -> InfluxDb {
    let user = Some(("me".to_owned(), "s3cret".to_owned()));
    let database = database.to_owned();
    sink(url, Api::V1 { database, user })
}

fn v2(url: &str) -> InfluxDb {
    let api = Api::V2 {
        org: Some("o".to_owned()),
        bucket: "isochrone".to_owned(),
        token: Some("s3cret".to_owned()),
    };
    sink(url, api)
}

fn sink(url: &str, api: Api) -> InfluxDb {
    let config = Config {
        url: url.to_owned(),
        api,
        ca: None,
        topics: 2,
        buckets: vec![0.001, 0.01, 0.1],
    };
    InfluxDb::new(config).unwrap()
}

/// Every part of every window is there once, also when it comes twice, with odd topics as they are; buckets add up.
#[tokio::test]
async fn windows_are_points() {
    let server = Server::start();
    let sink = v1(&server.url(), "isochrone");
    let odd = "odd topic,with=all \"of\" it";
    let second = recent();
    let mut story = Story::new(&sink, "r1", 7);
    let first = [
        story.cut(second, &[("a", &[500_000, 5_000_000]), (odd, &[-1_000])]),
        story.cut(second, &[("a", &[50_000_000]), ("c", &[1]), ("d", &[2])]),
    ];
    let deliveries = sink.deliver(&first).await.unwrap();
    assert_eq!(deliveries, first.each_ref().map(|cut| cut.delivered()));
    sink.deliver(&first).await.unwrap();
    let number = |query: &str| server.number(query);
    let of_kind = |kind: &str| {
        number(&format!(
            "SELECT sum(received) FROM isochrone_window WHERE kind = '{kind}'"
        ))
    };
    assert_eq!((of_kind("due"), of_kind("receipt")), (Some(6.0), Some(6.0)));
    assert_eq!(
        number("SELECT sum(response_count) FROM isochrone_window WHERE topic = 'a'"),
        Some(3.0)
    );
    assert_eq!(
        number("SELECT sum(\"response_le_0.01\") FROM isochrone_window WHERE topic = 'a'"),
        Some(2.0)
    );
    assert_eq!(
        number(&format!(
            "SELECT sum(received) FROM isochrone_window WHERE topic = '{odd}' AND kind = 'due'"
        )),
        Some(1.0)
    );
    assert_eq!(
        number("SELECT sum(received) FROM isochrone_window WHERE topic = 'other' AND kind = 'due'"),
        Some(2.0)
    );
    let p50 =
        number("SELECT transit_p50 FROM isochrone_window WHERE topic = 'a' AND kind = 'receipt' ORDER BY time DESC");
    assert_eq!(p50, Some(0.05));
}

/// The same lines at InfluxDB 2's address.
#[tokio::test]
async fn version_2_is_written() {
    let server = VictoriaMetrics::start();
    let sink = v2(&server.url());
    let mut story = Story::new(&sink, "r1", 7);
    let second = recent();
    story.deliver(second, &[("a", &[500_000, 5_000_000])]).await.unwrap();
    let query = r#"sum(sum_over_time(isochrone_window_received{topic="a", kind="due", run="r1"}[1h]))"#;
    wait::until("the points", SOON, || server.query(query) == Some(2.0));
    let p50 = r#"sum(sum_over_time(isochrone_window_response_p50{topic="a"}[1h]))"#;
    assert_eq!(server.query(p50), Some(0.000_5));
}

/// Points that InfluxDB refuses (here of every topic: another writer made `verdict` a number) are a refusal of the cut.
#[tokio::test]
async fn a_conflict_is_a_refusal() {
    let server = Server::start();
    server.write("isochrone_window,topic=x verdict=1");
    let sink = v1(&server.url(), "isochrone");
    let mut story = Story::new(&sink, "r1", 7);
    let error = story
        .deliver(recent(), &[("a", &[1, 2]), ("b", &[3])])
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Poison { .. }), "{error}");
    assert!(error.to_string().contains("field type conflict"), "{error}");
}

/// When only some topics of a cut are refused, only they are set aside.
#[tokio::test]
async fn a_refused_topic_is_set_aside() {
    let conflict = || {
        (
            "400 Bad Request\r\n",
            b"{\"error\":\"partial write: dropped=1\"}".to_vec(),
        )
    };
    let server = Scripted::start(vec![conflict(), ("204 No Content\r\n", Vec::new()), conflict()]).await;
    let sink = v1(&server.url, "isochrone");
    let mut story = Story::new(&sink, "r1", 7);
    let deliveries = story.deliver(recent(), &[("a", &[1, 2]), ("b", &[3])]).await.unwrap();
    let counts = |topic: &str| deliveries[0].topics[&Topic::from(topic)];
    assert_eq!((counts("a").exported, counts("a").set_aside), (2, 0));
    assert_eq!((counts("b").exported, counts("b").set_aside), (0, 1));
    assert_eq!(server.requests().len(), 3);
}

/// What needs a person names its setting and is tried again; what will never be taken is refused; no secret is told.
#[tokio::test]
async fn answers_have_fates() {
    let server = Server::start();
    let missing = v1(&server.url(), "elsewhere");
    let mut story = Story::new(&missing, "r1", 1);
    let error = story.deliver(recent(), &[("a", &[1])]).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("elsewhere") && text.contains("ISOCHRONE_INFLUXDB_DATABASE"),
        "{text}"
    );

    let scripted = Scripted::start(vec![
        ("429 Too Many Requests\r\nRetry-After: 3\r\n", Vec::new()),
        ("503 Service Unavailable\r\n", b"{\"error\":\"later\"}".to_vec()),
        ("401 Unauthorized\r\n", Vec::new()),
        ("413 Payload Too Large\r\n", Vec::new()),
        (
            "302 Found\r\nLocation: https://me:s3cret@elsewhere.example/api/v2/write\r\n",
            Vec::new(),
        ),
    ])
    .await;
    let sink = v2(&scripted.url);
    let mut story = Story::new(&sink, "r1", 1);
    let cut = [story.cut(recent(), &[("a", &[1, 2])])];
    let mut errors = Vec::new();
    for _ in 0..5 {
        errors.push(sink.deliver(&cut).await.unwrap_err());
    }
    assert!(matches!(errors[0], Error::Busy { after: Some(after), .. } if after == Duration::from_secs(3)));
    assert!(matches!(errors[1], Error::Busy { after: None, .. }));
    let text = errors[2].to_string();
    assert!(
        matches!(errors[2], Error::Denied { .. }) && text.ends_with("(see ISOCHRONE_INFLUXDB_TOKEN)"),
        "{text}"
    );
    assert!(matches!(errors[3], Error::Poison { .. }));
    let moved = errors[4].to_string();
    assert!(
        matches!(errors[4], Error::Denied { .. })
            && moved.ends_with("302 Found to https://elsewhere.example/api/v2/write (see ISOCHRONE_INFLUXDB_URL)"),
        "{moved}"
    );
    let all: String = errors.iter().map(Error::to_string).collect();
    assert!(!all.contains("s3cret"), "{all}");
    let heads: Vec<_> = scripted.requests().into_iter().map(|(head, _)| head).collect();
    assert!(
        heads[0].contains("authorization: token s3cret")
            && heads[0].starts_with("post /api/v2/write?bucket=isochrone&org=o "),
        "{heads:?}"
    );

    let nowhere = v1(&format!("http://127.0.0.1:{}", free_port()), "isochrone");
    let mut story = Story::new(&nowhere, "r1", 1);
    let error = story.deliver(recent(), &[("a", &[1])]).await.unwrap_err();
    assert!(
        matches!(error, Error::Away { .. }) && error.to_string().contains("ISOCHRONE_INFLUXDB_URL"),
        "{error}"
    );
}
