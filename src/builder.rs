//! Composes a [`Backend`] of its parts.

mod entry_kinds;
mod hooks;
mod users;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::Mails;
use couple_core::{
    Clock, CommitError, Entropy, Error, ErrorKind, IdGenerator, Keyring, OsEntropy, Ports, Store,
    SystemClock, UuidV7,
    account::{self, HashCost, PasswordHasher},
    date::{DatePolicy, Dates},
    device::{self, Devices},
    events::Listeners,
    glance::Glances,
    job::{
        DeadJobs, Job, PurgeDeadHandler, PurgeOutcomesHandler, Queue, Registry, Schedule, Worker,
        WorkerOptions,
    },
    limits::RateLimiter,
    live::{Bus, Presence},
    mail::{CheckedMailer, Links, Mailer},
    media,
    notification::{
        EnglishTexts, MailOnLeave, NotificationPolicy, Notifications, NotifyByPush, NotifyWidgets,
        PartnerLeftMailHandler, PushObserver, PushReport, PushTexts, ReloadWidgetHandler,
        ReloadWidgetsHandler, SendDigestHandler, SendPersonPushHandler, SendPushHandler,
    },
    pairing::{self, AcceptedMailHandler, InviteMailHandler, Pairings, PurgeInvitesHandler},
    push::Pusher,
    timeline::{EntryKind, EntryKinds, Timeline},
};
use couple_media::{
    blobs::Blobs,
    gallery::{
        DiscardBlobsHandler, ExpireRenditionsHandler, ExpireUploadsHandler, Gallery, GalleryOptions,
        PictureRenderer, RenderMediaHandler, Renderer, SweepBlobsHandler,
    },
};
use couple_notify::{
    live::{Live, LiveOptions},
    mail::MemoryMailer,
};
use couple_store::{MemoryBus, MemoryLimits, MemoryPresence, MemoryStore};
use users::{AccountOptions, HostUsers, Users};

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The back end: its services and background jobs. Cheap to clone.
#[derive(Clone)]
pub struct Backend(pub(crate) Arc<Parts>);

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("queues", &self.0.queues).finish_non_exhaustive()
    }
}

pub(crate) struct Parts {
    users: Users,
    pub(crate) mails: Mails,
    pairings: Pairings,
    dates: Dates,
    devices: Devices,
    timeline: Timeline,
    notifications: Notifications,
    glances: Glances,
    gallery: Gallery,
    live: Live,
    ports: Ports,
    /// Handlers of the library.
    registry: Registry,
    /// Handlers of the host may hold the backend, so they are made for each worker: otherwise neither would ever be freed.
    host_jobs: Vec<Arc<HostJobs>>,
    schedules: Vec<Schedule>,
    queues: Vec<Queue>,
    worker: WorkerOptions,
    stopping: AtomicBool,
}

