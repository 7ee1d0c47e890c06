//! Composes a [`Backend`] of its parts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use couple_core::{
    Clock, Entropy, Error, ErrorKind, Keyring, OsEntropy, Ports, Store, SystemClock,
    account::{
        self, Accounts, HashCost, MailJobHandler, PasswordHasher, PurgeAccountsHandler, PurgeTokensHandler,
    },
    job::{PurgeDeadHandler, PurgeOutcomesHandler, Queue, Registry, Schedule, Worker, WorkerOptions},
    limits::RateLimiter,
    live::{Bus, Presence},
    mail::{Links, Mailer},
    media,
    pairing::{self, Directory, InviteMailHandler, Pairings, PurgeInvitesHandler},
    timeline::Timeline,
};
use couple_media::{
    blobs::Blobs,
    gallery::{
        DiscardBlobsHandler, ExpireRenditionsHandler, ExpireUploadsHandler, Gallery, GalleryOptions,
        RenderMediaHandler, SweepBlobsHandler,
    },
};
use couple_notify::{
    live::{Live, LiveOptions},
    mail::MemoryMailer,
};
use couple_store::{MemoryBus, MemoryLimits, MemoryPresence, MemoryStore};

/// Accounts that a run of the purge deletes at most: a mistake must not take everybody.
const PURGED_AT_ONCE: u32 = 20;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What a process does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Role {
    /// Answers requests and works.
    #[default]
    All,
    /// Answers requests only.
    Api,
    /// Works only; on these queues, or on all.
    Worker(Vec<String>),
}

/// The whole back end: its services, and what works in the background. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Backend(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    accounts: Accounts,
    pairings: Pairings,
    timeline: Timeline,
    gallery: Gallery,
    live: Live,
    ports: Ports,
    registry: Registry,
    schedules: Vec<Schedule>,
    queues: Vec<Queue>,
    worker: WorkerOptions,
    stopping: AtomicBool,
}

impl Backend {
    /// Starts to compose one. As it stands, everything is in memory and gone with the process.
    #[must_use]
    pub fn builder() -> BackendBuilder {
        BackendBuilder::default()
    }
    /// Sign-up, sign-in, sessions, recovery, profile, deletion.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }
    /// Inviting, answering, leaving.
    #[must_use]
    pub fn pairings(&self) -> &Pairings {
        &self.0.pairings
    }
    /// Appending, reading, changing, reacting.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.0.timeline
    }
    /// Taking pictures in, and showing them.
    #[must_use]
    pub fn gallery(&self) -> &Gallery {
        &self.0.gallery
    }
    /// Following a couple's log as it grows.
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
    /// What the services work through.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.0.ports
    }
    /// The queues that this backend's jobs wait in.
    #[must_use]
    pub fn queues(&self) -> &[Queue] {
        &self.0.queues
    }
    /// A worker for all queues, to be started, or run until idle in a test.
    #[must_use]
    pub fn worker(&self) -> Worker {
        self.worker_for(self.0.queues.clone())
    }
    /// Says goodbye to live streams and lets go of the store: the last thing to do.
    ///
    /// # Errors
    /// The store's.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.live.drain();
        self.0.ports.store.close().await
    }
    /// A worker for chosen queues, for a process of its own.
    #[must_use]
    pub fn worker_for(&self, queues: Vec<Queue>) -> Worker {
        Worker::new(
            self.0.ports.clone(),
            self.0.registry.clone(),
            self.0.schedules.clone(),
            queues,
            self.0.worker,
        )
    }
}

