//! The whole back end in one process, by default with SQLite and mails as files.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program prints messages for its operator")]

mod assets;
mod mailbox;
mod push_log;
mod settings;
mod site;

use std::{
    collections::BTreeSet, ffi::OsString, io::IsTerminal as _, net::SocketAddr, path::Path,
    process::ExitCode, time::Duration,
};

use couple::{
    Backend, BackendBuilder, Keyring, OsEntropy, Role, Store as _,
    blobs::{Blobs, S3Options},
    core::{JobId, limits::Unlimited},
    http::{HttpOptions, ServeOptions},
    job::DeadJob,
    notify::{
        live::LiveOptions,
        mail::{DkimKey, FileMailer, Letterhead, MemoryMailer, SendmailMailer, SmtpMailer},
        push::{Apns, ConnectionOptions, Fcm, Pushers, VapidKey, WebPush},
    },
    store::{
        KeyFile,
        redis::{Redis, RedisBus, RedisLimits, RedisPresence},
        sql::{MySqlOptions, PostgresBus, PostgresOptions, SqliteOptions},
    },
};
use tokio::{net::TcpListener, sync::watch};

use push_log::{NotSent, PushLog};
use settings::{Database, Dkim, Mail, Pictures, PushServices, Settings, reachable};

/// Maximum time for work in progress to end after the process was asked to stop.
const DRAIN: Duration = Duration::from_secs(10);
const REDIS_CONNECTIONS: u32 = 4;
/// Push services of the browsers. A client chooses its own, and could name one that never answers.
const PUSH_SERVICES: [&str; 4] =
    ["fcm.googleapis.com", "push.services.mozilla.com", "push.apple.com", "notify.windows.com"];
/// Exit code of `--check` if a migration is missing.
const PENDING: u8 = 3;
/// Maximum connections to the admin address, which monitoring and probes use.
const ADMIN_CONNECTIONS: usize = 256;

fn main() -> ExitCode {
    let filter = match std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty()) {
        None => tracing_subscriber::EnvFilter::new("info"),
        Some(text) => match tracing_subscriber::EnvFilter::try_new(&text) {
            Ok(filter) => filter,
            Err(error) => return refuse(&format!("RUST_LOG={text} is not a valid filter: {error}")),
        },
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let settings = match Settings::from_env(std::env::vars_os()) {
        Ok(settings) => settings,
        Err(wrong) => return refuse(&wrong),
    };
    couple::http::raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.workers)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("cannot start the runtime: {error}")),
    };
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let work = async {
        match arguments.as_slice() {
            [] => run(settings).await.map(|()| ExitCode::SUCCESS),
            [only] if only == "--migrate-only" => migrate_only(&settings).await.map(|()| ExitCode::SUCCESS),
            [only] if only == "--check" => check(&settings).await,
            [only] if only == "--dead-jobs" => dead_jobs(&settings).await.map(|()| ExitCode::SUCCESS),
            [first, ids @ ..] if first == "--replay" && !ids.is_empty() => {
                replay(&settings, ids).await.map(|()| ExitCode::SUCCESS)
            }
            _ => Err("the arguments are --migrate-only, --check, --dead-jobs, or --replay with ids of dead jobs or all; \
                      settings are environment variables"
                .to_owned()),
        }
    };
    match runtime.block_on(work) {
        Ok(code) => code,
        Err(wrong) => refuse(&wrong),
    }
}

/// Prints the reason and exits without changes.
fn refuse(wrong: &str) -> ExitCode {
    eprintln!("couple: {wrong}");
    ExitCode::FAILURE
}

/// Migrates the schema and exits, for deployments that migrate once before they start processes.
async fn migrate_only(settings: &Settings) -> Result<(), String> {
    if matches!(settings.database, Database::Memory) {
        return Err("COUPLE_DATABASE_URL=memory: has no schema to migrate".to_owned());
    }
    let builder = Backend::builder().blobs(Blobs::memory());
    let backend = keep(settings, builder).await?.build().map_err(|error| error.to_string())?;
    backend.close().await.map_err(|error| error.to_string())?;
    println!("the schema is up to date");
    Ok(())
}

