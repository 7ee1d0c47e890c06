//! Invites, couples and blocks in SQL.

use async_trait::async_trait;
use couple_core::{
    AccountId, ChangeResult, Conflict, CoupleId, Digest, EmailAddress, EmailKey, Error, InviteId, Label,
    Timestamp,
    pairing::{Block, Couple, Invite, InviteState, PairingChange, PairingReads, Side},
};
use uuid::Uuid;

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection,
    apply_error::{Applied, ApplyError, require_one_row},
    date,
    dialect::ReadColumn,
    timeline,
};

macro_rules! invite {
    () => {
        "id, inviter, inviter_email, target_key, target, message, code, link, created_at, expires_at, state, \
         accepted_by, couple_id"
    };
}
macro_rules! couple {
    () => {
        "id, first, second, since, epoch, ended_at, title, anniversary, previous, restore_first, restore_second, \
         head_seq, read_first, read_second"
    };
}
macro_rules! block {
    () => {
        "blocker, blocker_email, blocked, at"
    };
}

const OPEN: i64 = 0;
const ACCEPTED: i64 = 1;
const DECLINED: i64 = 2;
const WITHDRAWN: i64 = 3;

statements! {
    INVITE = "SELECT ", invite!(), " FROM couple_invite WHERE id = $1";
    INVITE_BY_CODE = "SELECT ", invite!(), " FROM couple_invite WHERE code = $1";
    INVITE_BY_LINK = "SELECT ", invite!(), " FROM couple_invite WHERE link = $1";
    INVITE_BETWEEN = "SELECT ", invite!(), " FROM couple_invite WHERE pair_key = $1";
    INVITES_OF = "SELECT ", invite!(), " FROM couple_invite WHERE inviter = $1 AND state = 0 ORDER BY created_at DESC, id DESC LIMIT 200";
    INVITES_TO = "SELECT ", invite!(), " FROM couple_invite WHERE target_key = $1 AND state = 0 \
     ORDER BY created_at DESC, id DESC LIMIT 200";
    OPEN_NOW = "SELECT id FROM couple_invite WHERE inviter = $1 AND state = 0 AND expires_at > $2 LIMIT $3";
    STANDING = "SELECT email_key, deletion_due FROM couple_account WHERE id = $1 \
     UNION ALL SELECT NULL, due_at FROM couple_erasure WHERE account_id = $2";
    INSERT_INVITE = "INSERT INTO couple_invite (pair_key, ", invite!(), ") \
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 FROM (SELECT 1 AS one) AS one \
     WHERE NOT EXISTS (SELECT 1 FROM couple_invite WHERE pair_key = $15) AND NOT EXISTS (SELECT 1 FROM couple_invite WHERE id = $16) \
     AND NOT EXISTS (SELECT 1 FROM couple_invite WHERE code = $17) AND NOT EXISTS (SELECT 1 FROM couple_invite WHERE link = $18)";
    CROSSED = "SELECT 1 FROM couple_invite WHERE pair_key = $1";
    CLOSE_INVITE = "UPDATE couple_invite SET state = $1, accepted_by = $2, couple_id = $3, pair_key = NULL WHERE id = $4 AND state = 0";
    WITHDRAW = "UPDATE couple_invite SET state = 3, pair_key = NULL WHERE inviter = $1 AND state = 0";
    FORGET_INVITES = "DELETE FROM couple_invite WHERE id IN (SELECT id FROM couple_invite WHERE inviter = $1 LIMIT $2)"
        => mysql: "DELETE FROM couple_invite WHERE inviter = $1 LIMIT $2";
    PURGE_INVITES = "DELETE FROM couple_invite WHERE id IN (SELECT id FROM couple_invite WHERE expires_at < $1 ORDER BY expires_at, id LIMIT $2)"
        => mysql: "DELETE FROM couple_invite WHERE expires_at < $1 ORDER BY expires_at, id LIMIT $2";
    COUPLE = "SELECT ", couple!(), " FROM couple_couple WHERE id = $1";
    COUPLE_OF = "SELECT ", couple!(), " FROM couple_couple WHERE id = (SELECT couple_id FROM couple_member WHERE account_id = $1)";
    COUPLES_OF = "SELECT ", couple!(), " FROM couple_couple WHERE id IN (SELECT couple_id FROM couple_membership WHERE account_id = $1) \
     ORDER BY since DESC, id DESC LIMIT 200";
    COUPLES_PAGE = "SELECT ", couple!(), " FROM couple_membership JOIN couple_couple ON id = couple_id WHERE account_id = $1 AND couple_id > $2 \
     ORDER BY couple_id LIMIT $3";
    ENROL = "INSERT INTO couple_member (account_id, couple_id) VALUES ($1, NULL) ON CONFLICT DO NOTHING"
        => mysql: "INSERT INTO couple_member (account_id, couple_id) VALUES ($1, NULL) ON DUPLICATE KEY UPDATE account_id = account_id";
    MEMBER = "SELECT couple_id FROM couple_member WHERE account_id = $1 FOR UPDATE"
        => sqlite: "SELECT couple_id FROM couple_member WHERE account_id = $1";
    JOIN = "UPDATE couple_member SET couple_id = $1 WHERE account_id = $2";
    MEMBERS = "SELECT first, second FROM couple_couple WHERE id = $1";
    LEAVE = "UPDATE couple_member SET couple_id = NULL WHERE account_id IN ($1, $2)";
    RESIGN = "DELETE FROM couple_member WHERE account_id = $1 AND couple_id IS NULL";
    INSERT_MEMBERSHIP = "INSERT INTO couple_membership (account_id, couple_id) VALUES ($1, $2)";
    INSERT_COUPLE = "INSERT INTO couple_couple (", couple!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    DESCRIBE = "UPDATE couple_couple SET title = CASE WHEN $1 = 1 THEN $2 ELSE title END, \
     anniversary = CASE WHEN $3 = 1 THEN $4 ELSE anniversary END WHERE id = $5 AND ended_at IS NULL";
    RESTORE_FIRST = "UPDATE couple_couple SET restore_first = $1 WHERE id = $2 AND restore_first = $3 AND restore_second = $4";
    RESTORE_SECOND = "UPDATE couple_couple SET restore_second = $1 WHERE id = $2 AND restore_first = $3 AND restore_second = $4";
    END = "UPDATE couple_couple SET ended_at = $1, epoch = epoch + 1 WHERE id = $2 AND ended_at IS NULL";
    ERASURE = "SELECT due_at FROM couple_erasure WHERE account_id = $1";
    ERASURES_DUE = "SELECT due_at, account_id FROM couple_erasure WHERE due_at <= $1 AND due_at >= $2 \
     AND (due_at > $3 OR account_id > $4) ORDER BY due_at, account_id LIMIT $5";
    INSERT_ERASURE = "INSERT INTO couple_erasure (account_id, due_at) VALUES ($1, $2)";
    DELETE_ERASURE = "DELETE FROM couple_erasure WHERE account_id = $1";
    REPLACE_FIRST = "UPDATE couple_couple SET first = $1 WHERE id = $2 AND ended_at IS NOT NULL";
    REPLACE_SECOND = "UPDATE couple_couple SET second = $1 WHERE id = $2 AND ended_at IS NOT NULL";
    DELETE_MEMBERSHIP = "DELETE FROM couple_membership WHERE account_id = $1 AND couple_id = $2";
    BLOCKS_OF = "SELECT ", block!(), " FROM couple_block WHERE blocker = $1 ORDER BY at DESC, blocked DESC LIMIT 200";
    IS_BLOCKED = "SELECT 1 FROM couple_block WHERE blocker = $1 AND blocked = $2";
    IS_BLOCKED_BY_EMAIL = "SELECT 1 FROM couple_block WHERE blocker_email = $1 AND blocked = $2 LIMIT 1";
    INSERT_BLOCK = "INSERT INTO couple_block (", block!(), ") VALUES ($1, $2, $3, $4)";
    UNBLOCK = "DELETE FROM couple_block WHERE blocker = $1 AND blocked = $2";
    FORGET_BLOCKS_BY = "DELETE FROM couple_block WHERE (blocker, blocked) IN \
     (SELECT blocker, blocked FROM couple_block WHERE blocker = $1 LIMIT $2)"
        => mysql: "DELETE FROM couple_block WHERE blocker = $1 LIMIT $2";
    FORGET_BLOCKS_OF = "DELETE FROM couple_block WHERE (blocker, blocked) IN \
     (SELECT blocker, blocked FROM couple_block WHERE blocked = $1 LIMIT $2)"
        => mysql: "DELETE FROM couple_block WHERE blocked = $1 LIMIT $2";
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &PairingChange,
) -> Result<ChangeResult, ApplyError> {
    match change {
        PairingChange::InsertInvite { invite, limit } => {
            insert_invite::<D>(connection, invite, *limit).await?;
        }
        PairingChange::CloseInvite { id, to } => {
            let (state, by, couple) = stored_state(*to);
            let statement =
                Statement::<D>::new(CLOSE_INVITE).bind(state).bind(by).bind(couple).bind(id.as_uuid());
            require_one_row(statement.execute(connection).await?, Conflict::InviteClosed(*id))?;
        }
        PairingChange::WithdrawInvitesOf { inviter } => {
            // The lock makes commits that add an invite of this account or pair it wait until this
            // transaction ends.
            is_member::<D>(connection, *inviter).await?;
            Statement::<D>::new(WITHDRAW).bind(inviter.as_uuid()).execute(connection).await?;
        }
        PairingChange::Pair(couple) => pair::<D>(connection, couple).await?,
        PairingChange::ExpectUnpaired { account } => {
            if is_member::<D>(connection, *account).await? {
                return Err(Conflict::Paired(*account).into());
            }
        }
        PairingChange::Describe { id, title, anniversary } => {
            let statement = Statement::<D>::new(DESCRIBE)
                .bind(i64::from(title.is_some()))
                .bind(title.as_ref().and_then(Option::as_ref).map(Label::as_str))
                .bind(i64::from(anniversary.is_some()))
                .bind(anniversary.as_ref().and_then(Option::as_deref))
                .bind(id.as_uuid());
            require_one_row(statement.execute(connection).await?, Conflict::CoupleEnded(*id))?;
        }
        PairingChange::Restore { id, side, wanted, read } => {
            timeline::require_active::<D>(connection, *id).await?;
            let sql = match side {
                Side::First => RESTORE_FIRST,
                Side::Second => RESTORE_SECOND,
            };
            let statement = Statement::<D>::new(sql)
                .bind(i64::from(*wanted))
                .bind(id.as_uuid())
                .bind(i64::from(read[0]))
                .bind(i64::from(read[1]));
            require_one_row(statement.execute(connection).await?, Conflict::CoupleChanged(*id))?;
        }
        PairingChange::End { id, at, .. } => {
            let ended = Statement::<D>::new(END).time(*at).bind(id.as_uuid()).execute(connection).await?;
            require_one_row(ended, Conflict::CoupleEnded(*id))?;
            if let Some([first, second]) = members::<D>(connection, *id).await? {
                Statement::<D>::new(LEAVE).bind(first).bind(second).execute(connection).await?;
            }
        }
        PairingChange::Block(block) => {
            unblock::<D>(connection, block.blocker, block.blocked).await?;
            Statement::<D>::new(INSERT_BLOCK)
                .bind(block.blocker.as_uuid())
                .bind(block.blocker_email.as_str())
                .bind(block.blocked.as_uuid())
                .time(block.at)
                .execute(connection)
                .await?;
        }
        PairingChange::Unblock { blocker, blocked } => unblock::<D>(connection, *blocker, *blocked).await?,
        PairingChange::Forget { account, cap } => {
            let mut forgotten = 0;
            for sql in [FORGET_INVITES, FORGET_BLOCKS_BY, FORGET_BLOCKS_OF] {
                let statement = Statement::<D>::new(sql).bind(account.as_uuid()).bind(i64::from(*cap));
                forgotten += statement.execute(connection).await?;
            }
            Statement::<D>::new(RESIGN).bind(account.as_uuid()).execute(connection).await?;
            return Ok(ChangeResult::RowsAffected(forgotten));
        }
        PairingChange::SetErasure { person, due, before } => {
            set_erasure::<D>(connection, *person, *before, *due).await?;
        }
        PairingChange::FinishErasure { person, due } => {
            set_erasure::<D>(connection, *person, Some(*due), None).await?;
        }
        PairingChange::Anonymize { couple, side, with } => {
            let members = members::<D>(connection, *couple).await?;
            let sql = match side {
                Side::First => REPLACE_FIRST,
                Side::Second => REPLACE_SECOND,
            };
            let statement = Statement::<D>::new(sql).bind(with.as_uuid()).bind(couple.as_uuid());
            require_one_row(statement.execute(connection).await?, Conflict::CoupleLives(*couple))?;
            if let Some(members) = members {
                let statement = Statement::<D>::new(DELETE_MEMBERSHIP).bind(members[side.index()]);
                statement.bind(couple.as_uuid()).execute(connection).await?;
            }
            date::remove_of::<D>(connection, *couple).await?;
        }
        PairingChange::PurgeInvites { before, cap } => {
            let statement = Statement::<D>::new(PURGE_INVITES).time(*before).bind(i64::from(*cap));
            return Ok(ChangeResult::RowsAffected(statement.execute(connection).await?));
        }
    }
    Ok(ChangeResult::Applied)
}

