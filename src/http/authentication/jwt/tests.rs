use std::{
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    http::{HeaderValue, Request, StatusCode},
    routing::get,
};
use couple_core::{ManualClock, Secret};
use futures_util::future::join_all;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _,
    },
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    time::{Instant, advance, pause, resume, sleep, timeout},
};

use super::*;

const ISSUER: &str = "https://id.example.org/";
const AUDIENCE: &str = "love-api";
const PERSON: &str = "0190aaaa-0000-7000-8000-000000000001";
/// Time of the clock, in seconds since 1970.
const NOW: i64 = 1_800_000_000;
const SECRET: &str = "a secret of the issuer, 32 bytes";

/// Public RSA key, and signatures of its tokens: `ring` does not generate RSA keys. The claims are those of [`rsa_token`].
const RSA_N: &str = "5nrFan_3XXOHA1rOydTl9ynBlPr4B-L3wR3Ni-Zam9LT_QvG-OKHIbgTHG-5W8PfhxA1yP5HbMOQbx4zaZ2XeRU5lXvn1232ZH-meZ4SKnoixgb8A-Z3vjjNtF6OUlF-SaOwad_M4fBS_1eStU2rH6rH6OsGqdFiP6aOKxRSFzuGwyH4ZILK_yiTO7C5Jau1fN9YvbsdYex8G9075y_5JGTkVGeOAd_72QYqsCFNcG0Lxq-Ml6zBOrChKoHfPF4opDdOaYxldTCXIkZ-EfKMpamefLbbOB1IxNVxWFAFUkTeEbyveal7GelJ79mfe3b9vbMB1mf6s2muTU46nD6cBw";
const RS256_SIGNATURE: &str = "MxZHk9dSvX90YiO246-leYUiNDoP2T3IciQ4OkgyJw43148Ten8P7dPVKUcVIUkx4XNd1TyaW88HPi0uomrYLFYR0LYHuADi4reIhF7RaGYn-jNfiLW-wqkLQ_6ddUkRscA3kMidC8AGmD-SeCSWzy6QFiIYSRa9jvcQK6SHmcjnwwIr4kx6jr3u_IEkBDjhItgOWOSxn2n9KHV4Jm6U0p6DJwMZuTs0Kz60EDOcDDBsuSzbHPAWDXy93CUTgxVaD4KHWv6XpKJMI0xZnPhhBa94etV4hHV58wF_npjdyw-HY3ApDeXpfUnF_FxWVjAx5iMD3b3oq61OnZTyGo6NWw";
const PS256_SIGNATURE: &str = "jj_QoyL2LyWqBxqLy9f6lAnV62-UBrNLEqe6essjCmTmtQyL-yd7HxDYtfH3sjNOXgw5SneStXoZxIxOWCYOfx5fdAOWlh6tO0T5xjG15iGXdG-4GNRDPzZyto26awz6nlN7Jsct9u8jLA3eNG6itXKGxYv3v_myvBj6ZhYaCW5oJervs9WCcsWTWrrnlmAvgLZ60G-SRqwBL668a9VdJLUhDIWjNYlPzXhxfWbnSvC_LuAWMRjEGT1Y33azVuXNBUpmOmXei6gqTWUWLEN4tOQdfpkm8VnJNcBE68lrIpOEwq9u81ZPGE9iLlXwYA4TRyxMPFGHmOq6z5hKRF72cw";
/// The same of a key with 1024 bits.
const SHORT_RSA_N: &str = "xXnSJBusGG0ax4VBIrTCNVZ6qQ0mKnAKV7hJb4osFszOSiMG66EyaNVRZb9YvX2OZjPMsT4sMTHS0OzdZ5wR2wzpfwNbydqn9eo09L6uHj0LaG2NQjVwHsY5afEqZM0VEr0ypBZPXEx0o213ZgS4NmlDuqu8HlSHfG-wBJV2gdU";
const SHORT_RSA_SIGNATURE: &str = "QeqKMDbfzwMbKRkR2Qy-eByJHhLnyOHmmaD475fRtVm3eWKhf9BDFy7HJmKQxg53w-Iea6k7TDCL819gF-wcqZgmdcEizDDfhI6h9l450Agq5ZFd4JHeUp5Yy09L3fAYXFMfqH6ctXycQBwao8OKzYZ7Ott3r15BCGn_T94PwoM";

