//! N1–N3: notification preferences.

use std::sync::Arc;

use couple_core::{
    AccountId, Conflict, Store, TimeZoneName, Timestamp,
    account::AccountChange,
    notification::{DigestDelay, NotificationChange, Preferences, QuietHours},
};

use crate::{
    samples::{after_2038, before_1970},
    world::{World, accepted, all, concurrently, conflicts, insert, must, race, refused, same},
};

fn put(preferences: &Preferences) -> NotificationChange {
    NotificationChange::Put(preferences.clone())
}

/// Preferences as they are stored after they were written.
fn stored(written: &Preferences) -> Preferences {
    Preferences { version: written.version + 1, ..written.clone() }
}

/// Preferences in which every field has another value than in the defaults.
fn changed(person: AccountId) -> Preferences {
    Preferences {
        kinds: [false; 3],
        previews: true,
        muted_until: Some(Timestamp::from_micros(1_900_000_000_000_001)),
        quiet_hours: quiet(22 * 60, 7 * 60 + 30),
        time_zone: Some(TimeZoneName::from_stored("America/Argentina/ComodRivadavia")),
        digest: DigestDelay::from_stored(60),
        digest_due: Some(Timestamp::from_micros(1_900_000_000_000_003)),
        ..Preferences::default_of(person)
    }
}

fn quiet(from: i64, to: i64) -> Option<QuietHours> {
    QuietHours::from_stored(from, to)
}

async fn require_stored(store: &impl Store, person: AccountId, expected: Option<&Preferences>, what: &str) {
    let found = store.preferences(person).await.unwrap();
    same(&found.as_ref(), &expected, what);
}

/// Every field reads back, alone and with all others, and a change replaces every field.
pub async fn n1_preferences_read_back(store: impl Store) {
    let world = World::default();
    let (person, other) = (world.account_id(), world.account_id());
    require_stored(&store, person, None, "preferences are found of a person who has changed none").await;
    let defaults = || Preferences::default_of(person);
    let [mut entries, mut reactions, mut pairing] = [defaults(), defaults(), defaults()];
    entries.kinds[0] = false;
    reactions.kinds[1] = false;
    pairing.kinds[2] = false;
    let written = [
        defaults(),
        entries,
        reactions,
        pairing,
        Preferences { previews: true, ..defaults() },
        Preferences { muted_until: Some(before_1970(1)), ..defaults() },
        Preferences { muted_until: Some(after_2038(1)), ..changed(person) },
        Preferences { quiet_hours: quiet(0, 1439), ..defaults() },
        Preferences { quiet_hours: quiet(1439, 0), ..changed(person) },
        Preferences { time_zone: Some(TimeZoneName::from_stored("z".repeat(64))), ..defaults() },
        Preferences { digest: DigestDelay::from_stored(5), ..defaults() },
        Preferences { digest: DigestDelay::from_stored(7 * 24 * 60), ..changed(person) },
        Preferences { digest_due: Some(before_1970(1)), ..defaults() },
        Preferences { digest_due: Some(after_2038(1)), ..changed(person) },
        changed(person),
        defaults(),
    ];
    for (version, preferences) in (0..).zip(written) {
        let written = Preferences { version, ..preferences };
        let what = "preferences read back otherwise after they were written";
        accepted(&store, put(&written), "preferences of the stored version are refused").await;
        require_stored(&store, person, Some(&stored(&written)), what).await;
    }
    require_stored(&store, other, None, "preferences are found of a person who has changed none").await;
    must(&store, put(&changed(other))).await;
    let last = Preferences { version: 16, ..defaults() };
    require_stored(&store, person, Some(&last), "a change affects another person").await;
    let high = Preferences { version: 16, ..changed(person) };
    must(&store, put(&high)).await;
    require_stored(&store, other, Some(&stored(&changed(other))), "a change affects another person").await;
}

