//! Broker URLs: `mqtt://[user[:password]@]host[:1883]` and `mqtts://…[:8883]`.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

use crate::{Error, open::without_user_info};

/// Where a broker is. User info of the URL is kept apart: nothing here but `username` and `password` is secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// The URL without user info, with the port.
    pub shown: String,
    /// Host name or IP address, without brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub username: Option<String>,
    pub password: Option<String>,
}

impl Address {
    /// Parses a broker URL. Errors never show user info.
    pub fn parse(text: &str) -> Result<Address, Error> {
        let refuse = |cause: &str| Error::Url {
            setting: "ISOCHRONE_BROKER",
            url: without_user_info(text),
            cause: cause.to_owned(),
        };
        let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
        let tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(refuse("the scheme is neither mqtt: nor mqtts:")),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("nothing may follow host and port"));
        }
        let (host, in_url) = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => (decode(name).to_ascii_lowercase(), None),
            Some(Host::Ipv4(ip)) => (ip.to_string(), None),
            Some(Host::Ipv6(ip)) => (ip.to_string(), Some(format!("[{ip}]"))),
            _ => return Err(refuse("the host is missing, for example mqtt://localhost:1883")),
        };
        let port = url.port().unwrap_or(if tls { 8883 } else { 1883 });
        if port == 0 {
            return Err(refuse("port 0 cannot be connected to"));
        }
        let shown = format!("{}://{}:{port}", url.scheme(), in_url.as_deref().unwrap_or(&host));
        let username = (!url.username().is_empty()).then(|| decode(url.username()));
        let password = url.password().map(decode);
        Ok(Address {
            shown,
            host,
            port,
            tls,
            username,
            password,
        })
    }

    /// The socket address when the host is an IP address: no name service is needed then.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host
            .parse::<IpAddr>()
            .ok()
            .map(|ip| SocketAddr::new(ip, self.port))
    }
}

/// Percent-decodes; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let plain = Address::parse("mqtt://localhost").unwrap();
        assert_eq!(
            (plain.shown.as_str(), plain.port, plain.tls),
            ("mqtt://localhost:1883", 1883, false)
        );
        let full = Address::parse("mqtts://us%40er:p%3Aw@Broker.example:9000/").unwrap();
        assert_eq!(
            (full.host.as_str(), full.port, full.tls),
            ("broker.example", 9000, true)
        );
        assert_eq!(
            (full.username.as_deref(), full.password.as_deref()),
            (Some("us@er"), Some("p:w"))
        );
        assert_eq!(full.shown, "mqtts://broker.example:9000");
        let six = Address::parse("mqtts://[::1]").unwrap();
        assert_eq!(
            (six.shown.as_str(), six.literal().unwrap().port()),
            ("mqtts://[::1]:8883", 8883)
        );
    }

    #[test]
    fn errors_show_no_user_info() {
        for bad in [
            "mqtt://user:secret@",
            "mqtt://user:secret@host/path",
            "http://user:secret@host",
            "user:secret@host",
        ] {
            let Err(error) = Address::parse(bad) else {
                panic!("{bad} was taken")
            };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
