//! Decisions of pairing: the transitions of the state machine, as pure functions.
//!
//! Each function takes the state that was read and returns the changes of one transition. The preconditions of
//! those changes resolve races: a caller whose commit conflicts reads the new state and decides again.

use super::{Block, Couple, Invite, InviteState, PairingChange, PairingError, PairingPolicy, Person, Side};
use crate::{
    AccountId, Change, CoupleId, Digest, InviteId, Keyring, Secret, Timestamp, digest,
    timeline::{NewEntry, TimelineChange, system},
    typed_text,
};

/// Number of letters in a short code: 50 bits.
const CODE_LETTERS: usize = 10;
/// Kind of a link token, which is also its prefix.
const LINK_PURPOSE: &str = "invite";

/// Short code of an invite, as displayed: `XXXXX-XXXXX`.
#[must_use]
pub fn code_of(keys: &Keyring, invite: InviteId) -> Secret<String> {
    let letters = keys.letters("invite-code", &[invite.as_uuid().as_bytes()], CODE_LETTERS);
    let (left, right) = letters.expose().split_at(CODE_LETTERS / 2);
    Secret::new(format!("{left}-{right}"))
}

/// Link token of an invite: 192 bits.
#[must_use]
pub fn link_of(keys: &Keyring, invite: InviteId) -> Secret<String> {
    keys.bearer(LINK_PURPOSE, &[invite.as_uuid().as_bytes()])
}

/// Normalises the typed code of an invite; none if the text is not a code.
///
/// Ignores case, spaces and dashes; accepts look-alikes and full-width forms.
#[must_use]
pub fn typed_code(text: &str) -> Option<String> {
    typed_text::letters(text, CODE_LETTERS)
}

/// Finds the link token in a text that is a token or a link; none if there is no token.
#[must_use]
pub fn typed_link(text: &str) -> Option<&str> {
    typed_text::link_token(text, LINK_PURPOSE)
}

/// Digest under which a code is stored. Keyed, because 50 bits could be found by brute force.
#[must_use]
pub fn code_digest(keys: &Keyring, typed: &str) -> Digest {
    keys.derive("invite-code-digest", &[typed_code(typed).unwrap_or_default().as_bytes()])
}

/// Digest under which a link token is stored.
#[must_use]
pub fn link_digest(token: &str) -> Digest {
    digest(&[token.as_bytes()])
}

/// State that [`invite`] decides from.
pub struct InviteFacts<'a> {
    /// Current couple of the inviter.
    pub couple: Option<&'a Couple>,
    /// Open invites of the inviter, including expired ones.
    pub open: &'a [Invite],
    /// Open invite between the same two addresses, in either direction.
    pub between: Option<&'a Invite>,
    /// Whether the invite in `between` cannot be accepted: a block, or its sender may not pair.
    pub between_blocked: bool,
    /// Invite to create.
    pub invite: &'a Invite,
}

/// Decision of [`invite`].
#[derive(Debug)]
pub enum InviteDecision {
    /// A new invite is created by these changes.
    Waiting(Vec<Change>),
    /// The target has already invited the inviter: accept that invite.
    Crossing(InviteId),
}

