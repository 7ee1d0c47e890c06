//! State that the processes of a run share: the store, the network, presence, time, people and the history.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use couple::{
    AccountId, Clock, Error, ErrorKind, Secret, Timestamp,
    core::{InviteId, SeededEntropy},
    job::ClaimedJob,
    store::MemoryStore,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    follower::Device,
    history::History,
    invariant::{Invariant, Planted},
    network::Network,
    process::Process,
    seeded_random::SeededRandom,
};

/// Number of people. Few, so that they meet often.
pub(crate) const PEOPLE: usize = 6;
/// Number of processes.
pub(crate) const PROCESSES: usize = 3;
/// Lines of the trace that are printed after a failure.
const LAST_LINES: usize = 30;

/// A violated invariant.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) text: String,
    /// Step of the run that violated it.
    pub(crate) step: u64,
    /// Last lines of the trace.
    pub(crate) trace: String,
}

/// Events of a run, as text.
#[derive(Default)]
struct Trace {
    last: VecDeque<String>,
    digest: DefaultHasher,
    /// Number of events by kind.
    counts: BTreeMap<&'static str, u64>,
    step: u64,
    violation: Option<Violation>,
}

/// A person, who uses one device.
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) account: AccountId,
    pub(crate) device: Device,
}

/// Shared state of one run.
pub(crate) struct World {
    pub(crate) random: SeededRandom,
    pub(crate) planted: Option<Planted>,
    /// Whether faults are injected.
    injecting: AtomicBool,
    started: Instant,
    pub(crate) data: MemoryStore,
    pub(crate) network: Network,
    /// Ends of the leases of presence.
    pub(crate) leases: Mutex<BTreeMap<AccountId, Instant>>,
    /// Job that was claimed last, for a planted fault.
    pub(crate) last_claimed: Mutex<Option<ClaimedJob>>,
    /// Codes of invites, which any person may accept.
    pub(crate) codes: Mutex<Vec<(InviteId, Secret<String>)>>,
    pub(crate) people: Vec<Person>,
    pub(crate) processes: Mutex<[Option<Arc<Process>>; PROCESSES]>,
    history: Mutex<History>,
    trace: Mutex<Trace>,
    /// Notified at the first violation.
    pub(crate) violated: Notify,
}

/// Clock that follows the virtual time of the runtime.
pub(crate) struct SimulatedClock(pub(crate) Instant);

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        // 2026-01-01 00:00 UTC.
        Timestamp::from_micros(1_767_225_600_000_000).plus(self.monotonic())
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>) -> Arc<Self> {
        let (random, started) = (SeededRandom::default(), Instant::now());
        random.seed(seed);
        let (clock, entropy) = (SimulatedClock(started), SeededEntropy::new(random.below(u64::MAX)));
        let names: [&str; PEOPLE] = ["Ana", "Ben", "Cleo", "Dan", "Eva", "Finn"];
        let person =
            |name| Person { name, account: AccountId::new(&clock, &entropy), device: Device::default() };
        Arc::new(Self {
            random,
            planted,
            injecting: AtomicBool::new(true),
            started,
            data: MemoryStore::new(),
            network: Network::new(started),
            leases: Mutex::default(),
            last_claimed: Mutex::default(),
            codes: Mutex::default(),
            people: names.map(person).into(),
            processes: Mutex::default(),
            history: Mutex::default(),
            trace: Mutex::default(),
            violated: Notify::new(),
        })
    }

    pub(crate) fn clock(&self) -> SimulatedClock {
        SimulatedClock(self.started)
    }
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }
    pub(crate) fn injects_faults(&self) -> bool {
        self.injecting.load(Ordering::SeqCst)
    }
    pub(crate) fn end_faults(&self) {
        self.injecting.store(false, Ordering::SeqCst);
        self.note("faults", format_args!("no more faults are injected"));
    }
    /// Whether a fault happens now, once in `rarity` times.
    pub(crate) fn fault(&self, rarity: u64) -> bool {
        self.random.below(rarity) == 0 && self.injects_faults()
    }
    /// Whether this planted fault strikes now, once in `rarity` times.
    pub(crate) fn strikes(&self, planted: Planted, rarity: u64) -> bool {
        self.planted == Some(planted) && self.random.below(rarity) == 0
    }

    /// Waits for the duration of a call to a server: mostly zero, sometimes long.
    pub(crate) async fn delay(&self) {
        let millis = match (self.injects_faults(), self.random.below(100)) {
            (true, 0) => 50 + self.random.below(350),
            (true, 1..=5) => 5 + self.random.below(50),
            (_, 6..=25) => 1 + self.random.below(4),
            _ => return,
        };
        sleep(Duration::from_millis(millis)).await;
    }

    /// Person of an account.
    pub(crate) fn person(&self, account: AccountId) -> &Person {
        self.people.iter().find(|person| person.account == account).unwrap()
    }

    /// A random process that takes requests.
    pub(crate) fn any_process(&self) -> Option<Arc<Process>> {
        let processes = self.processes.lock().unwrap().clone();
        let ready: Vec<_> = processes.iter().flatten().filter(|process| process.is_ready()).collect();
        match ready.len() {
            0 => None,
            count => Some(ready[self.choose(count)].clone()),
        }
    }

    /// Random index into a list of this length.
    pub(crate) fn choose(&self, length: usize) -> usize {
        usize::try_from(self.random.below(length as u64)).unwrap()
    }

    /// Counts an event, and adds it to the trace.
    pub(crate) fn note(&self, kind: &'static str, what: fmt::Arguments<'_>) {
        let line = format!("{:>9.3} s  {what}", self.started.elapsed().as_secs_f64());
        let mut trace = self.trace.lock().unwrap();
        line.hash(&mut trace.digest);
        if trace.last.len() == LAST_LINES {
            trace.last.pop_front();
        }
        trace.last.push_back(line);
        *trace.counts.entry(kind).or_default() += 1;
    }

    /// Records that an invariant does not hold; the first violation ends the run.
    pub(crate) fn violate(&self, invariant: Invariant, text: String) {
        let mut trace = self.trace.lock().unwrap();
        if trace.violation.is_none() {
            let lines: Vec<String> = trace.last.iter().cloned().collect();
            let (step, trace_text) = (trace.step, lines.join("\n"));
            trace.violation = Some(Violation { invariant, text, step, trace: trace_text });
            self.violated.notify_one();
        }
    }
    /// Records a violation, if there is one.
    pub(crate) fn require(&self, checked: Result<(), (Invariant, String)>) {
        if let Err((invariant, text)) = checked {
            self.violate(invariant, text);
        }
    }
    pub(crate) fn is_violated(&self) -> bool {
        self.trace.lock().unwrap().violation.is_some()
    }

    pub(crate) fn count_step(&self) {
        self.trace.lock().unwrap().step += 1;
    }
    /// Steps, digest of the trace, numbers of events, and the first violation.
    pub(crate) fn outcome(&self) -> (u64, u64, BTreeMap<&'static str, u64>, Option<Violation>) {
        let mut trace = self.trace.lock().unwrap();
        (trace.step, trace.digest.finish(), std::mem::take(&mut trace.counts), trace.violation.take())
    }
}

/// Error of a simulated server.
pub(crate) fn failed(kind: ErrorKind, operation: &'static str) -> Error {
    Error::new(kind, operation).context("injected")
}
