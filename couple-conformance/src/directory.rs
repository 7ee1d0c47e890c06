//! Checks D1 to D5 of `Directory`.

use std::time::Duration;

use couple_core::{
    AccountId, EmailAddress, Error,
    pairing::{Contact, Directory},
};
use tokio::time::timeout;

use crate::World;

/// Maximum time of one call of the directory.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Users that a directory has or had, for its checks.
#[derive(Debug, Clone)]
pub struct DirectorySample {
    /// Two people with a name and a verified address, which has a capital letter for one of them at least.
    pub people: [AccountId; 2],
    /// Person who existed and was deleted, with the former address, which no other person has.
    pub deleted: (AccountId, EmailAddress),
}

async fn answer<T>(call: &str, future: impl Future<Output = Result<T, Error>>) -> T {
    let answer = timeout(CALL_TIMEOUT, future).await;
    let answer = answer.unwrap_or_else(|_| panic!("{call} does not return within {CALL_TIMEOUT:?}"));
    answer.unwrap_or_else(|error| panic!("{call} fails: {error}"))
}

async fn contact(directory: &impl Directory, person: AccountId) -> Contact {
    let contact = answer("contact", directory.contact(person)).await;
    contact.unwrap_or_else(|| panic!("the person {person} of the sample has no contact"))
}

/// A person is found by the address of their contact in any case, and by no other.
pub async fn d1_person_is_found_by_the_address_of_the_contact(
    (directory, sample): (impl Directory, DirectorySample),
) {
    let mut has_capital_letter = false;
    for person in sample.people {
        let contact = contact(&directory, person).await;
        has_capital_letter |= contact.email.as_str() != contact.email.key().as_str();
        let found = answer("find_by_email", directory.find_by_email(contact.email.key())).await;
        assert_eq!(found, Some(person), "the address of a contact finds another person or none");
    }
    assert!(
        has_capital_letter,
        "no address of the sample differs from its key: give a person one with a capital letter, such as \
         Ana@example.org, which find_by_email is asked for as ana@example.org"
    );
    let unknown = World::default().email("nobody-has-this-address");
    let found = answer("find_by_email", directory.find_by_email(unknown.key())).await;
    assert_eq!(found, None, "an address that no person has finds one");
}

/// A person who was deleted has no profile and no contact, and is not found by the former address.
pub async fn d2_deleted_person_is_not_found((directory, sample): (impl Directory, DirectorySample)) {
    let (person, email) = &sample.deleted;
    let profile = answer("profile", directory.profile(*person)).await;
    assert!(profile.is_none(), "a deleted person has a profile");
    let contact = answer("contact", directory.contact(*person)).await;
    assert!(contact.is_none(), "a deleted person has a contact");
    let found = answer("find_by_email", directory.find_by_email(email.key())).await;
    assert_eq!(found, None, "the former address of a deleted person finds a person");
}

/// A person with a contact has a profile.
pub async fn d3_person_with_a_contact_has_a_profile((directory, sample): (impl Directory, DirectorySample)) {
    for person in sample.people {
        contact(&directory, person).await;
        let profile = answer("profile", directory.profile(person)).await;
        let name = profile.expect("a person with a contact has no profile").display_name;
        assert!(!name.to_string().is_empty(), "the profile of a person has no name");
    }
}

/// An unknown id has neither a profile nor a contact.
pub async fn d4_unknown_id_has_no_profile_and_no_contact((directory, _): (impl Directory, DirectorySample)) {
    let unknown = World::new(0x5eed).account_id();
    assert!(answer("profile", directory.profile(unknown)).await.is_none(), "an unknown id has a profile");
    assert!(answer("contact", directory.contact(unknown)).await.is_none(), "an unknown id has a contact");
}

/// A person may pair under the address of their contact, and under no other.
pub async fn d5_person_may_pair_only_under_the_own_address(
    (directory, sample): (impl Directory, DirectorySample),
) {
    let [one, other] = sample.people;
    let (own, foreign) = (contact(&directory, one).await.email, contact(&directory, other).await.email);
    let may = async |person, email: &EmailAddress| {
        answer("may_pair", directory.may_pair(person, email.key())).await
    };
    assert!(may(one, &own).await, "a person may not pair under the own address");
    assert!(!may(one, &foreign).await, "a person may pair under the address of another person");
    let (deleted, former) = &sample.deleted;
    assert!(!may(*deleted, former).await, "a deleted person may pair");
    assert!(!may(World::new(0x5eed).account_id(), &own).await, "an unknown id may pair");
}
