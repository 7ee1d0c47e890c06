//! Tables with many rows, and query plans.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "tests and a bench each use their part, and stop where something is wrong"
)]

use sqlx::{AssertSqlSafe, PgConnection};

/// Fills each of the tables that is `wanted` with `rows` rows.
pub(crate) async fn seed(connection: &mut PgConnection, rows: u32, wanted: impl Fn(&str) -> bool) {
    let id = |n: &str| format!("CAST(LPAD(TO_HEX({n}), 32, '0') AS UUID)");
    let digest = |n: &str| format!("SHA256(CAST(CAST({n} AS TEXT) AS BYTEA))");
    let (one, other, pair) = (id("n"), id("n + 1000000000"), id("n / 100"));
    let tables = [
        format!(
            "couple_account SELECT {one}, 'p' || n, 'p', 'P', NULL, NULL, NULL, NULL, n, CASE WHEN n % 50 = 0 THEN n END, 0"
        ),
        format!(
            "couple_token SELECT {one}, 'sign_in', 'p' || n, 'p', {other}, {}, 0, NULL, NULL, n, n, n, NULL, NULL, NULL, 0, NULL",
            digest("n")
        ),
        format!("couple_tally SELECT {}, 1, n", digest("n")),
        format!("couple_session SELECT {one}, {other}, {}, NULL, n, n, n, n, {}", digest("n"), digest("n")),
        format!(
            "couple_invite SELECT {one}, {other}, 'p' || n, 'q' || n, 'q', NULL, {}, {}, {}, n, n, 0, NULL, NULL",
            digest("n"),
            digest("n + 1"),
            digest("n + 2")
        ),
        format!("couple_couple SELECT {one}, {one}, {other}, n, 1, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0"),
        format!("couple_member SELECT {one}, {other}"),
        format!("couple_membership SELECT {one}, {other}"),
        format!("couple_block SELECT {one}, {other}, 'p' || n, n"),
        format!(
            "couple_entry SELECT {pair}, n, n % 2, 'c' || n, 'text', '{{}}', NULL, n, NULL, NULL, NULL, NULL"
        ),
        format!(
            "couple_media SELECT 1, {pair}, {one}, {}, {other}, 1, 1, NULL, {}, NULL, NULL, NULL, NULL, 'k', 'source', 9, 'image/jpeg', \
             4, 3, NULL, 1, n, 0, 0",
            digest("n"),
            digest("n"),
        ),
        format!("couple_media_rendition SELECT {pair}, {one}, '1080', 0, 4, 3, 9, 'b', n, n"),
        format!("couple_media_space SELECT {one}, 0, 9, {one}, 0"),
        format!(
            "couple_resumable_upload SELECT {one}, {pair}, NULL, 9, 9, '', n, '', NULL, CASE WHEN n % 100 > 0 THEN {other} END, n"
        ),
        format!(
            "couple_device SELECT {pair}, {one}, {other}, {}, 1, 'token', 'app', NULL, NULL, NULL, 0, NULL, NULL, NULL, n",
            digest("n")
        ),
        format!("couple_date SELECT {pair}, {one}, 1, 3, 'title', '--02-29', 1, n"),
        format!("couple_preferences SELECT {one}, 1, 1, 1, 1, 0, NULL, NULL, NULL, NULL"),
        format!("couple_digest SELECT {one}, 60, n"),
        format!("couple_job SELECT {one}, 'mail', 'mail', '{{}}', 'k' || n, n, n, 5, n, 0, NULL"),
        format!("couple_dead_job SELECT {one}, 'mail', 'mail', '{{}}', NULL, n, n, 5, n, 5, 'no', n"),
        format!("couple_outcome SELECT {}, {}, '{{}}', n, n", digest("n"), digest("n")),
    ];
    for table in tables.iter().filter(|table| wanted(table.split(' ').next().unwrap())) {
        let insert = format!("INSERT INTO {table} FROM GENERATE_SERIES(1, {rows}) AS n");
        sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut *connection).await.unwrap();
    }
    sqlx::raw_sql("ANALYZE").execute(connection).await.unwrap();
}

/// Generic query plan of a statement, with scans and sorts only where the planner has no alternative.
pub(crate) async fn explain(connection: &mut PgConnection, sql: &str) -> String {
    let count = sql.matches('$').count();
    let values = vec!["NULL"; count].join(", ");
    let ask = format!(
        "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_sort = off; \
         DEALLOCATE ALL; PREPARE asked AS {sql}"
    );
    sqlx::raw_sql(AssertSqlSafe(ask))
        .execute(&mut *connection)
        .await
        .unwrap_or_else(|e| panic!("{e}: {sql}"));
    let explain = if count == 0 {
        "EXPLAIN EXECUTE asked".to_owned()
    } else {
        format!("EXPLAIN EXECUTE asked({values})")
    };
    use sqlx::Row as _;
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}
