//! API reference: Swagger UI over the document at `/v1/openapi.json`.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::get};
use utoipa_swagger_ui::Config;

use crate::site::static_file;

/// Files of Swagger UI that the page `docs/index.html` loads. The library's own page has inline scripts.
const FILES: [(&str, &str); 2] =
    [("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")];

/// Routes of the files of Swagger UI, which are compiled into the binary.
pub(crate) fn routes() -> Router {
    let config = Arc::new(Config::default());
    let mut router = Router::new();
    for (name, media_type) in FILES {
        let Ok(Some(file)) = utoipa_swagger_ui::serve(name, config.clone()) else { continue };
        let content = Bytes::from(file.bytes.into_owned());
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let tag = format!("{:016x}", hasher.finish());
        let serve = async move |headers: HeaderMap| static_file(&headers, &tag, media_type, content);
        router = router.route(&format!("/docs/{name}"), get(serve));
    }
    router
}
