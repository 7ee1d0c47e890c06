//! Kinds of entry that a host defines.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Body, TimelineError, rules};
use crate::{Error, ErrorKind, Invalid};

/// Members who may edit or delete an entry of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EntryPermission {
    /// The author. Of built-in kinds, and of kinds that the host does not define, the author always may.
    #[default]
    Author,
    /// Both members.
    Members,
    /// Neither member.
    Nobody,
}

impl EntryPermission {
    /// Name in the OpenAPI document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Author => "author",
            Self::Members => "members",
            Self::Nobody => "nobody",
        }
    }
}

/// Invalid value in the body of an entry.
///
/// It names the place and the reason, and never contains the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {code}")]
pub struct InvalidBody {
    path: String,
    code: &'static str,
}

impl InvalidBody {
    /// Maximum number of characters of a path: names in it are the client's own.
    const MAX_PATH_CHARS: usize = 200;

    /// Creates the error `code` of the value at `path` within the body, such as `items[0].mood`.
    ///
    /// The path of the body itself is empty. The code is a stable word for programs, such as `required`.
    #[must_use]
    pub fn new(path: &str, code: &'static str) -> Self {
        let separator = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        let path = format!("body{separator}{path}");
        Self { path: path.chars().take(Self::MAX_PATH_CHARS).collect(), code }
    }
    /// Path of the value in the request: `body`, or `body.` and the path within the body.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
    /// Stable code of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

type Check = dyn Fn(&Value) -> Result<(), InvalidBody> + Send + Sync;

/// Kind of entry that a host defines: `x-…`, or further rules for a built-in kind.
///
/// ```
/// use couple_core::timeline::{EntryKind, EntryPermission, InvalidBody};
///
/// EntryKind::new("x-mood")
///     .with_max_bytes(500)
///     .with_edits_by(EntryPermission::Nobody)
///     .with_unread(false)
///     .with_check(|body| match body["mood"].as_str() {
///         Some("good" | "bad") => Ok(()),
///         _ => Err(InvalidBody::new("mood", "unknown_mood")),
///     });
/// ```
#[derive(Clone)]
pub struct EntryKind {
    name: String,
    max_bytes: usize,
    client_appends: bool,
    edits_by: EntryPermission,
    deletions_by: EntryPermission,
    unread: bool,
    check: Option<Arc<Check>>,
    schema: Option<Value>,
}

impl std::fmt::Debug for EntryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryKind").field("name", &self.name).finish_non_exhaustive()
    }
}

