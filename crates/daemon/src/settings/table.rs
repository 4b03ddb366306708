//! The settings themselves. One entry each: help, name, type, default, and where its type says too little, how it is
//! read and what is valid.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::LazyLock, time::Duration};

use isochrone_model::{
    id::{Domain, RunName},
    payload::{SizeSpec, StampPlace},
    rate::Rate,
    schedule::ScheduleKind,
    slo::Objective,
    template::Template,
    thinning::Thinning,
};
use isochrone_store::types::Role;

use super::{
    Declaration,
    load::Reader,
    rules::{
        broker_url, buckets, byte_size, claim_template, device_name, device_template, header_list, header_secret,
        http_url, log_filter, mqtt_version, name_list, not_empty, positive, positive_time, reconnect,
        response_template, secret_of_claim, secret_of_device, some, topic_template, unlimited, urls, whole_days,
        whole_seconds, whole_seconds_long, within,
    },
    types::{Ack, AtEnd, ClaimUnit, LogFormat, OtlpProtocol, Secret, Temporality, WaitForConsumer},
    value::Value,
};

/// Makes the structs, how they are read, their `Debug` (which shows no secret), and the list of declarations.
macro_rules! settings {
    (
        common { $($common:tt)* }
        connection { $($connection:tt)* }
        producer { $($producer:tt)* }
        consumer { $($consumer:tt)* }
        plotter { $($plotter:tt)* }
    ) => {
        settings!(@struct "What every daemon reads.", Common { $($common)* });
        settings!(@struct "What a producer reads.", ProducerSettings { $($producer)* $($connection)* });
        settings!(@struct "What a consumer reads.", ConsumerSettings { $($consumer)* $($connection)* });
        settings!(@struct "What a plotter reads.", PlotterSettings { $($plotter)* });

        fn declare() -> Vec<Declaration> {
            [
                settings!(@declare (&[Role::Producer, Role::Consumer, Role::Plotter]) { $($common)* }),
                settings!(@declare (&[Role::Producer]) { $($producer)* }),
                settings!(@declare (&[Role::Producer, Role::Consumer]) { $($connection)* }),
                settings!(@declare (&[Role::Consumer]) { $($consumer)* }),
                settings!(@declare (&[Role::Plotter]) { $($plotter)* }),
            ]
            .concat()
        }
    };
    (@struct $doc:literal, $struct:ident {
        $(
            $(#[doc = $help:literal])+
            $name:ident: $type:ty $(= $default:literal)? $(, parse $parse:expr)? $(, valid $valid:literal)?;
        )*
    }) => {
        #[doc = $doc]
        #[derive(Clone)]
        pub struct $struct {
            $($(#[doc = $help])+ pub $name: $type,)*
        }

        impl $struct {
            /// Reads every field, so that every problem is found; `None` only when a default itself is not valid.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<$struct> {
                $(let $name: Option<$type> = reader.read(stringify!($name), settings!(@parse $type $(, $parse)?));)*
                Some($struct { $($name: $name?,)* })
            }
        }

        impl fmt::Debug for $struct {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($struct))
                    $(.field(stringify!($name), &format_args!("{}", Value::show(&self.$name))))*
                    .finish()
            }
        }
    };
    (@declare $readers:tt {
        $(
            $(#[doc = $help:literal])+
            $name:ident: $type:ty $(= $default:literal)? $(, parse $parse:expr)? $(, valid $valid:literal)?;
        )*
    }) => {
        vec![$(Declaration {
            field: stringify!($name),
            default: settings!(@default $($default)?),
            help: [$($help),+].map(str::trim).join(" "),
            valid: settings!(@valid $type $(, $valid)?),
            readers: $readers,
            secret: <$type as Value>::SECRET,
            // A path's own file is no use, and ISOCHRONE_PAYLOAD_FILE is a setting itself.
            file: !<$type as Value>::PATH && stringify!($name) != "payload",
        },)*]
    };
    (@default $default:literal) => { Some($default) };
    (@default) => { None };
    (@valid $type:ty, $valid:literal) => { $valid };
    (@valid $type:ty) => { <$type as Value>::VALID };
    (@parse $type:ty, $parse:expr) => { $parse };
    (@parse $type:ty) => { <$type as Value>::parse };
}

settings! {
    common {
        /// The run to work in. Unset, a producer joins the open run or opens one named by the UTC time; consumers and
        /// plotters serve every run that is not closed.
        run: Option<RunName>;
        /// Where the runs' state lives; `rediss://` for TLS, several addresses separated by commas for a cluster.
        redis_url: Vec<String> = "redis://localhost:6379", parse urls,
            valid "one or several URLs such as redis://localhost:6379 or rediss://:password@host:6380, separated by commas";
        /// PEM file with the certificates to trust for `rediss://` instead of the system's.
        redis_tls_ca: Option<PathBuf>;
        /// Where `/healthz`, `/readyz` and `/metrics` are served. Unset: `0.0.0.0:9461` for a producer, `0.0.0.0:9462`
        /// for a consumer, `0.0.0.0:9463` for a plotter, and another port when that is taken; port 0 picks one.
        listen: Option<SocketAddr>;
        /// What is logged: a level, or a list of targets with levels such as `info,isochrone_store=debug`.
        log: String = "info", parse log_filter,
            valid "error, warn, info, debug, trace, or target=level pairs separated by commas";
        /// How log lines look.
        log_format: LogFormat = "text";
        /// How long a daemon keeps what it holds without renewing; renewed at a third of it.
        lease: Duration = "5s", parse |text| within(text, Duration::from_secs(1)..=Duration::from_secs(3600)),
            valid "a duration from 1s to 1h";
        /// Forces the clock domain, for tests and odd hypervisors. Unset: made from boot id and time namespace.
        clock_domain: Option<Domain>;
        /// How long the work may take to finish after the first signal.
        shutdown: Duration = "30s";
        /// How long a run's keys stay in the store after their last write.
        keep: Duration = "24h", parse |text| within(text, Duration::from_secs(60)..=Duration::from_secs(10 * 365 * 86_400)),
            valid "a duration from 1m to 3650d, and at least 4 times ISOCHRONE_LEASE";
        /// How many slices a run's topics are cut into; part of the run, the same for all its daemons.
        partitions: u16 = "64", parse |text| within(text, 1..=4096), valid "a whole number from 1 to 4096";
        /// What a consumer takes at once: single response topics, or whole partitions for large fleets. The same for all
        /// daemons of a run.
        claim_unit: ClaimUnit = "topic";
        /// A second with over 1 % of its messages later than this by our own doing is not valid.
        valid_late: Duration = "1ms", parse positive_time, valid "a duration above zero such as 1ms";
        /// How long something may still be on its way: after a later message arrived, after the last word, after the end.
        drain: Duration = "5s";
    }

    connection {
        /// User name; a template of the device.
        username: Option<Template>, parse some!(device_template), valid "a text with placeholders from {{run}} {{device}} {{producer}} {{n}}";
        /// Password; a template of the device.
        password: Option<Secret>, parse some!(secret_of_device), valid "a text with placeholders from {{run}} {{device}} {{producer}} {{n}}";
        /// PEM file with the certificates to trust instead of the system's.
        tls_ca: Option<PathBuf>;
        /// PEM file with the client's certificate chain; a template of the device.
        tls_cert: Option<Template>, parse some!(device_template), valid "a path with placeholders from {{run}} {{device}} {{producer}} {{n}}";
        /// PEM file with the key of ISOCHRONE_TLS_CERT; a template of the device.
        tls_key: Option<Template>, parse some!(device_template), valid "a path with placeholders from {{run}} {{device}} {{producer}} {{n}}";
        /// The name the broker's certificate must have, instead of the URL's host; a template of the device.
        tls_server_name: Option<Template>, parse some!(device_template),
            valid "a host name with placeholders from {{run}} {{device}} {{producer}} {{n}}";
        /// Application protocols to offer in the TLS handshake.
        tls_alpn: Vec<String> = "", parse name_list, valid "protocol names separated by commas, such as mqtt";
        /// Do not verify the broker's certificate. Never in earnest.
        tls_insecure: bool = "false";
        /// Keep alive of connections; 0s for none.
        keep_alive: Duration = "60s", parse whole_seconds, valid "whole seconds from 0s to 65535s";
        /// How long the broker keeps a session after its connection has gone; 0s: not at all.
        session_expiry: Duration = "5m", parse whole_seconds_long, valid "whole seconds from 0s to 4294967295s";
        /// Wait before the first and longest wait before any further connection attempt.
        reconnect: (Duration, Duration) = "100ms..10s", parse reconnect,
            valid "two durations such as 100ms..10s, both above zero, the first not the longer";
        /// How often what was measured is written to the store.
        flush_interval: Duration = "250ms", parse |text| within(text, Duration::from_millis(10)..=Duration::from_secs(1)),
            valid "a duration from 10ms to 1s";
    }

    producer {
        /// Where devices connect to.
        broker: String = "mqtt://localhost:1883", parse broker_url, valid "a URL such as mqtt://localhost:1883 or mqtts://broker.example.com:8883";
        /// Client id of a device's connection; each needs one of its own.
        client_id: Template = "{{run}}-{{device}}", parse device_template,
            valid "a text with placeholders from {{run}} {{device}} {{producer}} {{n}}";
        /// MQTT version.
        mqtt_version: String = "3.1.1", parse mqtt_version, valid "3.1.1 or 5";
        /// Quality of service of every message.
        qos: u8 = "0", parse |text| within(text, 0..=2), valid "0, 1 or 2";
        /// Devices of this producer, each with a connection of its own.
        devices: u32 = "1", parse |text| within(text, 1..=1_000_000), valid "a whole number from 1 to 1000000";
        /// Name of a device; `{{producer}}` is the producer's number in the run, `{{n}}` the device's in the producer.
        device_name: Template = "{{producer}}-{{n}}", parse device_name,
            valid "a text with placeholders from {{run}} {{producer}} {{n}}";
        /// What a device publishes to.
        topic: Template = "isochrone/{{run}}/{{device}}", parse topic_template,
            valid "a topic without + and #, with placeholders from {{run}} {{device}} {{producer}} {{n}}";
        /// Where a device's messages are listened for. Unset: where it publishes to.
        response_topic: Option<Template>, parse some!(response_template),
            valid "a topic without + and #, with placeholders from {{run}} {{device}} {{producer}} {{n}} {{topic}}";
        /// Messages a second of each device; `max`: flat out within ISOCHRONE_IN_FLIGHT, with ISOCHRONE_SCHEDULE=constant alone. A
        /// burst of ISOCHRONE_SCHEDULE has a rate of its own.
        rate: Rate = "1";
        /// How messages are spread over time.
        schedule: ScheduleKind = "constant";
        /// How long the rate takes to rise from nothing; such messages are left out of latencies and verdicts.
        ramp: Duration = "0s";
        /// How long messages are left out of latencies and verdicts, after the ramp.
        warmup: Duration = "0s";
        /// Connections this producer opens a second at most.
        connect_rate: f64 = "200", parse positive, valid "a number above zero";
        /// How long each device sends.
        duration: Option<Duration>, parse |text| unlimited(text, positive_time), valid "a duration above zero such as 10m, or unlimited";
        /// How many messages each device sends.
        count: Option<u64>, parse |text| unlimited(text, |text| within(text, 1..)), valid "a whole number above zero, or unlimited";
        /// What the producer does when its devices are done: exit, or idle until a signal comes. Either way it has left the run.
        at_end: AtEnd = "exit";
        /// Messages of a device that may await acknowledgement. Unset: 1000; 20 with QoS 2 over MQTT 3.1.1, where a broker
        /// cannot say how many it takes and mosquitto, by default, closes the connection at the 21st.
        in_flight: Option<usize>, parse |text| within(text, 1..=65_535).map(Some), valid "a whole number from 1 to 65535";
        /// Messages of a device that may wait to be sent; more count as unsent.
        queue: usize = "10000", parse |text| within(text, 1..), valid "a whole number above zero";
        /// Makes payloads and random schedules repeatable. Unset: drawn at random.
        seed: Option<u64>;
        /// Where the stamp travels: as text or bytes in the payload, or in a message property.
        stamp: StampPlace = "text";
        /// The payload, with placeholders `{{stamp}} {{device}} {{run}} {{seq}} {{random …}} {{pad}}` (`random` takes `int LOW HIGH`,
        /// `float LOW HIGH [DIGITS]`, `gauss MEAN DEVIATION [DIGITS]`, `hex LENGTH`, `text LENGTH`, `bytes LENGTH`, `bool`, `uuid` or
        /// `pick A B …`); a JSON object without `{{stamp}}` gets a first field `isochrone`, or with ISOCHRONE_STAMP=bytes the stamp before it, which is no JSON then. Unset: the stamp alone, padded to ISOCHRONE_PAYLOAD_SIZE.
        payload: Option<String>;
        /// File that holds the payload, in place of ISOCHRONE_PAYLOAD.
        payload_file: Option<PathBuf>;
        /// Size of a payload, fixed or drawn from a distribution.
        payload_size: Option<SizeSpec>;
        /// Shortest time between two wake-ups of a worker: smaller is more precise and costs more CPU.
        precision: Duration = "100us", parse |text| within(text, Duration::ZERO..=Duration::from_secs(1)), valid "a duration from 0s to 1s";
        /// Whether a device waits until a consumer listens on its response topic.
        wait_for_consumer: WaitForConsumer = "true";
    }

    consumer {
        /// Response topics this consumer takes in unit `topic`; ISOCHRONE_CLAIM_UNIT=partition has no limit.
        claims: Option<usize> = "1", parse |text| unlimited(text, |text| within(text, 1..)), valid "a whole number above zero, or unlimited";
        /// Samples kept while the store is away; then the oldest are dropped and counted.
        buffer: usize = "1000000", parse |text| within(text, 1000..), valid "a whole number, 1000 or more";
        /// When a delivery is acknowledged (QoS 1 and 2): at once, or when the store has the sample.
        ack: Ack = "received";
        /// Where this consumer connects to, when that is not where the producer does.
        consumer_broker: Option<String>, parse some!(broker_url), valid "a URL such as mqtt://localhost:1883 or mqtts://broker.example.com:8883";
        /// Client id of a claim's connection. Unset: derived from run and response topic.
        consumer_client_id: Option<Template>, parse some!(claim_template),
            valid "a text with placeholders from {{run}} {{device}} {{topic}}";
        /// User name of this consumer, when it is not ISOCHRONE_USERNAME.
        consumer_username: Option<Template>, parse some!(claim_template), valid "a text with placeholders from {{run}} {{device}} {{topic}}";
        /// Password of this consumer, when it is not ISOCHRONE_PASSWORD.
        consumer_password: Option<Secret>, parse some!(secret_of_claim), valid "a text with placeholders from {{run}} {{device}} {{topic}}";
    }

    plotter {
        /// How long after its end a second is cut; later samples fall into a later cut.
        grace: Duration = "2s", parse |text| within(text, Duration::ZERO..=Duration::from_secs(3600)), valid "a duration from 0s to 1h";
        /// What slow sinks may hold back in the store before it is dropped for them.
        retain: u64 = "512MiB", parse byte_size, valid "a size above zero such as 512MiB";
        /// Objectives the run must meet: `isochrone` and `isochrone report` judge by them (exit code 4) and say what was
        /// measured. A plotter only checks their syntax.
        slo: Vec<Objective> = "";
        /// Topics with series of their own at `/metrics`, over OTLP and in InfluxDB; the rest shares the name `other`.
        prometheus_topics: usize = "200", parse |text| within(text, 0..), valid "a whole number, 0 or more";
        /// Upper bounds of the latency buckets at `/metrics` and in InfluxDB, in seconds.
        prometheus_buckets: Vec<f64> = "0.0001,0.00025,0.0005,0.001,0.0025,0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60",
            parse buckets, valid "rising numbers above zero, separated by commas";
        /// Elasticsearch to write raw samples and windows to. Unset: none.
        elasticsearch_url: Option<String>, parse some!(http_url), valid "a URL such as http://localhost:9200 or https://search.example.com, without user, password and query";
        /// User name there.
        elasticsearch_username: Option<String>;
        /// Password of ISOCHRONE_ELASTICSEARCH_USERNAME.
        elasticsearch_password: Option<Secret>;
        /// Encoded API key, in place of user name and password.
        elasticsearch_api_key: Option<Secret>, parse some!(header_secret), valid "an encoded API key: printable ASCII characters";
        /// PEM file with the certificates to trust there beside the public and the system's ones.
        elasticsearch_ca: Option<PathBuf>;
        /// Which raw samples are written there: all of them, one in so many (picked by hash, the same for every plotter),
        /// or none. Windows are always written.
        elasticsearch_samples: Thinning = "all";
        /// How long the indices there are kept, in whole days: by its lifecycle management, or by the plotter where it has
        /// none. Unset: for good.
        elasticsearch_retention: Option<Duration>, parse some!(whole_days), valid "whole days from 1d to 36500d";
        /// Where to send figures over OTLP: a base URL, to which `/v1/metrics` is added for http/protobuf. Unset: nowhere.
        otlp_endpoint: Option<String>, parse some!(http_url),
            valid "a URL such as http://localhost:4318, or http://localhost:4317 for grpc, without user and query";
        /// How it is sent.
        otlp_protocol: OtlpProtocol = "http/protobuf";
        /// Headers of every request, `name=value` separated by commas, values percent-encoded where need be.
        otlp_headers: Option<Secret>, parse some!(header_list),
            valid "name=value pairs separated by commas, values percent-encoded, Content-* and Host left to the plotter";
        /// Whether points are running totals or what each cut added.
        otlp_temporality: Temporality = "cumulative";
        /// PEM file with the certificates to trust for ISOCHRONE_OTLP_ENDPOINT instead of the system's.
        otlp_ca: Option<PathBuf>;
        /// Where to write windows as InfluxDB line protocol. With ISOCHRONE_INFLUXDB_BUCKET to `/api/v2/write`, else to `/write`
        /// of InfluxDB 1. Unset: nowhere.
        influxdb_url: Option<String>, parse some!(http_url), valid "a URL such as http://localhost:8086, without user and query";
        /// Bucket of InfluxDB 2; it must exist.
        influxdb_bucket: Option<String>, parse some!(not_empty), valid "a name";
        /// Organisation of InfluxDB 2.
        influxdb_org: Option<String>, parse some!(not_empty), valid "a name";
        /// API token of InfluxDB 2.
        influxdb_token: Option<Secret>;
        /// Database of InfluxDB 1; it must exist.
        influxdb_database: String = "isochrone", parse not_empty, valid "a name";
        /// User name at InfluxDB 1.
        influxdb_username: Option<String>, parse some!(not_empty), valid "a name";
        /// Password at InfluxDB 1.
        influxdb_password: Option<Secret>;
        /// PEM file with the certificates to trust for ISOCHRONE_INFLUXDB_URL instead of the system's.
        influxdb_ca: Option<PathBuf>;
    }
}

/// All settings, in the order they are documented in.
pub fn declarations() -> &'static [Declaration] {
    static LIST: LazyLock<Vec<Declaration>> = LazyLock::new(declare);
    &LIST
}
