//! Mail digests: one per delay and person, decided again at the moment of sending.

use couple::{
    core::job::Job as _,
    mail::{Mail, Message},
    notification::{DigestDelay, NotificationError, NotificationPolicy, SendDigest},
};

use super::*;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn digests() -> World {
    World::permitting(NotificationPolicy::default().with_digests(true))
}

/// Digests after the given number of minutes.
fn after(minutes: u16) -> PreferencesPatch {
    PreferencesPatch { digest: Some(DigestDelay::new(minutes).ok()), ..Default::default() }
}

impl World {
    /// A couple whose second member wants a digest after an hour.
    async fn pair_with_digest(&self) -> Pair {
        let pair = self.pair().await;
        self.prefer(&pair, after(60)).await;
        pair
    }

    /// Runs all jobs that are due. Returns the digests since the last call.
    async fn digests(&self) -> Vec<Mail> {
        self.backend.worker().run_until_idle().await.unwrap();
        self.mailer.take()
    }

    /// Number of unread entries in each digest since the last call.
    async fn counts(&self) -> Vec<u32> {
        let count = |mail: Mail| match mail.message {
            Message::Digest { unread, .. } => unread,
            other => panic!("{other:?}"),
        };
        self.digests().await.into_iter().map(count).collect()
    }

    async fn say(&self, pair: &Pair, client_id: &str) {
        self.append(pair, self.entry(client_id, "planted text")).await;
        self.pushed().await;
    }
}

#[tokio::test]
async fn unread_entries_are_mailed_after_the_delay_without_their_text() {
    let world = digests();
    let pair = world.pair_with_digest().await;
    world.say(&pair, "one").await;
    world.clock.advance(HOUR - Duration::from_micros(1));
    assert!(world.digests().await.is_empty());
    world.clock.advance(Duration::from_micros(1));
    let [mail] = &world.digests().await[..] else { panic!("one digest") };
    let Message::Digest { unread, from, texts, unsubscribe } = &mail.message else { panic!("{mail:?}") };
    assert_eq!((*unread, from, texts.len()), (1, &None, 0));
    assert!(mail.to.as_str().starts_with("Ben-"), "{}", mail.to);
    let token = unsubscribe.expose().strip_prefix("http://127.0.0.1:8080/open/unsubscribe/").unwrap();
    assert_eq!(token.len(), 54);
    // Nothing new: no further digest.
    world.clock.advance(HOUR * 48);
    assert!(world.digests().await.is_empty());
}