impl EntryKind {
    /// Defines a kind: `x-` and 1 to 30 lower-case letters, digits, `-`, `_` and `.`, or a built-in kind that clients append.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            max_bytes: Body::MAX_BODY_BYTES,
            client_appends: true,
            edits_by: EntryPermission::Author,
            deletions_by: EntryPermission::Author,
            unread: true,
            check: None,
            schema: None,
        }
    }
    /// Sets the maximum length of a body, in bytes of its JSON text. Default, and largest effective value:
    /// [`Body::MAX_BODY_BYTES`].
    #[must_use]
    pub const fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }
    /// Sets whether clients may append entries. Default: yes.
    ///
    /// With `false`, only the host appends them, by [`append_with`](super::Timeline::append_with) or a commit; [`append`] refuses the kind
    /// with the code `not_allowed`. It also sets [`with_edits_by`](Self::with_edits_by) to [`EntryPermission::Nobody`], which a later call
    /// can change. So an entry with its body proves that the host's code ran, which may have written a row with it.
    ///
    /// [`append`]: super::Timeline::append
    #[must_use]
    pub const fn with_client_appends(mut self, allowed: bool) -> Self {
        self.client_appends = allowed;
        if !allowed {
            self.edits_by = EntryPermission::Nobody;
        }
        self
    }
    /// Sets the members who may edit an entry. Default: its author, or nobody after `with_client_appends(false)`.
    ///
    /// An entry without an author, such as an entry of a listener, can be neither edited nor deleted.
    #[must_use]
    pub const fn with_edits_by(mut self, permission: EntryPermission) -> Self {
        self.edits_by = permission;
        self
    }
    /// Sets the members who may delete an entry. Default: its author. The deletion of an account deletes its entries in any case.
    #[must_use]
    pub const fn with_deletions_by(mut self, permission: EntryPermission) -> Self {
        self.deletions_by = permission;
        self
    }
    /// Sets whether an entry counts as unread until the partner has read it. Default: yes.
    #[must_use]
    pub const fn with_unread(mut self, unread: bool) -> Self {
        self.unread = unread;
        self
    }
    /// Sets a check of the body, before the append and before each edit. Runs within the request: it must not block.
    #[must_use]
    pub fn with_check(
        mut self,
        check: impl Fn(&Value) -> Result<(), InvalidBody> + Send + Sync + 'static,
    ) -> Self {
        self.check = Some(Arc::new(check));
        self
    }
    /// Sets a JSON Schema of the body (draft 2020-12, unless `$schema` names another), which the OpenAPI document contains.
    ///
    /// It is checked in addition to [`with_check`](Self::with_check). A reference to another document is refused when the backend is
    /// built.
    #[cfg(feature = "json-schema")]
    #[must_use]
    pub fn with_json_schema(mut self, schema: Value) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Name of the kind.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Maximum length of a body, in bytes of its JSON text.
    #[must_use]
    pub const fn max_bytes(&self) -> usize {
        self.max_bytes
    }
    /// Whether clients may append entries.
    #[must_use]
    pub const fn client_appends(&self) -> bool {
        self.client_appends
    }
    /// Members who may edit an entry.
    #[must_use]
    pub const fn edits_by(&self) -> EntryPermission {
        self.edits_by
    }
    /// Members who may delete an entry.
    #[must_use]
    pub const fn deletions_by(&self) -> EntryPermission {
        self.deletions_by
    }
    /// Whether an entry counts as unread until the partner has read it.
    #[must_use]
    pub const fn is_unread(&self) -> bool {
        self.unread
    }
    /// JSON Schema of the body, if one was set.
    #[must_use]
    pub const fn json_schema(&self) -> Option<&Value> {
        self.schema.as_ref()
    }
}

/// A kind with its compiled schema.
#[derive(Debug)]
struct DefinedKind {
    kind: EntryKind,
    #[cfg(feature = "json-schema")]
    schema: Option<super::body_schema::BodySchema>,
}

impl DefinedKind {
    fn new(kind: EntryKind) -> Result<Self, String> {
        rules::kind(kind.name()).map_err(|_| "is neither a built-in kind nor x-…".to_owned())?;
        Ok(Self {
            #[cfg(feature = "json-schema")]
            schema: kind.schema.as_ref().map(super::body_schema::BodySchema::new).transpose()?,
            kind,
        })
    }

    fn check(&self, value: &Value) -> Result<(), InvalidBody> {
        #[cfg(feature = "json-schema")]
        if let Some(schema) = &self.schema {
            schema.check(value)?;
        }
        self.kind.check.as_ref().map_or(Ok(()), |check| check(value))
    }
}

/// Kinds of entry that a host defines. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EntryKinds(Arc<Kinds>);

#[derive(Debug, Default)]
struct Kinds {
    by_name: BTreeMap<String, DefinedKind>,
    not_unread: Vec<String>,
    strict: bool,
}

impl EntryKinds {
    /// Checks the kinds. With `strict`, `x-…` kinds that are not among them are refused; built-in kinds never are.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] names the kind: for an invalid or repeated name, and for an invalid schema.
    pub fn new(kinds: Vec<EntryKind>, strict: bool) -> Result<Self, Error> {
        let mut checked = Kinds { strict, ..Kinds::default() };
        for kind in kinds {
            let name = kind.name.clone();
            let wrong = |reason: &str| {
                Error::new(ErrorKind::Misconfigured, "define entry kind").context(format!("{name} {reason}"))
            };
            if !kind.unread {
                checked.not_unread.push(name.clone());
            }
            let kind = DefinedKind::new(kind).map_err(|reason| wrong(&reason))?;
            if checked.by_name.insert(name.clone(), kind).is_some() {
                return Err(wrong("is defined twice"));
            }
        }
        Ok(Self(Arc::new(checked)))
    }

