//! JSON Schema of the bodies of a kind of entry.

use boon::{
    Compiler, Draft, ErrorKind, InstanceLocation, InstanceToken, SchemaIndex, Schemas, SchemeUrlLoader,
    ValidationError,
};
use serde_json::Value;

use super::InvalidBody;

/// Compiled schema.
pub(super) struct BodySchema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl std::fmt::Debug for BodySchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodySchema").finish_non_exhaustive()
    }
}

impl BodySchema {
    /// Compiles a schema. Formats such as `date` are checked, not only annotations.
    pub(super) fn new(schema: &Value) -> Result<Self, String> {
        const NAME: &str = "urn:couple:body";
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(Draft::V2020_12);
        compiler.enable_format_assertions();
        // A loader without URL schemes: a schema must not read files or the network.
        compiler.use_loader(Box::new(SchemeUrlLoader::new()));
        let wrong = |error: &dyn std::fmt::Display| format!("has an invalid JSON Schema: {error:#}");
        compiler.add_resource(NAME, schema.clone()).map_err(|error| wrong(&error))?;
        let index = compiler.compile(NAME, &mut schemas).map_err(|error| wrong(&error))?;
        Ok(Self { schemas, index })
    }

    /// Checks a body.
    pub(super) fn check(&self, value: &Value) -> Result<(), InvalidBody> {
        self.schemas.validate(value, self.index).map_err(|error| first_violation(&error))
    }
}

/// First violated keyword, with the path of the value that violates it.
fn first_violation(error: &ValidationError<'_, '_>) -> InvalidBody {
    let mut error = error;
    while let (
        ErrorKind::Group | ErrorKind::Schema { .. } | ErrorKind::Reference { .. } | ErrorKind::AllOf,
        Some(cause),
    ) = (&error.kind, error.causes.first())
    {
        error = cause;
    }
    let at = |field: Option<&str>| path(&error.instance_location, field);
    match &error.kind {
        ErrorKind::Required { want } => InvalidBody::new(&at(want.first().copied()), "required"),
        ErrorKind::DependentRequired { missing, .. } | ErrorKind::Dependency { missing, .. } => {
            InvalidBody::new(&at(missing.first().copied()), "required")
        }
        ErrorKind::AdditionalProperties { got } => {
            InvalidBody::new(&at(got.first().map(|name| &**name)), "unknown_field")
        }
        kind => InvalidBody::new(&at(None), code(kind)),
    }
}

const fn code(kind: &ErrorKind<'_, '_>) -> &'static str {
    match kind {
        ErrorKind::Type { .. } => "wrong_type",
        ErrorKind::Enum { .. } | ErrorKind::Const { .. } | ErrorKind::FalseSchema | ErrorKind::Not => {
            "not_allowed"
        }
        ErrorKind::MinLength { .. } => "too_short",
        ErrorKind::MaxLength { .. } => "too_long",
        ErrorKind::MinItems { .. } | ErrorKind::MinProperties { .. } => "too_few",
        ErrorKind::MaxItems { .. } | ErrorKind::MaxProperties { .. } | ErrorKind::AdditionalItems { .. } => {
            "too_many"
        }
        ErrorKind::UniqueItems { .. } => "not_unique",
        ErrorKind::Minimum { .. }
        | ErrorKind::Maximum { .. }
        | ErrorKind::ExclusiveMinimum { .. }
        | ErrorKind::ExclusiveMaximum { .. }
        | ErrorKind::MultipleOf { .. } => "out_of_range",
        _ => "invalid",
    }
}

/// Path within the body, such as `items[0].mood`.
fn path(location: &InstanceLocation<'_>, field: Option<&str>) -> String {
    let mut path = String::new();
    let name = |path: &mut String, name: &str| {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
    };
    for token in &location.tokens {
        match token {
            InstanceToken::Prop(prop) => name(&mut path, prop),
            InstanceToken::Item(index) => path.push_str(&format!("[{index}]")),
        }
    }
    if let Some(field) = field {
        name(&mut path, field);
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn violation_names_path_and_keyword_without_the_value() {
        let schema = BodySchema::new(&json!({
            "type": "object",
            "required": ["mood"],
            "additionalProperties": false,
            "properties": {
                "mood": { "enum": ["good", "bad"] },
                "day": { "type": "string", "format": "date" },
                "level": { "type": "integer", "minimum": 1, "maximum": 5 },
                "items": { "type": "array", "maxItems": 2, "items": { "$ref": "#/$defs/item" } },
            },
            "$defs": { "item": { "type": "object", "properties": { "text": { "type": "string", "maxLength": 3 } } } },
        }))
        .unwrap();
        let valid = json!({ "mood": "good", "day": "2026-02-14", "level": 5, "items": [{ "text": "abc" }] });
        assert_eq!(schema.check(&valid), Ok(()));
        for (body, path, code) in [
            (json!({}), "body.mood", "required"),
            (json!({ "mood": "secret" }), "body.mood", "not_allowed"),
            (json!({ "mood": "good", "secret": 1 }), "body.secret", "unknown_field"),
            (json!({ "mood": "good", "day": "2026-02-30" }), "body.day", "invalid"),
            (json!({ "mood": "good", "level": 6 }), "body.level", "out_of_range"),
            (json!({ "mood": "good", "level": "6" }), "body.level", "wrong_type"),
            (json!({ "mood": "good", "items": [{}, {}, {}] }), "body.items", "too_many"),
            (json!({ "mood": "good", "items": [{}, { "text": "long" }] }), "body.items[1].text", "too_long"),
        ] {
            let wrong = schema.check(&body).unwrap_err();
            assert_eq!((wrong.path(), wrong.code()), (path, code), "{body}");
        }
    }

    #[test]
    fn schema_that_is_invalid_or_elsewhere_is_refused() {
        for schema in [
            json!({ "type": "mood" }),
            json!({ "$ref": "https://example.org/mood.json" }),
            json!({ "$ref": "file:///etc/hostname" }),
            json!({ "$ref": "#/$defs/absent" }),
        ] {
            assert!(BodySchema::new(&schema).is_err(), "{schema}");
        }
    }
}
