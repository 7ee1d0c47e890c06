//! Settings from the environment. An unknown `COUPLE_` variable is an error, since it has no effect.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use couple::{
    Role,
    http::{IpNet, Origin, ProxyHeader, ServeOptions},
};

use crate::site;

/// Database to use. Must not be printed: a URL may contain a password.
pub(crate) enum Database {
    Memory,
    Sqlite(PathBuf),
    MySql(String),
    Postgres(String),
}

pub(crate) enum Pictures {
    Memory,
    Files(PathBuf),
    S3 { bucket: String, prefix: String },
}

pub(crate) enum Mail {
    Files { folder: PathBuf, from: Option<String> },
    Smtp { url: String, from: String, root_certificates: Option<PathBuf> },
    Sendmail { program: PathBuf, from: String },
}

/// Keys that sign mails for a domain.
pub(crate) struct Dkim {
    pub(crate) domain: String,
    /// Selector and file of each key.
    pub(crate) keys: Vec<(String, PathBuf)>,
}

/// Push services that are set up.
#[derive(Default)]
pub(crate) struct PushServices {
    pub(crate) apns: Option<ApnsKey>,
    /// File of the service account key.
    pub(crate) fcm: Option<PathBuf>,
    pub(crate) web: Option<WebPushKey>,
}

/// Key of an Apple developer team.
pub(crate) struct ApnsKey {
    pub(crate) file: PathBuf,
    pub(crate) key_id: String,
    pub(crate) team_id: String,
}

/// Key pair by which push services of browsers know the server.
pub(crate) struct WebPushKey {
    pub(crate) file: PathBuf,
    /// `mailto:` or `https:` URL for the operators of push services.
    pub(crate) contact: String,
}

impl PushServices {
    /// Whether no service is set up.
    pub(crate) const fn is_empty(&self) -> bool {
        self.apns.is_none() && self.fcm.is_none() && self.web.is_none()
    }
}

pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) database: Database,
    pub(crate) connections: u32,
    /// Schema of the tables in PostgreSQL.
    pub(crate) schema: Option<String>,
    pub(crate) table_prefix: String,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) redis: Option<String>,
    pub(crate) pictures: Pictures,
    pub(crate) mail: Mail,
    pub(crate) dkim: Option<Dkim>,
    pub(crate) push: PushServices,
    pub(crate) public_url: String,
    pub(crate) role: Role,
    pub(crate) limits: bool,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) proxy_header: ProxyHeader,
    pub(crate) cors_origins: Vec<Origin>,
    pub(crate) workers: usize,
    /// Whether `COUPLE_LISTEN` also serves `/metrics`.
    pub(crate) metrics: bool,
    /// Time for which requests are still accepted after SIGTERM.
    pub(crate) stop_delay: Duration,
    /// Maximum connections of one client network.
    pub(crate) connections_per_client: Option<usize>,
    /// Whether the pages for developers are served.
    pub(crate) pages: bool,
    /// Whether `COUPLE_DEMO=on` asks for these pages, so that they are also served to clients of other hosts.
    pub(crate) demo_requested: bool,
}

const KNOWN: [&str; 31] = [
    "COUPLE_LISTEN",
    "COUPLE_ADMIN_LISTEN",
    "COUPLE_DATABASE_URL",
    "COUPLE_DATABASE_CONNECTIONS",
    "COUPLE_DATABASE_SCHEMA",
    "COUPLE_TABLE_PREFIX",
    "COUPLE_KEY_FILE",
    "COUPLE_REDIS_URL",
    "COUPLE_BLOBS",
    "COUPLE_MAIL",
    "COUPLE_MAIL_DKIM_DOMAIN",
    "COUPLE_MAIL_DKIM_KEYS",
    "COUPLE_MAIL_FROM",
    "COUPLE_MAIL_ROOT_CERTIFICATES",
    "COUPLE_APNS_KEY_FILE",
    "COUPLE_APNS_KEY_ID",
    "COUPLE_APNS_TEAM_ID",
    "COUPLE_FCM_KEY_FILE",
    "COUPLE_VAPID_KEY_FILE",
    "COUPLE_VAPID_CONTACT",
    "COUPLE_PUBLIC_URL",
    "COUPLE_ROLE",
    "COUPLE_LIMITS",
    "COUPLE_TRUSTED_PROXIES",
    "COUPLE_PROXY_HEADER",
    "COUPLE_CORS_ORIGINS",
    "COUPLE_WORKERS",
    "COUPLE_METRICS",
    "COUPLE_STOP_DELAY",
    "COUPLE_CONNECTIONS_PER_CLIENT",
    "COUPLE_DEMO",
];

