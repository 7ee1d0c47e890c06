//! PR1–PR4: presence.

use std::time::Duration;

use couple_core::live::Presence;
use tokio::time::sleep;

use crate::World;

const LEASE: Duration = Duration::from_millis(400);

/// An account is present from a renewal until its lease expires.
pub async fn pr1_account_is_present_until_its_lease_expires(presence: impl Presence) {
    let ana = World::default().account_id();
    assert_eq!(presence.left(ana).await.unwrap(), None);
    presence.renew(ana, LEASE).await.unwrap();
    let left = presence.left(ana).await.unwrap().unwrap();
    assert!(left <= LEASE && !left.is_zero(), "{left:?}");
    sleep(LEASE / 2).await;
    presence.renew(ana, LEASE).await.unwrap();
    sleep(LEASE * 3 / 4).await;
    assert!(presence.left(ana).await.unwrap().is_some(), "a renewal extends the lease");
    sleep(LEASE / 2).await;
    assert_eq!(presence.left(ana).await.unwrap(), None);
}

/// A renewal returns whether the account was away.
pub async fn pr2_renewal_returns_whether_the_account_was_away(presence: impl Presence) {
    let ana = World::default().account_id();
    assert!(presence.renew(ana, LEASE).await.unwrap());
    assert!(!presence.renew(ana, LEASE).await.unwrap());
    sleep(LEASE + LEASE / 4).await;
    assert!(presence.renew(ana, LEASE).await.unwrap());
}

/// The lease of one account does not affect another account.
pub async fn pr3_leases_of_accounts_are_independent(presence: impl Presence) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    presence.renew(ana, LEASE).await.unwrap();
    assert_eq!(presence.left(ben).await.unwrap(), None);
    assert!(presence.renew(ben, LEASE).await.unwrap());
}

/// A lease can be shortened. That neither lengthens a lease nor makes an account present.
pub async fn pr4_lease_can_be_shortened(presence: impl Presence) {
    let world = World::default();
    let (ana, ben) = (world.account_id(), world.account_id());
    presence.shorten(ana, LEASE).await.unwrap();
    assert_eq!(presence.left(ana).await.unwrap(), None, "an account that is away stays away");
    presence.renew(ana, LEASE * 100).await.unwrap();
    presence.renew(ben, LEASE * 100).await.unwrap();
    presence.shorten(ana, LEASE).await.unwrap();
    presence.shorten(ana, LEASE * 50).await.unwrap();
    let left = presence.left(ana).await.unwrap().unwrap();
    assert!(left <= LEASE, "{left:?}");
    assert!(presence.left(ben).await.unwrap().unwrap() > LEASE, "the lease of another account");
    assert!(!presence.renew(ana, LEASE * 2).await.unwrap());
    assert!(presence.left(ana).await.unwrap().unwrap() > LEASE, "a renewal lengthens it again");
    presence.shorten(ana, LEASE).await.unwrap();
    sleep(LEASE + LEASE / 4).await;
    assert_eq!(presence.left(ana).await.unwrap(), None);
    assert!(presence.renew(ana, LEASE).await.unwrap());
}
