//! Results as rows of named fields, so that two results are compared field by field.

use couple_core::{
    AccountId, Digest, MediaId, OutcomeRecord, Timestamp,
    account::{Account, Session, Tally, Token},
    date::CoupleDate,
    device::Device,
    job::{ClaimedJob, DeadJob, NewJob, QueueStats},
    media::{Media, Rendition, Space, SpaceUsage},
    notification::Preferences,
    pairing::{Block, Couple, Invite},
    timeline::Entry,
    upload::{ResumableUpload, UnfinishedUploads},
};

use super::names::{Words, list};

/// Row of a result: its name, which is unique in the result, and the words of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) name: String,
    fields: Vec<(&'static str, String)>,
}

impl Row {
    /// Most important fields in words.
    fn words(&self) -> String {
        match self.fields.as_slice() {
            [] => self.name.clone(),
            [("", value)] => value.clone(),
            fields => {
                // The name contains the id.
                let fields = fields.iter().filter(|(name, value)| *name != "id" && value != "none");
                format!("{} ({})", self.name, list(fields.map(|(name, value)| format!("{name} {value}"))))
            }
        }
    }
}

/// Words of rows.
pub(super) fn rows_in_words(rows: &[Row]) -> String {
    match rows {
        [] => "nothing".to_owned(),
        rows => rows.iter().map(Row::words).collect::<Vec<_>>().join("; "),
    }
}

/// Differences of two lists of rows: which row, which field, both values. Empty if they are equal.
pub(super) fn differences(expected: &[Row], got: &[Row]) -> Vec<String> {
    if expected == got {
        return Vec::new();
    }
    let named = |rows: &[Row], name: &str| rows.iter().find(|row| row.name == name).cloned();
    let mut lines = Vec::new();
    for row in expected {
        match named(got, &row.name) {
            None => lines.push(format!("expected: {}; got: no such row", row.words())),
            Some(other) => lines.extend(field_differences(row, &other)),
        }
    }
    for row in got.iter().filter(|row| named(expected, &row.name).is_none()) {
        lines.push(format!("expected: no such row; got: {}", row.words()));
    }
    if lines.is_empty() {
        let order = |rows: &[Row]| list(rows.iter().map(|row| row.name.clone()));
        lines.push(format!("expected the order: {}; got: {}", order(expected), order(got)));
    }
    lines
}

fn field_differences(expected: &Row, got: &Row) -> Vec<String> {
    let pairs = expected.fields.iter().zip(&got.fields).filter(|(expected, got)| expected != got);
    let line = |((field, expected_value), (_, got_value)): (&(&str, String), &(&str, String))| {
        let values = format!("expected: {expected_value}; got: {got_value}");
        if field.is_empty() { values } else { format!("{}, field `{field}`: {values}", expected.name) }
    };
    pairs.map(line).collect()
}

/// Value that is stored or counted, as a row.
pub(super) trait ToRow {
    fn to_row(&self) -> Row;
}

/// Result of a read, as rows.
pub(super) trait ToRows {
    fn to_rows(&self) -> Vec<Row>;
}

impl<T: ToRow> ToRows for T {
    fn to_rows(&self) -> Vec<Row> {
        vec![self.to_row()]
    }
}
impl<T: ToRow> ToRows for Option<T> {
    fn to_rows(&self) -> Vec<Row> {
        self.iter().map(ToRow::to_row).collect()
    }
}
impl<T: ToRow> ToRows for Vec<T> {
    fn to_rows(&self) -> Vec<Row> {
        self.iter().map(ToRow::to_row).collect()
    }
}

