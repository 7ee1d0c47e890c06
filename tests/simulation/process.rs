//! A process: a backend with its worker, which dies at any call to a server and is started again.
//!
//! A process acts on others only by calls of its ports. From its death on no call returns, so whatever its tasks were doing has no
//! further effect. The worker's tasks and the requests are dropped.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    AccountId, Backend, CoupleId, Error, ErrorKind, Failure, Keyring,
    blobs::Blobs,
    core::{
        DisplayName, EmailAddress, EmailKey, SeededEntropy,
        limits::Unlimited,
        live::Presence,
        mail::{Mail, Mailer},
    },
    job::{Backoff, Context, Handler, Job, JobError, Queue, WorkerHandle, WorkerOptions},
    notify::live::{CloseReason, Gate},
    pairing::{Contact, Directory, Profile},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    invariant::Planted,
    network::ProcessBus,
    store::ProcessStore,
    world::{PROCESSES, World, failed},
};

/// Time after which the notices of a commit are published, also after a time-out: 3 s, and the duration of calls.
const PUBLISH_BOUND: Duration = Duration::from_secs(6);

/// Process, and how often it was started before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    pub(crate) index: usize,
    pub(crate) start: u32,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}.{}", self.index, self.start)
    }
}

pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) world: Arc<World>,
    /// None after the process died.
    backend: Mutex<Option<Backend>>,
    dead: AtomicBool,
    died: Notify,
    /// Whether the process ends gracefully, and takes no more requests.
    stopping: AtomicBool,
    told_to_stop: Notify,
    /// Number of calls after which the process dies.
    fuse: Mutex<Option<u64>>,
    /// Until then the store does not respond to the process.
    outage_until: Mutex<Instant>,
    /// Couples of the last commits that took effect, with their times.
    recent: Mutex<Vec<(CoupleId, Instant)>>,
}

impl Process {
    /// Starts a process.
    pub(crate) fn start(world: &Arc<World>, id: ProcessId) -> Arc<Self> {
        let process = Arc::new(Self {
            id,
            world: world.clone(),
            backend: Mutex::new(None),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            stopping: AtomicBool::new(false),
            told_to_stop: Notify::new(),
            fuse: Mutex::new(None),
            outage_until: Mutex::new(Instant::now()),
            recent: Mutex::default(),
        });
        let worker = WorkerOptions::default()
            .with_lease(Duration::from_secs(6))
            .with_poll_interval(Duration::from_secs(4))
            .with_abandoned_isolation(Duration::from_secs(2))
            .with_backoff(Backoff { base: Duration::from_millis(500), most: Duration::from_secs(10) });
        let handler = process.clone();
        let backend = Backend::builder()
            .store(ProcessStore(process.clone()))
            .bus(ProcessBus(process.clone()))
            .presence(ProcessPresence(process.clone()))
            .mailer(ProcessMailer(process.clone()))
            .directory(People(world.clone()))
            .limits(Unlimited)
            .blobs(Blobs::memory())
            .keys(Keyring::new([7; 32]))
            .clock(world.clock())
            .entropy(SeededEntropy::new(world.random.below(u64::MAX)))
            .queue(Queue::new(SimulatedJob::QUEUE, 2))
            .jobs(move |jobs, _| jobs.with(SimulatedJobHandler(handler.clone())))
            .worker(worker)
            .build()
            .unwrap();
        let queues = ["mail", "default", SimulatedJob::QUEUE];
        let queues =
            backend.queues().iter().filter(|queue| queues.contains(&&*queue.name)).cloned().collect();
        let running = backend.worker_for(queues).start();
        *process.backend.lock().unwrap() = Some(backend);
        world.note("process started", format_args!("{id} starts"));
        world.processes.lock().unwrap()[id.index] = Some(process.clone());
        tokio::spawn(process.clone().supervise(running));
        process
    }

    /// Runs the worker until the process dies, or has ended gracefully.
    async fn supervise(self: Arc<Self>, worker: WorkerHandle) {
        tokio::select! {
            biased;
            () = self.until_dead() => return,
            () = self.told_to_stop.notified() => {}
        }
        if let Some(backend) = self.backend() {
            backend.live().drain();
        }
        // Jobs that run for longer are aborted, and run again.
        if self.call(worker.stop(Duration::from_secs(5))).await.is_some() {
            self.kill("after a graceful stop");
        }
    }

