//! Accounts, mailed tokens and sessions in SQL.

use async_trait::async_trait;
use couple_core::{
    AccountId, ChangeResult, Conflict, Digest, DisplayName, EmailAddress, EmailKey, Error, Label, Locale,
    SessionId, TimeZoneName, Timestamp, TokenId,
    account::{
        Account, AccountChange, AccountReads, PasswordHash, ProofForm, SeenToken, Session, SessionToken,
        Tally, TallyId, Token, TokenKind, Tries,
    },
    pairing::Couple,
};
use uuid::Uuid;

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection,
    apply_error::{Applied, ApplyError, require_one_row},
    device::{self, SESSIONS_PER_STATEMENT},
    dialect::ReadColumn,
    notification, pairing, tally,
};

macro_rules! account {
    () => {
        "id, email_key, email, display_name, locale, time_zone, birthday, password, created_at, deletion_due, version"
    };
}
macro_rules! token {
    () => {
        "id, kind, email_key, email, account_id, link, tries, display_name, locale, created_at, code_expires_at, \
         expires_at, used_at, session_id, network, foreign_tries, used_form"
    };
}
/// SQL condition: the token is unused and in the state that was read.
///
/// A number of tries that is null matches any.
macro_rules! as_seen {
    ($tries:literal, $foreign:literal, $form:literal) => {
        concat!(
            "AND used_at IS NULL AND tries = COALESCE(",
            $tries,
            ", tries) AND foreign_tries = COALESCE(",
            $foreign,
            ", foreign_tries) AND COALESCE(used_form, '') = ",
            $form
        )
    };
}
macro_rules! session {
    () => {
        "account_id, id, token, device, created_at, authenticated_at, seen_at, expires_at, widget_token"
    };
}

/// Columns of a session with its account, and of the couple of the account.
macro_rules! session_and_account {
    () => {
        "s.account_id, s.id, s.token, s.device, s.created_at, s.authenticated_at, s.seen_at, s.expires_at, s.widget_token, \
         a.id, a.email_key, a.email, a.display_name, a.locale, a.time_zone, a.birthday, a.password, a.created_at, \
         a.deletion_due, a.version"
    };
}
macro_rules! session_and_couple {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            session_and_account!(),
            ", c.id, c.first, c.second, c.since, c.epoch, c.ended_at, c.title, c.anniversary, c.previous, \
             c.restore_first, c.restore_second, c.head_seq, c.read_first, c.read_second \
             FROM couple_session s JOIN couple_account a ON a.id = s.account_id \
             LEFT JOIN couple_member m ON m.account_id = s.account_id LEFT JOIN couple_couple c ON c.id = m.couple_id WHERE ",
            $condition
        )
    };
}

/// Number of sessions that one [`PRESENT_SESSIONS`] looks up: its number of parameters.
const MAX_SESSIONS_PER_QUERY: usize = 64;

