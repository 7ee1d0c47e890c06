//! DV1–DV7: devices.

use std::{sync::Arc, time::Duration};

use couple_core::{
    AccountId, Change, Conflict, DeviceId, Locale, Secret, Store, TimeZoneName, Timestamp,
    account::{Account, AccountChange, Session},
    device::{Device, DeviceChange},
    push::{Destination, Surface},
};

use crate::{
    samples::{EARLY, LATE, longest, longest_ascii, near, special},
    world::{World, accepted, affects, all, concurrently, conflicts, insert, must, race, refused, same},
};

const MOST: u32 = 20;

fn put(device: &Device) -> DeviceChange {
    DeviceChange::Put { device: device.clone(), most: MOST }
}

fn fcm(token: impl Into<String>) -> Destination {
    Destination::Fcm { token: Secret::new(token.into()), app: "org.example.app".to_owned() }
}

/// Expects that a device reads back as expected, alone and in the list; `what` is what was done before.
async fn require_stored(store: &impl Store, expected: &Device, what: &str) {
    let found = store.device(expected.account, expected.id).await.unwrap();
    same(&found.as_ref(), &Some(expected), &format!("a device reads back otherwise {what}"));
    let listed = store.devices_of(expected.account).await.unwrap();
    let listed = listed.iter().find(|device| device.id == expected.id);
    same(&listed, &Some(expected), &format!("a listed device reads back otherwise {what}"));
}

/// Ids of the devices of an account, in the order of the list.
async fn ids_of(store: &impl Store, account: AccountId) -> Vec<DeviceId> {
    store.devices_of(account).await.unwrap().iter().map(|device| device.id).collect()
}

/// Expects the devices of an account, in any order.
async fn require_devices(store: &impl Store, account: AccountId, expected: &[&Device], what: &str) {
    let mut found = ids_of(store, account).await;
    let mut expected: Vec<_> = expected.iter().map(|device| device.id).collect();
    found.sort_unstable();
    expected.sort_unstable();
    same(&found, &expected, what);
}

/// Every field of a device reads back, with and without the optional ones, and a registration replaces every field.
pub async fn dv1_device_fields_read_back(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    let session = world.session(account.id);
    let begin = AccountChange::InsertSession { session: session.clone(), version: 0 };
    all(&store, vec![insert(&account), begin.into()]).await;
    let unknown = store.device(account.id, world.device(account.id).id).await.unwrap();
    assert_eq!(unknown, None, "a device is found by an id that none has");
    let mut key = std::array::from_fn(|n| u8::try_from(n * 37 % 256).unwrap_or(0));
    key[0] = 4;
    let auth = *b"A\0b\xff\x80 \\'\"%_\0\0zZ ";
    let full = |destination, surface, registered_at| Device {
        session: Some(session.id),
        destination,
        surface,
        locale: Some(Locale::from_stored(longest_ascii(35))),
        time_zone: Some(TimeZoneName::from_stored("America/Argentina/ComodRivadavia")),
        app_version: Some(longest(64)),
        registered_at,
        ..world.device(account.id)
    };
    let apns = Destination::Apns {
        token: Secret::new("0aBc".repeat(128)),
        app: format!("Org.Example.{}", longest_ascii(243)),
        sandbox: true,
    };
    let released =
        Destination::Apns { token: Secret::new("00".to_owned()), app: "a".to_owned(), sandbox: false };
    let browser = Destination::WebPush {
        endpoint: Secret::new(format!("https://push.example.org/{}?Q=%2F", longest_ascii(2_018))),
        key,
        auth: Secret::new(auth),
    };
    let devices = [
        world.device(account.id),
        full(apns, Surface::LiveActivityUpdate, EARLY),
        full(released, Surface::Widget, world.now().plus(Duration::from_micros(1))),
        full(browser, Surface::Control, LATE),
        Device {
            app_version: Some(special("1.2 (3)")),
            ..full(fcm(longest_ascii(4_096)), Surface::LiveActivityStart, LATE)
        },
    ];
    for device in &devices {
        must(&store, put(device)).await;
    }
    for device in &devices {
        require_stored(&store, device, "after it was registered").await;
    }
    // Each takes every field of another one.
    let replaced: Vec<Device> = devices
        .iter()
        .zip(devices.iter().cycle().skip(2))
        .map(|(device, other)| Device { account: device.account, id: device.id, ..other.clone() })
        .collect();
    must(&store, DeviceChange::RemoveOf { account: account.id }).await;
    for device in &devices {
        must(&store, put(device)).await;
    }
    for device in &replaced {
        must(&store, put(device)).await;
        require_stored(&store, device, "after it was registered again").await;
    }
    for device in &devices {
        must(&store, put(device)).await;
        let plain = Device { id: device.id, ..world.device(account.id) };
        must(&store, put(&plain)).await;
        require_stored(&store, &plain, "after it was registered again").await;
    }
}