/// Creates an invite, or accepts the crossing invite of the invited user.
///
/// A new invite to an address replaces the earlier one to the same address.
///
/// # Errors
/// [`PairingError::AlreadyPaired`], [`PairingError::OwnInvite`] for the inviter's own address,
/// [`PairingError::TooManyInvites`].
pub fn invite(
    read: &InviteFacts<'_>,
    policy: &PairingPolicy,
    now: Timestamp,
) -> Result<InviteDecision, PairingError> {
    let invite = read.invite;
    if read.couple.is_some() {
        return Err(PairingError::AlreadyPaired);
    }
    if invite.target.as_ref().is_some_and(|target| *target.key() == invite.inviter_email) {
        return Err(PairingError::OwnInvite);
    }
    let mut changes = Vec::new();
    if let Some(between) = read.between {
        let theirs = between.inviter != invite.inviter;
        if theirs && between.is_open(now) && !read.between_blocked {
            return Ok(InviteDecision::Crossing(between.id));
        }
        // Lock the row of the member before the row of the invite: every commit uses this order.
        changes.push(PairingChange::ExpectUnpaired { account: invite.inviter }.into());
        // The inviter's earlier invite, or an invite that can no longer be answered: close it, because only one may
        // be open.
        changes.push(close(between, InviteState::Withdrawn));
    }
    let waiting = read
        .open
        .iter()
        .filter(|open| open.is_open(now) && read.between.is_none_or(|between| between.id != open.id));
    if waiting.count() >= policy.max_open_invites {
        return Err(PairingError::TooManyInvites);
    }
    let limit = u32::try_from(policy.max_open_invites).unwrap_or(u32::MAX);
    changes.push(PairingChange::InsertInvite { invite: invite.clone(), limit }.into());
    Ok(InviteDecision::Waiting(changes))
}

/// Checks that `person` may see and answer an invite.
///
/// # Errors
/// [`PairingError::Unverified`]; [`PairingError::OwnInvite`] for the sender; [`PairingError::InviteExpired`] for the owner
/// of the target address, who knows of the invite; [`PairingError::InviteNotFound`] for everyone else, whatever
/// the reason.
pub fn answerable<'a>(
    invite: Option<&'a Invite>,
    person: &Person,
    blocked: bool,
    now: Timestamp,
) -> Result<&'a Invite, PairingError> {
    let Some(email) = &person.email else { return Err(PairingError::Unverified) };
    let Some(invite) = invite else { return Err(PairingError::InviteNotFound) };
    if invite.inviter == person.id {
        return Err(PairingError::OwnInvite);
    }
    let addressed = invite.target.as_ref().is_some_and(|target| target.key() == email.key());
    if (invite.target.is_some() && !addressed) || blocked || invite.state != InviteState::Open {
        return Err(PairingError::InviteNotFound);
    }
    if !invite.is_open(now) {
        return Err(if addressed { PairingError::InviteExpired } else { PairingError::InviteNotFound });
    }
    Ok(invite)
}

/// State that [`accept`] decides from.
pub struct AcceptFacts<'a> {
    /// User who accepts.
    pub person: &'a Person,
    /// Current couple of the user.
    pub couple: Option<&'a Couple>,
    /// The invite, in any state.
    pub invite: Option<&'a Invite>,
    /// Whether the invite cannot be answered: a block, or its sender may not pair.
    pub blocked: bool,
    /// Latest earlier couple of the same two accounts.
    pub previous: Option<CoupleId>,
    /// Id for the new couple.
    pub id: CoupleId,
}

/// Decision of [`accept`].
#[derive(Debug)]
pub enum AcceptDecision {
    /// A new couple is created by these changes.
    Paired(Box<Couple>, Vec<Change>),
    /// The user accepted this invite before and is in its couple: a repeated request.
    AlreadyPaired(Box<Couple>),
}

/// Accepts an invite: pairs the inviter and the recipient.
///
/// One commit adds the couple, closes all other invites of both and appends the first entry.
///
/// # Errors
/// [`PairingError::AlreadyPaired`], and the errors of [`answerable`].
pub fn accept(read: &AcceptFacts<'_>, now: Timestamp) -> Result<AcceptDecision, PairingError> {
    if let (Some(couple), Some(invite)) = (read.couple, read.invite)
        && invite.state == (InviteState::Accepted { by: read.person.id, couple: couple.id })
    {
        return Ok(AcceptDecision::AlreadyPaired(Box::new(couple.clone())));
    }
    let invite = answerable(read.invite, read.person, read.blocked, now)?;
    if read.couple.is_some() {
        return Err(PairingError::AlreadyPaired);
    }
    let couple = Couple {
        id: read.id,
        members: [invite.inviter, read.person.id],
        since: now,
        epoch: 1,
        ended_at: None,
        title: None,
        anniversary: None,
        previous: read.previous,
        restore: [false, false],
        head_seq: 0,
        read: [0, 0],
    };
    // Lock the rows of members before the rows of invites: every commit uses this order.
    let changes = vec![
        PairingChange::Pair(couple.clone()).into(),
        close(invite, InviteState::Accepted { by: read.person.id, couple: couple.id }),
        PairingChange::WithdrawInvitesOf { inviter: invite.inviter }.into(),
        PairingChange::WithdrawInvitesOf { inviter: read.person.id }.into(),
        append(&couple, NewEntry::system(system::PAIRED, None, None, now)),
    ];
    Ok(AcceptDecision::Paired(Box::new(Couple { head_seq: 1, ..couple }), changes))
}

