//! A host with its own users, sessions and tables, which mounts parts of the back end under `/love`.
//!
//! | file | content |
//! |---|---|
//! | `main.rs` | store in the host's SQLite file, backend, routes |
//! | `users.rs` | users and sessions in the host's tables, as directory and authenticator |
//! | `gifts.rs` | a route of the host, whose row is written in the same commit as an entry and a job |
//! | `mails.rs` | mails in the host's words |
//! | `tour.rs` | HTTP requests of two users, which check all of it; a host has none |

#![expect(clippy::print_stdout, reason = "an example prints its results")]

mod gifts;
mod mails;
mod tour;
mod users;

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::FromRef,
    routing::{get, post},
};
use couple::{
    Backend, OsEntropy, Role,
    account::AccountPolicy,
    blobs::Blobs,
    events::Event,
    http::{Api, HttpOptions, ServeOptions, routes},
    notify::mail::{FileMailer, Letterhead},
    store::{KeyFile, sql::SqliteOptions},
    timeline::EntryKind,
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::sync::oneshot;
use users::Users;
use utoipa::OpenApi as _;

/// State of the host's routes. With an `Api` in it, they can have a `Caller` and `RequestMeta`.
#[derive(Clone)]
struct Host {
    api: Api,
    users: Users,
}

impl FromRef<Host> for Api {
    fn from_ref(host: &Host) -> Self {
        host.api.clone()
    }
}

impl FromRef<Host> for Users {
    fn from_ref(host: &Host) -> Self {
        host.users.clone()
    }
}

/// OpenAPI document of the host; the parts of the back end are merged into it.
#[derive(utoipa::OpenApi)]
#[openapi(info(title = "Presents", version = "1.0.0"), paths(users::sign_up, users::delete, gifts::give))]
struct Document;

/// Composes the backend and the routes, with all data in one folder.
async fn host(folder: &Path, pool: &SqlitePool, origin: &str) -> Result<(Backend, Router), Box<dyn Error>> {
    sqlx::raw_sql(users::TABLES).execute(pool).await?;
    sqlx::raw_sql(gifts::TABLE).execute(pool).await?;
    let (pool, users) = (pool.clone(), Users::new(pool.clone()));

    let letterhead = Letterhead::new("Presents", "presents@example.org")?.with_templates(mails::german);
    let mailer = Arc::new(FileMailer::new(folder.join("mails"), letterhead)?);
    let backend = Backend::builder()
        .public_url(format!("{origin}/love"))
        .store(SqliteOptions::of_pool(&pool).open().await?)
        .blobs(Blobs::files(folder.join("pictures"))?)
        .keys(KeyFile::new(folder.join("couple.key")).open(&OsEntropy)?)
        .accounts(AccountPolicy::default().with_deletion_grace(Duration::ZERO))
        .mailer(mailer.clone())
        .directory(users.clone())
        .authenticator(users.clone())
        .entry_kind(EntryKind::new(gifts::KIND).with_client_appends(false))
        .on(|event, additions| match event {
            Event::AccountErased { account } => additions.enqueue(&gifts::DeleteGifts { giver: *account }),
            _ => Ok(()),
        })
        .jobs(move |jobs, backend| {
            let pool = pool.clone();
            jobs.with(mails::MailGift::new(backend, mailer.clone()))
                .with_fn(move |job, _| gifts::delete(pool.clone(), job))
        })
        .build()?;

    let api = Api::new(backend.clone(), HttpOptions::default());
    let love = routes::pairing(&api).merge(routes::timeline(&api)).merge(routes::live(&api));
    let (love, document) = love.merge(routes::media(&api)).merge(routes::pages(&api)).into_parts();
    let document = Document::openapi().nest("/love", document);
    let app = Router::new()
        .route("/account", post(users::sign_up).delete(users::delete))
        .route("/gifts", post(gifts::give))
        .route("/openapi.json", get(async || Json(document)))
        .with_state(Host { api, users })
        .nest("/love", love);
    Ok((backend, app))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let listener = couple::http::listen(([127, 0, 0, 1], 0).into())?;
    let address = listener.local_addr()?;
    let file = SqliteConnectOptions::new().filename(folder.path().join("app.db")).create_if_missing(true);
    let pool = SqlitePool::connect_with(file.journal_mode(SqliteJournalMode::Wal)).await?;
    let (backend, app) = host(folder.path(), &pool, &format!("http://{address}")).await?;

    // A host waits for a signal here.
    let (stop, stopped) = oneshot::channel::<()>();
    let service = backend.service(Role::All).with_listener(listener, app, ServeOptions::default());
    let server = tokio::spawn(service.run(async { drop(stopped.await) }));
    let result = tour::run(address, folder.path(), &pool, &backend).await;
    drop(stop);
    server.await??;
    result
}