/// A registration takes the destination from the device that had it, and from no other.
pub async fn dv2_destination_belongs_to_one_device(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (ana, ben) = (world.account_id(), world.account_id());
    let token = longest_ascii(4_096);
    let first = Device { destination: fcm(&token), ..world.device(ana) };
    must(&*store, put(&first)).await;
    for similar in near(&token) {
        must(&*store, put(&Device { destination: fcm(similar), ..world.device(world.account_id()) })).await;
    }
    // The same token of another service is another destination.
    let apns = Destination::Apns { token: Secret::new(token.clone()), app: "a".to_owned(), sandbox: false };
    let other = Device { destination: apns, ..world.device(ben) };
    must(&*store, put(&other)).await;
    require_devices(&*store, ana, &[&first], "a similar token takes over a device").await;
    // The same phone, under another account, then under another id of this account.
    let elsewhere = Destination::Fcm { token: Secret::new(token), app: "another.app".to_owned() };
    let second = Device { destination: elsewhere, surface: Surface::Widget, ..world.device(ben) };
    accepted(&*store, put(&second), "a destination cannot be taken over").await;
    require_devices(&*store, ana, &[], "a destination stays with its former account").await;
    require_devices(&*store, ben, &[&other, &second], "a destination is not taken over").await;
    let third = Device { id: world.device(ben).id, ..second.clone() };
    accepted(&*store, put(&third), "a destination cannot be taken over").await;
    require_devices(&*store, ben, &[&other, &third], "a destination stays with its former id").await;
    // A device that gets another destination frees the one that it had.
    must(&*store, put(&Device { destination: fcm("moved"), ..third.clone() })).await;
    let freed = Device { id: world.device(ana).id, account: ana, ..third.clone() };
    accepted(&*store, put(&freed), "the former destination of a device cannot be registered").await;
    require_devices(&*store, ben, &[&other, &third], "a device loses a destination that it no longer has")
        .await;
    // Two phones are swapped, and all race for one.
    let accounts: Vec<AccountId> = (0..50).map(|_| world.account_id()).collect();
    let devices: Vec<Device> = accounts
        .iter()
        .map(|account| Device { destination: fcm("raced"), ..world.device(*account) })
        .collect();
    let commits = devices.iter().map(|device| vec![put(device).into()]).collect();
    same(&race(&store, commits).await, &50, "a registration conflicts with one of the same destination");
    let mut left = 0;
    for account in accounts {
        left += store.devices_of(account).await.unwrap().len();
    }
    same(&left, &1, "concurrent registrations leave another number of devices of one destination");
}

/// Concurrent registrations of an account succeed as long as they fit.
pub async fn dv3_number_of_devices_is_limited(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (ana, ben) = (world.account_id(), world.account_id());
    for _ in 0..MOST {
        accepted(&*store, put(&world.device(ben)), "of registrations one by one, fewer succeed than fit")
            .await;
    }
    let devices: Vec<Device> = (0..50).map(|_| world.device(ana)).collect();
    let commits = devices.iter().map(|device| vec![put(device).into()]).collect();
    let results = concurrently(&store, commits).await;
    let succeeded: Vec<&Device> =
        devices.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(device, _)| device).collect();
    same(
        &succeeded.len(),
        &(MOST as usize),
        "concurrent registrations exceed the limit, or fewer succeed than fit",
    );
    require_devices(&*store, ana, &succeeded, "the devices are not those whose registration succeeded").await;
    let full = Conflict::TooManyDevices(ana);
    let beyond = world.device(ana);
    refused(&*store, put(&beyond), full, "a registration exceeds the limit").await;
    require_devices(&*store, ana, &succeeded, "a registration that conflicted has an effect").await;
    // A registration that adds none fits.
    let again = Device { destination: fcm("again"), ..succeeded[0].clone() };
    accepted(&*store, put(&again), "a device cannot be registered again at the limit").await;
    let moved = Device { id: beyond.id, ..succeeded[1].clone() };
    accepted(&*store, put(&moved), "a destination cannot get another id at the limit").await;
    let both = Device { destination: succeeded[2].destination.clone(), ..again };
    accepted(&*store, put(&both), "a device cannot take the destination of another one at the limit").await;
    accepted(&*store, put(&world.device(ana)), "a device that lost its destination still counts").await;
    // The device that loses the destination belongs to another account, and only its id is one of this account.
    let same_id = Device { id: moved.id, ..world.device(world.account_id()) };
    must(&*store, put(&same_id)).await;
    let beyond = Device { destination: same_id.destination, ..world.device(ana) };
    refused(&*store, put(&beyond), full, "a registration exceeds the limit").await;
    let cleo = world.account_id();
    let one = |most| DeviceChange::Put { device: world.device(cleo), most };
    must(&*store, one(1)).await;
    let full = Conflict::TooManyDevices(cleo);
    refused(&*store, one(1), full, "a registration exceeds a lower limit").await;
    accepted(&*store, one(2), "a registration that fits a higher limit is refused").await;
    let removed = ids_of(&*store, ana).await[0];
    must(&*store, DeviceChange::Remove { account: ana, id: removed }).await;
    let next = put(&world.device(ana));
    accepted(&*store, next, "a removed device still counts").await;
}

