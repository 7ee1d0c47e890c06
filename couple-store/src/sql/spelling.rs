//! One statement in the spelling of each dialect, decided at compile time.

/// A statement as each dialect reads it.
#[derive(Debug, Clone, Copy)]
pub struct Sql {
    pub(super) sqlite: &'static str,
}

/// Refuses to compile unless the placeholders are `$1`, `$2`, …, in order, each once: then a dialect that only knows
/// `?` reads the same statement.
pub(super) const fn in_order(sql: &str) -> &str {
    let bytes = sql.as_bytes();
    let (mut i, mut next, mut quoted) = (0, 1_u32, false);
    while i < bytes.len() {
        if bytes[i] == b'\'' {
            quoted = !quoted;
        }
        if bytes[i] == b'$' && !quoted {
            let mut n = 0_u32;
            while i + 1 < bytes.len() && bytes[i + 1].is_ascii_digit() {
                i += 1;
                n = n * 10 + (bytes[i] - b'0') as u32;
            }
            assert!(n == next, "placeholders must be $1, $2, ... in order, each once");
            next += 1;
        }
        i += 1;
    }
    sql
}

/// A statement that every dialect reads, its parts joined.
macro_rules! sql {
    ($($part:expr),+ $(,)?) => {{
        const TEXT: &str = $crate::sql::spelling::in_order(concat!($($part),+));
        $crate::sql::spelling::Sql { sqlite: TEXT }
    }};
}

/// The statements of an area, by name, and the list of them that the tests of query plans go through.
macro_rules! statements {
    ($($name:ident = $($part:expr),+;)+) => {
        $(const $name: $crate::sql::spelling::Sql = sql!($($part),+);)+
        pub(super) const ALL: &[(&str, $crate::sql::spelling::Sql)] = &[$((stringify!($name), $name)),+];
    };
}