statements! {
    ACCOUNT = "SELECT ", account!(), " FROM couple_account WHERE id = $1";
    ACCOUNT_BY_EMAIL = "SELECT ", account!(), " FROM couple_account WHERE email_key = $1";
    FIRST = "SELECT id FROM couple_account WHERE id > $1 ORDER BY id LIMIT 1";
    TO_DELETE = "SELECT ", account!(), " FROM couple_account WHERE deletion_due <= $1 AND deletion_due >= $2 \
     AND (deletion_due > $3 OR id > $4) ORDER BY deletion_due, id LIMIT $5";
    INSERT = "INSERT INTO couple_account (", account!(), ") SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM (SELECT 1 AS one) AS one \
     WHERE NOT EXISTS (SELECT 1 FROM couple_account WHERE id = $12) \
     AND NOT EXISTS (SELECT 1 FROM couple_account WHERE email_key = $13)";
    EMAIL_OWNER = "SELECT id FROM couple_account WHERE email_key = $1";
    VERSION = "SELECT version FROM couple_account WHERE id = $1 FOR UPDATE" => sqlite: "SELECT version FROM couple_account WHERE id = $1";
    UPDATE = "UPDATE couple_account SET email_key = $1, email = $2, display_name = $3, locale = $4, time_zone = $5, birthday = $6, \
     password = $7, created_at = $8, deletion_due = $9, version = version + 1 WHERE id = $10 AND version = $11";
    ERASE = "DELETE FROM couple_account WHERE id = $1 AND version = $2";
    ERASE_TOKENS = "DELETE FROM couple_token WHERE account_id = $1";
    TOKEN = "SELECT ", token!(), " FROM couple_token WHERE id = $1";
    TOKEN_BY_LINK = "SELECT ", token!(), " FROM couple_token WHERE link = $1";
    OPEN_TOKENS = "SELECT ", token!(), " FROM couple_token WHERE email_key = $1 AND kind = $2 AND used_at IS NULL AND expires_at > $3 \
     ORDER BY created_at DESC, id DESC LIMIT 32";
    INSERT_TOKEN = "INSERT INTO couple_token (", token!(), ") SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17 \
     FROM (SELECT 1 AS one) AS one WHERE NOT EXISTS (SELECT 1 FROM couple_token WHERE id = $18) \
     AND NOT EXISTS (SELECT 1 FROM couple_token WHERE link = $19)";
    HOLD_SESSION = "SELECT 1 FROM couple_session WHERE account_id = $1 AND id = $2 FOR UPDATE"
        => sqlite: "SELECT 1 FROM couple_session WHERE account_id = $1 AND id = $2";
    REDEEM = "UPDATE couple_token SET used_at = $1 WHERE id = $2 ", as_seen!("$3", "$4", "$5");
    REDEEM_FORM = "UPDATE couple_token SET used_form = $1, account_id = $2 WHERE id = $3 ", as_seen!("$4", "$5", "$6");
    HOLD_TOKEN = "SELECT 1 FROM couple_token WHERE id = $1 ", as_seen!("$2", "$3", "$4"), " FOR UPDATE"
        => sqlite: "SELECT 1 FROM couple_token WHERE id = $1 ", as_seen!("$2", "$3", "$4");
    COUNT_TRIES = "UPDATE couple_token SET tries = tries + CASE WHEN network = $1 THEN 1 ELSE 0 END, \
     foreign_tries = foreign_tries + CASE WHEN network = $2 THEN 0 ELSE 1 END \
     WHERE email_key = $3 AND kind = $4 AND used_at IS NULL AND code_expires_at > $5";
    END_TOKENS = "UPDATE couple_token SET used_at = $1 WHERE email_key = $2 AND kind = $3 AND id <> $4 AND used_at IS NULL";
    END_TOKENS_OF = "UPDATE couple_token SET used_at = $1 WHERE account_id = $2 AND kind = $3 AND id <> $4 AND used_at IS NULL";
    REMOVE_TOKENS = "DELETE FROM couple_token WHERE account_id = $1 AND session_id = $2";
    REMOVE_OTHER_TOKENS = "DELETE FROM couple_token WHERE account_id = $1 AND session_id <> $2";
    PURGE_TOKENS = "DELETE FROM couple_token WHERE id IN (SELECT id FROM couple_token WHERE expires_at < $1 ORDER BY expires_at, id LIMIT $2)"
        => mysql: "DELETE FROM couple_token WHERE expires_at < $1 ORDER BY expires_at, id LIMIT $2";
    SESSION_BY_TOKEN = "SELECT ", session_and_account!(), " FROM couple_session s JOIN couple_account a ON a.id = s.account_id WHERE s.token = $1";
    BEARER_AND_COUPLE = session_and_couple!("s.token = $1");
    WIDGET_AND_COUPLE = session_and_couple!("s.widget_token = $1");
    SESSIONS_OF = "SELECT ", session!(), " FROM couple_session WHERE account_id = $1 ORDER BY created_at DESC, id DESC LIMIT 200";
    PRESENT_SESSIONS = "SELECT token FROM couple_session WHERE token IN ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, \
     $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, \
     $47, $48, $49, $50, $51, $52, $53, $54, $55, $56, $57, $58, $59, $60, $61, $62, $63, $64)";
    INSERT_SESSION = "INSERT INTO couple_session (", session!(), ") SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9 FROM (SELECT 1 AS one) AS one \
     WHERE NOT EXISTS (SELECT 1 FROM couple_session WHERE account_id = $10 AND id = $11) \
     AND NOT EXISTS (SELECT 1 FROM couple_session WHERE token = $12) \
     AND NOT EXISTS (SELECT 1 FROM couple_session WHERE widget_token = $13)";
    WIDGET_OWNER = "SELECT account_id, id FROM couple_session WHERE widget_token = $1";
    COUNT_WIDGETS = "SELECT COUNT(*) FROM couple_session WHERE account_id = $1 AND id <> $2 AND widget_token IS NOT NULL";
    SET_WIDGET = "UPDATE couple_session SET widget_token = $1 WHERE account_id = $2 AND id = $3";
    TOUCH = "UPDATE couple_session SET seen_at = $1 WHERE account_id = $2 AND id = $3";
    END_SESSION = "DELETE FROM couple_session WHERE account_id = $1 AND id = $2";
    END_SESSIONS = "DELETE FROM couple_session WHERE account_id = $1 AND id <> $2";
    EXPIRED = "SELECT account_id, id FROM couple_session WHERE expires_at < $1 ORDER BY expires_at, account_id, id LIMIT $2 FOR UPDATE"
        => sqlite: "SELECT account_id, id FROM couple_session WHERE expires_at < $1 ORDER BY expires_at, account_id, id LIMIT $2";
    IDLE = "SELECT account_id, id FROM couple_session WHERE seen_at < $1 ORDER BY seen_at, account_id, id LIMIT $2 FOR UPDATE"
        => sqlite: "SELECT account_id, id FROM couple_session WHERE seen_at < $1 ORDER BY seen_at, account_id, id LIMIT $2";
    END_LISTED = "DELETE FROM couple_session WHERE ", one_of_sessions!("id");
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &AccountChange,
) -> Result<ChangeResult, ApplyError> {
    match change {
        AccountChange::Insert(account) => {
            let statement = fields(Statement::<D>::new(INSERT).bind(account.id.as_uuid()), account)
                .bind(account.version)
                .bind(account.id.as_uuid())
                .bind(account.email.key().as_str());
            require_one_row(statement.execute(connection).await?, Conflict::AccountExists)?;
        }
        AccountChange::Update(account) => update::<D>(connection, account).await?,
        AccountChange::Erase { id, version } => {
            let erased =
                Statement::<D>::new(ERASE).bind(id.as_uuid()).bind(*version).execute(connection).await?;
            require_one_row(erased, Conflict::AccountChanged(*id))?;
            end_sessions::<D>(connection, *id, None).await?;
            device::remove_of::<D>(connection, *id).await?;
            notification::remove::<D>(connection, *id).await?;
            Statement::<D>::new(ERASE_TOKENS).bind(id.as_uuid()).execute(connection).await?;
        }
        AccountChange::InsertToken(token) => insert_token::<D>(connection, token).await?,
        AccountChange::RedeemToken { id, seen, at } => {
            let statement = Statement::<D>::new(REDEEM).time(*at).bind(id.as_uuid());
            require_one_row(
                as_seen(statement, seen).execute(connection).await?,
                Conflict::TokenChanged(*id),
            )?;
        }
        AccountChange::RequireToken { id, seen } => {
            let statement = Statement::<D>::new(HOLD_TOKEN).bind(id.as_uuid());
            let rows = as_seen(statement, seen).rows(connection).await?.len();
            require_one_row(rows as u64, Conflict::TokenChanged(*id))?;
        }
        AccountChange::RedeemForm { id, seen, form, account } => {
            let statement = Statement::<D>::new(REDEEM_FORM)
                .bind(form.as_str())
                .bind(account.as_uuid())
                .bind(id.as_uuid());
            require_one_row(
                as_seen(statement, seen).execute(connection).await?,
                Conflict::TokenChanged(*id),
            )?;
        }
        AccountChange::CountTries { kind, email, network, at } => {
            Statement::<D>::new(COUNT_TRIES)
                .digest(network)
                .digest(network)
                .bind(email.as_str())
                .bind(kind.as_str())
                .time(*at)
                .execute(connection)
                .await?;
        }
        AccountChange::EndTokens { kind, email, except, at } => {
            let statement = Statement::<D>::new(END_TOKENS)
                .time(*at)
                .bind(email.as_str())
                .bind(kind.as_str())
                .bind(except.map_or(Uuid::nil(), TokenId::as_uuid));
            statement.execute(connection).await?;
        }
        AccountChange::EndTokensOf { account, kind, except, at } => {
            let statement = Statement::<D>::new(END_TOKENS_OF)
                .time(*at)
                .bind(account.as_uuid())
                .bind(kind.as_str())
                .bind(except.map_or(Uuid::nil(), TokenId::as_uuid));
            statement.execute(connection).await?;
        }
        AccountChange::CountTally { id, below, at, expires_at } => {
            tally::count::<D>(connection, *id, *below, *at, *expires_at).await?;
        }
        AccountChange::RequireTally { id, below, at } => {
            tally::require::<D>(connection, *id, *below, *at).await?;
        }
        AccountChange::PutTally { id, tally, .. } => tally::put::<D>(connection, *id, *tally).await?,
        AccountChange::PurgeTallies { before, cap } => {
            let purged = tally::purge::<D>(connection, *before, *cap).await?;
            return Ok(ChangeResult::RowsAffected(purged));
        }
        AccountChange::InsertSession { session, version } => {
            unchanged::<D>(connection, session.account, *version).await?;
            let statement = Statement::<D>::new(INSERT_SESSION)
                .bind(session.account.as_uuid())
                .bind(session.id.as_uuid())
                .digest(&session.token)
                .bind(session.device.as_ref().map(Label::as_str))
                .time(session.created_at)
                .time(session.authenticated_at)
                .time(session.seen_at)
                .time(session.expires_at)
                .bind(bytes(session.widget_token.as_ref()))
                .bind(session.account.as_uuid())
                .bind(session.id.as_uuid())
                .digest(&session.token)
                .bind(bytes(session.widget_token.as_ref()));
            require_one_row(statement.execute(connection).await?, Conflict::SessionExists(session.id))?;
        }
        AccountChange::TouchSession { account, id, seen_at } => {
            let statement =
                Statement::<D>::new(TOUCH).time(*seen_at).bind(account.as_uuid()).bind(id.as_uuid());
            statement.execute(connection).await?;
        }
        AccountChange::SetWidgetToken { account, id, token, most } => {
            set_widget_token::<D>(connection, (*account, *id), token.as_ref(), *most).await?;
        }
        AccountChange::EndSession { account, id } => {
            Statement::<D>::new(END_SESSION)
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .execute(connection)
                .await?;
            // After the session's row: a commit that adds a token or a device of the session locks that row first.
            let statement = Statement::<D>::new(REMOVE_TOKENS).bind(account.as_uuid()).bind(id.as_uuid());
            statement.execute(connection).await?;
            device::end_session::<D>(connection, *account, *id).await?;
        }
        AccountChange::EndSessions { account, except } => {
            end_sessions::<D>(connection, *account, *except).await?;
        }
        AccountChange::PurgeTokens { before, cap } => {
            let statement = Statement::<D>::new(PURGE_TOKENS).time(*before).bind(i64::from(*cap));
            return Ok(ChangeResult::RowsAffected(statement.execute(connection).await?));
        }
        AccountChange::PurgeSessions { before, idle, cap } => {
            let mut purged = 0;
            for (sql, earlier) in [(EXPIRED, before), (IDLE, idle)] {
                let left = i64::from(*cap) - i64::try_from(purged).unwrap_or(0);
                let found = Statement::<D>::new(sql).time(*earlier).bind(left).rows(connection).await?;
                purged += purge_sessions::<D>(connection, &found).await?;
            }
            return Ok(ChangeResult::RowsAffected(purged));
        }
    }
    Ok(ChangeResult::Applied)
}

