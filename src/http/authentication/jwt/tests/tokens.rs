//! Tokens: signatures, algorithms, claims and the principal.

use super::*;

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
