//! What single settings cannot know: whether they go together.

use std::{fs, path::Path};

use isochrone_model::{
    payload::{Payload, StampPlace},
    rate::Rate,
    schedule::ScheduleKind,
    template::Template,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use url::Url;

use super::{
    load::Problem,
    table::{Common, ConsumerSettings, PlotterSettings, ProducerSettings},
    types::ClaimUnit,
};

/// Messages in flight, unless set.
const IN_FLIGHT: usize = 1_000;
/// The same where the broker takes few and cannot say so: mosquitto's `max_inflight_messages`.
const IN_FLIGHT_UNANNOUNCED: usize = 20;

/// Leases that a run's keys outlive their last renewal by, at the least: a takeover takes one and a tenth, and the store may be
/// away in between.
const KEEP_LEASES: u32 = 4;

/// Collects findings; one about a variable that already has a problem is left out, for its value is not the user's.
pub struct Findings<'a> {
    problems: &'a mut Vec<Problem>,
    known: usize,
}

impl<'a> Findings<'a> {
    pub(super) fn new(problems: &'a mut Vec<Problem>) -> Findings<'a> {
        let known = problems.len();
        Findings { problems, known }
    }

    /// `variables`: all that the finding is about, the one to change first.
    fn add(&mut self, variables: &[&str], line: String) {
        let known = &self.problems[..self.known];
        if variables
            .iter()
            .all(|variable| known.iter().all(|problem| problem.variable != *variable))
        {
            self.problems.push(Problem::new(variables.first().unwrap_or(&""), line));
        }
    }
}

pub fn common(common: &Common, findings: &mut Findings<'_>) {
    if let Some(path) = &common.redis_tls_ca {
        authorities("ISOCHRONE_REDIS_TLS_CA", path, findings);
        if !common.redis_url.iter().any(|url| url.starts_with("rediss:")) {
            findings.add(
                &["ISOCHRONE_REDIS_TLS_CA", "ISOCHRONE_REDIS_URL"],
                "ISOCHRONE_REDIS_TLS_CA is set: ISOCHRONE_REDIS_URL must begin with rediss://".to_owned(),
            );
        }
    }
    if common.redis_url.iter().any(|url| url.starts_with("memory:")) && common.redis_url.len() > 1 {
        findings.add(
            &["ISOCHRONE_REDIS_URL"],
            "ISOCHRONE_REDIS_URL has several addresses: memory: must stand alone".to_owned(),
        );
    }
    let (keep, lease) = (common.keep, common.lease);
    if keep < lease * KEEP_LEASES {
        findings.add(
            &["ISOCHRONE_KEEP", "ISOCHRONE_LEASE"],
            format!(
                "ISOCHRONE_KEEP is {keep:?}: must be at least {KEEP_LEASES} times ISOCHRONE_LEASE, {:?} with ISOCHRONE_LEASE={lease:?}",
                lease * KEEP_LEASES
            ),
        );
    }
}

pub fn producer(settings: &ProducerSettings, _common: &Common, findings: &mut Findings<'_>) {
    certificate(settings.tls_cert.is_some(), settings.tls_key.is_some(), findings);
    if let Some(path) = &settings.tls_ca {
        authorities("ISOCHRONE_TLS_CA", path, findings);
    }
    let in_url = || Url::parse(&settings.broker).is_ok_and(|url| !url.username().is_empty());
    if settings.password.is_some() && settings.username.is_none() && settings.mqtt_version == "3.1.1" && !in_url() {
        findings.add(
            &["ISOCHRONE_USERNAME", "ISOCHRONE_PASSWORD"],
            "ISOCHRONE_USERNAME is not set: must be set beside ISOCHRONE_PASSWORD with MQTT 3.1.1".to_owned(),
        );
    }
    if settings.stamp == StampPlace::Property && settings.mqtt_version == "3.1.1" && settings.broker.starts_with("mqtt")
    {
        findings.add(
            &["ISOCHRONE_STAMP", "ISOCHRONE_MQTT_VERSION"],
            "ISOCHRONE_STAMP is \"property\": must be text or bytes with ISOCHRONE_MQTT_VERSION=3.1.1, which has no properties"
                .to_owned(),
        );
    }
    if settings.rate == Rate::Max && settings.schedule != ScheduleKind::Constant {
        findings.add(
            &["ISOCHRONE_SCHEDULE", "ISOCHRONE_RATE"],
            format!(
                "ISOCHRONE_SCHEDULE is \"{}\": must be constant with ISOCHRONE_RATE=max, which knows no times to send at",
                settings.schedule
            ),
        );
    }
    of_each_device(settings, findings);
    if let Some(duration) = settings.duration
        && settings.ramp + settings.warmup >= duration
    {
        findings.add(
            &["ISOCHRONE_DURATION", "ISOCHRONE_RAMP", "ISOCHRONE_WARMUP"],
            format!(
                "ISOCHRONE_DURATION is {duration:?}: must be longer than ISOCHRONE_RAMP and ISOCHRONE_WARMUP together"
            ),
        );
    }
    payload(settings, findings);
}

/// What tells several devices of a producer apart: the broker throws out one client for another of the same id.
fn of_each_device(settings: &ProducerSettings, findings: &mut Findings<'_>) {
    if settings.devices < 2 || !settings.broker.starts_with("mqtt") {
        return;
    }
    let (id, name) = (&settings.client_id, &settings.device_name);
    if !id.uses("device") && !id.uses("n") {
        findings.add(
            &["ISOCHRONE_CLIENT_ID", "ISOCHRONE_DEVICES"],
            format!(
                "ISOCHRONE_CLIENT_ID is \"{id}\": must name {{{{device}}}} or {{{{n}}}} with ISOCHRONE_DEVICES={}, each needs an id of its own",
                settings.devices
            ),
        );
    }
    if !name.uses("n") {
        findings.add(
            &["ISOCHRONE_DEVICE_NAME", "ISOCHRONE_DEVICES"],
            format!(
                "ISOCHRONE_DEVICE_NAME is \"{name}\": must name {{{{n}}}} with ISOCHRONE_DEVICES={}, each needs a name of its own",
                settings.devices
            ),
        );
    }
}

/// The template must compile, and every size must hold the stamp.
fn payload(settings: &ProducerSettings, findings: &mut Findings<'_>) {
    let in_place = || "cannot be used: must be a payload template".to_owned();
    let (variable, what, template) = match (&settings.payload, &settings.payload_file) {
        (Some(_), Some(_)) => {
            findings.add(
                &["ISOCHRONE_PAYLOAD", "ISOCHRONE_PAYLOAD_FILE"],
                "ISOCHRONE_PAYLOAD and ISOCHRONE_PAYLOAD_FILE are both set: must be one of them".to_owned(),
            );
            return;
        }
        (Some(text), None) => ("ISOCHRONE_PAYLOAD", in_place(), text.clone().into_bytes()),
        (None, Some(path)) => match fs::read(path) {
            Ok(bytes) => (
                "ISOCHRONE_PAYLOAD_FILE",
                format!(
                    "is {:?}: must be a file with a payload template",
                    path.display().to_string()
                ),
                bytes,
            ),
            Err(error) => {
                unreadable("ISOCHRONE_PAYLOAD_FILE", path, &error, findings);
                return;
            }
        },
        (None, None) => ("ISOCHRONE_PAYLOAD", in_place(), settings.default_template().to_vec()),
    };
    let Err(error) = Payload::compile(&template, settings.stamp, settings.payload_size) else {
        return;
    };
    // Without a size it is the template's fault, with one that alone fails it is the size's.
    match Payload::compile(&template, settings.stamp, None) {
        Ok(_) => findings.add(
            &["ISOCHRONE_PAYLOAD_SIZE", variable],
            format!("ISOCHRONE_PAYLOAD_SIZE does not fit: must be a size that holds stamp and template ({error})"),
        ),
        Err(error) => findings.add(&[variable], format!("{variable} {what} ({error})")),
    }
}

impl ProducerSettings {
    /// The template used when neither ISOCHRONE_PAYLOAD nor ISOCHRONE_PAYLOAD_FILE is set.
    pub fn default_template(&self) -> &'static [u8] {
        Payload::default_template(self.stamp)
    }

