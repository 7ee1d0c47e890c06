//! Kinds of entry that the host defines.

use couple_core::timeline::EntryKind;

use super::BackendBuilder;

impl BackendBuilder {
    /// Defines a kind of entry: its checks, and who may edit and delete its entries.
    ///
    /// ```
    /// # use couple::{Backend, timeline::{EntryKind, EntryPermission, InvalidBody}};
    /// let check_in = EntryKind::new("x-check-in")
    ///     .with_edits_by(EntryPermission::Nobody)
    ///     .with_check(|body| match body["answer"].as_str() {
    ///         Some(answer) if answer.len() <= 500 => Ok(()),
    ///         _ => Err(InvalidBody::new("answer", "invalid")),
    ///     });
    /// let backend = Backend::builder().entry_kind(check_in).strict_entry_kinds().build()?;
    /// # Ok::<(), couple::Error>(())
    /// ```
    #[must_use]
    pub fn entry_kind(mut self, kind: EntryKind) -> Self {
        self.entry_kinds.push(kind);
        self
    }

    /// Refuses entries of a kind `x-…` that the host did not [define](Self::entry_kind). Default: they are accepted.
    #[must_use]
    pub const fn strict_entry_kinds(mut self) -> Self {
        self.strict_entry_kinds = true;
        self
    }
}
