//! Faults of commits, of closing, of reopening and of an outage.

use couple_conformance::AlternatingStore;

use crate::{
    adapter::FaultyStore,
    plant::{Fault, column_faults, faults, runtime},
};

faults! { FaultyStore::new();
    "store-conflict-keeps-earlier-changes": store::s1_commit_is_atomic, "the account of a commit that conflicted";
    "store-conflict-keeps-couples": store::s1_commit_is_atomic, "the couple of a commit that conflicted";
    "store-conflict-keeps-entries": store::s1_commit_is_atomic, "the entry of a commit that conflicted";
    "store-conflict-keeps-pictures": store::s1_commit_is_atomic, "the picture of a commit that conflicted";
    "store-conflict-keeps-devices": store::s1_commit_is_atomic, "the device of a commit that conflicted";
    "store-conflict-keeps-preferences": store::s1_commit_is_atomic, "the preferences of a commit that conflicted";
    "store-conflict-keeps-dates": store::s1_commit_is_atomic, "the date of a commit that conflicted";
    "store-conflict-keeps-uploads": store::s1_commit_is_atomic, "the upload of a commit that conflicted";
    "store-conflict-keeps-jobs": store::s1_commit_is_atomic, "the job of a commit that conflicted";
    "store-conflict-keeps-outcomes": store::s1_commit_is_atomic, "the outcome of a commit that conflicted";
    "store-changes-apply-in-reverse": store::s2_changes_apply_in_order, "does not see an earlier change of its commit";
    "store-read-is-stale": store::s3_read_after_a_commit_sees_it, "a read after a commit does not see it";
    "store-cancelled-commit-is-cut": store::s4_commit_of_a_cancelled_caller_is_atomic, "half of a cancelled commit is visible";
    "store-commit-is-cut-late": store::s4_commit_of_a_cancelled_caller_is_atomic, "half of a cancelled commit is visible";
    "store-conflict-fails-the-next-commit": store::s5_conflict_does_not_fail_other_commits, "failed a commit that has none";
    "store-conflict-delays-others": store::s5_conflict_does_not_fail_other_commits, "delay 20 others";
    "store-empty-commit-fails": store::s6_empty_commit_succeeds, "an empty commit fails";
    "store-ping-fails": store::s6_empty_commit_succeeds, "ping fails without an outage";
    "store-crossed-commits-deadlock": store::s8_commit_returns_one_result_per_change, "fails beside concurrent ones";
    "store-crossed-commits-hang": store::s8_commit_returns_one_result_per_change, "take more than 10 s";
    "store-concurrent-commits-get-no-answer": store::s8_commit_returns_one_result_per_change, "in each of several attempts";
    "store-results-are-swapped-between-commits": store::s8_commit_returns_one_result_per_change, "results of another commit";
    "store-results-are-reversed": store::s8_commit_returns_one_result_per_change, "results of another commit, or in another order";
    "store-results-lack-the-last": store::s8_commit_returns_one_result_per_change, "7 changes";
    "store-host-statements-are-ignored": store::s9_unknown_host_statements_are_refused, "statements of a host that it does not know";
    "store-host-statements-are-unavailable": store::s9_unknown_host_statements_are_refused, "are not Misconfigured";
    "store-host-statements-hide-a-conflict": store::s9_unknown_host_statements_are_refused, "hide the conflict";
    "store-host-statements-fail-after-others": store::s9_unknown_host_statements_are_refused, "wrote a change";
    "store-large-commit-fails": store::s10_commit_of_a_thousand_changes_succeeds, "too many changes";
    "store-large-commit-is-cut": store::s10_commit_of_a_thousand_changes_succeeds, "other results";
    "store-commit-is-visible-in-part": store::s11_visible_change_has_its_whole_commit, "a reader sees half of a commit";
    "store-reverse-commit-is-visible-in-part": store::s11_visible_change_has_its_whole_commit, "a reader sees half of a commit";
    "store-outcomes-expire-by-its-clock": store::s15_store_uses_only_the_given_times, "an outcome expires by the store's clock";
    "store-jobs-are-due-by-its-clock": store::s15_store_uses_only_the_given_times, "a job is due by the store's clock";
    "store-leases-end-by-its-clock": store::s15_store_uses_only_the_given_times, "a lease ends by the store's clock";
    "store-tallies-expire-by-its-clock": store::s15_store_uses_only_the_given_times, "a tally expires by the store's clock";
    "store-sessions-expire-by-its-clock": store::s15_store_uses_only_the_given_times, "a session ends by the store's clock";
    "store-tokens-expire-by-its-clock": store::s15_store_uses_only_the_given_times, "a token expires by the store's clock";
    "store-close-fails-commits": store::s12_close_completes_started_commits, "closing failed a commit";
    "store-close-hangs": store::s12_close_completes_started_commits, "does not close within 10 s";
    "store-close-fails": store::s12_close_completes_started_commits, "a store closes while commits run";
    "store-second-close-fails": store::s12_close_completes_started_commits, "a second close succeeds";
}

