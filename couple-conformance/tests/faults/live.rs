//! Faults of the event bus, of presence and of the rate limiter.

mod of_bus {
    use crate::{adapter::FaultyBus, plant::faults};

    faults! { FaultyBus::new();
        "bus-drops-changed": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-drops-signals": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-replaces-signals": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-drops-entries": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-signal-loses-its-body": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-signal-loses-its-kind": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-signal-loses-its-sender": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-signal-kind-is-cut": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-first-subscription-only": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-subscribes-to-the-first-topic": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-second-subscription-replaces-the-first": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-keeps-the-latest-notice": bus::b1_notice_reaches_every_subscription, "of 10 unread notices";
        "bus-merges-equal-notices": bus::b1_notice_reaches_every_subscription, "of 10 unread notices";
        "bus-cancelled-next-loses-a-notice": bus::b1_notice_reaches_every_subscription, "after a cancelled wait";
        "bus-overflow-is-silent": bus::b2_slow_subscriber_receives_changed, "no notice reports the missed notices";
        "bus-queue-is-unbounded": bus::b2_slow_subscriber_receives_changed, "no notice reports the missed notices";
        "bus-publishing-waits": bus::b2_slow_subscriber_receives_changed, "publishing waits";
        "bus-delivers-all-topics": bus::b3_subscription_receives_only_its_topics, "of another topic";
        "bus-takes-an-account-for-a-couple": bus::b3_subscription_receives_only_its_topics, "of another topic";
        "bus-folds-names-of-queues": bus::b3_subscription_receives_only_its_topics, "of another topic";
        "bus-keeps-dropped-subscriptions": bus::b4_dropped_subscriptions_are_removed, "are still served";
        "bus-drop-ends-others-too": bus::b4_dropped_subscriptions_are_removed, "ended another one";
    }
}

mod of_buses_of_two_processes {
    use crate::{adapter::Deployment, plant::faults};

    faults! { Deployment::default().alternating();
        "bus-signals-stay-in-their-process": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-presence-stays-in-its-process": bus::b1_notice_reaches_every_subscription, "does not arrive";
        "bus-changes-stay-in-their-process": bus::b1_notice_reaches_every_subscription, "does not arrive";
    }
}

mod of_a_bus_in_an_outage {
    use crate::{adapter::Deployment, plant::faults};

    faults! { Deployment::breakable();
        "bus-outage-is-silent": bus::b5_outage_loses_no_notice_silently, "lacks notices of an outage";
        "bus-outage-lasts": bus::b5_outage_loses_no_notice_silently, "no notice arrives at subscription";
        "bus-outage-blocks-publishing": bus::b5_outage_loses_no_notice_silently, "publishing waits for a transport";
    }
}

mod of_presence_of_two_processes {
    use crate::{adapter::FaultyPresence, plant::faults};

    faults! { FaultyPresence::of_two_processes();
        "presence-stays-in-its-process": presence::pr1_account_is_present_until_its_lease_expires, "is not present after a renewal";
    }
}

mod of_presence_in_an_outage {
    use crate::{adapter::FaultyPresence, plant::faults};

    faults! { FaultyPresence::breakable();
        "presence-outage-is-absence": presence::pr5_outage_is_reported_and_ends, "a query succeeds during an outage";
        "presence-outage-hangs": presence::pr5_outage_is_reported_and_ends, "a query does not return during an outage";
        "presence-outage-is-a-bug": presence::pr5_outage_is_reported_and_ends, "reports an outage as";
        "presence-outage-lasts": presence::pr5_outage_is_reported_and_ends, "a query fails, 10 s after an outage";
    }
}

mod of_presence {
    use crate::{adapter::FaultyPresence, plant::faults};

    faults! { FaultyPresence::new();
        "presence-never-expires": presence::pr1_account_is_present_until_its_lease_expires, "longer than the lease";
        "presence-counts-whole-seconds": presence::pr1_account_is_present_until_its_lease_expires, "is not present after a renewal";
        "presence-renewal-does-not-lengthen": presence::pr1_account_is_present_until_its_lease_expires, "a renewal does not extend";
        "presence-renewal-adds-up": presence::pr1_account_is_present_until_its_lease_expires, "longer than the lease";
        "presence-expired-lease-has-zero-left": presence::pr1_account_is_present_until_its_lease_expires, "after its lease expired";
        "presence-renewal-is-always-new": presence::pr2_renewal_returns_whether_the_account_was_away, "was present";
        "presence-renewal-is-never-new": presence::pr2_renewal_returns_whether_the_account_was_away, "a first renewal does not return";
        "presence-expired-lease-was-present": presence::pr2_renewal_returns_whether_the_account_was_away, "whose lease expired was away";
        "presence-keys-are-shared": presence::pr3_leases_of_accounts_are_independent, "another account";
        "presence-shortening-is-ignored": presence::pr4_lease_can_be_shortened, "does not shorten";
        "presence-shortening-ends-the-lease": presence::pr4_lease_can_be_shortened, "is away after its lease was shortened";
        "presence-shortening-makes-present": presence::pr4_lease_can_be_shortened, "an account that is away";
        "presence-shortening-affects-all": presence::pr4_lease_can_be_shortened, "another account";
        "presence-shortening-lengthens": presence::pr4_lease_can_be_shortened, "lengthens";
    }
}

