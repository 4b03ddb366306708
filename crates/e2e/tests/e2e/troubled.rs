//! A run in which everything happens that dashboards are there to show.

use std::time::Duration;

use isochrone_e2e::{
    daemon::{Site, listening},
    process::Process,
    proxy::{Plan, Proxy},
    report::closed,
    servers::{Elasticsearch, sum},
    wait::{self, pause},
};
use rustix::process::Signal;
use serde_json::{Value, json};

const START: Duration = Duration::from_secs(90);
const END: Duration = Duration::from_secs(60);
/// How often all consumers stall, and for how long: well below the lease, and in a minute more seconds that are not valid than the
/// alert needs (a tenth), also on a machine that spoils none by itself.
const STALLS: usize = 16;
const STALL: Duration = Duration::from_millis(500);

/// The run's name.
pub const RUN: &str = "troubled";

/// Two sound devices at QoS 1, one whose messages go where nobody brings them back from, one whose broker does not answer;
/// consumers behind a proxy that swallows, doubles and exchanges messages.
pub struct Troubled {
    pub elasticsearch: Elasticsearch,
    pub site: Site,
    pub plotter: Process,
    pub consumers: Vec<Process>,
    pub producers: Vec<Process>,
}

impl Troubled {
    pub fn start() -> Troubled {
        let elasticsearch = Elasticsearch::start();
        let url = elasticsearch.url();
        let site = Site::start(&[
            ("ISOCHRONE_RUN", RUN),
            ("ISOCHRONE_ELASTICSEARCH_URL", &url),
            ("ISOCHRONE_LEASE", "2s"),
            ("ISOCHRONE_DRAIN", "2s"),
            ("ISOCHRONE_RATE", "50"),
            ("ISOCHRONE_AT_END", "idle"),
        ]);
        let plan = Plan {
            delete: 6,
            double: 10,
            swap: 10,
            ..Plan::default()
        };
        let proxy = format!("mqtt://127.0.0.1:{}", Proxy::start(site.mosquitto.port, plan).port);
        let plotter = site.daemon("plotter", &[]);
        // One for each topic, and one to spare.
        let consumers = site.daemons("consumer", 5, &[("ISOCHRONE_CONSUMER_BROKER", &proxy)]);
        let sound = [("ISOCHRONE_QOS", "1")];
        let silent = [
            ("ISOCHRONE_RESPONSE_TOPIC", "nowhere/{{device}}"),
            ("ISOCHRONE_DURATION", "15s"),
        ];
        let refused = [("ISOCHRONE_BROKER", "mqtt://127.0.0.1:1")];
        let mut producers = site.daemons("producer", 2, &sound);
        producers.extend([site.daemon("producer", &silent), site.daemon("producer", &refused)]);
        Troubled {
            elasticsearch,
            site,
            plotter,
            consumers,
            producers,
        }
    }

    /// Ports of the daemons' pages by role.
    pub fn ports(&self) -> Vec<(&'static str, Vec<u16>)> {
        let of = |daemons: &[Process]| daemons.iter().map(|daemon| listening(daemon, START)).collect();
        vec![
            ("plotter", of(std::slice::from_ref(&self.plotter))),
            ("consumer", of(&self.consumers)),
            ("producer", of(&self.producers)),
        ]
    }

    /// Lets it all happen: a consumer dies and its topic is taken over, the others stall, Redis does not answer for a while,
    /// messages are lost.
    pub fn happen(&mut self) {
        let plotter = listening(&self.plotter, START);
        wait::until("messages to arrive", START, || {
            sum(plotter, "isochrone_received_total") > 300.0
        });
        let page = |consumer: &Process| listening(consumer, START);
        // Not the one that listens for the silent device: of what a dead consumer may have had, nobody says that it was lost.
        let of_another = |consumer: &Process| {
            consumer
                .stderr()
                .contains("claimed a topic run=troubled topic=isochrone/")
        };
        let holding = self.consumers.iter().position(of_another);
        self.consumers
            .swap_remove(holding.expect("a consumer with such a topic"))
            .kill();
        wait::until("the topic to be taken over", START, || {
            self.consumers
                .iter()
                .any(|consumer| sum(page(consumer), "isochrone_consumer_takeovers_total") > 0.0)
        });
        for _ in 0..STALLS {
            for consumer in &self.consumers {
                consumer.signal(Signal::STOP);
            }
            pause(STALL);
            for consumer in &self.consumers {
                consumer.signal(Signal::CONT);
            }
            pause(STALL);
        }
        self.site.redis.process().signal(Signal::STOP);
        pause(Duration::from_secs(3));
        self.site.redis.process().signal(Signal::CONT);
        wait::until("losses to be told", START, || {
            sum(plotter, "isochrone_lost_total") > 100.0
        });
    }

    /// No clock runs backwards here, so the message that came before it was sent is written by hand, beside a real one.
    pub fn write_backwards(&self) {
        let found = wait::until_some("a sample", START, || {
            let answer = self.elasticsearch.ask("GET", "/isochrone-samples-*/_search?size=1", "");
            answer.pointer("/hits/hits/0").cloned()
        });
        let mut sample = found["_source"].clone();
        sample["transit_ns"] = json!(-1);
        let path = format!("/{}/_doc?refresh=true", found["_index"].as_str().unwrap_or_default());
        self.elasticsearch.ask("POST", &path, &sample.to_string());
    }

    /// Ends the run and gives its report.
    pub fn end(&mut self) -> Value {
        for producer in &mut self.producers {
            producer.stop(END);
        }
        closed(&self.site, Some(RUN)).0
    }
}