/// Prints whether the schema is up to date, and changes nothing.
async fn check(settings: &Settings) -> Result<ExitCode, String> {
    let status = match &settings.database {
        Database::Memory => return Err("COUPLE_DATABASE_URL=memory: has no schema to check".to_owned()),
        Database::Sqlite(path) => sqlite(settings, path).check().await,
        Database::MySql(url) => mysql(settings, url).check().await,
        Database::Postgres(url) => postgres(settings, url).check().await,
    };
    let status = status.map_err(|error| told(&error))?;
    if status.is_current() {
        println!("the schema is up to date");
        return Ok(ExitCode::SUCCESS);
    }
    println!("the database lacks the migration {}", status.pending.join(", "));
    Ok(ExitCode::from(PENDING))
}

/// Dead jobs that one read returns.
const DEAD_JOBS_PAGE: u32 = 100;

/// Opens the store of the settings, for a command of an operator.
async fn open(settings: &Settings) -> Result<Backend, String> {
    if matches!(settings.database, Database::Memory) {
        return Err("COUPLE_DATABASE_URL=memory: has no jobs after the end of its process".to_owned());
    }
    let builder = Backend::builder().blobs(Blobs::memory()).mailer(MemoryMailer::default());
    keep(settings, builder).await?.build().map_err(|error| error.to_string())
}

/// Calls `each` with all dead jobs, in the order of their ids.
async fn for_each_dead_job(
    backend: &Backend,
    mut each: impl AsyncFnMut(&DeadJob) -> Result<(), couple::Error>,
) -> Result<(), couple::Error> {
    let mut after = None;
    loop {
        let page = backend.dead_jobs().list(after, DEAD_JOBS_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.job.id);
        for dead in &page {
            each(dead).await?;
        }
    }
}

/// Prints the dead jobs, without their payloads, which are data of persons.
async fn dead_jobs(settings: &Settings) -> Result<(), String> {
    let backend = open(settings).await?;
    let mut count = 0_u64;
    let listed = for_each_dead_job(&backend, async |dead| {
        count += 1;
        let (job, at) = (&dead.job, dead.died_at.to_rfc3339());
        println!(
            "{} {} {}, attempts: {}, died {at}: {}",
            job.id, job.queue, job.name, dead.attempts, dead.error
        );
        Ok(())
    });
    listed.await.map_err(|error| told(&error))?;
    println!("dead jobs: {count}");
    backend.close().await.map_err(|error| told(&error))
}

/// Makes dead jobs live again: those with these ids, or all.
async fn replay(settings: &Settings, ids: &[OsString]) -> Result<(), String> {
    let all = ids.iter().any(|id| id == "all");
    let mut wanted = BTreeSet::new();
    for id in ids.iter().filter(|_| !all) {
        let id = id.to_string_lossy();
        wanted.insert(id.parse::<JobId>().map_err(|_| format!("{id} is neither the id of a job nor all"))?);
    }
    let backend = open(settings).await?;
    let mut count = 0_u64;
    let replayed = for_each_dead_job(&backend, async |dead| {
        if (all || wanted.remove(&dead.job.id)) && backend.dead_jobs().replay(dead).await? {
            count += 1;
        }
        Ok(())
    });
    replayed.await.map_err(|error| told(&error))?;
    println!("jobs that are live again: {count}");
    backend.close().await.map_err(|error| told(&error))?;
    if wanted.is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = wanted.iter().map(ToString::to_string).collect();
    Err(format!("no dead job has the id {}", missing.join(", ")))
}

