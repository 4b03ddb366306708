//! What went wrong, as a short fixed phrase for counting and one line that names cause and setting.

use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::{Disconnected, MqttVersion};

/// A failure that goes away by itself, or not.
pub(super) fn disconnected(reason: &'static str, detail: impl Into<String>) -> Disconnected {
    Disconnected {
        reason,
        detail: detail.into(),
        needs_setting: false,
    }
}

/// A failure that only a setting can mend.
pub(super) fn needs_setting(reason: &'static str, detail: impl Into<String>) -> Disconnected {
    Disconnected {
        reason,
        detail: detail.into(),
        needs_setting: true,
    }
}

/// The broker sent what no broker may send.
pub(super) fn protocol(what: impl std::fmt::Display) -> Disconnected {
    disconnected("protocol error", format!("the broker sent {what}"))
}

/// A connect phase took longer than its deadline.
pub(super) fn deadline(phase: Phase, shown: &str, seconds: u64) -> Disconnected {
    match phase {
        Phase::Tcp => disconnected("tcp timeout", format!("{shown}: no TCP connection within {seconds} s")),
        Phase::Tls => disconnected(
            "tls timeout",
            format!("{shown}: no TLS handshake within {seconds} s (is it a port for TLS?)"),
        ),
        Phase::Connack => disconnected(
            "connack timeout",
            format!("{shown}: no CONNACK within {seconds} s (is it a port for MQTT, and for the scheme of the URL?)"),
        ),
    }
}

/// Which part of connecting failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Tcp,
    Tls,
    Connack,
}

/// An I/O error while connecting.
pub(super) fn connecting(phase: Phase, shown: &str, server_name: &str, error: &io::Error) -> Disconnected {
    if let Some(tls) = tls_cause(error) {
        return from_tls(shown, server_name, tls);
    }
    match (phase, error.kind()) {
        (_, io::ErrorKind::ConnectionRefused) => disconnected(
            "tcp refused",
            format!("{shown}: connection refused: is the broker up, is ISOCHRONE_BROKER right?"),
        ),
        (_, io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            disconnected("no route", format!("{shown}: no route to host: check ISOCHRONE_BROKER"))
        }
        (Phase::Tcp, io::ErrorKind::TimedOut) => disconnected("tcp timeout", format!("{shown}: {error}")),
        (Phase::Tcp, _) => disconnected("tcp error", format!("{shown}: {error}")),
        (Phase::Tls, _) => disconnected(
            "tls closed",
            format!("{shown}: closed in the TLS handshake ({error}): is this port a TLS port (else use mqtt://)?"),
        ),
        (Phase::Connack, _) => {
            let other = if shown.starts_with("mqtts") { "mqtt" } else { "mqtts" };
            let detail = format!(
                "{shown}: closed before CONNACK ({error}): is ISOCHRONE_BROKER right (or is this a port for {other}://)?"
            );
            disconnected("closed before connack", detail)
        }
    }
}

/// The host name could not be looked up.
pub(super) fn lookup(shown: &str, error: &io::Error) -> Disconnected {
    disconnected(
        "dns",
        format!("{shown}: host not found ({error}): check ISOCHRONE_BROKER"),
    )
}

/// MQTT 3.1.1 gives no reason (3.1.4, 4.8); the most frequent that is not the broker's own end is said.
const CLOSED: &str = "the broker closed the connection, as it does when another client comes with the same client id";

/// A read or write error on a connection that was up; `None` for an end of file.
pub(super) fn broken(error: Option<&io::Error>) -> Disconnected {
    let Some(error) = error else {
        return disconnected("closed by peer", CLOSED);
    };
    if let Some(tls) = tls_cause(error) {
        return from_tls("the connection", "", tls);
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            disconnected("reset by peer", "the connection was reset")
        }
        io::ErrorKind::UnexpectedEof => disconnected("closed by peer", CLOSED),
        io::ErrorKind::TimedOut => disconnected("tcp timeout", "the connection timed out"),
        _ => disconnected("io error", format!("the connection broke: {error}")),
    }
}

/// A CONNACK with an error code.
pub(super) fn connack(version: MqttVersion, code: u8) -> Disconnected {
    const LOGIN: &str = "check ISOCHRONE_USERNAME and ISOCHRONE_PASSWORD";
    let (reason, what, setting) = match (version, code) {
        // A broker without MQTT 5 answers with the code of 3.1.1.
        (_, 0x01) | (_, 0x84) => (
            "protocol version",
            "protocol version not supported",
            "set ISOCHRONE_MQTT_VERSION",
        ),
        (_, 0x02) | (_, 0x85) => ("bad client id", "client id rejected", "check ISOCHRONE_CLIENT_ID"),
        (_, 0x03) | (_, 0x88) => ("server unavailable", "server unavailable", ""),
        (_, 0x04) | (_, 0x86) => ("bad user name or password", "bad user name or password", LOGIN),
        (_, 0x05) | (_, 0x87) => ("not authorised", "not authorised", LOGIN),
        (_, 0x89) => ("server busy", "server busy", ""),
        (_, 0x8a) => ("banned", "banned", "check the broker's ban list"),
        (_, 0x8c) => ("bad authentication method", "bad authentication method", LOGIN),
        (_, 0x95) => ("packet too large", "packet too large", ""),
        (_, 0x97) => ("quota exceeded", "quota exceeded", ""),
        (_, 0x9c) | (_, 0x9d) => ("server moved", "use another server", "set ISOCHRONE_BROKER"),
        (_, 0x9f) => (
            "connection rate exceeded",
            "connection rate exceeded",
            "lower ISOCHRONE_CONNECT_RATE",
        ),
        _ => ("connack error", "connection refused", ""),
    };
    let code = if code < 0x80 {
        format!("CONNACK {code}")
    } else {
        format!("CONNACK 0x{code:02X}")
    };
    if setting.is_empty() {
        disconnected(reason, format!("{what} ({code})"))
    } else {
        needs_setting(reason, format!("{what} ({code}): {setting}"))
    }
}