fn rsa_token(algorithm: &str, signature: &str) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","kid":"rsa"}}"#);
    let claims =
        format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"{PERSON}","sid":"s","exp":{}}}"#, NOW + 600);
    let encode = |text: String| BASE64URL_NOPAD.encode(text.as_bytes());
    format!("{}.{}.{signature}", encode(header), encode(claims))
}

fn rsa_key(n: &str) -> Value {
    json!({"kty": "RSA", "kid": "rsa", "n": n, "e": "AQAB"})
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Secret(hmac::Key),
}

/// Key of an issuer.
struct Signer {
    id: &'static str,
    pair: Pair,
}

impl Signer {
    fn ed25519(id: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, pair: Pair::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()) }
    }

    fn p256(id: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            id,
            pair: Pair::P256(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()),
        }
    }

    fn p384(id: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            id,
            pair: Pair::P384(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()),
        }
    }

    fn secret(id: &'static str, secret: &[u8]) -> Self {
        Self { id, pair: Pair::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)) }
    }

    fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Ed25519(_) => "EdDSA",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Secret(_) => "HS256",
        }
    }

    fn public_bytes(&self) -> &[u8] {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::P256(pair) | Pair::P384(pair) => pair.public_key().as_ref(),
            Pair::Secret(_) => panic!("a secret has no public key"),
        }
    }

    fn jwk(&self) -> Value {
        let encode = |bytes| BASE64URL_NOPAD.encode(bytes);
        let bytes = self.public_bytes();
        let (x, y) = bytes[1..].split_at((bytes.len() - 1) / 2);
        match &self.pair {
            Pair::Ed25519(_) => json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": encode(bytes)}),
            Pair::P256(_) => {
                json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": encode(x), "y": encode(y)})
            }
            _ => json!({"kty": "EC", "crv": "P-384", "kid": self.id, "x": encode(x), "y": encode(y)}),
        }
    }

    fn sign(&self, header: &Value, claims: &str) -> String {
        let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let message = format!("{}.{}", encode(&header.to_string()), encode(claims));
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Pair::P256(pair) | Pair::P384(pair) => {
                pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
            }
            Pair::Secret(key) => hmac::sign(key, message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    fn header(&self) -> Value {
        json!({"alg": self.algorithm(), "kid": self.id, "typ": "JWT"})
    }

    /// Token with the claims of [`claims`], replaced by `changes`; null removes a claim.
    fn token(&self, changes: &Value) -> String {
        self.sign(&self.header(), &claims(changes))
    }
}

fn claims(changes: &Value) -> String {
    let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": PERSON, "sid": "s", "exp": NOW + 600});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(NOW * 1_000_000))
}

fn with(keys: JwtKeys) -> JwtAuthenticator {
    JwtAuthenticator::new(keys, ISSUER, AUDIENCE).with_clock(clock())
}

fn of(keys: &[Value]) -> JwtAuthenticator {
    with(JwtKeys::from_json(&jwks(keys)).unwrap())
}

/// Result of a token: `ok`, `failed`, or the reason why it is refused.
async fn result(authenticator: &JwtAuthenticator, token: &str) -> &'static str {
    match authenticator.verify(token).await {
        Ok(principal) => {
            assert_eq!(principal.person().to_string(), PERSON);
            "ok"
        }
        Err(Failure::Refused(reason)) => reason,
        Err(Failure::Failed(_)) => "failed",
    }
}

const WRONG_SIGNATURE: &str = "its signature is wrong";
const NO_KEY: &str = "no key has its id and algorithm";
const NOT_ALLOWED: &str = "its algorithm is not allowed";
const NO_JWT: &str = "it is no JWT of a known algorithm";