/// Whether an account is in a couple. No other transaction can change that until this one ends.
///
/// Inserts a row for every account that invites or pairs, because only an existing row can be locked.
pub(super) async fn is_member<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    account: AccountId,
) -> sqlx::Result<bool> {
    Statement::<D>::new(ENROL).bind(account.as_uuid()).execute(connection).await?;
    let rows = Statement::<D>::new(MEMBER).bind(account.as_uuid()).rows(connection).await?;
    match rows.first() {
        Some(row) => Ok(<D as ReadColumn<Option<Uuid>>>::read(row, 0)?.is_some()),
        None => Ok(false),
    }
}

/// Ids of both members of a couple, by [`Side`]; none if the couple does not exist.
async fn members<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    couple: CoupleId,
) -> sqlx::Result<Option<[Uuid; 2]>> {
    let rows = Statement::<D>::new(MEMBERS).bind(couple.as_uuid()).rows(connection).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some([<D as ReadColumn<Uuid>>::read(row, 0)?, <D as ReadColumn<Uuid>>::read(row, 1)?]))
}

/// Address key of an account in the store, if there is one, and whether the person is to be erased.
///
/// Read under the lock of the person's `member` row, which a request of deletion or erasure and a change of
/// address take as well.
async fn standing<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    person: AccountId,
) -> sqlx::Result<(Option<String>, bool)> {
    let statement = Statement::<D>::new(STANDING).bind(person.as_uuid()).bind(person.as_uuid());
    let (mut email, mut is_to_be_erased) = (None, false);
    for row in &statement.rows(connection).await? {
        email = email.or(<D as ReadColumn<Option<String>>>::read(row, 0)?);
        is_to_be_erased |= <D as ReadColumn<Option<i64>>>::read(row, 1)?.is_some();
    }
    Ok((email, is_to_be_erased))
}

