//! Two processes over one store: one accepts requests, the other runs jobs and nothing else.
//!
//! Here both are in one program. Elsewhere each opens the store of a database server with the same key file.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::{error::Error, sync::Arc, time::Duration};

use couple::{
    Backend, BackendBuilder, Keyring, RequestContext, Role,
    account::SignUp,
    blobs::Blobs,
    notify::mail::MemoryMailer,
    store::{MemoryBus, MemoryStore},
};
use tokio::sync::Notify;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, bus, mailer) =
        (Arc::new(MemoryStore::new()), Arc::new(MemoryBus::new()), MemoryMailer::new());
    let shared = || -> BackendBuilder {
        let builder = Backend::builder().store(store.clone()).bus(bus.clone());
        builder.keys(Keyring::new([7; 32])).blobs(Blobs::memory()).mailer(mailer.clone())
    };

    // As from a setting of the process. A queue that does not exist is an error.
    let role: Role = "worker:mail".parse()?;
    let worker = shared().build()?;
    let shutdown = Arc::new(Notify::new());
    let told = shutdown.clone();
    let process = tokio::spawn(async move { worker.run(role, told.notified()).await });

    let api = shared().build()?;
    let sign_up = SignUp { email: "ana@example.org".into(), display_name: "Ana".into(), locale: None };
    api.accounts()?.sign_up(&RequestContext::default(), &sign_up).await?;
    while mailer.sent().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("the worker sent {} mail", mailer.sent().len());

    // It completes the jobs in progress and closes its store.
    shutdown.notify_one();
    process.await??;
    println!("the worker has stopped");
    Ok(())
}
