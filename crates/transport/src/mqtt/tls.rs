//! TLS configurations, made once for each set of files.

use std::{
    collections::HashMap,
    fmt::Display,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{Error, TlsConfig};

/// The configurations of one transport: roots by CA file, the rest by all settings.
pub(super) struct TlsCache {
    provider: Arc<CryptoProvider>,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    roots: HashMap<Option<PathBuf>, Arc<RootCertStore>>,
    configs: HashMap<TlsConfig, Arc<ClientConfig>>,
    warned: bool,
}

/// Accepts every certificate (ISOCHRONE_TLS_INSECURE).
#[derive(Debug)]
struct VerifiesNothing(Arc<CryptoProvider>);

impl TlsCache {
    pub fn new() -> TlsCache {
        TlsCache {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            made: Mutex::default(),
        }
    }

    /// Reads the files of `tls` unless it has been asked for before.
    pub fn config(&self, tls: &TlsConfig) -> Result<Arc<ClientConfig>, Error> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.configs.get(tls) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.make(tls, &mut made)?);
        made.configs.insert(tls.clone(), config.clone());
        Ok(config)
    }

    fn make(&self, tls: &TlsConfig, made: &mut Made) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse("ISOCHRONE_TLS_CA", Path::new(""), error))?;
        let builder = if tls.insecure {
            if !std::mem::replace(&mut made.warned, true) {
                tracing::warn!("ISOCHRONE_TLS_INSECURE is set: the broker's certificate is NOT verified");
            }
            let verifier = Arc::new(VerifiesNothing(self.provider.clone()));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            let roots = match made.roots.get(&tls.ca) {
                Some(roots) => roots.clone(),
                None => {
                    let roots = Arc::new(load_roots(tls.ca.as_deref())?);
                    made.roots.insert(tls.ca.clone(), roots.clone());
                    roots
                }
            };
            builder.with_root_certificates(roots)
        };
        let mut config = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates("ISOCHRONE_TLS_CERT", cert)?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|e| refuse("ISOCHRONE_TLS_KEY", key, e))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|e| refuse("ISOCHRONE_TLS_KEY", key, e))?
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), None) => return Err(refuse("ISOCHRONE_TLS_CERT", cert, "ISOCHRONE_TLS_KEY is missing")),
            (None, Some(key)) => return Err(refuse("ISOCHRONE_TLS_KEY", key, "ISOCHRONE_TLS_CERT is missing")),
        };
        config.alpn_protocols = tls.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        // Devices share a configuration but not their identity: one must not resume the other's TLS session, and the
        // handshake that is measured is to be a whole one.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The name to verify: the setting's, or the URL's host.
pub(super) fn server_name(tls: &TlsConfig, host: &str) -> Result<ServerName<'static>, Error> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| Error::Setting {
        setting: if tls.server_name.is_some() {
            "ISOCHRONE_TLS_SERVER_NAME"
        } else {
            "ISOCHRONE_BROKER"
        },
        value: name.to_owned(),
        cause: "it is neither a host name nor an IP address".to_owned(),
    })
}

fn load_roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("ISOCHRONE_TLS_CA", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| refuse("ISOCHRONE_TLS_CA", path, error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let cause = "the system has no trusted roots: name a CA file";
                return Err(refuse("ISOCHRONE_TLS_CA", Path::new("unset"), cause));
            }
        }
    }
    Ok(roots)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| refuse(setting, path, error))?;
    let found: Vec<_> = found
        .collect::<Result<_, _>>()
        .map_err(|error| refuse(setting, path, error))?;
    if found.is_empty() {
        return Err(refuse(setting, path, "it holds no PEM certificate"));
    }
    Ok(found)
}

fn refuse(setting: &'static str, path: &Path, cause: impl Display) -> Error {
    Error::Tls {
        setting,
        path: path.display().to_string(),
        cause: cause.to_string(),
    }
}

impl ServerCertVerifier for VerifiesNothing {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