async fn run(settings: Settings) -> Result<(), String> {
    // The address is bound first: a second server at the same address must not open the files of a running one.
    let listener = if settings.answers() { Some(bind("COUPLE_LISTEN", settings.listen)?) } else { None };
    let port =
        listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|address| address.port());
    let admin = match settings.admin_listen {
        Some(address) => Some(bind("COUPLE_ADMIN_LISTEN", address)?),
        None => None,
    };
    let mut builder = compose(&settings).await?;
    let push_log = PushLog::new();
    if settings.shows_push_log() {
        let log = push_log.clone();
        builder = builder.on_push(move |report| log.record(report));
    }
    let backend = builder.build().map_err(|error| error.to_string())?;

    let options = HttpOptions::default()
        .with_trusted_proxies(settings.trusted_proxies.clone())
        .with_proxy_header(settings.proxy_header)
        .with_cors_origins(settings.cors_origins.clone())
        .with_metrics(settings.metrics);
    // A process that serves no clients needs no delay for load balancers.
    let stop_delay = if settings.answers() { settings.stop_delay } else { Duration::ZERO };
    let serving = ServeOptions::default()
        .with_drain_timeout(DRAIN)
        .with_stop_delay(stop_delay)
        .with_max_connections_per_client(settings.connections_per_client)
        .with_trusted_proxies(settings.trusted_proxies.clone());
    let stop = watch::Sender::new(false);
    let (app, admin_app) = couple::http::routers(backend.clone(), options);
    let mut service = backend.service(settings.role.clone()).with_drain_timeout(DRAIN).with_abort(async {
        told_to_stop().await;
        eprintln!("couple: stopping now");
    });
    if let Some(admin) = admin {
        let serving = serving.clone().with_max_connections(ADMIN_CONNECTIONS);
        service = service.with_listener(admin, admin_app, serving);
    }
    if let Some(listener) = listener {
        let app = match port {
            Some(port) if settings.pages => {
                app.merge(site::router(&settings, port, push_log, stop.subscribe()))
            }
            _ => app,
        };
        service = service.with_listener(listener, app, serving);
    }
    let shutdown = async {
        // The listeners have started and have logged their warnings: the last line of the start is the address to open.
        announce(&settings);
        told_to_stop().await;
        eprintln!("couple: stopping in {} s", stop_delay.as_secs());
        // Ends the event streams of the pages.
        stop.send_replace(true);
    };
    service.run(shutdown).await.map_err(|error| told(&error))
}

fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, String> {
    couple::http::listen(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{address} is in use: stop what runs there, or set {setting} to another address")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("no permission to listen on {address}: choose a port above 1023 in {setting}")
        }
        _ => format!("cannot listen on {address}: {error}: set {setting} to another address"),
    })
}

/// Builds the back end. Checks all settings first, so that a failed start changes nothing.
async fn compose(settings: &Settings) -> Result<BackendBuilder, String> {
    let said = |error: couple::Error| error.to_string();
    let blobs = |error: couple::Error| format!("COUPLE_BLOBS: {}", told(&error));
    let letterhead = match &settings.mail {
        Mail::Files { from: None, .. } => Letterhead::default(),
        Mail::Files { from: Some(from), .. } | Mail::Smtp { from, .. } | Mail::Sendmail { from, .. } => {
            Letterhead::new("Couple", from).map_err(said)?
        }
    };
    let letterhead = match &settings.dkim {
        None => letterhead,
        Some(Dkim { domain, keys }) => keys.iter().try_fold(letterhead, |letterhead, (selector, file)| {
            let wrong = |why: String| format!("COUPLE_MAIL_DKIM_KEYS: {}: {why}", file.display());
            let pem = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
            let key = DkimKey::new(domain, selector, &pem).map_err(|error| wrong(told(&error)))?;
            Ok::<_, String>(letterhead.with_dkim(key))
        })?,
    };
    // Half of the connections read; one of these is left to requests when all clients reconnect together.
    let reads = match settings.database {
        Database::Memory | Database::Sqlite(_) => LiveOptions::default().max_concurrent_reads(),
        Database::MySql(_) | Database::Postgres(_) => (settings.connections as usize / 2).saturating_sub(1),
    };
    let live = LiveOptions::default().with_max_concurrent_reads(reads).with_reconnect_spread(DRAIN);
    let builder = Backend::builder().public_url(settings.public_url.clone()).live(live);
    let builder = match &settings.mail {
        Mail::Files { folder, .. } => builder.mailer(FileMailer::new(folder, letterhead).map_err(said)?),
        Mail::Smtp { url, root_certificates, .. } => {
            let mut mailer = SmtpMailer::new(url, letterhead).map_err(said)?;
            if let Some(path) = root_certificates {
                let wrong = |why: String| format!("COUPLE_MAIL_ROOT_CERTIFICATES: {}: {why}", path.display());
                let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                mailer = mailer.with_root_certificates(&pem).map_err(|error| wrong(told(&error)))?;
            }
            builder.mailer(mailer)
        }
        Mail::Sendmail { program, .. } => builder.mailer(SendmailMailer::new(program, letterhead)),
    };
    let builder = match &settings.push {
        services if !services.is_empty() => builder.pusher(pushers(services)?),
        // The messages are shown beside the mails.
        _ if settings.shows_push_log() => builder.pusher(NotSent),
        _ => builder,
    };
    let builder = builder.blobs(match &settings.pictures {
        Pictures::Memory => Blobs::memory(),
        Pictures::Files(folder) => Blobs::files(folder).map_err(blobs)?,
        Pictures::S3 { bucket, prefix } => {
            let s3 = S3Options::from_env(bucket).with_prefix(prefix).open().map_err(blobs)?;
            match s3.ping().await {
                Ok(()) => {}
                Err(error) if error.kind() == couple::ErrorKind::Misconfigured => return Err(blobs(error)),
                // The store may become available later; everything but pictures works without it.
                Err(error) => {
                    eprintln!("couple: {}: pictures are unavailable until it responds", blobs(error));
                }
            }
            s3
        }
    });
    let builder = if settings.limits { builder } else { builder.limits(Unlimited) };
    let builder = match &settings.redis {
        None => builder,
        Some(url) => {
            let redis = Redis::connect(url, REDIS_CONNECTIONS)
                .await
                .map_err(|error| format!("COUPLE_REDIS_URL: {}", told(&error)))?;
            let builder =
                if settings.limits { builder.limits(RedisLimits::new(redis.clone())) } else { builder };
            let builder = builder.presence(RedisPresence::new(redis.clone()));
            builder.bus(RedisBus::start(redis).await.map_err(|error| told(&error))?)
        }
    };
    let builder = keep(settings, builder).await?;
    match &settings.database {
        // PostgreSQL carries notices between processes without Redis.
        Database::Postgres(url) if settings.redis.is_none() => {
            let bus = PostgresBus::start(postgres(settings, url)).await;
            Ok(builder.bus(bus.map_err(|error| told(&error))?))
        }
        _ => Ok(builder),
    }
}

