//! Built-in texts of mails, in English.

use std::time::Duration;

use couple_core::mail::{MailText, Message};

use super::defused;

/// Maximum characters of an inviter's name in an invitation.
const MAX_NAME_CHARS: usize = 40;
/// Maximum characters of an inviter's message in an invitation.
const MAX_MESSAGE_CHARS: usize = 160;

/// Text of a message in English; the text of a custom message is returned unchanged.
///
/// Names of users appear in the text only, never in the subject or another header.
pub(super) fn english(message: &Message, app: &str) -> MailText {
    let ignore = "If this was not you, ignore this mail: nothing happens without the code.";
    let (subject, text) = match message {
        Message::ConfirmSignUp { code, link, lifetimes } => (
            format!("Your code for {app}"),
            format!(
                "Hello,\n\nyour code is:\n\n    {}\n\nIt works for {}. Or open this link within {}:\n\n{}\n\n{ignore}\n",
                code.expose(),
                in_words(lifetimes.code),
                in_words(lifetimes.link),
                link.expose()
            ),
        ),
        Message::AlreadySignedUp => (
            format!("You already have an account at {app}"),
            format!(
                "Hello,\n\nsomeone, maybe you, tried to sign up at {app} with this address, which already has an account.\n\nSign in as always; if you forgot your password, ask for a new one there.\n"
            ),
        ),
        Message::SignInCode { code, link, lifetimes } => (
            format!("Your code for {app}"),
            format!(
                "Your code to sign in is:\n\n    {}\n\nIt works for {}. Or open this link within {}:\n\n{}\n\n{ignore}\n",
                code.expose(),
                in_words(lifetimes.code),
                in_words(lifetimes.link),
                link.expose()
            ),
        ),
        Message::SetPassword { link, lifetime } => (
            format!("Set a new password for {app}"),
            format!(
                "Open this link within {} to set a new password:\n\n{}\n\nIf you did not ask for it, ignore this mail: your password stays.\n",
                in_words(*lifetime),
                link.expose()
            ),
        ),
        Message::ConfirmEmail { code, link, lifetimes } => (
            format!("Confirm your new address for {app}"),
            format!(
                "Your code is:\n\n    {}\n\nIt works for {}. Or open this link within {}:\n\n{}\n\n{ignore}\n",
                code.expose(),
                in_words(lifetimes.code),
                in_words(lifetimes.link),
                link.expose()
            ),
        ),
        Message::EmailChangeAsked { link, lifetime } => (
            format!("Your address at {app} is to be changed"),
            format!(
                "Someone who is signed in to your account asked to use another address for it.\n\nIf this was you, there is nothing to do. If it was not, open this link within {} to keep this address:\n\n{}\n\nThen set a new password and sign out your other devices.\n",
                in_words(*lifetime),
                link.expose()
            ),
        ),
        Message::EmailChanged => (
            format!("Your address at {app} was changed"),
            "Your account now has another address, and this one is no longer used.\n\nIf this was not you, answer this mail immediately.\n".to_owned(),
        ),
        Message::PasswordChanged => (
            format!("Your password at {app} was changed"),
            "Your password was set, and every other device is signed out.\n\nIf this was not you, ask for a new password immediately.\n".to_owned(),
        ),
        Message::DeletionScheduled { due } => (
            format!("Your account at {app} will be deleted"),
            format!(
                "Your account and what you wrote will be deleted on {}.\n\nIf you change your mind, sign in before then.\n",
                due.to_rfc3339().get(..10).unwrap_or_default()
            ),
        ),
        Message::Invitation { from, message, code, link, expires_at } => {
            let from = defused(from.as_str(), MAX_NAME_CHARS);
            let said = message.as_ref().map_or_else(String::new, |message| {
                format!("\n    \"{}\"\n", defused(message.as_str(), MAX_MESSAGE_CHARS))
            });
            (
                format!("An invitation at {app}"),
                format!(
                    "{from} wants to pair with you at {app}.\n{said}\nTheir code is:\n\n    {}\n\nOr open this link:\n\n{}\n\nBoth work until {} UTC. If you do not know them, ignore this mail.\n",
                    code.expose(),
                    link.expose(),
                    expires_at.to_rfc3339().get(..16).unwrap_or_default().replace('T', " ")
                ),
            )
        }
        Message::Custom { text, .. } => return text.clone(),
        _ => (format!("News from {app}"), "Open the app.\n".to_owned()),
    };
    MailText { subject, text, html: None }
}

/// A lifetime in words: `10 minutes`, `1 hour`, `24 hours`, `2 days`. Rounded down to the unit.
fn in_words(lifetime: Duration) -> String {
    let seconds = lifetime.as_secs();
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "day"),
        3_600.. => (seconds / 3_600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetime_is_rounded_down_to_its_unit() {
        assert_eq!(in_words(Duration::from_secs(90)), "1 minute");
        assert_eq!(in_words(Duration::from_secs(5)), "5 seconds");
    }
}
