//! Life of a process: it serves requests and runs jobs until its shutdown, and then ends both in order.

use std::{fmt, pin::Pin, time::Duration};

use couple_core::{
    Error, ErrorKind,
    job::{Worker, WorkerHandle},
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

#[cfg(feature = "http")]
use crate::http::ServeOptions;
use crate::{Backend, Role};

/// Process that serves requests, runs jobs, or both. Created by [`Backend::service`].
#[must_use = "a service does nothing until it runs"]
pub struct Service {
    backend: Backend,
    role: Role,
    drain_timeout: Duration,
    abort: Pin<Box<dyn Future<Output = ()> + Send>>,
    #[cfg(feature = "http")]
    servers: Vec<(tokio::net::TcpListener, axum::Router, ServeOptions)>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Backend {
    /// Creates the process of a role, without a listener.
    pub fn service(&self, role: Role) -> Service {
        Service {
            backend: self.clone(),
            role,
            drain_timeout: Duration::from_secs(10),
            abort: Box::pin(std::future::pending()),
            #[cfg(feature = "http")]
            servers: Vec::new(),
        }
    }

    /// Runs a process of a role without a listener, as [`Service::run`] does: a worker, or a host with its own server.
    ///
    /// # Errors
    /// The same as for [`Service::run`].
    pub async fn run(&self, role: Role, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        self.service(role).run(shutdown).await
    }
}

impl Service {
    /// Sets the maximum time for which jobs in progress may continue after the process was told to stop. Default: 10 s.
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets a future, such as a second signal, whose completion aborts requests in progress. Polled once the process was told to stop.
    ///
    /// Default: none.
    pub fn with_abort(mut self, abort: impl Future<Output = ()> + Send + 'static) -> Self {
        self.abort = Box::pin(abort);
        self
    }

    /// Adds a listener and the router that it [serves](crate::http::serve). Any role may have one: a worker may have an admin address.
    #[cfg(feature = "http")]
    pub fn with_listener(
        mut self,
        listener: tokio::net::TcpListener,
        router: axum::Router,
        options: ServeOptions,
    ) -> Self {
        self.servers.push((listener, router, options));
        self
    }

    /// Runs until `shutdown` completes, then ends in this order:
    ///
    /// 1. Readiness answers 503. Listeners accept connections for the longest of their stop delays, so that load balancers send requests
    ///    elsewhere.
    /// 2. Live streams end, and requests in progress have the drain timeout of their listener.
    /// 3. The worker claims no more jobs, and jobs in progress have the [drain timeout](Self::with_drain_timeout).
    /// 4. The store is closed.
    ///
    /// If the future of this method is dropped, all parts are aborted. Committed data is safe; abandoned jobs run again.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for a role with a queue that does not exist. [`ErrorKind::Internal`] when a task of the worker or of
    /// a listener has ended by itself, which is a fault of the program; the process was then ended as above. Errors of the store while
    /// it is closed.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let mut worker = self.backend.worker_of(&self.role)?.map(Worker::start);
        let stop = watch::Sender::new(false);
        let (mut servers, stop_delay) = self.start_servers(&stop);
        let failure = tokio::select! {
            () = shutdown => None,
            error = failed_worker(worker.as_mut()) => Some(error),
            error = failed_server(&mut servers) => Some(error),
        };
        if let Some(error) = &failure {
            tracing::error!(%error, "the process stops after a failure");
        }
        let Self { backend, drain_timeout, abort, .. } = self;
        backend.announce_stop();
        stop.send_replace(true);
        let drained = async {
            sleep(stop_delay).await;
            backend.live().drain();
            while servers.join_next().await.is_some() {}
        };
        tokio::select! {
            () = drained => {}
            () = abort => tracing::warn!("requests in progress are aborted"),
        }
        servers.shutdown().await;
        if let Some(worker) = worker {
            worker.stop(drain_timeout).await;
        }
        let closed = backend.close().await;
        failure.map_or(closed, Err)
    }

    /// Starts the listeners; returns their tasks and the longest stop delay.
    #[cfg(feature = "http")]
    fn start_servers(&mut self, stop: &watch::Sender<bool>) -> (JoinSet<()>, Duration) {
        let (mut servers, mut delay) = (JoinSet::new(), Duration::ZERO);
        for (listener, router, options) in self.servers.drain(..) {
            delay = delay.max(options.stop_delay());
            let mut stop = stop.subscribe();
            let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
            servers.spawn(crate::http::serve(listener, router, options, stopped));
        }
        (servers, delay)
    }

    #[cfg(not(feature = "http"))]
    fn start_servers(&mut self, _: &watch::Sender<bool>) -> (JoinSet<()>, Duration) {
        (JoinSet::new(), Duration::ZERO)
    }
}

/// Completes when a task of the worker has ended by itself.
async fn failed_worker(worker: Option<&mut WorkerHandle>) -> Error {
    match worker {
        Some(worker) => worker.failed().await,
        None => std::future::pending().await,
    }
}

/// Completes when a listener has ended by itself.
async fn failed_server(servers: &mut JoinSet<()>) -> Error {
    let error = Error::new(ErrorKind::Internal, "serve").context("a listener ended");
    match servers.join_next().await {
        Some(Err(panicked)) => error.source(panicked),
        Some(Ok(())) => error,
        None => std::future::pending().await,
    }
}
