//! Pages behind the links in mails.
//!
//! The token is in the URL's fragment, which no server, proxy or log sees. Loading the page changes nothing; only the button does. The
//! page calls the same API as an app.
//!
//! The link that stops the digests is an exception: mail programs send its token (RFC 8058), so that it is part of the path. It can do
//! nothing else.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse as _, Response},
    routing::get,
};

use couple_core::{Failure, notification::UNSUBSCRIBE_PATH};
use couple_notify::mail::StopPage;
use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};

use super::{App, Problem, extract::PathParam, trailing_slashes::TrailingSlashes};

pub(super) fn routes() -> Router<App> {
    let stop = format!("{UNSUBSCRIBE_PATH}{{token}}");
    Router::new().route("/open/{page}", get(page)).route(&stop, get(ask_to_stop).post(stop_digests))
}

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Policy of the pages: their own style and script, which are known by their hashes, and calls of the API.
static CONTENT_SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(&Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// Maximum length of a link's token.
const MAX_TOKEN_CHARS: usize = 256;

/// Page and token of a link whose `#` a mail program escaped, with the token in the fragment again.
///
/// None: it is no such link.
fn unescaped(page: &str) -> Option<String> {
    let (page, token) = page.split_once('#')?;
    let known = ["verify", "email", "password", "invite", "signin", "cancel"].contains(&page);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    (known && (1..=MAX_TOKEN_CHARS).contains(&token.len()) && token.bytes().all(plain))
        .then(|| format!("{page}#{token}"))
}

async fn page(State(app): State<App>, slashes: TrailingSlashes, PathParam(page): PathParam) -> Response {
    if let Some(link) = unescaped(&page) {
        // Relative to the requested address, so that it works under any prefix.
        let headers =
            [(header::LOCATION, slashes.sibling(&link)), (header::REFERRER_POLICY, "no-referrer".to_owned())];
        return (StatusCode::SEE_OTHER, headers).into_response();
    }
    let (title, lead, button, field) = match page.as_str() {
        "verify" => ("Confirm your address", "One tap and your account is ready.", "Confirm", "optional"),
        "email" => {
            ("Confirm your new address", "From then on your account uses this address.", "Confirm", "")
        }
        "cancel" => (
            "Keep your address",
            "Someone who is signed in to your account asked to use another address for it. You can stop this.",
            "Keep my address",
            "",
        ),
        "signin" => ("Sign in", "Open the app, choose “I have a link” and enter this:", "Copy", ""),
        "password" => ("Set a new password", "Every device will be signed out.", "Set password", "required"),
        "invite" => {
            ("You are invited", "Open the app, choose “I have an invite” and enter this:", "Copy", "")
        }
        _ => return Problem::new("not_found").into_response(),
    };
    if page != "invite" && app.backend.accounts().is_err() {
        return Problem::new("not_found").into_response();
    }
    let input = match field {
        "required" => {
            "<label>New password, at least 15 characters<input id=password type=password minlength=15 autocomplete=new-password required></label>"
        }
        "optional" => {
            "<label>Password, at least 15 characters (or leave it empty and sign in by mailed code)<input id=password type=password minlength=15 autocomplete=new-password></label>"
        }
        _ => "",
    };
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta name=referrer content=no-referrer><title>{title}</title><style>{STYLE}</style>\
         <main data-page={page}><h1>{title}</h1><p id=lead>{lead}</p><form id=form>{input}\
         <output id=token></output><button>{button}</button></form><p id=said role=status></p></main>\
         <script>{SCRIPT}</script></html>"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, Html(html)).into_response()
}

/// Policy of the page that stops the digests: its own style, and its form.
static STOP_POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        BASE64.encode(&Sha256::digest(STYLE))
    )
});

/// Page about the digests, in the language of the browser, with a button if it asks.
fn stop_page(headers: &HeaderMap, status: StatusCode, text: fn(&StopPage) -> &str, asks: bool) -> Response {
    let language = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let page = StopPage::nearest(language.unwrap_or_default());
    let direction = if page.is_right_to_left { "rtl" } else { "ltr" };
    let form = match asks {
        true => format!("<form method=post><button>{}</button></form>", page.button),
        false => String::new(),
    };
    let html = format!(
        "<!doctype html><html lang={} dir={direction}><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\"><meta name=robots content=noindex>\
         <title>{title}</title><style>{STYLE}</style>\
         <main><h1>{title}</h1><p role=status>{}</p>{form}</main></html>",
        page.language,
        text(&page),
        title = page.title
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, STOP_POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "Accept-Language"),
    ];
    (status, headers, Html(html)).into_response()
}

/// Asks whether to stop the digests. Mail programs and scanners open links: it changes nothing and reads nothing.
async fn ask_to_stop(headers: HeaderMap) -> Response {
    stop_page(&headers, StatusCode::OK, |page| &page.question, true)
}

/// Stops the digests of the token's person: the button of the page, or one click in a mail program (RFC 8058, 3.1).
///
/// The body is ignored, whatever its type, and neither a session nor a cookie is needed.
async fn stop_digests(State(app): State<App>, headers: HeaderMap, PathParam(token): PathParam) -> Response {
    match app.backend.notifications().unsubscribe(&token).await {
        Ok(()) => stop_page(&headers, StatusCode::OK, |page| &page.done, false),
        Err(Failure::Refused(_)) => stop_page(&headers, StatusCode::NOT_FOUND, |page| &page.failed, false),
        Err(Failure::Failed(error)) => Problem::from(error).into_response(),
    }
}
