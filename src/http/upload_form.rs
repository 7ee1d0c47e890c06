//! A picture in `multipart/form-data` (RFC 7578), as most mobile SDKs send it.
//!
//! The form is parsed as a stream, and never buffered as a whole.

use axum::body::Bytes;
use memchr::memmem;
use tokio::time::Instant;

use super::{
    ApiResult, Problem,
    paced_body::{PacedBody, Read},
};

/// Maximum bytes of a part's headers, of a text field, and of the preamble before the first part.
const TEXT_LIMIT: usize = 4 << 10;
/// Maximum number of parts, the picture included.
const PARTS_LIMIT: usize = 32;

/// Text fields of the form that are used.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) purpose: Option<String>,
    pub(super) crop: Option<String>,
    pub(super) placeholder: Option<String>,
}

/// A form whose parts are read in order.
#[derive(Debug)]
pub(super) struct Form {
    body: PacedBody,
    /// Bytes that arrived and are not read yet.
    buffer: Vec<u8>,
    /// CRLF, two hyphens, and the boundary.
    delimiter: Vec<u8>,
    parts: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct PartHead {
    name: String,
    is_file: bool,
}

impl Form {
    /// Creates the parser of a body, by its `Content-Type`.
    ///
    /// None: it is not `multipart/form-data` with a boundary.
    pub(super) fn new(content_type: &str, body: PacedBody) -> Option<Self> {
        let (essence, parameters) = content_type.split_once(';')?;
        if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary").filter(|text| (1..=70).contains(&text.len()))?;
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first delimiter needs no line break before it.
        Some(Self { body, buffer: b"\r\n".to_vec(), delimiter, parts: 0 })
    }

    /// Reads up to the picture.
    ///
    /// It is the first part with a file name, with a media type other than text, or with the name `file`.
    ///
    /// Unknown text fields are ignored: upload libraries add their own.
    pub(super) async fn picture(&mut self) -> ApiResult<Fields> {
        let mut fields = Fields::default();
        self.text(TEXT_LIMIT).await?;
        while let Some(head) = self.next_part().await? {
            if head.is_file {
                return Ok(fields);
            }
            let text = self.text(TEXT_LIMIT).await?;
            let field = match head.name.as_str() {
                "purpose" => &mut fields.purpose,
                "crop" => &mut fields.crop,
                "placeholder" => &mut fields.placeholder,
                _ => continue,
            };
            let text = String::from_utf8(text);
            *field = Some(text.map_err(|_| Problem::new("invalid_field").field(head.name, "invalid"))?);
        }
        Err(Problem::new("invalid_field")
            .field("file", "required")
            .detail("the form has no part with a file"))
    }

    /// Reads the rest of the form after the picture.
    pub(super) async fn finish(&mut self) -> ApiResult<()> {
        while let Some(head) = self.next_part().await? {
            if head.is_file {
                let problem = Problem::new("invalid_field").field(head.name, "one_file_only");
                return Err(problem.detail("send one picture in a form"));
            }
            self.text(TEXT_LIMIT).await?;
        }
        Ok(())
    }

    /// Reads the next bytes of a part; [`Read::End`] after its last bytes.
    pub(super) async fn read(&mut self, until: Option<Instant>) -> ApiResult<Read> {
        loop {
            let found = memmem::find(&self.buffer, &self.delimiter);
            // Bytes that may be the beginning of a delimiter stay in the buffer.
            let ready = found.unwrap_or((self.buffer.len() + 1).saturating_sub(self.delimiter.len()));
            if ready > 0 {
                return Ok(Read::Bytes(self.take(ready)));
            }
            if found.is_some() {
                self.take(self.delimiter.len());
                return Ok(Read::End);
            }
            match self.body.read(until).await? {
                Read::Bytes(bytes) => self.buffer.extend_from_slice(&bytes),
                Read::End => return Err(malformed("the form ends before its last part")),
                Read::Nothing => return Ok(Read::Nothing),
            }
        }
    }

    fn take(&mut self, length: usize) -> Bytes {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest).into()
    }

    /// Reads a text field.
    async fn text(&mut self, limit: usize) -> ApiResult<Vec<u8>> {
        let mut text = Vec::new();
        while let Read::Bytes(bytes) = self.read(None).await? {
            text.extend_from_slice(&bytes);
            if text.len() > limit {
                return Err(malformed("a field of the form is too long"));
            }
        }
        Ok(text)
    }