impl Backend {
    /// Returns a builder. By default all parts are in memory, and their data ends with the process.
    #[must_use]
    pub fn builder() -> BackendBuilder {
        BackendBuilder::default()
    }
    /// Service for invites, couples and blocks.
    #[must_use]
    pub fn pairings(&self) -> &Pairings {
        &self.0.pairings
    }
    /// Service for the dates of couples.
    #[must_use]
    pub fn dates(&self) -> &Dates {
        &self.0.dates
    }
    /// Service for devices that receive push messages.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.0.devices
    }
    /// Service that appends, reads, edits and deletes entries and sets reactions.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.0.timeline
    }
    /// Service for the notification preferences of persons.
    #[must_use]
    pub fn notifications(&self) -> &Notifications {
        &self.0.notifications
    }
    /// Service for what widgets and watch faces show.
    #[must_use]
    pub fn glances(&self) -> &Glances {
        &self.0.glances
    }
    /// Service that receives, renders and returns pictures.
    #[must_use]
    pub fn gallery(&self) -> &Gallery {
        &self.0.gallery
    }
    /// Service that opens live streams of a couple's log.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.0.live
    }
    /// Announces that this process is about to stop: readiness answers 503 from now on.
    ///
    /// So load balancers send requests elsewhere. Everything else continues to work; `live().drain()` ends live streams.
    pub fn announce_stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }
    /// Whether this process is about to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst) || self.0.live.is_draining()
    }
    /// The ports through which the services reach stores, event bus and other infrastructure.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.0.ports
    }
    /// Queues of this backend's jobs: `mail`, `media`, `default`, `push` with a [`pusher`](BackendBuilder::pusher) or digests, and those of the host.
    #[must_use]
    pub fn queues(&self) -> &[Queue] {
        &self.0.queues
    }
    /// Enqueues a job that is due now. To enqueue it in the same transaction as its cause, commit the change of
    /// [`Ports::enqueue`] with the cause.
    ///
    /// # Errors
    /// The error of the store; [`ErrorKind::Internal`] when the payload cannot be serialized as JSON.
    pub async fn enqueue<J: Job>(&self, job: &J) -> Result<(), Error> {
        let ports = &self.0.ports;
        ports.commit(vec![ports.enqueue(job)?]).await.map(drop).map_err(|error| match error {
            CommitError::Failed(error) => error,
            CommitError::Conflict(conflict) => Error::new(ErrorKind::Internal, "enqueue").source(conflict),
        })
    }
    /// Service that lists dead jobs and makes them live again, for operators.
    #[must_use]
    pub fn dead_jobs(&self) -> DeadJobs {
        DeadJobs::new(self.0.ports.clone())
    }
    /// Worker for all queues: start it, or run it until it is idle in a test.
    #[must_use]
    pub fn worker(&self) -> Worker {
        self.worker_for(self.0.queues.clone())
    }
    /// Ends live streams and closes the store. Call it last.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.live.drain();
        self.0.ports.store.close().await
    }
    /// Worker for the given queues, for a separate worker process.
    #[must_use]
    pub fn worker_for(&self, queues: Vec<Queue>) -> Worker {
        let registry =
            self.0.host_jobs.iter().fold(self.0.registry.clone(), |registry, add| add(registry, self));
        Worker::new(self.0.ports.clone(), registry, self.0.schedules.clone(), queues, self.0.worker)
    }
}

/// Builder of a [`Backend`]: each method replaces one part.
///
/// A part may be shared: an `Arc` of an implementation, or of a `dyn` trait, is an implementation.
pub struct BackendBuilder {
    store: Option<Arc<dyn Store>>,
    bus: Option<Arc<dyn Bus>>,
    presence: Option<Arc<dyn Presence>>,
    limits: Option<Arc<dyn RateLimiter>>,
    mailer: Option<Arc<dyn Mailer>>,
    pusher: Option<Arc<dyn Pusher>>,
    push_observer: Option<PushObserver>,
    push_texts: Arc<dyn PushTexts>,
    blobs: Option<Blobs>,
    renderer: Arc<dyn Renderer>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    ids: Option<Arc<dyn IdGenerator>>,
    keys: Option<Keyring>,
    public_url: String,
    password_hasher: Option<Arc<dyn PasswordHasher>>,
    hash_cost: Option<HashCost>,
    hash_threads: Option<usize>,
    users: HostUsers,
    accounts: account::AccountPolicy,
    pairing: pairing::PairingPolicy,
    dates: DatePolicy,
    devices: device::DevicePolicy,
    pictures: media::MediaPolicy,
    gallery: GalleryOptions,
    notifications: NotificationPolicy,
    live: LiveOptions,
    worker: WorkerOptions,
    queues: Vec<Queue>,
    schedules: Vec<Schedule>,
    jobs: Vec<Arc<HostJobs>>,
    listeners: Listeners,
    entry_kinds: Vec<EntryKind>,
    strict_entry_kinds: bool,
}

/// Adds the handlers of a host.
type HostJobs = dyn Fn(Registry, &Backend) -> Registry + Send + Sync;

impl std::fmt::Debug for BackendBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendBuilder").field("public_url", &self.public_url).finish_non_exhaustive()
    }
}

impl Default for BackendBuilder {
    fn default() -> Self {
        Self {
            store: None,
            bus: None,
            presence: None,
            limits: None,
            mailer: None,
            pusher: None,
            push_observer: None,
            push_texts: Arc::new(EnglishTexts),
            blobs: None,
            renderer: Arc::new(PictureRenderer),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            ids: None,
            keys: None,
            public_url: "http://127.0.0.1:8080".to_owned(),
            password_hasher: None,
            hash_cost: None,
            hash_threads: None,
            users: HostUsers::default(),
            accounts: account::AccountPolicy::default(),
            pairing: pairing::PairingPolicy::default(),
            dates: DatePolicy::default(),
            devices: device::DevicePolicy::default(),
            pictures: media::MediaPolicy::default(),
            gallery: GalleryOptions::default(),
            notifications: NotificationPolicy::default(),
            live: LiveOptions::default(),
            worker: WorkerOptions::default(),
            queues: vec![Queue::new("mail", 8), Queue::new("media", cores()), Queue::new("default", 2)],
            schedules: Vec::new(),
            jobs: Vec::new(),
            listeners: Listeners::default(),
            entry_kinds: Vec::new(),
            strict_entry_kinds: false,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)+) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $name;
            self
        }
    )+};
}

