//! Built-in texts of mails, as plain text and as HTML.

use askama::Template as _;
use couple_core::mail::{Mail, MailText, Message};

use super::{catalogue::Catalogue, defused};

/// Maximum characters of a user's name in a mail.
const MAX_NAME_CHARS: usize = 40;
/// Maximum characters of a device's name in a mail: a whole `User-Agent`.
const MAX_DEVICE_CHARS: usize = 120;
/// Maximum characters of an inviter's message in an invitation.
const MAX_MESSAGE_CHARS: usize = 160;

/// Content of a mail in one language, before it becomes text or HTML.
struct Content {
    subject: String,
    blocks: Vec<Block>,
}

/// Part of a mail.
enum Block {
    /// Paragraph.
    Text(String),
    /// Message of a user.
    Quote(String),
    /// Code that the recipient types or copies.
    Code(String),
    /// Link: a button with its URL below it.
    Link { label: String, url: String },
    /// Reason why the recipient gets the mail, and a link that stops such mails.
    Stop { reason: String, label: String, url: String },
}

/// HTML of a mail.
#[derive(askama::Template)]
#[template(path = "mail.html", whitespace = "suppress")]
struct HtmlMail<'a> {
    language: &'a str,
    direction: &'a str,
    /// Side at which lines start: `left` or `right`.
    start: &'a str,
    app: &'a str,
    subject: &'a str,
    blocks: &'a [Block],
}

/// Text of a mail from the app named `app`, and the tag of its language.
///
/// The text of a custom message is returned unchanged, without a language.
pub(super) fn built_in(mail: &Mail, app: &str) -> (MailText, Option<&'static str>) {
    if let Message::Custom { text, .. } = &mail.message {
        return (text.clone(), None);
    }
    let catalogue = Catalogue::nearest(mail.locale.as_ref());
    let content = content(&mail.message, catalogue, app);
    let (direction, start) = if catalogue.is_right_to_left() { ("rtl", "right") } else { ("ltr", "left") };
    let page = HtmlMail {
        language: catalogue.language,
        direction,
        start,
        app,
        subject: &content.subject,
        blocks: &content.blocks,
    };
    // Rendering into a string does not fail; without HTML the mail is still complete.
    let html = page.render().ok();
    let text = plain_text(&content.blocks);
    (MailText { subject: content.subject, text, html }, Some(catalogue.language))
}

/// Plain text with a code alone on an indented line and a link alone on a line.
fn plain_text(blocks: &[Block]) -> String {
    let blocks = blocks.iter().map(|block| match block {
        Block::Text(text) => format!("{text}\n"),
        Block::Quote(text) => format!("    \"{text}\"\n"),
        Block::Code(code) => format!("    {code}\n"),
        Block::Link { url, .. } => format!("{url}\n"),
        Block::Stop { reason, label, url } => format!("{reason}\n{label}\n{url}\n"),
    });
    blocks.collect::<Vec<_>>().join("\n")
}

