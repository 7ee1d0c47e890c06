//! Two users become a couple and exchange entries, in memory, without HTTP.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use couple::{
    Backend, RequestContext,
    account::{Proof, SignUp, SignedIn, Verification},
    core::mail::Message,
    notify::mail::MemoryMailer,
    pairing::{InviteOutcome, InviteRef, NewInvite, Person},
    timeline::{Append, Page},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mailer = MemoryMailer::new();
    let backend = Backend::builder().mailer(mailer.clone()).build()?;
    let ana = join(&backend, &mailer, "ana@example.org", "Ana").await?;
    let ben = join(&backend, &mailer, "ben@example.org", "Ben").await?;

    let call = RequestContext::default();
    let InviteOutcome::Pending(sent) =
        backend.pairings().invite(&call, &person(&ana), &NewInvite::default()).await?
    else {
        return Err("no invite to Ana was found".into());
    };
    backend.pairings().accept(&call, &person(&ben), &InviteRef::Code(sent.code)).await?;

    let body = serde_json::json!({ "text": "hello" });
    let hello = Append { couple: None, client_id: "1".into(), kind: "text".into(), body };
    backend.timeline().append(&call, ana.account.id, &hello).await?;
    for view in backend.timeline().page(ben.account.id, Page::After(0), 50, Some("text")).await? {
        println!("Ben reads: {}", view.entry.body.map_or_else(String::new, |body| body.as_str().to_owned()));
    }
    Ok(())
}

async fn join(
    backend: &Backend,
    mailer: &MemoryMailer,
    email: &str,
    name: &str,
) -> Result<SignedIn, Box<dyn std::error::Error>> {
    let sign_up = SignUp { email: email.into(), display_name: name.into(), locale: None };
    backend.accounts()?.sign_up(&RequestContext::default(), &sign_up).await?;
    backend.worker().run_until_idle().await?;
    let Some(Message::ConfirmSignUp { code, .. }) = mailer.last_to(email).map(|mail| mail.message) else {
        return Err("no mail came".into());
    };
    let proof = Proof::Code { email: email.into(), code };
    let command = Verification { proof, password: None, display_name: None, locale: None };
    Ok(backend.accounts()?.verify(&RequestContext::default(), &command).await?)
}

fn person(signed: &SignedIn) -> Person {
    Person { id: signed.account.id, email: Some(signed.account.email.clone()) }
}