/// Sessions of one account, with a device of each, and devices of others.
struct Signed {
    account: Account,
    sessions: Vec<Session>,
    devices: Vec<Device>,
    /// Device that no session registered.
    host: Device,
    /// Device of another account that its session registered, with the same session id.
    other: Device,
}

async fn signed(world: &World, store: &impl Store, name: &str) -> Signed {
    let (account, other) = (world.account(name), world.account(&format!("{name}2")));
    let session = |n: u64| Session {
        seen_at: world.later(n),
        expires_at: world.later(n + 100),
        ..world.session(account.id)
    };
    let sessions: Vec<Session> = (0..4).map(session).collect();
    let devices: Vec<Device> = sessions
        .iter()
        .map(|session| Device { session: Some(session.id), ..world.device(account.id) })
        .collect();
    let host = world.device(account.id);
    let theirs = Session { id: sessions[0].id, expires_at: LATE, seen_at: LATE, ..world.session(other.id) };
    let other_device = Device { session: Some(theirs.id), ..world.device(other.id) };
    let mut changes = vec![insert(&account), insert(&other)];
    for session in sessions.iter().chain([&theirs]) {
        changes.push(AccountChange::InsertSession { session: session.clone(), version: 0 }.into());
    }
    for device in devices.iter().chain([&host, &other_device]) {
        changes.push(put(device).into());
    }
    all(store, changes).await;
    Signed { account, sessions, devices, host, other: other_device }
}

