//! Opening connections: addresses, TCP and TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use couple_core::{Error, ErrorKind};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;

use super::{
    addresses::is_public,
    failure::{SendFailure, describe},
};

/// Delay after which the next address is tried concurrently (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Maximum number of addresses of a host that are tried.
const MAX_ADDRESSES: usize = 8;

/// Settings of the connections to push services.
///
/// Connections use TLS 1.2 or 1.3 with HTTP/2. Certificates must be valid and signed by a public authority, or by one of
/// [`with_root_certificates`](Self::with_root_certificates).
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) stream_timeout: Duration,
    pub(super) keep_alive_interval: Duration,
    pub(super) keep_alive_timeout: Duration,
    roots: Vec<CertificateDer<'static>>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(2500),
            request_timeout: Duration::from_secs(10),
            stream_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
            roots: Vec::new(),
        }
    }
}

impl ConnectionOptions {
    /// Maximum time to connect: name resolution, TCP, TLS and HTTP/2 together. Default: 2.5 s.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Maximum time for which a message waits until the server allows another stream. Default: 5 s.
    ///
    /// Then it fails as unavailable, without having been sent, and later messages use a new connection. Whoever sends a message has checked
    /// that it may be sent, and checks again before the next attempt.
    #[must_use]
    pub const fn with_stream_timeout(mut self, timeout: Duration) -> Self {
        self.stream_timeout = timeout;
        self
    }

    /// Maximum time for the response to a request that has been sent. Default: 10 s.
    ///
    /// A request without a response is not repeated, and later requests use a new connection.
    #[must_use]
    pub const fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Interval of the PING frames on a connection, and the time within which the service must answer one.
    /// Default: 30 s and 10 s. A connection without an answer is closed.
    #[must_use]
    pub const fn with_keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive_interval = interval;
        self.keep_alive_timeout = timeout;
        self
    }

    /// Also trusts server certificates that these root certificates have signed.
    ///
    /// `pem` contains one or more certificates in PEM format. Several calls add up.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if `pem` contains no certificate or an invalid one.
    pub fn with_root_certificates(mut self, pem: &[u8]) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Misconfigured, "root certificates of push services");
        let count = self.roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate
                .map_err(|error| wrong().context("the PEM text is not valid").source(error.to_string()))?;
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|error| wrong().context("a certificate is not valid").source(error))?;
            self.roots.push(certificate);
        }
        if self.roots.len() == count {
            return Err(wrong().context("the PEM text contains no certificate"));
        }
        Ok(self)
    }

    fn tls(&self) -> TlsConnector {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(self.roots.iter().cloned());
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("ring supports TLS 1.2 and 1.3")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// Server of a push service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// Name or address, which is without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Server {
    /// Server of an `https` URL; none for other URLs.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let host = url.host_str().filter(|host| url.scheme() == "https" && !host.is_empty())?;
        Some(Self { host: host.trim_matches(['[', ']']).to_owned(), port: url.port_or_known_default()? })
    }

    /// Parses the base URL of a service: `https`, without a path.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Misconfigured, "URL of a push service");
        let url = Url::parse(url).map_err(|error| wrong().source(error))?;
        Self::of(&url).filter(|_| url.path() == "/").ok_or_else(|| wrong().context("write https://HOST"))
    }

    /// Host and port as in a URL.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }
}

/// Addresses that a connector may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AllowedAddresses {
    /// Every address, because the host of the library chose the server.
    Any,
    /// Addresses on the public Internet, because a client chose the server.
    Public,
}

/// Opens connections to one server.
#[derive(Clone)]
pub(super) struct Connector {
    server: Server,
    tls: TlsConnector,
    addresses: AllowedAddresses,
}

impl Connector {
    pub(super) fn new(server: Server, options: &ConnectionOptions, addresses: AllowedAddresses) -> Self {
        Self { server, tls: options.tls(), addresses }
    }

    /// Opens a connection with TLS on which HTTP/2 was agreed.
    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, SendFailure> {
        let tcp = self.open().await?;
        let name = ServerName::try_from(self.server.host.clone())
            .map_err(|_| SendFailure::rejected("the host name of the push service is not valid"))?;
        let tls = self.tls.connect(name, tcp).await.map_err(|error| {
            SendFailure::unavailable(format!("no TLS with the push service: {}", describe(&error)))
        })?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(SendFailure::unavailable("the push service does not offer HTTP/2"));
        }
        Ok(tls)
    }

    /// Opens a TCP connection to the first address that accepts one.
    async fn open(&self) -> Result<TcpStream, SendFailure> {
        let resolved = lookup_host((&*self.server.host, self.server.port)).await.map_err(|error| {
            SendFailure::unavailable(format!("cannot resolve the host name of the push service: {error}"))
        })?;
        // The addresses that are checked are the ones that are connected to: a name cannot change its address in between.
        let addresses: Vec<_> = resolved.filter(|address| self.allows(address)).take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(match self.addresses {
                AllowedAddresses::Any => SendFailure::unavailable("the push service has no address"),
                AllowedAddresses::Public => {
                    SendFailure::rejected("the push service has no address on the public Internet")
                }
            });
        }
        let mut attempts = JoinSet::new();
        for (n, address) in (0..).zip(addresses) {
            attempts.spawn(async move {
                sleep(ATTEMPT_DELAY * n).await;
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                Ok::<_, io::Error>(tcp)
            });
        }
        let mut failure = String::new();
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                // The other attempts end with the set.
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => failure = error.to_string(),
                Err(error) => failure = error.to_string(),
            }
        }
        Err(SendFailure::unavailable(format!("cannot connect to the push service: {failure}")))
    }

    fn allows(&self, address: &SocketAddr) -> bool {
        self.addresses == AllowedAddresses::Any || is_public(address.ip())
    }
}

/// Limits the time of an attempt to connect.
pub(super) async fn within<T>(
    limit: Duration,
    attempt: impl Future<Output = Result<T, SendFailure>>,
) -> Result<T, SendFailure> {
    let timed_out = || SendFailure::new(ErrorKind::TimedOut, "the push service does not accept a connection");
    timeout(limit, attempt).await.unwrap_or_else(|_| Err(timed_out()))
}