/// Sets the time of a person's erasure, if it is `before`.
async fn set_erasure<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    person: AccountId,
    before: Option<Timestamp>,
    due: Option<Timestamp>,
) -> Applied {
    // The lock makes commits that add an invite of this person or pair it wait until this transaction ends.
    is_member::<D>(connection, person).await?;
    let rows = Statement::<D>::new(ERASURE).bind(person.as_uuid()).rows(connection).await?;
    let stored = rows.first().map(|row| <D as ReadColumn<i64>>::read(row, 0)).transpose()?;
    if stored != before.map(Timestamp::micros) {
        return Err(Conflict::AccountChanged(person).into());
    }
    if due == before {
        return Ok(());
    }
    Statement::<D>::new(DELETE_ERASURE).bind(person.as_uuid()).execute(connection).await?;
    if let Some(due) = due {
        let insert = Statement::<D>::new(INSERT_ERASURE).bind(person.as_uuid()).time(due);
        insert.execute(connection).await?;
    }
    Ok(())
}

async fn insert_invite<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    invite: &Invite,
    limit: u32,
) -> Applied {
    if is_member::<D>(connection, invite.inviter).await? {
        return Err(Conflict::Paired(invite.inviter).into());
    }
    let (email, is_to_be_erased) = standing::<D>(connection, invite.inviter).await?;
    if is_to_be_erased || email.is_some_and(|email| email != invite.inviter_email.as_str()) {
        return Err(Conflict::AccountChanged(invite.inviter).into());
    }
    let open = Statement::<D>::new(OPEN_NOW)
        .bind(invite.inviter.as_uuid())
        .time(invite.created_at)
        .bind(i64::from(limit))
        .rows(connection)
        .await?;
    if open.len() >= limit as usize {
        return Err(Conflict::TooManyInvites(invite.inviter).into());
    }
    let pair = invite.pair_key();
    let pair = pair.as_ref().map(|pair| pair.as_bytes().as_slice());
    let (state, by, couple) = stored_state(invite.state);
    let statement = Statement::<D>::new(INSERT_INVITE)
        .bind(pair)
        .bind(invite.id.as_uuid())
        .bind(invite.inviter.as_uuid())
        .bind(invite.inviter_email.as_str())
        .bind(invite.target.as_ref().map(|target| target.key().as_str()))
        .bind(invite.target.as_ref().map(EmailAddress::as_str))
        .bind(invite.message.as_ref().map(Label::as_str))
        .digest(&invite.code)
        .digest(&invite.link)
        .time(invite.created_at)
        .time(invite.expires_at)
        .bind(state)
        .bind(by)
        .bind(couple)
        .bind(pair)
        .bind(invite.id.as_uuid())
        .digest(&invite.code)
        .digest(&invite.link);
    if statement.execute(connection).await? == 1 {
        return Ok(());
    }
    let crossed = Statement::<D>::new(CROSSED).bind(pair).rows(connection).await?;
    let conflict =
        if crossed.is_empty() { Conflict::InviteExists(invite.id) } else { Conflict::InviteCrossed };
    Err(conflict.into())
}

