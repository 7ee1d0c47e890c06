//! Developer's mailbox: the mails that the server writes as files, and the push log, as JSON and as server-sent events.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Path as PathParam, Query, State},
    http::{StatusCode, header},
    response::{
        Html, IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::stream;
use mail_parser::{Address, MessageParser};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking};

use crate::{push_log::PushLog, site::uncached};

/// Maximum mails in the list, the newest ones.
const MAX_LISTED_MAILS: usize = 200;
/// Maximum bytes of a mail that are read.
const MAX_MAIL_BYTES: u64 = 1 << 20;
/// Interval at which an event stream looks for new mails.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Interval of comments that keep an idle event stream open.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const SUFFIX: &str = ".eml";
/// Policy of the HTML of a mail: its own styles and nothing else. The sandbox gives it an origin of its own.
const HTML_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; form-action 'none'; frame-ancestors 'self'";
/// Condition of the styles of mails for dark colours.
const DARK: &str = "(prefers-color-scheme: dark)";

#[derive(Clone)]
struct Mailbox {
    folder: PathBuf,
    push_log: PushLog,
    stop: watch::Receiver<bool>,
}

/// Routes of the mailbox of a folder. Event streams end when `stop` becomes true.
pub(crate) fn routes(folder: PathBuf, push_log: PushLog, stop: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/dev/mail/messages", get(list))
        .route("/dev/mail/messages/{id}", get(one))
        .route("/dev/mail/messages/{id}/html", get(html))
        .route("/dev/mail/pushes", get(pushes))
        .route("/dev/mail/events", get(events))
        .with_state(Mailbox { folder, push_log, stop })
}

/// A mail as JSON.
#[derive(Debug, Serialize)]
struct MailOut {
    /// Name of the mail's file without its suffix.
    id: String,
    to: String,
    from: String,
    subject: String,
    /// RFC 3339.
    date: Option<String>,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
    headers: Vec<HeaderOut>,
    /// Code in the text: a sign-in code or an invite code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// First link in the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

/// A header as it was sent, on one line.
#[derive(Debug, Serialize)]
struct HeaderOut {
    name: String,
    value: String,
}

fn addresses(list: Option<&Address<'_>>) -> String {
    let mut out = Vec::new();
    for address in list.into_iter().flat_map(|list| list.iter()) {
        let email = address.address().unwrap_or_default();
        out.push(address.name().map_or_else(|| email.to_owned(), |name| format!("{name} <{email}>")));
    }
    out.join(", ")
}

/// Code that stands alone on an indented line.
fn code_in(text: &str) -> Option<&str> {
    let codes = text.lines().filter(|line| line.starts_with("    ")).map(str::trim);
    codes.into_iter().find(|code| {
        (6..=16).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-')
    })
}

fn link_in(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| word.starts_with("https://") || word.starts_with("http://"))
}

fn parse(id: &str, bytes: &[u8]) -> Option<MailOut> {
    let mail = MessageParser::new().parse(bytes)?;
    let text = mail.body_text(0).unwrap_or_default().replace("\r\n", "\n");
    // Without an HTML part the library makes one of the text.
    let html = mail.html_part(0).filter(|part| part.is_text_html()).and_then(|_| mail.body_html(0));
    let headers = mail.headers_raw().map(|(name, value)| HeaderOut {
        name: name.to_owned(),
        value: value.split_whitespace().collect::<Vec<_>>().join(" "),
    });
    Some(MailOut {
        id: id.to_owned(),
        to: addresses(mail.to()),
        from: addresses(mail.from()),
        subject: mail.subject().unwrap_or_default().to_owned(),
        date: mail.date().map(mail_parser::DateTime::to_rfc3339),
        html: html.map(std::borrow::Cow::into_owned),
        headers: headers.collect(),
        code: code_in(&text).map(str::to_owned),
        link: link_in(&text).map(str::to_owned),
        text,
    })
}

/// Name and modification time of a file that contains a mail.
type MailFile = (String, SystemTime);

/// The mails of a folder, newest first. Links and folders in it are ignored.
fn files(folder: &Path) -> io::Result<Vec<MailFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.ends_with(SUFFIX) || name.starts_with('.') || !entry.file_type()?.is_file() {
            continue;
        }
        match entry.metadata().and_then(|metadata| metadata.modified()) {
            Ok(modified) => files.push((name, modified)),
            // The file was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.sort_by(|(name, at), (other, other_at)| (other_at, other).cmp(&(at, name)));
    Ok(files)
}

/// Reads a mail by the name of a file that [`files`] has listed.
fn read(folder: &Path, name: &str) -> Option<MailOut> {
    let mut bytes = Vec::new();
    File::open(folder.join(name)).and_then(|file| file.take(MAX_MAIL_BYTES).read_to_end(&mut bytes)).ok()?;
    parse(name.strip_suffix(SUFFIX)?, &bytes)
}

