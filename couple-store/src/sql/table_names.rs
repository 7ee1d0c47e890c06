//! Names of the tables of one installation: a prefix, and in PostgreSQL a schema.
//!
//! Statements and migrations are written with the default prefix. For another one, [`TableNames`] rewrites
//! each text once and keeps the result; with the default prefix it uses the written text.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use couple_core::{Error, ErrorKind};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use super::{Dialect, job_batch::BatchStatements};

/// Prefix with which statements and migrations are written, and default prefix of tables.
pub(super) const DEFAULT_PREFIX: &str = "couple_";
/// Column whose name begins with the default prefix.
const COLUMN: &str = "couple_id";
/// Maximum length of a prefix: the longest name is then within the 63 bytes of PostgreSQL.
const MAX_PREFIX_LEN: usize = 24;
/// Maximum length of a schema: a channel of PostgreSQL contains schema and prefix within 63 bytes.
const MAX_SCHEMA_LEN: usize = 31;

/// Prefix and schema as the host chose them, not yet checked.
#[derive(Debug, Clone)]
pub(super) struct NameOptions {
    pub(super) prefix: String,
    pub(super) schema: Option<String>,
}

impl Default for NameOptions {
    fn default() -> Self {
        Self { prefix: DEFAULT_PREFIX.to_owned(), schema: None }
    }
}

impl NameOptions {
    /// Name of a table or an index that is written with the default prefix, without its schema.
    pub(super) fn bare(&self, written: &str) -> String {
        format!("{}{}", self.prefix, written.strip_prefix(DEFAULT_PREFIX).unwrap_or(written))
    }

    /// Checks prefix and schema.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] with the rule that the name breaks.
    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::new(ErrorKind::Misconfigured, "table names").context(reason));
        let prefix = &self.prefix;
        if !prefix.is_empty() && !is_name(prefix, MAX_PREFIX_LEN) {
            return wrong(format!(
                "the table prefix `{prefix}` must begin with a to z, have only a to z, 0 to 9 and _, and at most \
                 {MAX_PREFIX_LEN} characters"
            ));
        }
        if prefix.starts_with("sqlite_") {
            return wrong(format!("the table prefix `{prefix}` is reserved by SQLite"));
        }
        match &self.schema {
            Some(schema) if !is_name(schema, MAX_SCHEMA_LEN) => wrong(format!(
                "the schema `{schema}` must begin with a to z, have only a to z, 0 to 9 and _, and at most \
                 {MAX_SCHEMA_LEN} characters"
            )),
            Some(schema) if schema.starts_with("pg_") || schema == "information_schema" => {
                wrong(format!("the schema `{schema}` is reserved by PostgreSQL"))
            }
            _ => Ok(()),
        }
    }
}

