//! Push messages and mails about invites, and about a partner who has left.

use couple::{
    RequestContext,
    mail::Message,
    notification::NotificationPolicy,
    pairing::{InviteOutcome, NewInvite, Person},
};

use super::*;

impl World {
    /// Two accounts that are no couple. The second has a device named after it.
    async fn strangers(&self, token: &str) -> (Account, Account) {
        let (ana, ben) = (self.account("Ana"), self.account("Ben"));
        let changes = [ana.clone(), ben.clone()].map(|account| AccountChange::Insert(account).into());
        self.interferer.store.commit(changes.to_vec()).await.unwrap();
        self.put(&self.device(ben.id, None, token)).await;
        (ana, ben)
    }

    async fn invite(&self, from: &Account, to: &Account) -> InviteOutcome {
        let person = Person { id: from.id, email: Some(from.email.clone()) };
        let invite = NewInvite { email: Some(to.email.as_str().to_owned()), message: Some("WIN".to_owned()) };
        self.backend.pairings().invite(&RequestContext::default(), &person, &invite).await.unwrap()
    }

    fn block_of(&self, blocker: &Account, blocked: &Account) -> Change {
        let blocker_email = blocker.email.key().clone();
        let block = Block { blocker: blocker.id, blocker_email, blocked: blocked.id, at: self.now() };
        PairingChange::Block(block).into()
    }
}

#[tokio::test]
async fn person_with_the_app_is_notified_of_an_invite_without_the_name_of_the_inviter() {
    let world = World::new();
    let (ana, ben) = world.strangers("phone").await;
    world.invite(&ana, &ben).await;
    let [push] = &world.messages().await[..] else { panic!("one message") };
    let Payload::Alert(alert) = &push.payload else { panic!("{push:?}") };
    assert_eq!((&*alert.title, &*alert.body, alert.badge), ("You have a new invite", "", None));
    assert_eq!((alert.data["kind"].as_str(), alert.data.len()), (Some("invite"), 2));
    assert!(!format!("{push:?}").contains("WIN"), "{push:?}");
    // With previews, the name but not the message.
    let (ana, ben) = world.strangers("tablet").await;
    let previews = PreferencesPatch { previews: Some(true), ..Default::default() };
    world.backend.notifications().change(ben.id, &previews).await.unwrap();
    world.invite(&ana, &ben).await;
    let [alert] = &world.alerts().await[..] else { panic!("one message") };
    assert_eq!((&*alert.title, &*alert.body), ("Ana", "You have a new invite"));
}

#[tokio::test]
async fn invite_is_not_pushed_after_block_withdrawal_expiry_pairing_or_against_the_preference() {
    let world = World::new();
    let sent = async |interfere: &dyn Fn(&Account, &Account, couple::core::InviteId) -> Vec<Change>| {
        let (ana, ben) = world.strangers("phone").await;
        world.invite(&ana, &ben).await;
        let invites = world.backend.ports().store.invites_of(ana.id).await.unwrap();
        world.interferer.store.commit(interfere(&ana, &ben, invites[0].id)).await.unwrap();
        world.pushed().await.len()
    };
    assert_eq!(sent(&|_, _, _| Vec::new()).await, 1);
    assert_eq!(sent(&|ana, ben, _| vec![world.block_of(ben, ana)]).await, 0, "blocked");
    let withdraw = |ana: &Account| PairingChange::WithdrawInvitesOf { inviter: ana.id }.into();
    assert_eq!(sent(&|ana, _, _| vec![withdraw(ana)]).await, 0, "withdrawn");
    let couple = |ben: &Account| Couple {
        id: world.backend.ports().new_id(),
        members: [ben.id, world.account_id()],
        since: world.now(),
        epoch: 1,
        ended_at: None,
        title: None,
        anniversary: None,
        previous: None,
        restore: [false; 2],
        head_seq: 0,
        read: [0; 2],
    };
    assert_eq!(sent(&|_, ben, _| vec![PairingChange::Pair(couple(ben)).into()]).await, 0, "paired");
    let off = |ben: &Account| {
        let defaults = couple::notification::Preferences::default_of(ben.id);
        let off = couple::notification::Preferences { kinds: [true, true, false], ..defaults };
        couple::notification::NotificationChange::Put(off).into()
    };
    assert_eq!(sent(&|_, ben, _| vec![off(ben)]).await, 0, "switched off");
    let (ana, ben) = world.strangers("phone").await;
    world.invite(&ana, &ben).await;
    world.clock.advance(Duration::from_hours(24));
    assert_eq!(world.pushed().await, NONE, "expired");
    // Nobody has the address, and an invite by code has none.
    let nobody = world.account("Nobody");
    world.invite(&ana, &nobody).await;
    assert_eq!(world.pushed().await, NONE, "unknown address");
}

