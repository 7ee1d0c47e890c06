//! Requests of people. A client repeats a request whose outcome it does not know, mostly at another process.

use std::{sync::Arc, time::Duration};

use couple::{
    Backend, CoupleId, Failure, RequestContext,
    core::{Idempotency, InviteId, digest},
    job::NewJob,
    pairing::{InviteOutcome, InviteRef, NewInvite, PairingError},
    timeline::{Append, TimelineError},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    history::JobState,
    invariant::Invariant,
    process::{SimulatedJob, address},
    world::World,
};

/// Maximum number of attempts of a request.
const MAX_ATTEMPTS: u32 = 12;

/// Request of a person.
#[derive(Debug)]
pub(crate) enum Request {
    /// Appends an entry; with a job in the same commit, if given.
    Append {
        couple: CoupleId,
        id: String,
        job: Option<u64>,
    },
    Edit {
        couple: CoupleId,
        seq: i64,
        text: String,
    },
    React {
        couple: CoupleId,
        seq: i64,
        emoji: Option<&'static str>,
    },
    Delete {
        couple: CoupleId,
        seq: i64,
    },
    MarkRead {
        couple: CoupleId,
        seq: i64,
    },
    Signal {
        couple: CoupleId,
    },
    Leave {
        couple: CoupleId,
    },
    /// Invites a person by address, or anyone by a code.
    Invite {
        target: Option<&'static str>,
    },
    /// Accepts an invite by its code, or a received one.
    Accept {
        code: Option<InviteId>,
    },
    Decline,
    Withdraw,
    Enqueue {
        number: u64,
    },
}

/// Response of the library to one attempt.
enum Answer {
    Done,
    Refused(String),
    /// The outcome is unknown, or the request had no effect; it may be repeated.
    Failed,
}

/// Makes a request until its outcome is known, or the person gives up.
pub(crate) async fn make(world: Arc<World>, person: usize, request: Request, number: u64) {
    let name = world.people[person].name;
    let mut unknown = false;
    // Half of the requests have an idempotency key. Invites always do: each repeat would be another invite.
    let keyed = number.is_multiple_of(2) || matches!(request, Request::Invite { .. });
    let key = Idempotency {
        scope: digest(&[b"simulation", &number.to_be_bytes()]),
        request: digest(&[format!("{request:?}").as_bytes()]),
    };
    let context = RequestContext { idempotency: keyed.then_some(key), ..RequestContext::default() };
    for _ in 0..MAX_ATTEMPTS {
        let Some(process) = world.any_process() else {
            sleep(Duration::from_millis(300)).await;
            continue;
        };
        let Some(backend) = process.backend() else { continue };
        // A client that disconnects drops its request at any point.
        let limit = if world.fault(20) {
            Duration::from_millis(world.random.below(30))
        } else {
            Duration::from_mins(5)
        };
        let attempt = timeout(limit, attempt(&world, &backend, &context, person, &request));
        let answer = process.call(attempt).await;
        drop(backend);
        match answer {
            Some(Ok(Answer::Done)) => {
                world.note("done", format_args!("{name}: {request:?} succeeds at {}", process.id));
                return;
            }
            Some(Ok(Answer::Refused(why))) => {
                world
                    .note("refused", format_args!("{name}: {request:?} is refused at {}: {why}", process.id));
                if let (false, Request::Append { id, .. }) = (unknown, &request) {
                    world.history().refused.insert(id.clone());
                }
                return;
            }
            Some(Ok(Answer::Failed)) | Some(Err(_)) | None => {
                unknown = true;
                world.note(
                    "unknown",
                    format_args!("{name}: {request:?} has no known outcome at {}", process.id),
                );
            }
        }
        if world.random.below(12) == 0 {
            return;
        }
        sleep(Duration::from_millis(world.random.below(400))).await;
    }
}