    /// Messages of a device that may await acknowledgement.
    pub fn in_flight(&self) -> usize {
        let unannounced = self.qos == 2 && self.mqtt_version == "3.1.1";
        self.in_flight
            .unwrap_or(if unannounced { IN_FLIGHT_UNANNOUNCED } else { IN_FLIGHT })
    }
}

pub fn consumer(settings: &ConsumerSettings, common: &Common, findings: &mut Findings<'_>) {
    certificate(settings.tls_cert.is_some(), settings.tls_key.is_some(), findings);
    client_id(settings, common, findings);
    if let Some(path) = &settings.tls_ca {
        authorities("ISOCHRONE_TLS_CA", path, findings);
    }
}

/// One client id of two connections: the broker would throw out one for the other, for ever.
fn client_id(settings: &ConsumerSettings, common: &Common, findings: &mut Findings<'_>) {
    const ID: &str = "ISOCHRONE_CONSUMER_CLIENT_ID";
    let one_claim = common.claim_unit == ClaimUnit::Topic && settings.claims == Some(1);
    let tells_apart = |id: &Template| id.uses("topic") || id.uses("device");
    if let Some(id) = settings
        .consumer_client_id
        .as_ref()
        .filter(|id| !one_claim && !tells_apart(id))
    {
        findings.add(
            &[ID, "ISOCHRONE_CLAIMS", "ISOCHRONE_CLAIM_UNIT"],
            format!("{ID} is \"{id}\": must name {{{{topic}}}} or {{{{device}}}} unless ISOCHRONE_CLAIMS=1 in claim unit topic"),
        );
    }
}