/// A device requires its session, and ends with it.
pub async fn dv4_devices_end_with_their_session(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let stay = "an end of sessions removes other devices than theirs, or leaves one of theirs";
    let Signed { account, sessions, devices, host, other } = signed(&world, &*store, "ana").await;
    let unknown = Device { session: Some(world.session(account.id).id), ..world.device(account.id) };
    let ended = Conflict::SessionEnded(unknown.session.unwrap());
    refused(&*store, put(&unknown), ended, "a device is registered for a session that does not exist").await;
    let foreign =
        Device { account: other.account, session: Some(sessions[1].id), ..world.device(other.account) };
    let ended = Conflict::SessionEnded(sessions[1].id);
    refused(&*store, put(&foreign), ended, "a device is registered for a session of another account").await;
    let none = DeviceChange::Put { device: unknown.clone(), most: 0 };
    let ended = Conflict::SessionEnded(unknown.session.unwrap());
    refused(&*store, none, ended, "a limit is checked before the session").await;
    must(&*store, AccountChange::EndSession { account: account.id, id: sessions[0].id }).await;
    require_devices(&*store, account.id, &[&devices[1], &devices[2], &devices[3], &host], stay).await;
    require_devices(&*store, other.account, &[&other], stay).await;
    let ended = Conflict::SessionEnded(sessions[0].id);
    refused(&*store, put(&devices[0]), ended, "a device is registered for a session that has ended").await;
    // A device belongs to the session that registered it last.
    must(&*store, put(&Device { session: Some(sessions[2].id), ..devices[1].clone() })).await;
    must(&*store, AccountChange::EndSession { account: account.id, id: sessions[1].id }).await;
    require_devices(&*store, account.id, &[&devices[1], &devices[2], &devices[3], &host], stay).await;
    must(&*store, AccountChange::EndSessions { account: account.id, except: Some(sessions[3].id) }).await;
    require_devices(&*store, account.id, &[&devices[3], &host], stay).await;
    must(&*store, AccountChange::EndSessions { account: account.id, except: None }).await;
    require_devices(&*store, account.id, &[&host], stay).await;
    must(&*store, AccountChange::Erase { id: account.id, version: 0 }).await;
    require_devices(&*store, account.id, &[], "an erased account keeps devices").await;
    require_devices(&*store, other.account, &[&other], stay).await;
    // A freed destination has no owner.
    let freed = Device { destination: host.destination.clone(), ..world.device(other.account) };
    accepted(&*store, put(&freed), "the destination of an erased account cannot be registered").await;
    // Purges: two sessions expired, one of them beyond the cap, then one is idle.
    let Signed { account, sessions, devices, host, .. } = signed(&world, &*store, "ben").await;
    let purge = |before, idle, cap| AccountChange::PurgeSessions { before, idle, cap };
    let (never, second) = (EARLY, sessions[1].expires_at.plus(Duration::from_micros(1)));
    affects(&*store, purge(second, never, 1), 1, "a purge removes another number of sessions").await;
    require_devices(&*store, account.id, &[&devices[1], &devices[2], &devices[3], &host], stay).await;
    affects(&*store, purge(second, never, 9), 1, "a purge removes another number of sessions").await;
    require_devices(&*store, account.id, &[&devices[2], &devices[3], &host], stay).await;
    affects(&*store, purge(never, sessions[3].seen_at, 9), 1, "a purge removes another number of sessions")
        .await;
    require_devices(&*store, account.id, &[&devices[3], &host], stay).await;
    // More sessions than one statement of a database handles.
    let many = world.account("many");
    let mut changes = vec![insert(&many)];
    for n in 0..41_u64 {
        let session = Session { expires_at: world.now(), ..world.session(many.id) };
        let device = Device { session: Some(session.id), ..world.device(many.id) };
        changes.push(AccountChange::InsertSession { session, version: 0 }.into());
        if n % 3 == 0 {
            changes.push(put(&device).into());
        }
    }
    all(&*store, changes).await;
    affects(&*store, purge(world.later(1), never, 99), 41, "a purge removes another number of sessions")
        .await;
    require_devices(&*store, many.id, &[], stay).await;
    // Undone with the commit.
    let Signed { account, sessions, devices, host, .. } = signed(&world, &*store, "cleo").await;
    let all_of = [&devices[0], &devices[1], &devices[2], &devices[3], &host];
    let ends: [AccountChange; 4] = [
        AccountChange::EndSession { account: account.id, id: sessions[0].id },
        AccountChange::EndSessions { account: account.id, except: None },
        AccountChange::Erase { id: account.id, version: 0 },
        purge(LATE, LATE, 99),
    ];
    for end in ends {
        let conflict = insert(&world.account("ana2"));
        conflicts(&*store, vec![end.into(), conflict]).await;
        require_devices(&*store, account.id, &all_of, "a conflict does not undo the removal of devices")
            .await;
    }
    // Registrations beside the end of the session.
    for n in 0..10 {
        let Signed { account, sessions, .. } = signed(&world, &*store, &format!("raced{n}")).await;
        let device = Device { session: Some(sessions[0].id), ..world.device(account.id) };
        let end = AccountChange::EndSession { account: account.id, id: sessions[0].id };
        concurrently(&store, vec![vec![put(&device).into()], vec![end.into()]]).await;
        let found = store.device(account.id, device.id).await.unwrap();
        same(&found, &None, "a device that is registered while its session ends stays");
    }
}

/// Devices are listed by registration, then by id.
pub async fn dv5_devices_are_listed_by_registration(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    must(&store, put(&world.device(ben))).await;
    let at = |micros: u64| world.now().plus(Duration::from_micros(micros));
    let times = [at(2), EARLY, at(1), at(1), LATE, at(1), EARLY];
    let mut devices: Vec<Device> =
        times.into_iter().map(|registered_at| Device { registered_at, ..world.device(ana) }).collect();
    for n in [3, 0, 6, 2, 5, 1, 4] {
        must(&store, put(&devices[n])).await;
    }
    let order = |devices: &mut Vec<Device>| {
        devices.sort_by_key(|device| (device.registered_at, device.id));
        devices.iter().map(|device| device.id).collect::<Vec<_>>()
    };
    same(&ids_of(&store, ana).await, &order(&mut devices), "devices are listed in another order");
    // A new registration moves a device to another place.
    let last = Device { registered_at: LATE, ..devices[0].clone() };
    must(&store, put(&last)).await;
    devices[0] = last;
    same(
        &ids_of(&store, ana).await,
        &order(&mut devices),
        "a device keeps its place after it is registered again",
    );
    let many = world.account_id();
    let changes = (0..201).map(|n| {
        let device = Device { registered_at: at(n), ..world.device(many) };
        Change::from(DeviceChange::Put { device, most: 999 })
    });
    let changes: Vec<Change> = changes.collect();
    all(&store, changes).await;
    let listed = store.devices_of(many).await.unwrap();
    same(&listed.len(), &200, "the list has another number of devices than the first 200");
    same(
        &listed.last().map(|device| device.registered_at),
        &Some(at(199)),
        "the list lacks one of the first 200",
    );
}

