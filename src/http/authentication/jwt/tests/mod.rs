//! JSON Web Tokens of an identity provider, with keys and tokens of the tests.

mod key_sets;
mod remote_keys;
mod requests;
mod tokens;

use axum::http::{HeaderValue, Request};
use couple_core::{ManualClock, Secret};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _,
    },
};
use serde_json::json;

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

/// Request with these headers `authorization`.
fn request(headers: &[&str]) -> Parts {
    let mut request = Request::new(()).into_parts().0;
    for value in headers {
        request.headers.append("authorization", HeaderValue::from_str(value).unwrap());
    }
    request
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
