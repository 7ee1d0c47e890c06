//! Key sets that are fetched from the issuer.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, http::StatusCode, routing::get};
use futures_util::future::join_all;
use tokio::{
    net::TcpListener,
    time::{Instant, advance, pause, resume, sleep, timeout},
};

use super::*;

/// Server of a JWKS.
#[derive(Clone, Default)]
struct Issuer {
    /// Document; none is 500.
    document: Arc<Mutex<Option<String>>>,
    delay: Arc<Mutex<Duration>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    /// Starts the server; returns its URL.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let issuer = self.clone();
        let answer = move || async move {
            issuer.fetches.fetch_add(1, Ordering::SeqCst);
            let delay = *issuer.delay.lock().unwrap();
            sleep(delay).await;
            let document = issuer.document.lock().unwrap().clone();
            document.ok_or(StatusCode::INTERNAL_SERVER_ERROR)
        };
        let app = Router::new().route("/jwks.json", get(answer));
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        self.send(Some(jwks(&keys)));
    }

    fn send(&self, document: Option<String>) {
        *self.document.lock().unwrap() = document;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Waits until the set was fetched so many times.
    async fn fetched(&self, times: usize) {
        let fetched = async {
            while self.fetches() < times {
                sleep(Duration::from_millis(5)).await;
            }
            // Until the response was read.
            sleep(Duration::from_millis(50)).await;
        };
        timeout(Duration::from_secs(5), fetched).await.expect("the set is fetched");
        assert_eq!(self.fetches(), times);
    }
}

/// Lets time pass for the cache, not for connections.
async fn pass(seconds: u64) {
    pause();
    advance(Duration::from_secs(seconds)).await;
    resume();
}

/// How many results are equal to each of these.
fn count<const N: usize>(results: &[&str], of: [&str; N]) -> [usize; N] {
    of.map(|one| results.iter().filter(|result| **result == one).count())
}