async fn pair<D: Dialect>(connection: &mut TableConnection<'_, D>, couple: &Couple) -> Applied {
    // Lock in the order of ids, so that two transactions with the same members wait and do not deadlock.
    let mut members = couple.members;
    members.sort_unstable();
    let mut paired = Vec::new();
    for member in members {
        if is_member::<D>(connection, member).await? {
            paired.push(member);
        }
    }
    if let Some(first) = couple.members.into_iter().find(|member| paired.contains(member)) {
        return Err(Conflict::Paired(first).into());
    }
    for member in couple.members {
        if standing::<D>(connection, member).await?.1 {
            return Err(Conflict::AccountChanged(member).into());
        }
    }
    for member in couple.members {
        let (member, id) = (member.as_uuid(), couple.id.as_uuid());
        Statement::<D>::new(JOIN).bind(id).bind(member).execute(connection).await?;
        Statement::<D>::new(INSERT_MEMBERSHIP).bind(member).bind(id).execute(connection).await?;
    }
    Statement::<D>::new(INSERT_COUPLE)
        .bind(couple.id.as_uuid())
        .bind(couple.members[0].as_uuid())
        .bind(couple.members[1].as_uuid())
        .time(couple.since)
        .bind(couple.epoch)
        .opt_time(couple.ended_at)
        .bind(couple.title.as_ref().map(Label::as_str))
        .bind(couple.anniversary.as_deref())
        .bind(couple.previous.map(CoupleId::as_uuid))
        .bind(i64::from(couple.restore[0]))
        .bind(i64::from(couple.restore[1]))
        .bind(couple.head_seq)
        .bind(couple.read[0])
        .bind(couple.read[1])
        .execute(connection)
        .await?;
    Ok(())
}

