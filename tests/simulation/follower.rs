//! Device of a person: follows the log of the person's couple, and reconnects with its cursor.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use couple::{
    AccountId, CoupleId, Failure,
    notify::live::{CloseReason, Cursor, EncodedEntry, Frame, Stream},
    pairing::Couple,
    timeline::Entry,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    history::NOTICE_BOUND,
    invariant::{Invariant, Planted},
    process::{Process, ProcessGate},
    world::{Person, World},
};

/// Time after the end of a couple in which a stream may still send what it has checked: 2 s, and the duration of a check.
const TRUST_BOUND: Duration = Duration::from_secs(6);
/// Time after which a member without a connection is away: a lease of 60 s, and a query of presence after 25 s.
pub(crate) const PRESENCE_BOUND: Duration = Duration::from_secs(95);

/// Open stream of a device.
#[derive(Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) couple: CoupleId,
    opened_at: Instant,
}

/// State of a device.
pub(crate) struct DeviceState {
    /// Whether the device is in use.
    pub(crate) on: bool,
    /// Process to which it connects; any if none.
    pub(crate) only: Option<usize>,
    pub(crate) connection: Option<Connection>,
    /// Time at which the last connection ended.
    pub(crate) disconnected_at: Instant,
    /// Cursor of the client; none before it has loaded a snapshot of its couple.
    cursor: Option<Cursor>,
    pub(crate) couple: Option<CoupleId>,
    /// Last `seq` that it received.
    pub(crate) seen: i64,
    /// Entries as the device shows them.
    pub(crate) entries: BTreeMap<i64, Entry>,
    pub(crate) read: [i64; 2],
    /// Whether the partner is present, as the device knows.
    pub(crate) partner_is_here: Option<bool>,
}

impl Default for DeviceState {
    fn default() -> Self {
        Self {
            on: true,
            only: None,
            connection: None,
            disconnected_at: Instant::now(),
            cursor: None,
            couple: None,
            seen: 0,
            entries: BTreeMap::new(),
            read: [0, 0],
            partner_is_here: None,
        }
    }
}

impl DeviceState {
    /// Begins with the log of a couple, of which a snapshot was loaded.
    fn start_over(&mut self, couple: &Couple) {
        (self.couple, self.seen, self.read) = (Some(couple.id), 0, couple.read);
        self.cursor = Some(Cursor::of(couple, 0, couple.read));
        self.entries.clear();
    }
}

#[derive(Default)]
pub(crate) struct Device {
    pub(crate) state: Mutex<DeviceState>,
    /// Notified to end the connection, or to begin one.
    pub(crate) changed: Notify,
}

impl Device {
    /// Changes the use of the device, and ends its connection.
    pub(crate) fn set(&self, on: bool, only: Option<usize>) {
        let mut state = self.state.lock().unwrap();
        (state.on, state.only) = (on, only);
        drop(state);
        self.changed.notify_one();
    }
}

/// Runs a device.
pub(crate) async fn follow(world: Arc<World>, index: usize) {
    let person = &world.people[index];
    loop {
        let (on, only) = {
            let state = person.device.state.lock().unwrap();
            (state.on, state.only)
        };
        if !on {
            person.device.changed.notified().await;
            continue;
        }
        let process = match only {
            Some(only) => world.processes.lock().unwrap()[only].clone(),
            None => world.any_process(),
        };
        let wait = match process {
            Some(process) => connect(&world, person, &process).await,
            None => Duration::from_millis(200),
        };
        tokio::select! {
            biased;
            () = person.device.changed.notified() => {}
            () = sleep(wait + Duration::from_millis(world.random.below(100))) => {}
        }
    }
}

