//! History of the commits that took effect in the store, in order. Each commit is checked against the invariants of the data.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use couple::{
    AccountId, CoupleId, Timestamp,
    core::{Change, ChangeResult, Committed, InviteId, JobId},
    job::{ClaimedJob, JobChange, NewJob},
    pairing::{InviteState, PairingChange},
    timeline::{NewEntry, TimelineChange},
};
use tokio::time::Instant;

use crate::{
    invariant::Invariant,
    process::{ProcessId, SimulatedJob},
};

/// Time within which a change reaches the followers by a notice: less than a sweep, which takes 22.5 s or more.
pub(crate) const NOTICE_BOUND: Duration = Duration::from_secs(12);
/// Time within which a change reaches the followers without a notice, by the sweep of at most 30 s.
const SWEEP_BOUND: Duration = Duration::from_secs(42);

type Checked = Result<(), (Invariant, String)>;

/// Entry as it was appended.
pub(crate) struct AppendedEntry {
    pub(crate) at: Instant,
    pub(crate) entry: NewEntry,
}

/// A couple and its log.
pub(crate) struct CoupleHistory {
    /// Number by which the trace names the couple.
    pub(crate) number: usize,
    pub(crate) members: [AccountId; 2],
    pub(crate) log: Vec<AppendedEntry>,
    pub(crate) ended_at: Option<Instant>,
    /// Until then followers may be behind, because a process died before it could publish a notice.
    pub(crate) excused_until: Instant,
    client_ids: BTreeSet<String>,
}

impl CoupleHistory {
    /// `seq` of the last entry at a time.
    pub(crate) fn head_at(&self, at: Instant) -> i64 {
        seq(self.log.partition_point(|entry| entry.at <= at))
    }
    pub(crate) fn head(&self) -> i64 {
        seq(self.log.len())
    }
    /// Entry with this `seq`.
    pub(crate) fn entry(&self, seq: i64) -> Option<&NewEntry> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.log.get(index).map(|appended| &appended.entry)
    }
}

fn seq(length: usize) -> i64 {
    i64::try_from(length).unwrap()
}

/// Claim of a job.
#[derive(Clone, Copy)]
pub(crate) struct Claim {
    token: i64,
    holder: ProcessId,
    lease_until: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobState {
    Live,
    Done,
    Dead,
}

/// Run of a handler.
struct Run {
    process: ProcessId,
    /// Claim under which it runs; none if another worker had claimed the job before the run began.
    token: Option<i64>,
}

pub(crate) struct JobHistory {
    pub(crate) number: usize,
    pub(crate) name: String,
    /// Number in the payload of a simulated job.
    pub(crate) payload: Option<u64>,
    pub(crate) state: JobState,
    /// Whether it is the next run of a schedule, which never ends.
    pub(crate) recurs: bool,
    /// Number of runs that began.
    pub(crate) runs: u32,
    claim: Option<Claim>,
    /// Claims under which a run succeeded.
    succeeded: BTreeSet<i64>,
    running: Vec<Run>,
}

/// Couples, invites and jobs after the commits that took effect.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) couples: BTreeMap<CoupleId, CoupleHistory>,
    /// Current couple of each account.
    pub(crate) current: BTreeMap<AccountId, CoupleId>,
    /// Sender of each open invite.
    open_invites: BTreeMap<InviteId, AccountId>,
    pub(crate) jobs: BTreeMap<JobId, JobHistory>,
    /// Client ids of entries whose request was refused, without an earlier attempt of unknown outcome.
    pub(crate) refused: BTreeSet<String>,
    /// Couple and `seq` of the entries whose request succeeded, by client id.
    pub(crate) acknowledged: BTreeMap<String, (CoupleId, i64)>,
    /// Payloads of jobs whose request succeeded.
    pub(crate) acknowledged_jobs: BTreeSet<u64>,
    /// Payload of the job that was committed with an entry, by client id.
    pub(crate) jobs_of_entries: BTreeMap<String, u64>,
}