pub fn plotter(settings: &PlotterSettings, _common: &Common, findings: &mut Findings<'_>) {
    elasticsearch(settings, findings);
    otlp(settings, findings);
    influxdb(settings, findings);
}

fn elasticsearch(settings: &PlotterSettings, findings: &mut Findings<'_>) {
    const USERNAME: &str = "ISOCHRONE_ELASTICSEARCH_USERNAME";
    const PASSWORD: &str = "ISOCHRONE_ELASTICSEARCH_PASSWORD";
    const API_KEY: &str = "ISOCHRONE_ELASTICSEARCH_API_KEY";
    const CA: &str = "ISOCHRONE_ELASTICSEARCH_CA";
    match (&settings.elasticsearch_username, &settings.elasticsearch_password) {
        (Some(_), None) => findings.add(&[PASSWORD, USERNAME], needed(USERNAME, PASSWORD)),
        (None, Some(_)) => findings.add(&[USERNAME, PASSWORD], needed(PASSWORD, USERNAME)),
        _ => {}
    }
    if settings.elasticsearch_api_key.is_some() && settings.elasticsearch_username.is_some() {
        findings.add(
            &[API_KEY, USERNAME],
            format!("{API_KEY} and {USERNAME} are both set: must be one of them"),
        );
    }
    let others = [
        (USERNAME, settings.elasticsearch_username.is_some()),
        (API_KEY, settings.elasticsearch_api_key.is_some()),
        (
            "ISOCHRONE_ELASTICSEARCH_RETENTION",
            settings.elasticsearch_retention.is_some(),
        ),
    ];
    let place = Place {
        address: ("ISOCHRONE_ELASTICSEARCH_URL", settings.elasticsearch_url.as_deref()),
        ca: (CA, settings.elasticsearch_ca.as_deref()),
        others: &others,
    };
    place.check(findings);
}

fn otlp(settings: &PlotterSettings, findings: &mut Findings<'_>) {
    let place = Place {
        address: ("ISOCHRONE_OTLP_ENDPOINT", settings.otlp_endpoint.as_deref()),
        ca: ("ISOCHRONE_OTLP_CA", settings.otlp_ca.as_deref()),
        others: &[("ISOCHRONE_OTLP_HEADERS", settings.otlp_headers.is_some())],
    };
    place.check(findings);
}

