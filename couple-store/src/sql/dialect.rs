//! Requirements for a database driver.
//!
//! All bounds are on the driver itself, so that `D: Dialect` implies them.

use std::{future::Future, time::Duration};

use couple_core::{Digest, Error, ErrorKind, Timestamp};
use sqlx::{
    Arguments, AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Row as _,
    SqlStr, Type, error::BoxDynError,
};
use uuid::Uuid;

use super::{
    dialect_text::Sql,
    job_batch::BatchStatements,
    table_names::{TableConnection, TableNames},
};

/// Driver that can bind a `T`.
pub trait BindValue<'t, T>: Database {
    /// Appends a value to the arguments.
    ///
    /// # Errors
    /// The value cannot be encoded.
    fn bind(args: &mut Self::Arguments, value: T) -> Result<(), BoxDynError>;
}

impl<'t, DB: Database, T: Encode<'t, DB> + Type<DB> + 't> BindValue<'t, T> for DB {
    fn bind(args: &mut DB::Arguments, value: T) -> Result<(), BoxDynError> {
        args.add(value)
    }
}

/// Driver that can decode a `T` from a column.
pub trait ReadColumn<T>: Database {
    /// Value of the column with this index.
    ///
    /// # Errors
    /// The value cannot be decoded.
    fn read(row: &Self::Row, column: usize) -> sqlx::Result<T>;
}

impl<DB: Database, T> ReadColumn<T> for DB
where
    T: for<'r> Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    fn read(row: &DB::Row, column: usize) -> sqlx::Result<T> {
        // Do not check the declared type of the column: MySQL reports text in a binary column as binary. A
        // value that cannot be decoded is still an error.
        row.try_get_unchecked(column)
    }
}

/// Driver whose connections run statements.
pub trait ExecuteStatement: Database {
    /// Runs a statement and returns its result.
    fn execute<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Self::QueryResult>> + Send + 'c;
    /// Runs a statement and returns all of its rows.
    fn fetch_all<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Row>>> + Send + 'c;
    /// Runs statements without arguments and returns their rows. The text contains only constants and ids.
    fn fetch_raw(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Row>>> + Send + '_;
    /// Runs statements without arguments.
    fn run<'c>(
        connection: &'c mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send + 'c;
}

impl<DB: Database> ExecuteStatement for DB
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
{
    async fn execute(
        connection: &mut DB::Connection,
        sql: SqlStr,
        args: DB::Arguments,
    ) -> sqlx::Result<DB::QueryResult> {
        sqlx::query_with::<DB, _>(sql, args).execute(connection).await
    }
    async fn fetch_all(
        connection: &mut DB::Connection,
        sql: SqlStr,
        args: DB::Arguments,
    ) -> sqlx::Result<Vec<DB::Row>> {
        sqlx::query_with::<DB, _>(sql, args).fetch_all(connection).await
    }
    async fn fetch_raw(connection: &mut DB::Connection, sql: String) -> sqlx::Result<Vec<DB::Row>> {
        sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await
    }
    async fn run(connection: &mut DB::Connection, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(connection).await.map(drop)
    }
}

/// How long a transaction waits for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// Until the session's lock time-out.
    TimeOut,
    /// For the shortest time that the database can set, or not at all.
    Brief,
    /// Not at all, if the database has such a setting; else as [`Brief`](Self::Brief).
    Never,
}