    /// The kinds, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &EntryKind> {
        self.0.by_name.values().map(|defined| &defined.kind)
    }
    /// Whether `x-…` kinds that are not among these are refused.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.0.strict
    }
    /// Names of the kinds that do not count as unread.
    #[must_use]
    pub fn not_unread(&self) -> &[String] {
        &self.0.not_unread
    }

    fn get(&self, name: &str) -> Option<&DefinedKind> {
        self.0.by_name.get(name)
    }

    /// Checks a kind that a client appends.
    pub(super) fn kind<'a>(&self, name: &'a str) -> Result<&'a str, Invalid> {
        let name = rules::kind(name)?;
        if self.0.strict && name.starts_with("x-") && self.get(name).is_none() {
            return Err(Invalid::new("kind", "unknown_kind"));
        }
        Ok(name)
    }

    /// Refuses a kind that only the host appends.
    pub(super) fn require_client_appends(&self, name: &str) -> Result<(), Invalid> {
        match self.get(name) {
            Some(defined) if !defined.kind.client_appends => Err(Invalid::new("kind", "not_allowed")),
            _ => Ok(()),
        }
    }

    /// Checks the body of an entry of a kind.
    pub(super) fn body(&self, name: &str, value: &Value) -> Result<Body, TimelineError> {
        let body = rules::body(name, value)?;
        if let Some(defined) = self.get(name) {
            if body.as_str().len() > defined.kind.max_bytes {
                return Err(Invalid::new("body", "too_long").into());
            }
            defined.check(value)?;
        }
        Ok(body)
    }

    /// Members who may edit entries of a kind.
    pub(super) fn edits_by(&self, name: &str) -> EntryPermission {
        self.get(name).map_or(EntryPermission::Author, |defined| defined.kind.edits_by)
    }

    /// Members who may delete entries of a kind.
    pub(super) fn deletions_by(&self, name: &str) -> EntryPermission {
        self.get(name).map_or(EntryPermission::Author, |defined| defined.kind.deletions_by)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mood() -> EntryKind {
        EntryKind::new("x-mood").with_max_bytes(30).with_check(|body| match body["mood"].as_str() {
            Some("good" | "bad") => Ok(()),
            _ => Err(InvalidBody::new("mood", "unknown_mood")),
        })
    }

    #[test]
    fn unknown_kinds_are_refused_only_if_strict() {
        for (strict, other) in [(false, Ok("x-other")), (true, Err(Invalid::new("kind", "unknown_kind")))] {
            let kinds = EntryKinds::new(vec![mood()], strict).unwrap();
            assert_eq!(kinds.kind("x-other"), other);
            assert_eq!((kinds.kind("x-mood"), kinds.kind("text")), (Ok("x-mood"), Ok("text")));
            assert!(kinds.kind("paired").is_err());
        }
    }

    #[test]
    fn bodies_are_checked_by_length_and_function() {
        let kinds = EntryKinds::new(vec![mood()], false).unwrap();
        assert!(kinds.body("x-mood", &json!({ "mood": "good" })).is_ok());
        assert!(kinds.body("x-other", &json!({})).is_ok());
        let wrong = kinds.body("x-mood", &json!({ "mood": "secret" })).unwrap_err();
        assert_eq!(wrong, InvalidBody::new("mood", "unknown_mood").into());
        assert_eq!(wrong.to_string(), "body.mood: unknown_mood");
        let long = kinds.body("x-mood", &json!({ "mood": "good", "because": "of you" })).unwrap_err();
        assert_eq!(long, Invalid::new("body", "too_long").into());
    }

    #[test]
    fn wrong_definitions_name_the_kind() {
        for kinds in [vec![EntryKind::new("mood2")], vec![EntryKind::new("paired")], vec![mood(), mood()]] {
            let name = kinds[0].name().to_owned();
            let error = EntryKinds::new(kinds, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains(&name), "{error}");
        }
    }
}