    /// Ends the process gracefully.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.told_to_stop.notify_one();
    }
    /// Whether the process takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        !self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn backend(&self) -> Option<Backend> {
        self.backend.lock().unwrap().clone()
    }
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Waits for the death of the process.
    pub(crate) async fn until_dead(&self) {
        let mut died = std::pin::pin!(self.died.notified());
        died.as_mut().enable();
        if !self.is_dead() {
            died.await;
        }
    }

    /// Response to a request; none if the process dies before.
    pub(crate) async fn call<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.until_dead() => None,
            answer = request => Some(answer),
        }
    }

    /// Kills the process after this number of further calls to servers.
    pub(crate) fn kill_after(&self, calls: u64) {
        *self.fuse.lock().unwrap() = Some(calls);
    }

    /// Makes the store unreachable for the process.
    pub(crate) fn cut_store(&self, length: Duration) {
        *self.outage_until.lock().unwrap() = Instant::now() + length;
    }
    /// Cancels the planned death and the outage of the process.
    pub(crate) fn calm(&self) {
        *self.fuse.lock().unwrap() = None;
        *self.outage_until.lock().unwrap() = Instant::now();
    }
    pub(crate) fn store_is_cut(&self) -> bool {
        Instant::now() < *self.outage_until.lock().unwrap()
    }

    /// Records that commits of couples have taken effect. If the process dies, their notices may be lost.
    pub(crate) fn committed(&self, couples: impl Iterator<Item = CoupleId>) {
        if self.is_dead() {
            return couples.for_each(|couple| self.world.history().excuse(couple));
        }
        let mut recent = self.recent.lock().unwrap();
        recent.retain(|(_, at)| at.elapsed() < PUBLISH_BOUND);
        recent.extend(couples.map(|couple| (couple, Instant::now())));
    }

    /// Kills the process.
    pub(crate) fn kill(&self, place: &'static str) {
        if self.dead.swap(true, Ordering::SeqCst) {
            return;
        }
        self.world.note(place, format_args!("{} dies {place}", self.id));
        let mut history = self.world.history();
        history.process_died(self.id);
        for (couple, at) in self.recent.lock().unwrap().drain(..) {
            if at.elapsed() < PUBLISH_BOUND {
                history.excuse(couple);
            }
        }
        for couple in self.world.network.process_died(self.id.index) {
            history.excuse(couple);
        }
        drop(history);
        self.world.processes.lock().unwrap()[self.id.index] = None;
        self.died.notify_waiters();
        // The last reference to the backend; its drop calls no port.
        drop(self.backend.lock().unwrap().take());
    }

    /// A point at which the process may die. A dead process does not pass it.
    pub(crate) async fn point(&self, place: &'static str) {
        if !self.is_dead() {
            let struck = {
                let mut fuse = self.fuse.lock().unwrap();
                match &mut *fuse {
                    Some(0) => true,
                    Some(left) => {
                        *left -= 1;
                        false
                    }
                    None => false,
                }
            };
            if struck {
                self.kill(place);
            }
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Calls a server other than the store: takes time, and sometimes fails.
    pub(crate) async fn call_server(&self, operation: &'static str) -> Result<(), Error> {
        self.point("in a call of a server").await;
        self.world.delay().await;
        self.point("in a call of a server").await;
        match self.world.fault(40) {
            true => Err(failed(ErrorKind::Unavailable, operation)),
            false => Ok(()),
        }
    }
}

/// Starts the processes that do not run.
pub(crate) fn start_all(world: &Arc<World>, starts: &mut [u32; PROCESSES]) {
    for index in 0..PROCESSES {
        start_if_dead(world, index, starts);
    }
}

/// Starts a process, unless it runs. Returns whether it was started.
pub(crate) fn start_if_dead(world: &Arc<World>, index: usize, starts: &mut [u32; PROCESSES]) -> bool {
    let dead = world.processes.lock().unwrap()[index].is_none();
    if dead {
        starts[index] += 1;
        Process::start(world, ProcessId { index, start: starts[index] });
    }
    dead
}

/// Presence of a process: the leases of the world.
struct ProcessPresence(Arc<Process>);

#[async_trait]
impl Presence for ProcessPresence {
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error> {
        self.0.call_server("presence").await?;
        let now = Instant::now();
        let before = self.0.world.leases.lock().unwrap().insert(account, now + lease);
        Ok(before.is_none_or(|until| until <= now))
    }
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error> {
        self.0.call_server("presence").await?;
        if let Some(until) = self.0.world.leases.lock().unwrap().get_mut(&account) {
            *until = (*until).min(Instant::now() + lease);
        }
        Ok(())
    }
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error> {
        self.0.call_server("presence").await?;
        let until = self.0.world.leases.lock().unwrap().get(&account).copied();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) && self.0.world.strikes(Planted::EternalPresence, 1) {
            return Ok(Some(Duration::from_secs(60)));
        }
        Ok(left.filter(|left| !left.is_zero()))
    }
}