column_faults! { FaultyStore::new();
    "store-conflict-does-not-undo" ["-account-update" "-account-erase" "-account-insert-token" "-account-redeem-token" "-account-redeem-form" "-account-count-tries" "-account-end-tokens" "-account-end-tokens-of" "-account-count-tally" "-account-put-tally" "-account-purge-tallies" "-account-insert-session" "-account-touch-session" "-account-end-session" "-account-end-sessions" "-account-purge-tokens" "-account-purge-sessions" "-pairing-insert-invite" "-pairing-close-invite" "-pairing-withdraw-invites-of" "-pairing-describe" "-pairing-restore" "-pairing-end" "-pairing-block" "-pairing-unblock" "-pairing-forget" "-pairing-set-erasure" "-pairing-finish-erasure" "-pairing-anonymize" "-pairing-purge-invites" "-timeline-edit" "-timeline-delete" "-timeline-react" "-timeline-mark-read" "-timeline-erase" "-media-finish" "-media-reject" "-media-use" "-media-release" "-media-delete" "-media-add-rendition" "-media-touch" "-media-forget" "-media-set-avatar" "-media-close" "-upload-claim" "-upload-append" "-upload-take-over" "-upload-finish" "-upload-expire-of" "-upload-remove" "-job-claim" "-job-claim-abandoned" "-job-renew" "-job-finish" "-job-retry" "-job-defer" "-job-bury" "-job-replay" "-job-purge-dead" "-idempotency-purge"]: store::s1_commit_is_atomic, "a conflict does not undo";
    "store-conflict-does-not-undo" ["-date-put"]: store::s1_commit_is_atomic, "the date of a commit that conflicted";
    "store-conflict-does-not-undo" ["-date-remove"]: store::s1_commit_is_atomic, "a conflict does not undo";
    "store-conflict-does-not-undo" ["-device-put"]: store::s1_commit_is_atomic, "the device of a commit that conflicted";
    "store-conflict-does-not-undo" ["-notification-put"]: store::s1_commit_is_atomic, "the preferences of a commit that conflicted";
    "store-conflict-does-not-undo" ["-notification-remove"]: store::s1_commit_is_atomic, "after a conflict undid a removal";
    "store-conflict-does-not-undo" ["-device-remove" "-device-remove-of" "-device-retire"]: store::s1_commit_is_atomic, "after a conflict undid";
    "store-conflict-does-not-undo" ["-media-insert"]: store::s1_commit_is_atomic, "the picture of a commit that conflicted";
    "store-conflict-does-not-undo" ["-upload-insert"]: store::s1_commit_is_atomic, "the upload of a commit that conflicted";
    "store-conflict-does-not-undo" ["-job-enqueue"]: store::s1_commit_is_atomic, "the job of a commit that conflicted";
    "store-conflict-does-not-undo" ["-idempotency-record"]: store::s1_commit_is_atomic, "the outcome of a commit that conflicted";
    "store-conflict-does-not-undo" ["-pairing-pair"]: store::s1_commit_is_atomic, "the couple of a commit that conflicted";
    "store-conflict-does-not-undo" ["-timeline-append"]: store::s1_commit_is_atomic, "the entry of a commit that conflicted";
    "timeline-client-id" ["-case-insensitive" "-compared-without-blanks" "-without-accents"]: store::s7_text_is_stored_exactly, "texts that differ in a byte are taken for the same one";
    "timeline-client-id" ["-found-by-pattern"]: store::s7_text_is_stored_exactly, "text is not compared byte by byte";
}

async fn reopened(name: String) {
    let reopen = |name: String| async move { FaultyStore::reopen(&name) };
    couple_conformance::store::s13_reopened_store_has_every_acknowledged_commit(
        name,
        |name| async move { FaultyStore::open(&name) },
        reopen,
    )
    .await;
}

async fn two_processes(name: String) -> AlternatingStore {
    let open = |name: String| async move { FaultyStore::open(&name) };
    AlternatingStore::open(name, open, |name: String| async move { FaultyStore::reopen(&name) }).await
}

