//! Recurring jobs, and the purges of recorded outcomes and dead jobs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use croner::Cron;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{Context, Handler, Job, JobChange, JobError, NewJob, retry::fraction};
use crate::{Change, Error, ErrorKind, IdempotencyChange, Ports, Timestamp, ports::without_conflict};

type JobFactory = dyn Fn(&Ports, Timestamp) -> Result<NewJob, Error> + Send + Sync;

/// Recurring job. Its deduplication key allows one live job over all processes.
///
/// The next run is enqueued when a run succeeds or dies. Runs that were due while no worker ran are made up for by one run. A changed
/// time applies after the run that is already enqueued.
#[derive(Clone)]
pub struct Schedule {
    name: &'static str,
    times: Times,
    make: Arc<JobFactory>,
}

/// Times of the runs.
#[derive(Debug, Clone)]
enum Times {
    Every(Duration),
    Cron(Arc<Cron>, TimeZone),
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule")
            .field("name", &self.name)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

impl Schedule {
    /// Runs the job that `make` creates at the interval `every`. The job must have a deduplication key.
    #[must_use]
    pub fn every<J: Job>(every: Duration, make: impl Fn() -> J + Send + Sync + 'static) -> Self {
        Self::at(Times::Every(every), make)
    }

    /// Runs the job that `make` creates at the times of a cron expression in a time zone.
    ///
    /// `expression` has five fields (minute, hour, day of the month, month, day of the week), and may have one of seconds before them; see
    /// [`croner`](https://docs.rs/croner). `time_zone` is an IANA name, such as `Europe/Berlin`. Where clocks are set forward, a skipped
    /// time runs at the time after the gap; where they are set back, a repeated time runs once. The job must have a deduplication key.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for an invalid expression and for an unknown time zone.
    pub fn cron<J: Job>(
        expression: &str,
        time_zone: &str,
        make: impl Fn() -> J + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Misconfigured, "schedule").context(J::NAME);
        let cron: Cron = expression.parse().map_err(|error| wrong().source(error))?;
        let zone = TimeZone::get(time_zone).map_err(|error| wrong().source(error))?;
        Ok(Self::at(Times::Cron(Arc::new(cron), zone), make))
    }

    fn at<J: Job>(times: Times, make: impl Fn() -> J + Send + Sync + 'static) -> Self {
        let make = move |ports: &Ports, due| NewJob::at(&make(), due, ports);
        Self { name: J::NAME, times, make: Arc::new(make) }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Checks that the job has a deduplication key, and that the expression has a next time.
    pub(super) fn check(&self, ports: &Ports) -> Result<(), Error> {
        let job = (self.make)(ports, self.due_after(ports.now())?)?;
        if job.dedupe_key.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Misconfigured, "schedule")
            .context(format!("{}: a scheduled job needs a dedupe_key", self.name)))
    }

    /// First run. At an interval, a random time within it, so that many schedules do not run together.
    pub(super) fn first(&self, ports: &Ports) -> Result<Change, Error> {
        let due = match &self.times {
            Times::Every(every) => ports.now().plus(fraction(*every, &*ports.entropy)),
            Times::Cron(..) => self.due_after(ports.now())?,
        };
        Ok(JobChange::Enqueue((self.make)(ports, due)?).into())
    }

    /// Run after the one that ends now.
    pub(super) fn next(&self, ports: &Ports) -> Result<Change, Error> {
        Ok(JobChange::Enqueue((self.make)(ports, self.due_after(ports.now())?)?).into())
    }

    fn due_after(&self, now: Timestamp) -> Result<Timestamp, Error> {
        match &self.times {
            Times::Every(every) => Ok(now.plus(*every)),
            Times::Cron(cron, zone) => {
                let wrong = || Error::new(ErrorKind::Misconfigured, "schedule").context(self.name);
                let now = jiff::Timestamp::from_microsecond(now.micros()).map_err(|e| wrong().source(e))?;
                let next = cron
                    .find_next_occurrence(&now.to_zoned(zone.clone()), false)
                    .map_err(|error| wrong().source(error))?;
                Ok(Timestamp::from_micros(next.timestamp().as_microsecond()))
            }
        }
    }
}

/// Number of rows that one purging commit removes.
const MAX_ROWS_PER_COMMIT: u32 = 500;

