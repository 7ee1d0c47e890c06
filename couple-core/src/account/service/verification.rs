//! Confirmation of a sign-up.

use super::{AccountResult, Accounts, Proof, SignedIn, invalid, local_part, proof::AdmittedProof};
use crate::{
    Decision, DisplayName, Failure, Locale, RequestContext, Secret, UnitOfWork,
    account::{
        Account, AccountError, Password, PasswordHash, TokenKind,
        rules::{self, PresentedToken, VerifiedFields},
    },
};

/// Request to confirm a sign-up.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Code or link of the mail.
    pub proof: Proof,
    /// Password to set, if any.
    pub password: Option<Secret<String>>,
    /// Display name, if given. Overrides the name of the sign-up, which a stranger may have sent.
    pub display_name: Option<String>,
    /// Locale, if given. Overrides the locale of the sign-up.
    pub locale: Option<String>,
}

struct VerifyFacts {
    presented: PresentedToken,
    /// Account that was created before with the other form (code or link) of the same mail.
    created: Option<Account>,
    /// Account of the address.
    existing: Option<Account>,
    /// Hash of the given password, once it was computed.
    hash: Option<PasswordHash>,
}

impl VerifyFacts {
    /// Whether the request sets the password: only of a new account, or of one without a password.
    fn sets_password(&self) -> bool {
        match (&self.created, &self.existing) {
            (Some(created), _) => created.password.is_none(),
            (None, existing) => existing.is_none(),
        }
    }
}

impl Accounts {
    /// Confirms a sign-up: creates the account, sets a password if one is given, and starts a session.
    ///
    /// The other form of the same mail also signs in until the code expires; it sets the password only if
    /// there is none.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::UsedToken`], [`AccountError::Invalid`] for the password,
    /// the name or the locale, [`AccountError::RateLimited`].
    pub async fn verify(&self, context: &RequestContext, command: &Verification) -> AccountResult<SignedIn> {
        let fields = VerifiedFields {
            display_name: match &command.display_name {
                Some(name) => Some(DisplayName::parse("display_name", name).map_err(invalid)?),
                None => None,
            },
            locale: command.locale.as_deref().and_then(Locale::matched),
        };
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let completed = work
            .run(
                context,
                self.admit_proof(context, &command.proof),
                async |proof, previous| self.verify_facts(context, command, &fields, &proof, previous).await,
                |proof, facts| {
                    let chosen = facts.hash.clone().filter(|_| facts.sets_password());
                    let id = facts.created.as_ref().map(|account| account.id);
                    let id = id.unwrap_or_else(|| self.ports.new_id());
                    let new = self.new_session(id, context, now);
                    let (account, mut changes) = match &facts.created {
                        Some(account) => {
                            rules::sign_in(account, chosen, Some(&facts.presented), new.session.clone(), now)
                                .map_err(|_| AccountError::InvalidToken)
                        }
                        None => rules::confirm_sign_up(
                            &facts.presented,
                            facts.existing.as_ref(),
                            fields.clone(),
                            chosen,
                            new.session.clone(),
                            now,
                        ),
                    }
                    .map_err(Failure::Refused)?;
                    changes.extend(proof.require_below(now));
                    changes.extend(self.address_is_proven(context, facts.presented.token.email.key(), now));
                    let answer = SignedIn { account, session: new.session, token: new.token };
                    Ok(Decision::Commit { changes, outcome: new.outcome, answer })
                },
            )
            .await?;
        self.signed_in(completed).await
    }

    async fn verify_facts(
        &self,
        context: &RequestContext,
        command: &Verification,
        fields: &VerifiedFields,
        proof: &AdmittedProof,
        previous: Option<VerifyFacts>,
    ) -> AccountResult<VerifyFacts> {
        let presented = self.prove(context, proof, TokenKind::SignUp, AccountError::InvalidToken).await?;
        let created = if presented.is_second() { self.owner_of(&presented.token).await? } else { None };
        let existing = match &created {
            Some(account) => Some(account.clone()),
            None => self.ports.store.account_by_email(presented.token.email.key()).await?,
        };
        let hash = previous.and_then(|previous| previous.hash);
        let mut facts = VerifyFacts { presented, created, existing, hash };
        if let (Some(typed), None, true) = (&command.password, &facts.hash, facts.sets_password()) {
            let token = &facts.presented.token;
            let name = fields.display_name.as_ref().or(token.display_name.as_ref());
            let known_words = [name.map_or("", DisplayName::as_str), local_part(&token.email)];
            let chosen = Password::choose("password", typed, &known_words).map_err(invalid)?;
            // Hash only after the proof: hashing is expensive, so strangers must not cause it.
            facts.hash = Some(self.hasher.hash(chosen).await?);
        }
        Ok(facts)
    }
}