#[tokio::test]
async fn leaving_sends_nothing_by_default() {
    let world = World::new();
    for by_deletion in [false, true] {
        let pair = world.pair().await;
        world.register(&pair, "phone").await;
        match by_deletion {
            false => world.leave(&pair).await,
            true => world.delete(&pair).await,
        }
        assert_eq!(world.backend.ports().store.next_due("mail").await.unwrap(), None);
        assert_eq!(world.pushed().await, NONE);
        assert!(world.mailer.take().is_empty());
    }
}

impl World {
    /// The first member leaves.
    async fn leave(&self, pair: &Pair) {
        let email = Some(EmailAddress::parse("email", "ana@example.org").unwrap());
        let person = Person { id: pair.ana, email };
        let pairings = self.backend.pairings();
        pairings.leave(&RequestContext::default(), &person, Some(pair.couple), false).await.unwrap();
    }

    /// The end of the couple as the purge of the first member commits it.
    async fn delete(&self, pair: &Pair) {
        let members = [pair.ana, pair.ben];
        let end = PairingChange::End { id: pair.couple, members, at: self.now(), by: Some(pair.ana) };
        self.commit(vec![end.into()]).await;
    }

    /// Runs all jobs. Returns the numbers of push messages and mails, all of which are about the end.
    async fn farewells(&self) -> (usize, usize) {
        let alerts = self.alerts().await;
        for alert in &alerts {
            assert_eq!((&*alert.title, &*alert.body), ("Your connection has ended", ""));
            assert_eq!(alert.data["kind"], "partner_left");
        }
        let mails = self.mailer.take();
        for mail in &mails {
            assert!(
                matches!(mail.message, Message::PartnerLeft) && mail.to.as_str().starts_with("Ben-"),
                "{mail:?}"
            );
        }
        (alerts.len(), mails.len())
    }
}

#[tokio::test]
async fn host_decides_whether_leaving_sends_a_push_message_or_a_mail() {
    for (push, mail) in [(true, false), (false, true), (true, true)] {
        let policy = NotificationPolicy::default().with_push_on_leave(push).with_mail_on_leave(mail);
        let world = World::permitting(policy);
        let expected = (usize::from(push), usize::from(mail));
        let pair = world.pair().await;
        world.register(&pair, "phone").await;
        world.put(&world.device(pair.ana, None, "leaver")).await;
        world.leave(&pair).await;
        assert_eq!(world.farewells().await, expected);
        let pair = world.pair().await;
        world.register(&pair, "phone").await;
        world.delete(&pair).await;
        assert_eq!(world.farewells().await, expected);
        // The recipient blocks the former partner meanwhile.
        let pair = world.pair().await;
        world.register(&pair, "phone").await;
        world.leave(&pair).await;
        let blocker_email = EmailAddress::parse("email", "ben@example.org").unwrap().key().clone();
        let block = Block { blocker: pair.ben, blocker_email, blocked: pair.ana, at: world.now() };
        world.commit(vec![PairingChange::Block(block).into()]).await;
        assert_eq!(world.farewells().await, (0, 0));
        // They are a couple again.
        let pair = world.pair().await;
        world.register(&pair, "phone").await;
        world.leave(&pair).await;
        let store = &world.interferer.store;
        let former = couple::pairing::PairingReads::couple(&**store, pair.couple).await.unwrap().unwrap();
        let again = Couple { id: world.backend.ports().new_id(), epoch: 1, ended_at: None, ..former };
        store.commit(vec![PairingChange::Pair(again).into()]).await.unwrap();
        assert_eq!(world.farewells().await, (0, 0));
    }
}