async fn unblock<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    blocker: AccountId,
    blocked: AccountId,
) -> Applied {
    Statement::<D>::new(UNBLOCK).bind(blocker.as_uuid()).bind(blocked.as_uuid()).execute(connection).await?;
    Ok(())
}

fn stored_state(state: InviteState) -> (i64, Option<Uuid>, Option<Uuid>) {
    match state {
        InviteState::Open => (OPEN, None, None),
        InviteState::Accepted { by, couple } => (ACCEPTED, Some(by.as_uuid()), Some(couple.as_uuid())),
        InviteState::Declined => (DECLINED, None, None),
        InviteState::Withdrawn => (WITHDRAWN, None, None),
    }
}

fn decode_invite<D: Dialect>(row: &mut Row<'_, D>) -> Result<Invite, Error> {
    let id = InviteId::from_uuid(row.take()?);
    let inviter = AccountId::from_uuid(row.take()?);
    let inviter_email = EmailKey::from_stored(row.take::<String>()?);
    let target_key: Option<String> = row.take()?;
    let target: Option<String> = row.take()?;
    let target = target_key.zip(target);
    let message = row.take::<Option<String>>()?.map(Label::from_stored);
    let (code, link) = (row.digest("invite", "code")?, row.digest("invite", "link")?);
    let (created_at, expires_at) = (row.time()?, row.time()?);
    let state: i64 = row.take()?;
    let accepted = (row.take::<Option<Uuid>>()?, row.take::<Option<Uuid>>()?);
    Ok(Invite {
        id,
        inviter,
        inviter_email,
        target: target.map(|(key, address)| EmailAddress::from_stored(address, EmailKey::from_stored(key))),
        message,
        code,
        link,
        created_at,
        expires_at,
        state: match (state, accepted) {
            (OPEN, _) => InviteState::Open,
            (ACCEPTED, (Some(by), Some(couple))) => {
                InviteState::Accepted { by: AccountId::from_uuid(by), couple: CoupleId::from_uuid(couple) }
            }
            (DECLINED, _) => InviteState::Declined,
            (WITHDRAWN, _) => InviteState::Withdrawn,
            _ => return Err(Error::corrupt("invite", "state", id)),
        },
    })
}

