//! Tables with many rows, and query plans.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "tests and a bench each use their part, and stop where something is wrong"
)]

use sqlx::{AssertSqlSafe, MySqlConnection, mysql::MySqlRow};

/// Maximum number of rows per transaction.
const MAX_ROWS_PER_TRANSACTION: u32 = 1_000_000;

/// Fills each of the tables that is `wanted` with `rows` rows.
pub(crate) async fn seed(connection: &mut MySqlConnection, rows: u32, wanted: impl Fn(&str) -> bool) {
    numbers(connection, rows.min(MAX_ROWS_PER_TRANSACTION)).await;
    let id = |n: &str| format!("UNHEX(LPAD(HEX({n}), 32, '0'))");
    let digest = |n: &str| format!("UNHEX(SHA2({n}, 256))");
    let (one, other, pair) = (id("seq"), id("seq + 1000000000"), id("seq DIV 100"));
    let tables = [
        format!(
            "couple_account SELECT {one}, CONCAT('p', seq), 'p', 'P', NULL, NULL, NULL, NULL, seq, IF(seq % 50, NULL, seq), 0"
        ),
        format!(
            "couple_token SELECT {one}, 'sign_in', CONCAT('p', seq), 'p', {other}, {}, 0, NULL, NULL, seq, seq, seq, NULL, NULL, NULL, 0, NULL",
            digest("seq")
        ),
        format!("couple_tally SELECT {}, 1, seq", digest("seq")),
        format!(
            "couple_session SELECT {one}, {other}, {}, NULL, seq, seq, seq, seq, {}",
            digest("seq"),
            digest("seq")
        ),
        format!(
            "couple_invite SELECT {one}, {other}, CONCAT('p', seq), CONCAT('q', seq), 'q', NULL, {}, {}, {}, seq, seq, 0, NULL, NULL",
            digest("seq"),
            digest("seq + 1"),
            digest("seq + 2")
        ),
        format!("couple_couple SELECT {one}, {one}, {other}, seq, 1, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0"),
        format!("couple_member SELECT {one}, {other}"),
        format!("couple_membership SELECT {one}, {other}"),
        format!("couple_block SELECT {one}, {other}, CONCAT('p', seq), seq"),
        format!(
            "couple_entry SELECT {pair}, seq, seq % 2, CONCAT('c', seq), 'text', '{{}}', NULL, seq, NULL, NULL, NULL, NULL"
        ),
        format!(
            "couple_media SELECT 1, {pair}, {one}, {}, {other}, 1, 1, NULL, {}, NULL, NULL, NULL, NULL, 'k', 'source', 9, 'image/jpeg', \
             4, 3, NULL, 1, seq, 0, 0",
            digest("seq"),
            digest("seq"),
        ),
        format!("couple_media_rendition SELECT {pair}, {one}, '1080', 0, 4, 3, 9, 'b', seq, seq"),
        format!("couple_media_space SELECT {one}, 0, 9, {one}, 0"),
        format!(
            "couple_resumable_upload SELECT {one}, {pair}, NULL, 9, 9, '', seq, '', NULL, IF(seq % 100, {other}, NULL), seq"
        ),
        format!(
            "couple_device SELECT {pair}, {one}, {other}, {}, 1, 'token', 'app', NULL, NULL, NULL, 0, NULL, NULL, NULL, seq",
            digest("seq")
        ),
        format!("couple_date SELECT {pair}, {one}, 1, 3, 'title', '--02-29', 1, seq"),
        format!("couple_preferences SELECT {one}, 1, 1, 1, 1, 0, NULL, NULL, NULL, NULL"),
        format!("couple_digest SELECT {one}, 60, seq"),
        format!(
            "couple_job SELECT {one}, 'mail', 'mail', '{{}}', CONCAT('k', seq), seq, seq, 5, seq, 0, NULL"
        ),
        format!("couple_dead_job SELECT {one}, 'mail', 'mail', '{{}}', NULL, seq, seq, 5, seq, 5, 'no', seq"),
        format!("couple_outcome SELECT {}, {}, '{{}}', seq, seq", digest("seq"), digest("seq")),
    ];
    for table in tables {
        let name = table.split(' ').next().unwrap();
        if !wanted(name) {
            continue;
        }
        for from in (0..rows).step_by(MAX_ROWS_PER_TRANSACTION as usize) {
            let some = MAX_ROWS_PER_TRANSACTION.min(rows - from);
            let insert = format!(
                "INSERT INTO {table} FROM (SELECT {from} + n AS seq FROM number WHERE n <= {some} ORDER BY n) AS numbers"
            );
            sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut *connection).await.unwrap();
        }
        let analyze = format!("ANALYZE TABLE {name}");
        sqlx::raw_sql(AssertSqlSafe(analyze)).execute(&mut *connection).await.unwrap();
    }
}

/// Creates a table with the numbers from 1 to at least `most`: only MariaDB can generate a sequence.
async fn numbers(connection: &mut MySqlConnection, most: u32) {
    let begin = "CREATE TABLE number (n INT PRIMARY KEY); INSERT INTO number VALUES (1)";
    sqlx::raw_sql(begin).execute(&mut *connection).await.unwrap();
    let mut so_far = 1;
    while so_far < most {
        let double = format!("INSERT INTO number SELECT n + {so_far} FROM number");
        sqlx::raw_sql(AssertSqlSafe(double)).execute(&mut *connection).await.unwrap();
        so_far *= 2;
    }
}

/// Query plan of a statement, with placeholder values of the columns' types, on which the plan depends.
pub(crate) async fn explain(connection: &mut MySqlConnection, sql: &str) -> Vec<MySqlRow> {
    let mut filled = String::new();
    for piece in sql.split_inclusive('?') {
        let Some(before) = piece.strip_suffix('?') else {
            filled.push_str(piece);
            continue;
        };
        filled.push_str(before);
        let compared = before.trim_end_matches([' ', '=', '<', '>', '(', ',']);
        let column = compared.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        filled.push_str(match column {
            "id" | "account_id" | "couple_id" | "space_id" | "media_id" | "owner" | "avatar" | "inviter"
            | "blocker" | "blocked" | "session_id" | "IN" | "" => "x'00000000000000000000000000000007'",
            "link" | "code" | "token" | "widget_token" | "pair_key" | "scope" | "identity"
            | "destination" => "x'7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451'",
            "email_key" | "target_key" | "blocker_email" | "client_id" | "queue" | "kind" | "name" => "'p7'",
            _ => "50",
        });
    }
    sqlx::query(AssertSqlSafe(format!("EXPLAIN FORMAT=TRADITIONAL {filled}")))
        .fetch_all(connection)
        .await
        .unwrap_or_else(|error| panic!("{error}: {filled}"))
}