/// Follows until the connection ends. Returns the time to wait before the next one.
async fn connect(world: &Arc<World>, person: &Person, process: &Arc<Process>) -> Duration {
    let (short, long) = (Duration::from_millis(50), Duration::from_millis(1_500));
    let Some(backend) = process.backend() else { return short };
    let known = person.device.state.lock().unwrap().cursor;
    let mut cursor = match known {
        Some(cursor) => cursor,
        None => match process.call(backend.pairings().couple_of(person.account)).await {
            Some(Ok((couple, _))) => {
                person.device.state.lock().unwrap().start_over(&couple);
                Cursor::of(&couple, 0, couple.read)
            }
            Some(Err(Failure::Refused(_))) => return long,
            Some(Err(Failure::Failed(_))) | None => return short,
        },
    };
    if cursor.seq > 0 && world.strikes(Planted::SkippingCursor, 8) {
        cursor = Cursor::at(cursor.seq + 1);
    }
    let gate = Arc::new(ProcessGate(process.clone()));
    let opening = timeout(Duration::from_secs(30), backend.live().open(person.account, gate, Some(cursor)));
    let mut stream = match process.call(opening).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(Failure::Refused(_)))) => return long,
        Some(Ok(Err(Failure::Failed(_)))) | None => return short,
        Some(Err(_)) => {
            let text = format!("{} waits for a stream of {} for more than 30 s", person.name, process.id);
            world.violate(Invariant::RequestsEnd, text);
            return long;
        }
    };
    drop(backend);
    stream.announce();
    {
        let couple = stream.membership().couple;
        let mut state = person.device.state.lock().unwrap();
        state.connection = Some(Connection { couple, opened_at: Instant::now() });
        // The stream begins with the presence of the partner.
        state.partner_is_here = None;
    }
    world.note("connect", format_args!("{} follows at {} after {cursor}", person.name, process.id));
    let wait = receive(world, person, process, &mut stream).await;
    let mut state = person.device.state.lock().unwrap();
    (state.connection, state.disconnected_at) = (None, Instant::now());
    wait
}

/// Receives the frames of a stream until it ends, or the connection does.
async fn receive(world: &World, person: &Person, process: &Process, stream: &mut Stream) -> Duration {
    let (short, long) = (Duration::from_millis(50), Duration::from_millis(1_500));
    let couple = stream.membership().couple;
    loop {
        let frame = tokio::select! {
            biased;
            () = process.until_dead() => return short,
            () = person.device.changed.notified() => return short,
            frame = stream.next() => frame,
        };
        let Some(frame) = frame else { return short };
        if let Frame::Bye(reason) = frame {
            world.note("bye", format_args!("the stream of {} ends: {reason:?}", person.name));
            return if reason == CloseReason::NotPaired { long } else { short };
        }
        if world.fault(60) {
            world.note(
                "frame lost",
                format_args!("the connection of {} breaks before a frame arrives", person.name),
            );
            return short;
        }
        let ended_at = world.history().couples[&couple].ended_at;
        if let Some(ended) = ended_at
            && world.strikes(Planted::LateFrame, 1)
        {
            tokio::time::sleep_until(ended + TRUST_BOUND + Duration::from_secs(1)).await;
        }
        let checked = check_frame(world, person, couple, &frame);
        let failed = checked.is_err();
        world.require(checked);
        if failed || matches!(frame, Frame::Reset { .. }) {
            return short;
        }
    }
}

/// Takes a frame, and checks it against the history.
fn check_frame(
    world: &World,
    person: &Person,
    id: CoupleId,
    frame: &Frame,
) -> Result<(), (Invariant, String)> {
    let history = world.history();
    let couple = &history.couples[&id];
    let (name, number) = (person.name, couple.number);
    if let Some(ended) = couple.ended_at
        && ended.elapsed() > TRUST_BOUND
    {
        let text = format!(
            "{name} receives a frame of couple {number} {:?} after its end: {frame:?}",
            ended.elapsed()
        );
        return Err((Invariant::NothingAfterTheEnd, text));
    }
    let mut state = person.device.state.lock().unwrap();
    match frame {
        Frame::Entry { line, cursor } => {
            let seq = line.view.entry.seq;
            if state.couple != Some(id) || seq != state.seen + 1 || cursor.seq != seq {
                let text =
                    format!("{name} receives entry {seq} of couple {number} after entry {}", state.seen);
                return Err((Invariant::EachEntryOnceInOrder, text));
            }
            if !matches_history(line, couple.entry(seq)) {
                let text =
                    format!("{name} receives another entry {seq} of couple {number} than was appended");
                return Err((Invariant::SameContent, text));
            }
            (state.seen, state.cursor) = (seq, Some(*cursor));
            state.entries.insert(seq, line.view.entry.clone());
            if let Some(target) = &line.view.target {
                state.entries.insert(target.seq, target.clone());
            }
            world.note("entry", format_args!("{name} receives entry {seq} of couple {number}"));
        }
        Frame::Read { read, cursor } => (state.read, state.cursor) = (*read, Some(*cursor)),
        Frame::CaughtUp { cursor } => {
            if cursor.seq != state.seen {
                let text = format!(
                    "{name} has caught up with couple {number} at {}, after entry {}",
                    cursor.seq, state.seen
                );
                return Err((Invariant::EachEntryOnceInOrder, text));
            }
            state.cursor = Some(*cursor);
        }
        Frame::Reset { .. } => {
            if state.couple == Some(id) {
                let text = format!("the cursor of {name} for couple {number} is unknown");
                return Err((Invariant::EachEntryOnceInOrder, text));
            }
            // Then the client loads a snapshot.
            state.cursor = None;
            world.note("reset", format_args!("{name} starts with couple {number}"));
        }
        Frame::Presence { here } => {
            state.partner_is_here = Some(*here);
            world.note(
                "presence",
                format_args!("{name} sees the partner {}", if *here { "here" } else { "away" }),
            );
        }
        Frame::Signal { kind, .. } => world.note("signal", format_args!("{name} receives the signal {kind}")),
        Frame::Bye(_) => {}
    }
    Ok(())
}

