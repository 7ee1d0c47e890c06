//! Jobs of a host: an own queue, a schedule, a job for each new couple, and a dead job that is replayed.
//!
//! The host writes each couple to its customer database (CRM), which is not available at first.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use couple::{
    Backend, Clock as _, CoupleId, ErrorKind, ManualClock, RequestContext,
    account::{Proof, SignUp, Verification},
    core::mail::Message,
    events::Event,
    job::{Context, Job, JobError, Queue, Schedule, WorkerOptions},
    notify::mail::MemoryMailer,
    pairing::{InviteOutcome, InviteRef, NewInvite, Person},
};
use serde::{Deserialize, Serialize};

/// Job that writes a couple to the CRM.
#[derive(Serialize, Deserialize)]
struct WriteToCrm {
    couple: CoupleId,
}

impl Job for WriteToCrm {
    const NAME: &'static str = "host.write_to_crm";
    const QUEUE: &'static str = "crm";
    // So few that the example has a dead job soon.
    const MAX_ATTEMPTS: i64 = 1;
}

/// Job that counts the couples in the CRM every morning.
#[derive(Serialize, Deserialize)]
struct Count {}

impl Job for Count {
    const NAME: &'static str = "host.count";
    const QUEUE: &'static str = "crm";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Customer database of the host.
#[derive(Default)]
struct Crm {
    available: AtomicBool,
    couples: Mutex<Vec<CoupleId>>,
    counts: AtomicUsize,
}

impl Crm {
    fn write(&self, couple: CoupleId) -> Result<(), JobError> {
        if !self.available.load(Ordering::SeqCst) {
            return Err(couple::Error::new(ErrorKind::Unavailable, "write to CRM").into());
        }
        let mut couples = self.couples.lock().unwrap_or_else(PoisonError::into_inner);
        // A job runs at least once: the same couple is written once.
        if !couples.contains(&couple) {
            couples.push(couple);
        }
        Ok(())
    }
    fn couples(&self) -> Vec<CoupleId> {
        self.couples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn build(crm: &Arc<Crm>, clock: &Arc<ManualClock>, mailer: &MemoryMailer) -> Result<Backend, couple::Error> {
    let crm = crm.clone();
    Backend::builder()
        .clock(clock.clone())
        .mailer(mailer.clone())
        .worker(WorkerOptions::default().with_poll_interval(Duration::from_millis(50)))
        .queue(Queue::new("crm", 1))
        .schedule(Schedule::cron("0 8 * * *", "Europe/Berlin", || Count {})?)
        .on(|event, additions| match event {
            Event::CoupleFounded { couple } => additions.enqueue(&WriteToCrm { couple: couple.id }),
            _ => Ok(()),
        })
        .jobs(move |jobs, _| {
            let (writing, counting) = (crm.clone(), crm.clone());
            jobs.with_fn(move |job: WriteToCrm, _: Context| {
                let written = writing.write(job.couple);
                async { written }
            })
            .with_fn(move |_: Count, _: Context| {
                println!("good morning: {} couple in the CRM", counting.couples().len());
                counting.counts.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            })
        })
        .build()
}

/// Signs a user up with the mailed code.
async fn join(backend: &Backend, mailer: &MemoryMailer, name: &str) -> Result<Person, Box<dyn Error>> {
    let (email, context) = (format!("{name}@example.org"), RequestContext::default());
    let sign_up = SignUp { email: email.clone(), display_name: name.to_owned(), locale: None };
    backend.accounts()?.sign_up(&context, &sign_up).await?;
    backend.worker().run_until_idle().await?;
    let Some(Message::ConfirmSignUp { code, .. }) = mailer.last_to(&email).map(|mail| mail.message) else {
        return Err("no mail came".into());
    };
    let proof = Proof::Code { email, code };
    let command = Verification { proof, password: None, display_name: None, locale: None };
    let account = backend.accounts()?.verify(&context, &command).await?.account;
    Ok(Person { id: account.id, email: Some(account.email) })
}

/// Pairs two users.
async fn pair(backend: &Backend, ana: &Person, ben: &Person) -> Result<CoupleId, Box<dyn Error>> {
    let (pairings, context) = (backend.pairings(), RequestContext::default());
    let InviteOutcome::Pending(sent) = pairings.invite(&context, ana, &NewInvite::default()).await? else {
        return Err("paired without an answer".into());
    };
    Ok(pairings.accept(&context, ben, &InviteRef::Code(sent.code)).await?.id)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (crm, clock, mailer) = (Arc::<Crm>::default(), Arc::<ManualClock>::default(), MemoryMailer::new());
    let backend = build(&crm, &clock, &mailer)?;

    // The commit that creates the couple also enqueues the job.
    let (ana, ben) = (join(&backend, &mailer, "ana").await?, join(&backend, &mailer, "ben").await?);
    let couple = pair(&backend, &ana, &ben).await?;
    backend.worker().run_until_idle().await?;
    let dead = backend.dead_jobs().list(None, 10).await?.pop().ok_or("the job is not dead")?;
    println!("dead: {} after {} attempt: {}", dead.job.name, dead.attempts, dead.error);

    // The CRM is available again, and its operator replays the job.
    crm.available.store(true, Ordering::SeqCst);
    assert!(backend.dead_jobs().replay(&dead).await?);
    backend.worker().run_until_idle().await?;
    assert_eq!(crm.couples(), [couple]);
    println!("replayed: the couple is in the CRM");

    // A started worker keeps the schedule.
    let worker = backend.worker().start();
    while backend.ports().store.next_due("crm").await?.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    clock.advance(Duration::from_hours(24));
    while crm.counts.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.stop(Duration::from_secs(5)).await;
    println!("it is {}", clock.now().to_rfc3339());
    Ok(())
}
