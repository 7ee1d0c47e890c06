//! A stream of frames from a cursor on.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use couple_core::{
    AccountId, Error, Failure, Ports,
    live::{Notice, Subscription, Topic},
    pairing::{Couple, Side},
    timeline::{Body, Membership, Page, Refusal, Timeline, View},
};
use tokio::time::{Instant, sleep_until};

use super::Cursor;

/// Entries that a stream holds at most, so that ten thousand of them stay small, and what a slow reader still gets after
/// it was signed out.
const PAGE: u32 = 20;

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bye {
    /// The session ended or expired.
    SignedOut,
    /// The couple ended.
    NotPaired,
    /// The process is going away; another one answers.
    Draining,
    /// The store does not answer.
    Unavailable,
}

/// Why a client must take a snapshot before it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The cursor is of another couple or epoch, or beyond the log.
    CursorUnknown,
}

/// A person with a live connection is here for so long after it was last renewed: the grace of those whose connection broke is
/// what is left of it, 35 to 60 seconds.
const LEASE: Duration = Duration::from_secs(60);
/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(25);

/// What a client is told.
#[derive(Debug, Clone)]
pub enum Frame {
    /// An entry, in `seq` order, with the cursor after it.
    Entry {
        /// What.
        view: Box<View>,
        /// Where the client is then.
        cursor: Cursor,
    },
    /// Read positions, by [`Side`].
    Read {
        /// Up to where each has read.
        read: [i64; 2],
        /// Where the client is then.
        cursor: Cursor,
    },
    /// Something of the partner's, for now.
    Signal {
        /// Who sent it.
        from: Side,
        /// What.
        kind: String,
        /// With what.
        body: Option<Body>,
    },
    /// Whether the partner is here.
    Presence {
        /// True: here.
        here: bool,
    },
    /// Everything that there was has been sent.
    CaughtUp {
        /// Where the client is.
        cursor: Cursor,
    },
    /// Take a snapshot, then go on from this cursor.
    Reset {
        /// Why.
        reason: Reset,
        /// Where the log ends now.
        cursor: Cursor,
    },
    /// The stream is over.
    Bye(Bye),
}

/// Whether a stream's owner may still have it. The same policy as for a request.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Looks again.
    async fn is_open(&self) -> Result<bool, Error>;
}

/// Numbers a host may change.
#[derive(Debug, Clone, Copy)]
pub struct LiveOptions {
    /// How long a stream waits before it looks without having been told: what a lost notice costs.
    pub sweep: Duration,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self { sweep: Duration::from_secs(30) }
    }
}

/// Opens streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ports: Ports,
    timeline: Timeline,
    options: LiveOptions,
    drain: tokio::sync::watch::Sender<bool>,
}

impl Live {
    /// Over its ports.
    #[must_use]
    pub fn new(ports: Ports, options: LiveOptions) -> Self {
        let timeline = Timeline::new(ports.clone());
        Self(Arc::new(Inner { ports, timeline, options, drain: tokio::sync::watch::Sender::new(false) }))
    }

    /// Says goodbye to every stream, also to those that come from now on.
    pub fn drain(&self) {
        self.0.drain.send_replace(true);
    }

    /// Whether this process says goodbye.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.drain.borrow()
    }

    /// Follows the log of a person's couple from `after` on; without it, from its end.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`], or the store's.
    pub async fn open(
        &self,
        account: AccountId,
        gate: Arc<dyn Gate>,
        after: Option<Cursor>,
    ) -> Result<Stream, Failure<Refusal>> {
        let (at, _) = self.0.timeline.membership(account).await?;
        // Subscribe, then read: what is written in between is both told of and read, never neither.
        let topics = vec![Topic::Couple(at.couple), Topic::Account(account)];
        let subscription = self.0.ports.bus.subscribe(topics).await;
        let (now, couple) = self.0.timeline.membership(account).await?;
        if now != at {
            return Err(Failure::Refused(Refusal::NotPaired));
        }
        let end = Cursor::of(&couple, couple.head_seq, couple.read);
        let mut ready = VecDeque::new();
        let cursor = match after {
            None => end,
            Some(after) if after.fits(&couple) => {
                Cursor::of(&couple, after.seq, after.read.unwrap_or(couple.read))
            }
            Some(_) => {
                ready.push_back(Frame::Reset { reason: Reset::CursorUnknown, cursor: end });
                end
            }
        };
        Ok(Stream {
            live: self.clone(),
            drained: self.0.drain.subscribe(),
            gate,
            at,
            cursor,
            subscription,
            ready,
            signal: None,
            behind: true,
            told_caught_up: false,
            over: false,
            sweep_at: Instant::now() + self.0.options.sweep,
            partner: couple.member(at.side.other()),
            renew_at: None,
            partner_here: None,
            look_at: Instant::now(),
        })
    }
}

/// Frames from a cursor on, without end until a [`Frame::Bye`].
pub struct Stream {
    live: Live,
    drained: tokio::sync::watch::Receiver<bool>,
    gate: Arc<dyn Gate>,
    at: Membership,
    cursor: Cursor,
    subscription: Box<dyn Subscription>,
    ready: VecDeque<Frame>,
    /// The partner's, not yet looked at.
    signal: Option<Frame>,
    /// Whether there may be something to read.
    behind: bool,
    told_caught_up: bool,
    over: bool,
    /// When to look without having been told.
    sweep_at: Instant,
    partner: AccountId,
    /// Whether others may know that this person is here, and when they are told next.
    renew_at: Option<Instant>,
    /// Whether the partner is here, as the client knows it, and when to look again.
    partner_here: Option<bool>,
    look_at: Instant,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("at", &self.at).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl Stream {
    /// Who follows, and where they are.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.at
    }
    /// Where the client is once it has every frame that was returned.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Lets the partner know that this person is here, for as long as the stream is followed and the grace after it. Without it
    /// the partner cannot tell them from somebody who is away.
    pub fn announce(&mut self) {
        self.renew_at = Some(Instant::now());
    }
    /// Takes it that the client has just asked whether the partner is here: it is told of changes only.
    ///
    /// # Errors
    /// [`Presence`](couple_core::live::Presence)'s.
    pub async fn knows_presence(&mut self) -> Result<(), Error> {
        self.partner_here = Some(self.live.0.ports.presence.left(self.partner).await?.is_some());
        Ok(())
    }