/// Purges in batches until a batch is incomplete.
pub(crate) async fn purge_all(
    ports: &Ports,
    change: impl Fn(u32) -> Change + Send + Sync,
) -> Result<(), Error> {
    loop {
        let committed = without_conflict(ports.commit(vec![change(MAX_ROWS_PER_COMMIT)]).await)?;
        if committed.rows_affected() < u64::from(MAX_ROWS_PER_COMMIT) {
            return Ok(());
        }
    }
}

/// Job that purges expired outcomes of idempotency keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeOutcomes {}

impl Job for PurgeOutcomes {
    const NAME: &'static str = "idempotency.purge";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Handler that removes expired outcomes of idempotency keys.
pub struct PurgeOutcomesHandler(pub Ports);

impl PurgeOutcomesHandler {
    /// Schedule: every 10 minutes.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_mins(10), || PurgeOutcomes {})
    }
}

#[async_trait]
impl Handler<PurgeOutcomes> for PurgeOutcomesHandler {
    async fn run(&self, _: PurgeOutcomes, _: &Context) -> Result<(), JobError> {
        let before = self.0.now();
        purge_all(&self.0, |cap| IdempotencyChange::Purge { before, cap }.into()).await?;
        Ok(())
    }
}

/// Job that purges old dead jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeDead {}

impl Job for PurgeDead {
    const NAME: &'static str = "job.purge_dead";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Handler that removes jobs that have been dead for 30 days.
pub struct PurgeDeadHandler(pub Ports);

impl PurgeDeadHandler {
    const RETENTION: Duration = Duration::from_hours(24 * 30);

    /// Schedule: every 24 hours.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(24), || PurgeDead {})
    }
}

#[async_trait]
impl Handler<PurgeDead> for PurgeDeadHandler {
    async fn run(&self, _: PurgeDead, _: &Context) -> Result<(), JobError> {
        let before = self.0.now().minus(Self::RETENTION);
        purge_all(&self.0, |cap| JobChange::PurgeDead { before, cap }.into()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Digest {}

    impl Job for Digest {
        const NAME: &'static str = "test.digest";
        const QUEUE: &'static str = "default";
    }

    fn times(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::cron(expression, zone, || Digest {}).unwrap();
        let from: jiff::Timestamp = from.parse().unwrap();
        let mut at = Timestamp::from_micros(from.as_microsecond());
        std::iter::repeat_with(|| {
            at = schedule.due_after(at).unwrap();
            jiff::Timestamp::from_microsecond(at.micros()).unwrap().to_string()
        })
        .take(count)
        .collect()
    }

    #[test]
    fn cron_expression_runs_at_local_times() {
        let nine = times("0 9 * * MON-FRI", "Europe/Berlin", "2026-03-27T08:00:00Z", 2);
        assert_eq!(nine, ["2026-03-30T07:00:00Z", "2026-03-31T07:00:00Z"]);
    }

    #[test]
    fn skipped_time_runs_after_the_gap_and_repeated_time_runs_once() {
        // 02:30 does not exist on 2026-03-29 in Berlin, and exists twice on 2026-10-25.
        let spring = times("30 2 * * *", "Europe/Berlin", "2026-03-28T02:00:00Z", 2);
        assert_eq!(spring, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        let autumn = times("30 2 * * *", "Europe/Berlin", "2026-10-24T01:00:00Z", 2);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn invalid_expressions_and_zones_are_refused() {
        for (expression, zone) in
            [("0 9 * *", "UTC"), ("61 * * * *", "UTC"), ("0 9 * * *", "Europe/Nowhere"), ("", "UTC")]
        {
            let error = Schedule::cron(expression, zone, || Digest {}).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{expression} {zone}");
        }
    }

    #[test]
    fn scheduled_jobs_have_their_names_as_deduplication_keys() {
        assert_eq!(PurgeOutcomes {}.dedupe_key().as_deref(), Some(PurgeOutcomes::NAME));
        assert_eq!(PurgeDead {}.dedupe_key().as_deref(), Some(PurgeDead::NAME));
        assert_eq!(Digest {}.dedupe_key(), None, "a job has none unless it states one");
        assert_eq!(Digest::MAX_AGE, Duration::from_hours(72));
        let daily = Schedule::every(Duration::from_hours(24), || Digest {});
        assert_eq!(daily.name(), "test.digest");
        assert_eq!(daily.due_after(Timestamp::from_micros(1)).unwrap().micros(), 86_400_000_001);
        assert_eq!(format!("{daily:?}"), r#"Schedule { name: "test.digest", times: Every(86400s), .. }"#);
    }
}