fn pushers(services: &PushServices) -> Result<Pushers, String> {
    let read = |setting: &str, path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("{setting}: {}: {error}", path.display()))
    };
    let options = ConnectionOptions::default();
    let mut pushers = Pushers::new();
    if let Some(key) = &services.apns {
        let pem = read("COUPLE_APNS_KEY_FILE", &key.file)?;
        let apns = Apns::new(&key.key_id, &key.team_id, &pem, &options);
        pushers = pushers.with_apns(apns.map_err(|error| format!("COUPLE_APNS_KEY_FILE: {}", told(&error)))?);
    }
    if let Some(file) = &services.fcm {
        let fcm = Fcm::new(&read("COUPLE_FCM_KEY_FILE", file)?, &options);
        pushers = pushers.with_fcm(fcm.map_err(|error| format!("COUPLE_FCM_KEY_FILE: {}", told(&error)))?);
    }
    if let Some(web) = &services.web {
        let key = VapidKey::from_pem(&read("COUPLE_VAPID_KEY_FILE", &web.file)?, &web.contact);
        let key = key.map_err(|error| format!("COUPLE_VAPID_KEY_FILE: {}", told(&error)))?;
        pushers = pushers.with_web_push(WebPush::new(key, &options).with_allowed_hosts(PUSH_SERVICES));
    }
    Ok(pushers)
}

fn sqlite(settings: &Settings, path: &Path) -> SqliteOptions {
    SqliteOptions::new(path).with_table_prefix(&settings.table_prefix)
}

fn mysql(settings: &Settings, url: &str) -> MySqlOptions {
    MySqlOptions::new(url)
        .with_max_connections(settings.connections)
        .with_table_prefix(&settings.table_prefix)
}

fn postgres(settings: &Settings, url: &str) -> PostgresOptions {
    let options = PostgresOptions::new(url)
        .with_max_connections(settings.connections)
        .with_table_prefix(&settings.table_prefix);
    match &settings.schema {
        Some(schema) => options.with_schema(schema),
        None => options,
    }
}

/// Opens and migrates the database, reads or creates its key file, and passes both to the builder.
async fn keep(settings: &Settings, builder: BackendBuilder) -> Result<BackendBuilder, String> {
    let said = |error: couple::Error| error.to_string();
    let path = match &settings.database {
        Database::Memory => return Ok(builder),
        Database::Sqlite(path) => path,
        Database::MySql(url) => {
            let store = mysql(settings, url).connect().await.map_err(|error| told(&error))?;
            let keys = shared_key(settings, store.has_no_accounts().await.map_err(|error| told(&error))?)?;
            return Ok(builder.keys(keys).store(store));
        }
        Database::Postgres(url) => {
            let store = postgres(settings, url).connect().await.map_err(|error| told(&error))?;
            let keys = shared_key(settings, store.has_no_accounts().await.map_err(|error| told(&error))?)?;
            return Ok(builder.keys(keys).store(store));
        }
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder)?;
    let key_path = settings.key_file.clone().unwrap_or_else(|| folder.join("couple.key"));
    let key_file = KeyFile::new(&key_path);
    let kept = key_file.read().map_err(said)?;
    if kept.is_none() && path.metadata().is_ok_and(|file| file.len() > 0) {
        // Opened first, so that a file that is not our database is reported as such.
        let store = sqlite(settings, path).open().await.map_err(|error| told(&error))?;
        store.close().await.map_err(said)?;
        return Err(format!(
            "{} is missing beside {}: restore it from a backup, or move the database away to start with a new one",
            key_path.display(),
            path.display()
        ));
    }
    // The key is created before the database: after a crash in between, the next start uses the key.
    let keys = key_file.open(&OsEntropy).map_err(said)?;
    let store = sqlite(settings, path).open().await.map_err(|error| told(&error))?;
    Ok(builder.keys(keys).store(store))
}