/// Faults that need a store that was opened again or has failed.
#[test]
fn planted_faults_of_the_engine_are_found() {
    macro_rules! engine_faults {
        ($($fault:literal, $words:literal: $check:ident, $engine:expr, $run:expr;)+) => {
            [$(Fault {
                name: $fault,
                words: $words,
                check: || couple_conformance::outcome(stringify!($check), || runtime($fault), $engine, $run),
            }),+]
        };
    }
    crate::plant::expect_found(&engine_faults! {
        "store-couples-are-cached-per-process", "a read after a commit does not see it": s3_read_after_a_commit_sees_it,
            two_processes, couple_conformance::store::s3_read_after_a_commit_sees_it;
        "store-couples-are-cached-per-process", "the read positions after": t10_read_position_never_moves_back,
            two_processes, couple_conformance::timeline::t10_read_position_never_moves_back;
        "store-close-loses-commits", "has lost an acknowledged commit": s13_reopened_store_has_every_acknowledged_commit,
            |name| async { name }, reopened;
        "store-reopen-loses-the-latest-commit", "has lost an acknowledged commit": s13_reopened_store_has_every_acknowledged_commit,
            |name| async { name }, reopened;
        "store-ping-ignores-the-outage", "ping succeeds during an outage": s14_outage_is_reported,
            |_| async { FaultyStore::broken() }, couple_conformance::store::s14_outage_is_reported;
        "store-outage-acknowledges", "a commit during an outage returned Ok": s14_outage_is_reported,
            |_| async { FaultyStore::broken() }, couple_conformance::store::s14_outage_is_reported;
        "store-outage-hangs", "a commit does not return during an outage": s14_outage_is_reported,
            |_| async { FaultyStore::broken() }, couple_conformance::store::s14_outage_is_reported;
        "store-outage-reads-nothing", "the read `account` succeeds during an outage": s14_outage_is_reported,
            |_| async { FaultyStore::broken() }, couple_conformance::store::s14_outage_is_reported;
        "store-outage-is-noticed-by-a-commit", "the read `account` succeeds during an outage": s14_outage_is_reported,
            |_| async { FaultyStore::broken() }, couple_conformance::store::s14_outage_is_reported;
        "store-outage-has-no-leases", "the read `next_lease_end` succeeds during an outage": s14_outage_is_reported,
            |_| async { FaultyStore::broken() }, couple_conformance::store::s14_outage_is_reported;
        "store-outage-is-a-bug", "reports an outage as": s14_outage_is_reported,
            |_| async { FaultyStore::broken() }, couple_conformance::store::s14_outage_is_reported;
        "store-outage-lasts-for-reads", "a read fails, 10 s after an outage": s16_store_works_again_after_an_outage,
            |_| async { FaultyStore::breakable() }, couple_conformance::store::s16_store_works_again_after_an_outage;
        "store-outage-lasts-for-commits", "a commit fails, 10 s after an outage": s16_store_works_again_after_an_outage,
            |_| async { FaultyStore::breakable() }, couple_conformance::store::s16_store_works_again_after_an_outage;
        "store-outage-lasts-for-ping", "ping fails, 10 s after an outage": s16_store_works_again_after_an_outage,
            |_| async { FaultyStore::breakable() }, couple_conformance::store::s16_store_works_again_after_an_outage;
        "store-outage-loses-rows", "an acknowledged commit is lost in an outage": s16_store_works_again_after_an_outage,
            |_| async { FaultyStore::breakable() }, couple_conformance::store::s16_store_works_again_after_an_outage;
        "store-close-hangs-in-an-outage", "close hangs during an outage": s14_outage_is_reported,
            |_| async { FaultyStore::broken() }, couple_conformance::store::s14_outage_is_reported;
    });
}

/// Faults of a store that keeps one kind of rows only in memory.
#[test]
fn rows_that_a_reopened_store_has_lost_are_found() {
    macro_rules! lost {
        ($fault:literal [$($kind:literal)+], $words:literal: $check:ident) => {
            [$(Fault {
                name: concat!($fault, $kind),
                words: $words,
                check: || couple_conformance::outcome(
                    stringify!($check),
                    || runtime(concat!($fault, $kind)),
                    |name| async { name },
                    reopened,
                ),
            }),+]
        };
    }
    crate::plant::expect_found(&lost! {
        "store-reopen-loses" [
            "-accounts" "-sessions" "-tokens" "-tallies" "-invites" "-couples" "-blocks" "-erasures" "-read-positions" "-entries"
            "-bodies" "-reactions" "-pictures" "-renditions" "-usage" "-uploads" "-devices" "-dates" "-jobs" "-dead-jobs" "-claims" "-outcomes"
        ], "has lost an acknowledged row": s13_reopened_store_has_every_acknowledged_commit
    });
}
