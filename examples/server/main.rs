//! The whole back end in one process: SQLite, mail as files, nothing to start first.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to whoever starts it")]

mod settings;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use axum::serve::ListenerExt as _;
use couple::{
    Backend, BackendBuilder, Entropy as _, Keyring, OsEntropy, Role,
    core::limits::Unlimited,
    http::HttpOptions,
    job::{Queue, WorkerHandle},
    notify::mail::{FileMailer, Letterhead, SmtpMailer},
    store::sql::SqliteOptions,
};
use tokio::net::TcpListener;

use settings::{Database, Mail, Settings};

/// How long what is under way has to end when the process is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let settings = match Settings::from_env(std::env::vars()) {
        Ok(settings) => settings,
        Err(wrong) => return refuse(&wrong),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.workers)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("the runtime does not start: {error}")),
    };
    match runtime.block_on(run(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => refuse(&wrong),
    }
}

/// One clear line, and nothing changed.
fn refuse(wrong: &str) -> ExitCode {
    eprintln!("couple: {wrong}");
    ExitCode::FAILURE
}

async fn run(settings: Settings) -> Result<(), String> {
    // The address first: a server that runs already must not share its files with this one.
    let listener = if settings.answers() { Some(bind(settings.listen).await?) } else { None };
    let admin = match settings.admin_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let backend = compose(&settings).await?.build().map_err(|error| error.to_string())?;
    let worker = start_worker(&backend, &settings.role);
    announce(&settings);

    let mut servers = Vec::new();
    if let Some(admin) = admin {
        let app = couple::http::admin_router(backend.clone());
        let stop = stopped(backend.clone());
        servers.push(tokio::spawn(async move {
            axum::serve(admin, app.into_make_service()).with_graceful_shutdown(stop).await
        }));
    }
    if let Some(listener) = listener {
        let options = HttpOptions {
            trusted_proxies: settings.trusted_proxies.clone(),
            metrics: settings.listen.ip().is_loopback(),
            ..HttpOptions::default()
        };
        let app = couple::http::router_with(backend.clone(), options);
        let stop = stopped(backend.clone());
        // Small answers must not wait for more to send.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        servers.push(tokio::spawn(async move {
            axum::serve(listener, service).with_graceful_shutdown(stop).await
        }));
    }
    told_to_stop().await;
    eprintln!("couple: stopping");
    backend.live().drain();
    let all = async {
        for server in servers {
            let _ = server.await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, all).await;
    if let Some(worker) = worker {
        worker.stop(DRAIN).await;
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{address} is in use: stop what runs there, or set COUPLE_LISTEN to another address")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{address} may not be used: choose a port above 1023 in COUPLE_LISTEN")
        }
        _ => format!("{address} cannot be used: {error}"),
    })
}

async fn compose(settings: &Settings) -> Result<BackendBuilder, String> {
    let builder = Backend::builder().public_url(settings.public_url.clone());
    let builder = match &settings.database {
        Database::Memory => builder,
        Database::Sqlite(path) => {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            make_folder(folder)?;
            let builder = builder.keys(key_ring(&folder.join("couple.key"))?);
            let store = SqliteOptions::new(path).open().await.map_err(|error| error.to_string())?;
            builder.store(store)
        }
    };
    let builder = if settings.limits { builder } else { builder.limits(Unlimited) };
    Ok(match &settings.mail {
        Mail::Files(folder) => {
            builder.mailer(FileMailer::new(folder, Letterhead::default()).map_err(|error| error.to_string())?)
        }
        Mail::Smtp { url, from } => {
            let letterhead = Letterhead::new("Couple", from).map_err(|error| error.to_string())?;
            builder.mailer(SmtpMailer::new(url, letterhead).map_err(|error| error.to_string())?)
        }
    })
}

fn make_folder(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| {
        format!(
            "the folder {} cannot be made: {error}: choose another in COUPLE_DATABASE_URL",
            folder.display()
        )
    })
}

/// The server's secret: made at the first start, beside the database, for its owner only.
fn key_ring(path: &PathBuf) -> Result<Keyring, String> {
    let wrong = |error: std::io::Error| format!("the key file {} cannot be used: {error}", path.display());
    match std::fs::read(path) {
        Ok(bytes) => {
            let key = <[u8; 32]>::try_from(bytes).map_err(|_| {
                format!(
                    "{} is not a key file: restore it, or remove it, which ends what is in the mail",
                    path.display()
                )
            })?;
            Ok(Keyring::new(key))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0; 32];
            OsEntropy.fill(&mut key);
            write_private(path, &key).map_err(wrong)?;
            Ok(Keyring::new(key))
        }
        Err(error) => Err(wrong(error)),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let partial = path.with_extension("partial");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(partial, path)
}

fn start_worker(backend: &Backend, role: &Role) -> Option<WorkerHandle> {
    match role {
        Role::Api => None,
        Role::All => Some(backend.worker().start()),
        Role::Worker(names) if names.is_empty() => Some(backend.worker().start()),
        Role::Worker(names) => {
            let queues: Vec<Queue> =
                backend.queues().iter().filter(|queue| names.contains(&queue.name)).cloned().collect();
            Some(backend.worker_for(queues).start())
        }
    }
}

fn announce(settings: &Settings) {
    let mut lines = vec![match &settings.role {
        Role::Worker(names) if names.is_empty() => "couple works on all queues".to_owned(),
        Role::Worker(names) => format!("couple works on {}", names.join(", ")),
        Role::All | Role::Api => format!("couple listens on http://{}", settings.listen),
    }];
    lines.push(match &settings.database {
        Database::Memory => "  keeps everything in memory: it is gone when this process ends".to_owned(),
        Database::Sqlite(path) => format!("  keeps its data in {}", path.display()),
    });
    lines.push(match &settings.mail {
        Mail::Files(folder) => format!("  writes mail as files into {}", folder.display()),
        Mail::Smtp { .. } => "  sends mail over SMTP".to_owned(),
    });
    if !settings.limits {
        lines.push("  WITHOUT RATE LIMITS (COUPLE_LIMITS=off): for load tests only".to_owned());
    }
    if settings.answers() {
        let base = format!("http://{}", settings.listen);
        lines.push(format!(
            "\ntry it:\n  curl {base}/v1/accounts -H 'content-type: application/json' \
             -d '{{\"email\":\"ana@example.org\",\"display_name\":\"Ana\"}}'\nthe contract: {base}/v1/openapi.json"
        ));
    }
    for line in lines {
        println!("{line}");
    }
}

/// Ends when the backend says goodbye.
async fn stopped(backend: Backend) {
    while !backend.live().is_draining() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn told_to_stop() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminated) => {
                tokio::select! {
                    _ = interrupted => {}
                    _ = terminated.recv() => {}
                }
            }
            Err(_) => drop(interrupted.await),
        }
    }
    #[cfg(not(unix))]
    drop(interrupted.await);
}