impl History {
    /// Records a commit that took effect.
    pub(crate) fn commit(
        &mut self,
        changes: &[Change],
        committed: &Committed,
        by: ProcessId,
        now: Timestamp,
    ) -> Checked {
        for (change, result) in changes.iter().zip(committed.results()) {
            match change {
                Change::Pairing(change) => self.pairing(change)?,
                Change::Timeline(TimelineChange::Append { couple, entry }) => {
                    let ChangeResult::Appended { seq } = result else {
                        unreachable!("the result of an append")
                    };
                    self.append(*couple, entry, *seq)?;
                }
                Change::Job(change) => self.job(change, result, by, now)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn append(&mut self, couple: CoupleId, entry: &NewEntry, seq: i64) -> Checked {
        let Some(couple) = self.couples.get_mut(&couple) else { unreachable!("a couple of the history") };
        if let Some(id) = entry.client_id.as_ref().map(|id| id.trim_end_matches('~').to_owned())
            && !couple.client_ids.insert(id.clone())
        {
            let text = format!("entry {id} was appended to couple {} again, as seq {seq}", couple.number);
            return Err((Invariant::AppendedOnce, text));
        }
        let next = couple.head() + 1;
        if seq != next {
            let text = format!("seq {seq} of couple {} was assigned after {}", couple.number, next - 1);
            return Err((Invariant::LogWithoutGaps, text));
        }
        couple.log.push(AppendedEntry { at: Instant::now(), entry: entry.clone() });
        Ok(())
    }

    fn pairing(&mut self, change: &PairingChange) -> Checked {
        match change {
            PairingChange::Pair(couple) => {
                let number = self.couples.len() + 1;
                for member in couple.members {
                    if let Some(other) = self.current.insert(member, couple.id) {
                        let other = self.couples[&other].number;
                        let text = format!("a member of couple {other} became a member of couple {number}");
                        return Err((Invariant::OneCouple, text));
                    }
                }
                let history = CoupleHistory {
                    number,
                    members: couple.members,
                    log: Vec::new(),
                    ended_at: None,
                    excused_until: Instant::now(),
                    client_ids: BTreeSet::new(),
                };
                self.couples.insert(couple.id, history);
            }
            PairingChange::End { id, .. } => {
                let Some(couple) = self.couples.get_mut(id) else { unreachable!("a couple of the history") };
                couple.ended_at = Some(Instant::now());
                for member in couple.members {
                    if self.current.remove(&member) != Some(*id) {
                        let text = format!(
                            "couple {} ended, but it was not the couple of both members",
                            couple.number
                        );
                        return Err((Invariant::OneCouple, text));
                    }
                }
            }
            PairingChange::InsertInvite { invite, .. } => {
                self.open_invites.insert(invite.id, invite.inviter);
            }
            PairingChange::CloseInvite { id, to } => {
                if self.open_invites.remove(id).is_none() {
                    return Err((
                        Invariant::InviteClosedOnce,
                        format!("invite {id} was closed again: {to:?}"),
                    ));
                }
                if let InviteState::Accepted { couple, .. } = to
                    && !self.couples.contains_key(couple)
                {
                    let text = format!("invite {id} was accepted for a couple that does not exist");
                    return Err((Invariant::OneCouple, text));
                }
            }
            PairingChange::WithdrawInvitesOf { inviter } => {
                self.open_invites.retain(|_, sender| sender != inviter);
            }
            _ => {}
        }
        Ok(())
    }

    fn job(&mut self, change: &JobChange, result: &ChangeResult, by: ProcessId, now: Timestamp) -> Checked {
        match change {
            JobChange::Enqueue(job) => self.enqueue(job),
            JobChange::Claim { lease_until, .. } | JobChange::ClaimAbandoned { lease_until, .. } => {
                let ChangeResult::Claimed(claimed) = result else { unreachable!("the result of a claim") };
                for claimed in claimed {
                    self.claim(claimed, *lease_until, by, now)?;
                }
            }
            JobChange::Renew { id, claim, lease_until } => {
                if let Some(job) = self.jobs.get_mut(id)
                    && let Some(held) = &mut job.claim
                    && held.token == *claim
                {
                    held.lease_until = *lease_until;
                }
            }
            JobChange::Finish { id, claim } => {
                let Some(job) = self.jobs.get_mut(id) else { return Ok(()) };
                job.state = JobState::Done;
                if job.payload.is_some() && !job.succeeded.contains(claim) {
                    let text =
                        format!("job {} was finished without a successful run under its claim", job.number);
                    return Err((Invariant::JobsEnd, text));
                }
            }
            JobChange::Retry { id, .. } | JobChange::Defer { id, .. } => {
                if let Some(job) = self.jobs.get_mut(id) {
                    job.claim = None;
                }
            }
            JobChange::Bury { id, .. } => {
                if let Some(job) = self.jobs.get_mut(id) {
                    job.state = JobState::Dead;
                }
            }
            JobChange::Replay { .. } | JobChange::PurgeDead { .. } => {}
        }
        Ok(())
    }

    fn enqueue(&mut self, job: &NewJob) {
        let number = self.jobs.len() + 1;
        let payload = match job.name == <SimulatedJob as couple::job::Job>::NAME {
            true => serde_json::from_str::<SimulatedJob>(&job.payload).ok().map(|job| job.number),
            false => None,
        };
        self.jobs.entry(job.id).or_insert_with(|| JobHistory {
            number,
            name: job.name.clone(),
            payload,
            state: JobState::Live,
            recurs: job.dedupe_key.is_some(),
            runs: 0,
            claim: None,
            succeeded: BTreeSet::new(),
            running: Vec::new(),
        });
    }

    fn claim(
        &mut self,
        claimed: &ClaimedJob,
        lease_until: Timestamp,
        by: ProcessId,
        now: Timestamp,
    ) -> Checked {
        let Some(job) = self.jobs.get_mut(&claimed.job.id) else { unreachable!("a job of the history") };
        let before = job.claim.replace(Claim { token: claimed.claim, holder: by, lease_until });
        match before {
            Some(before) if before.lease_until > now => {
                let (number, holder) = (job.number, before.holder);
                let text = format!(
                    "{by} claimed job {number}, whose lease {holder} holds until {:?}",
                    before.lease_until
                );
                Err((Invariant::OneClaim, text))
            }
            _ if job.state != JobState::Live => Err((
                Invariant::OneClaim,
                format!("{by} claimed job {}, which is {:?}", job.number, job.state),
            )),
            _ => Ok(()),
        }
    }

    /// Records that a handler begins to run; returns the number of the job, and the claim.
    pub(crate) fn begin_run(
        &mut self,
        id: JobId,
        process: ProcessId,
    ) -> Result<(usize, Option<i64>), (Invariant, String)> {
        let Some(job) = self.jobs.get_mut(&id) else {
            return Err((Invariant::JobsEnd, format!("job {id} was never enqueued")));
        };
        let token = job.claim.filter(|claim| claim.holder == process).map(|claim| claim.token);
        if token.is_some() && job.running.iter().any(|run| run.token == token) {
            let text = format!("{process} runs job {} twice under the same claim", job.number);
            return Err((Invariant::OneClaim, text));
        }
        job.runs += 1;
        job.running.push(Run { process, token });
        Ok((job.number, token))
    }

    /// Records that a run has ended.
    pub(crate) fn end_run(&mut self, id: JobId, process: ProcessId, token: Option<i64>, succeeded: bool) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.running.retain(|run| run.process != process || run.token != token);
        if succeeded {
            // A run that began after its lease had ended counts for no claim, and cannot finish the job.
            job.succeeded.extend(token);
        }
    }

    /// Excuses the followers of a couple until the next sweep: no notice of a change could be published.
    pub(crate) fn excuse(&mut self, couple: CoupleId) {
        if let Some(couple) = self.couples.get_mut(&couple) {
            couple.excused_until = Instant::now() + SWEEP_BOUND;
        }
    }

    /// Records that a process has died, with its runs.
    pub(crate) fn process_died(&mut self, process: ProcessId) {
        for job in self.jobs.values_mut() {
            job.running.retain(|run| run.process != process);
        }
    }

    /// Current couple of an account, and its number.
    pub(crate) fn couple_of(&self, account: AccountId) -> Option<(CoupleId, &CoupleHistory)> {
        let id = self.current.get(&account)?;
        Some((*id, &self.couples[id]))
    }
}