fn answer<T, R: std::fmt::Debug>(result: Result<T, Failure<R>>) -> Result<T, Answer> {
    result.map_err(|failure| match failure {
        Failure::Refused(refusal) => Answer::Refused(format!("{refusal:?}")),
        Failure::Failed(_) => Answer::Failed,
    })
}

async fn attempt(
    world: &World,
    backend: &Backend,
    context: &RequestContext,
    person: usize,
    request: &Request,
) -> Answer {
    match try_attempt(world, backend, context, person, request).await {
        Ok(()) => Answer::Done,
        Err(answer) => answer,
    }
}

async fn try_attempt(
    world: &World,
    backend: &Backend,
    context: &RequestContext,
    index: usize,
    request: &Request,
) -> Result<(), Answer> {
    let (account, name) = (world.people[index].account, world.people[index].name);
    let (timeline, pairings) = (backend.timeline(), backend.pairings());
    match request {
        Request::Append { couple, id, job } => {
            let body = json!({ "text": id });
            let command =
                Append { couple: Some(*couple), client_id: id.clone(), kind: "text".to_owned(), body };
            let result = match job {
                None => timeline.append(context, account, &command).await,
                Some(number) => {
                    let job = NewJob::at(
                        &SimulatedJob { number: *number, duration: None },
                        backend.ports().now(),
                        backend.ports(),
                    );
                    let job = couple::job::JobChange::Enqueue(job.map_err(|_| Answer::Failed)?).into();
                    timeline.append_with(context, account, &command, &[job]).await
                }
            };
            if let Err(Failure::Refused(TimelineError::KeyReused)) = result {
                world.violate(
                    Invariant::AnswersHold,
                    format!("the key of {id} was not used for another entry"),
                );
            }
            let entry = answer(result)?.entry;
            let mut history = world.history();
            let there = history.couples[couple].entry(entry.seq);
            if there.is_none_or(|there| there.client_id.as_ref() != Some(id)) {
                let text =
                    format!("{name} received seq {} for entry {id}, but another entry has it", entry.seq);
                world.violate(Invariant::AnswersHold, text);
            }
            history.acknowledged.insert(id.clone(), (*couple, entry.seq));
        }
        Request::Edit { couple, seq, text } => {
            drop(answer(timeline.edit(account, Some(*couple), *seq, &json!({ "text": text })).await)?);
        }
        Request::React { couple, seq, emoji } => {
            drop(answer(timeline.react(account, Some(*couple), *seq, *emoji).await)?);
        }
        Request::Delete { couple, seq } => {
            let entry = answer(timeline.delete(account, Some(*couple), *seq).await)?;
            if entry.deleted_at.is_none() || entry.body.is_some() {
                world.violate(Invariant::AnswersHold, format!("entry {seq} was deleted, but has a body"));
            }
        }
        Request::MarkRead { couple, seq } => {
            answer(timeline.mark_read(account, Some(*couple), *seq).await)?;
        }
        Request::Signal { couple } => answer(timeline.signal(account, Some(*couple), "hug", None).await)?,
        Request::Leave { couple } => {
            let person = pairings.person(account).await.map_err(|_| Answer::Failed)?;
            answer(pairings.leave(context, &person, Some(*couple), false).await)?;
            if world.history().couples[couple].ended_at.is_none() {
                world.violate(Invariant::AnswersHold, format!("{name} has left a couple that has not ended"));
            }
        }
        Request::Invite { target } => {
            let person = pairings.person(account).await.map_err(|_| Answer::Failed)?;
            let email = target.map(|name| address(name).as_str().to_owned());
            let command = NewInvite { email, message: None };
            match answer(pairings.invite(context, &person, &command).await)? {
                InviteOutcome::Pending(sent) if target.is_none() => {
                    world.codes.lock().unwrap().push((sent.invite.id, sent.code));
                }
                InviteOutcome::Pending(_) => {}
                InviteOutcome::Paired(couple) => require_couple(world, index, couple.id),
            }
        }
        Request::Accept { code } => {
            let person = pairings.person(account).await.map_err(|_| Answer::Failed)?;
            let reference = match code {
                Some(id) => {
                    let codes = world.codes.lock().unwrap();
                    let code = codes.iter().find(|(invite, _)| invite == id).map(|(_, code)| code.clone());
                    drop(codes);
                    code.map(InviteRef::Code)
                }
                None => {
                    let received = answer(pairings.received(&person).await)?;
                    received.last().map(|invite| InviteRef::Id(invite.id))
                }
            };
            let reference = reference.ok_or_else(|| Answer::Refused("no invite".to_owned()))?;
            let couple = answer(pairings.accept(context, &person, &reference).await)?;
            require_couple(world, index, couple.id);
        }
        Request::Decline => {
            let person = pairings.person(account).await.map_err(|_| Answer::Failed)?;
            let received = answer(pairings.received(&person).await)?;
            let Some(invite) = received.first() else { return Err(Answer::Refused("no invite".to_owned())) };
            answer(pairings.decline(context, &person, &InviteRef::Id(invite.id)).await)?;
        }
        Request::Withdraw => {
            let sent = answer(pairings.sent(account).await)?;
            let Some(sent) = sent.first() else { return Err(Answer::Refused("no invite".to_owned())) };
            match pairings.withdraw(account, sent.invite.id).await {
                // Repeated after an unknown outcome, or answered meanwhile.
                Err(Failure::Refused(PairingError::InviteNotFound)) => {}
                result => answer(result)?,
            }
        }
        Request::Enqueue { number } => {
            backend
                .enqueue(&SimulatedJob { number: *number, duration: None })
                .await
                .map_err(|_| Answer::Failed)?;
            world.history().acknowledged_jobs.insert(*number);
        }
    }
    Ok(())
}

