//! HTTP/2 server with TLS that records requests.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use couple_notify::push::ConnectionOptions;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, body::Bytes, body::Incoming, server::conn::http2, service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
    server::TlsStream,
};

/// Certificate for `localhost` that a private authority has signed.
pub(crate) struct Identity {
    pub(crate) acceptor: TlsAcceptor,
    authority_pem: String,
    #[cfg(feature = "server-tests")]
    pub(crate) certificate_pem: String,
    #[cfg(feature = "server-tests")]
    pub(crate) key_pem: String,
}

impl Identity {
    pub(crate) fn new(protocol: &[u8]) -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_pem = params.self_signed(&key).unwrap().pem();
        let authority = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            authority_pem,
            #[cfg(feature = "server-tests")]
            certificate_pem: certificate.pem(),
            #[cfg(feature = "server-tests")]
            key_pem: key.serialize_pem(),
        }
    }

    /// Options of a client that trusts the authority.
    pub(crate) fn options(&self) -> ConnectionOptions {
        // Long enough for a busy machine: tests of time-outs set their own.
        let patient = Duration::from_secs(60);
        let options = ConnectionOptions::default()
            .with_connect_timeout(patient)
            .with_request_timeout(patient)
            .with_keep_alive(patient, patient);
        self.trusted_by(options)
    }

    /// Options of a client that also trusts this authority.
    pub(crate) fn trusted_by(&self, options: ConnectionOptions) -> ConnectionOptions {
        options.with_root_certificates(self.authority_pem.as_bytes()).unwrap()
    }
}

/// Request that a server has received.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    /// Value of a header, which must appear once; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        assert!(self.headers.get_all(name).iter().count() <= 1, "{name}");
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Response: status, headers, body.
pub(crate) struct Reply(pub(crate) u16, pub(crate) Vec<(&'static str, String)>, pub(crate) String);

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self(status, Vec::new(), String::new())
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self(status, vec![("content-type", "application/json".to_owned())], body.to_string())
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.1.push((name, value.to_owned()));
        self
    }
}

/// Running server.
pub(crate) struct PushServer {
    pub(crate) identity: Arc<Identity>,
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for PushServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PushServer {
    /// Starts a server that answers each request with the result of `answer`.
    pub(crate) async fn start<A, F>(answer: A) -> Self
    where
        A: Fn(Received) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send,
    {
        Self::with_max_streams(None, answer).await
    }

    /// Starts a server that allows so many concurrent streams.
    pub(crate) async fn with_max_streams<A, F>(max_streams: Option<u32>, answer: A) -> Self
    where
        A: Fn(Received) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send,
    {
        let requests: Arc<Mutex<Vec<Received>>> = Arc::default();
        let received = requests.clone();
        Self::accept(requests, move |tls| {
            let (answer, received) = (answer.clone(), received.clone());
            async move {
                let service = service_fn(move |request| {
                    let (answer, received) = (answer.clone(), received.clone());
                    async move {
                        let request = read(request).await?;
                        received.lock().unwrap().push(request.clone());
                        let Reply(status, headers, body) = answer(request).await;
                        let mut response = Response::builder().status(status);
                        for (name, value) in headers {
                            response = response.header(name, value);
                        }
                        Ok::<_, hyper::Error>(response.body(Full::new(Bytes::from(body))).unwrap())
                    }
                });
                let mut http = http2::Builder::new(TokioExecutor::new());
                if let Some(max) = max_streams {
                    http.max_concurrent_streams(max);
                }
                // A client may disconnect at any time.
                let _ = http.serve_connection(TokioIo::new(tls), service).await;
            }
        })
        .await
    }

    /// Starts a server whose connections are handled by `serve` after TLS.
    pub(crate) async fn accept<S, F>(requests: Arc<Mutex<Vec<Received>>>, serve: S) -> Self
    where
        S: Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let identity = Arc::new(Identity::new(b"h2"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::listen(identity, listener, requests, serve)
    }

    pub(crate) fn listen<S, F>(
        identity: Arc<Identity>,
        listener: TcpListener,
        requests: Arc<Mutex<Vec<Received>>>,
        serve: S,
    ) -> Self
    where
        S: Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (accepted, acceptor) = (connections.clone(), identity.acceptor.clone());
        let task = tokio::spawn(async move {
            // Ends with the set, and so with this task.
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, serve) = (acceptor.clone(), serve.clone());
                tasks.spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        serve(tls).await;
                    }
                });
            }
        });
        Self { identity, address, requests, connections, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub(crate) fn options(&self) -> ConnectionOptions {
        self.identity.options()
    }

    /// Requests so far, in order.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }

    /// The newest request.
    pub(crate) fn last(&self) -> Received {
        self.requests().pop().unwrap()
    }

    /// Number of TCP connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn read(request: Request<Incoming>) -> Result<Received, hyper::Error> {
    let (head, body) = request.into_parts();
    assert_eq!(head.uri.scheme_str(), Some("https"));
    Ok(Received {
        method: head.method.to_string(),
        path: head.uri.path_and_query().unwrap().to_string(),
        headers: head.headers,
        body: body.collect().await?.to_bytes(),
    })
}