/// A change requires the version that was read: of concurrent changes after the same read one succeeds.
pub async fn n2_preferences_change_only_as_read(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (person, other) = (world.account_id(), world.account_id());
    let conflict = Conflict::PreferencesChanged(person);
    let first = changed(person);
    let late = Preferences { version: 1, ..Preferences::default_of(person) };
    let what = "preferences are written though nothing of their version is stored";
    refused(&*store, put(&late), conflict, what).await;
    must(&*store, put(&first)).await;
    for version in [0, 2, -1] {
        let wrong = Preferences { version, ..Preferences::default_of(person) };
        let what = "preferences of another version than the stored one are written";
        refused(&*store, put(&wrong), conflict, what).await;
        let what = "a change that conflicted has an effect";
        require_stored(&*store, person, Some(&stored(&first)), what).await;
    }
    accepted(&*store, put(&late), "preferences of the stored version are refused").await;
    for person in [person, other] {
        let version = store.preferences(person).await.unwrap().map_or(0, |stored| stored.version);
        let commits = (0..50).map(|n| {
            let until = Some(Timestamp::from_micros(n));
            let preferences = Preferences { muted_until: until, version, ..changed(person) };
            vec![put(&preferences).into()]
        });
        let succeeded = race(&store, commits.collect()).await;
        same(&succeeded, &1, "of concurrent changes after the same read another number than one succeeds");
    }
}

/// A removal, and the erasure of the account, affect no other person.
pub async fn n3_preferences_are_removed_with_the_person(store: impl Store) {
    let (world, store) = (World::default(), Arc::new(store));
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    let host_user = world.account_id();
    let persons = [ana.id, ben.id, host_user];
    all(&*store, vec![insert(&ana), insert(&ben)]).await;
    for person in persons {
        must(&*store, put(&changed(person))).await;
    }
    let gone = "preferences stay after they were removed";
    let others = "removing preferences affects another person";
    must(&*store, NotificationChange::Remove { person: host_user }).await;
    require_stored(&*store, host_user, None, gone).await;
    for person in [ana.id, ben.id] {
        require_stored(&*store, person, Some(&stored(&changed(person))), others).await;
    }
    let remove = NotificationChange::Remove { person: host_user };
    accepted(&*store, remove, "removing no preferences conflicts").await;
    must(&*store, AccountChange::Erase { id: ana.id, version: 0 }).await;
    require_stored(&*store, ana.id, None, "an erased account keeps preferences").await;
    require_stored(&*store, ben.id, Some(&stored(&changed(ben.id))), others).await;
    // The version starts again.
    let again = changed(host_user);
    accepted(&*store, put(&again), "preferences cannot be written after they were removed").await;
    require_stored(&*store, host_user, Some(&stored(&again)), "preferences read back otherwise").await;
    // A removal beside a change.
    for _ in 0..10 {
        let person = world.account_id();
        let remove = NotificationChange::Remove { person };
        must(&*store, put(&changed(person))).await;
        let next = Preferences { version: 1, ..changed(person) };
        let results = concurrently(&store, vec![vec![put(&next).into()], vec![remove.into()]]).await;
        assert!(results[1].is_ok(), "removing preferences beside a change conflicts");
        let found = store.preferences(person).await.unwrap();
        same(&found, &None, "preferences stay after a removal beside a change");
    }
}

/// Commits that conflict after each kind of change, for the check of atomic commits.
pub(crate) async fn conflicts_undo_preferences(store: &impl Store) {
    // Other ids than those of the rest of the check.
    let world = World::new(4);
    let (hers, taken) = (changed(world.account_id()), world.account("preferences"));
    all(store, vec![insert(&taken), put(&hers).into()]).await;
    let next = Preferences { version: 1, ..Preferences::default_of(hers.person) };
    let first = Preferences::default_of(world.account_id());
    let changes = [
        (put(&next), "after a conflict undid a change"),
        (put(&first), "after a conflict undid the first change"),
        (NotificationChange::Remove { person: hers.person }, "after a conflict undid a removal"),
    ];
    for (change, when) in changes {
        let conflict = conflicts(store, vec![change.into(), insert(&taken)]).await;
        same(&conflict, &Conflict::AccountExists, "another conflict");
        let what = format!("the preferences read back otherwise {when}");
        require_stored(store, hers.person, Some(&stored(&hers)), &what).await;
        require_stored(store, first.person, None, &what).await;
    }
}