/// Closes an invite that its recipient declines.
///
/// # Errors
/// The errors of [`answerable`].
pub fn decline(
    invite: Option<&Invite>,
    person: &Person,
    blocked: bool,
    now: Timestamp,
) -> Result<Vec<Change>, PairingError> {
    Ok(vec![close(answerable(invite, person, blocked, now)?, InviteState::Declined)])
}

/// Closes an invite that its inviter withdraws.
///
/// # Errors
/// [`PairingError::InviteNotFound`] unless it is an open invite of this account.
pub fn withdraw(invite: Option<&Invite>, person: AccountId) -> Result<Vec<Change>, PairingError> {
    match invite {
        Some(invite) if invite.inviter == person && invite.state == InviteState::Open => {
            Ok(vec![close(invite, InviteState::Withdrawn)])
        }
        _ => Err(PairingError::InviteNotFound),
    }
}

/// Ends a couple; optionally also blocks the partner.
///
/// Takes effect immediately, without consent, and appends no entry that reveals it.
///
/// # Errors
/// [`PairingError::NotPaired`].
pub fn leave(
    couple: Option<&Couple>,
    person: &Person,
    block: bool,
    now: Timestamp,
) -> Result<Vec<Change>, PairingError> {
    let (couple, _) = require_member(couple, person.id)?;
    let end: Change =
        PairingChange::End { id: couple.id, members: couple.members, at: now, by: Some(person.id) }.into();
    Ok(std::iter::once(end).chain(block.then(|| block_partner(couple, person, now)).flatten()).collect())
}

/// Changes of a request to leave a couple that has already ended: none, or the block.
///
/// # Errors
/// [`PairingError::NotPaired`] for a couple that the account was never in or that has not ended.
pub fn already_ended(
    couple: Option<&Couple>,
    person: &Person,
    block: bool,
    now: Timestamp,
) -> Result<Vec<Change>, PairingError> {
    let own = couple.filter(|couple| couple.side_of(person.id).is_some() && couple.ended_at.is_some());
    let couple = own.ok_or(PairingError::NotPaired)?;
    Ok(block.then(|| block_partner(couple, person, now)).flatten().into_iter().collect())
}

/// Change that blocks the partner; none if the account has no address.
fn block_partner(couple: &Couple, person: &Person, now: Timestamp) -> Option<Change> {
    let blocked = couple.member(couple.side_of(person.id)?.other());
    let blocker_email = person.email.as_ref()?.key().clone();
    Some(PairingChange::Block(Block { blocker: person.id, blocker_email, blocked, at: now }).into())
}

/// Sets whether a member wants to restore the previous timeline.
///
/// It is restored when both members want it.
///
/// # Errors
/// [`PairingError::NotPaired`], [`PairingError::NoPrevious`].
pub fn restore(
    couple: Option<&Couple>,
    person: AccountId,
    wanted: bool,
    now: Timestamp,
) -> Result<(Couple, Vec<Change>), PairingError> {
    let (couple, side) = require_member(couple, person)?;
    if couple.previous.is_none() {
        return Err(PairingError::NoPrevious);
    }
    let mut after = couple.clone();
    if couple.restore[side.index()] == wanted {
        return Ok((after, Vec::new()));
    }
    after.restore[side.index()] = wanted;
    let mut changes =
        vec![PairingChange::Restore { id: couple.id, side, wanted, read: couple.restore }.into()];
    if after.restored() && !couple.restored() {
        changes.push(append(couple, NewEntry::system(system::RESTORED, None, None, now)));
        after.head_seq += 1;
    }
    Ok((after, changes))
}

