//! Key sets: which keys are used.

use super::*;

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
