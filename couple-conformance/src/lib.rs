//! Conformance kit for adapters: one test per numbered guarantee of each port, named after the guarantee.
//!
//! ```ignore
//! mod my_store {
//!     couple_conformance::store!(async { MyStore::connect(fresh_database()).await });
//! }
//! ```
//!
//! The factory is an expression that creates a future of an empty store, a new one for each test. The kit
//! contains no SQL and never changes stored times: changes carry the time.

#![expect(clippy::missing_panics_doc, reason = "checks are assertions")]
#![expect(clippy::unwrap_used, reason = "checks are assertions")]

pub mod account;
#[cfg(feature = "http")]
pub mod authenticator;
pub mod blobs;
pub mod bus;
pub mod differential;
pub mod directory;
pub mod id_generator;
pub mod idempotency;
pub mod job;
pub mod limits;
pub mod media;
pub mod pairing;
pub mod password_hasher;
pub mod presence;
pub mod renderer;
pub mod store;
pub mod timeline;
pub mod upload;
mod world;

pub use world::World;

#[doc(hidden)]
#[macro_export]
macro_rules! checks {
    ($factory:expr; $($area:ident: $($name:ident),+;)+) => {$(
        mod $area {
            #[allow(unused_imports, reason = "the factory's names are the caller's")]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::$area::$name($factory.await).await;
                }
            )+
        }
    )+};
}

/// Defines one test for each guarantee of [`Store`](couple_core::Store) and its reads.
///
/// Also defines the differential test, if a reference is given.
///
/// Takes an expression that creates a future of an empty store; for the differential test, also one of an
/// empty reference store.
#[macro_export]
macro_rules! store {
    ($factory:expr) => {
        $crate::checks! { $factory;
            store: s1_commit_is_atomic, s2_changes_apply_in_order, s3_read_after_a_commit_sees_it,
                s4_commit_of_a_cancelled_caller_is_atomic, s5_conflict_does_not_fail_other_commits,
                s6_empty_commit_succeeds, s7_text_is_stored_exactly,
                s8_commit_returns_one_result_per_change, s9_unknown_host_statements_are_refused;
            account: a1_address_key_has_one_account, a2_account_fields_read_back,
                a3_stale_update_conflicts, a4_update_to_a_taken_address_conflicts,
                a5_token_is_redeemed_once, a6_each_wrong_code_is_counted,
                a7_open_tokens_are_listed_newest_first, a8_only_matching_tokens_are_ended,
                a9_only_sessions_of_the_account_are_ended, a10_erasure_removes_tokens_and_sessions,
                a11_purge_removes_at_most_cap_expired_rows, a12_due_accounts_are_listed_earliest_first,
                a13_session_requires_an_unchanged_account, a14_tokens_end_with_their_session,
                a15_each_form_of_a_token_is_redeemed_once, a16_tally_counts_up_to_its_limit,
                a17_only_tokens_of_present_sessions_are_returned;
            pairing: p1_account_is_in_at_most_one_couple, p2_both_members_are_paired_or_neither,
                p3_invite_is_closed_once, p4_address_pair_has_one_open_invite,
                p5_paired_account_cannot_invite, p6_withdrawal_closes_all_open_invites,
                p7_end_of_a_couple_unpairs_both_members, p8_change_of_an_ended_couple_conflicts,
                p9_invite_and_couple_fields_read_back, p10_blocks_are_found_by_id_and_by_address,
                p11_couples_are_listed_newest_first, p12_purge_and_forgetting_remove_at_most_cap_rows,
                p13_describing_writes_only_given_fields, p14_restore_wish_requires_unchanged_wishes,
                p15_open_invites_never_exceed_the_limit, p16_account_due_for_deletion_cannot_pair,
                p17_expecting_unpaired_conflicts_when_paired, p18_person_to_be_erased_cannot_pair,
                p19_ended_couple_forgets_a_replaced_member;
            timeline: t1_seq_has_no_gaps, t2_reader_sees_every_entry_once,
                t3_author_uses_a_client_id_once, t4_failed_commit_leaves_no_gap,
                t5_entry_fields_read_back, t6_pages_keep_seq_order_and_limit,
                t7_author_edits_only_own_entries, t8_deletion_leaves_a_tombstone,
                t9_member_has_one_reaction_per_entry, t10_read_position_never_moves_back,
                t11_log_of_an_ended_couple_is_read_only, t12_erasure_changes_only_one_members_entries,
                t13_read_returns_no_entry_of_another_couple, t14_unread_entries_of_an_author_are_counted;
            media: m1_identical_bytes_are_one_picture, m2_picture_and_rendition_fields_read_back,
                m3_uploads_never_exceed_the_quota, m4_usage_is_the_sum_of_stored_bytes,
                m5_picture_becomes_ready_or_rejected_once, m6_ended_couple_accepts_no_picture,
                m7_entry_uses_only_a_photo_of_its_author, m8_change_with_a_stale_use_count_conflicts,
                m9_rendition_is_added_once, m10_longest_unused_renditions_are_listed_first,
                m11_forgetting_removes_only_the_named_blobs, m12_avatar_is_a_picture_of_its_account,
                m13_deletion_removes_picture_and_renditions, m14_closed_space_accepts_no_picture,
                m15_spaces_and_pictures_are_listed_by_id;
            upload: u1_upload_fields_read_back, u2_only_the_latest_writer_appends,
                u3_unfinished_bytes_never_exceed_the_limit, u4_upload_is_finished_once,
                u5_declared_length_does_not_change, u6_takeover_of_parts_is_atomic,
                u7_expired_uploads_are_listed_by_expiry, u8_number_of_unfinished_uploads_is_limited;
            job: j1_job_is_claimed_once, j2_jobs_are_claimed_in_order_of_due_time,
                j3_leased_job_is_not_claimed_again, j4_lost_claim_cannot_change_the_job,
                j5_deduplication_key_has_one_live_job, j6_finish_and_enqueue_of_a_key_leave_one_job,
                j7_retried_job_is_due_at_the_given_time, j8_dead_jobs_are_listed_replayed_and_purged,
                j9_claim_returns_no_job_of_another_queue, j10_job_fields_read_back,
                j11_statistics_count_jobs_by_state,
                j12_deferred_claim_counts_no_attempt;
            idempotency: i1_outcome_is_recorded_once, i2_expired_record_is_replaced_or_purged;
        }
    };
    ($factory:expr, reference: $reference:expr) => {
        $crate::store!($factory);

        #[test]
        fn differential() {
            $crate::differential::run(
                || async { std::sync::Arc::new($factory.await) as std::sync::Arc<dyn couple_core::Store> },
                || async { std::sync::Arc::new($reference.await) as std::sync::Arc<dyn couple_core::Store> },
            );
        }
    };
}

