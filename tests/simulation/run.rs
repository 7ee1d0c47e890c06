//! One run: people act and faults happen for a number of steps, then the faults end and everything must settle.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use couple::{
    CoupleId,
    pairing::PairingReads as _,
    timeline::{Entry, Page, TimelineReads as _},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    follower::{self, PRESENCE_BOUND},
    invariant::{Invariant, Planted},
    process::{SimulatedJob, start_all, start_if_dead},
    requests::{self, Request},
    world::{PEOPLE, PROCESSES, Violation, World},
};

/// Time within which entries arrive when no faults are injected. A sweep takes 22.5 s or more.
const CALM_BOUND: Duration = Duration::from_secs(3);
/// Time within which jobs end when no faults are injected: a lease, retries, and runs.
const JOBS_BOUND: Duration = Duration::from_mins(4);

type Checked = Result<(), (Invariant, String)>;

/// Result of a run.
pub(crate) struct Outcome {
    /// Actions and faults.
    pub(crate) steps: u64,
    /// Digest of the trace.
    pub(crate) digest: u64,
    /// Number of events by kind.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) violation: Option<Violation>,
}

/// Runs a seed in virtual time.
pub(crate) fn run(seed: u64, steps: u64, planted: Option<Planted>) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, planted);
        let mut driver =
            Driver { world: world.clone(), requests: JoinSet::new(), starts: [0; PROCESSES], number: 0 };
        driver.run(steps).await;
        let (steps, digest, counts, violation) = world.outcome();
        // A process and its backend refer to each other.
        let processes = world.processes.lock().unwrap().clone();
        processes.iter().flatten().for_each(|process| process.kill("at the end of the run"));
        Outcome { steps, digest, counts, violation }
    })
}

struct Driver {
    world: Arc<World>,
    requests: JoinSet<()>,
    /// Number of starts of each process.
    starts: [u32; PROCESSES],
    /// Number of the last request.
    number: u64,
}

impl Driver {
    async fn run(&mut self, steps: u64) {
        let mut tasks = JoinSet::new();
        start_all(&self.world, &mut self.starts);
        for person in 0..PEOPLE {
            tasks.spawn(follower::follow(self.world.clone(), person));
        }
        tasks.spawn(follower::watch(self.world.clone()));
        for _ in 0..steps {
            if self.world.is_violated() {
                return;
            }
            self.world.count_step();
            self.step();
            let gap = self.gap();
            tokio::select! {
                biased;
                () = self.world.violated.notified() => return,
                () = sleep(gap) => {}
            }
            while self.requests.try_join_next().is_some() {}
        }
        let world = self.world.clone();
        let checked = tokio::select! {
            biased;
            () = world.violated.notified() => return,
            checked = self.settle() => checked,
        };
        self.world.require(checked);
    }

    /// Time until the next step.
    fn gap(&self) -> Duration {
        let random = &self.world.random;
        Duration::from_millis(match random.below(120) {
            // Long enough that no later notice hides the loss of one.
            0 => 15_000 + random.below(20_000),
            1..=10 => random.below(2_000),
            11..=80 => random.below(200),
            _ => random.below(20),
        })
    }

