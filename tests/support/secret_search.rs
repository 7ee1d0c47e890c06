//! Search for secrets in logs and dumps: secrets of a response, usable parts of a secret, and encodings.

use std::collections::BTreeSet;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use serde_json::Value;

/// Calls `plant` with the kind and the text of each secret of a response: tokens of sessions, codes and links of invites, signed URLs.
pub(crate) fn plant_from(body: &Value, plant: &mut impl FnMut(&str, &str)) {
    match body {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_str()) {
                    ("token", Some(token)) => plant("token of a session", token),
                    ("code", Some(code)) => plant("code of an invite", code),
                    ("link", Some(link)) => plant("link of an invite", link),
                    ("signed_url", Some(url)) => plant("signed URL", url),
                    _ => plant_from(value, plant),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| plant_from(value, plant)),
        _ => {}
    }
}

/// A secret, and the parts of it that are usable by themselves.
pub(crate) fn parts(secret: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut parts = BTreeSet::from([secret.to_owned()]);
    let Ok(text) = str::from_utf8(secret) else { return parts };
    // The token of a link, the access of a signed URL, the signature of a link to S3, a code without its dashes.
    for before in ["#", "access=", "X-Amz-Signature="] {
        parts.extend(text.split_once(before).map(|(_, part)| part.split('&').next().unwrap().into()));
    }
    if text.len() <= 16 {
        parts.insert(text.replace('-', "").into());
    }
    // The random part of a token, as text and as bytes. It is Base64, which may have `_`, too.
    let tokens: Vec<_> =
        parts.iter().filter_map(|part| str::from_utf8(part).ok()).map(str::to_owned).collect();
    for (token, at) in
        tokens.iter().flat_map(|token| token.match_indices('_').map(move |(at, _)| (token, at)))
    {
        let random = &token[at + 1..];
        if random.len() >= 20 {
            parts.insert(random.into());
            parts.extend(BASE64URL_NOPAD.decode(random.as_bytes()));
        }
    }
    parts
}

/// A secret in both forms of Base64, alone and within a longer text.
pub(crate) fn base64(secret: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        // Within a longer text a secret begins at any of three positions of a group.
        for (before, skipped) in [(0, 0), (1, 2), (2, 3)] {
            let encoded = encoding.encode(&[&vec![0; before][..], secret].concat());
            let is_whole = (before + secret.len()).is_multiple_of(3);
            texts.push(encoded[skipped..encoded.len() - usize::from(!is_whole)].to_owned());
        }
    }
    texts
}

/// First position of `needle` in `text` at which `is_found` holds for the texts before and after it.
pub(crate) fn find(text: &str, needle: &str, is_found: impl Fn(&str, &str) -> bool) -> Option<usize> {
    let mut positions = text.match_indices(needle).map(|(at, _)| at);
    positions.find(|at| is_found(&text[..*at], &text[at + needle.len()..]))
}
