//! Requests that mail a code or a link to an address.

use super::{AccountResult, Accounts, invalid};
use crate::{
    Decision, DisplayName, EmailAddress, Locale, RequestContext, UnitOfWork,
    account::{MailJob, MailLimits},
};

/// Request to sign up.
#[derive(Debug, Clone)]
pub struct SignUp {
    /// Address to which code and link are mailed.
    pub email: String,
    /// Display name.
    pub display_name: String,
    /// Language of the account's mails, parsed by [`Locale::matched`].
    pub locale: Option<String>,
}

impl Accounts {
    /// Signs up: mails a code and a link to an address.
    ///
    /// The response and its time are the same whether or not the address has an account: the request only
    /// enqueues a job, and the job looks the address up.
    ///
    /// # Errors
    /// [`AccountError::Invalid`](crate::account::AccountError::Invalid),
    /// [`AccountError::RateLimited`](crate::account::AccountError::RateLimited),
    /// [`AccountError::KeyReused`](crate::account::AccountError::KeyReused).
    pub async fn sign_up(&self, context: &RequestContext, command: &SignUp) -> AccountResult<()> {
        let email = EmailAddress::parse("email", &command.email).map_err(invalid)?;
        let display_name = DisplayName::parse("display_name", &command.display_name).map_err(invalid)?;
        let locale = command.locale.as_deref().and_then(Locale::matched);
        let (token, network) = (self.new_token_id(), self.network(context));
        let job = MailJob::SignUp { token, email: email.clone(), display_name, locale, network };
        self.enqueue_mail(context, &self.policy.limits.sign_up_mail, &email, job).await
    }

    /// Mails another code and link for an open sign-up. Sends nothing to an address without one.
    ///
    /// # Errors
    /// The same as for [`sign_up`](Self::sign_up).
    pub async fn resend(&self, context: &RequestContext, email: &str) -> AccountResult<()> {
        let email = EmailAddress::parse("email", email).map_err(invalid)?;
        let (token, network) = (self.new_token_id(), self.network(context));
        let job = MailJob::Resend { token, email: email.clone(), network };
        self.enqueue_mail(context, &self.policy.limits.sign_up_mail, &email, job).await
    }

    /// Mails a code and a link for signing in.
    ///
    /// # Errors
    /// The same as for [`sign_up`](Self::sign_up).
    pub async fn request_code(&self, context: &RequestContext, email: &str) -> AccountResult<()> {
        let email = EmailAddress::parse("email", email).map_err(invalid)?;
        let (token, network) = (self.new_token_id(), self.network(context));
        let job = MailJob::SignIn { token, email: email.clone(), network };
        self.enqueue_mail(context, &self.policy.limits.sign_in_mail, &email, job).await
    }

    /// Mails a link for setting a new password.
    ///
    /// # Errors
    /// The same as for [`sign_up`](Self::sign_up).
    pub async fn forgot_password(&self, context: &RequestContext, email: &str) -> AccountResult<()> {
        let email = EmailAddress::parse("email", email).map_err(invalid)?;
        let job = MailJob::Password { token: self.new_token_id(), email: email.clone() };
        self.enqueue_mail(context, &self.policy.limits.password_mail, &email, job).await
    }

    async fn enqueue_mail(
        &self,
        context: &RequestContext,
        limits: &MailLimits,
        email: &EmailAddress,
        mail: MailJob,
    ) -> AccountResult<()> {
        let admit = async {
            let within_limit = self.admit_mail(context, limits, email.key()).await?;
            Ok(self.ports.enqueue(&self.limit_mail(context, email, within_limit, mail))?)
        };
        UnitOfWork::new(&self.ports)
            .run(
                context,
                admit,
                async |_, _previous| Ok(()),
                |enqueue, ()| Ok(Decision::commit(vec![enqueue.clone()], ())),
            )
            .await
            .map(drop)
    }
}