/// Defines one test for each guarantee of [`RateLimiter`](couple_core::limits::RateLimiter).
///
/// Takes a function from a clock to a future of a rate limiter that uses this clock.
#[macro_export]
macro_rules! limits {
    ($factory:expr) => {
        $crate::limits! { @each $factory;
            l1_new_key_has_burst_tokens, l2_bucket_refills_over_its_period,
            l3_keys_and_rules_do_not_share_a_bucket, l4_retry_after_the_stated_time_succeeds,
            l5_concurrent_callers_get_exactly_burst_tokens, l6_corrected_clock_does_not_freeze_a_bucket
        }
    };
    (@each $factory:expr; $($name:ident),+) => {
        mod limits {
            #[allow(unused_imports, reason = "the factory's names are the caller's")]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let clock = std::sync::Arc::new(couple_core::ManualClock::default());
                    let limiter = ($factory)(clock.clone()).await;
                    $crate::limits::$name(limiter, &clock).await;
                }
            )+
        }
    };
}

/// Defines one test for each guarantee of [`Bus`](couple_core::live::Bus).
#[macro_export]
macro_rules! bus {
    ($factory:expr) => {
        $crate::checks! { $factory;
            bus: b1_notice_reaches_every_subscription, b2_slow_subscriber_receives_changed,
                b3_subscription_receives_only_its_topics, b4_dropped_subscriptions_are_removed;
        }
    };
}

/// Defines one test for each guarantee of [`Presence`](couple_core::live::Presence).
#[macro_export]
macro_rules! presence {
    ($factory:expr) => {
        $crate::checks! { $factory;
            presence: pr1_account_is_present_until_its_lease_expires,
                pr2_renewal_returns_whether_the_account_was_away, pr3_leases_of_accounts_are_independent,
                pr4_lease_can_be_shortened;
        }
    };
}