fn influxdb(settings: &PlotterSettings, findings: &mut Findings<'_>) {
    const BUCKET: &str = "ISOCHRONE_INFLUXDB_BUCKET";
    const USERNAME: &str = "ISOCHRONE_INFLUXDB_USERNAME";
    const PASSWORD: &str = "ISOCHRONE_INFLUXDB_PASSWORD";
    let v2 = settings.influxdb_bucket.is_some();
    let of_v2 = [
        ("ISOCHRONE_INFLUXDB_TOKEN", settings.influxdb_token.is_some()),
        ("ISOCHRONE_INFLUXDB_ORG", settings.influxdb_org.is_some()),
    ];
    let of_v1 = [
        (USERNAME, settings.influxdb_username.is_some()),
        (PASSWORD, settings.influxdb_password.is_some()),
    ];
    for (variable, is_set) in of_v2 {
        if is_set && !v2 {
            findings.add(
                &[BUCKET, variable],
                format!("{BUCKET} is not set: must be a name when {variable} is set (InfluxDB 2)"),
            );
        }
    }
    for (variable, is_set) in of_v1 {
        if is_set && v2 {
            findings.add(
                &[variable, BUCKET],
                format!("{variable} is set: must not be beside {BUCKET}, which means InfluxDB 2"),
            );
        }
    }
    let lone = match (
        settings.influxdb_username.is_some(),
        settings.influxdb_password.is_some(),
    ) {
        (false, true) => Some((USERNAME, PASSWORD)),
        (true, false) => Some((PASSWORD, USERNAME)),
        _ => None,
    };
    if let Some((missing, present)) = lone {
        findings.add(
            &[missing, present],
            format!("{missing} is not set: must be set beside {present}"),
        );
    }
    let place = Place {
        address: ("ISOCHRONE_INFLUXDB_URL", settings.influxdb_url.as_deref()),
        ca: ("ISOCHRONE_INFLUXDB_CA", settings.influxdb_ca.as_deref()),
        others: &[&[(BUCKET, v2)][..], &of_v2, &of_v1].concat(),
    };
    place.check(findings);
}

/// What is known of a back end by the names of its settings: nothing of it is any use without its address.
struct Place<'a> {
    address: (&'static str, Option<&'a str>),
    ca: (&'static str, Option<&'a Path>),
    /// Whether they are set.
    others: &'a [(&'static str, bool)],
}

impl Place<'_> {
    fn check(&self, findings: &mut Findings<'_>) {
        let (address, url) = self.address;
        let (ca, path) = self.ca;
        if let Some(path) = path {
            authorities(ca, path, findings);
        }
        let Some(url) = url else {
            for (present, _) in self.others.iter().chain([&(ca, path.is_some())]).filter(|one| one.1) {
                findings.add(&[address, present], needed(present, address));
            }
            return;
        };
        if path.is_some() && !url.starts_with("https:") {
            findings.add(
                &[ca, address],
                format!("{ca} is set: {address} must begin with https://"),
            );
        }
    }
}

fn needed(present: &str, lacking: &str) -> String {
    format!("{lacking} is not set: must be set when {present} is set")
}

fn certificate(cert: bool, key: bool, findings: &mut Findings<'_>) {
    let (missing, present) = match (cert, key) {
        (true, false) => ("ISOCHRONE_TLS_KEY", "ISOCHRONE_TLS_CERT"),
        (false, true) => ("ISOCHRONE_TLS_CERT", "ISOCHRONE_TLS_KEY"),
        _ => return,
    };
    findings.add(
        &[missing, present],
        format!("{missing} is not set: must be a path when {present} is set"),
    );
}

/// A file of certificates to trust, read as those read it who will use it.
fn authorities(variable: &str, path: &Path, findings: &mut Findings<'_>) {
    let pem = match fs::read(path) {
        Ok(pem) => pem,
        Err(error) => return unreadable(variable, path, &error, findings),
    };
    let mut roots = RootCertStore::empty();
    let cause = CertificateDer::pem_slice_iter(&pem)
        .find_map(|certificate| match certificate {
            Ok(certificate) => roots.add(certificate).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        })
        .or_else(|| roots.is_empty().then(|| "there is none in it".to_owned()));
    if let Some(cause) = cause {
        let path = path.display().to_string();
        findings.add(
            &[variable],
            format!("{variable} is {path:?}: must be a PEM file with certificates ({cause})"),
        );
    }
}

fn unreadable(variable: &str, path: &Path, error: &std::io::Error, findings: &mut Findings<'_>) {
    let path = path.display().to_string();
    findings.add(
        &[variable],
        format!("{variable} is {path:?}: must be a file that can be read ({error})"),
    );
}