impl Settings {
    /// Whether the developer's push log is shown, beside the mails.
    pub(crate) fn shows_push_log(&self) -> bool {
        self.pages && matches!(self.mail, Mail::Files { .. })
    }

    /// Whether this process serves requests.
    pub(crate) fn answers(&self) -> bool {
        self.role.serves_requests()
    }

    /// Reads the settings, or returns an error message of one line.
    pub(crate) fn from_env(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, String> {
        let mut ours: Vec<(String, String)> = Vec::new();
        for (name, value) in vars {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("COUPLE_") {
                let value = value.into_string().map_err(|_| format!("{name} is not text in UTF-8"))?;
                ours.push((name, value));
            }
        }
        if let Some((name, _)) = ours.iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
            return Err(format!("{name} is not a setting; the settings are: {}", KNOWN.join(", ")));
        }
        let get = |name: &str| {
            ours.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
                .filter(|v| !v.is_empty())
        };
        let address = |name: &str, value: &str| {
            value
                .parse::<SocketAddr>()
                .map_err(|_| format!("{name}={value} is not an address: write it as 127.0.0.1:8080"))
        };
        let listen = address("COUPLE_LISTEN", get("COUPLE_LISTEN").unwrap_or("127.0.0.1:8080"))?;
        let role = role(get("COUPLE_ROLE").unwrap_or("all"))?;
        let database = database(get("COUPLE_DATABASE_URL").unwrap_or("sqlite://couple-data/couple.db"))?;
        let connections = match get("COUPLE_DATABASE_CONNECTIONS") {
            None => 10,
            Some(text) => text.parse().ok().filter(|n| (3..=1000).contains(n)).ok_or_else(|| {
                format!("COUPLE_DATABASE_CONNECTIONS={text} is not a number from 3 to 1000")
            })?,
        };
        // Checked before the first file is made. The store has the same rules.
        let name = |setting: &str, max_len: usize| match get(setting) {
            Some(name) if is_name(name, max_len) => Ok(Some(name.to_owned())),
            Some(name) => Err(format!(
                "{setting}={name} must begin with a to z, have only a to z, 0 to 9 and _, and at most {max_len} characters"
            )),
            None => Ok(None),
        };
        let schema = name("COUPLE_DATABASE_SCHEMA", 31)?;
        if schema.is_some() && !matches!(database, Database::Postgres(_)) {
            return Err(
                "COUPLE_DATABASE_SCHEMA is for PostgreSQL: name the database in COUPLE_DATABASE_URL, or set \
                        COUPLE_TABLE_PREFIX"
                    .to_owned(),
            );
        }
        let table_prefix = name("COUPLE_TABLE_PREFIX", 24)?.unwrap_or_else(|| "couple_".to_owned());
        let key_file = get("COUPLE_KEY_FILE").map(PathBuf::from);
        if key_file.is_none() && matches!(database, Database::MySql(_) | Database::Postgres(_)) {
            return Err("COUPLE_KEY_FILE is missing: the file with the key that all processes over one database share; \
                        it is made if it is not there"
                .to_owned());
        }
        let redis = get("COUPLE_REDIS_URL").map(str::to_owned);
        // With a database in memory, pictures in files would have no rows after a restart, and the sweep would delete them.
        let default =
            if matches!(database, Database::Memory) { "memory:" } else { "file://couple-data/media" };
        let pictures = pictures(get("COUPLE_BLOBS").unwrap_or(default))?;
        let sender = || {
            let from = get("COUPLE_MAIL_FROM").map(str::to_owned);
            from.ok_or("COUPLE_MAIL_FROM is missing: the address that mail comes from")
        };
        let mail = match get("COUPLE_MAIL").unwrap_or("file://couple-data/mail") {
            url if url.starts_with("smtp://") || url.starts_with("smtps://") => Mail::Smtp {
                url: url.to_owned(),
                from: sender()?,
                root_certificates: get("COUPLE_MAIL_ROOT_CERTIFICATES").map(PathBuf::from),
            },
            _ if get("COUPLE_MAIL_ROOT_CERTIFICATES").is_some() => {
                return Err("COUPLE_MAIL_ROOT_CERTIFICATES is for mail over SMTP: set COUPLE_MAIL to smtp://… or smtps://…, or leave it out".to_owned());
            }
            url => match url.split_once("://") {
                Some(("file", folder)) if !folder.is_empty() => {
                    Mail::Files { folder: folder.into(), from: get("COUPLE_MAIL_FROM").map(str::to_owned) }
                }
                Some(("sendmail", program)) if program.starts_with('/') => {
                    Mail::Sendmail { program: program.into(), from: sender()? }
                }
                // The value is not printed: it may contain a password.
                _ => {
                    return Err(
                        "COUPLE_MAIL is none of file://FOLDER, smtp://…, smtps://…, sendmail:///PROGRAM"
                            .to_owned(),
                    );
                }
            },
        };
        let dkim = match (get("COUPLE_MAIL_DKIM_DOMAIN"), get("COUPLE_MAIL_DKIM_KEYS")) {
            (None, None) => None,
            (Some(domain), Some(keys)) => {
                let key = |part: &str| match part.trim().split_once('=') {
                    Some((selector, file)) if !file.is_empty() => Ok((selector.to_owned(), file.into())),
                    _ => Err("COUPLE_MAIL_DKIM_KEYS is not SELECTOR=FILE,…".to_owned()),
                };
                let keys = keys.split(',').map(key).collect::<Result<_, _>>()?;
                Some(Dkim { domain: domain.to_owned(), keys })
            }
            _ => {
                return Err(
                    "COUPLE_MAIL_DKIM_DOMAIN and COUPLE_MAIL_DKIM_KEYS belong together: set both or none"
                        .to_owned(),
                );
            }
        };
        let push = push_services(get)?;
        let limits = match get("COUPLE_LIMITS").unwrap_or("on") {
            "on" => true,
            "off" => false,
            other => return Err(format!("COUPLE_LIMITS={other} is neither on nor off")),
        };
        let trusted_proxies: Vec<_> = get("COUPLE_TRUSTED_PROXIES")
            .unwrap_or("")
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse::<IpNet>().or_else(|_| part.parse::<std::net::IpAddr>().map(IpNet::from)).map_err(|_| {
                    format!("COUPLE_TRUSTED_PROXIES: {part} is neither an address nor a network like 10.0.0.0/8")
                })
            })
            .collect::<Result<_, _>>()?;
        let proxy_header = match get("COUPLE_PROXY_HEADER").unwrap_or("x-forwarded-for") {
            "x-forwarded-for" => ProxyHeader::XForwardedFor,
            "forwarded" => ProxyHeader::Forwarded,
            other => {
                return Err(format!("COUPLE_PROXY_HEADER={other} is neither x-forwarded-for nor forwarded"));
            }
        };
        let cors_origins = get("COUPLE_CORS_ORIGINS")
            .unwrap_or("")
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map_err(|error| format!("COUPLE_CORS_ORIGINS: {part} is {error}")))
            .collect::<Result<_, _>>()?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = match get("COUPLE_WORKERS") {
            None => cores,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=1024).contains(n))
                .ok_or_else(|| format!("COUPLE_WORKERS={text} is not a number from 1 to 1024"))?,
        };
        let metrics = match get("COUPLE_METRICS").unwrap_or("off") {
            "on" => true,
            "off" => false,
            other => return Err(format!("COUPLE_METRICS={other} is neither on nor off")),
        };
        let stop_delay = match get("COUPLE_STOP_DELAY") {
            None => ServeOptions::default().stop_delay(),
            Some(text) => {
                text.parse().ok().filter(|n| *n <= 300).map(Duration::from_secs).ok_or_else(|| {
                    format!("COUPLE_STOP_DELAY={text} is not a number of seconds from 0 to 300")
                })?
            }
        };
        let connections_per_client = match get("COUPLE_CONNECTIONS_PER_CLIENT") {
            None => None,
            Some(text) => Some(text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                format!("COUPLE_CONNECTIONS_PER_CLIENT={text} is not a number of at least 1")
            })?),
        };
        if matches!(&role, Role::Worker(queues) if queues.iter().any(|queue| queue == "push"))
            && push.is_empty()
        {
            return Err(
                "COUPLE_ROLE has the queue push, which needs a push service: set COUPLE_APNS_KEY_FILE, \
                        COUPLE_FCM_KEY_FILE or COUPLE_VAPID_KEY_FILE"
                    .to_owned(),
            );
        }
        let public_url =
            get("COUPLE_PUBLIC_URL").map_or_else(|| format!("http://{}", reachable(listen)), str::to_owned);
        let host = public_url.strip_prefix("http://").or_else(|| public_url.strip_prefix("https://"));
        if host.is_none_or(|host| host.trim_start_matches('/').is_empty()) {
            return Err(format!(
                "COUPLE_PUBLIC_URL={public_url} is not a URL of the form http://HOST or https://HOST"
            ));
        }
        // A loopback address with a public URL or proxies is a server behind a proxy, which is not for its developer only.
        let local = listen.ip().is_loopback()
            && site::host_of(&public_url).is_some_and(|host| site::is_loopback(&host))
            && trusted_proxies.is_empty();
        let (pages, demo_requested) = match get("COUPLE_DEMO") {
            None => (local, false),
            Some("on") => (true, true),
            Some("off") => (false, false),
            Some(other) => return Err(format!("COUPLE_DEMO={other} is neither on nor off")),
        };
        let admin_listen =
            get("COUPLE_ADMIN_LISTEN").map(|text| address("COUPLE_ADMIN_LISTEN", text)).transpose()?;
        Ok(Self {
            listen,
            admin_listen,
            database,
            connections,
            schema,
            table_prefix,
            key_file,
            redis,
            pictures,
            mail,
            dkim,
            push,
            public_url,
            limits,
            trusted_proxies,
            proxy_header,
            cors_origins,
            workers,
            metrics,
            stop_delay,
            connections_per_client,
            pages: pages && role.serves_requests(),
            demo_requested,
            role,
        })
    }
}