/// The fields are listed without `..`: a new field does not compile until it is compared.
macro_rules! rows {
    ($($type:ident { $($field:ident),+ $(,)? } => $name:expr;)+) => {$(
        impl ToRow for $type {
            fn to_row(&self) -> Row {
                let $type { $($field),+ } = self;
                let fields = vec![$((stringify!($field), $field.words())),+];
                Row { name: $name, fields }
            }
        }
    )+};
}
rows! {
    Account {
        id, email, display_name, locale, time_zone, birthday, password, created_at, deletion_due, version,
    } => format!("account {}", id.words());
    Token {
        id, kind, email, account, link, session, network, tries, foreign_tries, used_form, display_name, locale,
        created_at, code_expires_at, expires_at, used_at,
    } => id.words();
    Session {
        id, account, token, device, created_at, authenticated_at, seen_at, expires_at, widget_token,
    } => id.words();
    Tally { count, expires_at } => "tally".to_owned();
    Couple {
        id, members, since, epoch, ended_at, title, anniversary, previous, restore, head_seq, read,
    } => id.words();
    Invite {
        id, inviter, inviter_email, target, message, code, link, created_at, expires_at, state,
    } => id.words();
    Block { blocker, blocker_email, blocked, at } => {
        format!("block of {} by {}", blocked.words(), blocker.words())
    };
    Entry {
        seq, author, client_id, kind, body, target, created_at, edited_at, deleted_at, reactions,
    } => format!("entry {seq}");
    Media {
        id, space, owner, purpose, state, digest, crop, key, source, width, height, animated, alpha, placeholder,
        uses, created_at,
    } => id.words();
    Rendition { name, format, width, height, bytes, blob, made_at, used_at } => {
        format!("rendition {name}.{}", format.extension())
    };
    SpaceUsage { bytes, avatar, closed } => "usage".to_owned();
    ResumableUpload {
        id, owner, couple, length, offset, parts, writer, metadata, concatenation, media, expires_at,
    } => id.words();
    Device {
        account, id, session, destination, surface, locale, time_zone, app_version, registered_at,
    } => format!("{} of {}", id.words(), account.words());
    Preferences {
        person, version, kinds, previews, muted_until, quiet_hours, time_zone, digest, digest_due,
    } => {
        format!("preferences of {}", person.words())
    };
    CoupleDate { couple, id, version, kind, title, day, is_yearly, created_at } => {
        format!("{} of {}", id.words(), couple.words())
    };
    UnfinishedUploads { count, bytes } => "unfinished uploads".to_owned();
    NewJob {
        id, queue, name, payload, dedupe_key, due_at, expires_at, max_attempts, created_at,
    } => id.words();
    QueueStats { ready, waiting, dead, next_due } => "statistics".to_owned();
    OutcomeRecord { scope, request, outcome, recorded_at, expires_at } => format!("outcome of {}", scope.words());
}

impl ToRow for ClaimedJob {
    fn to_row(&self) -> Row {
        let Self { job, attempt, claim } = self;
        let mut row = job.to_row();
        row.fields.extend([("attempt", attempt.words()), ("claim", claim.words())]);
        row
    }
}
impl ToRow for DeadJob {
    fn to_row(&self) -> Row {
        let Self { job, attempts, error, died_at } = self;
        let mut row = job.to_row();
        row.fields.extend([
            ("attempts", attempts.words()),
            ("error", error.words()),
            ("died_at", died_at.words()),
        ]);
        row
    }
}
impl ToRow for (Session, Account) {
    fn to_row(&self) -> Row {
        let (mut row, account) = (self.0.to_row(), self.1.to_row());
        row.fields.extend(account.fields);
        row
    }
}
impl ToRows for Option<(Session, Account, Option<Couple>)> {
    fn to_rows(&self) -> Vec<Row> {
        let Some((session, account, couple)) = self else { return Vec::new() };
        let mut rows = vec![session.to_row(), account.to_row()];
        rows.extend(couple.to_rows());
        rows
    }
}
impl ToRow for (MediaId, Rendition) {
    fn to_row(&self) -> Row {
        let row = self.1.to_row();
        Row { name: format!("{} of {}", row.name, self.0.words()), ..row }
    }
}
impl ToRow for (Timestamp, AccountId) {
    fn to_row(&self) -> Row {
        Row { name: self.1.words(), fields: vec![("due", self.0.words())] }
    }
}

/// Values without an id.
macro_rules! values {
    ($($type:ty),+) => {$(
        impl ToRow for $type {
            fn to_row(&self) -> Row { Row { name: "value".to_owned(), fields: vec![("", self.words())] } }
        }
    )+};
}
values!(bool, u32, i64, Timestamp);

/// Ids without fields.
macro_rules! bare {
    ($($type:ty),+) => {$(
        impl ToRow for $type {
            fn to_row(&self) -> Row { Row { name: self.words(), fields: Vec::new() } }
        }
    )+};
}
bare!(Space, Digest);