#[tokio::test]
async fn unknown_key_fetches_the_set_once() {
    let (old, new) = (Signer::ed25519("old"), Signer::p256("new"));
    let issuer = Issuer::default();
    issuer.publish(&[&old]);
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    assert_eq!(issuer.fetches(), 0, "the first request fetches it");
    assert_eq!(result(&authenticator, &old.token(&json!({}))).await, "ok");
    // A flood of unknown keys shortly after the first fetch.
    let unknown: Vec<String> = (0..200)
        .map(|n| old.sign(&json!({"alg": "EdDSA", "kid": format!("unknown-{n}")}), &claims(&json!({}))))
        .collect();
    let flood = async || join_all(unknown.iter().map(|token| result(&authenticator, token))).await;
    assert_eq!(count(&flood().await, ["failed"]), [200], "their keys may be newer than the set");
    assert_eq!(issuer.fetches(), 1);
    // The issuer rotates its key.
    issuer.publish(&[&new]);
    assert_eq!(result(&authenticator, &new.token(&json!({}))).await, "failed", "until the next fetch");
    pass(10).await;
    let valid = new.token(&json!({}));
    let tokens = (0..50).map(|_| result(&authenticator, &valid));
    for accepted in join_all(tokens).await {
        assert_eq!(accepted, "ok");
    }
    assert_eq!(issuer.fetches(), 2, "concurrent requests wait for one fetch");
    pass(10).await;
    // The fetch began after these requests. So many may wait for it.
    assert_eq!(count(&flood().await, [NO_KEY, "failed"]), [64, 136]);
    assert_eq!(issuer.fetches(), 3);
    // Tokens that no key could verify do not fetch.
    pass(10).await;
    for algorithm in ["none", "HS256", "RS384", "PS512"] {
        let header = json!({"alg": algorithm, "kid": "x"});
        let refused = result(&authenticator, &old.sign(&header, &claims(&json!({})))).await;
        assert!([NO_JWT, NOT_ALLOWED].contains(&refused), "{algorithm}: {refused}");
    }
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test]
async fn token_that_is_older_than_the_set_is_refused_without_a_fetch() {
    let (current, removed) = (Signer::ed25519("k"), Signer::ed25519("removed"));
    let issuer = Issuer::default();
    issuer.publish(&[&current]);
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    assert_eq!(result(&authenticator, &current.token(&json!({}))).await, "ok");
    // By the clock skew, a token seems to be one minute younger.
    for (expected, issued) in [
        (NO_KEY, json!(NOW - 3_600)),
        (NO_KEY, json!(NOW - 65)),
        ("failed", json!(NOW - 55)),
        ("failed", json!(NOW + 3_600)),
        ("failed", json!("0")),
        ("failed", Value::Null),
    ] {
        let token = removed.token(&json!({"iat": issued}));
        assert_eq!(result(&authenticator, &token).await, expected, "{issued}");
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn unknown_keys_do_not_hold_requests() {
    let (signer, new) = (Signer::ed25519("k"), Signer::ed25519("new"));
    let issuer = Issuer::default();
    issuer.publish(&[&signer]);
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok");
    *issuer.delay.lock().unwrap() = Duration::from_secs(2);
    pass(10).await;
    let (unknown, known) = (new.token(&json!({})), signer.token(&json!({})));
    let results = Mutex::new(Vec::new());
    let flood = join_all((0..1_000).map(|_| async {
        let result = result(&authenticator, &unknown).await;
        results.lock().unwrap().push(result);
    }));
    assert!(timeout(Duration::from_millis(500), flood).await.is_err(), "some wait for the fetch");
    assert_eq!(count(&results.lock().unwrap(), ["failed"]), [1_000 - 64]);
    assert_eq!(result(&authenticator, &known).await, "ok");
}

#[tokio::test]
async fn reused_id_or_none_is_found_by_a_fetch() {
    let without_id = |mut object: Value| {
        object.as_object_mut().unwrap().remove("kid");
        object
    };
    for has_id in [true, false] {
        let (old, new) = (Signer::ed25519("k"), Signer::ed25519("k"));
        let shape = |object: Value| if has_id { object } else { without_id(object) };
        let [old_key, new_key] = [&old, &new].map(|signer| shape(signer.jwk()));
        let token = |signer: &Signer| signer.sign(&shape(signer.header()), &claims(&json!({})));
        let issuer = Issuer::default();
        issuer.send(Some(jwks(&[old_key])));
        let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
        assert_eq!(result(&authenticator, &token(&old)).await, "ok");
        issuer.send(Some(jwks(&[new_key])));
        assert_eq!(result(&authenticator, &token(&new)).await, "failed", "no fetch is allowed yet");
        pass(10).await;
        assert_eq!(result(&authenticator, &token(&new)).await, "ok");
        pass(10).await;
        assert_eq!(result(&authenticator, &token(&old)).await, WRONG_SIGNATURE);
        assert_eq!(issuer.fetches(), 3);
    }
}

#[tokio::test]
async fn removed_key_is_refused_after_a_pause() {
    let (removed, new) = (Signer::ed25519("removed"), Signer::ed25519("new"));
    let issuer = Issuer::default();
    issuer.publish(&[&removed]);
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    let token = removed.token(&json!({}));
    assert_eq!(result(&authenticator, &token).await, "ok");
    issuer.publish(&[&new]);
    *issuer.delay.lock().unwrap() = Duration::from_millis(200);
    pass(3 * 24 * 60 * 60).await;
    // The first request after the pause, and those that arrive during its fetch.
    let results = join_all((0..20).map(|_| result(&authenticator, &token))).await;
    assert_eq!(count(&results, [NO_KEY]), [20]);
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(result(&authenticator, &new.token(&json!({}))).await, "ok");
    // Before the maximum age, too.
    issuer.publish(&[&removed]);
    pass(660).await;
    let token = new.token(&json!({}));
    let results = join_all((0..20).map(|_| result(&authenticator, &token))).await;
    assert_eq!(count(&results, ["ok"]), [0]);
}

#[tokio::test]
async fn failure_long_ago_is_no_outage() {
    let (removed, new) = (Signer::ed25519("removed"), Signer::ed25519("new"));
    let issuer = Issuer::default();
    issuer.publish(&[&removed]);
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    let token = removed.token(&json!({}));
    assert_eq!(result(&authenticator, &token).await, "ok");
    issuer.send(None);
    pass(600).await;
    assert_eq!(result(&authenticator, &token).await, "ok");
    issuer.fetched(2).await;
    issuer.publish(&[&new]);
    *issuer.delay.lock().unwrap() = Duration::from_millis(200);
    pass(40 * 60).await;
    let results = join_all((0..20).map(|_| result(&authenticator, &token))).await;
    assert_eq!(count(&results, [NO_KEY]), [20]);
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test]
async fn many_requests_wait_for_a_set_or_use_the_last_one() {
    let signer = Signer::ed25519("k");
    let token = signer.token(&json!({}));
    let issuer = Issuer::default();
    issuer.publish(&[&signer]);
    *issuer.delay.lock().unwrap() = Duration::from_millis(300);
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    let requests = async |number| join_all((0..number).map(|_| result(&authenticator, &token))).await;
    assert_eq!(count(&requests(600).await, ["ok", "failed"]), [512, 88], "there is no set yet");
    // After a pause, also if the issuer cannot be reached.
    pass(30 * 60).await;
    assert_eq!(count(&requests(600).await, ["ok"]), [600]);
    issuer.send(None);
    pass(30 * 60).await;
    assert_eq!(count(&requests(600).await, ["ok"]), [600]);
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test]
async fn set_is_refreshed_before_it_is_too_old() {
    let signer = Signer::ed25519("k");
    let token = signer.token(&json!({}));
    let issuer = Issuer::default();
    let url = issuer.start().await;
    issuer.publish(&[&signer]);
    let keys = JwtKeys::from_url(&url).unwrap().with_refresh_interval(Duration::from_hours(6));
    let authenticator = with(keys);
    assert_eq!(result(&authenticator, &token).await, "ok");
    pass(29 * 60).await;
    assert_eq!(result(&authenticator, &token).await, "ok");
    issuer.fetched(1).await;
    issuer.send(None);
    pass(60).await;
    assert_eq!(result(&authenticator, &token).await, "ok");
    issuer.fetched(2).await;
    pass(29 * 60).await;
    assert_eq!(result(&authenticator, &token).await, "ok", "the outage is shorter than the maximum age");
}

#[tokio::test]
async fn token_is_not_older_because_it_waited() {
    let (signer, new) = (Signer::ed25519("k"), Signer::ed25519("new"));
    let issuer = Issuer::default();
    issuer.publish(&[&signer]);
    let clock = Arc::new(clock());
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap()).with_clock(clock.clone());
    assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok");
    issuer.send(None);
    pass(10).await;
    clock.advance(Duration::from_secs(10));
    // It was made at least 5 s ago, when the set was 5 s old.
    let token = new.token(&json!({"iat": NOW - 55}));
    let later = async {
        issuer.fetched(2).await;
        clock.advance(Duration::from_secs(10));
    };
    *issuer.delay.lock().unwrap() = Duration::from_millis(300);
    let (answer, ()) = tokio::join!(result(&authenticator, &token), later);
    assert_eq!(answer, "failed");
}

#[tokio::test]
async fn last_set_is_used_for_a_limited_time() {
    let signer = Signer::ed25519("k");
    let token = signer.token(&json!({}));
    let issuer = Issuer::default();
    let url = issuer.start().await;
    for (minutes, keys) in [
        (60, JwtKeys::from_url(&url).unwrap()),
        (20, JwtKeys::from_url(&url).unwrap().with_max_stale_age(Duration::from_mins(20))),
    ] {
        issuer.publish(&[&signer]);
        let authenticator = with(keys);
        assert_eq!(result(&authenticator, &token).await, "ok");
        // A set of broken keys is none.
        let mut broken = signer.jwk();
        broken["x"] = json!("AAAA");
        issuer.send(Some(jwks(&[broken])));
        pass(minutes * 60 - 10).await;
        assert_eq!(result(&authenticator, &token).await, "ok");
        pass(10).await;
        assert_eq!(result(&authenticator, &token).await, "failed");
        assert_eq!(result(&authenticator, &token).await, "failed");
        issuer.publish(&[&signer]);
        pass(10).await;
        assert_eq!(result(&authenticator, &token).await, "ok");
    }
}

#[tokio::test]
async fn set_is_refreshed_beside_requests() {
    let (old, new) = (Signer::ed25519("k"), Signer::ed25519("k"));
    let issuer = Issuer::default();
    issuer.publish(&[&old]);
    let url = issuer.start().await;
    let authenticator = with(JwtKeys::from_url(&url).unwrap().with_refresh_interval(Duration::from_mins(1)));
    assert_eq!(result(&authenticator, &old.token(&json!({}))).await, "ok");
    issuer.publish(&[&new]);
    pass(59).await;
    assert_eq!(result(&authenticator, &old.token(&json!({}))).await, "ok");
    issuer.fetched(1).await;
    pass(1).await;
    assert_eq!(result(&authenticator, &old.token(&json!({}))).await, "ok", "the request does not wait");
    issuer.fetched(2).await;
    assert_eq!(result(&authenticator, &new.token(&json!({}))).await, "ok");
    let past = json!({"iat": NOW - 600});
    assert_eq!(result(&authenticator, &old.token(&past)).await, WRONG_SIGNATURE);
}

#[tokio::test]
async fn unreachable_set_is_a_failure_until_the_first_success() {
    let signer = Signer::ed25519("k");
    let issuer = Issuer::default();
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    let token = signer.token(&json!({}));
    for document in [None, Some("<html>"), Some("{}"), Some(r#"{"keys":[]}"#)] {
        issuer.send(document.map(str::to_owned));
        assert_eq!(result(&authenticator, &token).await, "failed");
        let fetches = issuer.fetches();
        assert_eq!(result(&authenticator, &token).await, "failed");
        assert_eq!(issuer.fetches(), fetches, "not within ten seconds of a failure");
        pass(10).await;
    }
    issuer.publish(&[&signer]);
    assert_eq!(result(&authenticator, &token).await, "ok");

    // Nothing listens, or too much is sent.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = with(JwtKeys::from_url(&format!("http://{free}/")).unwrap());
    assert_eq!(result(&silent, &token).await, "failed");
    let issuer = Issuer::default();
    issuer.send(Some(format!("{}{}", jwks(&[signer.jwk()]), " ".repeat(256 << 10))));
    let large = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    assert_eq!(result(&large, &token).await, "failed");
    let answer = large.authenticate(&request(&[&format!("Bearer {token}")])).await;
    assert!(matches!(answer, Err(Failure::Failed(_))), "{answer:?}");
}

#[tokio::test]
async fn last_set_is_kept_during_an_outage() {
    let (signer, new) = (Signer::ed25519("k"), Signer::ed25519("new"));
    let issuer = Issuer::default();
    issuer.publish(&[&signer]);
    let authenticator = with(JwtKeys::from_url(&issuer.start().await).unwrap());
    assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok");
    issuer.send(None);
    pass(600).await;
    for fetches in 2..5 {
        assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok");
        issuer.fetched(fetches).await;
        assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok");
        assert_eq!(result(&authenticator, &new.token(&json!({}))).await, "failed", "its key may be new");
        pass(10).await;
    }
    issuer.publish(&[&new]);
    assert_eq!(result(&authenticator, &new.token(&json!({}))).await, "ok");
    pass(10).await;
    assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, NO_KEY);
}

#[tokio::test]
async fn slow_issuer_does_not_delay_known_keys() {
    let (signer, new) = (Signer::ed25519("k"), Signer::ed25519("new"));
    let issuer = Issuer::default();
    issuer.publish(&[&signer]);
    let authenticator = Arc::new(with(JwtKeys::from_url(&issuer.start().await).unwrap()));
    assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok");
    *issuer.delay.lock().unwrap() = Duration::from_secs(60);
    pass(600).await;
    let began = Instant::now();
    let waiting = {
        let (authenticator, token) = (authenticator.clone(), new.token(&json!({})));
        tokio::spawn(async move { result(&authenticator, &token).await })
    };
    issuer.fetched(2).await;
    let fast = Instant::now();
    for _ in 0..20 {
        assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok");
    }
    assert!(fast.elapsed() < Duration::from_secs(1), "{:?}", fast.elapsed());
    // A client that disconnects does not interrupt the fetch; the next one waits for the same.
    waiting.abort();
    assert_eq!(result(&authenticator, &new.token(&json!({}))).await, "failed");
    let waited = began.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    assert_eq!(issuer.fetches(), 2);
}