mod of_limits {
    use crate::{
        adapter::FaultyLimits,
        plant::{Fault, expect_found, runtime},
    };

    macro_rules! limit_faults {
        ($create:ident; $($fault:literal: $check:ident, $words:literal;)+) => {
            [$(Fault {
                name: $fault,
                words: $words,
                check: || couple_conformance::outcome(
                    stringify!($check),
                    || runtime($fault),
                    |_| couple_conformance::with_clock(|clock| async { FaultyLimits::$create(clock) }),
                    |(limiter, clock)| async move { couple_conformance::limits::$check(limiter, &clock).await },
                ),
            }),+]
        };
    }

    #[test]
    fn planted_faults_are_found() {
        expect_found(&limit_faults! { new;
            "limits-allow-one-more": l1_new_key_has_burst_tokens, "more than its burst";
            "limits-allow-one-less": l1_new_key_has_burst_tokens, "fewer than its burst";
            "limits-refill-too-fast": l2_bucket_refills_over_its_period, "too early";
            "limits-refill-in-whole-seconds": l2_bucket_refills_over_its_period, "a bucket gains a token too";
            "limits-interval-is-cut-to-seconds": l2_bucket_refills_over_its_period, "a bucket gains a token too early: after 499 ms";
            "limits-interval-is-cut-to-milliseconds": l2_bucket_refills_over_its_period, "too early: number";
            "limits-interval-is-rounded-up": l2_bucket_refills_over_its_period, "too late: number";
            "limits-refusals-take-a-token": l2_bucket_refills_over_its_period, "too late";
            "limits-share-one-bucket": l3_keys_and_rules_do_not_share_a_bucket, "two keys share a bucket";
            "limits-hash-keys-to-few-buckets": l3_keys_and_rules_do_not_share_a_bucket, "share a bucket with another one";
            "limits-forget-old-buckets": l3_keys_and_rules_do_not_share_a_bucket, "is forgotten while";
            "limits-keep-the-first-2000-buckets": l3_keys_and_rules_do_not_share_a_bucket, "is forgotten while";
            "limits-evict-the-latest-of-2000-buckets": l3_keys_and_rules_do_not_share_a_bucket, "is forgotten while";
            "limits-interval-is-at-most-ten-minutes": l2_bucket_refills_over_its_period, "too early: 2 ms before";
            "limits-fold-keys": l3_keys_and_rules_do_not_share_a_bucket, "two keys share a bucket";
            "limits-rules-share-a-bucket": l3_keys_and_rules_do_not_share_a_bucket, "two rules share a bucket";
            "limits-retry-after-is-zero": l4_retry_after_the_stated_time_succeeds, "retry_after";
            "limits-retry-after-is-floored": l4_retry_after_the_stated_time_succeeds, "retry_after";
            "limits-retry-after-is-the-period": l4_retry_after_the_stated_time_succeeds, "retry_after";
            "limits-read-then-write": l5_concurrent_callers_get_exactly_burst_tokens, "tokens of a burst of 5";
            "limits-use-the-wall-clock": l6_corrected_clock_does_not_freeze_a_bucket, "a corrected clock freezes";
        });
    }

    #[test]
    fn planted_faults_of_two_processes_are_found() {
        expect_found(&limit_faults! { of_two_processes;
            "limits-count-per-process": l1_new_key_has_burst_tokens, "more than its burst";
        });
    }

    #[test]
    fn planted_faults_in_an_outage_are_found() {
        expect_found(&limit_faults! { breakable;
            "limits-outage-grants-everything": l7_outage_grants_no_more, "an outage fills an empty bucket";
            "limits-outage-grants-new-keys": l7_outage_grants_no_more, "during an outage, a bucket grants";
            "limits-outage-hangs": l7_outage_grants_no_more, "a take does not return during an outage";
            "limits-outage-is-a-bug": l7_outage_grants_no_more, "reports an outage as";
            "limits-outage-lasts": l7_outage_grants_no_more, "a new bucket has not its burst of 5 tokens";
        });
    }
}