impl BackendBuilder {
    /// Sets the store of all data but pictures' bytes. Default: in memory.
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }
    /// Sets the event bus that notifies live streams and workers of committed changes.
    ///
    /// Default: within this process.
    #[must_use]
    pub fn bus(mut self, bus: impl Bus) -> Self {
        self.bus = Some(Arc::new(bus));
        self
    }
    /// Sets the store of presence. Default: within this process.
    #[must_use]
    pub fn presence(mut self, presence: impl Presence) -> Self {
        self.presence = Some(Arc::new(presence));
        self
    }
    /// Sets the rate limiter. Default: within this process.
    #[must_use]
    pub fn limits(mut self, limits: impl RateLimiter) -> Self {
        self.limits = Some(Arc::new(limits));
        self
    }
    /// Sets the mailer. Default: keeps mails in memory and delivers none; with a [`store`](Self::store), a warning is logged.
    #[must_use]
    pub fn mailer(mut self, mailer: impl Mailer) -> Self {
        self.mailer = Some(Arc::new(mailer));
        self
    }
    /// Sets the sender of push messages. Default: none, and no person is notified.
    ///
    /// Every process that writes needs it: the commit that appends an entry also enqueues the job that notifies the partner. The
    /// jobs are in the queue `push`, of which a process runs 16 concurrently.
    #[must_use]
    pub fn pusher(mut self, pusher: impl Pusher) -> Self {
        self.pusher = Some(Arc::new(pusher));
        self
    }
    /// Sets the texts of push messages. Default: [`EnglishTexts`].
    #[must_use]
    pub fn push_texts(mut self, texts: impl PushTexts) -> Self {
        self.push_texts = Arc::new(texts);
        self
    }
    /// Sets a function that is told what becomes of each notification: why nothing is sent, or what the push service
    /// answered. Sending waits for it, so it must return at once. Default: none.
    #[must_use]
    pub fn on_push(mut self, observer: impl Fn(&PushReport<'_>) + Send + Sync + 'static) -> Self {
        self.push_observer = Some(Arc::new(observer));
        self
    }
    /// Sets the blob store of pictures' bytes. Required with a [`store`](Self::store). Default: in memory.
    #[must_use]
    pub fn blobs(mut self, blobs: Blobs) -> Self {
        self.blobs = Some(blobs);
        self
    }
    /// Sets the engine that decodes and renders pictures. Default: `couple-picture`.
    #[must_use]
    pub fn renderer(mut self, renderer: impl Renderer) -> Self {
        self.renderer = Arc::new(renderer);
        self
    }
    /// Sets the clock. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
    /// Sets the source of randomness. Default: the system's.
    #[must_use]
    pub fn entropy(mut self, entropy: impl Entropy) -> Self {
        self.entropy = Arc::new(entropy);
        self
    }
    /// Sets the generator of ids. Default: [`UuidV7`] with the [entropy](Self::entropy).
    #[must_use]
    pub fn ids(mut self, ids: impl IdGenerator) -> Self {
        self.ids = Some(Arc::new(ids));
        self
    }
    /// Sets the server's secret key.
    ///
    /// Required with a [`store`](Self::store). Default: random, valid until the process ends.
    ///
    /// It must be the same in every process and after every restart: `KeyFile` stores it.
    #[must_use]
    pub fn keys(mut self, keys: Keyring) -> Self {
        self.keys = Some(keys);
        self
    }
    /// Sets the URL under which clients find the router, with the prefix under which the host mounts it.
    ///
    /// Default: `http://127.0.0.1:8080`.
    ///
    /// Links in mails and URLs of pictures begin with it.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = url.into();
        self
    }
    /// Sets the password hasher. Default: [`Argon2id`](account::Argon2id) with the [`hash_cost`](Self::hash_cost).
    ///
    /// It must verify all hashes that the store has: after a change of the algorithm, also those of the former one. It has its own cost,
    /// so it cannot be combined with a [`hash_cost`](Self::hash_cost). Unused with a [`directory`](Self::directory) of the host.
    #[must_use]
    pub fn password_hasher(mut self, hasher: impl PasswordHasher) -> Self {
        self.password_hasher = Some(Arc::new(hasher));
        self
    }
    /// Sets the cost of a password hash by Argon2id. Default: [`HashCost::RECOMMENDED`]. Unused with a [`directory`](Self::directory) of the
    /// host.
    #[must_use]
    pub const fn hash_cost(mut self, cost: HashCost) -> Self {
        self.hash_cost = Some(cost);
        self
    }
    /// Sets the number of threads that hash passwords. Default: one per core.
    #[must_use]
    pub const fn hash_threads(mut self, threads: usize) -> Self {
        self.hash_threads = Some(threads);
        self
    }
    setters! {
        /// Sets lifetimes of codes, links and sessions.
        accounts: account::AccountPolicy;
        /// Sets the lifetime and the maximum number of invites.
        pairing: pairing::PairingPolicy;
        /// Sets the maximum number of dates of a couple.
        dates: DatePolicy;
        /// Sets the maximum number of devices of a person.
        devices: device::DevicePolicy;
        /// Sets quotas of pictures.
        pictures: media::MediaPolicy;
        /// Sets renditions of pictures, and limits of decoding.
        gallery: GalleryOptions;
        /// Sets delays and lifetimes of push messages, and permits mail digests and messages about a partner who has left.
        notifications: NotificationPolicy;
        /// Sets intervals and limits of live streams.
        live: LiveOptions;
        /// Sets leases and retries of jobs.
        worker: WorkerOptions;
    }
    /// Adds handlers of the host's own jobs. They may hold the backend: the function is called for each worker, and in
    /// [`build`](Self::build) for a check.
    ///
    /// ```
    /// # use couple::{Backend, job::{Context, Job}};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Greet { name: String }
    ///
    /// impl Job for Greet {
    ///     const NAME: &'static str = "host.greet";
    ///     const QUEUE: &'static str = "default";
    /// }
    ///
    /// let backend = Backend::builder()
    ///     .jobs(|jobs, backend| {
    ///         let backend = backend.clone();
    ///         jobs.with_fn(move |job: Greet, context: Context| {
    ///             let backend = backend.clone();
    ///             async move {
    ///                 println!("hello {}, at {:?}, attempt {}", job.name, backend.ports().now(), context.attempt);
    ///                 Ok(())
    ///             }
    ///         })
    ///     })
    ///     .build()?;
    /// # Ok::<(), couple::Error>(())
    /// ```
    #[must_use]
    pub fn jobs(mut self, add: impl Fn(Registry, &Backend) -> Registry + Send + Sync + 'static) -> Self {
        self.jobs.push(Arc::new(add));
        self
    }
    /// Adds a queue of the host's jobs, or replaces the concurrency of a queue.
    ///
    /// Default: `mail` with 8 concurrent jobs, `media` with one per core (memory limits it further), and `default` with 2.
    #[must_use]
    pub fn queue(mut self, queue: Queue) -> Self {
        self.queues.retain(|known| known.name != queue.name);
        self.queues.push(queue);
        self
    }
    /// Adds a recurring job of the host.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedules.push(schedule);
        self
    }

    /// Builds the backend.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for a store without [`keys`](Self::keys) or [`blobs`](Self::blobs), for an authenticator without a
    /// [`directory`](Self::directory), for built-in accounts with an invalid hash cost or one together with a [`password_hasher`](Self::password_hasher), for a handler
    /// whose queue is not among the [queues](Self::queue), for two handlers of one job name, for a queue name that is empty or has a comma
    /// or white space, for a [public URL](Self::public_url) that is not of the form `https://HOST/PREFIX`, for a
    /// [schedule](Self::schedule) without a handler, and for an [entry kind](Self::entry_kind) with
    /// an invalid name or schema.
    pub fn build(self) -> Result<Backend, Error> {
        check_public_url(&self.public_url)?;
        let (has_store, has_pusher) = (self.store.is_some(), self.pusher.is_some());
        let keys = match self.keys {
            Some(keys) => keys,
            None if self.store.is_some() => {
                return Err(Error::new(ErrorKind::Misconfigured, "build backend").context(
                    "a store needs .keys(…): with a random key, mailed codes and links stop working when this process ends",
                ));
            }
            None => {
                let mut key = [0; 32];
                self.entropy.fill(&mut key);
                Keyring::new(key)
            }
        };
        let blobs = match self.blobs {
            Some(blobs) => blobs,
            None if self.store.is_some() => {
                return Err(Error::new(ErrorKind::Misconfigured, "build backend").context(
                    "a store needs .blobs(…): in memory, pictures are lost when this process ends",
                ));
            }
            None => Blobs::memory(),
        };
        let kinds = EntryKinds::new(self.entry_kinds, self.strict_entry_kinds)?;
        let (mut listeners, mut queues) = (self.listeners, self.queues);
        let policy = self.notifications;
        listeners = listeners.with(MailOnLeave::new(&policy));
        if has_pusher {
            listeners = listeners.with(NotifyWidgets::new(kinds.clone()));
        }
        if has_pusher || policy.permits_digests() {
            listeners = listeners.with(NotifyByPush::new(kinds.clone(), policy.clone(), has_pusher));
            if !queues.iter().any(|queue| queue.name == "push") {
                queues.push(Queue::new("push", 16));
            }
        }
        if policy.permits_digests() && !queues.iter().any(|queue| queue.name == "digest") {
            queues.push(Queue::new("digest", 2));
        }
        let limits = self.limits.unwrap_or_else(|| Arc::new(MemoryLimits::new(self.clock.clone())));
        let ports = Ports {
            store: self.store.unwrap_or_else(|| Arc::new(MemoryStore::new())),
            bus: self.bus.unwrap_or_else(|| Arc::new(MemoryBus::new())),
            presence: self.presence.unwrap_or_else(|| Arc::new(MemoryPresence::new())),
            limits,
            clock: self.clock,
            entropy: self.entropy.clone(),
            ids: self.ids.unwrap_or_else(|| Arc::new(UuidV7::new(self.entropy.clone()))),
            keys,
            links: Links::new(&self.public_url),
            listeners,
        };
        let options = AccountOptions {
            policy: self.accounts,
            password_hasher: self.password_hasher,
            hash_cost: self.hash_cost,
            hash_threads: self.hash_threads.unwrap_or_else(cores),
        };
        let users = self.users.compose(&ports, options, self.entropy)?;
        let mailer: Arc<dyn Mailer> = self.mailer.unwrap_or_else(|| {
            if has_store {
                tracing::warn!("no .mailer(…): mails are kept in memory and not delivered");
            }
            Arc::new(MemoryMailer::new())
        });
        let mails = Mails(CheckedMailer::new(ports.clone(), users.directory.clone(), mailer));
        let mailer: Arc<dyn Mailer> = Arc::new(mails.clone());
        let gallery = Gallery::new(ports.clone(), self.pictures, blobs, self.renderer, self.gallery);
        let mut registry = users
            .register(Registry::default(), &ports, &mailer, has_pusher)
            .with(InviteMailHandler::new(ports.clone(), users.directory.clone(), mailer.clone()))
            .with(AcceptedMailHandler::new(ports.clone(), users.directory.clone(), mailer.clone()))
            .with(PartnerLeftMailHandler::new(ports.clone(), users.directory.clone(), mailer.clone()))
            .with(RenderMediaHandler(gallery.clone()))
            .with(DiscardBlobsHandler(gallery.clone()))
            .with(ExpireRenditionsHandler(gallery.clone()))
            .with(ExpireUploadsHandler(gallery.clone()))
            .with(SweepBlobsHandler(gallery.clone()))
            .with(PurgeInvitesHandler::new(ports.clone()))
            .with(PurgeOutcomesHandler(ports.clone()))
            .with(PurgeDeadHandler(ports.clone()));
        if policy.permits_digests() {
            registry = registry.with(SendDigestHandler::new(
                ports.clone(),
                users.directory.clone(),
                mailer,
                kinds.clone(),
                policy.clone(),
            ));
        }
        let timeline = Timeline::new(ports.clone()).with_kinds(kinds.clone());
        if let Some(pusher) = &self.pusher {
            registry = registry
                .with(ReloadWidgetsHandler::new(ports.clone(), users.session_policy()))
                .with(ReloadWidgetHandler::new(ports.clone(), pusher.clone(), users.session_policy()));
            let handler = SendPersonPushHandler::new(
                ports.clone(),
                users.directory.clone(),
                (pusher.clone(), self.push_texts.clone()),
                policy.clone(),
                users.session_policy(),
            );
            registry = registry.with(handler.with_observer(self.push_observer.clone()));
        }
        if has_pusher || policy.permits_digests() {
            let handler = SendPushHandler::new(
                ports.clone(),
                users.directory.clone(),
                (self.pusher, self.push_texts),
                kinds.clone(),
                policy.clone(),
                users.session_policy(),
            );
            registry = registry.with(handler.with_observer(self.push_observer));
        }
        let mut schedules = vec![
            ExpireRenditionsHandler::schedule(),
            ExpireUploadsHandler::schedule(),
            SweepBlobsHandler::schedule(),
            PurgeInvitesHandler::schedule(),
            PurgeOutcomesHandler::schedule(),
            PurgeDeadHandler::schedule(),
        ];
        schedules.extend(users.schedules(has_pusher));
        schedules.extend(self.schedules);
        let backend = Backend(Arc::new(Parts {
            mails,
            pairings: Pairings::new(ports.clone(), users.directory.clone(), self.pairing),
            dates: Dates::new(ports.clone(), users.directory.clone(), self.dates),
            devices: Devices::new(ports.clone(), self.devices),
            glances: Glances::new(
                ports.clone(),
                users.directory.clone(),
                timeline.clone(),
                users.accounts.is_none(),
            ),
            timeline,
            notifications: Notifications::new(ports.clone(), &policy),
            gallery,
            live: Live::new(ports.clone(), users.session_checker(), self.live),
            users,
            ports,
            registry,
            host_jobs: self.jobs,
            schedules,
            queues,
            worker: self.worker,
            stopping: AtomicBool::new(false),
        }));
        backend.worker().check()?;
        Ok(backend)
    }
}

