//! The couple of an account: read, describe, restore and leave.

use super::{PairingResult, Pairings, account_key, invalid};
use crate::{
    AccountId, CoupleId, Decision, Failure, Label, RequestContext, UnitOfWork,
    limits::rules::WRITE_PER_ACCOUNT,
    pairing::{Couple, PairingChange, PairingError, Person, Side, rules},
    text::parse_day,
    timeline::{NewEntry, system},
};

impl Pairings {
    /// Current couple of an account, and the account's side.
    ///
    /// # Errors
    /// [`PairingError::NotPaired`].
    pub async fn couple_of(&self, person: AccountId) -> PairingResult<(Couple, Side)> {
        let couple = self.ports.store.couple_of(person).await?;
        let side = rules::require_member(couple.as_ref(), person).map_err(Failure::Refused)?.1;
        Ok((couple.ok_or(Failure::Refused(PairingError::NotPaired))?, side))
    }

    /// Current couple of an account and the account's side, if the couple is the expected one or none is expected.
    async fn require_couple(
        &self,
        person: AccountId,
        expected: Option<CoupleId>,
    ) -> PairingResult<(Couple, Side)> {
        let (couple, side) = self.couple_of(person).await?;
        if expected.is_none_or(|expected| expected == couple.id) {
            Ok((couple, side))
        } else {
            Err(Failure::Refused(PairingError::NotPaired))
        }
    }

    /// Sets title and anniversary. `None` keeps a field, `Some(None)` clears it.
    ///
    /// With `couple`, only that couple is changed: a late request never reaches another couple.
    ///
    /// # Errors
    /// [`PairingError::NotPaired`], [`PairingError::Invalid`], [`PairingError::RateLimited`].
    pub async fn describe(
        &self,
        person: AccountId,
        couple: Option<CoupleId>,
        title: Option<Option<String>>,
        anniversary: Option<Option<String>>,
    ) -> PairingResult<Couple> {
        let title = title
            .map(|title| title.map(|title| Label::parse("title", &title)).transpose())
            .transpose()
            .map_err(invalid)?;
        let anniversary = anniversary
            .map(|day| day.map(|day| parse_day("anniversary", &day)).transpose())
            .transpose()
            .map_err(invalid)?;
        let is_same = |couple: &Couple| {
            title.as_ref().is_none_or(|title| *title == couple.title)
                && anniversary.as_ref().is_none_or(|day| *day == couple.anniversary)
        };
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let described: PairingResult<CoupleId> = work
            .run_unkeyed(
                async |previous: Option<(Couple, Side)>| {
                    let (couple, side) = self.require_couple(person, couple).await?;
                    // Only a change takes a token, and only once.
                    if previous.is_none() && !is_same(&couple) {
                        self.ports.allow(&[(WRITE_PER_ACCOUNT, account_key(person))]).await?;
                    }
                    Ok((couple, side))
                },
                |(couple, side)| {
                    if is_same(couple) {
                        return Ok(Decision::Answer(couple.id));
                    }
                    let describe = PairingChange::Describe {
                        id: couple.id,
                        title: title.clone(),
                        anniversary: anniversary.clone(),
                    };
                    let entry = NewEntry::system(system::COUPLE_CHANGED, Some(*side), None, now);
                    Ok(Decision::commit(vec![describe.into(), rules::append(couple, entry)], couple.id))
                },
            )
            .await;
        // Read again: the partner may have changed the other field concurrently.
        let couple = self.ports.store.couple(described?).await?;
        couple.ok_or(Failure::Refused(PairingError::NotPaired))
    }

    /// Sets whether a member wants to restore the previous couple's timeline.
    ///
    /// It is readable when both want it. With `couple`, only the wish in that couple is set.
    ///
    /// # Errors
    /// [`PairingError::NotPaired`], [`PairingError::NoPrevious`], [`PairingError::RateLimited`].
    pub async fn restore(
        &self,
        person: AccountId,
        couple: Option<CoupleId>,
        wanted: bool,
    ) -> PairingResult<Couple> {
        self.ports.allow(&[(WRITE_PER_ACCOUNT, account_key(person))]).await?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run_unkeyed(
            async |_previous| Ok(self.require_couple(person, couple).await?.0),
            |couple| {
                let (after, changes) =
                    rules::restore(Some(couple), person, wanted, now).map_err(Failure::Refused)?;
                if changes.is_empty() {
                    return Ok(Decision::Answer(after));
                }
                Ok(Decision::commit(changes, after))
            },
        )
        .await
    }

    /// Leaves the couple immediately, without the partner's consent.
    ///
    /// With `block`, the partner cannot invite the account again. `expected` names the couple to leave, so that
    /// a late repeat never ends another couple; if that couple has already ended, the request succeeds.
    ///
    /// # Errors
    /// [`PairingError::NotPaired`], also when the account was never in `expected`; [`PairingError::KeyReused`].
    pub async fn leave(
        &self,
        context: &RequestContext,
        person: &Person,
        expected: Option<CoupleId>,
        block: bool,
    ) -> PairingResult<()> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let ended = |couple: &Option<Couple>| {
            expected.filter(|id| couple.as_ref().is_none_or(|couple| couple.id != *id))
        };
        work.run(
            context,
            async { Ok(()) },
            async |(), _previous| {
                let couple = self.ports.store.couple_of(person.id).await?;
                let other = match ended(&couple) {
                    Some(id) => self.ports.store.couple(id).await?,
                    None => None,
                };
                Ok((couple, other))
            },
            |(), (couple, other)| {
                let changes = match ended(couple) {
                    Some(_) => rules::already_ended(other.as_ref(), person, block, now),
                    None => rules::leave(couple.as_ref(), person, block, now),
                };
                Ok(Decision::commit(changes.map_err(Failure::Refused)?, ()))
            },
        )
        .await
        .map(drop)
    }
}
