//! Gifts: a table of the host, whose rows are written in the same commit as an entry of the timeline.

use axum::{Json, extract::State};
use couple::{
    AccountId, Error, ErrorKind,
    http::{Api, Caller, JsonBody, Problem, RequestMeta},
    job::{Job, JobError},
    store::sql::SqliteStore,
    timeline::Append,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::SqlitePool;

use crate::mails::GiftMail;

/// Kind of the entries. Clients cannot append or edit them, so that each has its row.
pub(crate) const KIND: &str = "x-gift";

pub(crate) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS gift (
        couple BLOB NOT NULL,
        giver  BLOB NOT NULL,
        id     TEXT NOT NULL,
        name   TEXT NOT NULL,
        PRIMARY KEY (couple, giver, id)
    );";

#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct Gift {
    /// Id that the client chose, so that a repeated request gives once.
    id: String,
    name: String,
}

/// Give the partner something: a row, an entry of the timeline and a mail.
#[utoipa::path(post, path = "/gifts", request_body = Gift, responses((status = 200)))]
pub(crate) async fn give(
    State(api): State<Api>,
    caller: Caller,
    meta: RequestMeta,
    body: JsonBody<Gift>,
) -> Result<Json<Value>, Problem> {
    let context = meta.context(caller.id(), &body);
    let (giver, Gift { id, name }) = (caller.id(), body.value);
    let couple = api.backend().timeline().membership(giver).await?.0.couple;
    let body = json!({ "name": name });
    let entry = Append { couple: Some(couple), client_id: id.clone(), kind: KIND.into(), body };
    let mail = api.backend().ports().enqueue(&GiftMail { giver, gift: id.clone() })?;
    let row = SqliteStore::host_change(move |connection| {
        let (id, name) = (id.clone(), name.clone());
        Box::pin(async move {
            let insert = sqlx::query("INSERT INTO gift (couple, giver, id, name) VALUES ($1, $2, $3, $4)");
            let insert = insert.bind(couple.as_uuid()).bind(giver.as_uuid());
            insert.bind(id).bind(name).execute(connection).await?;
            Ok(())
        })
    });
    // All three are written, or none: also if the entry was refused, or the process dies here.
    let given = api.backend().timeline().append_with(&context, giver, &entry, &[mail, row]).await?;
    Ok(Json(json!({ "seq": given.entry.seq })))
}

/// Job that deletes the gifts of a forgotten user.
#[derive(Serialize, Deserialize)]
pub(crate) struct DeleteGifts {
    pub(crate) giver: AccountId,
}

impl Job for DeleteGifts {
    const NAME: &'static str = "presents.delete_gifts";
    const QUEUE: &'static str = "default";
}

pub(crate) async fn delete(pool: SqlitePool, job: DeleteGifts) -> Result<(), JobError> {
    let delete = sqlx::query("DELETE FROM gift WHERE giver = $1").bind(job.giver.as_uuid());
    let failed = |error| Error::new(ErrorKind::Unavailable, "delete gifts").source(error);
    delete.execute(&pool).await.map_err(failed)?;
    Ok(())
}