/// Each method swaps one part.
pub struct BackendBuilder {
    store: Option<Arc<dyn Store>>,
    bus: Option<Arc<dyn Bus>>,
    presence: Option<Arc<dyn Presence>>,
    limits: Option<Arc<dyn RateLimiter>>,
    mailer: Option<Arc<dyn Mailer>>,
    blobs: Option<Blobs>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    keys: Option<Keyring>,
    public_url: String,
    hash_cost: HashCost,
    hash_threads: Option<usize>,
    accounts: account::Policy,
    pairing: pairing::Policy,
    pictures: media::Policy,
    gallery: GalleryOptions,
    live: LiveOptions,
    worker: WorkerOptions,
    mail_concurrency: usize,
    media_concurrency: usize,
    jobs: Registry,
}

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
            blobs: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            keys: None,
            public_url: "http://127.0.0.1:8080".to_owned(),
            hash_cost: HashCost::RECOMMENDED,
            hash_threads: None,
            accounts: account::Policy::default(),
            pairing: pairing::Policy::default(),
            pictures: media::Policy::default(),
            gallery: GalleryOptions::default(),
            live: LiveOptions::default(),
            worker: WorkerOptions::default(),
            mail_concurrency: 8,
            media_concurrency: cores(),
            jobs: Registry::default(),
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
    /// Where everything is kept. Default: in memory.
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }
    /// Who carries notices. Default: within this process.
    #[must_use]
    pub fn bus(mut self, bus: impl Bus) -> Self {
        self.bus = Some(Arc::new(bus));
        self
    }
    /// Who knows who is here. Default: this process for itself.
    #[must_use]
    pub fn presence(mut self, presence: impl Presence) -> Self {
        self.presence = Some(Arc::new(presence));
        self
    }
    /// Who counts. Default: this process for itself.
    #[must_use]
    pub fn limits(mut self, limits: impl RateLimiter) -> Self {
        self.limits = Some(Arc::new(limits));
        self
    }
    /// Who takes mail. Default: a list in memory that nobody sees.
    #[must_use]
    pub fn mailer(mut self, mailer: impl Mailer) -> Self {
        self.mailer = Some(Arc::new(mailer));
        self
    }
    /// Where the bytes of pictures are. Needed with a [`store`](Self::store); without one, in memory.
    #[must_use]
    pub fn blobs(mut self, blobs: Blobs) -> Self {
        self.blobs = Some(blobs);
        self
    }
    /// Where the time comes from. Default: the system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
    /// Where randomness comes from. Default: the system.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }
    /// The server's own secret, the same in every process and after every restart: `KeyFile` keeps it. Needed with a
    /// [`store`](Self::store); without one it is random and ends with the process, as everything else does.
    #[must_use]
    pub fn keys(mut self, keys: Keyring) -> Self {
        self.keys = Some(keys);
        self
    }
    /// What links in mails and the addresses of pictures begin with. Default: `http://127.0.0.1:8080`.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = url.into();
        self
    }
    /// How many threads hash passwords. Default: one for each core.
    #[must_use]
    pub const fn hash_threads(mut self, threads: usize) -> Self {
        self.hash_threads = Some(threads);
        self
    }
    setters! {
        /// What one password hash costs. Default: [`HashCost::RECOMMENDED`].
        hash_cost: HashCost;
        /// How long codes, links and sessions last.
        accounts: account::Policy;
        /// How long invites wait, and how many.
        pairing: pairing::Policy;
        /// How much of pictures is kept.
        pictures: media::Policy;
        /// Which sizes of pictures there are, and what decoding may cost.
        gallery: GalleryOptions;
        /// How live streams wait.
        live: LiveOptions;
        /// How jobs are leased and tried again.
        worker: WorkerOptions;
        /// How many mails are handed over at once. Default: 8.
        mail_concurrency: usize;
        /// Number of pictures that are decoded concurrently; their memory bounds them further. Default: one for each core.
        media_concurrency: usize;
        /// Handlers of the host's own jobs, beside the backend's.
        jobs: Registry;
    }

    /// Composes it.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for a store without [`keys`](Self::keys) or [`blobs`](Self::blobs), and for a hash cost
    /// that there is not.
    pub fn build(self) -> Result<Backend, Error> {
        let keys = match self.keys {
            Some(keys) => keys,
            None if self.store.is_some() => {
                return Err(Error::new(ErrorKind::Misconfigured, "build backend").context(
                    "a store needs .keys(…): codes and links that were mailed would end with this process",
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
                return Err(Error::new(ErrorKind::Misconfigured, "build backend")
                    .context("a store needs .blobs(…): pictures would end with this process"));
            }
            None => Blobs::memory(),
        };
        let limits = self.limits.unwrap_or_else(|| Arc::new(MemoryLimits::new(self.clock.clone())));
        let ports = Ports {
            store: self.store.unwrap_or_else(|| Arc::new(MemoryStore::new())),
            bus: self.bus.unwrap_or_else(|| Arc::new(MemoryBus::new())),
            presence: self.presence.unwrap_or_else(|| Arc::new(MemoryPresence::new())),
            limits,
            clock: self.clock,
            entropy: self.entropy.clone(),
            keys,
            links: Links::new(&self.public_url),
        };
        let threads = self.hash_threads.unwrap_or_else(cores);
        // 19 MiB and two passes take some 15 ms: 64 for each thread are done within a second.
        let hasher = Arc::new(PasswordHasher::new(self.hash_cost, threads, threads * 64, self.entropy)?);
        let accounts = Accounts::new(ports.clone(), hasher, self.accounts.clone());
        let directory: Arc<dyn Directory> = Arc::new(accounts.clone());
        let mailer = self.mailer.unwrap_or_else(|| Arc::new(MemoryMailer::new()));
        let gallery = Gallery::new(ports.clone(), self.pictures, blobs, self.gallery);
        let registry = self
            .jobs
            .with(MailJobHandler::new(ports.clone(), mailer.clone(), self.accounts.clone()))
            .with(InviteMailHandler::new(ports.clone(), directory.clone(), mailer))
            .with(RenderMediaHandler(gallery.clone()))
            .with(DiscardBlobsHandler(gallery.clone()))
            .with(ExpireRenditionsHandler(gallery.clone()))
            .with(ExpireUploadsHandler(gallery.clone()))
            .with(SweepBlobsHandler(gallery.clone()))
            .with(PurgeAccountsHandler::new(ports.clone(), PURGED_AT_ONCE))
            .with(PurgeTokensHandler::new(ports.clone(), self.accounts))
            .with(PurgeInvitesHandler::new(ports.clone()))
            .with(PurgeOutcomesHandler(ports.clone()))
            .with(PurgeDeadHandler(ports.clone()));
        let schedules = vec![
            ExpireRenditionsHandler::schedule(),
            ExpireUploadsHandler::schedule(),
            SweepBlobsHandler::schedule(),
            PurgeAccountsHandler::schedule(),
            PurgeTokensHandler::schedule(),
            PurgeInvitesHandler::schedule(),
            PurgeOutcomesHandler::schedule(),
            PurgeDeadHandler::schedule(),
        ];
        Ok(Backend(Arc::new(Parts {
            accounts,
            pairings: Pairings::new(ports.clone(), directory, self.pairing),
            timeline: Timeline::new(ports.clone()),
            gallery,
            live: Live::new(ports.clone(), self.live),
            ports,
            registry,
            schedules,
            queues: vec![
                Queue::new("mail", self.mail_concurrency),
                Queue::new("media", self.media_concurrency),
                Queue::new("default", 2),
            ],
            worker: self.worker,
            stopping: AtomicBool::new(false),
        })))
    }
}