fn is_name(name: &str, max_len: usize) -> bool {
    name.len() <= max_len
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Names of the tables of an installation, and the statements that contain them.
#[derive(Debug)]
pub(super) struct TableNames {
    options: NameOptions,
    /// Schema, or database of MySQL, that statements name; none for the default one of the connection.
    schema: Option<String>,
    /// Schema, if there is one, and prefix: the text before the name of a table.
    qualified_prefix: String,
    is_default: bool,
    rewritten: RwLock<HashMap<&'static str, Arc<str>>>,
    pub(super) batch: BatchStatements,
}

impl TableNames {
    /// Checks prefix and schema.
    ///
    /// `location` is the schema or database of the tables if the host chose none. With it, statements do not depend
    /// on the settings of a connection, which statements of the host can change.
    ///
    /// # Errors
    /// As of [`NameOptions::check`].
    pub(super) fn new<D: Dialect>(
        options: NameOptions,
        location: Option<String>,
    ) -> Result<Arc<Self>, Error> {
        options.check()?;
        let schema = options.schema.clone().or(location);
        let qualified_prefix = match &schema {
            Some(schema) => {
                let quote = D::NAME_QUOTE;
                let escaped = schema.replace(quote, &format!("{quote}{quote}"));
                format!("{quote}{escaped}{quote}.{}", options.prefix)
            }
            None => options.prefix.clone(),
        };
        Ok(Arc::new(Self {
            is_default: qualified_prefix == DEFAULT_PREFIX,
            batch: D::batch_statements(&qualified_prefix),
            qualified_prefix,
            schema,
            options,
            rewritten: RwLock::default(),
        }))
    }

    /// Schema, or database of MySQL, that statements name; none for the default one of the connection.
    pub(super) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Schema that the host chose.
    pub(super) fn chosen_schema(&self) -> Option<&str> {
        self.options.schema.as_deref()
    }

    /// Name of a table or an index that is written with the default prefix, without its schema.
    pub(super) fn bare(&self, written: &str) -> String {
        self.options.bare(written)
    }

    /// Name of a table in a statement. `table` has no prefix.
    pub(super) fn qualified(&self, table: &str) -> String {
        format!("{}{table}", self.qualified_prefix)
    }

    /// A statement with the names of this installation.
    pub(super) fn statement(&self, written: &'static str) -> SqlStr {
        if self.is_default {
            return written.into_sql_str();
        }
        let rewritten = self.rewritten.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = rewritten.get(written) {
            return AssertSqlSafe(text.clone()).into_sql_str();
        }
        drop(rewritten);
        let text: Arc<str> = self.rewrite(written).into();
        let mut rewritten = self.rewritten.write().unwrap_or_else(PoisonError::into_inner);
        rewritten.insert(written, text.clone());
        AssertSqlSafe(text).into_sql_str()
    }

    /// Replaces the default prefix of every table and index in a statement or migration.
    pub(super) fn rewrite(&self, written: &str) -> String {
        let mut text = String::with_capacity(written.len() + 64);
        let (mut rest, mut follows_index) = (written, false);
        while let Some(start) = rest.find(is_word) {
            let (before, from_word) = rest.split_at(start);
            let end = from_word.find(|c| !is_word(c)).unwrap_or(from_word.len());
            let (word, after) = from_word.split_at(end);
            text.push_str(before);
            match word.strip_prefix(DEFAULT_PREFIX) {
                // A new index is in the schema of its table: its name must not contain a schema.
                Some(name) if word != COLUMN && follows_index => {
                    text.push_str(&self.options.prefix);
                    text.push_str(name);
                }
                Some(name) if word != COLUMN => {
                    text.push_str(&self.qualified_prefix);
                    text.push_str(name);
                }
                _ => text.push_str(word),
            }
            follows_index = matches!(word, "INDEX" | "KEY");
            rest = after;
        }
        text.push_str(rest);
        text
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Tables, or tables and indexes, that a migration creates, with the default prefix.
pub(super) fn created_by(migration: &str, with_indexes: bool) -> Vec<&str> {
    let mut words = migration.split(|c| !is_word(c)).filter(|word| !word.is_empty()).peekable();
    let mut created = Vec::new();
    while let Some(word) = words.next() {
        if word != "CREATE" {
            continue;
        }
        let kind = if words.peek() == Some(&"UNIQUE") { words.nth(1) } else { words.next() };
        let name = if words.peek() == Some(&"IF") { words.nth(3) } else { words.next() };
        if kind == Some("TABLE") || kind == Some("INDEX") && with_indexes {
            created.extend(name);
        }
    }
    created
}

/// Connection of a store, with the names of its tables.
pub(super) struct TableConnection<'c, D: Dialect> {
    pub(super) inner: &'c mut D::Connection,
    pub(super) names: &'c TableNames,
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use sqlx::Postgres;

    use super::*;

    fn names(prefix: &str, schema: Option<&str>) -> Arc<TableNames> {
        let options = NameOptions { prefix: prefix.to_owned(), schema: schema.map(str::to_owned) };
        TableNames::new::<Postgres>(options, None).expect("the names are valid")
    }

    #[test]
    fn default_prefix_uses_the_written_statement() {
        let written = "SELECT couple_id FROM couple_member";
        assert_eq!(names("couple_", None).statement(written).as_str().as_ptr(), written.as_ptr());
    }

    #[test]
    fn prefix_and_schema_replace_the_default_prefix() {
        let written = "SELECT couple_id FROM couple_couple WHERE id IN (SELECT couple_id FROM couple_member)";
        let read = |prefix, schema| names(prefix, schema).statement(written).as_str().to_owned();
        assert_eq!(
            read("love_", None),
            "SELECT couple_id FROM love_couple WHERE id IN (SELECT couple_id FROM love_member)"
        );
        assert_eq!(read("", None), "SELECT couple_id FROM couple WHERE id IN (SELECT couple_id FROM member)");
        assert_eq!(
            read("", Some("love")),
            "SELECT couple_id FROM \"love\".couple WHERE id IN (SELECT couple_id FROM \"love\".member)"
        );
        let index = "CREATE INDEX couple_job_due ON couple_job (due_at)";
        assert_eq!(
            names("a_", Some("love")).rewrite(index),
            "CREATE INDEX a_job_due ON \"love\".a_job (due_at)"
        );
    }

    #[test]
    fn location_of_the_tables_is_quoted() {
        let names = |location: &str| {
            TableNames::new::<Postgres>(NameOptions::default(), Some(location.to_owned())).expect("valid")
        };
        assert_eq!(names("a\"b").rewrite("FROM couple_job"), "FROM \"a\"\"b\".couple_job");
        let keys = "CREATE TABLE couple_job (id UUID, KEY couple_job_due (due_at))";
        let written = "CREATE TABLE \"app\".couple_job (id UUID, KEY couple_job_due (due_at))";
        assert_eq!(names("app").rewrite(keys), written);
    }

    #[test]
    fn created_tables_and_indexes_are_found() {
        let sql = "-- Rows.\nCREATE TABLE couple_one (couple_id UUID);\nCREATE UNIQUE INDEX couple_one_id ON couple_one (couple_id);\n\
                   CREATE TABLE IF NOT EXISTS couple_two (id UUID);";
        assert_eq!(created_by(sql, false), ["couple_one", "couple_two"]);
        assert_eq!(created_by(sql, true), ["couple_one", "couple_one_id", "couple_two"]);
    }

    #[test]
    fn unsafe_names_are_refused() {
        let check = |prefix: &str, schema: Option<&str>| {
            NameOptions { prefix: prefix.to_owned(), schema: schema.map(str::to_owned) }.check()
        };
        let is_misconfigured =
            |checked: Result<(), Error>| checked.is_err_and(|error| error.kind() == ErrorKind::Misconfigured);
        for prefix in ["", "love_", "a", "a1_b2_"] {
            assert!(check(prefix, None).is_ok(), "{prefix}");
        }
        for prefix in ["1_", "_x", "Love_", "lo-ve_", "x\"; DROP TABLE y", "é_", "sqlite_x", &"a".repeat(25)]
        {
            assert!(is_misconfigured(check(prefix, None)), "{prefix}");
        }
        assert!(check("", Some("user")).is_ok());
        for schema in ["", "pg_love", "information_schema", "a.b", "a\"b", &"a".repeat(32)] {
            assert!(is_misconfigured(check("", Some(schema))), "{schema}");
        }
    }
}