/// A DISCONNECT from the broker (MQTT 5, 3.14.2.1).
pub(super) fn disconnect(code: u8) -> Disconnected {
    let (reason, needs) = match code {
        0x81 | 0x82 => ("protocol error", false),
        0x87 => ("not authorised", true),
        0x89 => ("server busy", false),
        0x8b => ("server shutting down", false),
        0x8d => ("keep alive", false),
        0x8e => ("session taken over", false),
        0x90 => ("topic name invalid", true),
        0x93 => ("receive maximum exceeded", false),
        0x95 => ("packet too large", true),
        0x96 => ("message rate too high", false),
        0x97 => ("quota exceeded", false),
        0x98 => ("administrative action", false),
        0x9b => ("qos not supported", true),
        0x9c | 0x9d => ("server moved", true),
        _ => ("closed by peer", false),
    };
    let hint = match code {
        0x87 => ": check ISOCHRONE_USERNAME and the broker's ACL",
        0x8e => ": another client uses the same client id, check ISOCHRONE_CLIENT_ID",
        0x90 => ": check ISOCHRONE_TOPIC",
        0x95 => ": lower ISOCHRONE_PAYLOAD_SIZE",
        0x9b => ": lower ISOCHRONE_QOS",
        0x9c | 0x9d => ": set ISOCHRONE_BROKER",
        _ => "",
    };
    Disconnected {
        reason,
        detail: format!("the broker disconnected: {reason} (0x{code:02X}){hint}"),
        needs_setting: needs,
    }
}

/// The same on a subscriber's connection, whose client id is another setting's.
pub(super) fn of_subscriber(mut disconnected: Disconnected) -> Disconnected {
    disconnected.detail = disconnected
        .detail
        .replace("ISOCHRONE_CLIENT_ID", "ISOCHRONE_CONSUMER_CLIENT_ID");
    disconnected
}

/// A subscription was refused.
pub(super) fn subscription(topic: &str, answer: &str) -> String {
    format!("subscription to {topic} refused ({answer}): check the broker's ACL for this user")
}

/// The reason of a PUBACK or PUBREC of 0x80 and above (MQTT 5, 3.4.2.1).
pub(super) fn refused(code: u8) -> &'static str {
    match code {
        0x80 => "unspecified error",
        0x83 => "implementation specific error",
        0x87 => "not authorised",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x95 => "packet too large",
        0x97 => "quota exceeded",
        0x99 => "payload format invalid",
        _ => "other",
    }
}

fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn from_tls(shown: &str, server_name: &str, error: &rustls::Error) -> Disconnected {
    let (reason, detail) = match error {
        rustls::Error::InvalidCertificate(cause) => match cause {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                "tls unknown ca",
                "certificate not trusted (unknown issuer): set ISOCHRONE_TLS_CA to the CA that signed it".to_owned(),
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                "tls expired",
                "certificate expired: renew the broker's certificate".to_owned(),
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                "tls not valid yet",
                "certificate not valid yet: check the broker's certificate and this clock".to_owned(),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                "tls wrong name",
                format!(
                    "certificate is not valid for name {server_name}: set ISOCHRONE_TLS_SERVER_NAME to a name in it"
                ),
            ),
            CertificateError::Other(inner) if inner.to_string().contains("CaUsedAsEndEntity") => (
                "tls unknown ca",
                "certificate not trusted (a CA used as the broker's certificate): set ISOCHRONE_TLS_CA".to_owned(),
            ),
            other => (
                "tls certificate",
                format!("certificate not accepted ({other:?}): check the broker's certificate"),
            ),
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure => (
                "tls client certificate",
                format!(
                    "the broker refused the client certificate ({alert:?}): check ISOCHRONE_TLS_CERT and ISOCHRONE_TLS_KEY"
                ),
            ),
            AlertDescription::NoApplicationProtocol => (
                "tls alpn",
                "the broker offers none of the protocols: check ISOCHRONE_TLS_ALPN".to_owned(),
            ),
            AlertDescription::UnrecognisedName => (
                "tls wrong name",
                format!(
                    "the broker does not know name {server_name}: set ISOCHRONE_TLS_SERVER_NAME to one that it knows"
                ),
            ),
            other => ("tls alert", format!("the broker ended TLS ({other:?})")),
        },
        rustls::Error::NoApplicationProtocol => (
            "tls alpn",
            "the broker offers none of the protocols: check ISOCHRONE_TLS_ALPN".to_owned(),
        ),
        rustls::Error::InvalidMessage(_) => {
            let detail = format!("{shown}: what answers is not TLS: is this port a TLS port (else use mqtt://)?");
            return needs_setting("tls no tls", detail);
        }
        other => return disconnected("tls error", format!("{shown}: {other}")),
    };
    needs_setting(reason, format!("{shown}: {detail}"))
}
