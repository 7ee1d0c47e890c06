//! Start of a session, and the response to a repeat of the request that started it.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{AccountResult, Accounts};
use crate::{
    AccountId, Completed, Digest, Error, Failure, RequestContext, Secret, SessionId, Timestamp,
    account::{Account, AccountError, Session},
    digest,
};

/// Result of a sign-in: account, session and bearer token, which is returned only once.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The account.
    pub account: Account,
    /// The session.
    pub session: Session,
    /// Bearer token that authenticates the device's requests.
    pub token: Secret<String>,
}

/// Recorded outcome of a request that started a session. The seed is useless without the key ring.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SessionOutcome {
    session: SessionId,
    account: AccountId,
    seed: String,
}

/// New session that is not yet committed.
pub(super) struct NewSession {
    pub(super) session: Session,
    pub(super) token: Secret<String>,
    pub(super) outcome: SessionOutcome,
}

impl Accounts {
    pub(super) fn new_session(
        &self,
        account: AccountId,
        context: &RequestContext,
        now: Timestamp,
    ) -> NewSession {
        let mut seed = [0; 32];
        self.ports.entropy.fill(&mut seed);
        let token = self.bearer(&seed);
        let session = Session {
            id: self.ports.new_id(),
            account,
            token: digest(&[token.expose().as_bytes()]),
            device: context.device.clone(),
            created_at: now,
            authenticated_at: now,
            seen_at: now,
            expires_at: now.plus(self.policy.session_lifetime),
            widget_token: None,
        };
        let outcome = SessionOutcome { session: session.id, account, seed: HEXLOWER.encode(&seed) };
        NewSession { session, token, outcome }
    }

    fn bearer(&self, seed: &[u8]) -> Secret<String> {
        self.ports.keys.bearer("session", &[seed])
    }

    /// Answer of a request that started a session, or of its repeat if the session still exists.
    pub(super) async fn signed_in(
        &self,
        completed: Completed<SessionOutcome, SignedIn>,
    ) -> AccountResult<SignedIn> {
        let outcome = match completed {
            Completed::Committed(signed_in, _) | Completed::Unchanged(signed_in) => return Ok(signed_in),
            Completed::Replayed(outcome) => outcome,
        };
        let seed = HEXLOWER
            .decode(outcome.seed.as_bytes())
            .map_err(|_| Error::corrupt("outcome", "outcome", outcome.session))?;
        let token = self.bearer(&seed);
        let stored: Digest = digest(&[token.expose().as_bytes()]);
        match self.ports.store.session_by_token(&stored).await? {
            Some((session, account)) => Ok(SignedIn { account, session, token }),
            None => Err(Failure::Refused(AccountError::InvalidCredentials)),
        }
    }
}
