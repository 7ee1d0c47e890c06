//! Invariants that always hold, and planted faults, each of which violates one of them.

use std::fmt;

/// Guarantee of the library that the simulation checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invariant {
    AppendedOnce,
    LogWithoutGaps,
    AnswersHold,
    EachEntryOnceInOrder,
    DeliveredInTime,
    SameContent,
    NothingAfterTheEnd,
    StreamsEnd,
    OneCouple,
    InviteClosedOnce,
    OneClaim,
    JobsEnd,
    LeaseRenewed,
    JobWithItsEntry,
    PresenceEnds,
    RequestsEnd,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AppendedOnce => "an appended entry is in the log of its couple exactly once",
            Self::LogWithoutGaps => "the `seq` of a log starts at 1 and has no gaps",
            Self::AnswersHold => "what a response states has happened",
            Self::EachEntryOnceInOrder => {
                "a client that follows receives each entry once, in `seq` order, without gaps"
            }
            Self::DeliveredInTime => "a client that follows receives an entry before the next sweep",
            Self::SameContent => "a client that has received a log has the content of the log",
            Self::NothingAfterTheEnd => {
                "nothing of an ended couple is delivered later than the trust time after its end"
            }
            Self::StreamsEnd => "the streams of a couple end with it, before the next sweep",
            Self::OneCouple => "an account is in at most one couple, and both members or neither are in it",
            Self::InviteClosedOnce => "an invite is closed once",
            Self::OneClaim => "a job is not run twice at the same time under a valid claim",
            Self::JobsEnd => "each enqueued job is done after a successful run, or dead",
            Self::LeaseRenewed => "without faults, a job that is longer than its lease runs once",
            Self::JobWithItsEntry => "a job exists if and only if the entry of its commit does",
            Self::PresenceEnds => {
                "a member is present while connected, and away after the process of the connection died"
            }
            Self::RequestsEnd => "a request ends when the faults have ended",
        })
    }
}

/// Fault that is planted below or above the code under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The bus loses one notice in 20 without a `Changed` in its place.
    LostNotice,
    /// The store applies an append again after it reported a time-out.
    RepeatedAppend,
    /// The store hands out a leased job once more.
    ClaimGivenTwice,
    /// A reconnecting client continues after the entry that follows its cursor.
    SkippingCursor,
    /// The store ends the couple of a member without a notice, to let the member pair again.
    SecondCouple,
    /// The end of a couple publishes no notice.
    UnannouncedEnd,
    /// The store accepts a second close of an invite.
    InviteClosedTwice,
    /// Presence does not expire.
    EternalPresence,
    /// The store loses one enqueued job in 20.
    LostJob,
    /// No lease is renewed.
    LeaseNotRenewed,
    /// The store returns a later `seq` than it assigned to an append, once in 20.
    SkippedSeq,
    /// The store acknowledges the end of a couple, one in four, and loses it.
    LostEnd,
    /// A notice of an entry carries another text, once in 20.
    AlteredNotice,
    /// The last frames of an ended couple arrive long after its end.
    LateFrame,
    /// The store writes an entry without the job of the same commit.
    TornCommit,
    /// The store never responds to a commit of a read position.
    UnansweredCommit,
}

impl Planted {
    /// Each planted fault, with the invariant that finds it.
    pub(crate) const ALL: [(Self, Invariant); 16] = [
        (Self::LostNotice, Invariant::DeliveredInTime),
        (Self::RepeatedAppend, Invariant::AppendedOnce),
        (Self::ClaimGivenTwice, Invariant::OneClaim),
        (Self::SkippingCursor, Invariant::EachEntryOnceInOrder),
        (Self::SecondCouple, Invariant::OneCouple),
        (Self::UnannouncedEnd, Invariant::StreamsEnd),
        (Self::InviteClosedTwice, Invariant::InviteClosedOnce),
        (Self::EternalPresence, Invariant::PresenceEnds),
        (Self::LostJob, Invariant::JobsEnd),
        (Self::LeaseNotRenewed, Invariant::LeaseRenewed),
        (Self::SkippedSeq, Invariant::LogWithoutGaps),
        (Self::LostEnd, Invariant::AnswersHold),
        (Self::AlteredNotice, Invariant::SameContent),
        (Self::LateFrame, Invariant::NothingAfterTheEnd),
        (Self::TornCommit, Invariant::JobWithItsEntry),
        (Self::UnansweredCommit, Invariant::RequestsEnd),
    ];
}
