//! What a driver must be able to do, with every bound on the driver itself, so that `D: Dialect` implies it all.

use std::{future::Future, time::Duration};

use couple_core::{Digest, Error, ErrorKind, Timestamp};
use sqlx::{
    Arguments, AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Row as _,
    SqlStr, Type, error::BoxDynError,
};
use uuid::Uuid;

use super::{job::Built, spelling::Sql};

/// A driver that can bind a `T`.
pub trait Binds<'t, T>: Database {
    /// Adds a value to the arguments.
    ///
    /// # Errors
    /// When it cannot be encoded.
    fn bind(args: &mut Self::Arguments, value: T) -> Result<(), BoxDynError>;
}

impl<'t, DB: Database, T: Encode<'t, DB> + Type<DB> + 't> Binds<'t, T> for DB {
    fn bind(args: &mut DB::Arguments, value: T) -> Result<(), BoxDynError> {
        args.add(value)
    }
}

/// A driver that can read a `T` out of a column.
pub trait Reads<T>: Database {
    /// The value in a column, by its index.
    ///
    /// # Errors
    /// When it does not decode as one.
    fn read(row: &Self::Row, column: usize) -> sqlx::Result<T>;
}

impl<DB: Database, T> Reads<T> for DB
where
    T: for<'r> Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    fn read(row: &DB::Row, column: usize) -> sqlx::Result<T> {
        // Unchecked against the column's declared type: MySQL calls text that is kept as bytes binary. What does not decode is
        // still an error.
        row.try_get_unchecked(column)
    }
}

/// A driver whose connection runs statements.
pub trait Runs: Database {
    /// Runs a statement and tells what it did.
    fn execute<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Self::QueryResult>> + Send + 'c;
    /// Runs a statement to its end and returns its rows.
    fn fetch_all<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Row>>> + Send + 'c;
    /// Runs statements that have no arguments and returns their rows. The text is built of our own constants and of ids only.
    fn fetch_raw(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Row>>> + Send + '_;
    /// Runs statements that have no arguments.
    fn run<'c>(
        connection: &'c mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send + 'c;
}

impl<DB: Database> Runs for DB
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

/// A database system: the column types this crate uses, and what the systems disagree about.
pub trait Dialect:
    Runs
    + for<'a> Binds<'a, &'a str>
    + for<'a> Binds<'a, Option<&'a str>>
    + for<'a> Binds<'a, &'a [u8]>
    + for<'a> Binds<'a, Option<&'a [u8]>>
    + for<'a> Binds<'a, i64>
    + for<'a> Binds<'a, Option<i64>>
    + for<'a> Binds<'a, Uuid>
    + for<'a> Binds<'a, Option<Uuid>>
    + Reads<String>
    + Reads<Option<String>>
    + Reads<Vec<u8>>
    + Reads<Option<Vec<u8>>>
    + Reads<i64>
    + Reads<Option<i64>>
    + Reads<Uuid>
    + Reads<Option<Uuid>>
{
    /// Opens a writing transaction.
    const BEGIN: &'static str;
    /// How long a read, or a transaction, may take before its connection is given up. None where nobody else can hold
    /// things up.
    const PATIENCE: Option<Duration>;
    /// Statement that makes a connection fail instead of waiting for a row lock.
    ///
    /// None if the database has no such setting, or no other process writes.
    const NO_WAIT: Option<&'static str>;
    /// An id as it is written within a statement.
    fn literal(id: Uuid) -> String;
    /// Tries to take the lock under which a schema is brought up to date: one row with 1 when it was got. None where
    /// [`BEGIN`](Self::BEGIN) takes it.
    const LOCK: Option<Sql>;
    /// Gives it back, where the end of a transaction does not.
    const UNLOCK: Option<Sql>;
    /// This dialect's spelling of a statement.
    fn spell(sql: Sql) -> &'static str;
    /// How many rows a statement changed.
    fn affected(result: &Self::QueryResult) -> u64;
    /// What kind of failure a code of the database means.
    fn kind_of(error: &dyn sqlx::error::DatabaseError) -> ErrorKind;
    /// Whether the same transaction may succeed when it is run again from its beginning: it met another one.
    fn is_transient(error: &dyn sqlx::error::DatabaseError) -> bool;
    /// Runs an update of one row that counts up, and tells the count; none when it found no row. One trip where the dialect
    /// can tell at once.
    fn count_up<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Option<i64>>> + Send + 'c;
    /// The statements whose text depends on how many rows they touch.
    fn built() -> &'static Built;
}

/// [`Dialect::count_up`] where `UPDATE … RETURNING` is there.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) async fn count_up_returning<D: Dialect>(
    connection: &mut D::Connection,
    sql: SqlStr,
    args: D::Arguments,
) -> sqlx::Result<Option<i64>> {
    let rows = D::fetch_all(connection, sql, args).await?;
    rows.first().map(|row| <D as Reads<i64>>::read(row, 0)).transpose()
}

/// One statement with its arguments.
pub(super) struct Statement<D: Dialect> {
    sql: SqlStr,
    args: D::Arguments,
    refused: Option<BoxDynError>,
}

impl<D: Dialect> Statement<D> {
    pub(super) fn new(sql: Sql) -> Self {
        use sqlx::SqlSafeStr as _;
        Self { sql: D::spell(sql).into_sql_str(), args: D::Arguments::default(), refused: None }
    }

    /// A statement whose text was built: of our own constants only, never of anybody's input.
    pub(super) fn built(sql: std::sync::Arc<str>) -> Self {
        use sqlx::SqlSafeStr as _;
        Self { sql: AssertSqlSafe(sql).into_sql_str(), args: D::Arguments::default(), refused: None }
    }

    pub(super) fn bind<'t, T>(mut self, value: T) -> Self
    where
        D: Binds<'t, T>,
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

    /// Runs it and tells how many rows it changed.
    pub(super) async fn execute(self, connection: &mut D::Connection) -> sqlx::Result<u64> {
        if let Some(error) = self.refused {
            return Err(sqlx::Error::Encode(error));
        }
        Ok(D::affected(&D::execute(connection, self.sql, self.args).await?))
    }

    /// Runs an update that counts up: see [`Dialect::count_up`].
    pub(super) async fn count_up(self, connection: &mut D::Connection) -> sqlx::Result<Option<i64>> {
        if let Some(error) = self.refused {
            return Err(sqlx::Error::Encode(error));
        }
        D::count_up(connection, self.sql, self.args).await
    }

    pub(super) async fn rows(self, connection: &mut D::Connection) -> sqlx::Result<Vec<D::Row>> {
        if let Some(error) = self.refused {
            return Err(sqlx::Error::Encode(error));
        }
        D::fetch_all(connection, self.sql, self.args).await
    }
}

/// A row that is read from left to right.
pub(super) struct Row<'r, D: Dialect> {
    row: &'r D::Row,
    next: usize,
}

impl<'r, D: Dialect> Row<'r, D> {
    pub(super) const fn new(row: &'r D::Row) -> Self {
        Self { row, next: 0 }
    }

    /// The next column.
    pub(super) fn take<T>(&mut self) -> Result<T, Error>
    where
        D: Reads<T>,
    {
        let column = self.next;
        self.next += 1;
        <D as Reads<T>>::read(self.row, column).map_err(|source| {
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
