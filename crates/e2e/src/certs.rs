//! A private certificate authority for tests.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// Signs certificates and writes them as PEM files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("key");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let pem = parameters.self_signed(&key).expect("ca").pem();
        Authority {
            issuer: Issuer::new(parameters, key),
            pem,
        }
    }

    /// Writes `ca.pem`.
    pub fn write(&self, path: &Path) {
        fs::write(path, &self.pem).expect("ca file");
    }

    /// Writes `<stem>.pem` and `<stem>.key` for a server of that host name.
    pub fn server(&self, folder: &Path, stem: &str, host: &str, expired: bool) {
        let mut parameters = CertificateParams::new(vec![host.to_owned()]).expect("host name");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if expired {
            parameters.not_before = date_time_ymd(2020, 1, 1);
            parameters.not_after = date_time_ymd(2021, 1, 1);
        }
        self.sign(folder, stem, host, parameters);
    }

    /// Writes `<stem>.pem` and `<stem>.key` for a client of that common name.
    pub fn client(&self, folder: &Path, stem: &str) {
        let mut parameters = CertificateParams::default();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(folder, stem, stem, parameters);
    }

    fn sign(&self, folder: &Path, stem: &str, name: &str, mut parameters: CertificateParams) {
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("certificate");
        fs::write(folder.join(format!("{stem}.pem")), certificate.pem()).expect("certificate file");
        fs::write(folder.join(format!("{stem}.key")), key.serialize_pem()).expect("key file");
    }
}
