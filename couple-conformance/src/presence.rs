//! PR1–PR4: presence.

use std::time::Duration;

use couple_core::{AccountId, live::Presence};
use tokio::time::sleep;

use crate::World;

const LEASE: Duration = Duration::from_millis(400);

async fn left(presence: &impl Presence, account: AccountId) -> Option<Duration> {
    presence.left(account).await.unwrap()
}

/// An account is present from a renewal until its lease expires.
pub async fn pr1_account_is_present_until_its_lease_expires(presence: impl Presence) {
    let ana = World::default().account_id();
    assert_eq!(left(&presence, ana).await, None, "an account is present before its first renewal");
    presence.renew(ana, LEASE).await.unwrap();
    let first = left(&presence, ana).await.expect("an account is not present after a renewal");
    assert!(first <= LEASE, "an account is present longer than the lease: {first:?}");
    sleep(LEASE / 2).await;
    presence.renew(ana, LEASE).await.unwrap();
    let renewed = left(&presence, ana).await.unwrap_or_default();
    assert!(renewed <= LEASE, "an account is present longer than the lease: {renewed:?}");
    sleep(LEASE * 3 / 4).await;
    assert!(left(&presence, ana).await.is_some(), "a renewal does not extend the lease");
    sleep(LEASE / 2).await;
    assert_eq!(left(&presence, ana).await, None, "an account is present after its lease expired");
}

/// A renewal returns whether the account was away.
pub async fn pr2_renewal_returns_whether_the_account_was_away(presence: impl Presence) {
    let ana = World::default().account_id();
    let first = presence.renew(ana, LEASE).await.unwrap();
    assert!(first, "a renewal does not return that an account was away");
    let second = presence.renew(ana, LEASE).await.unwrap();
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
    let (ana, ben) = (world.account_id(), world.account_id());
    presence.shorten(ana, LEASE).await.unwrap();
    assert_eq!(left(&presence, ana).await, None, "shortening makes an account that is away present");
    presence.renew(ana, LEASE * 100).await.unwrap();
    presence.renew(ben, LEASE * 100).await.unwrap();
    presence.shorten(ana, LEASE).await.unwrap();
    let shortened = left(&presence, ana).await.expect("an account is away after its lease was shortened");
    assert!(shortened <= LEASE, "shortening does not shorten a lease: {shortened:?} are left");
    presence.shorten(ana, LEASE * 50).await.unwrap();
    let same = left(&presence, ana).await.unwrap_or_default();
    assert!(same <= LEASE, "shortening to a later time lengthens a lease: {same:?} are left");
    let of_ben = left(&presence, ben).await.unwrap_or_default();
    assert!(of_ben > LEASE, "shortening affects the lease of another account: {of_ben:?} are left");
    let was_away = presence.renew(ana, LEASE * 2).await.unwrap();
    assert!(!was_away, "an account is away after its lease was shortened");
    assert!(
        left(&presence, ana).await.unwrap_or_default() > LEASE,
        "a renewal does not lengthen a shortened lease"
    );
    presence.shorten(ana, LEASE).await.unwrap();
    sleep(LEASE + LEASE / 4).await;
    assert_eq!(left(&presence, ana).await, None, "an account is present after its shortened lease expired");
    assert!(presence.renew(ana, LEASE).await.unwrap(), "an account whose shortened lease expired was away");
}