/// Checks that the URL has a scheme, a host and no query: links and URLs of pictures begin with it.
fn check_public_url(url: &str) -> Result<(), Error> {
    let address = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let unusable = |c: char| c.is_whitespace() || matches!(c, '?' | '#');
    if address.is_empty() || address.starts_with('/') || address.contains(unusable) {
        return Err(Error::new(ErrorKind::Misconfigured, "build backend").context(format!(
            "the public URL {url:?} is not of the form https://HOST or https://HOST/PREFIX"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use couple_core::account::Argon2id;

    use super::*;

    #[test]
    fn public_url_has_scheme_and_host() {
        let build = |url: &str| Backend::builder().hash_cost(HashCost::FOR_TESTS).public_url(url).build();
        for url in ["https://my.app", "http://127.0.0.1:8080/love", "https://my.app/a/b/", "http://[::1]:80"]
        {
            assert!(build(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "my.app/love",
            "/love",
            "https://",
            "https:///love",
            "ftp://my.app",
            "https://my.app/?a=b#c",
            "https://my app",
        ] {
            let error = build(url).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{url}");
            assert!(error.to_string().contains(&format!("{url:?}")), "{error}");
        }
    }

    #[test]
    fn queue_name_fits_into_a_role() {
        let build =
            |name: &str| Backend::builder().hash_cost(HashCost::FOR_TESTS).queue(Queue::new(name, 1)).build();
        assert!(build("crm-export").is_ok());
        for name in ["", "crm export", "crm,mail", "crm\n"] {
            let error = build(name).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{name:?}");
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn every_port_may_be_shared() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new());
        let presence: Arc<dyn Presence> = Arc::new(MemoryPresence::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let limits: Arc<dyn RateLimiter> = Arc::new(MemoryLimits::new(clock.clone()));
        let mailer: Arc<dyn Mailer> = Arc::new(MemoryMailer::new());
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let ids: Arc<dyn IdGenerator> = Arc::new(UuidV7::new(OsEntropy));
        let hasher: Arc<dyn PasswordHasher> = Arc::new(Argon2id::new(HashCost::FOR_TESTS).unwrap());
        let builder =
            Backend::builder().store(store).bus(bus).presence(presence).limits(limits).mailer(mailer);
        let builder =
            builder.clock(clock).entropy(entropy).keys(Keyring::new([7; 32])).blobs(Blobs::memory());
        let builder = builder.ids(ids).password_hasher(hasher);
        builder.build().unwrap();
    }

    #[test]
    fn cost_of_argon2id_beside_another_hasher_is_refused() {
        let hasher = Argon2id::new(HashCost::FOR_TESTS).unwrap();
        let both = Backend::builder().password_hasher(hasher).hash_cost(HashCost::RECOMMENDED);
        assert_eq!(both.build().unwrap_err().kind(), ErrorKind::Misconfigured);
    }
}