/// Key of all processes that share a database.
///
/// It is created only while the database has no accounts. If two hosts start then, they must have been given the same file.
fn shared_key(settings: &Settings, is_new: bool) -> Result<Keyring, String> {
    let path = settings.key_file.as_deref().unwrap_or(Path::new("couple.key"));
    KeyFile::new(path).open_for(is_new, &OsEntropy).map_err(|error| format!("COUPLE_KEY_FILE: {error}"))
}

/// An error with its causes, on one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors include their cause.
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = error.source();
    }
    said.replace('\n', " ")
}

/// Creates a folder that only its owner can read, since it holds private data.
fn make_folder(folder: &Path) -> Result<(), String> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| {
        format!("cannot create folder {}: {error}: choose another in COUPLE_DATABASE_URL", folder.display())
    })
}

fn announce(settings: &Settings) {
    let mut lines = vec![match &settings.role {
        Role::Worker(names) if names.is_empty() => "couple runs jobs of all queues".to_owned(),
        Role::Worker(names) => format!("couple runs jobs of {}", names.join(", ")),
        Role::Api => format!(
            "couple listens on http://{}; mails and pictures wait for a process that runs jobs",
            settings.listen
        ),
        Role::All => format!("couple listens on http://{}", settings.listen),
    }];
    lines.push(match &settings.database {
        Database::Memory => "  stores all data in memory: it is lost when this process ends".to_owned(),
        Database::Sqlite(path) => format!("  stores data in {}", path.display()),
        Database::MySql(_) => {
            format!("  stores data in MySQL or MariaDB, with {} connections", settings.connections)
        }
        Database::Postgres(_) => {
            format!("  stores data in PostgreSQL, with {} connections", settings.connections)
        }
    });
    lines.push(match &settings.pictures {
        Pictures::Memory => "  stores pictures in memory: they are lost when this process ends".to_owned(),
        Pictures::Files(folder) => format!("  stores pictures as files in {}", folder.display()),
        Pictures::S3 { bucket, .. } => format!("  stores pictures in the bucket {bucket}"),
    });
    lines.push(match &settings.mail {
        Mail::Files { folder, .. } => format!("  writes mails as files to {}", folder.display()),
        Mail::Smtp { .. } => "  sends mail over SMTP".to_owned(),
        Mail::Sendmail { program, .. } => format!("  sends mail by {}", program.display()),
    });
    if let Some(address) = settings.admin_listen {
        lines.push(format!("  serves /metrics, /healthz and /readyz on http://{address}"));
    }
    if settings.redis.is_some() {
        lines.push("  uses Redis for notices between processes, rate limits and presence".to_owned());
    } else if matches!(settings.database, Database::Postgres(_)) {
        lines.push(
            "  uses PostgreSQL for notices between processes; rate limits and presence are per process"
                .to_owned(),
        );
    }
    if !settings.limits {
        lines.push("  WITHOUT RATE LIMITS (COUPLE_LIMITS=off): for load tests only".to_owned());
    }
    if settings.demo_requested && matches!(settings.mail, Mail::Files { .. }) {
        lines
            .push("  SHOWS ALL MAILS to its clients (COUPLE_DEMO=on): for invented accounts only".to_owned());
    }
    if settings.pages {
        lines.push(format!("open {}/", settings.public_url.trim_end_matches('/')));
    } else if settings.answers() {
        lines.push(format!("OpenAPI document: http://{}/v1/openapi.json", reachable(settings.listen)));
    }
    for line in lines {
        println!("{line}");
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
