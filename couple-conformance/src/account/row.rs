//! Accounts: address, fields, versions, due deletions.

use std::sync::Arc;

use couple_core::{
    Conflict, DisplayName, EmailAddress, EmailKey, Store,
    account::{Account, AccountChange},
};

use super::{address, extreme_accounts, longest_key};
use crate::{
    samples::{MOMENT, near},
    world::{World, accepted, all, insert, must, race, refused, same},
};

/// An address key has one account; keys that differ in any byte are different addresses.
pub async fn a1_address_key_has_one_account(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let commits = (0..50).map(|_| vec![insert(&world.account("ana"))]).collect();
    same(
        &race(&store, commits).await,
        &1,
        "of 50 concurrent inserts with one address other than one succeeded",
    );
    let ana = store.account_by_email(world.email("ana").key()).await.unwrap();
    let ana = ana.expect("an account is not found by its address key");
    let again = Account { id: ana.id, ..world.account("other") };
    refused(&store, insert(&again), Conflict::AccountExists, "an insert with a used id does not conflict")
        .await;
    let found = store.account(ana.id).await.unwrap();
    same(&found, &Some(ana), "an insert with a used id replaced the account");
    let long = [1, 2].map(longest_key);
    for key in near("ana@example.org").into_iter().chain(long) {
        let account = Account { email: address(&key), ..world.account("x") };
        let found = store.account_by_email(account.email.key()).await.unwrap();
        same(&found, &None, "an address finds the account of a similar address");
        accepted(&store, insert(&account), &format!("the address {key:?} is taken for a similar one")).await;
        let found = store.account_by_email(account.email.key()).await.unwrap();
        same(&found, &Some(account), "an address finds the account of a similar address");
    }
}

/// Every field of an account reads back, and an update replaces every field and increments the version.
pub async fn a2_account_fields_read_back(store: impl Store) {
    let world = World::default();
    let check = async |account: &Account, what: &str| {
        same(&store.account(account.id).await.unwrap().as_ref(), &Some(account), what);
        let found = store.account_by_email(account.email.key()).await.unwrap();
        same(&found.as_ref(), &Some(account), what);
    };
    let [special, long] = extreme_accounts(&world);
    for account in [&special, &long] {
        accepted(&store, insert(account), "an account is refused for its values").await;
        check(account, "a field of an account does not read back as it was written").await;
    }
    for (account, other) in [(&special, &long), (&long, &special)] {
        // Every field changes.
        let key = EmailKey::from_stored(format!("{}@new.org", account.display_name.as_str().len()));
        let mut expected = account.clone();
        let changed = Account {
            id: account.id,
            email: EmailAddress::from_stored(other.email.as_str(), key),
            version: account.version,
            ..other.clone()
        };
        let none = Account {
            locale: None,
            time_zone: None,
            birthday: None,
            password: None,
            deletion_due: None,
            ..changed.clone()
        };
        for next in [changed, none] {
            let update = Account { version: expected.version, ..next.clone() };
            expected = Account { version: update.version + 1, ..next };
            accepted(&store, AccountChange::Update(update), "an update of an account is refused").await;
            check(&expected, "an update does not replace every field of an account").await;
        }
        let back = Account { version: expected.version, ..account.clone() };
        accepted(&store, AccountChange::Update(back), "an update of an account is refused").await;
        let expected = Account { version: expected.version + 1, ..account.clone() };
        check(&expected, "an update does not replace every field of an account").await;
    }
}

/// An account that was changed since it was read cannot be overwritten.
pub async fn a3_stale_update_conflicts(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    must(&store, AccountChange::Insert(account.clone())).await;
    let store = Arc::new(store);
    let update = AccountChange::Update(account.clone());
    let succeeded = race(&store, (0..50).map(|_| vec![update.clone().into()]).collect()).await;
    same(&succeeded, &1, "of 50 concurrent updates after one read other than one succeeded");
    let changed = Conflict::AccountChanged(account.id);
    for version in [-1, 0, 2, 1 << 32, (1 << 32) + 1] {
        let stale = Account { version, display_name: DisplayName::from_stored("stale"), ..account.clone() };
        refused(&store, AccountChange::Update(stale), changed, "an update with another version succeeds")
            .await;
    }
    let found = store.account(account.id).await.unwrap();
    same(&found, &Some(Account { version: 1, ..account }), "a stale update changed the account");
    let gone = world.account("ben");
    let update = AccountChange::Update(gone.clone());
    refused(&store, update, Conflict::AccountChanged(gone.id), "an update of a missing account succeeds")
        .await;
    same(&store.account(gone.id).await.unwrap(), &None, "an update added a missing account");
}