#[tokio::test]
async fn entries_within_the_delay_share_one_digest() {
    let world = digests();
    let pair = world.pair_with_digest().await;
    for n in 0..3 {
        world.say(&pair, &format!("first{n}")).await;
        world.clock.advance(MINUTE * 20);
    }
    assert_eq!(world.counts().await, [3]);
    // The next delay begins with the next entry.
    world.clock.advance(MINUTE * 10);
    world.say(&pair, "next").await;
    world.clock.advance(HOUR - Duration::from_micros(1));
    assert_eq!(world.counts().await, [0; 0]);
    world.say(&pair, "last").await;
    world.clock.advance(Duration::from_micros(1));
    assert_eq!(world.counts().await, [5]);
    world.clock.advance(HOUR);
    assert_eq!(world.counts().await, [0; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_workers_send_one_digest() {
    let world = Arc::new(digests());
    for _ in 0..5 {
        let pair = world.pair_with_digest().await;
        for n in 0..10 {
            world.append(&pair, world.entry(&format!("n{n}"), "Hi")).await;
        }
        // The jobs of all entries together, then those of the digests.
        for _ in 0..2 {
            let mut workers = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let world = world.clone();
                workers.spawn(async move { world.backend.worker().run_until_idle().await.unwrap() });
            }
            workers.join_all().await;
            world.clock.advance(HOUR);
        }
        assert_eq!(world.counts().await, [10]);
    }
}

#[tokio::test]
async fn digest_is_decided_at_the_moment_of_sending() {
    let world = digests();
    let sent = async |pair: &Pair| {
        world.clock.advance(HOUR);
        let sent = world.digests().await.len();
        // Also nothing later.
        world.clock.advance(HOUR * 100);
        sent + world.digests().await.len() + world.devices(pair).await
    };
    let unread = async || {
        let pair = world.pair_with_digest().await;
        world.say(&pair, "one").await;
        pair
    };
    let pair = unread().await;
    assert_eq!(sent(&pair).await, 1);
    let pair = unread().await;
    world.mark_read(&pair, 1).await;
    assert_eq!(sent(&pair).await, 0, "read");
    let pair = unread().await;
    world.end(&pair).await;
    assert_eq!(sent(&pair).await, 0, "left");
    let pair = unread().await;
    let delete = TimelineChange::Delete { couple: pair.couple, seq: 1, author: Side::First, at: world.now() };
    world.commit(vec![delete.into()]).await;
    assert_eq!(sent(&pair).await, 0, "deleted");
    let pair = unread().await;
    let blocker_email = EmailAddress::parse("email", "ben@example.org").unwrap().key().clone();
    let block = Block { blocker: pair.ben, blocker_email, blocked: pair.ana, at: world.now() };
    world.commit(vec![PairingChange::Block(block).into()]).await;
    assert_eq!(sent(&pair).await, 0, "blocked");
    let until = Some(Some(world.now().plus(HOUR * 1_000)));
    for (what, patch) in [
        ("off", PreferencesPatch { digest: Some(None), ..Default::default() }),
        ("entries off", PreferencesPatch { kinds: [Some(false), None, None], ..Default::default() }),
        ("muted", PreferencesPatch { muted_until: until, ..Default::default() }),
    ] {
        let pair = unread().await;
        world.prefer(&pair, patch).await;
        assert_eq!(sent(&pair).await, 0, "{what}");
    }
    let pair = unread().await;
    let erase = AccountChange::Erase { id: pair.ben, version: 0 };
    world.commit(vec![erase.into()]).await;
    assert_eq!(sent(&pair).await, 0, "erased");
    // What counts as unread is what a push message counts.
    let pair = world.pair_with_digest().await;
    let uncounted = NewEntry { kind: "x-quiet".to_owned(), ..world.entry("uncounted", "Hi") };
    world.append(&pair, uncounted).await;
    world.append(&pair, NewEntry { author: Some(Side::Second), ..world.entry("own", "Hi") }).await;
    world.pushed().await;
    assert_eq!(sent(&pair).await, 0, "uncounted");
}

#[tokio::test]
async fn no_digest_by_default() {
    let world = digests();
    let pair = world.pair().await;
    world.say(&pair, "one").await;
    world.clock.advance(HOUR * 200);
    assert!(world.digests().await.is_empty());
    // A host that permits none refuses the preference, and enqueues no job.
    let world = World::build(|builder| builder, false);
    let pair = world.pair().await;
    let refused = world.backend.notifications().change(pair.ben, &after(60)).await.unwrap_err();
    let couple::Failure::Refused(NotificationError::Invalid(invalid)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((invalid.field, invalid.code), ("digest_minutes", "not_available"));
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.backend.ports().store.next_due("push").await.unwrap(), None);
}

#[tokio::test]
async fn digest_needs_no_pusher() {
    let world = World::build(
        |builder| builder.notifications(NotificationPolicy::default().with_digests(true)),
        false,
    );
    let pair = world.pair_with_digest().await;
    world.register(&pair, "phone").await;
    world.say(&pair, "one").await;
    world.clock.advance(HOUR);
    assert_eq!(world.counts().await, [1]);
    assert!(world.recorder.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn quiet_hours_put_the_digest_off_to_their_end() {
    let world = digests();
    let pair = world.pair_with_digest().await;
    // 2026-01-01T00:00Z is 09:00 in Tokyo.
    let quiet = PreferencesPatch {
        quiet_hours: Some(QuietHours::new(9 * 60 + 30, 12 * 60).ok()),
        time_zone: Some(Some("Asia/Tokyo".to_owned())),
        ..Default::default()
    };
    world.prefer(&pair, quiet).await;
    world.say(&pair, "before").await;
    for n in 0..4 {
        world.clock.advance(MINUTE * 30);
        assert!(world.digests().await.is_empty(), "{n}");
        world.say(&pair, &format!("during{n}")).await;
    }
    world.clock.advance(HOUR - Duration::from_micros(1));
    assert!(world.digests().await.is_empty());
    world.clock.advance(Duration::from_micros(1));
    assert_eq!(world.counts().await, [5]);
    world.clock.advance(HOUR * 10);
    assert!(world.digests().await.is_empty());
}

#[tokio::test]
async fn person_with_a_live_stream_gets_a_digest_only_if_it_ends_without_a_reading() {
    let world = digests();
    let pair = world.pair_with_digest().await;
    for (ends, expected) in [(false, 0), (true, 1)] {
        world.presence.renew(pair.ben, HOUR * 2).await.unwrap();
        world.say(&pair, &format!("{ends}")).await;
        world.clock.advance(HOUR);
        assert!(world.digests().await.is_empty());
        if ends {
            world.presence.shorten(pair.ben, Duration::ZERO).await.unwrap();
        }
        world.clock.advance(MINUTE);
        assert_eq!(world.digests().await.len(), expected);
        world.clock.advance(HOUR * 3);
        assert!(world.digests().await.is_empty());
        world.mark_read(&pair, 1).await;
    }
}

#[tokio::test]
async fn previews_show_the_name_and_the_newest_texts() {
    let world = digests();
    let pair = world.pair_with_digest().await;
    world.prefer(&pair, PreferencesPatch { previews: Some(true), ..Default::default() }).await;
    world.append(&pair, world.entry("read", "read")).await;
    world.mark_read(&pair, 1).await;
    for n in 2..=5 {
        world.append(&pair, world.entry(&format!("n{n}"), &format!("text {n}\n!"))).await;
    }
    let photo = NewEntry { body: Some(Body::from_stored("{}".to_owned())), ..world.entry("photo", "") };
    world.append(&pair, photo).await;
    world.append(&pair, NewEntry { author: Some(Side::Second), ..world.entry("own", "own") }).await;
    world.pushed().await;
    world.clock.advance(HOUR);
    let [mail] = &world.digests().await[..] else { panic!("one digest") };
    let Message::Digest { unread, from, texts, .. } = &mail.message else { panic!("{mail:?}") };
    assert_eq!((*unread, from.as_ref().map(DisplayName::as_str)), (5, Some("Ana")));
    assert_eq!(
        texts.iter().map(couple::core::Label::as_str).collect::<Vec<_>>(),
        ["text 3 !", "text 4 !", "text 5 !"]
    );
}

#[tokio::test]
async fn change_of_the_delay_replaces_the_scheduled_digest() {
    let world = digests();
    let pair = world.pair_with_digest().await;
    world.say(&pair, "one").await;
    world.prefer(&pair, after(5)).await;
    world.say(&pair, "two").await;
    world.clock.advance(MINUTE * 5);
    assert_eq!(world.counts().await, [2]);
    world.clock.advance(HOUR);
    assert!(world.digests().await.is_empty());
}

#[tokio::test]
async fn job_that_is_not_the_scheduled_one_sends_nothing() {
    let world = digests();
    let pair = world.pair_with_digest().await;
    world.say(&pair, "one").await;
    world.clock.advance(HOUR);
    let (ports, now) = (world.backend.ports(), world.now().micros());
    for due in [now - 1, now, now + 1] {
        let job = SendDigest { person: pair.ben, due, is_second_look: false };
        assert!(job.dedupe_key().unwrap().ends_with(&due.to_string()));
        world.commit(vec![ports.enqueue(&job).unwrap()]).await;
    }
    assert_eq!(world.counts().await, [1]);
}

#[tokio::test]
async fn entry_of_a_new_couple_is_reported_by_the_scheduled_digest() {
    let world = digests();
    let pair = world.pair_with_digest().await;
    world.say(&pair, "former").await;
    world.end(&pair).await;
    let mut couple = world.backend.ports().store.couple(pair.couple).await.unwrap().unwrap();
    couple = Couple {
        id: world.backend.ports().new_id(),
        epoch: 1,
        ended_at: None,
        head_seq: 0,
        read: [0; 2],
        ..couple
    };
    let again = Pair { couple: couple.id, ..pair };
    world.interferer.store.commit(vec![PairingChange::Pair(couple).into()]).await.unwrap();
    world.say(&again, "new").await;
    world.say(&again, "newer").await;
    world.clock.advance(HOUR);
    assert_eq!(world.counts().await, [2]);
}

#[tokio::test]
async fn token_switches_off_the_digests_of_its_person_and_nothing_else() {
    let world = digests();
    let (pair, other) = (world.pair_with_digest().await, world.pair_with_digest().await);
    world.prefer(&pair, PreferencesPatch { previews: Some(true), ..Default::default() }).await;
    world.say(&pair, "one").await;
    world.clock.advance(HOUR);
    let [mail] = &world.digests().await[..] else { panic!("one digest") };
    let Message::Digest { unsubscribe, .. } = &mail.message else { panic!("{mail:?}") };
    let token = unsubscribe.expose().rsplit('/').next().unwrap();
    let notifications = world.backend.notifications();
    let digest_of = async |person| notifications.preferences(person).await.unwrap().digest;
    // Every change of the token is another token.
    for (index, _) in token.char_indices() {
        let wrong = if token.as_bytes()[index] == b'A' { "B" } else { "A" };
        let mut forged = token.to_owned();
        forged.replace_range(index..=index, wrong);
        notifications.unsubscribe(&forged).await.unwrap_err();
    }
    for forged in ["", "A", &token[1..], &format!("{token}A"), &format!("{token}=")] {
        notifications.unsubscribe(forged).await.unwrap_err();
    }
    assert!(digest_of(pair.ben).await.is_some());
    // After years.
    world.clock.advance(HOUR * 24 * 365 * 10);
    for _ in 0..2 {
        notifications.unsubscribe(token).await.unwrap();
    }
    let preferences = notifications.preferences(pair.ben).await.unwrap();
    assert_eq!((preferences.digest, preferences.digest_due, preferences.previews), (None, None, true));
    assert_eq!(preferences.kinds, [true; 3]);
    assert!(digest_of(other.ben).await.is_some());
}