fn unreadable(error: &io::Error) -> Response {
    tracing::error!(%error, "the mail folder cannot be read");
    (StatusCode::SERVICE_UNAVAILABLE, "the mail folder cannot be read: the log of the server says why\n")
        .into_response()
}

async fn list(State(mailbox): State<Mailbox>) -> Response {
    let read = spawn_blocking(move || {
        let files = files(&mailbox.folder)?;
        let newest = files.iter().take(MAX_LISTED_MAILS);
        io::Result::Ok(newest.filter_map(|(name, _)| read(&mailbox.folder, name)).collect::<Vec<_>>())
    });
    match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(mails) => uncached(Json(mails)),
        Err(error) => unreadable(&error),
    }
}

/// Finds a mail; the response says why there is none.
async fn find(mailbox: Mailbox, id: String) -> Result<MailOut, Response> {
    let read = spawn_blocking(move || {
        // An id counts only if the folder lists it, so that it cannot be a path to another file.
        let name = format!("{id}{SUFFIX}");
        let listed = files(&mailbox.folder)?.into_iter().find(|(listed, _)| *listed == name);
        io::Result::Ok(listed.and_then(|(name, _)| read(&mailbox.folder, &name)))
    });
    match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(Some(mail)) => Ok(mail),
        Ok(None) => Err((StatusCode::NOT_FOUND, "no such mail\n").into_response()),
        Err(error) => Err(unreadable(&error)),
    }
}

async fn one(State(mailbox): State<Mailbox>, PathParam(id): PathParam<String>) -> Response {
    find(mailbox, id).await.map_or_else(|response| response, |mail| uncached(Json(mail)))
}

/// Colours in which the HTML of a mail is shown.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Colours {
    Light,
    Dark,
}

#[derive(Debug, Deserialize)]
struct HtmlQuery {
    colours: Colours,
}

/// HTML as a phone with these colours shows it, whatever the colours of the browser are.
fn in_colours(html: &str, colours: Colours) -> String {
    match colours {
        Colours::Light => html.replace(DARK, "not all").replace("light dark", "light"),
        Colours::Dark => html.replace(DARK, "all").replace("light dark", "dark"),
    }
}

async fn html(
    State(mailbox): State<Mailbox>,
    PathParam(id): PathParam<String>,
    Query(query): Query<HtmlQuery>,
) -> Response {
    let html = find(mailbox, id).await.map(|mail| mail.html);
    match html {
        Ok(Some(html)) => {
            let policy = [(header::CONTENT_SECURITY_POLICY, HTML_POLICY)];
            uncached((policy, Html(in_colours(&html, query.colours))))
        }
        Ok(None) => (StatusCode::NOT_FOUND, "the mail has no HTML\n").into_response(),
        Err(response) => response,
    }
}

async fn pushes(State(mailbox): State<Mailbox>) -> Response {
    let mut reports = mailbox.push_log.after(0);
    reports.reverse();
    uncached(Json(reports))
}

/// Follows a folder and the push log for one client.
struct Follower {
    folder: PathBuf,
    push_log: PushLog,
    /// Number of the last report that was sent.
    reported: u64,
    stop: watch::Receiver<bool>,
    seen: HashMap<String, SystemTime>,
    /// Time of the folder's last change that was seen.
    changed: Option<SystemTime>,
    /// Whether the last look found a change.
    ///
    /// Then the next look reads the folder again: a second change within the resolution of the file system's clock does not change
    /// the folder's time.
    look_again: bool,
    pending: VecDeque<MailOut>,
}

