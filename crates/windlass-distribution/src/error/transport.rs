//! Connections that could not be made or did not last, and settings no client can be made from.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use windlass_core::reason::Reason;

/// The client cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A proxy's address is not an http or https URL. The value may hold a password and is not shown.
    #[error("the {which} proxy is not a URL of kind http or https")]
    Proxy {
        /// `http` or `https`.
        which: &'static str,
    },
    /// The `User-Agent` holds characters that no header may.
    #[error("the user agent is not a header value")]
    UserAgent,
}

impl ClientError {
    /// The word of the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            ClientError::Proxy { .. } | ClientError::UserAgent => Reason::InvalidConfig,
        }
    }
}

/// A connection could not be made or did not last.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The name has no address.
    #[error("the name does not resolve")]
    Resolve {
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// No address took the connection.
    #[error("cannot connect")]
    Connect {
        /// What the last address tried said.
        #[source]
        source: io::Error,
    },
    /// No connection in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// A registry named a host whose address must not be reached through it.
    #[error("the address {address} is off limits for a host that a registry names")]
    AddressForbidden {
        /// The address.
        address: IpAddr,
    },
    /// The proxy did not open the tunnel.
    #[error("the proxy refused")]
    Proxy {
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The handshake or the certificate failed.
    #[error("TLS failed")]
    Tls {
        /// What TLS said.
        #[source]
        source: io::Error,
    },
    /// The peer does not speak TLS.
    #[error("the host does not speak TLS")]
    NotTls {
        /// What came instead.
        #[source]
        source: io::Error,
    },
    /// The handshake did not end in time.
    #[error("no TLS handshake in time")]
    TlsTimeout,
    /// A certificate or key file cannot be used.
    #[error("{} {problem}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No response in time.
    #[error("no response in time")]
    HeaderTimeout,
    /// The body stopped coming.
    #[error("the body stopped coming")]
    IdleTimeout,
    /// The response's head is larger than allowed.
    #[error("the response has more than 64 KiB or 256 fields of headers")]
    HeadersTooLarge,
    /// The connection ended too early.
    #[error("the connection broke")]
    Closed {
        /// What HTTP said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// What came is not HTTP.
    #[error("the answer is not HTTP")]
    Protocol {
        /// What HTTP said.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The answer is longer than whoever asked takes.
    #[error("the answer has more than {limit_bytes} bytes")]
    BodyTooLarge {
        /// The most that is taken.
        limit_bytes: u64,
    },
    /// The URL is not one that can be asked.
    #[error("not an http or https URL")]
    Scheme,
}

impl TransportError {
    pub(crate) fn from_hyper(error: hyper::Error) -> TransportError {
        if error.is_parse_too_large() {
            TransportError::HeadersTooLarge
        } else if let Some(refused) = tls_alert(&error) {
            // With TLS 1.3 a server judges the client's certificate after the handshake.
            TransportError::Tls { source: io::Error::new(io::ErrorKind::InvalidData, refused) }
        } else if error.is_parse() {
            TransportError::Protocol { source: Box::new(error) }
        } else {
            TransportError::Closed { source: Box::new(error) }
        }
    }

    /// Whether the same request may succeed a moment later.
    pub fn retryable(&self) -> bool {
        match self {
            TransportError::Resolve { .. }
            | TransportError::Connect { .. }
            | TransportError::ConnectTimeout
            | TransportError::TlsTimeout
            | TransportError::HeaderTimeout
            | TransportError::IdleTimeout
            | TransportError::Closed { .. } => true,
            TransportError::Tls { source } => source.kind() != io::ErrorKind::InvalidData,
            TransportError::NotTls { source } => source.kind() != io::ErrorKind::InvalidData,
            TransportError::AddressForbidden { .. }
            | TransportError::Proxy { .. }
            | TransportError::TlsFile { .. }
            | TransportError::HeadersTooLarge
            | TransportError::BodyTooLarge { .. }
            | TransportError::Protocol { .. }
            | TransportError::Scheme => false,
        }
    }

    /// Whether the host could not be reached at all, so that the next request need not try.
    pub(crate) fn unreachable(&self) -> bool {
        match self {
            TransportError::Resolve { .. }
            | TransportError::Connect { .. }
            | TransportError::ConnectTimeout
            | TransportError::TlsTimeout
            | TransportError::HeaderTimeout
            | TransportError::Proxy { .. } => true,
            // What TLS says is to be heard each time.
            TransportError::NotTls { .. }
            | TransportError::Tls { .. }
            | TransportError::AddressForbidden { .. }
            | TransportError::TlsFile { .. }
            | TransportError::IdleTimeout
            | TransportError::HeadersTooLarge
            | TransportError::BodyTooLarge { .. }
            | TransportError::Closed { .. }
            | TransportError::Protocol { .. }
            | TransportError::Scheme => false,
        }
    }

    /// The word of the common vocabulary.
    pub fn reason(&self) -> Reason {
        match self {
            TransportError::ConnectTimeout
            | TransportError::TlsTimeout
            | TransportError::HeaderTimeout
            | TransportError::Resolve { .. }
            | TransportError::Connect { .. }
            | TransportError::Proxy { .. }
            | TransportError::Closed { .. }
            | TransportError::Protocol { .. }
            | TransportError::AddressForbidden { .. } => Reason::RegistryUnavailable,
            TransportError::IdleTimeout => Reason::Timeout,
            TransportError::Tls { .. } | TransportError::NotTls { .. } => Reason::Tls,
            TransportError::TlsFile { .. } | TransportError::Scheme => Reason::InvalidConfig,
            TransportError::HeadersTooLarge | TransportError::BodyTooLarge { .. } => Reason::LimitExceeded,
        }
    }
}

/// The server's alert about our certificate, if that ended the connection. Other TLS errors may pass.
fn tls_alert(error: &hyper::Error) -> Option<rustls::Error> {
    use rustls::AlertDescription as Alert;
    let io = error.source()?.downcast_ref::<io::Error>()?;
    let refused = io.get_ref()?.downcast_ref::<rustls::Error>()?;
    let about_us = matches!(
        refused,
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
        )
    );
    about_us.then(|| refused.clone())
}