/// An update cannot take the address of another account. It frees the account's old address.
pub async fn a4_update_to_a_taken_address_conflicts(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let taken = Account { email: ben.email.clone(), ..ana.clone() };
    let what = "an update takes the address of another account";
    refused(&store, AccountChange::Update(taken), Conflict::AccountExists, what).await;
    same(&store.account(ana.id).await.unwrap().as_ref(), &Some(&ana), what);
    // The same key, typed in another way.
    let typed = EmailAddress::from_stored("Ana@Example.org", ana.email.key().clone());
    let mut now = Account { email: typed, ..ana.clone() };
    accepted(&store, AccountChange::Update(now.clone()), "an update that keeps the address key conflicts")
        .await;
    now.version += 1;
    let found = store.account_by_email(ana.email.key()).await.unwrap();
    same(
        &found.as_ref(),
        &Some(&now),
        "an account is not found by its address after an update that keeps the key",
    );
    let new = ["new@example.org".to_owned()].into_iter().chain(near("ben@example.org"));
    for key in new {
        let moved = Account { email: address(&key), ..now.clone() };
        let what = format!("an update to the free address {key:?} conflicts");
        accepted(&store, AccountChange::Update(moved.clone()), &what).await;
        let old = store.account_by_email(now.email.key()).await.unwrap();
        same(&old, &None, "an account is found by an address that it had before");
        now = Account { version: moved.version + 1, ..moved };
        let found = store.account_by_email(now.email.key()).await.unwrap();
        same(&found.as_ref(), &Some(&now), "an account is not found by its new address");
    }
    accepted(&store, insert(&world.account("ana")), "an update does not free the old address").await;
    let found = store.account_by_email(ben.email.key()).await.unwrap();
    same(&found, &Some(ben), "an update changed another account");
}

/// Accounts whose grace period has ended are listed page by page, earliest first and then by id.
pub async fn a12_due_accounts_are_listed_earliest_first(store: impl Store) {
    let world = World::default();
    let mut expected = Vec::new();
    for (n, at) in
        [(0, Some(30)), (1, Some(10)), (2, None), (3, Some(20)), (4, Some(99)), (5, Some(20)), (6, Some(20))]
    {
        let name = format!("p{n}");
        let account = Account { deletion_due: at.map(|at| world.later(at)), ..world.account(&name) };
        must(&store, AccountChange::Insert(account.clone())).await;
        expected.extend(at.is_some_and(|at| at <= 30).then_some(account));
    }
    // Accounts with the same due time are ordered by id; ids of the same millisecond are random.
    expected.sort_by_key(|account| (account.deletion_due, account.id));
    let what = "not exactly the accounts that are due are listed, earliest first and then by id";
    let list = async |at, after, limit| store.accounts_to_delete(at, after, limit).await.unwrap();
    same(&list(world.later(30), None, 9).await, &expected, what);
    let before = world.later(30).minus(MOMENT);
    same(&list(before, None, 9).await.as_slice(), &&expected[..4], what);
    same(&list(world.later(9), None, 9).await, &Vec::new(), what);
    let what = "a page of due accounts does not have its limit of rows";
    for limit in 1..=5 {
        let page = list(world.later(30), None, u32::try_from(limit).unwrap()).await;
        same(&page.as_slice(), &&expected[..limit], what);
    }
    // Each page starts after an account; accounts with the same due time are ordered by id.
    let what = "a page of due accounts does not start after the given account";
    for n in 0..expected.len() {
        let after = expected[n].deletion_due.map(|at| (at, expected[n].id));
        same(&list(world.later(30), after, 9).await.as_slice(), &&expected[n + 1..], what);
    }
}
