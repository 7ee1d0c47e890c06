//! Texts of a statement for each dialect, generated at compile time.

/// Statement text with its placeholders as `$1`, `$2`, … and as `?`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    #[cfg_attr(
        not(any(feature = "sqlite", feature = "postgres")),
        expect(dead_code, reason = "only SQLite and PostgreSQL read it")
    )]
    pub(super) numbered: &'static str,
    #[cfg_attr(not(feature = "mysql"), allow(dead_code, reason = "only MySQL reads it"))]
    pub(super) unnumbered: &'static str,
}

/// Text of a statement for each dialect.
#[derive(Debug, Clone, Copy)]
pub struct Sql {
    #[cfg(feature = "sqlite")]
    pub(super) sqlite: Text,
    #[cfg(feature = "mysql")]
    pub(super) mysql: Text,
    #[cfg(feature = "postgres")]
    pub(super) postgres: Text,
}

impl Sql {
    /// The same text for every dialect.
    pub(super) const fn everywhere(text: Text) -> Self {
        Self {
            #[cfg(feature = "sqlite")]
            sqlite: text,
            #[cfg(feature = "mysql")]
            mysql: text,
            #[cfg(feature = "postgres")]
            postgres: text,
        }
    }
    /// Sets another text for SQLite.
    #[cfg_attr(not(feature = "sqlite"), allow(unused_mut, unused_variables, reason = "SQLite is not built"))]
    pub(super) const fn sqlite(mut self, text: Text) -> Self {
        #[cfg(feature = "sqlite")]
        {
            self.sqlite = text;
        }
        self
    }
    /// Sets another text for MySQL and MariaDB.
    #[cfg_attr(not(feature = "mysql"), allow(unused_mut, unused_variables, reason = "MySQL is not built"))]
    pub(super) const fn mysql(mut self, text: Text) -> Self {
        #[cfg(feature = "mysql")]
        {
            self.mysql = text;
        }
        self
    }
}

/// Length of `sql` with every `$n` replaced by `?`.
///
/// Fails to compile unless the placeholders are `$1`, `$2`, … in order, each once: then a dialect with `?`
/// binds the same arguments.
pub(super) const fn unnumbered_len(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let (mut i, mut len, mut next, mut quoted) = (0, 0, 1_u32, false);
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
        len += 1;
        i += 1;
    }
    len
}

/// Replaces every `$n` of `sql` by `?`.
pub(super) const fn unnumbered<const LEN: usize>(sql: &str) -> [u8; LEN] {
    let bytes = sql.as_bytes();
    let mut out = [0; LEN];
    let (mut i, mut o, mut quoted) = (0, 0, false);
    while i < bytes.len() {
        if bytes[i] == b'\'' {
            quoted = !quoted;
        }
        if bytes[i] == b'$' && !quoted {
            out[o] = b'?';
            while i + 1 < bytes.len() && bytes[i + 1].is_ascii_digit() {
                i += 1;
            }
        } else {
            out[o] = bytes[i];
        }
        o += 1;
        i += 1;
    }
    out
}

/// Converts the bytes to text.
pub(super) const fn text(bytes: &'static [u8]) -> &'static str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("not UTF-8"),
    }
}

/// Joins the parts of a text in both forms of placeholders.
macro_rules! text {
    ($($part:expr),+) => {{
        const NUMBERED: &str = concat!($($part),+);
        const LEN: usize = $crate::sql::dialect_text::unnumbered_len(NUMBERED);
        const BYTES: [u8; LEN] = $crate::sql::dialect_text::unnumbered(NUMBERED);
        $crate::sql::dialect_text::Text { numbered: NUMBERED, unnumbered: $crate::sql::dialect_text::text(&BYTES) }
    }};
}

/// Statement for every dialect, its parts joined.
///
/// `=> mysql: …` or `=> sqlite: …` sets another text for one dialect.
macro_rules! sql {
    ($($part:expr),+ $(=> $dialect:ident: $($other:expr),+)*) => {
        $crate::sql::dialect_text::Sql::everywhere(text!($($part),+)) $(.$dialect(text!($($other),+)))*
    };
}

/// Named statements of an area, and a list of them for tests of query plans.
macro_rules! statements {
    ($($name:ident = $($part:expr),+ $(=> $dialect:ident: $($other:expr),+)*;)+) => {
        $(const $name: $crate::sql::dialect_text::Sql = sql!($($part),+ $(=> $dialect: $($other),+)*);)+
        pub(super) const ALL: &[(&str, $crate::sql::dialect_text::Sql)] = &[$((stringify!($name), $name)),+];
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn placeholders_are_replaced_outside_quotes() {
        const SAME: super::Text = text!("SELECT 'é $9' WHERE a = $1 ", "AND b = $2");
        assert_eq!(SAME.unnumbered, "SELECT 'é $9' WHERE a = ? AND b = ?");
        assert_eq!(SAME.numbered, "SELECT 'é $9' WHERE a = $1 AND b = $2");
    }
}
