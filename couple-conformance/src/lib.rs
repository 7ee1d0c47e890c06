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
//!
//! Each test runs in its own thread and runtime, at most [`CHECK_LIMIT`] or `COUPLE_CHECK_SECONDS`. A test that fails names the number
//! and the words of the guarantee that does not hold. The macros need no other dependency of the caller.

#![expect(clippy::missing_panics_doc, reason = "checks are assertions")]
#![expect(clippy::unwrap_used, reason = "checks are assertions")]

use std::{future::Future, sync::Arc};

use couple_core::{ManualClock, limits::RateLimiter};

pub mod account;
#[cfg(feature = "http")]
pub mod authenticator;
pub mod blobs;
pub mod bus;
mod change_races;
pub mod date;
pub mod device;
pub mod differential;
pub mod directory;
pub mod id_generator;
pub mod idempotency;
pub mod job;
pub mod limits;
pub mod media;
pub mod notification;
mod outage;
pub mod pairing;
pub mod password_hasher;
pub mod presence;
pub mod renderer;
mod rollback;
mod run;
mod samples;
mod second_process;
pub mod store;
pub mod timeline;
pub mod upload;
mod world;

pub use outage::Breakable;
pub use run::{CHECK_LIMIT, outcome, run, run_store};
pub use second_process::{AlternatingBus, AlternatingLimiter, AlternatingPresence, AlternatingStore};
pub use world::World;

#[doc(hidden)]
pub use couple_core::Store;

/// Calls `open`: the types of its closure's parameter and result are inferred here.
#[doc(hidden)]
pub fn named<F: Future>(open: impl FnOnce(String) -> F, name: String) -> F {
    open(name)
}

/// Calls `open` with the name of a second process: not the name of the check's own adapter.
#[doc(hidden)]
pub async fn second<A, B, F: Future<Output = A>, G: Future<Output = B>>(
    name: String,
    one: impl FnOnce(String) -> F,
    other: impl FnOnce(String) -> G,
) -> (A, B) {
    let name = format!("b{name}");
    let one = one(name.clone()).await;
    (one, other(name).await)
}

/// Creates a rate limiter of a name with a new clock.
#[doc(hidden)]
pub async fn named_with_clock<F: Future>(
    open: impl FnOnce(String, Arc<ManualClock>) -> F,
    name: String,
) -> (F::Output, Arc<ManualClock>) {
    with_clock(|clock| open(name, clock)).await
}

/// Creates the rate limiters of two processes with one new clock.
#[doc(hidden)]
pub async fn second_with_clock<
    A: RateLimiter,
    B: RateLimiter,
    F: Future<Output = A>,
    G: Future<Output = B>,
>(
    name: String,
    one: impl FnOnce(String, Arc<ManualClock>) -> F,
    other: impl FnOnce(String, Arc<ManualClock>) -> G,
) -> (AlternatingLimiter, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let (one_clock, other_clock) = (clock.clone(), clock.clone());
    let both = second(name, |name| one(name, one_clock), |name| other(name, other_clock)).await;
    (AlternatingLimiter::new(both.0, both.1), clock)
}

/// Calls `limiter`: the type of its closure's parameter is inferred here.
#[doc(hidden)]
pub fn limiter<F: Future>(limiter: impl FnOnce(Arc<ManualClock>) -> F, clock: Arc<ManualClock>) -> F {
    limiter(clock)
}

/// Creates a rate limiter with a new clock.
#[doc(hidden)]
pub async fn with_clock<F: Future>(
    limiter: impl FnOnce(Arc<ManualClock>) -> F,
) -> (F::Output, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (limiter(clock.clone()).await, clock)
}

#[doc(hidden)]
#[macro_export]
macro_rules! checks {
    ($run:ident, $engine:expr; $($area:ident: $($name:ident),+;)+) => {$(
        mod $area {
            #[allow(unused_imports, reason = "the factory's names are the caller's")]
            use super::*;
            $(
                #[test]
                fn $name() {
                    $crate::$run(stringify!($name), $engine, |engine| $crate::$area::$name(engine));
                }
            )+
        }
    )+};
}

