//! PR1–PR5: presence.

use std::time::Duration;

use couple_core::{AccountId, live::Presence};
use tokio::time::{Instant, sleep};

use crate::{
    Breakable, World,
    outage::{fails, recovers},
};

const LEASE: Duration = Duration::from_millis(1_200);

/// Lease without a whole second.
const SHORT_LEASE: Duration = Duration::from_millis(400);

async fn left(presence: &impl Presence, account: AccountId) -> Option<Duration> {
    presence.left(account).await.unwrap()
}

/// Runs steps until they take less than `lease`. On a slow machine, a lease expires between two steps: that shows nothing.
async fn within<T>(lease: Duration, mut steps: impl AsyncFnMut() -> T) -> T {
    for _ in 0..10 {
        let start = Instant::now();
        let result = steps().await;
        if start.elapsed() < lease {
            return result;
        }
    }
    panic!(
        "the calls of the check took longer than a lease of {lease:?}, ten times: repeat it on a faster machine"
    )
}

/// An account is present from a renewal until its lease expires.
pub async fn pr1_account_is_present_until_its_lease_expires(presence: impl Presence) {
    let world = World::default();
    let (before, short) = within(SHORT_LEASE, async || {
        let ana = world.account_id();
        let before = left(&presence, ana).await;
        presence.renew(ana, SHORT_LEASE).await.unwrap();
        (before, left(&presence, ana).await)
    })
    .await;
    assert_eq!(before, None, "an account is present before its first renewal");
    let short = short.expect("an account is not present after a renewal");
    assert!(short <= SHORT_LEASE, "an account is present longer than the lease: {short:?}");
    // The steps take half a lease and three quarters of one.
    let (ana, renewed, later) = within(LEASE * 3 / 2, async || {
        let ana = world.account_id();
        presence.renew(ana, LEASE).await.unwrap();
        sleep(LEASE / 2).await;
        let results = within(LEASE, async || {
            presence.renew(ana, LEASE).await.unwrap();
            let renewed = left(&presence, ana).await.unwrap_or_default();
            sleep(LEASE * 3 / 4).await;
            (renewed, left(&presence, ana).await)
        });
        let (renewed, later) = results.await;
        (ana, renewed, later)
    })
    .await;
    assert!(renewed <= LEASE, "an account is present longer than the lease: {renewed:?}");
    assert!(later.is_some(), "a renewal does not extend the lease");
    sleep(LEASE / 2).await;
    assert_eq!(left(&presence, ana).await, None, "an account is present after its lease expired");
}

/// A renewal returns whether the account was away.
pub async fn pr2_renewal_returns_whether_the_account_was_away(presence: impl Presence) {
    let world = World::default();
    let (ana, first, second) = within(LEASE, async || {
        let ana = world.account_id();
        let first = presence.renew(ana, LEASE).await.unwrap();
        (ana, first, presence.renew(ana, LEASE).await.unwrap())
    })
    .await;
    assert!(first, "a first renewal does not return that the account was away");
    assert!(!second, "a renewal does not return that an account was present");
    sleep(LEASE + LEASE / 4).await;
    let third = presence.renew(ana, LEASE).await.unwrap();
    assert!(third, "a renewal does not return that an account whose lease expired was away");
}

/// The lease of one account does not affect another account.
pub async fn pr3_leases_of_accounts_are_independent(presence: impl Presence) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    presence.renew(ana, LEASE).await.unwrap();
    assert_eq!(left(&presence, ben).await, None, "a lease makes another account present");
    assert!(presence.renew(ben, LEASE * 100).await.unwrap(), "a lease makes another account present");
    let ana_left = left(&presence, ana).await.unwrap_or_default();
    assert!(ana_left <= LEASE, "a renewal extends the lease of another account: {ana_left:?}");
}

/// A lease can be shortened. That neither lengthens a lease nor makes an account present.
pub async fn pr4_lease_can_be_shortened(presence: impl Presence) {
    let world = World::default();
    let ben = world.account_id();
    presence.renew(ben, LEASE * 100).await.unwrap();
    let (ana, shortened, same, was_away) = within(LEASE, async || {
        let ana = world.account_id();
        presence.shorten(ana, LEASE).await.unwrap();
        let away = left(&presence, ana).await;
        assert_eq!(away, None, "shortening makes an account that is away present");
        presence.renew(ana, LEASE * 100).await.unwrap();
        presence.shorten(ana, LEASE).await.unwrap();
        let shortened = left(&presence, ana).await;
        presence.shorten(ana, LEASE * 50).await.unwrap();
        let same = left(&presence, ana).await.unwrap_or_default();
        (ana, shortened, same, presence.renew(ana, LEASE * 20).await.unwrap())
    })
    .await;
    let shortened = shortened.expect("an account is away after its lease was shortened");
    assert!(shortened <= LEASE, "shortening does not shorten a lease: {shortened:?} are left");
    assert!(same <= LEASE, "shortening to a later time lengthens a lease: {same:?} are left");
    let of_ben = left(&presence, ben).await.unwrap_or_default();
    assert!(of_ben > LEASE, "shortening affects the lease of another account: {of_ben:?} are left");
    assert!(!was_away, "an account is away after its lease was shortened");
    let renewed = left(&presence, ana).await.unwrap_or_default();
    assert!(renewed > LEASE, "a renewal does not lengthen a shortened lease: {renewed:?} are left");
    presence.shorten(ana, LEASE).await.unwrap();
    sleep(LEASE + LEASE / 4).await;
    assert_eq!(left(&presence, ana).await, None, "an account is present after its shortened lease expired");
    let was_away = presence.renew(ana, LEASE).await.unwrap();
    assert!(was_away, "a renewal does not return that an account whose shortened lease expired was away");
}

/// During an outage each call fails within 10 s. After it, calls succeed again.
pub async fn pr5_outage_is_reported_and_ends<P: Presence>(presence: Breakable<P>) {
    let (presence, outage) = presence.into_parts();
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    presence.renew(ana, LEASE * 100).await.unwrap();
    outage.begin();
    fails("a query", presence.left(ana)).await;
    fails("a renewal", presence.renew(ana, LEASE)).await;
    fails("shortening a lease", presence.shorten(ana, LEASE)).await;
    outage.end();
    recovers("a query fails", async || presence.left(ana).await.ok()).await;
    recovers("a renewal fails", async || presence.renew(ben, LEASE * 100).await.ok()).await;
    recovers("shortening a lease fails", async || presence.shorten(ben, LEASE * 50).await.ok()).await;
    let ben_left = recovers("a query fails", async || presence.left(ben).await.ok()).await;
    let is_shortened = ben_left.is_some_and(|left| left > LEASE && left <= LEASE * 50);
    assert!(is_shortened, "after an outage, a lease is not the one that was written: {ben_left:?}");
}
