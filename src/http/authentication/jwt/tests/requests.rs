//! Requests, ended sessions, and the log.

use std::{io::Write, sync::Mutex};

use super::*;

/// Sessions of the host, of which some have ended.
struct Revoked(Arc<Mutex<Vec<&'static str>>>);

#[async_trait]
impl SessionChecker for Revoked {
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        let revoked = self.0.lock().unwrap();
        Ok(principals.iter().map(|one| !revoked.contains(&one.session().unwrap())).collect())
    }
}

#[tokio::test]
async fn revoked_and_expired_sessions_end() {
    let signer = Signer::ed25519("k");
    let revoked = Arc::new(Mutex::new(Vec::new()));
    let clock = Arc::new(clock());
    let authenticator = of(&[signer.jwk()]).with_sessions(Revoked(revoked.clone())).with_clock(clock.clone());
    let parts = request(&[&format!("Bearer {}", signer.token(&json!({})))]);
    let one = authenticator.authenticate(&parts).await.unwrap();
    let other = authenticator.verify(&signer.token(&json!({"sid": "t", "exp": NOW + 1_200}))).await.unwrap();
    let both = [one, other];
    assert_eq!(authenticator.still_valid(&both).await.unwrap(), [true, true]);
    clock.advance(Duration::from_secs(660));
    assert_eq!(authenticator.still_valid(&both).await.unwrap(), [false, true]);
    clock.set(Timestamp::from_micros(NOW * 1_000_000));
    revoked.lock().unwrap().push("s");
    assert_eq!(authenticator.still_valid(&both).await.unwrap(), [false, true]);
    assert!(matches!(authenticator.authenticate(&parts).await, Err(Failure::Refused(Unauthenticated))));
}

#[tokio::test]
async fn request_has_one_bearer_token() {
    let signer = Signer::ed25519("k");
    let authenticator = of(&[signer.jwk()]);
    let token = signer.token(&json!({}));
    for (accepted, headers) in [
        (true, vec![format!("Bearer {token}")]),
        (true, vec![format!("bearer {token}")]),
        (false, vec![]),
        (false, vec![token.clone()]),
        (false, vec![format!("Basic {token}")]),
        (false, vec!["Bearer ".to_owned()]),
        (false, vec![format!("Bearer {token}"), format!("Bearer {token}")]),
        (false, vec![format!("Bearer {token}"), "Basic eDp5".to_owned()]),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = authenticator.authenticate(&request(&headers)).await;
        assert_eq!(answer.is_ok(), accepted, "{headers:?}");
        assert!(accepted || matches!(answer, Err(Failure::Refused(Unauthenticated))));
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn log_has_the_reason_and_nothing_of_the_token() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _log = tracing::subscriber::set_default(log.finish());
    let signer = Signer::ed25519("name-of-the-key");
    let authenticator = of(&[signer.jwk()]);
    for (reason, changes) in [
        ("it is malformed", json!({})),
        ("its audience is another one", json!({"aud": "secret-audience"})),
        ("it names no person", json!({"sub": "secret-person"})),
        ("it lacks `exp`, `iss` or `aud`", json!({"exp": "secret-time"})),
        ("its `nbf` is no time", json!({"nbf": "secret-time"})),
    ] {
        let token = signer.token(&changes);
        let _ = authenticator.authenticate(&request(&[&format!("Bearer {token}")])).await;
        // 85 characters are no base64 of any signature.
        let cut = request(&[&format!("Bearer {}", &token[..token.len() - 1])]);
        let _ = authenticator.authenticate(&cut).await;
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("a token is refused") && log.contains(reason), "{log}");
        for part in token.split('.').chain(["secret", PERSON, "name-of-the-key"]) {
            assert!(!log.contains(part), "{part} in {log}");
        }
    }
    let shared = with(JwtKeys::from_secret(&Secret::new(SECRET.to_owned())).unwrap());
    let text = format!("{shared:?}");
    assert!(text.contains(ISSUER) && !text.contains(SECRET), "{text}");
}
