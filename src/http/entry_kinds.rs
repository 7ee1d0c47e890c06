//! The host's kinds of entry in the OpenAPI document.

use couple_core::timeline::EntryKinds;
use serde_json::json;
use utoipa::openapi::{OpenApi, RefOr, Schema};

/// Adds the kinds to the schema of a new entry, as `x-entry-kinds` by name.
///
/// An extension, because the tools that read the document know fewer keywords than a JSON Schema of a host may have.
pub(super) fn document(api: &mut OpenApi, kinds: &EntryKinds) {
    let Some(RefOr::T(Schema::Object(new_entry))) =
        api.components.as_mut().and_then(|components| components.schemas.get_mut("NewEntryIn"))
    else {
        return;
    };
    let mut text = String::new();
    let names: Vec<_> = kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
    if !names.is_empty() {
        text.push_str(&format!("\n\nDefined here, see `x-entry-kinds`: {}.", names.join(", ")));
        let defined = kinds.iter().map(|kind| {
            let mut rules = json!({
                "max_bytes": kind.max_bytes(),
                "client_appends": kind.client_appends(),
                "edited_by": kind.edits_by().as_str(),
                "deleted_by": kind.deletions_by().as_str(),
                "unread": kind.is_unread(),
            });
            if let Some(schema) = kind.json_schema() {
                rules["body"] = schema.clone();
            }
            (kind.name().to_owned(), rules)
        });
        let extension = ("x-entry-kinds", serde_json::Value::Object(defined.collect()));
        new_entry.extensions = Some([extension].into_iter().collect());
    }
    if kinds.is_strict() {
        text.push_str("\n\nOther kinds `x-…` are refused.");
    }
    if let Some(RefOr::T(Schema::Object(kind))) = new_entry.properties.get_mut("kind") {
        kind.description.get_or_insert_default().push_str(&text);
    }
}