impl Follower {
    /// Adds mails to `pending` that were written since the last call, oldest first.
    fn look(&mut self) -> io::Result<()> {
        let changed = std::fs::metadata(&self.folder)?.modified()?;
        let unchanged = self.changed == Some(changed);
        if unchanged && !self.look_again {
            return Ok(());
        }
        (self.changed, self.look_again) = (Some(changed), !unchanged);
        for (name, at) in files(&self.folder)?.into_iter().rev() {
            if self.seen.get(&name) != Some(&at) {
                self.pending.extend(read(&self.folder, &name));
                self.seen.insert(name, at);
            }
        }
        Ok(())
    }

    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(mail) = self.pending.pop_front() {
                let event = Event::default().event("mail").id(mail.id.clone()).json_data(&mail).ok()?;
                return Some((Ok(event), self));
            }
            if let Some(report) = self.push_log.after(self.reported).into_iter().next() {
                self.reported = report.id();
                let event = Event::default().event("push").json_data(&report).ok()?;
                return Some((Ok(event), self));
            }
            tokio::select! {
                () = stopped(&mut self.stop) => return None,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            let mut looking = self;
            // A folder that cannot be read ends the stream; the client connects again.
            self = spawn_blocking(move || looking.look().map(|()| looking)).await.ok()?.ok()?;
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn events(State(mailbox): State<Mailbox>) -> Response {
    let Mailbox { folder, push_log, stop } = mailbox;
    let reported = push_log.count();
    let seen = spawn_blocking({
        let folder = folder.clone();
        move || files(&folder)
    });
    let seen = match seen.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(seen) => seen.into_iter().collect(),
        Err(error) => return unreadable(&error),
    };
    let follower = Follower {
        folder,
        push_log,
        reported,
        stop,
        seen,
        changed: None,
        look_again: true,
        pending: VecDeque::new(),
    };
    let stream = stream::unfold(follower, Follower::next);
    uncached(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "From: Couple <couple@localhost>\r\nTo: ana@example.org\r\nSubject: Your code\r\n for Couple\r\n\
        Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
        Hello,\r\n\r\n    \"A message\"\r\n\r\n    123456\r\n\r\nOr open http://127.0.0.1:8080/open/verify#verify_x now\r\n";

    #[test]
    fn mail_has_its_code_and_link() {
        let Some(mail) = parse("1", MAIL.as_bytes()) else { panic!("no mail") };
        assert_eq!((mail.to.as_str(), mail.subject.as_str()), ("ana@example.org", "Your code for Couple"));
        assert_eq!(mail.from, "Couple <couple@localhost>");
        assert_eq!(mail.date.as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(mail.code.as_deref(), Some("123456"));
        assert_eq!(mail.link.as_deref(), Some("http://127.0.0.1:8080/open/verify#verify_x"));
        assert!(mail.html.is_none() && mail.text.starts_with("Hello,\n"));
        assert_eq!(mail.headers[2].value, "Your code for Couple");
        assert_eq!(code_in("code:\n\n    ABCDE-FGH23\n"), Some("ABCDE-FGH23"));
        let html = MAIL.replace("text/plain", "text/html");
        assert!(parse("1", html.as_bytes()).is_some_and(|mail| mail.html.is_some()));
    }

    #[test]
    fn html_is_shown_in_the_chosen_colours() {
        let html = "<meta name=\"color-scheme\" content=\"light dark\"><style>@media (prefers-color-scheme: dark) {}</style>";
        let light = in_colours(html, Colours::Light);
        assert_eq!(light, "<meta name=\"color-scheme\" content=\"light\"><style>@media not all {}</style>");
        let dark = in_colours(html, Colours::Dark);
        assert_eq!(dark, "<meta name=\"color-scheme\" content=\"dark\"><style>@media all {}</style>");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_other_files_are_no_mails() {
        let Ok(folder) = tempfile::tempdir() else { panic!("no folder") };
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("1.eml"), MAIL).unwrap();
        std::fs::write(path(".2.partial"), MAIL).unwrap();
        std::fs::write(path("secret"), MAIL).unwrap();
        std::os::unix::fs::symlink(path("secret"), path("3.eml")).unwrap();
        let names: Vec<_> = files(folder.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["1.eml"]);
    }

    #[test]
    fn follower_reports_each_new_mail_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1.eml"), MAIL).unwrap();
        let (_stop, stopped) = watch::channel(false);
        let mut follower = Follower {
            folder: folder.path().to_owned(),
            push_log: PushLog::new(),
            reported: 0,
            stop: stopped,
            seen: files(folder.path()).unwrap().into_iter().collect(),
            changed: None,
            look_again: true,
            pending: VecDeque::new(),
        };
        follower.look().unwrap();
        assert!(follower.pending.is_empty(), "an old mail is reported");
        for name in ["2", "3"] {
            std::fs::write(folder.path().join(format!("{name}.eml")), MAIL).unwrap();
            follower.look().unwrap();
        }
        follower.look().unwrap();
        let ids: Vec<_> = follower.pending.iter().map(|mail| mail.id.as_str()).collect();
        assert_eq!(ids, ["2", "3"]);
    }

    #[tokio::test]
    async fn response_about_a_missing_folder_does_not_show_its_cause() {
        let folder = tempfile::tempdir().unwrap();
        let mailbox = Mailbox {
            folder: folder.path().join("gone"),
            push_log: PushLog::new(),
            stop: watch::channel(false).1,
        };
        let id = PathParam("1".to_owned());
        for response in [list(State(mailbox.clone())).await, one(State(mailbox), id).await] {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
            assert_eq!(body, "the mail folder cannot be read: the log of the server says why\n");
        }
    }
}
