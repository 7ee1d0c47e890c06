//! Users and sessions of the host, in its own tables.

use std::time::Duration;

use async_trait::async_trait;
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header, request::Parts},
    response::{AppendHeaders, IntoResponse},
};
use couple::{
    AccountId, Clock as _, Entropy as _, Error, ErrorKind, Failure, OsEntropy, Principal, SystemClock,
    Timestamp,
    core::{DisplayName, EmailAddress, EmailKey, Locale, TimeZoneName, digest},
    http::{Api, Authenticator, Caller, JsonBody, Problem, Unauthenticated},
    pairing::{Contact, Directory, Profile},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::SqlitePool;
use uuid::Uuid;

pub(crate) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS user (
        id        BLOB NOT NULL PRIMARY KEY,
        name      TEXT NOT NULL,
        email     TEXT NOT NULL,
        email_key TEXT NOT NULL UNIQUE,
        time_zone TEXT NOT NULL,
        -- Whether the user has proven the address, such as by a mailed code.
        verified  INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE IF NOT EXISTS session (
        token_digest TEXT NOT NULL PRIMARY KEY,
        user_id      BLOB NOT NULL REFERENCES user (id) ON DELETE CASCADE,
        expires_at   INTEGER NOT NULL -- microseconds since 1970
    );";

/// Name of the cookie. The prefix keeps other hosts of the domain from setting it.
const COOKIE: &str = "__Host-session=";

/// Time until a session ends.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Users and sessions of the host.
#[derive(Clone)]
pub(crate) struct Users(SqlitePool);

fn failed(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "read or write users").source(error)
}

/// Name of a session: the digest of its token, so that a leaked database contains no usable token.
fn session_name(token: &str) -> String {
    digest(&[token.as_bytes()]).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Users {
    pub(crate) const fn new(pool: SqlitePool) -> Self {
        Self(pool)
    }

    /// Adds a user with a session; returns the id and the token, or none if the address has a user.
    async fn add(
        &self,
        name: &DisplayName,
        email: &EmailAddress,
        time_zone: &TimeZoneName,
    ) -> Result<Option<(AccountId, String)>, sqlx::Error> {
        let id = AccountId::new(&SystemClock, &OsEntropy);
        let insert = "INSERT INTO user (id, name, email, email_key, time_zone) VALUES ($1, $2, $3, $4, $5)
                      ON CONFLICT (email_key) DO NOTHING";
        let insert = sqlx::query(insert).bind(id.as_uuid()).bind(name.as_str()).bind(email.as_str());
        let insert = insert.bind(email.key().as_str()).bind(time_zone.as_str());
        let mut transaction = self.0.begin_with("BEGIN IMMEDIATE").await?;
        if insert.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let mut token = [0; 32];
        OsEntropy.fill(&mut token);
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let insert = sqlx::query("INSERT INTO session VALUES ($1, $2, $3)").bind(session_name(&token));
        let expires_at = SystemClock.now().plus(LIFETIME).micros();
        insert.bind(id.as_uuid()).bind(expires_at).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Some((id, token)))
    }
}

#[async_trait]
impl Directory for Users {
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error> {
        let query = sqlx::query_scalar("SELECT name FROM user WHERE id = $1").bind(person.as_uuid());
        let name: Option<String> = query.fetch_optional(&self.0).await.map_err(failed)?;
        Ok(name.map(|name| Profile { display_name: DisplayName::from_stored(name) }))
    }

    async fn contact(&self, person: AccountId) -> Result<Option<Contact>, Error> {
        let query = sqlx::query_as("SELECT email, email_key, time_zone FROM user WHERE id = $1 AND verified");
        let row = query.bind(person.as_uuid()).fetch_optional(&self.0).await.map_err(failed)?;
        Ok(row.map(|(email, key, time_zone): (String, String, String)| Contact {
            email: EmailAddress::from_stored(email, EmailKey::from_stored(key)),
            locale: Locale::matched("de"),
            time_zone: Some(TimeZoneName::from_stored(time_zone)),
        }))
    }

    /// Only a proven address: who is found sees and accepts the invites to it.
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        let query = sqlx::query_scalar("SELECT id FROM user WHERE email_key = $1 AND verified");
        Ok(query
            .bind(email.as_str())
            .fetch_optional(&self.0)
            .await
            .map_err(failed)?
            .map(AccountId::from_uuid))
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>> {
        // HTTP/2 may send several fields.
        let fields = request.headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
        let mut tokens =
            fields.flat_map(|field| field.split("; ")).filter_map(|pair| pair.strip_prefix(COOKIE));
        let session = session_name(tokens.next().ok_or(Failure::Refused(Unauthenticated))?);
        let query = "SELECT user_id, expires_at FROM session WHERE token_digest = $1";
        let row = sqlx::query_as(query).bind(&session).fetch_optional(&self.0).await.map_err(failed)?;
        let (user, expires_at): (Uuid, i64) = row.ok_or(Failure::Refused(Unauthenticated))?;
        // An expired principal is refused, and its live streams end.
        let principal = Principal::new(AccountId::from_uuid(user), session);
        Ok(principal.with_expiry(Timestamp::from_micros(expires_at)))
    }

    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        let names: Vec<_> = principals.iter().map(Principal::session).collect();
        let query =
            "SELECT token_digest FROM session WHERE token_digest IN (SELECT value FROM json_each($1))";
        let query = sqlx::query_scalar(query).bind(json!(names).to_string());
        let valid: Vec<String> = query.fetch_all(&self.0).await.map_err(failed)?;
        Ok(names.iter().map(|name| valid.iter().any(|valid| Some(valid.as_str()) == *name)).collect())
    }
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct NewUser {
    name: String,
    email: String,
    time_zone: String,
}

/// Sign up and begin a session. A real host limits this route by client: 409 tells whether an address has an account.
#[utoipa::path(post, path = "/account", request_body = NewUser, responses((status = 201)))]
pub(crate) async fn sign_up(
    State(users): State<Users>,
    body: JsonBody<NewUser>,
) -> Result<impl IntoResponse, Problem> {
    let name = DisplayName::parse("name", &body.value.name)?;
    let email = EmailAddress::parse("email", &body.value.email)?;
    let time_zone = TimeZoneName::parse("time_zone", &body.value.time_zone)?;
    let Some((id, token)) = users.add(&name, &email, &time_zone).await.map_err(failed)? else {
        return Err(Problem::custom(StatusCode::CONFLICT, "email_taken", "The address has an account"));
    };
    let cookie =
        format!("{COOKIE}{token}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax", LIFETIME.as_secs());
    let body: Json<Value> = Json(json!({ "id": id }));
    Ok((StatusCode::CREATED, AppendHeaders([(header::SET_COOKIE, cookie)]), body))
}

/// Delete the user, with all sessions and everything in the back end.
#[utoipa::path(delete, path = "/account", responses((status = 204)))]
pub(crate) async fn delete(
    State(api): State<Api>,
    State(users): State<Users>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    // First, because a repeat is harmless: without the row the user could not repeat it.
    api.backend().forget(caller.id()).await?;
    let delete = sqlx::query("DELETE FROM user WHERE id = $1").bind(caller.id().as_uuid());
    delete.execute(&users.0).await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}
