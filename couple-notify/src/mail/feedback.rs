//! Reports of mail servers and mailbox providers about a mail: bounces (RFC 3464) and complaints (RFC 5965).

use couple_core::mail::{DeliveryReport, ReportKind};
use mail_parser::{HeaderValue, Message, MessageParser, MimeHeaders as _};

/// Maximum bytes of a report that are read. A report contains at most the mail that it is about.
const MAX_REPORT_BYTES: usize = 1 << 20;

/// Lines that begin the copy of the mail in a bounce without MIME parts: qmail, and Exim before 4.86.
const COPY_MARKS: [&str; 3] = [
    "--- Below this line is a copy of the message.",
    "------ This is a copy of the message, including all the headers. ------",
    "------ This is a copy of the message's headers. ------",
];

/// Reads a report; none for a message that is no report.
///
/// Understands delivery status notifications (RFC 3464, and RFC 6533 with addresses in Unicode), abuse reports (RFC 5965), and the bounces of
/// qmail and of old versions of Exim, which have no parts. It trusts nothing: the caller checks that the Message-ID was issued for the recipient.
#[must_use]
pub fn read_report(raw: &[u8]) -> Option<DeliveryReport> {
    let message = MessageParser::new().parse(&raw[..raw.len().min(MAX_REPORT_BYTES)])?;
    let part = |subtypes: &[&str]| {
        message.parts.iter().find(|part| {
            let kind = part.content_type().filter(|kind| kind.ctype().eq_ignore_ascii_case("message"));
            let subtype = kind.and_then(|kind| kind.subtype());
            subtype.is_some_and(|subtype| subtypes.iter().any(|name| name.eq_ignore_ascii_case(subtype)))
        })
    };
    let mut report = if let Some(part) = part(&["delivery-status", "global-delivery-status"]) {
        bounce(&String::from_utf8_lossy(part.contents()))
    } else if let Some(part) = part(&["feedback-report"]) {
        complaint(&String::from_utf8_lossy(part.contents()))?
    } else {
        return bounce_without_parts(&message);
    };
    for part in &message.parts {
        add_original(&mut report, part);
    }
    add_references(&mut report, &message);
    Some(report)
}

/// Groups of fields, separated by empty lines. Names are in lower case.
fn groups(text: &str) -> Vec<Vec<(String, String)>> {
    let mut groups = vec![Vec::<(String, String)>::new()];
    for line in text.lines() {
        let Some(group) = groups.last_mut() else { break };
        if line.trim().is_empty() {
            if !group.is_empty() {
                groups.push(Vec::new());
            }
        } else if line.starts_with([' ', '\t']) {
            // A folded field continues.
            if let Some((_, value)) = group.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            group.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    groups
}

fn field<'a>(group: &'a [(String, String)], name: &str) -> Option<&'a str> {
    group.iter().find(|(field, _)| field == name).map(|(_, value)| &**value)
}

/// Address of a field such as `rfc822; ana@example.org` (RFC 3464, 2.1.2).
fn address(value: &str) -> String {
    let address = value.split_once(';').map_or(value, |(_, address)| address);
    address.trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// Report of a delivery status: permanent if one recipient has failed with a status 5.x.x.
fn bounce(status: &str) -> DeliveryReport {
    let mut report =
        DeliveryReport { kind: ReportKind::Temporary, message_ids: Vec::new(), recipients: Vec::new() };
    let groups = groups(status);
    let is_permanent = |group: &&Vec<(String, String)>| {
        let failed = field(group, "action").is_some_and(|action| {
            action
                .split(|c: char| !c.is_ascii_alphabetic())
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("failed"))
        });
        failed && field(group, "status").is_some_and(|status| status.starts_with("5."))
    };
    for group in groups.iter().filter(is_permanent) {
        report.kind = ReportKind::Bounced;
        let names = ["original-recipient", "final-recipient"];
        report.recipients.extend(names.iter().filter_map(|name| field(group, name)).map(address));
    }
    report
}

