//! Queue of commits that are blocked by a lock of another transaction.
//!
//! They wait here and not within a merged transaction. So a row that another transaction holds (of another
//! process, an operator's session or a backup) delays only the commits that need this row. One task with a
//! separate connection retries them until each one is committed or times out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use couple_core::{Error, ErrorKind};
use sqlx::Pool;
use tokio::{sync::mpsc, time::sleep};
use uuid::Uuid;

use super::{
    Dialect,
    writer::{QUEUE, Request, Session},
};

/// Pauses between two rounds that committed nothing; doubled from the shortest to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Number of blocked commits for each key.
type Keys = Arc<Mutex<HashMap<Uuid, usize>>>;

/// Registration of a blocked commit's key: while it exists, commits with the same key join the queue.
pub(super) struct Place {
    key: Uuid,
    keys: Keys,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = keys.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                keys.remove(&self.key);
            }
        }
    }
}

/// Queue of blocked commits.
#[derive(Clone)]
pub(super) struct BlockedQueue {
    queue: mpsc::Sender<Request>,
    keys: Keys,
}

impl BlockedQueue {
    pub(super) fn new(length: usize) -> (Self, mpsc::Receiver<Request>) {
        let (queue, inbox) = mpsc::channel(length);
        (Self { queue, keys: Keys::default() }, inbox)
    }

    /// Adds a commit; fails it if the queue is full.
    pub(super) fn push(&self, mut request: Request) {
        // A commit that returns to the queue keeps its registration.
        if request.place.is_none() {
            request.place = self.place(request.key());
        }
        if let Err(error) = self.queue.try_send(request) {
            let full = Error::new(ErrorKind::Overloaded, "commit").context("too many commits wait for locks");
            error.into_inner().refuse(full);
        }
    }

    fn place(&self, key: Option<Uuid>) -> Option<Place> {
        key.map(|key| {
            *self.keys.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
            Place { key, keys: self.keys.clone() }
        })
    }

    /// Moves the commits whose key is blocked from `waiting` to this queue.
    pub(super) fn divert(&self, waiting: &mut Vec<Request>) {
        let is_blocked = |request: &mut Request| {
            let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            request.key().is_some_and(|key| keys.contains_key(&key))
        };
        for request in waiting.extract_if(.., is_blocked).collect::<Vec<_>>() {
            self.push(request);
        }
    }
}

/// Retries blocked commits until they time out.
pub(super) async fn serve<D: Dialect>(
    pool: Pool<D>,
    inbox: Arc<tokio::sync::Mutex<mpsc::Receiver<Request>>>,
    merge: usize,
    patience: Duration,
) {
    let mut inbox = inbox.lock().await;
    let mut session = Session { pool, prepare: D::NO_WAIT, held: None };
    let mut waiting: Vec<Request> = Vec::new();
    let mut pause = SHORTEST_PAUSE;
    loop {
        if waiting.is_empty() {
            pause = SHORTEST_PAUSE;
            if inbox.recv_many(&mut waiting, QUEUE).await == 0 {
                return;
            }
        } else {
            while waiting.len() < QUEUE
                && let Ok(request) = inbox.try_recv()
            {
                waiting.push(request);
            }
        }
        let before = waiting.len();
        // Fail the commit while its caller still waits: nothing was written.
        for request in waiting.extract_if(.., |request| request.age() > patience * 9 / 10).collect::<Vec<_>>()
        {
            request.refuse(
                Error::new(ErrorKind::Overloaded, "commit")
                    .context("a row that the commit changes is locked by another transaction"),
            );
        }
        let mut left = Vec::new();
        while !waiting.is_empty() {
            let mut batch: Vec<Request> = waiting.drain(..waiting.len().min(merge)).collect();
            left.extend(session.round(&mut batch).await);
        }
        waiting = left;
        pause = if waiting.len() < before { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        if !waiting.is_empty() {
            sleep(pause).await;
        }
    }
}