    /// The next frame; none after [`Frame::Bye`]. Can be given up while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                match &frame {
                    Frame::Entry { cursor, .. }
                    | Frame::Read { cursor, .. }
                    | Frame::Reset { cursor, .. } => {
                        self.cursor = *cursor;
                    }
                    Frame::Bye(_) => self.over = true,
                    Frame::CaughtUp { .. } | Frame::Signal { .. } | Frame::Presence { .. } => {}
                }
                return Some(frame);
            }
            if self.over {
                return None;
            }
            self.ready = VecDeque::new();
            if self.behind {
                // The notice that brought us here was taken before reading, so one that comes meanwhile waits for
                // the next round; and being given up in the middle leaves `behind` as it is.
                // Boxed: what waits must not keep room for what reads.
                if let Err(reason) = Box::pin(self.read()).await {
                    self.ready.push_back(Frame::Bye(reason));
                    self.behind = false;
                }
                continue;
            }
            if self.signal.is_some() {
                // Whether they may still have it is asked for a signal as for an entry; being given up meanwhile leaves it here.
                let allowed = Box::pin(self.allowed()).await;
                let signal = self.signal.take();
                self.ready.extend(allowed.map_or_else(|reason| Some(Frame::Bye(reason)), |_| signal));
                continue;
            }
            let presence_at = self.renew_at.map_or(self.look_at, |at| at.min(self.look_at));
            if presence_at <= Instant::now() {
                Box::pin(self.presence()).await;
                continue;
            }
            let notice = tokio::select! {
                notice = self.subscription.next() => notice,
                () = sleep_until(presence_at) => continue,
                _ = self.drained.wait_for(|drain| *drain) => {
                    self.ready.push_back(Frame::Bye(Bye::Draining));
                    continue;
                }
                () = sleep_until(self.sweep_at) => Notice::Changed,
            };
            match notice {
                Notice::Changed => self.behind = true,
                Notice::Here(side) if side == self.at.side => {}
                Notice::Here(_) => self.look_at = Instant::now(),
                Notice::Signal { from, .. } if from == self.at.side => {}
                Notice::Signal { from, kind, body } => {
                    self.signal = Some(Frame::Signal { from, kind, body });
                }
            }
        }
    }

    /// Renews what is due, and looks where the partner is. That nothing is known is no reason to end a stream.
    async fn presence(&mut self) {
        let (ports, now) = (&self.live.0.ports, Instant::now());
        if self.renew_at.is_some_and(|at| at <= now) {
            if ports.presence.renew(self.at.account, LEASE).await.unwrap_or(false) {
                ports.bus.publish(Topic::Couple(self.at.couple), Notice::Here(self.at.side)).await;
            }
            self.renew_at = Some(now + RENEW);
        }
        if self.look_at <= now {
            let left = ports.presence.left(self.partner).await.unwrap_or(None);
            // Just after the lease would end, or as soon as there may be news.
            self.look_at = now + left.map_or(RENEW, |left| (left + Duration::from_millis(50)).min(RENEW));
            if self.partner_here.replace(left.is_some()) != Some(left.is_some()) {
                self.ready.push_back(Frame::Presence { here: left.is_some() });
            }
        }
    }

    /// Reads what there is beyond the cursor, after making sure that the client may still have it.
    async fn read(&mut self) -> Result<(), Bye> {
        let couple = self.allowed().await?;
        self.sweep_at = Instant::now() + self.live.0.options.sweep;
        let limit = PAGE;
        let views = self
            .live
            .0
            .timeline
            .read(couple.id, Page::After(self.cursor.seq), limit, None)
            .await
            .map_err(|_| Bye::Unavailable)?;
        let mut at = self.cursor;
        // A full page: there is more.
        self.behind = views.len() == limit as usize;
        for view in views {
            at.seq = view.entry.seq;
            self.ready.push_back(Frame::Entry { view: Box::new(view), cursor: at });
        }
        if self.behind {
            return Ok(());
        }
        if at.read != Some(couple.read) {
            at.read = Some(couple.read);
            self.ready.push_back(Frame::Read { read: couple.read, cursor: at });
        }
        if !self.told_caught_up {
            self.told_caught_up = true;
            self.ready.push_back(Frame::CaughtUp { cursor: at });
        }
        Ok(())
    }

    /// The couple, if its stream may go on.
    async fn allowed(&self) -> Result<Couple, Bye> {
        if self.live.is_draining() {
            return Err(Bye::Draining);
        }
        if !self.gate.is_open().await.map_err(|_| Bye::Unavailable)? {
            return Err(Bye::SignedOut);
        }
        match self.live.0.timeline.membership(self.at.account).await {
            Ok((at, couple)) if at == self.at => Ok(couple),
            Ok(_) | Err(Failure::Refused(_)) => Err(Bye::NotPaired),
            Err(Failure::Failed(_)) => Err(Bye::Unavailable),
        }
    }
}