/// Database system: the column types that this crate uses, and the differences between the systems.
pub trait Dialect:
    ExecuteStatement
    + for<'a> BindValue<'a, &'a str>
    + for<'a> BindValue<'a, Option<&'a str>>
    + for<'a> BindValue<'a, &'a [u8]>
    + for<'a> BindValue<'a, Option<&'a [u8]>>
    + for<'a> BindValue<'a, i64>
    + for<'a> BindValue<'a, Option<i64>>
    + for<'a> BindValue<'a, Uuid>
    + for<'a> BindValue<'a, Option<Uuid>>
    + ReadColumn<String>
    + ReadColumn<Option<String>>
    + ReadColumn<Vec<u8>>
    + ReadColumn<Option<Vec<u8>>>
    + ReadColumn<i64>
    + ReadColumn<Option<i64>>
    + ReadColumn<Uuid>
    + ReadColumn<Option<Uuid>>
{
    /// Statement that starts a writing transaction.
    const BEGIN: &'static str;
    /// Statement that starts a transaction in which the migrator only reads.
    const BEGIN_READ: &'static str;
    /// Quotation mark around the name of a schema or a database.
    const NAME_QUOTE: char;
    /// Time limit of a read or a transaction, after which its connection is closed.
    ///
    /// None if no other process can hold locks.
    const TRANSACTION_TIMEOUT: Option<Duration>;
    /// Statements that set how long a transaction waits for locks.
    ///
    /// The first is put before [`BEGIN`](Self::BEGIN), the second at the end of the same round trip. None if no other transaction writes.
    fn lock_wait(wait: LockWait) -> Option<[&'static str; 2]>;
    /// Index hint after the name of a table whose rows are selected by primary key.
    ///
    /// Without it, a database may read (and lock) rows with other keys.
    const BY_PRIMARY_KEY: &'static str;
    /// Literal of an id in the text of a statement.
    fn literal(id: Uuid) -> String;
    /// Literal of bytes, given in hexadecimal, in the text of a statement.
    fn literal_bytes(hex: &str) -> String;
    /// Query that tries to take the migration lock; its row is 1 if it succeeded.
    ///
    /// None if [`BEGIN`](Self::BEGIN) takes the lock.
    const LOCK: Option<Sql>;
    /// Statement that releases the migration lock; none if the end of the transaction does.
    const UNLOCK: Option<Sql>;
    /// Text of a statement in this dialect.
    fn text_of(sql: Sql) -> &'static str;
    /// Number of rows that a statement changed.
    fn affected(result: &Self::QueryResult) -> u64;
    /// Error kind of an error that the database reported.
    fn kind_of(error: &dyn sqlx::error::DatabaseError) -> ErrorKind;
    /// Whether the same transaction may succeed when run again, because it conflicted with another one.
    fn is_transient(error: &dyn sqlx::error::DatabaseError) -> bool;
    /// Runs an update that increments a counter in one row and returns it; none if no row matched.
    ///
    /// One round trip if the dialect supports it.
    fn count_up<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Option<i64>>> + Send + 'c;
    /// Interrupts statements of the connection that still run after `limit`.
    ///
    /// It does nothing on a server, whose sessions have a time-out of statements.
    fn interrupt_after(
        connection: &mut Self::Connection,
        limit: Duration,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// Cancels [`interrupt_after`](Self::interrupt_after).
    fn cancel_interrupt(connection: &mut Self::Connection) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// Statements whose text depends on the number of rows. `prefix` is the text before the name of a table.
    fn batch_statements(prefix: &str) -> BatchStatements;
    /// Query for the names of the tables, views and indexes that exist among `names`, a list of text literals.
    ///
    /// They are looked up where a statement without a schema finds them, or in `schema`.
    fn existing_relations(schema: Option<&str>, names: &str) -> String;
}

/// SQL string literal of a text.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Waits up to [`Dialect::TRANSACTION_TIMEOUT`]; none after that.
pub(super) async fn within_timeout<D: Dialect, T>(work: impl Future<Output = T>) -> Option<T> {
    match D::TRANSACTION_TIMEOUT {
        None => Some(work.await),
        Some(limit) => tokio::time::timeout(limit, work).await.ok(),
    }
}

/// [`Dialect::count_up`] by `UPDATE … RETURNING`.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) async fn count_up_returning<D: Dialect>(
    connection: &mut D::Connection,
    sql: SqlStr,
    args: D::Arguments,
) -> sqlx::Result<Option<i64>> {
    let rows = D::fetch_all(connection, sql, args).await?;
    rows.first().map(|row| <D as ReadColumn<i64>>::read(row, 0)).transpose()
}

/// Text of a statement.
enum StatementText {
    /// A constant, written with the default prefix of tables.
    Written(&'static str),
    /// A generated text with the names of the installation.
    Built(SqlStr),
}

impl StatementText {
    fn for_tables(self, names: &TableNames) -> SqlStr {
        match self {
            Self::Written(text) => names.statement(text),
            Self::Built(text) => text,
        }
    }
}

/// Statement with its arguments.
pub(super) struct Statement<D: Dialect> {
    sql: StatementText,
    args: D::Arguments,
    refused: Option<BoxDynError>,
}

impl<D: Dialect> Statement<D> {
    pub(super) fn new(sql: Sql) -> Self {
        Self { sql: StatementText::Written(D::text_of(sql)), args: D::Arguments::default(), refused: None }
    }

    /// Creates a statement from a generated text. The text consists of constants only, never of input.
    pub(super) fn built(sql: std::sync::Arc<str>) -> Self {
        use sqlx::SqlSafeStr as _;
        let sql = StatementText::Built(AssertSqlSafe(sql).into_sql_str());
        Self { sql, args: D::Arguments::default(), refused: None }
    }

    pub(super) fn bind<'t, T>(mut self, value: T) -> Self
    where
        D: BindValue<'t, T>,
    {
        if let Err(error) = D::bind(&mut self.args, value) {
            self.refused.get_or_insert(error);
        }
        self
    }

    pub(super) fn time(self, time: Timestamp) -> Self {
        self.bind(time.micros())
    }
    pub(super) fn opt_time(self, time: Option<Timestamp>) -> Self {
        self.bind(time.map(Timestamp::micros))
    }
    pub(super) fn digest(self, digest: &Digest) -> Self {
        self.bind(digest.as_bytes().as_slice())
    }

    /// Runs the statement and returns the number of changed rows.
    pub(super) async fn execute(self, connection: &mut TableConnection<'_, D>) -> sqlx::Result<u64> {
        if let Some(error) = self.refused {
            return Err(sqlx::Error::Encode(error));
        }
        let sql = self.sql.for_tables(connection.names);
        Ok(D::affected(&D::execute(connection.inner, sql, self.args).await?))
    }

    /// Runs an update that increments a counter; see [`Dialect::count_up`].
    pub(super) async fn count_up(self, connection: &mut TableConnection<'_, D>) -> sqlx::Result<Option<i64>> {
        if let Some(error) = self.refused {
            return Err(sqlx::Error::Encode(error));
        }
        D::count_up(connection.inner, self.sql.for_tables(connection.names), self.args).await
    }

    pub(super) async fn rows(self, connection: &mut TableConnection<'_, D>) -> sqlx::Result<Vec<D::Row>> {
        if let Some(error) = self.refused {
            return Err(sqlx::Error::Encode(error));
        }
        D::fetch_all(connection.inner, self.sql.for_tables(connection.names), self.args).await
    }
}

/// Row whose columns are read from left to right.
pub(super) struct Row<'r, D: Dialect> {
    row: &'r D::Row,
    next: usize,
}

impl<'r, D: Dialect> Row<'r, D> {
    pub(super) const fn new(row: &'r D::Row) -> Self {
        Self { row, next: 0 }
    }

    /// Value of the next column.
    pub(super) fn take<T>(&mut self) -> Result<T, Error>
    where
        D: ReadColumn<T>,
    {
        let column = self.next;
        self.next += 1;
        <D as ReadColumn<T>>::read(self.row, column).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "decode").context(format!("column {column}")).source(source)
        })
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, Error> {
        Ok(Timestamp::from_micros(self.take()?))
    }
    pub(super) fn opt_time(&mut self) -> Result<Option<Timestamp>, Error> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_micros))
    }
    pub(super) fn digest(&mut self, table: &'static str, column: &'static str) -> Result<Digest, Error> {
        let bytes: Vec<u8> = self.take()?;
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| Error::corrupt(table, column, "a row"))?;
        Ok(Digest::from_bytes(bytes))
    }
    pub(super) fn opt_digest(
        &mut self,
        table: &'static str,
        column: &'static str,
    ) -> Result<Option<Digest>, Error> {
        let Some(bytes) = self.take::<Option<Vec<u8>>>()? else { return Ok(None) };
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| Error::corrupt(table, column, "a row"))?;
        Ok(Some(Digest::from_bytes(bytes)))
    }
}