pub(super) fn decode_couple<D: Dialect>(row: &mut Row<'_, D>) -> Result<Couple, Error> {
    let id = row.take()?;
    rest_of_couple(id, row)
}

/// Decodes the couple of a row whose last columns are null if there is none.
pub(super) fn decode_optional_couple<D: Dialect>(row: &mut Row<'_, D>) -> Result<Option<Couple>, Error> {
    row.take::<Option<Uuid>>()?.map(|id| rest_of_couple(id, row)).transpose()
}

fn rest_of_couple<D: Dialect>(id: Uuid, row: &mut Row<'_, D>) -> Result<Couple, Error> {
    Ok(Couple {
        id: CoupleId::from_uuid(id),
        members: [AccountId::from_uuid(row.take()?), AccountId::from_uuid(row.take()?)],
        since: row.time()?,
        epoch: row.take()?,
        ended_at: row.opt_time()?,
        title: row.take::<Option<String>>()?.map(Label::from_stored),
        anniversary: row.take()?,
        previous: row.take::<Option<Uuid>>()?.map(CoupleId::from_uuid),
        restore: [row.take::<i64>()? != 0, row.take::<i64>()? != 0],
        head_seq: row.take()?,
        read: [row.take()?, row.take()?],
    })
}

fn decode_block<D: Dialect>(row: &mut Row<'_, D>) -> Result<Block, Error> {
    Ok(Block {
        blocker: AccountId::from_uuid(row.take()?),
        blocker_email: EmailKey::from_stored(row.take::<String>()?),
        blocked: AccountId::from_uuid(row.take()?),
        at: row.time()?,
    })
}