/// Mailer of a process, which discards mails.
struct ProcessMailer(Arc<Process>);

#[async_trait]
impl Mailer for ProcessMailer {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        self.0.call_server("send mail").await?;
        self.0.world.note("mail", format_args!("{} mails {}", self.0.id, mail.to.as_str()));
        Ok(())
    }
}

/// The people of the world as users of a host.
struct People(Arc<World>);

/// Address of a person.
pub(crate) fn address(name: &str) -> EmailAddress {
    EmailAddress::parse("email", &format!("{name}@example.org")).unwrap()
}

#[async_trait]
impl Directory for People {
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error> {
        let name = self.0.person(person).name;
        Ok(Some(Profile { display_name: DisplayName::from_stored(name.to_owned()) }))
    }
    async fn contact(&self, person: AccountId) -> Result<Option<Contact>, Error> {
        let email = address(self.0.person(person).name);
        Ok(Some(Contact { email, locale: None, time_zone: None }))
    }
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        let owner = self.0.people.iter().find(|person| address(person.name).key() == email);
        Ok(owner.map(|person| person.account))
    }
}

/// Gate of a stream, which always opens.
pub(crate) struct ProcessGate(pub(crate) Arc<Process>);

#[async_trait]
impl Gate for ProcessGate {
    async fn open_for(&self) -> Result<Duration, Failure<CloseReason>> {
        self.0.call_server("check session").await?;
        Ok(Duration::MAX)
    }
}

/// Job that records its runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SimulatedJob {
    pub(crate) number: u64,
    /// Duration of a run; random if none.
    pub(crate) duration: Option<Duration>,
}

impl Job for SimulatedJob {
    const NAME: &'static str = "simulation.job";
    const QUEUE: &'static str = "simulation";
}

struct SimulatedJobHandler(Arc<Process>);

#[async_trait]
impl Handler<SimulatedJob> for SimulatedJobHandler {
    async fn run(&self, job: SimulatedJob, context: &Context) -> Result<(), JobError> {
        let (process, world) = (&self.0, &self.0.world);
        process.point("in a job").await;
        let begun = world.history().begin_run(context.id, process.id);
        let (number, token) = match begun {
            Ok(begun) => begun,
            Err((invariant, text)) => {
                world.violate(invariant, text);
                return Ok(());
            }
        };
        world.note("job run", format_args!("{} runs job {number}, attempt {}", process.id, context.attempt));
        sleep(job.duration.unwrap_or_default()).await;
        // Up to six leases long.
        let millis = if world.random.below(8) == 0 { 20_000 } else { 1_500 };
        for _ in 0..world.random.below(3) {
            sleep(Duration::from_millis(world.random.below(millis))).await;
            process.point("in a job").await;
        }
        let result = match world.random.below(32) {
            0..=3 if world.injects_faults() => Err(JobError::Retry(failed(ErrorKind::Unavailable, "run"))),
            4 if world.injects_faults() => {
                Err(JobError::RetryAfter(failed(ErrorKind::Overloaded, "run"), Duration::from_secs(3)))
            }
            5 if world.injects_faults() => Err(JobError::Dead(failed(ErrorKind::Rejected, "run"))),
            _ => Ok(()),
        };
        world.history().end_run(context.id, process.id, token, result.is_ok());
        world.note(
            "job result",
            format_args!("job {number} {}", if result.is_ok() { "succeeds" } else { "fails" }),
        );
        result
    }
}