/// A destination is retired only if it was registered at or before the time.
pub async fn dv6_only_older_registrations_are_retired(store: impl Store) {
    let world = World::default();
    let ana = world.account_id();
    let micro = Duration::from_micros(1);
    let retire = |device: &Device, not_after: Timestamp| DeviceChange::Retire {
        destination: device.destination_digest(),
        not_after,
    };
    for at in [world.now(), EARLY, LATE] {
        let (device, other) = (
            Device { registered_at: at, ..world.device(ana) },
            Device { registered_at: EARLY, ..world.device(ana) },
        );
        all(&store, vec![put(&device).into(), put(&other).into()]).await;
        must(&store, retire(&device, at.minus(micro))).await;
        require_devices(&store, ana, &[&device, &other], "a device that was registered later is retired")
            .await;
        // The time of the latest registration counts.
        let again = Device { registered_at: at.plus(micro), ..device.clone() };
        must(&store, put(&again)).await;
        must(&store, retire(&device, at)).await;
        require_devices(&store, ana, &[&device, &other], "a device that has registered again is retired")
            .await;
        must(&store, retire(&device, at.plus(micro))).await;
        require_devices(&store, ana, &[&other], "a device that was registered at the time is not retired")
            .await;
        accepted(&store, retire(&device, LATE), "retiring an unknown destination conflicts").await;
        must(&store, DeviceChange::RemoveOf { account: ana }).await;
    }
}

/// Ids belong to accounts, and removals affect one account.
pub async fn dv7_only_devices_of_the_account_are_removed(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    let (hers, second) = (world.device(ana), world.device(ana));
    let his = Device { id: hers.id, ..world.device(ben) };
    for device in [&hers, &second, &his] {
        must(&store, put(device)).await;
    }
    require_devices(&store, ana, &[&hers, &second], "a device replaces one of another account").await;
    require_stored(&store, &his, "after another account has used its id").await;
    require_stored(&store, &hers, "after another account has used its id").await;
    let remove = |account, id| DeviceChange::Remove { account, id };
    accepted(&store, remove(ben, second.id), "removing a device that does not exist conflicts").await;
    must(&store, remove(ana, hers.id)).await;
    require_devices(&store, ana, &[&second], "a removal removes other devices, or none").await;
    require_devices(&store, ben, &[&his], "a removal removes a device of another account").await;
    accepted(&store, remove(ana, hers.id), "removing a device that does not exist conflicts").await;
    let freed = Device { destination: hers.destination.clone(), ..world.device(ana) };
    accepted(&store, put(&freed), "the destination of a removed device cannot be registered").await;
    must(&store, DeviceChange::RemoveOf { account: ana }).await;
    require_devices(&store, ana, &[], "a removal of all devices leaves one").await;
    require_devices(&store, ben, &[&his], "a removal removes a device of another account").await;
    accepted(&store, DeviceChange::RemoveOf { account: ana }, "removing no devices conflicts").await;
}

/// Commits that conflict after each kind of change, for the check of atomic commits.
pub(crate) async fn conflicts_undo_device_changes(store: &impl Store) {
    // Other ids than those of the rest of the check.
    let world = World::new(3);
    let (ana, ben, taken) = (world.account_id(), world.account_id(), world.account("device"));
    let (hers, his) = (world.device(ana), world.device(ben));
    all(store, vec![insert(&taken), put(&hers).into(), put(&his).into()]).await;
    let changes = [
        DeviceChange::Put {
            device: Device { destination: his.destination.clone(), ..hers.clone() },
            most: MOST,
        },
        DeviceChange::Remove { account: ana, id: hers.id },
        DeviceChange::RemoveOf { account: ana },
        DeviceChange::Retire { destination: hers.destination_digest(), not_after: LATE },
    ];
    for change in changes {
        let what = format!("after a conflict undid {}", name(&change));
        let conflict = conflicts(store, vec![change.into(), insert(&taken)]).await;
        same(&conflict, &Conflict::AccountExists, "another conflict");
        require_stored(store, &hers, &what).await;
        require_stored(store, &his, &what).await;
    }
}

const fn name(change: &DeviceChange) -> &'static str {
    match change {
        DeviceChange::Put { .. } => "a registration",
        DeviceChange::Remove { .. } => "a removal",
        DeviceChange::RemoveOf { .. } => "a removal of all devices",
        DeviceChange::Retire { .. } => "a retirement",
    }
}
