//! Conditional requests (RFC 9110, section 13).

use axum::http::{HeaderMap, header};

/// Whether `If-None-Match` matches a strong entity tag, which is given with its quotes.
///
/// The comparison is weak: `W/"a"` matches `"a"`. `*` matches every tag. A tag may contain commas, and bytes that are no ASCII. After a
/// syntax error the rest of the field is ignored.
pub(super) fn matches_none(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|field| names(field.as_bytes(), tag.as_bytes()))
}

fn names(field: &[u8], tag: &[u8]) -> bool {
    let mut rest = field.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        // Empty elements of a list are ignored (RFC 9110, 5.6.1.2).
        rest = rest.trim_ascii_start();
        while let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
        }
        rest = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(end) =
            rest.strip_prefix(b"\"").and_then(|inner| inner.iter().position(|byte| *byte == b'"'))
        else {
            return false;
        };
        let (one, after) = rest.split_at(end + 2);
        if one == tag {
            return true;
        }
        rest = after.trim_ascii_start();
        if !rest.starts_with(b",") {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn matches(fields: &[&[u8]]) -> bool {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_bytes(field).unwrap());
        }
        matches_none(&headers, "\"t\"")
    }

    #[test]
    fn tag_is_found_in_lists_and_in_its_weak_form() {
        for field in [
            &b"\"t\""[..],
            b"W/\"t\"",
            b" \"a\",\"t\" ",
            b"\"a\" , W/\"t\", \"b\"",
            b",, \"a\" ,, \"t\"",
            b"\"a,b\", \"t\"",
            b"\"\xe4\", \"t\"",
            b"\"W/\", \"t\"",
            b"*",
            b" * ",
        ] {
            assert!(matches(&[field]), "{field:?}");
        }
        assert!(matches(&[b"\"a\"", b"\"t\""]), "a second field");
    }

    #[test]
    fn other_tags_and_errors_do_not_match() {
        for field in [
            &b""[..],
            b"\"T\"",
            b"\"\"",
            b"t",
            b"\"t",
            b"w/\"t\"",
            b"W/ \"t\"",
            b"W/W/\"t\"",
            b"\"a\" \"t\"",
            b"\"a,\"t\",b\"",
            b"a, \"t\"",
            b"**",
            b"\"a\", *",
            b"\"*\"",
        ] {
            assert!(!matches(&[field]), "{field:?}");
        }
        assert!(!matches(&[]));
    }
}
