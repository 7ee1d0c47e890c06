//! Connection of a process to the store that all processes share: delays, failures and unknown outcomes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use couple::{
    Clock as _, CoupleId, Error, ErrorKind, Store,
    core::{Change, ChangeResult, CommitError, Committed, Conflict, live::Topic},
    job::{ClaimedJob, Job as _, JobChange},
    pairing::{Couple, PairingChange, PairingReads as _},
    timeline::TimelineChange,
};
use tokio::time::sleep;

use crate::{
    invariant::Planted,
    process::{Process, ProcessId, SimulatedJob},
    world::{World, failed},
};

pub(crate) struct ProcessStore(pub(crate) Arc<Process>);

couple::core::delegate_reads!([] ProcessStore, |store| store.0.world.data, around: read);

impl ProcessStore {
    async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        read: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let process = &self.0;
        process.point("before a read").await;
        process.world.delay().await;
        if process.store_is_cut() || process.world.fault(300) {
            return Err(failed(ErrorKind::Unavailable, name));
        }
        let result = read.await;
        process.world.delay().await;
        process.point("after a read").await;
        result
    }
}

#[async_trait]
impl Store for ProcessStore {
    async fn commit(&self, mut changes: Vec<Change>) -> Result<Committed, CommitError> {
        let (process, world) = (&self.0, &self.0.world);
        if let [Change::Job(JobChange::Renew { .. })] = &changes[..]
            && world.strikes(Planted::LeaseNotRenewed, 1)
        {
            return Ok([ChangeResult::Applied].into_iter().collect());
        }
        let ends = |change: &Change| matches!(change, Change::Pairing(PairingChange::End { .. }));
        if changes.iter().any(ends) && world.strikes(Planted::LostEnd, 4) {
            return Ok(changes.iter().map(|_| ChangeResult::Applied).collect());
        }
        let marks = |change: &Change| matches!(change, Change::Timeline(TimelineChange::MarkRead { .. }));
        if changes.iter().any(marks) && world.strikes(Planted::UnansweredCommit, 1) {
            std::future::pending::<()>().await;
        }
        let appends = |change: &Change| matches!(change, Change::Timeline(TimelineChange::Append { .. }));
        if changes.iter().any(appends) && world.strikes(Planted::TornCommit, 1) {
            changes.retain(|change| !matches!(change, Change::Job(JobChange::Enqueue(job)) if job.name == SimulatedJob::NAME));
        }
        process.point("before a commit").await;
        world.delay().await;
        if process.store_is_cut() || world.fault(80) {
            world.note("commit refused", format_args!("a commit of {} fails", process.id));
            return Err(failed(ErrorKind::Unavailable, "commit").into());
        }
        if world.fault(80) {
            // The connection breaks; the database may have received the commit.
            if world.random.below(2) == 0 {
                let (process, after) = (process.clone(), Duration::from_millis(world.random.below(2_000)));
                tokio::spawn(async move {
                    sleep(after).await;
                    drop(apply(&process, changes).await);
                });
            }
            world.note(
                "commit late",
                format_args!("a commit of {} times out and may take effect later", process.id),
            );
            return Err(failed(ErrorKind::TimedOut, "commit").into());
        }
        let repeated = world.strikes(Planted::RepeatedAppend, 1).then(|| again(&changes)).flatten();
        let result = apply(process, changes).await;
        world.delay().await;
        process.point("after a commit").await;
        if result.is_ok() && world.fault(40) {
            if let Some(repeated) = repeated {
                drop(apply(process, repeated).await);
            }
            world
                .note("commit unknown", format_args!("a commit of {} took effect and times out", process.id));
            return Err(failed(ErrorKind::TimedOut, "commit").into());
        }
        result
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Applies a commit to the store, and records it in the history if it takes effect.
async fn apply(process: &Process, changes: Vec<Change>) -> Result<Committed, CommitError> {
    let world = &process.world;
    let result = match world.planted {
        None => world.data.commit(changes.clone()).await,
        Some(_) => commit_with_planted_fault(world, changes.clone()).await,
    };
    if let Ok(committed) = &result {
        describe(world, process.id, &changes);
        let recorded = world.history().commit(&changes, committed, process.id, world.clock().now());
        world.require(recorded);
        process.committed(changes.iter().flat_map(Change::topics).filter_map(|topic| couple_of(&topic)));
    }
    result
}

/// Couple of a topic.
pub(crate) fn couple_of(topic: &Topic) -> Option<CoupleId> {
    match topic {
        Topic::Couple(couple) => Some(*couple),
        Topic::Account(_) | Topic::Queue(_) => None,
    }
}

/// Adds what took effect to the trace.
fn describe(world: &World, process: ProcessId, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Pairing(PairingChange::Pair(couple)) => {
                let [one, other] = couple.members.map(|member| world.person(member).name);
                world.note("pair", format_args!("{process} commits: {one} and {other} are a couple"));
            }
            Change::Pairing(PairingChange::End { members, .. }) => {
                let [one, other] = members.map(|member| world.person(member).name);
                world.note("end", format_args!("{process} commits: the couple of {one} and {other} ends"));
            }
            Change::Pairing(PairingChange::CloseInvite { to, .. }) => {
                world.note(
                    "invite closed",
                    format_args!(
                        "{process} commits: an invite is closed, {}",
                        match to {
                            couple::pairing::InviteState::Accepted { .. } => "accepted",
                            couple::pairing::InviteState::Declined => "declined",
                            _ => "withdrawn",
                        }
                    ),
                );
            }
            Change::Timeline(TimelineChange::Append { couple, entry }) => {
                let number = world.history().couples.get(couple).map_or(0, |couple| couple.number);
                let name = entry.client_id.as_deref().unwrap_or(&entry.kind);
                world.note("append", format_args!("{process} commits: entry {name} of couple {number}"));
            }
            Change::Job(JobChange::Bury { .. }) => {
                world.note("job dead", format_args!("{process} commits: a job is dead"));
            }
            _ => {}
        }
    }
}