/// Content of a message.
///
/// Text of users appears in blocks only, never in the subject or another header.
fn content(message: &Message, words: &Catalogue, app: &str) -> Content {
    use Block::{Code, Link, Quote, Stop, Text};
    let (subject, blocks) = match message {
        Message::ConfirmSignUp { code, link, lifetimes }
        | Message::SignInCode { code, link, lifetimes }
        | Message::ConfirmEmail { code, link, lifetimes } => {
            let (subject, intro, label) = match message {
                Message::ConfirmSignUp { .. } => {
                    (words.code_subject(app), words.sign_up_intro(), words.confirm_button())
                }
                Message::SignInCode { .. } => {
                    (words.code_subject(app), words.sign_in_intro(), words.sign_in_button())
                }
                _ => (words.email_subject(app), words.email_intro(), words.confirm_button()),
            };
            let (code_time, link_time) = (words.duration(lifetimes.code), words.duration(lifetimes.link));
            let blocks = vec![
                Text(intro),
                Code(code.expose().clone()),
                Text(words.or_open_link()),
                Link { label, url: link.expose().clone() },
                Text(words.code_and_link_lifetime(&code_time, &link_time)),
                Text(words.code_advice()),
            ];
            (subject, blocks)
        }
        Message::AlreadySignedUp => {
            (words.already_subject(app), vec![Text(words.already_text(app)), Text(words.already_advice())])
        }
        Message::SetPassword { link, lifetime } => {
            let blocks = vec![
                Text(words.password_intro()),
                Link { label: words.password_button(), url: link.expose().clone() },
                Text(words.link_lifetime(&words.duration(*lifetime))),
                Text(words.password_advice()),
            ];
            (words.password_subject(app), blocks)
        }
        Message::EmailChangeAsked { link, lifetime } => {
            let blocks = vec![
                Text(words.email_asked_text()),
                Text(words.email_asked_intro()),
                Link { label: words.email_asked_button(), url: link.expose().clone() },
                Text(words.link_lifetime(&words.duration(*lifetime))),
                Text(words.email_asked_advice()),
            ];
            (words.email_asked_subject(app), blocks)
        }
        Message::EmailChanged => {
            let blocks = vec![Text(words.email_changed_text()), Text(words.email_changed_advice())];
            (words.email_changed_subject(app), blocks)
        }
        Message::EmailConfirmed => {
            (words.email_changed_subject(app), vec![Text(words.email_confirmed_text(app))])
        }
        Message::PasswordChanged => {
            let blocks = vec![Text(words.password_changed_text()), Text(words.password_changed_advice())];
            (words.password_changed_subject(app), blocks)
        }
        Message::NewDevice { device, at } => {
            let time = words.moment(*at);
            let text = match device {
                Some(device) => {
                    let device = words.isolated(&defused(device.as_str(), MAX_DEVICE_CHARS));
                    words.device_text(&device, &time)
                }
                None => words.device_unnamed_text(&time),
            };
            (words.device_subject(app), vec![Text(text), Text(words.device_advice())])
        }
        Message::DeletionScheduled { due } => {
            let blocks = vec![Text(words.deletion_text(&words.date_of(*due))), Text(words.deletion_advice())];
            (words.deletion_subject(app), blocks)
        }
        Message::Deleted => (words.deleted_subject(app), vec![Text(words.deleted_text(app))]),
        Message::Invitation { from, message, code, link, expires_at } => {
            let text = match from {
                Some(from) => {
                    let name = words.isolated(&defused(from.as_str(), MAX_NAME_CHARS));
                    words.invitation_text(app, &name)
                }
                None => words.invitation_unnamed_text(app),
            };
            let mut blocks = vec![Text(text)];
            blocks.extend(
                message
                    .as_ref()
                    .map(|said| Quote(words.isolated(&defused(said.as_str(), MAX_MESSAGE_CHARS)))),
            );
            blocks.extend([
                Text(words.invitation_intro()),
                Code(code.expose().clone()),
                Text(words.or_open_link()),
                Link { label: words.invitation_button(), url: link.expose().clone() },
                Text(words.invitation_expiry(&words.moment(*expires_at))),
                Text(words.invitation_advice()),
            ]);
            (words.invitation_subject(app), blocks)
        }
        Message::InviteAccepted { partner } => {
            let name = words.isolated(&defused(partner.as_str(), MAX_NAME_CHARS));
            let blocks = vec![Text(words.accepted_text(app, &name)), Text(words.accepted_advice())];
            (words.accepted_subject(app), blocks)
        }
        Message::PartnerLeft => {
            (words.left_subject(app), vec![Text(words.left_text(app)), Text(words.left_advice())])
        }
        Message::Digest { unread, from, texts, unsubscribe } => {
            let count = u64::from(*unread);
            let text = match from {
                Some(from) => {
                    let name = words.isolated(&defused(from.as_str(), MAX_NAME_CHARS));
                    words.digest_from_text(app, count, &name)
                }
                None => words.digest_text(app, count),
            };
            let mut blocks = vec![Text(text)];
            let texts = texts.iter().map(|text| defused(text.as_str(), MAX_MESSAGE_CHARS));
            blocks.extend(texts.map(|text| Quote(words.isolated(&text))));
            blocks.extend([
                Text(words.digest_advice()),
                Stop {
                    reason: words.digest_reason(),
                    label: words.digest_stop(),
                    url: unsubscribe.expose().clone(),
                },
            ]);
            (words.digest_subject(app), blocks)
        }
        _ => (words.news_subject(app), vec![Text(words.news_text())]),
    };
    Content { subject, blocks }
}