#[tokio::test]
async fn tokens_of_each_algorithm_are_accepted() {
    for signer in [Signer::ed25519("k"), Signer::p256("k"), Signer::p384("k")] {
        let authenticator = of(&[signer.jwk()]);
        assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok", "{}", signer.algorithm());
        let without_id = signer.sign(&json!({"alg": signer.algorithm()}), &claims(&json!({})));
        assert_eq!(result(&authenticator, &without_id).await, "ok", "{}", signer.algorithm());
    }
    let rsa = of(&[rsa_key(RSA_N)]);
    for (algorithm, signature) in [("RS256", RS256_SIGNATURE), ("PS256", PS256_SIGNATURE)] {
        assert_eq!(result(&rsa, &rsa_token(algorithm, signature)).await, "ok", "{algorithm}");
    }
    let secret = with(JwtKeys::from_secret(&Secret::new(SECRET.to_owned())).unwrap());
    let signer = Signer::secret("any", SECRET.as_bytes());
    assert_eq!(result(&secret, &signer.token(&json!({}))).await, "ok");
    assert!(JwtKeys::from_secret(&Secret::new(SECRET[1..].to_owned())).is_err());
}

#[tokio::test]
async fn claims_are_checked() {
    let signer = Signer::ed25519("k");
    let authenticator = of(&[signer.jwk()]);
    let lacks = "it lacks `exp`, `iss` or `aud`";
    for (expected, changes) in [
        ("ok", json!({})),
        ("its audience is another one", json!({"aud": "other"})),
        ("its audience is another one", json!({"aud": ["other", "others"]})),
        ("its audience is another one", json!({"aud": []})),
        ("ok", json!({"aud": ["other", AUDIENCE]})),
        (lacks, json!({"aud": null})),
        (lacks, json!({"aud": 7})),
        ("its issuer is another one", json!({"iss": "https://id.example.org"})),
        (lacks, json!({"iss": null})),
        ("its issuer is another one", json!({"iss": [ISSUER]})),
        ("its issuer is another one", json!({"iss": [ISSUER, "https://other.example/"]})),
        (lacks, json!({"iss": 7})),
        (lacks, json!({"exp": null})),
        (lacks, json!({"exp": "1800000600"})),
        (lacks, json!({"exp": -1})),
        (lacks, json!({"exp": true})),
        ("its `exp` is no time", json!({"exp": u64::MAX})),
        (lacks, json!({"exp": 1e300})),
        ("it has expired", json!({"exp": 0})),
        ("it has expired", json!({"exp": NOW - 60})),
        ("ok", json!({"exp": NOW - 59})),
        ("ok", json!({"exp": 1_800_000_600.5})),
        ("ok", json!({"exp": 9_000_000_000_000_000_u64})),
        ("ok", json!({"nbf": NOW + 60})),
        ("it is not valid yet", json!({"nbf": NOW + 61})),
        ("its `nbf` is no time", json!({"nbf": "0"})),
        ("its `nbf` is no time", json!({"nbf": -5})),
        ("it names no person", json!({"sub": null})),
        ("it names no person", json!({"sub": 7})),
        ("it names no person", json!({"sub": "ana"})),
        ("it names no person", json!({"sub": ""})),
    ] {
        assert_eq!(result(&authenticator, &signer.token(&changes)).await, expected, "{changes}");
    }
    let twice = format!(r#"{{"aud":"other",{}"#, &claims(&json!({}))[1..]);
    assert_eq!(result(&authenticator, &signer.sign(&signer.header(), &twice)).await, "it is malformed");
    for wrong in ["", "[]", "7", "{", "null"] {
        assert_eq!(
            result(&authenticator, &signer.sign(&signer.header(), wrong)).await,
            "it is malformed",
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn algorithm_comes_from_the_key() {
    let (ed, p256, p384) = (Signer::ed25519("ed"), Signer::p256("p256"), Signer::p384("p384"));
    let keys = [ed.jwk(), p256.jwk(), p384.jwk(), rsa_key(RSA_N)];
    let authenticator = of(&keys);
    let valid = claims(&json!({}));
    // An HMAC whose secret is a public key, by the id of that key.
    for public in [ed.public_bytes(), p256.public_bytes(), p384.public_bytes(), RSA_N.as_bytes()] {
        for id in ["ed", "p256", "p384", "rsa"] {
            assert_eq!(
                result(&authenticator, &Signer::secret(id, public).token(&json!({}))).await,
                NOT_ALLOWED
            );
        }
    }
    for algorithm in ["none", "None", "NONE", "nOnE", "", "RS1", "ES256K", "dir", "HS257"] {
        let token = ed.sign(&json!({"alg": algorithm, "kid": "ed"}), &valid);
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        for token in [token, unsigned] {
            assert_eq!(result(&authenticator, &token).await, NO_JWT, "{algorithm}");
        }
    }
    // A known algorithm that the named key does not have.
    for (signer, algorithm, id) in
        [(&p256, "ES256", "p384"), (&p256, "ES384", "p256"), (&ed, "EdDSA", "rsa"), (&ed, "RS256", "ed")]
    {
        let token = signer.sign(&json!({"alg": algorithm, "kid": id}), &valid);
        assert_eq!(result(&authenticator, &token).await, NO_KEY, "{algorithm} {id}");
    }
    let only = |alg: &str| {
        let mut key = rsa_key(RSA_N);
        key["alg"] = json!(alg);
        of(&[key, ed.jwk()])
    };
    assert_eq!(result(&only("PS256"), &rsa_token("PS256", PS256_SIGNATURE)).await, "ok");
    assert_eq!(result(&only("PS256"), &rsa_token("RS256", RS256_SIGNATURE)).await, NOT_ALLOWED);
    assert_eq!(result(&only("RS512"), &rsa_token("RS256", RS256_SIGNATURE)).await, NOT_ALLOWED);
    // Keys and addresses in the header of a token do not count.
    let stranger = Signer::ed25519("ed");
    let header = json!({"alg": "EdDSA", "kid": "ed", "jwk": stranger.jwk(), "jku": "https://evil.example/"});
    assert_eq!(result(&authenticator, &stranger.sign(&header, &valid)).await, WRONG_SIGNATURE);
    let critical = json!({"alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false});
    assert_eq!(result(&authenticator, &ed.sign(&critical, &valid)).await, "it is malformed");
}

#[tokio::test]
async fn tokens_of_other_keys_are_refused() {
    for (signer, other) in [
        (Signer::ed25519("k"), Signer::ed25519("k")),
        (Signer::p256("k"), Signer::p256("k")),
        (Signer::p384("k"), Signer::p384("k")),
    ] {
        let authenticator = of(&[signer.jwk()]);
        assert_eq!(result(&authenticator, &other.token(&json!({}))).await, WRONG_SIGNATURE);
        let unknown = signer.sign(&json!({"alg": signer.algorithm(), "kid": "x"}), &claims(&json!({})));
        assert_eq!(result(&authenticator, &unknown).await, NO_KEY);
        // Two keys with one id: the second one has signed.
        assert_eq!(
            result(&of(&[signer.jwk(), other.jwk()]), &other.token(&json!({}))).await,
            "ok",
            "{}",
            signer.algorithm()
        );
    }
    let rsa = of(&[rsa_key(RSA_N)]);
    assert_eq!(result(&rsa, &rsa_token("RS256", PS256_SIGNATURE)).await, WRONG_SIGNATURE);
    assert_eq!(result(&rsa, &rsa_token("PS256", RS256_SIGNATURE)).await, WRONG_SIGNATURE);
    let secret = with(JwtKeys::from_secret(&Secret::new(SECRET.to_owned())).unwrap());
    let other = Signer::secret("k", b"another secret, which has 32 bytes");
    assert_eq!(result(&secret, &other.token(&json!({}))).await, WRONG_SIGNATURE);
}

/// Replaces each character of a token by others, cuts it at each place, and repeats parts of it.
#[tokio::test]
async fn changed_tokens_are_refused() {
    let signer = Signer::ed25519("k");
    let authenticator = of(&[signer.jwk()]);
    let token = signer.token(&json!({}));
    let mut wrong: Vec<String> = (0..token.len()).map(|end| token[..end].to_owned()).collect();
    for at in 0..token.len() {
        for other in ["A", "b", "_", ".", "=", " ", "ü", ""] {
            wrong.push(format!("{}{other}{}", &token[..at], &token[at + 1..]));
        }
        wrong.push(format!("{}{}", &token[at..], token));
    }
    let parts: Vec<&str> = token.split('.').collect();
    wrong.extend([
        format!("{}..{}", parts[0], parts[2]),
        format!("{token}.{}", parts[2]),
        format!(".{token}"),
        "..".to_owned(),
        "\0.\0.\0".to_owned(),
        "a".repeat(MAX_TOKEN_BYTES + 1),
        signer.token(&json!({"pad": "a".repeat(MAX_TOKEN_BYTES)})),
        signer.sign(&signer.header(), &"[".repeat(5_000)),
    ]);
    wrong.retain(|wrong| *wrong != token && *wrong != token.repeat(2));
    assert!(wrong.len() > 1_000);
    for wrong in wrong {
        assert_ne!(result(&authenticator, &wrong).await, "ok", "{wrong}");
    }
    assert_eq!(result(&authenticator, &token).await, "ok");
    let longest = signer.token(&json!({"pad": "a".repeat(8_000)}));
    assert_eq!(result(&authenticator, &longest).await, "ok");
}

#[tokio::test]
async fn unusable_keys_of_a_set_are_ignored() {
    let signer = Signer::ed25519("good");
    let changed = |name: &str, value: Value| {
        let mut key = signer.jwk();
        key["kid"] = json!("other");
        key[name] = value;
        key
    };
    let ec_key = |curve: &str, x: usize, y: usize| {
        let [x, y] = [x, y].map(|length| BASE64URL_NOPAD.encode(&vec![1; length]));
        json!({"kty": "EC", "crv": curve, "kid": "other", "x": x, "y": y})
    };
    let rsa_key_with = |e: &str| json!({"kty": "RSA", "kid": "rsa", "n": RSA_N, "e": e});
    let unusable = [
        changed("use", json!("enc")),
        changed("use", json!("other")),
        changed("key_ops", json!(["sign"])),
        changed("alg", json!("ES256")),
        changed("alg", json!("RSA-OAEP")),
        changed("crv", json!("Ed448")),
        changed("crv", json!("secp256k1")),
        changed("kty", json!("AKP")),
        changed("x", json!("not base64!")),
        changed("x", json!(7)),
        changed("x", json!(BASE64URL_NOPAD.encode(&[1; 31]))),
        changed("x", json!(BASE64URL_NOPAD.encode(&[1; 33]))),
        changed("x", json!("")),
        ec_key("P-256", 31, 32),
        ec_key("P-256", 31, 33),
        ec_key("P-256", 48, 48),
        ec_key("P-384", 47, 49),
        ec_key("P-384", 32, 32),
        rsa_key(SHORT_RSA_N),
        rsa_key(&BASE64URL_NOPAD.encode(&[1; 1025])),
        rsa_key(&BASE64URL_NOPAD.encode(&[2; 256])),
        rsa_key_with("AA"),
        rsa_key_with("AQ"),
        rsa_key_with("AQAA"),
        rsa_key_with("AgAAAAE"),
        rsa_key_with(""),
        json!({"kty": "oct", "kid": "other", "k": BASE64URL_NOPAD.encode(SECRET.as_bytes())}),
        json!({}),
        json!("text"),
        Value::Null,
    ];
    for key in &unusable {
        let error = JwtKeys::from_json(&jwks(std::slice::from_ref(key))).expect_err(&key.to_string());
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
    }
    for wrong in ["", "{}", "[]", r#"{"keys":7}"#, r#"{"keys":[]}"#] {
        assert!(JwtKeys::from_json(wrong).is_err(), "{wrong}");
    }
    let mut keys = unusable.to_vec();
    keys.push(signer.jwk());
    let authenticator = of(&keys);
    assert_eq!(result(&authenticator, &signer.token(&json!({}))).await, "ok");
    let other = signer.sign(&json!({"alg": "EdDSA", "kid": "other"}), &claims(&json!({})));
    assert_eq!(result(&authenticator, &other).await, NO_KEY);
    assert_eq!(result(&authenticator, &rsa_token("RS256", SHORT_RSA_SIGNATURE)).await, NOT_ALLOWED);
    let mut named = signer.jwk();
    (named["use"], named["alg"], named["key_ops"]) = (json!("sig"), json!("EdDSA"), json!(["verify"]));
    assert_eq!(result(&of(&[named]), &signer.token(&json!({}))).await, "ok");
}

#[tokio::test]
async fn rsa_key_may_have_zeros_in_front() {
    let modulus = BASE64URL_NOPAD.decode(RSA_N.as_bytes()).unwrap();
    let mut key = rsa_key(&BASE64URL_NOPAD.encode(&[&[0][..], &modulus].concat()));
    key["e"] = json!("AAABAAE");
    let authenticator = of(&[key]);
    assert_eq!(result(&authenticator, &rsa_token("RS256", RS256_SIGNATURE)).await, "ok");
    assert_eq!(result(&authenticator, &rsa_token("PS256", PS256_SIGNATURE)).await, "ok");
}

#[tokio::test]
async fn keys_with_the_id_win_over_keys_without_one() {
    let (named, unnamed) = (Signer::ed25519("k"), Signer::ed25519("k"));
    let mut key = unnamed.jwk();
    key.as_object_mut().unwrap().remove("kid");
    let both = of(&[key.clone(), named.jwk()]);
    assert_eq!(result(&both, &named.token(&json!({}))).await, "ok");
    assert_eq!(result(&both, &unnamed.token(&json!({}))).await, WRONG_SIGNATURE);
    assert_eq!(result(&of(&[key]), &unnamed.token(&json!({}))).await, "ok");
    let without_id = unnamed.sign(&json!({"alg": "EdDSA"}), &claims(&json!({})));
    assert_eq!(result(&both, &without_id).await, "ok");
}

#[tokio::test]
async fn principal_has_person_session_and_end() {
    let signer = Signer::ed25519("k");
    let authenticator = of(&[signer.jwk()]);
    let principal = async |changes: &Value| authenticator.verify(&signer.token(changes)).await.unwrap();
    let one = principal(&json!({})).await;
    assert_eq!((one.person().to_string(), one.session()), (PERSON.to_owned(), Some("s")));
    assert_eq!(one.expires_at(), Some(Timestamp::from_micros((NOW + 660) * 1_000_000)));
    assert_eq!(principal(&json!({"jti": "j"})).await.session(), Some("s"));
    assert_eq!(principal(&json!({"sid": null, "jti": "j"})).await.session(), Some("j"));
    let explicit = claims(&json!({"jti": "j"})).replace(r#""sid":"s""#, r#""sid":null"#);
    let explicit = authenticator.verify(&signer.sign(&signer.header(), &explicit)).await.unwrap();
    assert_eq!(explicit.session(), Some("j"));
    for wrong in [json!(""), json!(7), json!(true), json!(["s"]), json!({"s": "s"})] {
        for changes in [json!({"sid": wrong, "jti": "j"}), json!({"sid": null, "jti": wrong})] {
            let refused = result(&authenticator, &signer.token(&changes)).await;
            assert_eq!(refused, "the name of its session is no text", "{changes}");
        }
    }
    let digests = [json!({"sid": null}), json!({"sid": null, "a": 1})];
    let [first, again, other] =
        [principal(&digests[0]).await, principal(&digests[0]).await, principal(&digests[1]).await];
    assert_eq!((first.session(), first.session().unwrap().len()), (again.session(), 43));
    assert_ne!(first.session(), other.session());

    let people = |text: &str| text.strip_prefix("user|")?.parse().ok();
    let own = of(&[signer.jwk()])
        .with_person_claim("user")
        .with_person_of(people)
        .with_session_claim("device")
        .with_audience("admin-api")
        .with_clock_skew(Duration::ZERO)
        .with_check(|claims| claims.get("scope").and_then(Value::as_str) == Some("love"));
    let good = json!({"user": format!("user|{PERSON}"), "sub": null, "device": "d", "scope": "love", "aud": "admin-api"});
    let accepted = own.verify(&signer.token(&good)).await.unwrap();
    assert_eq!(accepted.session(), Some("d"));
    assert_eq!(accepted.expires_at(), Some(Timestamp::from_micros((NOW + 600) * 1_000_000)));
    for (expected, name, value) in [
        ("ok", "aud", json!(AUDIENCE)),
        ("it names no person", "user", json!(PERSON)),
        ("the host refuses its claims", "scope", json!("hate")),
        ("it has expired", "exp", json!(NOW)),
        ("it is not valid yet", "nbf", json!(NOW + 1)),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        assert_eq!(result(&own, &signer.token(&claims)).await, expected, "{name}");
    }
}

/// The other signature that an ECDSA key accepts for the same message: `s` is replaced by the group's order less `s`.
fn with_other_signature(token: &str) -> String {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let mut borrowed = false;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER).rev() {
        let (difference, first) = order.overflowing_sub(*byte);
        let (difference, second) = difference.overflowing_sub(u8::from(borrowed));
        (*byte, borrowed) = (difference, first || second);
    }
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

#[tokio::test]
async fn another_signature_does_not_rename_the_session() {
    let signer = Signer::p256("k");
    let authenticator = of(&[signer.jwk()]);
    let token = signer.token(&json!({"sid": null}));
    let other = with_other_signature(&token);
    assert_ne!(token, other);
    let [one, two] =
        [authenticator.verify(&token).await.unwrap(), authenticator.verify(&other).await.unwrap()];
    assert_eq!(one.session(), two.session());
}

#[tokio::test]
async fn principal_ends_with_the_lifetime_at_the_latest() {
    let signer = Signer::ed25519("k");
    let token = signer.token(&json!({"exp": 253_402_300_799_u64}));
    let seconds = async |authenticator: JwtAuthenticator| {
        let end = authenticator.verify(&token).await.unwrap().expires_at().unwrap();
        end.since(clock().now()).as_secs()
    };
    assert_eq!(seconds(of(&[signer.jwk()])).await, 24 * 60 * 60);
    assert_eq!(seconds(of(&[signer.jwk()]).with_lifetime(Duration::from_mins(5))).await, 300);
}

#[tokio::test]
async fn type_of_tokens_can_be_required() {
    let signer = Signer::ed25519("k");
    let other = "its type is another one";
    let types = [
        ("ok", json!("at+jwt")),
        ("ok", json!("AT+JWT")),
        ("ok", json!("application/at+jwt")),
        ("ok", json!("Application/At+Jwt")),
        (other, json!("JWT")),
        (other, json!("logout+jwt")),
        (other, json!("text/at+jwt")),
        (other, json!("application/")),
        (other, json!("")),
        (other, json!("ünïcödé ünïcödé")),
        (other, Value::Null),
    ];
    for required in ["at+jwt", "application/AT+jwt"] {
        let authenticator = of(&[signer.jwk()]).with_type(required);
        for (expected, typ) in &types {
            let mut header = signer.header();
            header["typ"] = typ.clone();
            let token = signer.sign(&header, &claims(&json!({})));
            assert_eq!(result(&authenticator, &token).await, *expected, "{typ}");
        }
        let without = signer.sign(&json!({"alg": "EdDSA", "kid": "k"}), &claims(&json!({})));
        assert_eq!(result(&authenticator, &without).await, other);
    }
}

#[test]
fn errors_of_a_key_do_not_end_the_search() {
    for error in [
        TokenError::InvalidSignature,
        TokenError::InvalidEcdsaKey,
        TokenError::InvalidEddsaKey,
        TokenError::InvalidRsaKey(String::new()),
        TokenError::InvalidKeyFormat,
        TokenError::Provider(String::new()),
    ] {
        assert_eq!(Rejection::of(&error), Rejection::Unverified(WRONG_SIGNATURE), "{error:?}");
    }
    for error in [
        TokenError::InvalidToken,
        TokenError::InvalidAudience,
        TokenError::MissingRequiredClaim(String::new()),
        TokenError::InvalidClaimFormat(String::new()),
    ] {
        assert!(matches!(Rejection::of(&error), Rejection::Invalid(_)), "{error:?}");
    }
}

/// Sessions of the host, of which some have ended.
struct Revoked(Arc<Mutex<Vec<&'static str>>>);

#[async_trait]
impl SessionChecker for Revoked {
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        let revoked = self.0.lock().unwrap();
        Ok(principals.iter().map(|one| !revoked.contains(&one.session().unwrap())).collect())
    }
}

fn request(headers: &[&str]) -> Parts {
    let mut request = Request::new(()).into_parts().0;
    for value in headers {
        request.headers.append("authorization", HeaderValue::from_str(value).unwrap());
    }
    request
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