/// Address at which a client of this machine reaches a server that listens at `listen`: loopback if that means all addresses.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn is_name(name: &str, max_len: usize) -> bool {
    name.len() <= max_len
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn database(url: &str) -> Result<Database, String> {
    if url == "memory:" {
        return Ok(Database::Memory);
    }
    match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() => Ok(Database::Sqlite(path.into())),
        Some(("mysql" | "mariadb", _)) => Ok(Database::MySql(url.to_owned())),
        Some(("postgres" | "postgresql", _)) => Ok(Database::Postgres(url.to_owned())),
        // The value is not printed: it may contain a password.
        _ => {
            Err("COUPLE_DATABASE_URL is none of memory:, sqlite://PATH, mysql://…, mariadb://…, postgres://…"
                .to_owned())
        }
    }
}

fn pictures(url: &str) -> Result<Pictures, String> {
    if url == "memory:" {
        return Ok(Pictures::Memory);
    }
    match url.split_once("://") {
        Some(("file", folder)) if !folder.is_empty() => Ok(Pictures::Files(folder.into())),
        Some(("s3", place)) if !place.is_empty() && !place.contains('@') => {
            let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
            Ok(Pictures::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        }
        // The value is not printed: it may contain a key, which belongs in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
        _ => Err("COUPLE_BLOBS is none of memory:, file://FOLDER, s3://BUCKET/PREFIX".to_owned()),
    }
}

fn push_services<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<PushServices, String> {
    // All settings of a service, or none of them.
    let all = |names: &[&str]| {
        let values: Vec<_> = names.iter().map(|name| get(name)).collect();
        match names.iter().zip(&values).find(|(_, value)| value.is_none()) {
            None => Ok(Some(values.into_iter().flatten().collect::<Vec<_>>())),
            Some(_) if values.iter().all(Option::is_none) => Ok(None),
            Some((missing, _)) => Err(format!("{missing} is missing: set {}", names.join(", "))),
        }
    };
    let apns = all(&["COUPLE_APNS_KEY_FILE", "COUPLE_APNS_KEY_ID", "COUPLE_APNS_TEAM_ID"])?;
    let web = all(&["COUPLE_VAPID_KEY_FILE", "COUPLE_VAPID_CONTACT"])?;
    Ok(PushServices {
        apns: apns.map(|values| ApnsKey {
            file: values[0].into(),
            key_id: values[1].to_owned(),
            team_id: values[2].to_owned(),
        }),
        fcm: get("COUPLE_FCM_KEY_FILE").map(PathBuf::from),
        web: web.map(|values| WebPushKey { file: values[0].into(), contact: values[1].to_owned() }),
    })
}

fn role(text: &str) -> Result<Role, String> {
    const QUEUES: [&str; 4] = ["mail", "media", "push", "default"];
    let is_known = |role: &Role| match role {
        Role::Worker(names) => names.iter().all(|name| QUEUES.contains(&name.as_str())),
        Role::All | Role::Api => true,
    };
    text.parse().ok().filter(is_known).ok_or_else(|| {
        format!("COUPLE_ROLE={text} is none of all, api, worker, worker:mail, worker:media, worker:push, worker:default")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::from_env(vars.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn defaults_need_no_settings() {
        let Ok(settings) = read(&[("PATH", "/bin")]) else { panic!("refused") };
        assert!(settings.limits && settings.answers());
        assert_eq!(settings.public_url, "http://127.0.0.1:8080");
    }

    #[test]
    fn default_public_url_can_be_opened_on_this_machine() {
        let url = |listen| read(&[("COUPLE_LISTEN", listen)]).map(|settings| settings.public_url);
        assert_eq!(url("0.0.0.0:80").as_deref(), Ok("http://127.0.0.1:80"));
        assert_eq!(url("[::]:80").as_deref(), Ok("http://[::1]:80"));
        assert_eq!(url("10.0.0.1:80").as_deref(), Ok("http://10.0.0.1:80"));
    }

    #[test]
    fn pictures_are_stored_where_the_database_is() {
        let kept = |vars| read(vars).map(|settings| settings.pictures);
        assert!(matches!(kept(&[]), Ok(Pictures::Files(_))));
        assert!(matches!(kept(&[("COUPLE_DATABASE_URL", "memory:")]), Ok(Pictures::Memory)));
        let chosen = [("COUPLE_DATABASE_URL", "memory:"), ("COUPLE_BLOBS", "file://pictures")];
        assert!(matches!(kept(&chosen), Ok(Pictures::Files(_))));
    }

    #[test]
    fn pages_are_served_on_loopback_or_on_request() {
        let pages = |vars| read(vars).is_ok_and(|settings| settings.pages);
        assert!(pages(&[]));
        assert!(pages(&[("COUPLE_LISTEN", "[::1]:8080")]));
        assert!(!pages(&[("COUPLE_DEMO", "off")]));
        assert!(!pages(&[("COUPLE_ROLE", "worker")]));
        // Listening on loopback behind a proxy.
        assert!(!pages(&[("COUPLE_PUBLIC_URL", "https://app.example.org")]));
        assert!(!pages(&[("COUPLE_TRUSTED_PROXIES", "127.0.0.1")]));
        assert!(!pages(&[("COUPLE_LISTEN", "0.0.0.0:8080")]));
        assert!(pages(&[("COUPLE_LISTEN", "0.0.0.0:8080"), ("COUPLE_DEMO", "on")]));
    }

    #[test]
    fn invalid_setting_is_an_error_of_one_line() {
        for (name, value, says) in [
            ("COUPLE_PORT", "1", "COUPLE_PORT is not a setting"),
            ("COUPLE_LISTEN", "8080", "127.0.0.1:8080"),
            ("COUPLE_DATABASE_URL", "oracle://u:secret@h", "sqlite://PATH"),
            ("COUPLE_DATABASE_URL", "mysql://u:secret@h/d", "COUPLE_KEY_FILE"),
            ("COUPLE_DATABASE_CONNECTIONS", "2", "from 3 to 1000"),
            ("COUPLE_DATABASE_SCHEMA", "love", "for PostgreSQL"),
            ("COUPLE_DATABASE_SCHEMA", "a.b", "at most 31"),
            ("COUPLE_TABLE_PREFIX", "Love_", "at most 24"),
            ("COUPLE_MAIL", "smtp://h", "COUPLE_MAIL_FROM"),
            ("COUPLE_MAIL", "sendmail:///usr/sbin/sendmail", "COUPLE_MAIL_FROM"),
            ("COUPLE_MAIL", "sendmail://sendmail", "sendmail:///PROGRAM"),
            ("COUPLE_MAIL_DKIM_DOMAIN", "example.org", "COUPLE_MAIL_DKIM_KEYS belong together"),
            ("COUPLE_MAIL_DKIM_KEYS", "s1=key.pem", "COUPLE_MAIL_DKIM_KEYS belong together"),
            ("COUPLE_MAIL_ROOT_CERTIFICATES", "roots.pem", "for mail over SMTP"),
            ("COUPLE_APNS_KEY_FILE", "AuthKey.p8", "COUPLE_APNS_KEY_ID is missing"),
            ("COUPLE_VAPID_CONTACT", "mailto:ops@example.org", "COUPLE_VAPID_KEY_FILE is missing"),
            ("COUPLE_LIMITS", "no", "neither on nor off"),
            ("COUPLE_TRUSTED_PROXIES", "10.0.0.0/8, x", "x is neither"),
            ("COUPLE_WORKERS", "0", "1 to 1024"),
            ("COUPLE_METRICS", "yes", "neither on nor off"),
            ("COUPLE_STOP_DELAY", "5s", "from 0 to 300"),
            ("COUPLE_CONNECTIONS_PER_CLIENT", "0", "at least 1"),
            ("COUPLE_BLOBS", "s3://id:secret@bucket", "s3://BUCKET/PREFIX"),
            ("COUPLE_ROLE", "worker:cake", "none of"),
            ("COUPLE_ROLE", "worker:push", "COUPLE_APNS_KEY_FILE"),
            ("COUPLE_PUBLIC_URL", "example.org", "http://"),
            ("COUPLE_PUBLIC_URL", "https://", "https://HOST"),
            ("COUPLE_DEMO", "yes", "neither on nor off"),
        ] {
            let Err(wrong) = read(&[(name, value)]) else { panic!("{name}={value} is accepted") };
            assert!(wrong.contains(says) && !wrong.contains('\n') && !wrong.contains("secret"), "{wrong}");
        }
    }

    #[test]
    fn every_setting_is_documented() {
        let page = include_str!("../../docs/configuration.md");
        for name in KNOWN {
            assert!(page.contains(&format!("`{name}`")), "{name} is missing in docs/configuration.md");
        }
    }
}
