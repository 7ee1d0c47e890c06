//! Pages for developers: start page, demo, mailbox and API reference. They belong to this example, not to the library.
//!
//! They are served on a loopback address only, unless `COUPLE_DEMO=on`.

use std::{net::IpAddr, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    assets, mailbox,
    push_log::PushLog,
    settings::{Database, Mail, Pictures, Settings},
};

/// Policy of every page: scripts, styles and connections of this server only, none of them inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' blob: data:; media-src 'self' blob:; font-src 'self'; connect-src 'self'; worker-src 'self'; \
     manifest-src 'self'; frame-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'";

/// Headers by which a request shows that a proxy has forwarded it.
const FORWARDING_HEADERS: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Routes of the pages.
///
/// `port` is the port at which the server listens. Event streams end when `stop` becomes true.
pub(crate) fn router(
    settings: &Settings,
    port: u16,
    push_log: PushLog,
    stop: watch::Receiver<bool>,
) -> Router {
    let mut router = assets::routes();
    for folder in ["/demo", "/docs", "/dev/mail"] {
        // With the slash, addresses in a page are relative to its folder.
        let to = format!("{folder}/");
        router = router.route(folder, get(async move || Redirect::permanent(&to)));
    }
    if let Mail::Files { folder, .. } = &settings.mail {
        router = router.merge(mailbox::routes(folder.clone(), push_log, stop));
    }
    let info = info(settings);
    let guard = Arc::new(Guard::new(settings, port));
    router
        .route("/dev/info", get(async move || uncached(Json(info))))
        .route_layer(middleware::from_fn_with_state(guard, guarded))
}

/// A response that no cache may keep.
pub(crate) fn uncached(response: impl axum::response::IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], response).into_response()
}

/// Description of the server for its start page. Paths are named on a loopback address only.
fn info(settings: &Settings) -> Value {
    let local = settings.listen.ip().is_loopback();
    let path = |path: &Path| {
        local.then(|| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string())
    };
    let (store, database) = match &settings.database {
        Database::Memory => ("memory", None),
        Database::Sqlite(file) => ("SQLite", path(file)),
        Database::MySql(_) => ("MySQL or MariaDB", None),
        Database::Postgres(_) => ("PostgreSQL", None),
    };
    let (pictures, picture_folder) = match &settings.pictures {
        Pictures::Memory => ("memory", None),
        Pictures::Files(folder) => ("files", path(folder)),
        Pictures::S3 { .. } => ("S3", None),
    };
    let (mail, mail_folder) = match &settings.mail {
        Mail::Files { folder, .. } => ("files", path(folder)),
        Mail::Smtp { .. } => ("SMTP", None),
        Mail::Sendmail { .. } => ("a program", None),
    };
    json!({
        "name": "couple",
        "version": env!("CARGO_PKG_VERSION"),
        "url": settings.public_url,
        "store": store,
        "database": database,
        "pictures": pictures,
        "picture_folder": picture_folder,
        "mail": mail,
        "mail_folder": mail_folder,
        "mailbox": matches!(settings.mail, Mail::Files { .. }),
        "limits": settings.limits,
    })
}

/// Decides which requests may see the pages.
struct Guard {
    port: u16,
    public: Option<PublicAddress>,
    /// Origin to which pages redirect that were requested under another loopback name.
    ///
    /// Responses of the API contain URLs of this origin, which a page of another origin cannot read.
    origin: Option<String>,
    /// Whether requests that a proxy has forwarded are refused.
    refuses_proxies: bool,
}

/// Host and port of `COUPLE_PUBLIC_URL`.
struct PublicAddress {
    host: String,
    port: u16,
    default_port: u16,
}

impl PublicAddress {
    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority: Authority = rest.split('/').next()?.parse().ok()?;
        let default_port = if scheme == "https" { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(default_port);
        Some(Self { host: authority.host().to_ascii_lowercase(), port, default_port })
    }
}

/// Whether a host name or address, in brackets if it is IPv6, is a loopback one.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

/// Host of a URL, without its port.
pub(crate) fn host_of(url: &str) -> Option<String> {
    PublicAddress::parse(url).map(|address| address.host)
}

