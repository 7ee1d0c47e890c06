//! Files of the pages: embedded, compressed once, and served at addresses that name their content.
//!
//! Scripts, styles and images are below `/assets/VERSION/`. The version is a digest of all of them, so a browser may keep them without
//! asking again. Pages refer to them below `/assets/current/`, which is replaced by that path.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hasher as _},
    io::Write as _,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use rust_embed::Embed;
use utoipa_swagger_ui::Config;

/// HTML, CSS and JavaScript of the pages. A debug build reads them from the disk at its start.
#[derive(Embed)]
#[folder = "examples/server/pages"]
struct PageFiles;

/// Source of the JavaScript client, which the demo loads without a build step.
#[derive(Embed)]
#[folder = "clients/js/src"]
struct ClientSource;

/// Files of Swagger UI that the page `docs/index.html` loads. The library's own page has inline scripts.
const SWAGGER_FILES: [(&str, &str); 2] =
    [("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")];

/// Name of a file that is served at the path of its folder.
const PAGE: &str = "index.html";
/// Path in a page that stands for the path of the current version.
const CURRENT: &str = "/assets/current/";
/// A year. The address changes with the content.
const IMMUTABLE: &str = "max-age=31536000, immutable";

/// Routes of all pages and of the files that they load.
pub(crate) fn routes() -> Router {
    let (pages, assets): (Vec<_>, Vec<_>) = files().into_iter().partition(|file| file.name.ends_with(PAGE));
    let folder = format!("/assets/{}/", digest(&assets));
    let mut router = Router::new();
    for file in assets {
        // A file is served by its exact path, so a request cannot name any other file.
        let path = format!("{folder}{}", file.name);
        let file = Arc::new(file);
        router = router.route(&path, get(async move |headers: HeaderMap| file.unchanging(&headers)));
    }
    for page in pages {
        let html = String::from_utf8_lossy(&page.content).replace(CURRENT, &folder);
        let path = page_path(&page.name);
        let page = Arc::new(StaticFile::new(page.name, page.media_type, html.into()));
        router = router.route(&path, get(async move |headers: HeaderMap| page.validated(&headers)));
    }
    router
}

/// A file in memory.
struct StaticFile {
    /// Path below `/assets/VERSION/`.
    name: String,
    media_type: String,
    content: Bytes,
    /// Content in gzip, once a client has asked for it; none if it would not be smaller.
    gzip: OnceLock<Option<Bytes>>,
}

impl StaticFile {
    fn new(name: String, media_type: String, content: Bytes) -> Self {
        Self { name, media_type, content, gzip: OnceLock::new() }
    }

    /// Response that a browser may use for ever.
    fn unchanging(&self, headers: &HeaderMap) -> Response {
        ([(header::CACHE_CONTROL, IMMUTABLE)], self.encoded(headers)).into_response()
    }

    /// Response that a browser must validate before it uses it again; 304 if it has the current content.
    fn validated(&self, headers: &HeaderMap) -> Response {
        // Weak, because the compressed content has the same tag.
        let tag = format!("W/\"{}\"", digest([self]));
        let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let known = known.is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
        let caching = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
        if known {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        (caching, self.encoded(headers)).into_response()
    }

    fn encoded(&self, headers: &HeaderMap) -> Response {
        let media_type = match self.media_type.as_str() {
            text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
            other => other.to_owned(),
        };
        let described = [(header::CONTENT_TYPE, media_type), (header::VARY, "accept-encoding".to_owned())];
        let compressed = if accepts_gzip(headers) {
            self.gzip.get_or_init(|| compress(&self.content)).clone()
        } else {
            None
        };
        match compressed {
            Some(gzip) => (described, [(header::CONTENT_ENCODING, "gzip")], gzip).into_response(),
            None => (described, self.content.clone()).into_response(),
        }
    }
}

/// All embedded files.
fn files() -> Vec<StaticFile> {
    let mut files = embedded::<PageFiles>("");
    files.extend(embedded::<ClientSource>("client/"));
    let config = Arc::new(Config::default());
    for (name, media_type) in SWAGGER_FILES {
        if let Ok(Some(file)) = utoipa_swagger_ui::serve(name, config.clone()) {
            let content = into_bytes(file.bytes);
            files.push(StaticFile::new(format!("docs/{name}"), media_type.to_owned(), content));
        }
    }
    files
}

fn embedded<E: Embed>(folder: &str) -> Vec<StaticFile> {
    let read = |name: Cow<'static, str>| {
        let file = E::get(&name)?;
        let media_type = file.metadata.mimetype().to_owned();
        Some(StaticFile::new(format!("{folder}{name}"), media_type, into_bytes(file.data)))
    };
    E::iter().filter_map(read).collect()
}

/// Without a copy if the content is part of the binary.
fn into_bytes(content: Cow<'static, [u8]>) -> Bytes {
    match content {
        Cow::Borrowed(content) => Bytes::from_static(content),
        Cow::Owned(content) => content.into(),
    }
}

/// Digest of names and contents. It needs no protection against collisions that someone searches for.
fn digest<'a>(files: impl IntoIterator<Item = &'a StaticFile>) -> String {
    let mut hasher = DefaultHasher::new();
    for file in files {
        for part in [file.name.as_bytes(), &file.content] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
    }
    format!("{:016x}", hasher.finish())
}

/// Path at which a page is served.
fn page_path(name: &str) -> String {
    let path = format!("/{}", name.strip_suffix(PAGE).unwrap_or(name));
    if path == "/mail/" { "/dev/mail/".to_owned() } else { path }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && weight != Some(Ok(0.0))
    })
}

fn compress(content: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).ok()?;
    let gzip = encoder.finish().ok()?;
    (gzip.len() < content.len()).then(|| gzip.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_the_path_of_their_folder() {
        assert_eq!(page_path("index.html"), "/");
        assert_eq!(page_path("demo/index.html"), "/demo/");
        assert_eq!(page_path("mail/index.html"), "/dev/mail/");
    }

    #[test]
    fn pages_refer_only_to_files_that_exist() {
        let files = files();
        let mut references = 0;
        for page in files.iter().filter(|file| file.name.ends_with(PAGE)) {
            let html = String::from_utf8_lossy(&page.content);
            for reference in html.split(CURRENT).skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(files.iter().any(|file| file.name == name), "{} refers to {name}", page.name);
                references += 1;
            }
        }
        assert!(references > 20, "{references}");
    }

    #[test]
    fn gzip_is_sent_to_clients_that_accept_it() {
        let accepts = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            accepts_gzip(&headers)
        };
        assert!(accepts("gzip") && accepts("br, GZIP;q=0.5") && accepts("deflate , gzip ; q=1"));
        assert!(!accepts("br") && !accepts("gzip;q=0") && !accepts("gzip; q=0.0, br") && !accepts(""));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