/// Checks that the account still has the version that was read.
async fn unchanged<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    id: AccountId,
    version: i64,
) -> Applied {
    let stored = Statement::<D>::new(VERSION).bind(id.as_uuid()).rows(connection).await?;
    let stored = stored.first().map(|row| <D as ReadColumn<i64>>::read(row, 0)).transpose()?;
    if stored == Some(version) { Ok(()) } else { Err(Conflict::AccountChanged(id).into()) }
}

async fn update<D: Dialect>(connection: &mut TableConnection<'_, D>, account: &Account) -> Applied {
    let changed = Conflict::AccountChanged(account.id);
    unchanged::<D>(connection, account.id, account.version).await?;
    let owner = Statement::<D>::new(EMAIL_OWNER).bind(account.email.key().as_str()).rows(connection).await?;
    let owner = owner.first().map(|row| <D as ReadColumn<Uuid>>::read(row, 0)).transpose()?;
    if owner.is_some_and(|owner| owner != account.id.as_uuid()) {
        return Err(Conflict::AccountExists.into());
    }
    let statement =
        fields(Statement::<D>::new(UPDATE), account).bind(account.id.as_uuid()).bind(account.version);
    require_one_row(statement.execute(connection).await?, changed)
}

/// Binds the fields of an account between its id and its version.
fn fields<D: Dialect>(statement: Statement<D>, account: &Account) -> Statement<D> {
    statement
        .bind(account.email.key().as_str())
        .bind(account.email.as_str())
        .bind(account.display_name.as_str())
        .bind(account.locale.as_ref().map(Locale::as_str))
        .bind(account.time_zone.as_ref().map(TimeZoneName::as_str))
        .bind(account.birthday.as_deref())
        .bind(account.password.as_ref().map(PasswordHash::as_str))
        .time(account.created_at)
        .opt_time(account.deletion_due)
}

