//! Use cases of dates.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    CalendarDay, CoupleDate, DateChange, DateError, DatePatch, DatePolicy, MAX_LISTED, NewDate, rules,
};
use crate::{
    AccountId, Change, CoupleId, DateId, Decision, Error, Failure, Invalid, Ports, RequestContext,
    TimeZoneName, Timestamp, UnitOfWork,
    limits::{LimitKey, rules::WRITE_PER_ACCOUNT},
    pairing::{self, Couple, Directory, Side},
    timeline::{NewEntry, system},
    unit_of_work::Completed,
};

/// Service for the dates of couples.
#[derive(Clone)]
pub struct Dates {
    ports: Ports,
    directory: Arc<dyn Directory>,
    policy: DatePolicy,
}

impl fmt::Debug for Dates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dates").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Date as a member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateView {
    /// The date.
    pub date: CoupleDate,
    /// First day that is not before the member's current day; none if there is none.
    pub next_on: Option<CalendarDay>,
}

/// Birthday of a member, from the member's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birthday {
    /// The member.
    pub member: AccountId,
    /// Day without the year: the partner does not learn the age from it.
    pub day: CalendarDay,
    /// First day that is not before the current day of the member who reads it.
    pub next_on: Option<CalendarDay>,
}

/// Dates of a person's couple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoupleDates {
    /// Dates of the couple, by the time of their creation.
    pub dates: Vec<DateView>,
    /// Birthdays of the members whose built-in account has one, by [`Side`].
    pub birthdays: Vec<Birthday>,
}

/// Recorded outcome of [`Dates::add`].
#[derive(Serialize, Deserialize)]
struct Added {
    couple: CoupleId,
    id: DateId,
}

type DateResult<T> = Result<T, Failure<DateError>>;

impl Dates {
    /// Creates the service.
    #[must_use]
    pub const fn new(ports: Ports, directory: Arc<dyn Directory>, policy: DatePolicy) -> Self {
        Self { ports, directory, policy }
    }

    /// Limits of dates.
    #[must_use]
    pub const fn policy(&self) -> &DatePolicy {
        &self.policy
    }

    /// Dates of a person's current couple, and the birthdays of its members.
    ///
    /// # Errors
    /// [`DateError::NotPaired`].
    pub async fn list(&self, person: AccountId) -> DateResult<CoupleDates> {
        let (couple, _) = self.require_couple(person, None).await?;
        let (zone, now) = (self.time_zone(person).await?, self.ports.now());
        let dates = self.ports.store.dates_of(couple.id).await?;
        let dates = dates.into_iter().map(|date| view(date, zone.as_ref(), now)).collect();
        let mut birthdays = Vec::new();
        for member in couple.members {
            let account = self.ports.store.account(member).await?;
            let account = account.filter(|account| account.deletion_due.is_none());
            let day = account.and_then(|account| account.birthday);
            if let Some(day) =
                day.as_deref().and_then(CalendarDay::from_stored).map(CalendarDay::without_year)
            {
                let next_on = rules::next_on(day, true, zone.as_ref(), now);
                birthdays.push(Birthday { member, day, next_on });
            }
        }
        Ok(CoupleDates { dates, birthdays })
    }

    /// Adds a date to the couple of a person, which is `couple` if one is given.
    ///
    /// # Errors
    /// [`DateError`].
    pub async fn add(
        &self,
        context: &RequestContext,
        person: AccountId,
        couple: Option<CoupleId>,
        new: &NewDate,
    ) -> DateResult<DateView> {
        let work = UnitOfWork::new(&self.ports);
        let (now, id, most) = (work.now(), self.ports.new_id::<DateId>(), self.policy.max_dates());
        let completed = work
            .run(
                context,
                async { self.ports.allow(&[(WRITE_PER_ACCOUNT, LimitKey::new("account", person))]).await },
                async |(), _previous: Option<(Couple, Side, usize)>| {
                    let (couple, side) = self.require_couple(person, couple).await?;
                    let count = self.ports.store.dates_of(couple.id).await?.len();
                    Ok((couple, side, count))
                },
                |(), (couple, side, count)| {
                    let date = rules::parse(new, couple.id, id, now).map_err(refused)?;
                    if *count >= most as usize {
                        return Err(Failure::Refused(DateError::TooManyDates(most)));
                    }
                    let added = CoupleDate { version: 1, ..date.clone() };
                    let put = DateChange::Put { date, most };
                    Ok(Decision::Commit {
                        changes: vec![put.into(), report(couple, *side, now)],
                        outcome: Added { couple: couple.id, id },
                        answer: added,
                    })
                },
            )
            .await?;
        let date = match completed {
            Completed::Committed(added, _) | Completed::Unchanged(added) => added,
            // The date as it is now: a member may have changed or removed it since.
            Completed::Replayed(Added { couple, id }) => {
                let found = self.ports.store.date(couple, id).await?;
                found.ok_or(Failure::Refused(DateError::NotFound))?
            }
        };
        Ok(self.view_of(person, date).await?)
    }