/// The appends of a commit with other client ids, as a database driver that repeats statements would write them.
fn again(changes: &[Change]) -> Option<Vec<Change>> {
    let mut changes = changes.to_vec();
    changes.retain(|change| matches!(change, Change::Timeline(TimelineChange::Append { .. })));
    for change in &mut changes {
        if let Change::Timeline(TimelineChange::Append { entry, .. }) = change {
            entry.client_id.as_mut()?.push('~');
        }
    }
    (!changes.is_empty()).then_some(changes)
}

/// Commits with the planted fault of the world.
async fn commit_with_planted_fault(
    world: &World,
    mut changes: Vec<Change>,
) -> Result<Committed, CommitError> {
    let is_lost = |change: &Change| {
        matches!(change, Change::Job(JobChange::Enqueue(job)) if job.dedupe_key.is_none())
            && world.strikes(Planted::LostJob, 20)
    };
    let lost = changes.iter().enumerate().filter(|(_, change)| is_lost(change)).map(|(index, _)| index);
    let lost: Vec<usize> = lost.collect();
    for index in lost.iter().rev() {
        changes.remove(*index);
    }
    let committed = world.data.commit(changes.clone()).await;
    let committed = match committed {
        Err(CommitError::Conflict(Conflict::Paired(_))) if world.strikes(Planted::SecondCouple, 1) => {
            let ends = ends_of_couples(world, &changes).await;
            let added = ends.len();
            let committed = world.data.commit(ends.into_iter().chain(changes).collect()).await;
            committed.map(|committed| committed.results().iter().skip(added).cloned().collect())
        }
        Err(CommitError::Conflict(Conflict::InviteClosed(closed)))
            if world.strikes(Planted::InviteClosedTwice, 1) =>
        {
            let closes = |change: &Change| matches!(change, Change::Pairing(PairingChange::CloseInvite { id, .. }) if *id == closed);
            let at = changes.iter().position(closes);
            changes.retain(|change| !closes(change));
            let committed = world.data.commit(changes).await;
            committed.map(|committed| with_applied(&committed, at.as_slice()))
        }
        committed => committed,
    };
    let committed = committed.map(|committed| with_applied(&committed, &lost))?;
    Ok(committed.results().iter().cloned().map(|result| skip_seq(world, give_again(world, result))).collect())
}

/// Results of a commit from which the changes at these places were left out.
fn with_applied(committed: &Committed, left_out: &[usize]) -> Committed {
    let mut results = committed.results().to_vec();
    for index in left_out {
        results.insert(*index, ChangeResult::Applied);
    }
    results.into_iter().collect()
}

/// Changes that end the couples of the members of a couple that is to be added.
async fn ends_of_couples(world: &World, changes: &[Change]) -> Vec<Change> {
    let mut ends: BTreeMap<CoupleId, Change> = BTreeMap::new();
    for change in changes {
        let Change::Pairing(PairingChange::Pair(Couple { members, since, .. })) = change else { continue };
        for member in members {
            if let Ok(Some(couple)) = world.data.couple_of(*member).await {
                let end = PairingChange::End { id: couple.id, members: couple.members, at: *since, by: None };
                ends.insert(couple.id, end.into());
            }
        }
    }
    ends.into_values().collect()
}

/// Result of an append, sometimes with a later `seq`.
fn skip_seq(world: &World, result: ChangeResult) -> ChangeResult {
    match result {
        ChangeResult::Appended { seq } if world.strikes(Planted::SkippedSeq, 20) => {
            ChangeResult::Appended { seq: seq + 1 }
        }
        result => result,
    }
}

/// Claimed jobs, sometimes with a job that was claimed before.
fn give_again(world: &World, result: ChangeResult) -> ChangeResult {
    let ChangeResult::Claimed(mut jobs) = result else { return result };
    let again: Option<ClaimedJob> = world.last_claimed.lock().unwrap().take();
    if let (Some(first), Some(again)) = (jobs.first(), again)
        && first.job.id != again.job.id
        && world.strikes(Planted::ClaimGivenTwice, 4)
    {
        let claim = first.claim;
        jobs.push(ClaimedJob { claim, ..again });
    }
    *world.last_claimed.lock().unwrap() = jobs.first().cloned();
    ChangeResult::Claimed(jobs)
}
