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
    sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::keys::{KeySet, parse};

/// Maximum time of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of a JWKS in bytes.
const MAX_JWKS_BYTES: usize = 256 << 10;
/// Minimum time between two fetches.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of requests that wait for a fetch because no key verifies their token. Each holds a permit of the server, and anybody may
/// send such a token.
const MAX_UNVERIFIED_WAITERS: usize = 64;
/// Maximum number of requests that wait for a set that is recent enough: half of the server's permits.
const MAX_WAITERS: usize = 512;
/// Time after which a set is fetched again.
const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_mins(10);
/// Time for which requests do not wait for a refresh that is due.
const REFRESH_GRACE: Duration = Duration::from_mins(1);
/// Time for which a set is used that cannot be fetched again.
const DEFAULT_MAX_STALE_AGE: Duration = Duration::from_hours(1);

/// Cache of the keys at a URL.
pub(super) struct RemoteKeys {
    cache: Arc<Cache>,
    pub(super) refresh_interval: Duration,
    pub(super) max_stale_age: Duration,
}

struct Cache {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    state: Mutex<State>,
    /// Held while the set is fetched, so that requests wait for the result.
    single_flight: Arc<AsyncMutex<()>>,
    waiters: Semaphore,
    unverified_waiters: Semaphore,
}

#[derive(Clone, Default)]
struct State {
    /// The last set; none before the first success.
    set: Option<KeySet>,
    /// Begin of the last fetch.
    attempted: Option<Instant>,
    /// Whether the last fetch that ended has failed.
    failed: bool,
}

impl State {
    /// Whether the issuer could not be reached a short time ago.
    fn is_outage(&self) -> bool {
        self.failed && self.attempted.is_some_and(|at| at.elapsed() < REFRESH_GRACE)
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
        let cache = Cache {
            url,
            client,
            state: Mutex::default(),
            single_flight: Arc::default(),
            waiters: Semaphore::new(MAX_WAITERS),
            unverified_waiters: Semaphore::new(MAX_UNVERIFIED_WAITERS),
        };
        Ok(Self {
            cache: Arc::new(cache),
            refresh_interval: DEFAULT_REFRESH_INTERVAL,
            max_stale_age: DEFAULT_MAX_STALE_AGE,
        })
    }

    pub(super) async fn current(&self) -> Result<KeySet, Error> {
        let max_age = self.max_stale_age.max(MIN_FETCH_INTERVAL);
        // So that an outage finds a set that can be used for some time.
        let refresh_age = self.refresh_interval.min(max_age / 2);
        let state = self.cache.state();
        let is_outage = state.is_outage();
        let usable = |state: State| state.set.filter(|set| set.age() < max_age);
        let last = usable(state);
        if let Some(set) = &last {
            // During an outage, requests do not wait for each attempt.
            if set.age() < refresh_age.saturating_add(REFRESH_GRACE) || is_outage {
                if set.age() >= refresh_age
                    && let Ok(turn) = self.cache.single_flight.clone().try_lock_owned()
                {
                    self.cache.start_fetch(turn);
                }
                return Ok(set.clone());
            }
        }
        if !self.cache.wait_for_fetch(&self.cache.waiters).await {
            return last.ok_or_else(|| Error::new(ErrorKind::Overloaded, "wait for the JWKS"));
        }
        usable(self.cache.state()).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "read the JWKS")
                .context("it cannot be fetched, and there is no set that is recent enough")
        })
    }

    /// The set after a fetch, if one is under way or allowed.
    pub(super) async fn fetched(&self) -> Option<KeySet> {
        self.cache.wait_for_fetch(&self.cache.unverified_waiters).await;
        self.cache.state().set
    }
}

impl Cache {
    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, update: impl FnOnce(&mut State)) {
        update(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for the fetch under way, or for a new one if it is allowed. False if too many requests wait.
    async fn wait_for_fetch(self: &Arc<Self>, waiters: &Semaphore) -> bool {
        let Ok(_permit) = waiters.try_acquire() else { return false };
        let turn = self.single_flight.clone().lock_owned().await;
        if let Some(fetch) = self.start_fetch(turn)
            && let Err(error) = fetch.await
        {
            tracing::error!(%error, "the fetch of the JWKS was interrupted");
        }
        true
    }

    /// Starts a fetch, unless another one began shortly before.
    fn start_fetch(self: &Arc<Self>, turn: OwnedMutexGuard<()>) -> Option<JoinHandle<()>> {
        let is_allowed = self.state().attempted.is_none_or(|at| at.elapsed() >= MIN_FETCH_INTERVAL);
        // A task, so that a client that disconnects does not interrupt the fetch.
        is_allowed.then(|| tokio::spawn(self.clone().refresh(turn)))
    }

    /// Fetches the set. `_turn` ends when it is known.
    async fn refresh(self: Arc<Self>, _turn: OwnedMutexGuard<()>) {
        let began = Instant::now();
        self.update(|state| {
            // A failure long ago does not let requests use the last set during this fetch.
            state.failed = state.is_outage();
            state.attempted = Some(began);
        });
        match self.fetch(began).await {
            Ok(set) => self.update(|state| (state.set, state.failed) = (Some(set), false)),
            Err(error) => {
                self.update(|state| state.failed = true);
                tracing::warn!(%error, "the JWKS cannot be fetched: the last one is used until it is too old");
            }
        }
    }

    async fn fetch(&self, began: Instant) -> Result<KeySet, Error> {
        let unavailable = || Error::new(ErrorKind::Unavailable, "fetch the JWKS");
        let body = timeout(FETCH_TIMEOUT, self.get());
        let body = body.await.map_err(|_| Error::new(ErrorKind::TimedOut, "fetch the JWKS"))?;
        let keys = parse(&body?).map_err(|reason| unavailable().context(reason))?;
        Ok(KeySet::fetched(keys, began))
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