/// Defines one test for each guarantee of [`Store`](couple_core::Store) and its reads.
///
/// Takes an expression that creates a future of a new, empty store, or `named:` a closure from a name to such a future. The name is
/// different for each store of the suite, such as `s1` or `d17`: at most ten ASCII letters and digits. It can be a prefix of tables or
/// the name of a file, so that all tests share one database or folder. After each test the kit calls
/// [`close`](couple_core::Store::close).
///
/// Options, in this order:
///
/// * `reference:` an expression that creates a future of an empty reference store: random sequences of commits and reads have equal
///   results on both, and an order of the operations of two concurrent clients explains their results
///   ([`differential`]).
/// * `reopen:` a closure from a name to a future of a store that opens what the store of this name has written: S13.
/// * `second_process:` a closure from a name to a future of another store over the data of the open store of this name, as another
///   process has it: the guarantees under concurrency hold for both together.
/// * `broken:` an expression that creates a future of a store whose engine failed after it was opened, such as a server that is
///   unreachable: S14.
/// * `outage:` an expression that creates a future of a [`Breakable`] store, whose engine fails and works again: S16.
#[macro_export]
macro_rules! store {
    (
        named: $open:expr
        $(, reference: $reference:expr)? $(, reopen: $reopen:expr)? $(, second_process: $second:expr)?
        $(, broken: $broken:expr)? $(, outage: $outage:expr)? $(,)?
    ) => {
        $crate::checks! { run_store, $open;
            store: s1_commit_is_atomic, s2_changes_apply_in_order, s3_read_after_a_commit_sees_it,
                s4_commit_of_a_cancelled_caller_is_atomic, s5_conflict_does_not_fail_other_commits,
                s6_empty_commit_succeeds, s7_text_is_stored_exactly,
                s8_commit_returns_one_result_per_change, s9_unknown_host_statements_are_refused,
                s10_commit_of_a_thousand_changes_succeeds, s11_visible_change_has_its_whole_commit,
                s12_close_completes_started_commits, s15_store_uses_only_the_given_times;
            account: a1_address_key_has_one_account, a2_account_fields_read_back,
                a3_stale_update_conflicts, a4_update_to_a_taken_address_conflicts,
                a5_token_is_redeemed_once, a6_each_wrong_code_is_counted,
                a7_open_tokens_are_listed_newest_first, a8_only_matching_tokens_are_ended,
                a9_only_sessions_of_the_account_are_ended, a10_erasure_removes_tokens_and_sessions,
                a11_purge_removes_at_most_cap_expired_rows, a12_due_accounts_are_listed_earliest_first,
                a13_session_requires_an_unchanged_account, a14_tokens_end_with_their_session,
                a15_each_form_of_a_token_is_redeemed_once, a16_tally_counts_up_to_its_limit,
                a17_only_tokens_of_present_sessions_are_returned,
                a18_token_session_and_tally_fields_read_back, a19_sessions_are_listed_newest_first,
                a20_session_has_the_present_state_of_its_account, a21_link_and_bearer_token_are_unique,
                a22_session_is_found_with_its_couple, a23_widget_tokens_are_limited_and_unique;
            pairing: p1_account_is_in_at_most_one_couple, p2_both_members_are_paired_or_neither,
                p3_invite_is_closed_once, p4_address_pair_has_one_open_invite,
                p5_paired_account_cannot_invite, p6_withdrawal_closes_all_open_invites,
                p7_end_of_a_couple_unpairs_both_members, p8_change_of_an_ended_couple_conflicts,
                p9_invite_and_couple_fields_read_back, p10_blocks_are_found_by_id_and_by_address,
                p11_couples_are_listed_newest_first, p12_purge_and_forgetting_remove_at_most_cap_rows,
                p13_describing_writes_only_given_fields, p14_restore_wish_requires_unchanged_wishes,
                p15_open_invites_never_exceed_the_limit, p16_account_due_for_deletion_cannot_pair,
                p17_expecting_unpaired_conflicts_when_paired, p18_person_to_be_erased_cannot_pair,
                p19_ended_couple_forgets_a_replaced_member, p20_invite_code_and_link_are_unique,
                p21_lists_have_the_newest_two_hundred, p22_invite_target_is_compared_exactly;
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
            device: dv1_device_fields_read_back, dv2_destination_belongs_to_one_device,
                dv3_number_of_devices_is_limited, dv4_devices_end_with_their_session,
                dv5_devices_are_listed_by_registration, dv6_only_older_registrations_are_retired,
                dv7_only_devices_of_the_account_are_removed;
            notification: n1_preferences_read_back, n2_preferences_change_only_as_read,
                n3_preferences_are_removed_with_the_person;
            date: da1_date_fields_read_back, da2_dates_change_only_as_read, da3_number_of_dates_is_limited,
                da4_dates_of_an_ended_couple_do_not_change, da5_dates_are_listed_by_creation,
                da6_date_ids_belong_to_the_couple, da7_dates_are_removed_with_a_member;
            job: j1_job_is_claimed_once, j2_jobs_are_claimed_in_order_of_due_time,
                j3_leased_job_is_not_claimed_again, j4_lost_claim_cannot_change_the_job,
                j5_deduplication_key_has_one_live_job, j6_finish_and_enqueue_of_a_key_leave_one_job,
                j7_retried_job_is_due_at_the_given_time, j8_dead_jobs_are_listed_replayed_and_purged,
                j9_claim_returns_no_job_of_another_queue, j10_job_fields_read_back,
                j11_statistics_count_jobs_by_state,
                j12_deferred_claim_counts_no_attempt;
            idempotency: i1_outcome_is_recorded_once, i2_expired_record_is_replaced_or_purged,
                i3_outcome_fields_read_back;
        }

        $(
            #[test]
            fn differential() {
                let next = std::sync::atomic::AtomicU32::new(1);
                $crate::differential::run(
                    || async {
                        let name = format!("d{}", next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
                        let store = $crate::named($open, name).await;
                        std::sync::Arc::new(store) as std::sync::Arc<dyn $crate::Store>
                    },
                    || async { std::sync::Arc::new($reference.await) as std::sync::Arc<dyn $crate::Store> },
                );
            }

            #[test]
            fn linearizability() {
                let next = std::sync::atomic::AtomicU32::new(1);
                $crate::differential::linearizability(
                    || async {
                        let name = format!("x{}", next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
                        let store = $crate::named($open, name).await;
                        std::sync::Arc::new(store) as std::sync::Arc<dyn $crate::Store>
                    },
                    || async { std::sync::Arc::new($reference.await) as std::sync::Arc<dyn $crate::Store> },
                );
            }
        )?

        $(
            #[test]
            fn s13_reopened_store_has_every_acknowledged_commit() {
                $crate::run(
                    "s13_reopened_store_has_every_acknowledged_commit",
                    |name| async { name },
                    |name: String| $crate::store::s13_reopened_store_has_every_acknowledged_commit(name, $open, $reopen),
                );
            }
        )?

        $(
            mod second_process {
                #[allow(unused_imports, reason = "the factory's names are the caller's")]
                use super::*;
                // The guarantees that a lock or a cache within one process would break.
                $crate::checks! { run_store, |name| $crate::AlternatingStore::open(name, $open, $second);
                    store: s3_read_after_a_commit_sees_it, s5_conflict_does_not_fail_other_commits,
                        s8_commit_returns_one_result_per_change, s11_visible_change_has_its_whole_commit;
                    account: a1_address_key_has_one_account, a3_stale_update_conflicts, a5_token_is_redeemed_once,
                        a6_each_wrong_code_is_counted, a9_only_sessions_of_the_account_are_ended,
                        a14_tokens_end_with_their_session, a15_each_form_of_a_token_is_redeemed_once,
                        a16_tally_counts_up_to_its_limit, a17_only_tokens_of_present_sessions_are_returned,
                        a20_session_has_the_present_state_of_its_account, a21_link_and_bearer_token_are_unique,
                        a22_session_is_found_with_its_couple, a23_widget_tokens_are_limited_and_unique;
                    pairing: p1_account_is_in_at_most_one_couple, p2_both_members_are_paired_or_neither,
                        p3_invite_is_closed_once, p4_address_pair_has_one_open_invite,
                        p7_end_of_a_couple_unpairs_both_members, p10_blocks_are_found_by_id_and_by_address,
                        p13_describing_writes_only_given_fields, p14_restore_wish_requires_unchanged_wishes,
                        p15_open_invites_never_exceed_the_limit, p16_account_due_for_deletion_cannot_pair,
                        p17_expecting_unpaired_conflicts_when_paired, p18_person_to_be_erased_cannot_pair;
                    timeline: t1_seq_has_no_gaps, t2_reader_sees_every_entry_once, t3_author_uses_a_client_id_once,
                        t8_deletion_leaves_a_tombstone, t9_member_has_one_reaction_per_entry,
                        t10_read_position_never_moves_back, t11_log_of_an_ended_couple_is_read_only;
                    media: m1_identical_bytes_are_one_picture, m3_uploads_never_exceed_the_quota,
                        m5_picture_becomes_ready_or_rejected_once, m6_ended_couple_accepts_no_picture,
                        m7_entry_uses_only_a_photo_of_its_author, m9_rendition_is_added_once;
                    upload: u2_only_the_latest_writer_appends, u3_unfinished_bytes_never_exceed_the_limit,
                        u4_upload_is_finished_once, u8_number_of_unfinished_uploads_is_limited;
                    device: dv2_destination_belongs_to_one_device, dv3_number_of_devices_is_limited,
                        dv4_devices_end_with_their_session;
                    notification: n2_preferences_change_only_as_read, n3_preferences_are_removed_with_the_person;
                    date: da2_dates_change_only_as_read, da3_number_of_dates_is_limited,
                        da4_dates_of_an_ended_couple_do_not_change, da7_dates_are_removed_with_a_member;
                    job: j1_job_is_claimed_once, j4_lost_claim_cannot_change_the_job,
                        j5_deduplication_key_has_one_live_job;
                    idempotency: i1_outcome_is_recorded_once, i2_expired_record_is_replaced_or_purged;
                }
            }
        )?

        $(
            #[test]
            fn s14_outage_is_reported() {
                $crate::run("s14_outage_is_reported", |_| $broken, |store| $crate::store::s14_outage_is_reported(store));
            }
        )?

        $(
            #[test]
            fn s16_store_works_again_after_an_outage() {
                $crate::run(
                    "s16_store_works_again_after_an_outage",
                    |_| $outage,
                    |store| $crate::store::s16_store_works_again_after_an_outage(store),
                );
            }
        )?
    };
    (
        $factory:expr $(, reference: $reference:expr)? $(, broken: $broken:expr)? $(, outage: $outage:expr)? $(,)?
    ) => {
        $crate::store! { named: |_| $factory $(, reference: $reference)? $(, broken: $broken)? $(, outage: $outage)? }
    };
    ($($other:tt)*) => {
        compile_error!(
            "store! takes an expression, or `named:` a closure; then, in this order, `reference:`, `reopen:`, `second_process:`, \
             `broken:`, `outage:`. `reopen:` and `second_process:` need `named:`"
        );
    };
}

/// Defines one test for each guarantee of [`RateLimiter`](couple_core::limits::RateLimiter).
///
/// Takes a function from a clock to a future of a rate limiter that uses this clock, or `named:` a function from a name, such as `l1`, and a
/// clock. Options, in this order:
///
/// * `second_process:` (with `named:`) a function from a name and a clock to a future of the rate limiter of another process: both together
///   grant what one grants.
/// * `outage:` a function from a clock to a future of a [`Breakable`] rate limiter: L7.
#[macro_export]
macro_rules! limits {
    (named: $open:expr $(, second_process: $second:expr)? $(, outage: $outage:expr)? $(,)?) => {
        mod limits {
            #[allow(unused_imports, reason = "the factory's names are the caller's")]
            use super::*;

            $crate::limits! { @each |name| $crate::named_with_clock($open, name) }

            $(
                mod second_process {
                    #[allow(unused_imports, reason = "the factory's names are the caller's")]
                    use super::*;

                    $crate::limits! { @each |name| $crate::second_with_clock(name, $open, $second) }
                }
            )?

            $(
                #[test]
                fn l7_outage_grants_no_more() {
                    $crate::run(
                        "l7_outage_grants_no_more",
                        |_| $crate::with_clock($outage),
                        |(limiter, clock)| async move { $crate::limits::l7_outage_grants_no_more(limiter, &clock).await },
                    );
                }
            )?
        }
    };
    (@each $engine:expr) => {
        $crate::limits! { @tests $engine;
            l1_new_key_has_burst_tokens, l2_bucket_refills_over_its_period,
            l3_keys_and_rules_do_not_share_a_bucket, l4_retry_after_the_stated_time_succeeds,
            l5_concurrent_callers_get_exactly_burst_tokens, l6_corrected_clock_does_not_freeze_a_bucket
        }
    };
    (@tests $engine:expr; $($name:ident),+) => {$(
        #[test]
        fn $name() {
            $crate::run(
                stringify!($name),
                $engine,
                |(limiter, clock)| async move { $crate::limits::$name(limiter, &clock).await },
            );
        }
    )+};
    ($factory:expr $(, outage: $outage:expr)? $(,)?) => {
        $crate::limits! { named: |_, clock| $crate::limiter($factory, clock) $(, outage: $outage)? }
    };
}

/// Defines one test for each guarantee of [`Bus`](couple_core::live::Bus).
///
/// Takes an expression that creates a future of a bus, or `named:` a closure from a name, such as `b1`, to such a future. Options, in this
/// order:
///
/// * `second_process:` (with `named:`) a closure from a name to a future of the bus of another process: notices go from each to both.
/// * `outage:` an expression that creates a future of a [`Breakable`] bus, for example of an [`AlternatingBus`]: B5.
#[macro_export]
macro_rules! bus {
    (named: $open:expr $(, second_process: $second:expr)? $(, outage: $outage:expr)? $(,)?) => {
        $crate::bus! { @each $open }

        $(
            mod bus_of_two_processes {
                #[allow(unused_imports, reason = "the factory's names are the caller's")]
                use super::*;

                $crate::bus! { @each |name| async {
                    let (one, other) = $crate::second(name, $open, $second).await;
                    $crate::AlternatingBus::new(one, other)
                } }
            }
        )?

        $(
            #[test]
            fn b5_outage_loses_no_notice_silently() {
                $crate::run(
                    "b5_outage_loses_no_notice_silently",
                    |_| $outage,
                    |bus| $crate::bus::b5_outage_loses_no_notice_silently(bus),
                );
            }
        )?
    };
    (@each $engine:expr) => {
        $crate::checks! { run, $engine;
            bus: b1_notice_reaches_every_subscription, b2_slow_subscriber_receives_changed,
                b3_subscription_receives_only_its_topics, b4_dropped_subscriptions_are_removed;
        }
    };
    ($factory:expr $(, outage: $outage:expr)? $(,)?) => {
        $crate::bus! { named: |_| $factory $(, outage: $outage)? }
    };
}

/// Defines one test for each guarantee of [`Presence`](couple_core::live::Presence).
///
/// Takes an expression that creates a future of a presence, or `named:` a closure from a name, such as `pr1`, to such a future. Options, in
/// this order:
///
/// * `second_process:` (with `named:`) a closure from a name to a future of the presence of another process: both see the same leases.
/// * `outage:` an expression that creates a future of a [`Breakable`] presence: PR5.
#[macro_export]
macro_rules! presence {
    (named: $open:expr $(, second_process: $second:expr)? $(, outage: $outage:expr)? $(,)?) => {
        $crate::presence! { @each $open }

        $(
            mod presence_of_two_processes {
                #[allow(unused_imports, reason = "the factory's names are the caller's")]
                use super::*;

                $crate::presence! { @each |name| async {
                    let (one, other) = $crate::second(name, $open, $second).await;
                    $crate::AlternatingPresence::new(one, other)
                } }
            }
        )?

        $(
            #[test]
            fn pr5_outage_is_reported_and_ends() {
                $crate::run(
                    "pr5_outage_is_reported_and_ends",
                    |_| $outage,
                    |presence| $crate::presence::pr5_outage_is_reported_and_ends(presence),
                );
            }
        )?
    };
    (@each $engine:expr) => {
        $crate::checks! { run, $engine;
            presence: pr1_account_is_present_until_its_lease_expires,
                pr2_renewal_returns_whether_the_account_was_away, pr3_leases_of_accounts_are_independent,
                pr4_lease_can_be_shortened;
        }
    };
    ($factory:expr $(, outage: $outage:expr)? $(,)?) => {
        $crate::presence! { named: |_| $factory $(, outage: $outage)? }
    };
}

/// Defines one test for each guarantee of an object store that [`Blobs`] needs.
///
/// [`Blobs`]: couple_media::blobs::Blobs
#[macro_export]
macro_rules! blobs {
    ($factory:expr) => {
        $crate::checks! { run, |_| $factory;
            blobs: o1_blob_reads_back_byte_for_byte, o2_blob_exists_completely_or_not_at_all,
                o3_range_reads_only_the_requested_part, o4_missing_blob_is_reported_as_missing,
                o5_list_contains_only_blobs_of_its_folder, o6_folder_is_deleted_completely,
                o7_one_of_concurrent_writes_wins_completely, o8_signed_link_depends_on_blob_and_expiry,
                o9_staged_bytes_are_joined_in_order, o10_pages_list_every_blob_once,
                o11_read_beside_a_write_is_not_mixed;
        }
    };
}

/// Defines one test for each guarantee of [`Renderer`](couple_media::gallery::Renderer).
///
/// Takes an expression that creates a future of a renderer and a [`PictureSample`](renderer::PictureSample) of a type that it reads.
#[macro_export]
macro_rules! renderer {
    ($factory:expr) => {
        $crate::checks! { run, |_| $factory;
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
        $crate::checks! { run, |_| $factory;
            password_hasher: h1_hash_matches_only_its_password, h2_hash_depends_on_its_salt,
                h3_hash_names_its_algorithm_and_hides_the_password, h4_new_hash_needs_no_rehash,
                h5_unknown_hash_is_an_error, h6_wrong_password_takes_as_long;
        }
    };
    ($factory:expr, imported: $imported:expr) => {
        $crate::password_hasher!($factory);

        #[test]
        fn h7_imported_hash_matches_and_needs_a_rehash() {
            $crate::run(
                "h7_imported_hash_matches_and_needs_a_rehash",
                |_| $imported,
                |imported| $crate::password_hasher::h7_imported_hash_matches_and_needs_a_rehash(imported),
            );
        }
    };
}

/// Defines one test for each guarantee of [`IdGenerator`](couple_core::IdGenerator).
#[macro_export]
macro_rules! id_generator {
    ($factory:expr) => {
        $crate::checks! { run, |_| $factory;
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
        $crate::checks! { run, |_| $factory;
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
        $crate::checks! { run, |_| $factory;
            authenticator: au1_ended_session_is_refused, au2_request_has_one_person_and_session,
                au3_calls_return_in_time, au4_request_without_valid_credentials_is_refused,
                au5_each_principal_has_one_result, au6_sessions_of_a_person_are_known_or_not;
        }
    };
}
