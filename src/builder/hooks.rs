//! Listeners of the host for domain events.

use couple_core::{
    Error,
    events::{Additions, Event, Listener},
};

use super::BackendBuilder;

impl BackendBuilder {
    /// Adds a listener for [events](crate::events), whose jobs and entries are committed with their cause.
    #[must_use]
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listeners = self.listeners.with(listener);
        self
    }

    /// Adds a function as a [`listener`](Self::listener).
    ///
    /// ```
    /// # use couple::{Backend, CoupleId, events::Event, job::{Context, Job}};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct WriteToCrm { couple: CoupleId }
    ///
    /// impl Job for WriteToCrm {
    ///     const NAME: &'static str = "host.write_to_crm";
    ///     const QUEUE: &'static str = "default";
    /// }
    ///
    /// let backend = Backend::builder()
    ///     .on(|event, additions| match event {
    ///         Event::CoupleFounded { couple } => additions.enqueue(&WriteToCrm { couple: couple.id }),
    ///         _ => Ok(()),
    ///     })
    ///     .jobs(|jobs, _| jobs.with_fn(|job: WriteToCrm, context: Context| async move {
    ///         println!("{} is couple {}", context.id, job.couple);
    ///         Ok(())
    ///     }))
    ///     .build()?;
    /// # Ok::<(), couple::Error>(())
    /// ```
    #[must_use]
    pub fn on(
        mut self,
        listener: impl Fn(&Event<'_>, &mut Additions<'_>) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        self.listeners = self.listeners.with_fn(listener);
        self
    }
}