    /// Reads the head of the part after a delimiter. None: it was the last delimiter.
    async fn next_part(&mut self) -> ApiResult<Option<PartHead>> {
        // The buffer begins after a delimiter, so a part without headers has an empty line here.
        let end = loop {
            if self.buffer.starts_with(b"--") {
                return Ok(None);
            }
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if self.buffer.len() > TEXT_LIMIT {
                return Err(malformed("the headers of a part are too long"));
            }
            match self.body.read(None).await? {
                Read::Bytes(bytes) => self.buffer.extend_from_slice(&bytes),
                Read::End | Read::Nothing => return Err(malformed("the form ends before its last part")),
            }
        };
        self.parts += 1;
        if self.parts > PARTS_LIMIT {
            return Err(malformed("the form has too many parts"));
        }
        let head = self.take(end);
        Ok(Some(PartHead::parse(&String::from_utf8_lossy(&head))))
    }
}

impl PartHead {
    fn parse(head: &str) -> Self {
        let mut part = Self::default();
        for line in head.split("\r\n") {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.trim().eq_ignore_ascii_case("content-disposition") {
                let parameters = value.split_once(';').map_or("", |(_, parameters)| parameters);
                part.name = parameter(parameters, "name").unwrap_or_default();
                part.is_file |= part.name == "file"
                    || ["filename", "filename*"].iter().any(|name| parameter(parameters, name).is_some());
            } else if name.trim().eq_ignore_ascii_case("content-type") {
                part.is_file |= !value.trim_start().to_ascii_lowercase().starts_with("text/");
            }
        }
        part
    }
}

fn malformed(detail: &str) -> Problem {
    Problem::new("malformed_request").detail(detail)
}

/// A parameter of a header, quoted or not (RFC 9110, 5.6.6).
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', '\t', ';']);
        let value = if let Some(quoted) = after.strip_prefix('"') {
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next()? {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(characters.next()?.1),
                    (_, character) => value.push(character),
                }
            };
            rest = &quoted[end..];
            value
        } else {
            let (value, after) = after.split_once(';').unwrap_or((after, ""));
            rest = after;
            value.trim().to_owned()
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::{super::HttpOptions, *};

    /// Name and bytes of the parts of a form that arrives in pieces of this size.
    async fn parts(form: &str, piece: usize) -> ApiResult<Vec<(String, String)>> {
        let pieces: Vec<_> =
            form.as_bytes().chunks(piece).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
        let body = PacedBody::new(Body::from_stream(stream::iter(pieces)), &HttpOptions::default());
        let mut form = Form::new("multipart/form-data; boundary=\"b b\"", body).unwrap();
        form.text(TEXT_LIMIT).await?;
        let mut parts = Vec::new();
        while let Some(head) = form.next_part().await? {
            let name = format!("{}{}", head.name, if head.is_file { " (file)" } else { "" });
            parts.push((name, String::from_utf8(form.text(1 << 20).await?).unwrap()));
        }
        Ok(parts)
    }

    #[tokio::test]
    async fn parts_are_read_however_the_bytes_arrive() {
        let form = "preamble\r\n--b b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nphoto\r\n--b b\r\n\
                    content-disposition: form-data; name=\"a \\\"b\\\"\"; filename=\"x.jpg\"\r\n\r\n\r\n--b\r\n--\r\n\r\n\
                    --b b\r\nContent-Disposition: form-data; name=data\r\nContent-Type: image/png\r\n\r\n\r\n--b b\r\n\r\n\
                    \r\n--b b--\r\nepilogue";
        let expected =
            [("purpose", "photo"), ("a \"b\" (file)", "\r\n--b\r\n--\r\n"), ("data (file)", ""), ("", "")];
        for piece in [1, 2, 3, 7, 50, 1000] {
            let read = parts(form, piece).await.unwrap();
            let read: Vec<_> = read.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            assert_eq!(read, expected, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn forms_without_an_end_or_a_bound_are_refused() {
        let head = "--b b\r\nContent-Disposition: form-data; name=x\r\n\r\n";
        let many = format!("{head}\r\n").repeat(40);
        let long = format!("--b b\r\nX: {}", "x".repeat(5_000));
        for form in
            ["", "no delimiter", "--b b", head, &format!("{head}text"), &many, &long, &"x".repeat(5_000)]
        {
            let code = parts(form, 100).await.unwrap_err();
            assert_eq!(code.code(), "malformed_request");
        }
    }
}
