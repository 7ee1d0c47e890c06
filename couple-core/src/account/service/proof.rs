//! Proof of an address with the code or the link of a mail.

use super::{
    AccountResult, Accounts,
    admission::{Attempt, client_network},
    invalid,
};
use crate::{
    Change, EmailAddress, Failure, RequestContext, Secret, Timestamp,
    account::{
        Account, AccountChange, AccountError, Token, TokenKind,
        rules::{self, PresentedToken},
    },
    digest, typed_text,
};

/// Proof from a mail: its code or its link.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Address and 6-digit code.
    Code {
        /// Address to which the code was mailed.
        email: String,
        /// Six digits.
        code: Secret<String>,
    },
    /// The link token.
    Link(Secret<String>),
}

/// Proof of an address whose attempt was admitted.
#[derive(Clone)]
pub(super) enum AdmittedProof {
    Code { attempt: Attempt, email: EmailAddress, code: Secret<String> },
    Link(Secret<String>),
}

impl AdmittedProof {
    /// Change that makes a commit conflict when the daily limit of wrong codes is reached.
    pub(super) fn require_below(&self, now: Timestamp) -> Option<Change> {
        match self {
            Self::Code { attempt, .. } => Some(attempt.require_below(now)),
            Self::Link(_) => None,
        }
    }
}

impl Accounts {
    pub(super) async fn admit_proof(
        &self,
        context: &RequestContext,
        proof: &Proof,
    ) -> AccountResult<AdmittedProof> {
        match proof {
            Proof::Code { email, code } => {
                // A text that cannot be a code does not count as an attempt.
                let code = rules::typed_code(code).map_err(invalid)?;
                let email = EmailAddress::parse("email", email).map_err(invalid)?;
                let attempt = self.admit_code(context, email.key()).await?;
                Ok(AdmittedProof::Code { attempt, email, code })
            }
            Proof::Link(link) => self.admit_link_proof(context, link).await,
        }
    }

    pub(super) async fn admit_link_proof(
        &self,
        context: &RequestContext,
        link: &Secret<String>,
    ) -> AccountResult<AdmittedProof> {
        self.admit_link(context).await?;
        Ok(AdmittedProof::Link(link.clone()))
    }

    /// Finds the token of a proof.
    ///
    /// Counts a wrong code before refusing it, with the same reads and writes whether or not a code was
    /// mailed.
    pub(super) async fn prove(
        &self,
        context: &RequestContext,
        proof: &AdmittedProof,
        kind: TokenKind,
        refusal: AccountError,
    ) -> AccountResult<PresentedToken> {
        let now = self.ports.now();
        match proof {
            AdmittedProof::Link(link) => {
                // People paste the whole link, with blanks or brackets around it.
                let Some(link) = typed_text::link_token(link.expose(), kind.as_str()) else {
                    return Err(Failure::Refused(refusal));
                };
                let token = self.ports.store.token_by_link(&digest(&[link.as_bytes()])).await?;
                let token = rules::require_link(token, kind, now, &refusal).map_err(Failure::Refused)?;
                Ok(PresentedToken::link(token))
            }
            AdmittedProof::Code { attempt, email, code } => {
                self.require_guesses(attempt).await?;
                let (keys, network) = (&self.ports.keys, client_network(&self.ports.keys, context));
                let open = self.ports.store.open_tokens(kind, email.key(), now).await?;
                if let Some(presented) = rules::match_code(keys, &open, code, &network, &self.policy, now) {
                    return Ok(presented);
                }
                let tries = AccountChange::CountTries { kind, email: email.key().clone(), network, at: now };
                Err(self.wrong_guess(attempt, vec![tries.into()], refusal).await)
            }
        }
    }

    /// Account of a token, if the token's address is still the account's address.
    pub(super) async fn owner_of(&self, token: &Token) -> AccountResult<Option<Account>> {
        let Some(owner) = token.account else { return Ok(None) };
        let account = self.ports.store.account(owner).await?;
        Ok(account.filter(|account| account.email.key() == token.email.key()))
    }
}
