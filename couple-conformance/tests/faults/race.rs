//! Faults of commits that read their rows too early: what others wrote in between is overwritten.

use crate::{adapter::FaultyStore, plant::column_faults};

column_faults! { FaultyStore::new();
    "store-reads-too-early" ["-job-claim-abandoned"]: job::j1_job_is_claimed_once, "an abandoned job is claimed by another number";
    "store-reads-too-early" ["-job-renew" "-job-finish" "-job-retry" "-job-defer" "-job-bury"]: job::j4_lost_claim_cannot_change_the_job, "not one of two workers has the job";
    "store-reads-too-early" ["-timeline-edit"]: timeline::t8_deletion_leaves_a_tombstone, "edited and deleted concurrently";
    "store-reads-too-early" ["-timeline-react"]: timeline::t9_member_has_one_reaction_per_entry, "one is lost";
    "store-reads-too-early" ["-timeline-mark-read"]: timeline::t10_read_position_never_moves_back, "one is lost";
    "store-reads-too-early" ["-timeline-append"]: timeline::t11_log_of_an_ended_couple_is_read_only, "an entry is written after the end of the couple";
    "store-reads-too-early" ["-media-insert"]: media::m6_ended_couple_accepts_no_picture, "a picture is written after the end of the couple";
    "store-reads-too-early" ["-media-use"]: media::m6_ended_couple_accepts_no_picture, "the use of a picture is written after the end of the couple";
    "store-reads-too-early" ["-date-put"]: date::da2_dates_change_only_as_read, "another number than one succeeds";
    "store-reads-too-early" ["-account-insert-session"]: account::a9_only_sessions_of_the_account_are_ended, "a session survives a concurrent update";
    "store-reads-too-early" ["-account-count-tries"]: account::a6_each_wrong_code_is_counted, "wrong codes are not counted";
    "store-reads-too-early" ["-idempotency-record"]: idempotency::i2_expired_record_is_replaced_or_purged, "replaced by another number";
}
