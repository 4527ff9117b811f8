//! TLS settings: the system's roots and more CAs, read again when their files change.
//!
//! The cryptography provider is passed explicitly, so nothing process-wide has to be installed first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use windlass_core::mirror::{ClientCertificate, Http2, Verify};

use super::profile::Profile;
use crate::error::TransportError;

/// Where systems keep their roots; looked at only to notice a change.
const SYSTEM_ROOTS: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/certs"];

/// Most bytes of one PEM file; a bundle of all public roots has about 250 KiB.
const PEM_BYTES: u64 = 4 * 1024 * 1024;

/// Modification time and size of each file, to notice a change.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// Builds and keeps TLS settings per profile.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    ca_files: Vec<PathBuf>,
    provider: Arc<CryptoProvider>,
    built: Mutex<HashMap<Profile, (Stamp, Arc<rustls::ClientConfig>)>>,
    system: Mutex<Option<(Stamp, Arc<RootCertStore>)>>,
}

impl TlsSettings {
    pub(crate) fn new(ca_files: Vec<PathBuf>) -> TlsSettings {
        TlsSettings {
            ca_files,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            built: Mutex::default(),
            system: Mutex::default(),
        }
    }

    /// The settings for this profile. Reads files: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`TransportError::TlsFile`] names the file that cannot be used.
    pub(crate) fn get(&self, profile: &Profile) -> Result<Arc<rustls::ClientConfig>, TransportError> {
        let stamp = self.stamp(profile);
        {
            let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((seen, config)) = built.get(profile)
                && *seen == stamp
            {
                return Ok(config.clone());
            }
        }
        let config = Arc::new(self.build(profile)?);
        self.built.lock().unwrap_or_else(PoisonError::into_inner).insert(profile.clone(), (stamp, config.clone()));
        Ok(config)
    }

    fn stamp(&self, profile: &Profile) -> Stamp {
        let clients = profile.client.iter().flat_map(|c| std::iter::once(&c.certificate).chain(c.key.as_ref()));
        let files = self.ca_files.iter().chain(&profile.ca).chain(clients).map(PathBuf::as_path);
        SYSTEM_ROOTS.iter().map(Path::new).chain(files).map(stamp_of).collect()
    }

    fn build(&self, profile: &Profile) -> Result<rustls::ClientConfig, TransportError> {
        let mut roots = (*self.system_roots()).clone();
        for file in self.ca_files.iter().chain(&profile.ca) {
            add_roots(&mut roots, file)?;
        }
        let builder = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|source| TransportError::TlsFile { path: PathBuf::new(), problem: source.to_string() })?;
        let builder = if profile.verify == Verify::Skip {
            let verifier = Arc::new(unverified::AnyCertificate(self.provider.clone()));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            builder.with_root_certificates(roots)
        };
        let mut config = match profile.client.first() {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let (chain, key) = read_client(client)?;
                builder.with_client_auth_cert(chain, key).map_err(|e| bad_file(&client.certificate, e.to_string()))?
            }
        };
        config.alpn_protocols = match profile.http2 {
            Http2::Off => vec![b"http/1.1".to_vec()],
            Http2::Allowed => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Ok(config)
    }

    fn system_roots(&self) -> Arc<RootCertStore> {
        let stamp: Stamp = SYSTEM_ROOTS.iter().map(|p| stamp_of(Path::new(p))).collect();
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, roots)) = system.as_ref()
            && *seen == stamp
        {
            return roots.clone();
        }
        let mut roots = RootCertStore::empty();
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::debug!(%error, "a system root certificate cannot be read");
        }
        roots.add_parsable_certificates(loaded.certs);
        let roots = Arc::new(roots);
        *system = Some((stamp, roots.clone()));
        roots
    }
}

fn stamp_of(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn bad_file(path: &Path, problem: impl Into<String>) -> TransportError {
    TransportError::TlsFile { path: path.to_owned(), problem: problem.into() }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, TransportError> {
    let meta = std::fs::metadata(path).map_err(|e| bad_file(path, e.to_string()))?;
    if meta.len() > PEM_BYTES {
        return Err(bad_file(path, "is too large for a PEM file"));
    }
    std::fs::read(path).map_err(|e| bad_file(path, e.to_string()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let pem = read_pem(path)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| bad_file(path, e.to_string()))?;
    if chain.is_empty() { Err(bad_file(path, "holds no certificate")) } else { Ok(chain) }
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), TransportError> {
    for certificate in read_chain(path)? {
        roots.add(certificate).map_err(|e| bad_file(path, e.to_string()))?;
    }
    Ok(())
}

fn read_client(
    client: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TransportError> {
    let chain = read_chain(&client.certificate)?;
    let key_path = client.key.as_ref().unwrap_or(&client.certificate);
    let pem = read_pem(key_path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| bad_file(key_path, "holds no private key"))?;
    Ok((chain, key))
}

/// `skip_verify` of `hosts.toml`: the operator waived the check for one host.
mod unverified {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    #[derive(Debug)]
    pub(super) struct AnyCertificate(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp_response: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
