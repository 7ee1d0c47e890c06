//! Writes every built-in mail in every language as a file: `cargo run --example mails -- FOLDER [SENDER]`
//!
//! The sender is a mailbox: `"Our App <app@example.org>"`. A mail program opens the files; the developer's mailbox of the server example
//! shows them if the folder is its mail folder.

use std::{error::Error, time::Duration};

use couple::{
    Secret, Timestamp,
    core::{
        DisplayName, EmailAddress, Label, Locale,
        mail::{Lifetimes, Mail, Mailer as _, Message},
    },
    notify::mail::{FileMailer, Letterhead},
};

const LOCALES: [&str; 8] = ["en", "ar", "de", "es", "fr", "ja", "ko", "pt-BR"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: cargo run --example mails -- FOLDER [SENDER]")?;
    let sender = arguments.next().unwrap_or_else(|| "Our App <app@example.org>".to_owned());
    let mailer = FileMailer::new(folder, Letterhead::new("Our App", &sender)?)?;
    for locale in LOCALES {
        for (name, message) in messages()? {
            let mail = Mail {
                id: format!("{locale}.{name}"),
                to: EmailAddress::parse("to", "ana@example.org")?,
                locale: Locale::matched(locale),
                at: now(),
                message,
            };
            mailer.send(&mail).await?;
        }
    }
    Ok(())
}

/// 2026-12-04, 18:05 UTC.
const fn now() -> Timestamp {
    Timestamp::from_micros(1_796_407_500_000_000)
}

/// Every message with a name.
fn messages() -> Result<Vec<(&'static str, Message)>, Box<dyn Error>> {
    let code = |code: &str| Secret::new(code.to_owned());
    let link = |page: &str| {
        Secret::new(format!("https://app.example.org/open/{page}#{page}_4kq7w2m9x8c5v1b3n6z0a7s2d4f9g8h5"))
    };
    let link_without_fragment = |page: &str| {
        Secret::new(format!(
            "https://app.example.org/open/{page}/AZrN0pQjcRq0ZkR1hX7x0FQ8m1nVt3bq0Yd2kS9wE5uLg7oJz4cHeQ"
        ))
    };
    let lifetimes = Lifetimes { code: Duration::from_mins(10), link: Duration::from_hours(24) };
    let name = |name| DisplayName::parse("name", name);
    Ok(vec![
        ("confirm_sign_up", Message::ConfirmSignUp { code: code("482915"), link: link("verify"), lifetimes }),
        ("already_signed_up", Message::AlreadySignedUp),
        ("sign_in_code", Message::SignInCode { code: code("482915"), link: link("signin"), lifetimes }),
        ("set_password", Message::SetPassword { link: link("password"), lifetime: Duration::from_hours(1) }),
        ("confirm_email", Message::ConfirmEmail { code: code("482915"), link: link("email"), lifetimes }),
        (
            "email_change_asked",
            Message::EmailChangeAsked { link: link("cancel"), lifetime: Duration::from_hours(48) },
        ),
        ("email_changed", Message::EmailChanged),
        ("email_confirmed", Message::EmailConfirmed),
        ("password_changed", Message::PasswordChanged),
        (
            "new_device",
            Message::NewDevice { device: Some(Label::parse("device", "Our App/2.1 (Pixel 9)")?), at: now() },
        ),
        ("deletion_scheduled", Message::DeletionScheduled { due: now().plus(Duration::from_hours(24 * 14)) }),
        ("deleted", Message::Deleted),
        (
            "invitation",
            Message::Invitation {
                from: Some(name("Zoë Müller")?),
                message: Some(Label::parse("message", "Come and see our photos of the lake!")?),
                code: code("K7WQ2-M9XDR"),
                link: link("invite"),
                expires_at: now().plus(Duration::from_hours(24 * 7)),
            },
        ),
        (
            "invitation_to_a_stranger",
            Message::Invitation {
                from: None,
                message: None,
                code: code("K7WQ2-M9XDR"),
                link: link("invite"),
                expires_at: now().plus(Duration::from_hours(24 * 7)),
            },
        ),
        ("partner_left", Message::PartnerLeft),
        (
            "digest",
            Message::Digest {
                unread: 3,
                from: None,
                texts: Vec::new(),
                unsubscribe: link_without_fragment("unsubscribe"),
            },
        ),
        (
            "digest_with_previews",
            Message::Digest {
                unread: 2,
                from: Some(name("Zoë Müller")?),
                texts: vec![
                    Label::parse("text", "Look at this sunset!")?,
                    Label::parse("text", "When are you home tonight?")?,
                ],
                unsubscribe: link_without_fragment("unsubscribe"),
            },
        ),
        ("invite_accepted", Message::InviteAccepted { partner: name("Zoë Müller")? }),
    ])
}
