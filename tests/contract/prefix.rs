//! Every URL in a response works when a host nests the router below a prefix.

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use couple::{
    Backend,
    core::{limits::Unlimited, mail::Message},
    http::HttpOptions,
};
use tower::ServiceExt as _;

use crate::world::{World, png};

const HOST: &str = "https://my.app";

struct Nested {
    world: World,
    app: Router,
}

impl Nested {
    fn new() -> Self {
        // A slash at the end of the public URL makes no difference.
        let builder = Backend::builder().limits(Unlimited).public_url(format!("{HOST}/api/"));
        let world = World::of(builder, HttpOptions::default());
        let app = Router::new().nest("/api", world.app.clone());
        Self { world, app }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> axum::response::Response {
        let request = Request::builder().method(method).uri(path).header("tus-resumable", "1.0.0");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = match token {
            "" => request,
            token => request.header("authorization", format!("Bearer {token}")),
        };
        self.app.clone().oneshot(request.body(body).unwrap()).await.unwrap()
    }

    /// Checks that a URL in the response to a request for `path` works.
    async fn works(&self, method: &str, path: &str, url: &str, token: &str) {
        let target = resolve(path, url);
        assert!(target.starts_with("/api/"), "{url} in the response to {path}");
        let status = self.send(method, &target, token, &[], Body::empty()).await.status();
        assert_eq!(status, StatusCode::OK, "{url} in the response to {path}");
    }

    async fn json(&self, path: &str, token: &str) -> serde_json::Value {
        let response = self.send("GET", path, token, &[], Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap()).unwrap()
    }
}

/// Resolves a reference in the response to a request for `path` (RFC 3986, 5.2).
fn resolve(path: &str, reference: &str) -> String {
    if let Some(path) = reference.strip_prefix(HOST) {
        return path.to_owned();
    }
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let mut segments: Vec<&str> = path.split('/').collect();
    segments.pop();
    for segment in reference.split('/') {
        match segment {
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.join("/")
}

#[tokio::test]
async fn urls_of_resumable_uploads_work_below_a_prefix() {
    let nested = Nested::new();
    let (ana, _) = nested.world.couple("ana@example.org", "ben@example.org").await;
    for path in ["/api/v1/uploads", "/api/v1/uploads/", "/api/v1/uploads//"] {
        let bytes = png(40, 30);
        let headers = [
            ("upload-length", bytes.len().to_string()),
            ("upload-metadata", "purpose cGhvdG8=".to_owned()),
            ("content-type", "application/offset+octet-stream".to_owned()),
        ];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let created = nested.send("POST", path, &ana, &headers, bytes.into()).await;
        assert_eq!(created.status(), StatusCode::CREATED);
        let location = created.headers()["location"].to_str().unwrap();
        nested.works("HEAD", path, location, &ana).await;
        nested.works("GET", path, created.headers()["content-location"].to_str().unwrap(), &ana).await;
        let upload = resolve(path, location);
        let asked = nested.send("HEAD", &upload, &ana, &[], Body::empty()).await;
        nested.works("GET", &upload, asked.headers()["content-location"].to_str().unwrap(), &ana).await;
    }
}

#[tokio::test]
async fn urls_of_pictures_work_below_a_prefix() {
    let nested = Nested::new();
    let (ana, _) = nested.world.couple("ana@example.org", "ben@example.org").await;
    let id = nested.world.upload(&ana, "purpose=photo", png(400, 300)).await.text("id");
    nested.world.work().await;
    let path = format!("/api/v1/media/{id}");
    let picture = nested.json(&path, &ana).await;
    let renditions = picture["renditions"].as_array().unwrap();
    assert!(!renditions.is_empty());
    for rendition in renditions {
        nested.works("GET", &path, rendition["url"].as_str().unwrap(), &ana).await;
        nested.works("GET", &path, rendition["signed_url"].as_str().unwrap(), "").await;
    }
    let export = nested.json("/api/v1/me/export", &ana).await;
    let exported = export["pictures"][0]["url"].as_str().unwrap();
    assert!(exported.starts_with(HOST), "the document is read without its URL: {exported}");
    nested.works("GET", "/api/v1/me/export", exported, &ana).await;
}

#[tokio::test]
async fn links_in_mails_work_below_a_prefix() {
    let nested = Nested::new();
    nested.world.sign_up("ana@example.org").await;
    let (_, token) = nested.world.mailed("ana@example.org");
    let mails = nested.world.mailer.sent();
    let Message::ConfirmSignUp { link, .. } = &mails[0].message else { panic!("{:?}", mails[0].message) };
    let link = link.expose();
    assert_eq!(*link, format!("{HOST}/api/open/verify#{token}"));
    nested.works("GET", "", link.split('#').next().unwrap(), "").await;
    // A link whose `#` a mail program escaped redirects to its page.
    for slashes in ["", "/", "//"] {
        let path = format!("/api/open/verify%23{token}{slashes}");
        let redirect = nested.send("GET", &path, "", &[], Body::empty()).await;
        let location = resolve(&path, redirect.headers()["location"].to_str().unwrap());
        assert_eq!(location, format!("/api/open/verify#{token}"));
    }
}

#[tokio::test]
async fn openapi_document_names_the_prefix() {
    let nested = Nested::new();
    let path = "/api/v1/openapi.json";
    let document = nested.json(path, "").await;
    let server = document["servers"][0]["url"].as_str().unwrap();
    assert!(document["paths"]["/healthz"].is_object());
    nested.works("GET", path, &format!("{server}/healthz"), "").await;
    let at_the_root = World::new().call("GET", "/v1/openapi.json", None, None).await;
    assert!(at_the_root.body["servers"].is_null());
}