    /// One action of a person or a device, or one fault.
    fn step(&mut self) {
        let (world, random) = (self.world.clone(), self.world.random.clone());
        let index = world.choose(PROCESSES);
        let process = world.processes.lock().unwrap()[index].clone();
        match random.below(100) {
            0..=2 => {
                if let Some(process) = process {
                    process.kill_after(random.below(40));
                }
            }
            3 => {
                if let Some(process) = process {
                    process.stop();
                    world.note("stop", format_args!("{} ends gracefully", process.id));
                }
            }
            4..=13 => drop(start_if_dead(&world, index, &mut self.starts)),
            14 => {
                if world.network.partition(index) {
                    world.note("partition", format_args!("process {index} has no connection to the others"));
                }
            }
            15..=21 => {
                world.network.heal(index);
                world.note("heal", format_args!("process {index} has a connection to the others"));
            }
            22 => {
                world.network.reconnect(&world, index);
                world.note("reconnect", format_args!("the bus connection of process {index} breaks"));
            }
            23 => {
                if let Some(process) = process {
                    process.cut_store(Duration::from_millis(random.below(3_000)));
                    world.note("outage", format_args!("the store does not respond to {}", process.id));
                }
            }
            24..=28 => {
                let person = &world.people[world.choose(PEOPLE)];
                let on = random.below(5) > 0;
                person.device.set(on, None);
                world.note(
                    "device",
                    format_args!("{} turns the device {}", person.name, if on { "on" } else { "off" }),
                );
            }
            29..=33 => {
                let number = self.next_number();
                self.request(0, Request::Enqueue { number });
            }
            _ => {
                let person = world.choose(PEOPLE);
                if let Some(request) = self.choose(person) {
                    self.request(person, request);
                }
            }
        }
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn request(&mut self, person: usize, request: Request) {
        let number = self.next_number();
        self.requests.spawn(requests::make(self.world.clone(), person, request, number));
    }

    /// Next request of a person.
    fn choose(&mut self, index: usize) -> Option<Request> {
        let (world, random) = (self.world.clone(), self.world.random.clone());
        let account = world.people[index].account;
        let history = world.history();
        let Some((couple, log)) = history.couple_of(account).map(|(couple, log)| (couple, log.head())) else {
            drop(history);
            let other = world.people[world.choose(PEOPLE)].name;
            return Some(match random.below(20) {
                0..=8 => {
                    Request::Invite { target: Some(other).filter(|other| *other != world.people[index].name) }
                }
                9..=10 => Request::Invite { target: None },
                11 => Request::Decline,
                12 => Request::Withdraw,
                13..=15 => {
                    let codes = world.codes.lock().unwrap();
                    let newest = codes.len().checked_sub(1 + world.choose(3))?;
                    Request::Accept { code: Some(codes[newest].0) }
                }
                _ => Request::Accept { code: None },
            });
        };
        drop(history);
        // Mostly a recent entry.
        let seq = (log - i64::try_from(random.below(6)).unwrap()).max(1);
        let number = self.next_number();
        Some(match random.below(100) {
            0..=2 => Request::Leave { couple },
            3 => Request::Invite { target: None },
            4..=12 => Request::Edit { couple, seq, text: format!("edited-{number}") },
            13..=22 => {
                Request::React { couple, seq, emoji: [Some("❤️"), Some("👍"), None][world.choose(3)] }
            }
            23..=27 => Request::Delete { couple, seq },
            28..=37 => Request::MarkRead { couple, seq },
            38..=44 => Request::Signal { couple },
            chance => {
                let id = format!("{}-{number}", world.people[index].name);
                let job = (chance < 50).then(|| self.next_number());
                if let Some(job) = job {
                    world.history().jobs_of_entries.insert(id.clone(), job);
                }
                Request::Append { couple, id, job }
            }
        })
    }

    /// Ends the faults, and waits until everything has settled.
    async fn settle(&mut self) -> Checked {
        self.end_faults();
        let ended =
            timeout(Duration::from_mins(3), async { while self.requests.join_next().await.is_some() {} });
        if ended.await.is_err() {
            return Err((
                Invariant::RequestsEnd,
                "a request has not ended 3 min after the faults".to_owned(),
            ));
        }
        requests::check_outcomes(&self.world)?;
        self.wait_for_jobs().await?;
        self.check_long_job().await?;
        self.check_store().await?;
        self.check_last_entries().await?;
        self.check_presence().await
    }

    fn end_faults(&mut self) {
        let world = &self.world;
        world.end_faults();
        let processes = world.processes.lock().unwrap().clone();
        for process in processes.iter().flatten() {
            process.calm();
            if !process.is_ready() {
                process.kill("while it ends gracefully");
            }
        }
        for index in 0..PROCESSES {
            world.network.heal(index);
        }
        start_all(world, &mut self.starts);
        for person in &world.people {
            person.device.set(true, None);
        }
    }

    async fn wait_for_jobs(&self) -> Checked {
        let deadline = Instant::now() + JOBS_BOUND;
        while let Some(job) = requests::unfinished_job(&self.world) {
            if Instant::now() > deadline {
                let text = format!("{job} has not ended {JOBS_BOUND:?} after the faults");
                return Err((Invariant::JobsEnd, text));
            }
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// A job of three leases runs once: its lease is renewed.
    async fn check_long_job(&mut self) -> Checked {
        let number = self.next_number();
        let job = SimulatedJob { number, duration: Some(Duration::from_secs(20)) };
        let process = self.world.any_process().unwrap();
        process.backend().unwrap().enqueue(&job).await.unwrap();
        self.wait_for_jobs().await?;
        let history = self.world.history();
        let job = history.jobs.values().find(|job| job.payload == Some(number));
        match job.map_or(0, |job| job.runs) {
            1 => Ok(()),
            runs => Err((Invariant::LeaseRenewed, format!("job {number} of 20 s had {runs} runs"))),
        }
    }

    /// Couples that have not ended, with the indexes of their members.
    fn couples(&self) -> Vec<(CoupleId, [usize; 2])> {
        let history = self.world.history();
        let index = |account| self.world.people.iter().position(|person| person.account == account).unwrap();
        let active = history.couples.iter().filter(|(_, couple)| couple.ended_at.is_none());
        active.map(|(id, couple)| (*id, couple.members.map(index))).collect()
    }

    /// Compares the store with the history, and the two members of each couple.
    async fn check_store(&self) -> Checked {
        let data = &self.world.data;
        let logs: Vec<_> = {
            let history = self.world.history();
            history.couples.iter().map(|(id, couple)| (*id, couple.number, couple.head())).collect()
        };
        for (id, number, head) in logs {
            let entries = log(&self.world, id).await;
            let history = self.world.history();
            let same = entries.iter().all(|entry| {
                let appended = history.couples[&id].entry(entry.seq);
                appended.is_some_and(|appended| {
                    appended.client_id == entry.client_id && appended.kind == entry.kind
                })
            });
            if !same || entries.len() != usize::try_from(head).unwrap() {
                let text = format!("the log of couple {number} has other entries than were appended");
                return Err((Invariant::AppendedOnce, text));
            }
        }
        for person in &self.world.people {
            let couple = data.couple_of(person.account).await.unwrap();
            let expected = self.world.history().current.get(&person.account).copied();
            let mut both = couple.as_ref().map(|couple| couple.id) == expected;
            if let Some(couple) = couple {
                let partner = follower::partner(&couple.members, person.account);
                let theirs = data.couple_of(partner).await.unwrap();
                both &= couple.ended_at.is_none() && theirs.is_some_and(|theirs| theirs.id == couple.id);
            }
            if !both {
                let text =
                    format!("{} is in another couple than the history and the partner say", person.name);
                return Err((Invariant::OneCouple, text));
            }
        }
        Ok(())
    }

    /// Appends an entry to each log, which must arrive by a notice, and compares what the devices show.
    async fn check_last_entries(&mut self) -> Checked {
        sleep(CALM_BOUND).await;
        for (couple, members) in self.couples() {
            let number = self.next_number();
            let id = format!("last-{number}");
            self.request(members[0], Request::Append { couple, id, job: None });
        }
        sleep(CALM_BOUND).await;
        follower::check_delays(&self.world, Duration::ZERO);
        for (id, members) in self.couples() {
            let entries = log(&self.world, id).await;
            let couple = self.world.data.couple(id).await.unwrap().unwrap();
            for person in members.map(|index| &self.world.people[index]) {
                let state = person.device.state.lock().unwrap();
                let number = self.world.history().couples[&id].number;
                if state.couple != Some(id) || state.seen != couple.head_seq {
                    let text = format!("{} does not have the last entry of couple {number}", person.name);
                    return Err((Invariant::DeliveredInTime, text));
                }
                if !state.entries.values().eq(&entries) || state.read != couple.read {
                    let differs = |entry: &&Entry| state.entries.get(&entry.seq) != Some(entry);
                    let text = format!(
                        "{} shows couple {number} otherwise than it is; read {:?} and {:?}; first difference: {:?}",
                        person.name,
                        state.read,
                        couple.read,
                        entries.iter().find(differs),
                    );
                    return Err((Invariant::SameContent, text));
                }
            }
        }
        Ok(())
    }

    /// The members of each couple see each other; after the process of one has died, the other sees it away.
    async fn check_presence(&self) -> Checked {
        let couples = self.couples();
        let devices = |member: usize| couples.iter().map(move |(_, members)| members[member]);
        for (member, process) in [(0, 0), (1, 1)] {
            devices(member).for_each(|index| self.world.people[index].device.set(true, Some(process)));
        }
        sleep(Duration::from_secs(30)).await;
        self.require_presence(devices(0).chain(devices(1)), true)?;
        devices(0).for_each(|index| self.world.people[index].device.state.lock().unwrap().on = false);
        let process = self.world.processes.lock().unwrap()[0].clone();
        process.unwrap().kill("with all its streams");
        sleep(PRESENCE_BOUND).await;
        self.require_presence(devices(1), false)
    }

    fn require_presence(&self, mut people: impl Iterator<Item = usize>, here: bool) -> Checked {
        let wrong = people.find(|index| {
            self.world.people[*index].device.state.lock().unwrap().partner_is_here != Some(here)
        });
        match wrong {
            None => Ok(()),
            Some(index) => {
                let state = if here { "here" } else { "away" };
                let text = format!("{} does not see the partner {state}", self.world.people[index].name);
                Err((Invariant::PresenceEnds, text))
            }
        }
    }
}

/// All entries of a couple.
async fn log(world: &World, couple: CoupleId) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry| entry.seq);
        let page = world.data.entries(couple, Page::After(after), 200, None).await.unwrap();
        if page.is_empty() {
            return entries;
        }
        entries.extend(page);
    }
}