    /// Changes the given fields of a date. Returns the date.
    ///
    /// # Errors
    /// [`DateError`].
    pub async fn change(
        &self,
        person: AccountId,
        couple: Option<CoupleId>,
        id: DateId,
        patch: &DatePatch,
    ) -> DateResult<DateView> {
        self.ports.allow(&[(WRITE_PER_ACCOUNT, LimitKey::new("account", person))]).await?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let changed: DateResult<CoupleDate> = work
            .run_unkeyed(
                async |_previous| self.require_date(person, couple, id).await,
                |(couple, side, stored)| {
                    let date = rules::patched(stored, patch).map_err(Failure::Refused)?;
                    if date == *stored {
                        return Ok(Decision::Answer(date));
                    }
                    let changed = CoupleDate { version: date.version + 1, ..date.clone() };
                    // A lower limit than before does not prevent changes of dates that exist.
                    let put = DateChange::Put { date, most: MAX_LISTED };
                    Ok(Decision::commit(vec![put.into(), report(couple, *side, now)], changed))
                },
            )
            .await;
        Ok(self.view_of(person, changed?).await?)
    }

    /// Removes a date, if it has the given version or none is given.
    ///
    /// # Errors
    /// [`DateError`].
    pub async fn remove(
        &self,
        person: AccountId,
        couple: Option<CoupleId>,
        id: DateId,
        version: Option<i64>,
    ) -> DateResult<()> {
        self.ports.allow(&[(WRITE_PER_ACCOUNT, LimitKey::new("account", person))]).await?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run_unkeyed(
            async |_previous| self.require_date(person, couple, id).await,
            |(couple, side, stored)| {
                rules::require_version(stored, version).map_err(Failure::Refused)?;
                let remove = DateChange::Remove { couple: couple.id, id, version: stored.version };
                Ok(Decision::commit(vec![remove.into(), report(couple, *side, now)], ()))
            },
        )
        .await
    }

    async fn time_zone(&self, person: AccountId) -> Result<Option<TimeZoneName>, Error> {
        Ok(self.directory.contact(person).await?.and_then(|contact| contact.time_zone))
    }

    async fn view_of(&self, person: AccountId, date: CoupleDate) -> Result<DateView, Error> {
        Ok(view(date, self.time_zone(person).await?.as_ref(), self.ports.now()))
    }

    async fn require_couple(
        &self,
        person: AccountId,
        expected: Option<CoupleId>,
    ) -> DateResult<(Couple, Side)> {
        let couple = self.ports.store.couple_of(person).await?;
        let couple = couple.filter(|couple| expected.is_none_or(|expected| expected == couple.id));
        let not_paired = || Failure::Refused(DateError::NotPaired);
        let side = pairing::rules::require_member(couple.as_ref(), person).map_err(|_| not_paired())?.1;
        Ok((couple.ok_or_else(not_paired)?, side))
    }

    async fn require_date(
        &self,
        person: AccountId,
        couple: Option<CoupleId>,
        id: DateId,
    ) -> DateResult<(Couple, Side, CoupleDate)> {
        let (couple, side) = self.require_couple(person, couple).await?;
        let date = self.ports.store.date(couple.id, id).await?;
        Ok((couple, side, date.ok_or(Failure::Refused(DateError::NotFound))?))
    }
}

fn view(date: CoupleDate, zone: Option<&TimeZoneName>, now: Timestamp) -> DateView {
    DateView { next_on: rules::next_on(date.day, date.is_yearly, zone, now), date }
}

fn refused(error: Invalid) -> Failure<DateError> {
    Failure::Refused(error.into())
}

/// Entry that reports a change to both members.
fn report(couple: &Couple, by: Side, now: Timestamp) -> Change {
    pairing::rules::append(couple, NewEntry::system(system::DATES_CHANGED, Some(by), None, now))
}
