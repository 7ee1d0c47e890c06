//! Blobs in S3-compatible object storage.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use couple_core::{Error, ErrorKind, Secret};
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as TcpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};

use super::Blobs;

/// Access to a bucket.
#[derive(Clone)]
pub struct S3Options {
    builder: AmazonS3Builder,
    bucket: String,
    prefix: String,
    timeout: Duration,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl S3Options {
    /// A bucket in `us-east-1`, with the credentials of the machine.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self::with(AmazonS3Builder::new(), bucket.into())
    }
    /// A bucket configured by the environment's `AWS_…` variables.
    ///
    /// Such as `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and `AWS_ENDPOINT_URL`.
    pub fn from_env(bucket: impl Into<String>) -> Self {
        Self::with(AmazonS3Builder::from_env(), bucket.into())
    }
    fn with(builder: AmazonS3Builder, bucket: String) -> Self {
        Self { builder, bucket, prefix: String::new(), timeout: Duration::from_secs(2) }
    }
    /// Puts all blobs under a folder of the bucket.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }
    /// Sets the region.
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.builder = self.builder.with_region(region);
        self
    }
    /// Sets the URL of the service, such as `https://s3.example.org`.
    #[must_use]
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.builder = self.builder.with_endpoint(url);
        self
    }
    /// Sets the credentials.
    #[must_use]
    pub fn with_credentials(mut self, id: impl Into<String>, secret: &Secret<String>) -> Self {
        self.builder = self.builder.with_access_key_id(id).with_secret_access_key(secret.expose().clone());
        self
    }
    /// Sets the timeout of a response, or of a part of 5 MiB, retries included. Default: 2 s.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Creates the blob store. It sends no request yet.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`]: the endpoint or another option is invalid.
    pub fn open(self) -> Result<Blobs, Error> {
        let wrong = || Error::new(ErrorKind::Misconfigured, "open blobs").context(self.bucket.clone());
        // The builder does not check it; the client would panic at the first request.
        if let Some(endpoint) = self.builder.get_config_value(&AmazonS3ConfigKey::Endpoint)
            && !is_url(&endpoint)
        {
            return Err(wrong().context("the endpoint is not a URL of the form http://HOST or https://HOST"));
        }
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(50), ..BackoffConfig::default() },
            max_retries: 3,
            retry_timeout: self.timeout,
        };
        let builder = self.builder.with_bucket_name(&self.bucket).with_retry(retry);
        let store = builder
            .with_http_connector(Hyper { connect: self.timeout / 2 })
            .build()
            .map_err(|error| wrong().source(error))?;
        let store = Arc::new(store);
        let blobs = Blobs { signer: Some(store.clone()), ..Blobs::over(store) };
        blobs.with_timeout(self.timeout).prefix(self.prefix.trim_matches('/'))
    }
}

fn is_url(text: &str) -> bool {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    text.parse().is_ok_and(|uri| {
        *request.uri_mut() = uri;
        matches!(request.uri().scheme_str(), Some("http" | "https")) && request.uri().host().is_some()
    })
}

/// HTTP client with the workspace's HTTP and TLS libraries; that of `object_store` would add others.
#[derive(Debug)]
struct Hyper {
    connect: Duration,
}

impl HttpConnector for Hyper {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(self.connect));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(HttpClient::new(Service(client)))
    }
}

#[derive(Debug)]
struct Service(Client<HttpsConnector<TcpConnector>, HttpRequestBody>);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let interrupted = |error| HttpError::new(HttpErrorKind::Interrupted, error);
        Ok(answer.map(|body| HttpResponseBody::new(body.map_err(interrupted))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_must_be_a_url() {
        let open = |endpoint: &str| S3Options::new("couple").with_endpoint(endpoint).open();
        for good in ["http://127.0.0.1:9000", "https://s3.example.org"] {
            assert!(open(good).is_ok(), "{good}");
        }
        for wrong in
            ["", "nonsense", "s3.example.org", "127.0.0.1:9000", "ftp://s3.example.org", "http://a b"]
        {
            assert_eq!(open(wrong).unwrap_err().kind(), ErrorKind::Misconfigured, "{wrong}");
        }
    }
}
