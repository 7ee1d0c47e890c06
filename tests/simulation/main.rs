//! Simulation of several processes over one store, deterministic by seed.
//!
//! Three backends with workers share one store in memory. Six people pair, write, follow, leave and pair again; jobs run. Time is
//! virtual: the runtime has one thread and a paused clock. A seed chooses all actions, delays and faults:
//!
//! * A process dies at any call of a port, with whatever it was doing, or ends gracefully, and is started again.
//! * Calls of the store, of presence and of the mail server take time or fail; a commit takes effect and times out, or takes effect
//!   after it timed out.
//! * Notices between processes are delayed, repeated and reordered; where they are lost, `Changed` follows. A process loses its
//!   connection to the others.
//! * A client drops its request; its connection breaks before a frame arrives.
//!
//! A step is one action of a person or a device, or one fault. Each run has [`STEPS_PER_RUN`] steps. Then no more faults are injected,
//! everything must settle, and all [invariants](invariant::Invariant) are checked. `COUPLE_SIMULATION_STEPS` sets the number of steps of
//! all runs, `COUPLE_SIMULATION_SEED` repeats the run of one seed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use invariant::Planted;
use run::{Outcome, run};

mod follower;
mod history;
mod invariant;
mod network;
mod process;
mod requests;
mod run;
#[path = "../support/seeded_random.rs"]
mod seeded_random;
mod store;
mod world;

/// Steps of one run.
const STEPS_PER_RUN: u64 = 500;
/// Steps within which a planted fault is found.
const STEPS_TO_FIND: u64 = 40_000;

/// Events that must occur in 20,000 steps; otherwise the simulation checks less than it claims.
const EVENTS: [&str; 34] = [
    "after a commit",
    "after a graceful stop",
    "after a notice",
    "after a read",
    "append",
    "before a commit",
    "before a notice",
    "before a read",
    "bye",
    "commit late",
    "commit refused",
    "commit unknown",
    "connect",
    "device",
    "done",
    "end",
    "entry",
    "frame lost",
    "heal",
    "in a call of a server",
    "in a job",
    "in a subscription",
    "invite closed",
    "job dead",
    "job run",
    "mail",
    "outage",
    "pair",
    "partition",
    "presence",
    "reset",
    "signal",
    "stop",
    "unknown",
];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Panics with the seed, the step and the last lines of the trace, if an invariant was violated.
fn require_valid(seed: u64, outcome: &Outcome) {
    if let Some(violation) = &outcome.violation {
        panic!(
            "seed {seed}, step {}: violated: {}\n{}\n\nThe last events:\n{}\n\nRepeat with COUPLE_SIMULATION_SEED={seed}",
            violation.step, violation.invariant, violation.text, violation.trace,
        );
    }
}

#[test]
fn all_invariants_hold_under_faults() {
    if let Some(seed) = setting("COUPLE_SIMULATION_SEED") {
        return require_valid(seed, &run(seed, STEPS_PER_RUN, None));
    }
    let steps = setting("COUPLE_SIMULATION_STEPS").unwrap_or(20_000);
    let (mut seed, mut done, mut counts) = (0, 0, BTreeMap::<&str, u64>::new());
    while done < steps {
        let outcome = run(seed, STEPS_PER_RUN, None);
        require_valid(seed, &outcome);
        for (kind, count) in outcome.counts {
            *counts.entry(kind).or_default() += count;
        }
        (seed, done) = (seed + 1, done + outcome.steps);
    }
    println!("{done} steps: {counts:?}");
    if done >= 20_000 {
        let missing: Vec<_> = EVENTS.iter().filter(|event| !counts.contains_key(**event)).collect();
        assert!(missing.is_empty(), "these events did not occur in {done} steps: {missing:?}");
    }
}

#[test]
fn seed_repeats_its_run() {
    for seed in 1_000..1_003 {
        let [first, second] = [run(seed, STEPS_PER_RUN, None), run(seed, STEPS_PER_RUN, None)];
        assert_eq!(first.counts, second.counts, "seed {seed} does not repeat its events");
        assert_eq!(first.digest, second.digest, "seed {seed} does not repeat the order of its events");
    }
    assert_ne!(run(1, 50, None).digest, run(2, 50, None).digest, "another seed is another run");
}

#[test]
fn each_planted_fault_is_found_by_its_invariant() {
    let mut wrong = Vec::new();
    for (planted, invariant) in Planted::ALL {
        let (mut seed, mut steps) = (0, 0);
        let found = loop {
            let outcome = run(seed, STEPS_PER_RUN, Some(planted));
            steps += outcome.steps;
            if outcome.violation.is_some() || steps >= STEPS_TO_FIND {
                break outcome.violation;
            }
            seed += 1;
        };
        let text = found.as_ref().map_or("nothing", |violation| &violation.text);
        println!("{planted:?}: {steps} steps, seed {seed}: {text}");
        if found.as_ref().map(|violation| violation.invariant) != Some(invariant) {
            wrong.push(format!("{planted:?} after {steps} steps, seed {seed}: found {text}"));
        }
    }
    assert!(wrong.is_empty(), "planted faults that their invariants do not find: {wrong:#?}");
}
