//! Keys that are fetched from a URL and cached.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Request, StatusCode, Uri, header, uri::Scheme},
};
use couple_core::{Error, ErrorKind};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::{Instant, timeout},
};

use super::keys::{Key, Matches, parse};

/// Maximum time of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of a JWKS in bytes.
const MAX_JWKS_BYTES: usize = 256 << 10;
/// Minimum time between two fetches.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(10);
/// Time after which a set is fetched again.
const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_mins(10);

/// Cache of the keys at a URL.
pub(super) struct RemoteKeys {
    cache: Arc<Cache>,
    pub(super) refresh_interval: Duration,
}

struct Cache {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    state: Mutex<State>,
    /// Held while a request fetches the set, so that the others wait for its result.
    single_flight: Arc<AsyncMutex<()>>,
}

#[derive(Clone, Default)]
struct State {
    /// The last set; none before the first success.
    keys: Option<Arc<[Key]>>,
    /// Begin of the last fetch.
    attempted: Option<Instant>,
    /// Whether the last fetch failed.
    failed: bool,
}

impl State {
    fn matches(&self, id: Option<&str>) -> Option<Matches> {
        let matches = Matches::of(self.keys.clone()?, id);
        (!matches.is_empty()).then_some(matches)
    }

    fn is_older_than(&self, interval: Duration) -> bool {
        self.attempted.is_none_or(|at| at.elapsed() >= interval)
    }
}

impl RemoteKeys {
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Misconfigured, "read the URL of the JWKS");
        let url: Uri = url.parse().map_err(|error| wrong().source(error))?;
        if !is_secure(&url) {
            return Err(wrong().context("the URL must be https, or http to a loopback address"));
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| wrong().source(error))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // Fetches are minutes apart, so no connection is kept.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let (state, single_flight) = (Mutex::default(), Arc::default());
        let cache = Arc::new(Cache { url, client, state, single_flight });
        Ok(Self { cache, refresh_interval: DEFAULT_REFRESH_INTERVAL })
    }

    pub(super) async fn with_id(&self, id: Option<&str>) -> Result<Matches, Error> {
        let state = self.cache.state();
        if let Some(known) = state.matches(id) {
            let interval = if state.failed { Duration::ZERO } else { self.refresh_interval };
            if state.is_older_than(interval.max(MIN_FETCH_INTERVAL))
                && let Ok(turn) = self.cache.single_flight.clone().try_lock_owned()
            {
                tokio::spawn(self.cache.clone().refresh(turn));
            }
            return Ok(known);
        }
        let turn = self.cache.single_flight.clone().lock_owned().await;
        // Another request may have fetched the set in the meantime.
        if self.cache.state().is_older_than(MIN_FETCH_INTERVAL) {
            // A task, so that a client that disconnects does not interrupt the fetch.
            let fetch = tokio::spawn(self.cache.clone().refresh(turn));
            fetch.await.map_err(|error| Error::new(ErrorKind::Internal, "fetch the JWKS").source(error))?;
        }
        let state = self.cache.state();
        match (state.matches(id), state.keys) {
            (Some(known), _) => Ok(known),
            // The key may be a new one.
            (None, _) if state.failed => Err(Error::new(ErrorKind::Unavailable, "find the key of a token")
                .context("the JWKS cannot be fetched, and the last one does not have the key")),
            (None, keys) => Ok(Matches::of(keys.unwrap_or_default(), id)),
        }
    }
}

impl Cache {
    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, update: impl FnOnce(&mut State)) {
        update(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Fetches the set. `_turn` ends when it is known.
    async fn refresh(self: Arc<Self>, _turn: OwnedMutexGuard<()>) {
        // Failed until proven otherwise, should the task panic.
        self.update(|state| (state.attempted, state.failed) = (Some(Instant::now()), true));
        match self.fetch().await {
            Ok(keys) => self.update(|state| (state.keys, state.failed) = (Some(keys), false)),
            Err(error) => tracing::warn!(%error, "the JWKS cannot be fetched: the last one is used"),
        }
    }

    async fn fetch(&self) -> Result<Arc<[Key]>, Error> {
        let unavailable = || Error::new(ErrorKind::Unavailable, "fetch the JWKS");
        let body = timeout(FETCH_TIMEOUT, self.get());
        let body = body.await.map_err(|_| Error::new(ErrorKind::TimedOut, "fetch the JWKS"))?;
        parse(&body?).map_err(|reason| unavailable().context(reason))
    }

    async fn get(&self) -> Result<Bytes, Error> {
        let unavailable = || Error::new(ErrorKind::Unavailable, "fetch the JWKS");
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self.url.clone();
        let accept = header::HeaderValue::from_static("application/jwk-set+json, application/json");
        request.headers_mut().insert(header::ACCEPT, accept);
        let response = self.client.request(request).await.map_err(|error| unavailable().source(error))?;
        if response.status() != StatusCode::OK {
            return Err(unavailable().context(format!("the response is {}", response.status())));
        }
        let body = Limited::new(response.into_body(), MAX_JWKS_BYTES).collect().await;
        Ok(body.map_err(|error| unavailable().source(error))?.to_bytes())
    }
}

/// Whether the network cannot replace the keys: `https`, or `http` to a loopback address.
fn is_secure(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = || host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => !host.is_empty(),
        Some(scheme) if *scheme == Scheme::HTTP => is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_https_or_loopback() {
        for good in [
            "https://id.example.org/jwks.json",
            "http://127.0.0.1:8080/jwks",
            "http://localhost/jwks",
            "http://[::1]:8080/jwks",
        ] {
            assert!(RemoteKeys::new(good).is_ok(), "{good}");
        }
        for wrong in [
            "",
            "/jwks.json",
            "id.example.org",
            "http://id.example.org/jwks.json",
            "http://127.0.0.1.example.org/",
            "http://10.0.0.1/jwks",
            "ftp://127.0.0.1/jwks",
            "file:///etc/jwks",
        ] {
            let error = RemoteKeys::new(wrong).err().expect(wrong);
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{wrong}");
        }
    }
}