#[async_trait]
impl<D: Dialect> PairingReads for SqlStore<D> {
    async fn couple(&self, id: CoupleId) -> Result<Option<Couple>, Error> {
        self.read_one(Statement::new(COUPLE).bind(id.as_uuid()), decode_couple).await
    }
    async fn couple_of(&self, account: AccountId) -> Result<Option<Couple>, Error> {
        self.read_one(Statement::new(COUPLE_OF).bind(account.as_uuid()), decode_couple).await
    }
    async fn couples_of(&self, account: AccountId) -> Result<Vec<Couple>, Error> {
        self.read(Statement::new(COUPLES_OF).bind(account.as_uuid()), decode_couple).await
    }
    async fn couples_page(
        &self,
        account: AccountId,
        after: Option<CoupleId>,
        limit: u32,
    ) -> Result<Vec<Couple>, Error> {
        let after = after.map_or(Uuid::nil(), CoupleId::as_uuid);
        let statement = Statement::new(COUPLES_PAGE).bind(account.as_uuid()).bind(after);
        self.read(statement.bind(i64::from(limit)), decode_couple).await
    }
    async fn invite(&self, id: InviteId) -> Result<Option<Invite>, Error> {
        self.read_one(Statement::new(INVITE).bind(id.as_uuid()), decode_invite).await
    }
    async fn invite_by_code(&self, code: &Digest) -> Result<Option<Invite>, Error> {
        self.read_one(Statement::new(INVITE_BY_CODE).digest(code), decode_invite).await
    }
    async fn invite_by_link(&self, link: &Digest) -> Result<Option<Invite>, Error> {
        self.read_one(Statement::new(INVITE_BY_LINK).digest(link), decode_invite).await
    }
    async fn invite_between(&self, pair_key: &Digest) -> Result<Option<Invite>, Error> {
        self.read_one(Statement::new(INVITE_BETWEEN).digest(pair_key), decode_invite).await
    }
    async fn invites_of(&self, inviter: AccountId) -> Result<Vec<Invite>, Error> {
        self.read(Statement::new(INVITES_OF).bind(inviter.as_uuid()), decode_invite).await
    }
    async fn invites_to(&self, target: &EmailKey) -> Result<Vec<Invite>, Error> {
        self.read(Statement::new(INVITES_TO).bind(target.as_str()), decode_invite).await
    }
    async fn blocks_of(&self, blocker: AccountId) -> Result<Vec<Block>, Error> {
        self.read(Statement::new(BLOCKS_OF).bind(blocker.as_uuid()), decode_block).await
    }
    async fn is_blocked(&self, blocker: AccountId, blocked: AccountId) -> Result<bool, Error> {
        let statement = Statement::new(IS_BLOCKED).bind(blocker.as_uuid()).bind(blocked.as_uuid());
        Ok(self.read_one(statement, |_| Ok(())).await?.is_some())
    }
    async fn is_blocked_by_email(&self, blocker: &EmailKey, blocked: AccountId) -> Result<bool, Error> {
        let statement = Statement::new(IS_BLOCKED_BY_EMAIL).bind(blocker.as_str()).bind(blocked.as_uuid());
        Ok(self.read_one(statement, |_| Ok(())).await?.is_some())
    }
    async fn erasure_of(&self, person: AccountId) -> Result<Option<Timestamp>, Error> {
        self.read_one(Statement::new(ERASURE).bind(person.as_uuid()), |row| Row::time(row)).await
    }
    async fn erasures_due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<(Timestamp, AccountId)>, Error> {
        let (due, id) =
            after.map_or((Timestamp::from_micros(i64::MIN), Uuid::nil()), |(due, id)| (due, id.as_uuid()));
        let statement = Statement::new(ERASURES_DUE).time(now).time(due).time(due).bind(id);
        let read = |row: &mut Row<'_, D>| Ok((row.time()?, AccountId::from_uuid(row.take()?)));
        self.read(statement.bind(i64::from(limit)), read).await
    }
}
