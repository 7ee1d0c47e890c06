//! Authentication by a header that a gateway sets.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    extract::ConnectInfo,
    http::{HeaderName, request::Parts},
};
use couple_core::{AccountId, Clock, Digest, Error, Failure, Principal, Secret, SystemClock, digest};
use ipnet::IpNet;

use super::{Authenticator, Unauthenticated};

/// Maps the text in a gateway's header to a person.
type PersonOf = dyn Fn(&str) -> Option<AccountId> + Send + Sync;

/// Authenticator for services behind a gateway that authenticates callers and names them in a header.
///
/// The gateway must remove the header from what its clients send. The header counts only if the request came from one of the gateway's
/// [networks](Self::from_networks) and has its [secret](Self::with_secret); at least one of the two is required, otherwise every request
/// is refused. A request that has the header twice is refused.
///
/// ```
/// use couple::{Secret, http::TrustedHeader};
///
/// let gateway = TrustedHeader::new("x-user-id".parse()?)
///     .from_networks(vec!["10.0.0.0/8".parse()?])
///     .with_secret("x-gateway-secret".parse()?, &Secret::new("from the environment".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A gateway cannot be asked whether a session has ended. So a live stream ends after [a time](Self::with_lifetime), and the client
/// reconnects through the gateway.
pub struct TrustedHeader {
    header: HeaderName,
    networks: Vec<IpNet>,
    secret: Option<(HeaderName, Digest)>,
    lifetime: Duration,
    person_of: Box<PersonOf>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for TrustedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedHeader")
            .field("header", &self.header)
            .field("networks", &self.networks)
            .finish_non_exhaustive()
    }
}

impl TrustedHeader {
    /// Creates an authenticator that reads the person's id, a UUID, from this header.
    #[must_use]
    pub fn new(header: HeaderName) -> Self {
        Self {
            header,
            networks: Vec::new(),
            secret: None,
            lifetime: Duration::from_hours(1),
            person_of: Box::new(|text| text.parse().ok()),
            clock: Arc::new(SystemClock),
        }
    }

    /// Sets the networks from which the gateway connects. Default: any, if there is a secret.
    ///
    /// The peer's address is known under [`serve`](crate::http::serve), and under `axum::serve` with
    /// `into_make_service_with_connect_info::<SocketAddr>()`. A request without it is refused.
    #[must_use]
    pub fn from_networks(mut self, networks: Vec<IpNet>) -> Self {
        self.networks = networks;
        self
    }

    /// Sets a header with a secret that only the gateway knows. Default: none is required.
    #[must_use]
    pub fn with_secret(mut self, header: HeaderName, secret: &Secret<String>) -> Self {
        self.secret = Some((header, digest(&[secret.expose().as_bytes()])));
        self
    }

    /// Sets how the header's text is mapped to a person, for ids that are no UUIDs. None refuses the request.
    #[must_use]
    pub fn with_person_of(
        mut self,
        person_of: impl Fn(&str) -> Option<AccountId> + Send + Sync + 'static,
    ) -> Self {
        self.person_of = Box::new(person_of);
        self
    }

    /// Sets the maximum duration of a live stream or an upload, after which the client must pass the gateway again. Default: 1 h.
    #[must_use]
    pub const fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets the clock. Default: the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    fn is_gateway(&self, request: &Parts) -> bool {
        let peer = || {
            let peer = request.extensions.get::<ConnectInfo<SocketAddr>>()?;
            Some(peer.0.ip().to_canonical())
        };
        let from_network = self.networks.is_empty()
            || peer().is_some_and(|peer| self.networks.iter().any(|network| network.contains(&peer)));
        let has_secret = self.secret.as_ref().is_none_or(|(header, secret)| {
            only(request, header).is_some_and(|given| digest(&[given.as_bytes()]).same_as(secret))
        });
        (!self.networks.is_empty() || self.secret.is_some()) && from_network && has_secret
    }
}

/// Value of a header that occurs exactly once.
fn only<'a>(request: &'a Parts, header: &HeaderName) -> Option<&'a str> {
    let mut values = request.headers.get_all(header).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

#[async_trait]
impl Authenticator for TrustedHeader {
    async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>> {
        let text = only(request, &self.header).filter(|_| self.is_gateway(request));
        let person = text.and_then(|text| (self.person_of)(text)).ok_or(Failure::Refused(Unauthenticated))?;
        // The gateway's session is unknown: all of a person's streams count as one session.
        Ok(Principal::new(person, "gateway").with_expiry(self.clock.now().plus(self.lifetime)))
    }

    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        Ok(vec![true; principals.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: &str = "0190aaaa-0000-7000-8000-000000000001";

    async fn accepts(gateway: &TrustedHeader, peer: Option<&str>, headers: &[(&str, &str)]) -> bool {
        let mut request = axum::http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
        }
        let answer = gateway.authenticate(&request.into_parts().0).await;
        answer.is_ok_and(|principal| principal.person().to_string() == PERSON)
    }

    #[tokio::test]
    async fn header_counts_only_from_the_gateway() {
        let header = || TrustedHeader::new(HeaderName::from_static("x-user-id"));
        let user = ("x-user-id", PERSON);
        assert!(!accepts(&header(), Some("10.0.0.1:1"), &[user]).await, "nobody is trusted by default");
        let inside = header().from_networks(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(accepts(&inside, Some("10.0.0.1:1"), &[user]).await);
        assert!(accepts(&inside, Some("[::ffff:10.0.0.1]:1"), &[user]).await);
        assert!(!accepts(&inside, Some("192.0.2.1:1"), &[user]).await, "another network");
        assert!(!accepts(&inside, None, &[user]).await, "an unknown peer");
        assert!(!accepts(&inside, Some("10.0.0.1:1"), &[user, user]).await, "the header occurs twice");
        assert!(!accepts(&inside, Some("10.0.0.1:1"), &[("x-user-id", "ana")]).await);
        let secret = Secret::new("mauve kettle".to_owned());
        let both = inside.with_secret(HeaderName::from_static("x-secret"), &secret);
        assert!(accepts(&both, Some("10.0.0.1:1"), &[user, ("x-secret", "mauve kettle")]).await);
        assert!(!accepts(&both, Some("10.0.0.1:1"), &[user, ("x-secret", "other")]).await);
        assert!(!accepts(&both, Some("10.0.0.1:1"), &[user]).await);
        assert!(!accepts(&both, Some("192.0.2.1:1"), &[user, ("x-secret", "mauve kettle")]).await);
        let only_secret = header().with_secret(HeaderName::from_static("x-secret"), &secret);
        assert!(accepts(&only_secret, None, &[user, ("x-secret", "mauve kettle")]).await);
        let own_ids = only_secret.with_person_of(|text| (text == "ana").then(|| PERSON.parse().unwrap()));
        assert!(accepts(&own_ids, None, &[("x-user-id", "ana"), ("x-secret", "mauve kettle")]).await);
    }
}