impl Guard {
    fn new(settings: &Settings, port: u16) -> Self {
        let public = PublicAddress::parse(&settings.public_url);
        let origin = settings.public_url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        Self {
            port,
            origin: public.as_ref().is_some_and(|public| is_loopback(&public.host)).then_some(origin),
            public,
            refuses_proxies: !settings.demo_requested,
        }
    }

    /// Whether `authority` (host and port) is an address of this server.
    ///
    /// A page of another site whose name resolves to this server (DNS rebinding) sends another name.
    fn knows(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        self.is_public(&authority)
            || (is_loopback(authority.host()) && authority.port_u16().unwrap_or(80) == self.port)
    }

    fn is_public(&self, authority: &Authority) -> bool {
        self.public.as_ref().is_some_and(|public| {
            authority.host().eq_ignore_ascii_case(&public.host)
                && authority.port_u16().unwrap_or(public.default_port) == public.port
        })
    }

    /// Address of a page under the public URL; none if the page was requested under the public URL.
    fn moved(&self, request: &Request) -> Option<String> {
        let origin = self.origin.as_ref()?;
        let host = request.headers().get(header::HOST)?.to_str().ok()?.parse().ok()?;
        let path = request.uri().path();
        (path.ends_with('/') && !self.is_public(&host)).then(|| format!("{origin}{path}"))
    }

    /// Reason to refuse a request.
    fn refusal(&self, request: &Request) -> Option<&'static str> {
        let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or(""));
        let host = text("host").unwrap_or("");
        let target = request.uri().authority().map_or(host, Authority::as_str);
        if !self.knows(host) || !self.knows(target) {
            return Some(
                "These pages are served under a loopback name or the host of COUPLE_PUBLIC_URL only.\n",
            );
        }
        if self.refuses_proxies && FORWARDING_HEADERS.iter().any(|name| text(name).is_some()) {
            return Some("These pages are not served through a proxy unless COUPLE_DEMO=on.\n");
        }
        // A link on another site may open a page, and nothing else.
        let navigation =
            text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest") == Some("document");
        let same_site = matches!(text("sec-fetch-site"), None | Some("same-origin" | "none"));
        let same_origin = text("origin").is_none_or(|origin| {
            origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        });
        (!(same_site && same_origin || navigation && text("origin").is_none()))
            .then_some("Pages of other sites may not read this.\n")
    }
}

async fn guarded(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.refusal(&request) {
        Some(reason) => (StatusCode::FORBIDDEN, reason).into_response(),
        None => match guard.moved(&request) {
            Some(address) => Redirect::temporary(&address).into_response(),
            None => next.run(request).await,
        },
    };
    let headers = response.headers_mut();
    // The HTML of a mail has a policy of its own.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(public_url: &str) -> Guard {
        Guard { port: 8080, public: PublicAddress::parse(public_url), origin: None, refuses_proxies: true }
    }

    #[test]
    fn only_loopback_names_and_the_public_host_are_known() {
        let local = guard("http://127.0.0.1:8080");
        for host in
            ["127.0.0.1:8080", "localhost:8080", "LocalHost:8080", "demo.localhost:8080", "[::1]:8080"]
        {
            assert!(local.knows(host), "{host}");
        }
        for host in [
            "",
            "127.0.0.1",
            "localhost:9090",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "10.0.0.1:8080",
        ] {
            assert!(!local.knows(host), "{host}");
        }
        let public = guard("https://demo.example.org");
        assert!(public.knows("demo.example.org") && public.knows("Demo.example.org:443"));
        assert!(!public.knows("demo.example.org:80") && !public.knows("example.org"));
    }

    #[test]
    fn only_navigations_come_from_other_sites() {
        let refused = |headers: &[(&str, &str)]| {
            let mut request = Request::builder().uri("/dev/mail/messages").header("host", "localhost:8080");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let Ok(request) = request.body(axum::body::Body::empty()) else { panic!("no request") };
            guard("http://127.0.0.1:8080").refusal(&request).is_some()
        };
        assert!(!refused(&[]));
        assert!(!refused(&[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8080")]));
        assert!(!refused(&[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document")
        ]));
        assert!(refused(&[("sec-fetch-site", "cross-site")]));
        assert!(refused(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")]));
        assert!(refused(&[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "iframe")
        ]));
        assert!(refused(&[("origin", "http://evil.example")]));
        assert!(refused(&[("origin", "null")]));
        assert!(refused(&[("x-forwarded-for", "10.0.0.1")]));
    }
}