/// Whether an entry that was received is the one that was appended, apart from later edits.
fn matches_history(line: &EncodedEntry, appended: Option<&couple::timeline::NewEntry>) -> bool {
    let entry = &line.view.entry;
    appended.is_some_and(|appended| {
        (&appended.client_id, &appended.kind, appended.author, appended.target, appended.at)
            == (&entry.client_id, &entry.kind, entry.author, entry.target, entry.created_at)
    })
}

/// Checks that no follower is behind, or of an ended couple, for longer than a notice may take.
pub(crate) fn check_delays(world: &World, bound: Duration) {
    let since = Instant::now().checked_sub(bound);
    let (Some(since), Some(settled)) = (since, world.network.settled_since()) else { return };
    let history = world.history();
    for person in &world.people {
        let state = person.device.state.lock().unwrap();
        let Some(Connection { couple, opened_at }) = state.connection else { continue };
        let couple = &history.couples[&couple];
        if opened_at.max(settled) > since || couple.excused_until > Instant::now() {
            continue;
        }
        if couple.ended_at.is_some_and(|ended| ended <= since) {
            let text = format!(
                "{} still follows couple {}, which ended more than {bound:?} ago",
                person.name, couple.number
            );
            return world.violate(Invariant::StreamsEnd, text);
        }
        if state.seen < couple.head_at(since) {
            let text = format!(
                "{} has received couple {} up to entry {}, {bound:?} after entry {}",
                person.name,
                couple.number,
                state.seen,
                couple.head_at(since),
            );
            return world.violate(Invariant::DeliveredInTime, text);
        }
    }
}

/// Checks that no device shows a partner as present who has been away for long.
pub(crate) fn check_presence(world: &World) {
    let Some(since) = Instant::now().checked_sub(PRESENCE_BOUND) else { return };
    let history = world.history();
    for person in &world.people {
        let state = person.device.state.lock().unwrap();
        let Some(connection) = state.connection.filter(|connection| connection.opened_at < since) else {
            continue;
        };
        let partner = partner(&history.couples[&connection.couple].members, person.account);
        let partner = world.person(partner);
        let here = state.partner_is_here;
        drop(state);
        let theirs = partner.device.state.lock().unwrap();
        if here == Some(true) && theirs.connection.is_none() && theirs.disconnected_at < since {
            let text = format!(
                "{} is present for {}, {PRESENCE_BOUND:?} after the last connection",
                partner.name, person.name
            );
            return world.violate(Invariant::PresenceEnds, text);
        }
    }
}

/// The other member of a couple.
pub(crate) fn partner(members: &[AccountId; 2], account: AccountId) -> AccountId {
    if members[0] == account { members[1] } else { members[0] }
}

/// Checks the followers every second, while the run lasts.
pub(crate) async fn watch(world: Arc<World>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        check_delays(&world, NOTICE_BOUND);
        check_presence(&world);
    }
}