/// Requires that a session exists, and locks its row: the session does not end before this transaction.
pub(super) async fn require_session<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    account: AccountId,
    session: SessionId,
) -> Applied {
    let held = Statement::<D>::new(HOLD_SESSION).bind(account.as_uuid()).bind(session.as_uuid());
    require_one_row(held.rows(connection).await?.len() as u64, Conflict::SessionEnded(session))
}

/// Removes sessions whose rows are locked, and the devices that they registered. Returns the number of sessions.
///
/// Removes them by their keys: a second search by time could find other sessions.
async fn purge_sessions<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    found: &[D::Row],
) -> Result<u64, ApplyError> {
    let key = |row: &D::Row| -> sqlx::Result<(Uuid, Uuid)> {
        Ok((<D as ReadColumn<Uuid>>::read(row, 0)?, <D as ReadColumn<Uuid>>::read(row, 1)?))
    };
    let keys = found.iter().map(key).collect::<sqlx::Result<Vec<_>>>()?;
    let mut purged = 0;
    for chunk in keys.chunks(SESSIONS_PER_STATEMENT) {
        // Fill the last statement with its first session: one statement text is prepared for every number.
        let missing = SESSIONS_PER_STATEMENT - chunk.len();
        let bound = |statement: Statement<D>| {
            let all = chunk.iter().chain(std::iter::repeat_n(&chunk[0], missing));
            all.fold(statement, |statement, (account, id)| statement.bind(*account).bind(*id))
        };
        purged += bound(Statement::<D>::new(END_LISTED)).execute(connection).await?;
        device::end_listed::<D>(connection, bound).await?;
    }
    Ok(purged)
}