/// Defines one test for each guarantee of an object store that [`Blobs`] needs.
///
/// [`Blobs`]: couple_media::blobs::Blobs
#[macro_export]
macro_rules! blobs {
    ($factory:expr) => {
        $crate::checks! { $factory;
            blobs: o1_blob_reads_back_byte_for_byte, o2_blob_exists_completely_or_not_at_all,
                o3_range_reads_only_the_requested_part, o4_missing_blob_is_reported_as_missing,
                o5_list_contains_only_blobs_of_its_folder, o6_folder_is_deleted_completely,
                o7_one_of_concurrent_writes_wins_completely, o8_signed_link_depends_on_blob_and_expiry,
                o9_staged_bytes_are_joined_in_order, o10_pages_list_every_blob_once;
        }
    };
}

/// Defines one test for each guarantee of [`Renderer`](couple_media::gallery::Renderer).
///
/// Takes an expression that creates a future of a renderer and a [`PictureSample`](renderer::PictureSample) of a type that it reads.
#[macro_export]
macro_rules! renderer {
    ($factory:expr) => {
        $crate::checks! { $factory;
            renderer: r1_type_of_a_file_does_not_change, r2_images_match_the_renditions,
                r3_images_have_an_allowed_encoding, r4_images_are_upright_without_metadata,
                r5_own_images_can_be_rendered, r6_plan_rejects_a_picture_beyond_the_limits,
                r7_rejection_is_permanent;
        }
    };
}

/// Defines one test for each guarantee of [`PasswordHasher`](couple_core::account::PasswordHasher).
///
/// Takes an expression that creates a future of a hasher. The hasher should have its lowest cost. With `imported:`, also takes an
/// expression that creates a future of a hasher, a [`PasswordHash`](couple_core::account::PasswordHash) of another system, and its
/// password; otherwise H7 is not checked.
#[macro_export]
macro_rules! password_hasher {
    ($factory:expr) => {
        $crate::checks! { $factory;
            password_hasher: h1_hash_matches_only_its_password, h2_hash_depends_on_its_salt,
                h3_hash_names_its_algorithm_and_hides_the_password, h4_new_hash_needs_no_rehash,
                h5_unknown_hash_is_an_error, h6_wrong_password_takes_as_long;
        }
    };
    ($factory:expr, imported: $imported:expr) => {
        $crate::password_hasher!($factory);

        #[tokio::test]
        async fn h7_imported_hash_matches_and_needs_a_rehash() {
            $crate::password_hasher::h7_imported_hash_matches_and_needs_a_rehash($imported.await).await;
        }
    };
}

/// Defines one test for each guarantee of [`IdGenerator`](couple_core::IdGenerator).
#[macro_export]
macro_rules! id_generator {
    ($factory:expr) => {
        $crate::checks! { $factory;
            id_generator: g1_ids_are_unique, g2_ids_are_ordered_by_time, g3_last_62_bits_are_random;
        }
    };
}

/// Defines one test for each guarantee of [`Directory`](couple_core::pairing::Directory).
///
/// Takes an expression that creates a future of a directory and a [`DirectorySample`](directory::DirectorySample) of its users.
#[macro_export]
macro_rules! directory {
    ($factory:expr) => {
        $crate::checks! { $factory;
            directory: d1_person_is_found_by_the_address_of_the_contact, d2_deleted_person_is_not_found,
                d3_person_with_a_contact_has_a_profile, d4_unknown_id_has_no_profile_and_no_contact,
                d5_person_may_pair_only_under_the_own_address;
        }
    };
}

/// Defines one test for each guarantee of [`Authenticator`](couple::http::Authenticator). Feature `http`.
///
/// Takes an expression that creates a future of an authenticator and an
/// [`AuthenticatorSample`](authenticator::AuthenticatorSample) of requests.
#[cfg(feature = "http")]
#[macro_export]
macro_rules! authenticator {
    ($factory:expr) => {
        $crate::checks! { $factory;
            authenticator: au1_ended_session_is_refused, au2_request_has_one_person_and_session,
                au3_calls_return_in_time, au4_request_without_valid_credentials_is_refused,
                au5_each_principal_has_one_result, au6_sessions_of_a_person_are_known_or_not;
        }
    };
}
