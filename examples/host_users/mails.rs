//! Mails in the host's words.

use std::sync::Arc;

use async_trait::async_trait;
use couple::{
    AccountId, Backend, Timestamp,
    core::mail::{Mail, MailText, Mailer, Message},
    job::{Context, Handler, Job, JobError},
    notify::mail::defused,
};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Text of the back end's mails in German; the only one to users of this host is the invitation.
///
/// Lifetimes are those of the policy: they come with the message.
pub(crate) fn german(mail: &Mail, app: &str) -> Option<MailText> {
    let Message::Invitation { from, code, link, expires_at, .. } = &mail.message else { return None };
    // The back end does not name the inviter to an address that belongs to no user.
    let from = from.as_ref().map_or("Jemand".to_owned(), |from| defused(from.as_str(), 40));
    let until = in_zone(*expires_at, "Europe/Berlin");
    Some(MailText {
        subject: format!("Eine Einladung bei {app}"),
        text: format!(
            "{from} möchte Geschenke mit dir teilen.\n\nCode: {}\nLink: {}\n\nBeide gelten bis {until} Uhr.\n",
            code.expose(),
            link.expose()
        ),
        html: None,
    })
}

/// A time in a time zone, as it is written in German; in UTC if the zone is unknown.
fn in_zone(at: Timestamp, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let at = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
    at.to_zoned(zone).strftime("%d.%m.%Y, %H:%M").to_string()
}

/// Job that mails the receiver of a gift. Its name is never reused for another payload.
#[derive(Serialize, Deserialize)]
pub(crate) struct GiftMail {
    pub(crate) giver: AccountId,
    pub(crate) gift: String,
}

impl Job for GiftMail {
    const NAME: &'static str = "presents.gift_mail";
    const QUEUE: &'static str = "mail";
}

/// Handler that sends a mail of the host's own.
pub(crate) struct MailGift {
    backend: Backend,
    mailer: Arc<dyn Mailer>,
}

impl MailGift {
    pub(crate) fn new(backend: &Backend, mailer: Arc<dyn Mailer>) -> Self {
        Self { backend: backend.clone(), mailer }
    }
}

#[async_trait]
impl Handler<GiftMail> for MailGift {
    async fn run(&self, job: GiftMail, context: &Context) -> Result<(), JobError> {
        let (store, directory) = (&self.backend.ports().store, self.backend.directory());
        // The couple may have ended, and users may have been deleted, since the job was enqueued.
        let Some(couple) = store.couple_of(job.giver).await? else { return Ok(()) };
        let Some(side) = couple.side_of(job.giver) else { return Ok(()) };
        let Some(entry) = store.entry_by_client_id(couple.id, side, &job.gift).await? else { return Ok(()) };
        let Some(giver) = directory.profile(job.giver).await? else { return Ok(()) };
        let Some(receiver) = directory.contact(couple.member(side.other())).await? else { return Ok(()) };
        let zone = receiver.time_zone.as_ref().map_or("Europe/Berlin", |zone| zone.as_str());
        let text = MailText {
            subject: "Ein Geschenk für dich".to_owned(),
            text: format!(
                "{} hat am {} an dich gedacht.\n",
                giver.display_name,
                in_zone(entry.created_at, zone)
            ),
            html: None,
        };
        let mail = Mail {
            // The same for all attempts: a mail that is sent twice has the same `Message-ID`.
            id: context.id.to_string(),
            to: receiver.email,
            locale: receiver.locale,
            at: context.enqueued_at,
            message: Message::Custom { name: "gift".to_owned(), text },
        };
        Ok(self.mailer.send(&mail).await?)
    }
}