/// Sets or removes the widget token of a session.
///
/// Locks the row of the account in `member`, so that concurrent changes cannot exceed the limit together.
async fn set_widget_token<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    (account, id): (AccountId, SessionId),
    token: Option<&Digest>,
    most: u32,
) -> Applied {
    pairing::is_member::<D>(connection, account).await?;
    require_session::<D>(connection, account, id).await?;
    if let Some(token) = token {
        for owner in Statement::<D>::new(WIDGET_OWNER).digest(token).rows(connection).await? {
            let owner =
                (<D as ReadColumn<Uuid>>::read(&owner, 0)?, <D as ReadColumn<Uuid>>::read(&owner, 1)?);
            if owner != (account.as_uuid(), id.as_uuid()) {
                return Err(Conflict::SessionExists(id).into());
            }
        }
        let others = Statement::<D>::new(COUNT_WIDGETS).bind(account.as_uuid()).bind(id.as_uuid());
        let others = others.rows(connection).await?;
        let others = others.first().map(|row| <D as ReadColumn<i64>>::read(row, 0)).transpose()?;
        if others.unwrap_or(0) >= i64::from(most) {
            return Err(Conflict::TooManyWidgetTokens(account).into());
        }
    }
    let set = Statement::<D>::new(SET_WIDGET).bind(bytes(token)).bind(account.as_uuid()).bind(id.as_uuid());
    set.execute(connection).await?;
    Ok(())
}

/// Bytes of a digest that may be absent.
fn bytes(digest: Option<&Digest>) -> Option<&[u8]> {
    digest.map(|digest| digest.as_bytes().as_slice())
}