/// Report of a complaint; none for a report of another kind, such as `not-spam`, or of a failed authentication (RFC 6591).
fn complaint(text: &str) -> Option<DeliveryReport> {
    let fields: Vec<_> = groups(text).into_iter().flatten().collect();
    let kind = field(&fields, "feedback-type")?.to_ascii_lowercase();
    if !["abuse", "fraud", "opt-out"].contains(&&*kind) {
        return None;
    }
    let recipients = fields.iter().filter(|(name, _)| name == "original-rcpt-to");
    let recipients = recipients.map(|(_, value)| address(value)).collect();
    Some(DeliveryReport { kind: ReportKind::Complained, message_ids: Vec::new(), recipients })
}

/// Adds Message-ID and recipient of the mail that a part contains, whole or as its headers.
fn add_original(report: &mut DeliveryReport, part: &mail_parser::MessagePart<'_>) {
    if let Some(original) = part.message() {
        add_headers(report, original);
        return;
    }
    let Some(kind) = part.content_type() else { return };
    let is_headers = kind.subtype().is_some_and(|subtype| {
        ["rfc822-headers", "global-headers"].iter().any(|name| name.eq_ignore_ascii_case(subtype))
    });
    if is_headers && let Some(original) = MessageParser::new().parse(part.contents()) {
        add_headers(report, &original);
    }
}

fn add_headers(report: &mut DeliveryReport, original: &Message<'_>) {
    report.message_ids.extend(original.message_id().map(str::to_owned));
    let to = original.to().into_iter().flat_map(|to| to.iter());
    report.recipients.extend(to.filter_map(|to| to.address().map(str::to_owned)));
    // Reports of Outlook.com redact the recipient elsewhere.
    let hidden = original.header("X-HmXmrOriginalRecipient").and_then(HeaderValue::as_text);
    report.recipients.extend(hidden.map(str::to_owned));
}

/// Adds the mails that the report answers: Gmail and Exchange name them so.
fn add_references(report: &mut DeliveryReport, message: &Message<'_>) {
    for header in [message.in_reply_to(), message.references()] {
        let one = header.as_text().map(str::to_owned);
        let list = header.as_text_list().unwrap_or_default().iter().map(ToString::to_string);
        report.message_ids.extend(one.into_iter().filter(|_| header.as_text_list().is_none()).chain(list));
    }
    let failed = message.header("X-Failed-Recipients").and_then(HeaderValue::as_text);
    report.recipients.extend(failed.into_iter().flat_map(|list| list.split(',')).map(address));
}

