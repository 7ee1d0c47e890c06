//! Kinds of entry of a host: a mood and a weekly check-in, each with a JSON Schema.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::error::Error;

use couple::{
    Backend, Failure, RequestContext,
    pairing::{Couple, PairingChange},
    timeline::{Append, EntryKind, EntryPermission, TimelineError},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Mood of the day: it does not count as unread, and is never edited.
fn mood() -> EntryKind {
    EntryKind::new("x-mood")
        .with_max_bytes(300)
        .with_edits_by(EntryPermission::Nobody)
        .with_unread(false)
        .with_json_schema(json!({
            "type": "object",
            "required": ["mood"],
            "additionalProperties": false,
            "properties": { "mood": { "enum": ["good", "so-so", "bad"] }, "note": { "type": "string", "maxLength": 100 } }
        }))
}

/// Weekly check-in, which both members may complete.
fn check_in() -> EntryKind {
    EntryKind::new("x-check-in").with_edits_by(EntryPermission::Members).with_json_schema(json!({
        "type": "object",
        "required": ["week", "answers"],
        "properties": {
            "week": { "type": "string", "pattern": "^[0-9]{4}-W[0-9]{2}$" },
            "answers": { "type": "array", "maxItems": 2, "items": {
                "type": "object", "required": ["score"],
                "properties": { "score": { "type": "integer", "minimum": 1, "maximum": 5 } }
            } }
        }
    }))
}

/// Creates a couple without accounts.
async fn couple(backend: &Backend) -> Result<Couple, Box<dyn Error>> {
    let ports = backend.ports();
    let couple = Couple {
        id: ports.new_id(),
        members: [0, 1].map(|_| ports.new_id()),
        since: ports.now(),
        epoch: 1,
        ended_at: None,
        title: None,
        anniversary: None,
        previous: None,
        restore: [false, false],
        head_seq: 0,
        read: [0, 0],
    };
    ports.commit(vec![PairingChange::Pair(couple.clone()).into()]).await?;
    Ok(couple)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let backend =
        Backend::builder().entry_kind(mood()).entry_kind(check_in()).strict_entry_kinds().build()?;
    let couple = couple(&backend).await?;
    let [ana, ben] = couple.members;
    let timeline = backend.timeline();
    let append = async |id: &str, kind: &str, body: Value| {
        let command = Append { couple: None, client_id: id.into(), kind: kind.into(), body };
        timeline.append(&RequestContext::default(), ana, &command).await.map(|appended| appended.entry.seq)
    };

    append("1", "x-mood", json!({ "mood": "good" })).await?;
    let answers = json!({ "week": "2026-W49", "answers": [{ "score": 5 }] });
    let seq = append("2", "x-check-in", answers).await?;
    let both = json!({ "week": "2026-W49", "answers": [{ "score": 5 }, { "score": 4 }] });
    timeline.edit(ben, None, seq, &both).await?;
    println!(
        "Ben completed the check-in; {} unread for him",
        timeline.unread(&couple, couple.side_of(ben).ok_or("not a member")?).await?
    );

    for (id, kind, body) in [
        ("3", "x-mood", json!({ "mood": "furious" })),
        ("4", "x-check-in", json!({ "week": "2026-W49", "answers": [{ "score": 9 }] })),
        ("5", "x-unknown", json!({})),
    ] {
        match append(id, kind, body).await {
            Err(Failure::Refused(refusal @ (TimelineError::Invalid(_) | TimelineError::InvalidBody(_)))) => {
                println!("{kind} is refused: {refusal}");
            }
            other => return Err(format!("{kind}: {other:?}").into()),
        }
    }

    // Clients find the kinds in the OpenAPI document.
    let request = axum::http::Request::get("/v1/openapi.json").body(axum::body::Body::empty())?;
    let response = couple::http::router(backend.clone()).oneshot(request).await?;
    let document: Value =
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 1 << 22).await?)?;
    let kinds = &document["components"]["schemas"]["NewEntryIn"]["x-entry-kinds"];
    println!("documented: {:?}", kinds.as_object().map(|kinds| kinds.keys().collect::<Vec<_>>()));
    Ok(())
}