async fn insert_token<D: Dialect>(connection: &mut TableConnection<'_, D>, token: &Token) -> Applied {
    if let (Some(account), Some(session)) = (token.account, token.session) {
        require_session::<D>(connection, account, session).await?;
    }
    let statement = Statement::<D>::new(INSERT_TOKEN)
        .bind(token.id.as_uuid())
        .bind(token.kind.as_str())
        .bind(token.email.key().as_str())
        .bind(token.email.as_str())
        .bind(token.account.map(AccountId::as_uuid))
        .digest(&token.link)
        .bind(token.tries)
        .bind(token.display_name.as_ref().map(DisplayName::as_str))
        .bind(token.locale.as_ref().map(Locale::as_str))
        .time(token.created_at)
        .time(token.code_expires_at)
        .time(token.expires_at)
        .opt_time(token.used_at)
        .bind(token.session.map(SessionId::as_uuid))
        .bind(bytes(token.network.as_ref()))
        .bind(token.foreign_tries)
        .bind(token.used_form.map(ProofForm::as_str))
        .bind(token.id.as_uuid())
        .digest(&token.link);
    require_one_row(statement.execute(connection).await?, Conflict::TokenExists(token.id))
}

async fn end_sessions<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    account: AccountId,
    except: Option<SessionId>,
) -> Applied {
    // No session has the nil id: all sessions end.
    let except = except.map_or(uuid::Uuid::nil(), SessionId::as_uuid);
    for sql in [END_SESSIONS, REMOVE_OTHER_TOKENS] {
        Statement::<D>::new(sql).bind(account.as_uuid()).bind(except).execute(connection).await?;
    }
    device::end_sessions::<D>(connection, account, except).await
}

fn email<D: Dialect>(row: &mut Row<'_, D>) -> Result<EmailAddress, Error> {
    let key = EmailKey::from_stored(row.take::<String>()?);
    Ok(EmailAddress::from_stored(row.take::<String>()?, key))
}

fn decode_account<D: Dialect>(row: &mut Row<'_, D>) -> Result<Account, Error> {
    Ok(Account {
        id: AccountId::from_uuid(row.take()?),
        email: email(row)?,
        display_name: DisplayName::from_stored(row.take::<String>()?),
        locale: row.take::<Option<String>>()?.map(Locale::from_stored),
        time_zone: row.take::<Option<String>>()?.map(TimeZoneName::from_stored),
        birthday: row.take()?,
        password: row.take::<Option<String>>()?.map(PasswordHash::from_stored),
        created_at: row.time()?,
        deletion_due: row.opt_time()?,
        version: row.take()?,
    })
}

fn decode_token<D: Dialect>(row: &mut Row<'_, D>) -> Result<Token, Error> {
    let id = TokenId::from_uuid(row.take()?);
    let kind: String = row.take()?;
    Ok(Token {
        id,
        kind: TokenKind::from_stored(&kind).ok_or_else(|| Error::corrupt("token", "kind", id))?,
        email: email(row)?,
        account: row.take::<Option<uuid::Uuid>>()?.map(AccountId::from_uuid),
        link: row.digest("token", "link")?,
        tries: row.take()?,
        display_name: row.take::<Option<String>>()?.map(DisplayName::from_stored),
        locale: row.take::<Option<String>>()?.map(Locale::from_stored),
        created_at: row.time()?,
        code_expires_at: row.time()?,
        expires_at: row.time()?,
        used_at: row.opt_time()?,
        session: row.take::<Option<Uuid>>()?.map(SessionId::from_uuid),
        network: row.opt_digest("token", "network")?,
        foreign_tries: row.take()?,
        used_form: match row.take::<Option<String>>()? {
            Some(form) => {
                let form = ProofForm::from_stored(&form);
                Some(form.ok_or_else(|| Error::corrupt("token", "used_form", id))?)
            }
            None => None,
        },
    })
}

/// Binds the state that a token must still have.
fn as_seen<D: Dialect>(statement: Statement<D>, seen: &SeenToken) -> Statement<D> {
    let (own, foreign) = match seen.tries {
        None => (None, None),
        Some(Tries::Own(tries)) => (Some(tries), None),
        Some(Tries::Foreign(tries)) => (None, Some(tries)),
    };
    statement.bind(own).bind(foreign).bind(seen.used_form.map_or("", ProofForm::as_str))
}