/// Bounce whose text describes the failure and contains the mail: QSBMF of qmail, and old versions of Exim.
fn bounce_without_parts(message: &Message<'_>) -> Option<DeliveryReport> {
    let text = message.body_text(0)?;
    let (said, copy) = COPY_MARKS.iter().find_map(|mark| text.split_once(mark))?;
    let is_qmail = said.trim_start().starts_with("Hi. This is the ");
    let is_exim = said.contains("This message was created automatically by mail delivery software.");
    let kind = match (is_qmail, is_exim) {
        // The status of each failed recipient is at the end of its paragraph, in brackets.
        (true, _) if said.contains("(#5.") => ReportKind::Bounced,
        (_, true) if said.contains("This is a permanent error.") => ReportKind::Bounced,
        (true, _) | (_, true) => ReportKind::Temporary,
        _ => return None,
    };
    let mut report = DeliveryReport { kind, message_ids: Vec::new(), recipients: Vec::new() };
    if kind == ReportKind::Bounced && is_qmail {
        // `<ana@example.org>:` begins a paragraph.
        let paragraphs = said.lines().filter_map(|line| line.trim().strip_prefix('<')?.strip_suffix(">:"));
        report.recipients.extend(paragraphs.map(str::to_owned));
    }
    if let Some(original) = MessageParser::new().parse(copy.trim_start().as_bytes()) {
        add_headers(&mut report, &original);
    }
    add_references(&mut report, message);
    Some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! read {
        ($name:literal) => {
            read_report(
                include_str!(concat!("../../tests/feedback/", $name, ".eml"))
                    .replace("MESSAGE-ID", "01.code@app.example")
                    .replace('\n', "\r\n")
                    .as_bytes(),
            )
        };
    }

    /// The report names the mail, and the recipients without repeats in their order.
    fn same(report: Option<DeliveryReport>, kind: ReportKind, recipients: &[&str], name: &str) {
        let DeliveryReport { kind: found, message_ids, recipients: mut named } =
            report.unwrap_or_else(|| panic!("{name}"));
        named.dedup();
        assert_eq!(
            (found, named),
            (kind, recipients.iter().map(|text| (*text).to_owned()).collect()),
            "{name}"
        );
        assert!(
            !message_ids.is_empty() && message_ids.iter().all(|id| id == "01.code@app.example"),
            "{name}: {message_ids:?}"
        );
    }

    #[test]
    fn permanent_failures_name_mail_and_recipient() {
        const ANA: &[&str] = &["ana@example.net"];
        let bounced = ReportKind::Bounced;
        same(read!("postfix"), bounced, ANA, "postfix");
        same(read!("exim"), bounced, ANA, "exim");
        same(read!("exim_4_84"), bounced, ANA, "exim 4.84");
        same(read!("exchange"), bounced, ANA, "exchange");
        same(read!("gmail"), bounced, ANA, "gmail");
        same(read!("qmail"), bounced, ANA, "qmail");
        let local = ["ana@example.net", "ana@local.example.net", "ana@example.net"];
        same(read!("headers_only"), bounced, &local, "headers only");
        let forwarded = "ana.forwarded@googlemail.example";
        same(read!("gmail_forwarded"), bounced, &[forwarded, "ana@example.net", forwarded], "forwarded");
    }

    #[test]
    fn complaints_name_mail_and_recipient() {
        same(read!("arf_abuse"), ReportKind::Complained, &["ana@example.net"], "abuse");
        let outlook = ["redacted@redacted.example", "ana@example.net"];
        same(read!("arf_outlook"), ReportKind::Complained, &outlook, "outlook");
        let redacted = ["redacted-6b1c", "redacted@redacted.example"];
        same(read!("arf_redacted"), ReportKind::Complained, &redacted, "redacted");
    }

    #[test]
    fn other_reports_are_temporary_and_other_messages_no_report() {
        let kind = |report: Option<DeliveryReport>| report.map(|report| report.kind);
        assert_eq!(kind(read!("postfix_delayed")), Some(ReportKind::Temporary));
        assert_eq!(kind(read!("postfix_expired")), Some(ReportKind::Temporary));
        assert_eq!(kind(read!("postfix_delivered")), Some(ReportKind::Temporary));
        assert_eq!(kind(read!("qmail_expired")), Some(ReportKind::Temporary));
        assert_eq!(read!("arf_not_spam"), None);
        assert_eq!(read!("arf_auth_failure"), None);
        assert_eq!(read!("out_of_office"), None);
    }

    #[test]
    fn any_bytes_are_read() {
        let postfix = include_str!("../../tests/feedback/postfix.eml");
        for length in 0..postfix.len() {
            let _ = read_report(&postfix.as_bytes()[..length]);
        }
        let nested = "Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\n".repeat(10_000);
        for raw in [&b""[..], b"\0\xff", b"Content-Type: message/delivery-status\r\n\r\n", nested.as_bytes()]
        {
            assert!(read_report(raw).is_none_or(|report| report.kind == ReportKind::Temporary));
        }
    }

    #[test]
    fn failed_recipient_needs_a_status_5() {
        let of = |status: &str| {
            let report = bounce(status);
            (report.kind, report.recipients)
        };
        let permanent =
            "Reporting-MTA: dns; x\n\nFinal-Recipient:\n rfc822; a@x\nACTION: Failed\nstatus: 5.1.1 (no)\n";
        assert_eq!(of(permanent), (ReportKind::Bounced, vec!["a@x".to_owned()]));
        for (from, to) in [
            ("5.1.1", "4.2.2"),
            ("5.1.1", "2.0.0"),
            ("5.1.1", "50.1"),
            ("Failed", "delayed"),
            ("Failed", "failedx"),
        ] {
            assert_eq!(of(&permanent.replace(from, to)), (ReportKind::Temporary, Vec::new()), "{to}");
        }
        let two = format!("{}\nFinal-Recipient: rfc822;b@x\nAction: delayed\nStatus: 4.4.1\n", permanent);
        assert_eq!(of(&two), (ReportKind::Bounced, vec!["a@x".to_owned()]), "only the failed one");
    }
}