/// Checks that a person is a member of the couple that a response names.
fn require_couple(world: &World, index: usize, couple: CoupleId) {
    let (person, history) = (&world.people[index], world.history());
    if !history.couples.get(&couple).is_some_and(|couple| couple.members.contains(&person.account)) {
        let text = format!("{} received a couple without {}", person.name, person.name);
        world.violate(Invariant::AnswersHold, text);
    }
}

/// Checks what remains of the requests when all have ended and all jobs have run.
pub(crate) fn check_outcomes(world: &World) -> Result<(), (Invariant, String)> {
    let history = world.history();
    let entries = history.couples.values().flat_map(|couple| &couple.log);
    let ids: Vec<&String> = entries.filter_map(|entry| entry.entry.client_id.as_ref()).collect();
    if let Some(id) = history.refused.iter().find(|id| ids.contains(id)) {
        return Err((Invariant::AnswersHold, format!("entry {id} was refused, and is in the log")));
    }
    for (id, (couple, seq)) in &history.acknowledged {
        if history.couples[couple].entry(*seq).is_none_or(|entry| entry.client_id.as_ref() != Some(id)) {
            return Err((Invariant::AppendedOnce, format!("entry {id} was appended, and is not in the log")));
        }
    }
    let payloads: Vec<u64> = history.jobs.values().filter_map(|job| job.payload).collect();
    if let Some(lost) = history.acknowledged_jobs.iter().find(|number| !payloads.contains(number)) {
        return Err((Invariant::JobsEnd, format!("job {lost} was enqueued, and does not exist")));
    }
    for (id, number) in &history.jobs_of_entries {
        if ids.contains(&id) != payloads.contains(number) {
            return Err((Invariant::JobWithItsEntry, format!("entry {id} without its job, or the reverse")));
        }
    }
    Ok(())
}

/// A job that has not ended.
pub(crate) fn unfinished_job(world: &World) -> Option<String> {
    let history = world.history();
    let live = history.jobs.values().find(|job| job.state == JobState::Live && !job.recurs);
    live.map(|job| format!("job {} ({})", job.number, job.name))
}