fn decode_session<D: Dialect>(row: &mut Row<'_, D>) -> Result<Session, Error> {
    Ok(Session {
        account: AccountId::from_uuid(row.take()?),
        id: SessionId::from_uuid(row.take()?),
        token: row.digest("session", "token")?,
        device: row.take::<Option<String>>()?.map(Label::from_stored),
        created_at: row.time()?,
        authenticated_at: row.time()?,
        seen_at: row.time()?,
        expires_at: row.time()?,
        widget_token: row.opt_digest("session", "widget_token")?,
    })
}

impl<D: Dialect> SqlStore<D> {
    /// Whether there is no account. Then a new key ring can replace a lost one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn has_no_accounts(&self) -> Result<bool, Error> {
        let first =
            self.read_one(Statement::new(FIRST).bind(Uuid::nil()), |row| row.take().map(|_: Uuid| ()));
        Ok(first.await?.is_none())
    }
}

#[async_trait]
impl<D: Dialect> AccountReads for SqlStore<D> {
    async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        self.read_one(Statement::new(ACCOUNT).bind(id.as_uuid()), decode_account).await
    }
    async fn account_by_email(&self, email: &EmailKey) -> Result<Option<Account>, Error> {
        self.read_one(Statement::new(ACCOUNT_BY_EMAIL).bind(email.as_str()), decode_account).await
    }
    async fn accounts_to_delete(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<Account>, Error> {
        let (due, id) =
            after.map_or((Timestamp::from_micros(i64::MIN), Uuid::nil()), |(due, id)| (due, id.as_uuid()));
        let statement = Statement::new(TO_DELETE).time(now).time(due).time(due).bind(id);
        self.read(statement.bind(i64::from(limit)), decode_account).await
    }
    async fn token(&self, id: TokenId) -> Result<Option<Token>, Error> {
        self.read_one(Statement::new(TOKEN).bind(id.as_uuid()), decode_token).await
    }
    async fn token_by_link(&self, link: &Digest) -> Result<Option<Token>, Error> {
        self.read_one(Statement::new(TOKEN_BY_LINK).digest(link), decode_token).await
    }
    async fn open_tokens(
        &self,
        kind: TokenKind,
        email: &EmailKey,
        now: Timestamp,
    ) -> Result<Vec<Token>, Error> {
        let statement = Statement::new(OPEN_TOKENS).bind(email.as_str()).bind(kind.as_str()).time(now);
        self.read(statement, decode_token).await
    }
    async fn session_by_token(&self, token: &Digest) -> Result<Option<(Session, Account)>, Error> {
        let statement = Statement::new(SESSION_BY_TOKEN).digest(token);
        self.read_one(statement, |row| Ok((decode_session(row)?, decode_account(row)?))).await
    }
    async fn session_and_couple(
        &self,
        token: &SessionToken,
    ) -> Result<Option<(Session, Account, Option<Couple>)>, Error> {
        let (sql, token) = match token {
            SessionToken::Bearer(token) => (BEARER_AND_COUPLE, token),
            SessionToken::Widget(token) => (WIDGET_AND_COUPLE, token),
        };
        self.read_one(Statement::new(sql).digest(token), |row| {
            Ok((decode_session(row)?, decode_account(row)?, pairing::decode_optional_couple(row)?))
        })
        .await
    }
    async fn present_sessions(&self, tokens: &[Digest]) -> Result<Vec<Digest>, Error> {
        let mut present = Vec::with_capacity(tokens.len());
        for chunk in tokens.chunks(MAX_SESSIONS_PER_QUERY) {
            // Fill the last statement with its first token: one statement text is prepared for every number
            // of tokens.
            let missing = MAX_SESSIONS_PER_QUERY - chunk.len();
            let all = chunk.iter().chain(std::iter::repeat_n(&chunk[0], missing));
            let statement = all.fold(Statement::new(PRESENT_SESSIONS), Statement::digest);
            present.extend(self.read(statement, |row| row.digest("session", "token")).await?);
        }
        Ok(present)
    }
    async fn sessions_of(&self, account: AccountId) -> Result<Vec<Session>, Error> {
        self.read(Statement::new(SESSIONS_OF).bind(account.as_uuid()), decode_session).await
    }
    async fn tally(&self, id: TallyId, now: Timestamp) -> Result<Option<Tally>, Error> {
        self.read_tally(id, now).await
    }
}