/// The active couple of an account, and the account's side of it.
///
/// # Errors
/// [`PairingError::NotPaired`].
pub fn require_member(couple: Option<&Couple>, person: AccountId) -> Result<(&Couple, Side), PairingError> {
    let couple = couple.filter(|couple| couple.ended_at.is_none()).ok_or(PairingError::NotPaired)?;
    let side = couple.side_of(person).ok_or(PairingError::NotPaired)?;
    Ok((couple, side))
}

fn close(invite: &Invite, to: InviteState) -> Change {
    PairingChange::CloseInvite { id: invite.id, to }.into()
}

pub(crate) fn append(couple: &Couple, entry: NewEntry) -> Change {
    TimelineChange::Append { couple: couple.id, entry }.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{EmailAddress, ManualClock, SeededEntropy};

    struct World {
        keys: Keyring,
        clock: ManualClock,
        entropy: SeededEntropy,
    }

    impl World {
        fn new() -> Self {
            Self {
                keys: Keyring::new([5; 32]),
                clock: ManualClock::default(),
                entropy: SeededEntropy::new(1),
            }
        }
        fn person(&self, name: &str) -> Person {
            Person {
                id: AccountId::new(&self.clock, &self.entropy),
                email: EmailAddress::parse("email", &format!("{name}@example.org")).ok(),
            }
        }
        fn invite(&self, from: &Person, to: Option<&Person>) -> Invite {
            let id = InviteId::new(&self.clock, &self.entropy);
            Invite {
                id,
                inviter: from.id,
                inviter_email: from.email.as_ref().unwrap().key().clone(),
                target: to.and_then(|to| to.email.clone()),
                message: None,
                code: code_digest(&self.keys, code_of(&self.keys, id).expose()),
                link: link_digest(link_of(&self.keys, id).expose()),
                created_at: Timestamp::default(),
                expires_at: Timestamp::default().plus(Duration::from_hours(24)),
                state: InviteState::Open,
            }
        }
        fn couple(&self, first: &Person, second: &Person) -> Couple {
            match self.accept(second, &self.invite(first, None)) {
                Ok(AcceptDecision::Paired(couple, _)) => *couple,
                other => panic!("not paired: {other:?}"),
            }
        }
        fn accept(&self, person: &Person, invite: &Invite) -> Result<AcceptDecision, PairingError> {
            let id = CoupleId::new(&self.clock, &self.entropy);
            let read = AcceptFacts {
                person,
                couple: None,
                invite: Some(invite),
                blocked: false,
                previous: None,
                id,
            };
            accept(&read, Timestamp::default())
        }
    }

    #[test]
    fn typed_code_ignores_case_and_accepts_look_alikes() {
        let keys = Keyring::new([5; 32]);
        assert_eq!(code_digest(&keys, "a0b1c-d2e3f"), code_digest(&keys, "AOBLC D2E3F"));
        assert_eq!(typed_code("0"), None);
    }

    #[test]
    fn crossing_invite_is_accepted() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let (theirs, mine) = (world.invite(&ana, Some(&ben)), world.invite(&ben, Some(&ana)));
        assert_eq!(theirs.pair_key(), mine.pair_key());
        let read = InviteFacts {
            couple: None,
            open: &[],
            between: Some(&theirs),
            between_blocked: false,
            invite: &mine,
        };
        let now = Timestamp::default();
        assert!(
            matches!(invite(&read, &PairingPolicy::default(), now), Ok(InviteDecision::Crossing(id)) if id == theirs.id)
        );
        let blocked = InviteFacts { between_blocked: true, ..read };
        assert!(
            matches!(invite(&blocked, &PairingPolicy::default(), now), Ok(InviteDecision::Waiting(changes)) if changes.len() == 3)
        );
    }

    #[test]
    fn addressed_invite_is_accepted_by_its_addressee_only() {
        let world = World::new();
        let (ana, ben, cleo) = (world.person("ana"), world.person("ben"), world.person("cleo"));
        let sent = world.invite(&ana, Some(&ben));
        assert!(world.accept(&ben, &sent).is_ok());
        assert_eq!(world.accept(&cleo, &sent).unwrap_err(), PairingError::InviteNotFound);
        assert_eq!(world.accept(&ana, &sent).unwrap_err(), PairingError::OwnInvite);
        let unverified = Person { email: None, ..ben };
        assert_eq!(world.accept(&unverified, &sent).unwrap_err(), PairingError::Unverified);
    }

    #[test]
    fn state_of_a_closed_invite_is_hidden_from_strangers() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let open = world.invite(&ana, None);
        for state in [InviteState::Declined, InviteState::Withdrawn] {
            assert_eq!(
                world.accept(&ben, &Invite { state, ..open.clone() }).unwrap_err(),
                PairingError::InviteNotFound
            );
        }
        let expired = Invite { expires_at: Timestamp::default(), ..open };
        assert_eq!(world.accept(&ben, &expired).unwrap_err(), PairingError::InviteNotFound);
        let addressed = Invite { target: ben.email.clone(), ..expired };
        assert_eq!(world.accept(&ben, &addressed).unwrap_err(), PairingError::InviteExpired);
    }

    #[test]
    fn restoring_requires_both_members() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let sent = world.invite(&ana, None);
        let Ok(AcceptDecision::Paired(couple, _)) = world.accept(&ben, &sent) else { panic!("not founded") };
        let now = Timestamp::default();
        assert_eq!(restore(Some(&couple), ana.id, true, now).unwrap_err(), PairingError::NoPrevious);
        let again = Couple { previous: Some(couple.id), ..*couple };
        let (one, changes) = restore(Some(&again), ana.id, true, now).unwrap();
        assert!(!one.restored() && changes.len() == 1);
        let (both, changes) = restore(Some(&one), ben.id, true, now).unwrap();
        assert!(both.restored() && changes.len() == 2);
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    #[test]
    fn code_is_two_groups_of_five_letters_and_the_link_a_token_with_its_kind() {
        let world = World::new();
        let [one, other] = [(); 2].map(|()| InviteId::new(&world.clock, &world.entropy));
        let code = code_of(&world.keys, one);
        let (left, right) = code.expose().split_once('-').unwrap();
        for group in [left, right] {
            assert!(group.len() == 5 && group.bytes().all(|b| b.is_ascii_alphanumeric()), "{group}");
        }
        assert_eq!(
            typed_code(&format!(" {}{} ", left.to_lowercase(), right)),
            Some(format!("{left}{right}"))
        );
        assert_ne!(code.expose(), code_of(&world.keys, other).expose());
        assert_ne!(code.expose(), code_of(&Keyring::new([6; 32]), one).expose());
        let link = link_of(&world.keys, one);
        assert!(link.expose().starts_with("invite_") && link.expose().len() == "invite_".len() + 32);
        assert_ne!(link.expose(), link_of(&world.keys, other).expose());
        assert_ne!(link.expose(), link_of(&Keyring::new([6; 32]), one).expose());
        let url = format!("https://app.example/join#{}", link.expose());
        assert_eq!(typed_link(&url), Some(link.expose().as_str()));
        assert_eq!(typed_link("https://app.example/join"), None);
        assert_ne!(link_digest(link.expose()), link_digest("invite_"));
        assert_ne!(code_digest(&world.keys, code.expose()), code_digest(&world.keys, "00000-00000"));
    }

    #[test]
    fn invite_expires_exactly_at_its_limit() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let sent = world.invite(&ana, Some(&ben));
        let day = 24 * 3_600;
        assert!(answerable(Some(&sent), &ben, false, at(day - 1)).is_ok());
        assert_eq!(answerable(Some(&sent), &ben, false, at(day)), Err(PairingError::InviteExpired));
    }

    #[test]
    fn own_older_invite_to_the_same_address_is_replaced() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let (older, newer) = (world.invite(&ana, Some(&ben)), world.invite(&ana, Some(&ben)));
        let read = InviteFacts {
            couple: None,
            open: std::slice::from_ref(&older),
            between: Some(&older),
            between_blocked: false,
            invite: &newer,
        };
        // The older one does not count: it is closed.
        let policy = PairingPolicy::default().with_max_open_invites(1);
        let Ok(InviteDecision::Waiting(changes)) = invite(&read, &policy, at(0)) else { panic!("refused") };
        assert_eq!(
            changes,
            [
                PairingChange::ExpectUnpaired { account: ana.id }.into(),
                PairingChange::CloseInvite { id: older.id, to: InviteState::Withdrawn }.into(),
                PairingChange::InsertInvite { invite: newer.clone(), limit: 1 }.into(),
            ]
        );
    }

    #[test]
    fn crossing_invite_that_has_expired_is_closed_and_the_new_one_waits() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let (theirs, mine) = (world.invite(&ana, Some(&ben)), world.invite(&ben, Some(&ana)));
        let read = InviteFacts {
            couple: None,
            open: &[],
            between: Some(&theirs),
            between_blocked: false,
            invite: &mine,
        };
        let policy = PairingPolicy::default();
        let decide = |seconds| invite(&read, &policy, at(seconds)).unwrap();
        assert!(matches!(decide(24 * 3_600 - 1), InviteDecision::Crossing(id) if id == theirs.id));
        let InviteDecision::Waiting(changes) = decide(24 * 3_600) else {
            panic!("accepted an expired invite")
        };
        let closed = PairingChange::CloseInvite { id: theirs.id, to: InviteState::Withdrawn };
        assert_eq!((changes.len(), &changes[1]), (3, &closed.into()));
    }

    #[test]
    fn invites_that_wait_are_limited_without_expired_ones() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let open: Vec<_> = (0..3).map(|_| world.invite(&ana, None)).collect();
        let new = world.invite(&ana, None);
        let theirs = world.invite(&ben, Some(&ana));
        let decide = |limit: usize, seconds, between| {
            let read =
                InviteFacts { couple: None, open: &open, between, between_blocked: true, invite: &new };
            let decision = invite(&read, &PairingPolicy::default().with_max_open_invites(limit), at(seconds));
            decision.map(|decision| match decision {
                InviteDecision::Waiting(changes) => changes.len(),
                InviteDecision::Crossing(_) => panic!("accepted a blocked invite"),
            })
        };
        assert_eq!(decide(4, 0, None), Ok(1));
        assert_eq!(decide(3, 0, None), Err(PairingError::TooManyInvites));
        assert_eq!(decide(3, 24 * 3_600, None), Ok(1), "expired invites do not wait");
        // An invite between the same addresses is left out only if it is one of the open ones.
        assert_eq!(decide(3, 0, Some(&theirs)), Err(PairingError::TooManyInvites));
        assert_eq!(decide(4, 0, Some(&theirs)), Ok(3));
        assert_eq!(decide(3, 0, Some(&open[1])), Ok(3));
        assert_eq!(decide(2, 0, Some(&open[1])), Err(PairingError::TooManyInvites));
    }

    #[test]
    fn paired_user_and_own_address_are_refused() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let new = world.invite(&ana, Some(&ana));
        let decide = |couple: Option<&Couple>, invite_: &Invite| {
            let read =
                InviteFacts { couple, open: &[], between: None, between_blocked: false, invite: invite_ };
            invite(&read, &PairingPolicy::default(), at(0)).map(drop)
        };
        assert_eq!(decide(None, &new), Err(PairingError::OwnInvite));
        assert_eq!(decide(None, &world.invite(&ana, Some(&ben))), Ok(()));
        let couple = world.couple(&ana, &ben);
        assert_eq!(decide(Some(&couple), &world.invite(&ana, None)), Err(PairingError::AlreadyPaired));
    }

    #[test]
    fn invite_is_answered_only_if_nothing_prevents_it() {
        let world = World::new();
        let (ana, ben, cleo) = (world.person("ana"), world.person("ben"), world.person("cleo"));
        let (open, addressed) = (world.invite(&ana, None), world.invite(&ana, Some(&ben)));
        let answer = |invite: Option<&Invite>, person: &Person, blocked| {
            answerable(invite, person, blocked, at(0)).map(|invite| invite.id)
        };
        assert_eq!(answer(Some(&open), &cleo, false), Ok(open.id));
        assert_eq!(answer(Some(&addressed), &ben, false), Ok(addressed.id));
        for (invite, person, blocked) in [
            (None, &ben, false),
            (Some(&open), &cleo, true),
            (Some(&addressed), &ben, true),
            (Some(&addressed), &cleo, false),
        ] {
            assert_eq!(answer(invite, person, blocked), Err(PairingError::InviteNotFound));
        }
        let by_ben =
            InviteState::Accepted { by: ben.id, couple: CoupleId::new(&world.clock, &world.entropy) };
        for state in [InviteState::Declined, InviteState::Withdrawn, by_ben] {
            let closed = Invite { state, ..addressed.clone() };
            assert_eq!(answer(Some(&closed), &ben, false), Err(PairingError::InviteNotFound));
            assert_eq!(withdraw(Some(&closed), ana.id), Err(PairingError::InviteNotFound));
        }
        let close = |to| Change::from(PairingChange::CloseInvite { id: addressed.id, to });
        let declined = decline(Some(&addressed), &ben, false, at(0));
        assert_eq!(declined, Ok(vec![close(InviteState::Declined)]));
        assert_eq!(decline(Some(&addressed), &cleo, false, at(0)), Err(PairingError::InviteNotFound));
        assert_eq!(withdraw(Some(&addressed), ana.id), Ok(vec![close(InviteState::Withdrawn)]));
        assert_eq!(withdraw(Some(&addressed), ben.id), Err(PairingError::InviteNotFound));
        assert_eq!(withdraw(None, ana.id), Err(PairingError::InviteNotFound));
    }

    #[test]
    fn accepted_invite_adds_the_couple_and_closes_the_invites_of_both() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let (sent, earlier) = (world.invite(&ana, None), CoupleId::new(&world.clock, &world.entropy));
        let id = CoupleId::new(&world.clock, &world.entropy);
        let facts = AcceptFacts {
            person: &ben,
            couple: None,
            invite: Some(&sent),
            blocked: false,
            previous: Some(earlier),
            id,
        };
        let Ok(AcceptDecision::Paired(couple, changes)) = accept(&facts, at(7)) else { panic!("not paired") };
        let added = Couple { previous: Some(earlier), head_seq: 0, ..*couple.clone() };
        assert_eq!((couple.id, couple.members, couple.since), (id, [ana.id, ben.id], at(7)));
        assert_eq!((couple.epoch, couple.head_seq, couple.previous), (1, 1, Some(earlier)));
        let accepted = InviteState::Accepted { by: ben.id, couple: id };
        assert_eq!(
            changes,
            [
                PairingChange::Pair(added).into(),
                PairingChange::CloseInvite { id: sent.id, to: accepted }.into(),
                PairingChange::WithdrawInvitesOf { inviter: ana.id }.into(),
                PairingChange::WithdrawInvitesOf { inviter: ben.id }.into(),
                append(&couple, NewEntry::system(system::PAIRED, None, None, at(7))),
            ]
        );
        // A repeated request gets the couple again; another invite, or another couple, does not.
        let done = Invite { state: accepted, ..sent.clone() };
        let other = Couple { id: earlier, ..*couple.clone() };
        let repeat = |couple, invite| {
            accept(&AcceptFacts { couple: Some(couple), invite: Some(invite), ..facts }, at(8))
        };
        assert!(
            matches!(repeat(&couple, &done), Ok(AcceptDecision::AlreadyPaired(again)) if again == couple)
        );
        assert_eq!(repeat(&other, &done).unwrap_err(), PairingError::InviteNotFound);
        assert_eq!(repeat(&couple, &sent).unwrap_err(), PairingError::AlreadyPaired);
    }

    #[test]
    fn leaving_ends_the_couple_and_blocks_the_partner_on_request() {
        let world = World::new();
        let (ana, ben, cleo) = (world.person("ana"), world.person("ben"), world.person("cleo"));
        let couple = world.couple(&ana, &ben);
        let ended = Couple { ended_at: Some(at(5)), ..couple.clone() };
        let end = |by: &Person| -> Change {
            let (id, members) = (couple.id, couple.members);
            PairingChange::End { id, members, at: at(9), by: Some(by.id) }.into()
        };
        let block = |blocker: &Person, blocked: AccountId| -> Change {
            let blocker_email = blocker.email.as_ref().unwrap().key().clone();
            PairingChange::Block(Block { blocker: blocker.id, blocker_email, blocked, at: at(9) }).into()
        };
        assert_eq!(leave(Some(&couple), &ana, false, at(9)), Ok(vec![end(&ana)]));
        assert_eq!(leave(Some(&couple), &ana, true, at(9)), Ok(vec![end(&ana), block(&ana, ben.id)]));
        assert_eq!(leave(Some(&couple), &ben, true, at(9)), Ok(vec![end(&ben), block(&ben, ana.id)]));
        let unverified = Person { email: None, ..ana.clone() };
        assert_eq!(leave(Some(&couple), &unverified, true, at(9)), Ok(vec![end(&ana)]));
        for (couple, person) in [(None, &ana), (Some(&couple), &cleo), (Some(&ended), &ana)] {
            assert_eq!(leave(couple, person, false, at(9)), Err(PairingError::NotPaired));
        }
        assert_eq!(already_ended(Some(&ended), &ana, false, at(9)), Ok(Vec::new()));
        assert_eq!(already_ended(Some(&ended), &ana, true, at(9)), Ok(vec![block(&ana, ben.id)]));
        for (couple, person) in [(None, &ana), (Some(&ended), &cleo), (Some(&couple), &ana)] {
            assert_eq!(already_ended(couple, person, true, at(9)), Err(PairingError::NotPaired));
        }
    }

    #[test]
    fn wish_to_restore_is_recorded_once_and_can_be_withdrawn() {
        let world = World::new();
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let couple = world.couple(&ana, &ben);
        let again = Couple { previous: Some(couple.id), head_seq: 4, ..couple };
        let change = |side, wanted, read| PairingChange::Restore { id: again.id, side, wanted, read }.into();
        let (one, changes) = restore(Some(&again), ben.id, true, at(9)).unwrap();
        assert_eq!(one, Couple { restore: [false, true], ..again.clone() });
        assert_eq!(changes, [change(Side::Second, true, [false, false])]);
        let (same, changes) = restore(Some(&one), ben.id, true, at(9)).unwrap();
        assert_eq!((same, changes), (one.clone(), vec![]));
        let (both, changes) = restore(Some(&one), ana.id, true, at(9)).unwrap();
        assert_eq!(both, Couple { restore: [true, true], head_seq: 5, ..again.clone() });
        let entry = append(&again, NewEntry::system(system::RESTORED, None, None, at(9)));
        assert_eq!(changes, [change(Side::First, true, [false, true]), entry]);
        let (less, changes) = restore(Some(&both), ben.id, false, at(9)).unwrap();
        assert_eq!(less, Couple { restore: [true, false], ..both });
        assert_eq!(changes, [change(Side::Second, false, [true, true])]);
    }
}
