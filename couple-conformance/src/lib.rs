//! Conformance kit for adapters: one test per numbered guarantee of each port, with the same name.
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
pub mod blobs;
pub mod bus;
pub mod differential;
pub mod idempotency;
pub mod job;
pub mod limits;
pub mod media;
pub mod pairing;
pub mod presence;
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
            store: s1_all_or_nothing, s2_in_order, s3_read_your_writes, s4_a_caller_may_stop_waiting,
                s5_conflicts_do_not_spread, s6_empty, s7_text_is_exact, s8_one_result_per_change;
            account: a1_one_account_per_address, a2_reads_back, a3_stale_update, a4_update_to_taken_address,
                a5_redeemed_once, a6_tries_one_by_one, a7_open_tokens, a8_ending_tokens, a9_ending_sessions,
                a10_erasing, a11_purges, a12_due_for_deletion,
                a13_a_session_needs_its_account, a14_tokens_end_with_their_session, a15_each_form_once,
                a16_tallies_count_to_their_bound, a17_present_sessions;
            pairing: p1_one_couple_per_account, p2_both_or_neither, p3_an_invite_ends_once, p4_one_invite_per_pair,
                p5_paired_cannot_invite, p6_withdrawing, p7_ending, p8_ended_is_closed, p9_reads_back, p10_blocks,
                p11_history, p12_purging_and_forgetting, p13_describing_writes_only_given_fields,
                p14_restore_wish_needs_both_as_read, p15_open_invites_have_a_limit,
                p16_deletion_request_ends_pairing, p17_expecting_unpaired;
            timeline: t1_gapless, t2_a_reader_misses_nothing, t3_client_id_once, t4_no_gap_after_a_conflict,
                t5_reads_back, t6_pages, t7_editing, t8_deleting, t9_reacting, t10_read_positions, t11_ended,
                t12_erasing, t13_couples_apart, t14_unread;
            media: m1_identical_bytes_once, m2_reads_back, m3_quota, m4_what_is_kept_is_counted, m5_ends_once, m6_ended,
                m7_naming, m8_as_read, m9_renditions_once, m10_unused, m11_forgetting, m12_avatars, m13_deleting,
                m14_closing, m15_pages;
            upload: u1_reads_back, u2_one_writer, u3_limit, u4_finishing, u5_length, u6_taking_over, u7_expiry, u8_number_of_unfinished;
            job: j1_claimed_by_one, j2_in_order_of_due_time, j3_leases_end, j4_lost_claims, j5_dedupe,
                j6_finish_and_enqueue, j7_retry, j8_dead_jobs, j9_queues_apart, j10_reads_back, j11_stats;
            idempotency: i1_recorded_once, i2_expiry_and_purge;
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
            l1_burst, l2_refill, l3_apart, l4_retry_after, l5_concurrent,
            l6_clock_is_corrected
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
            bus: b1_reaches, b2_falls_behind, b3_topics_apart, b4_leaves_nothing;
        }
    };
}

/// Defines one test for each guarantee of [`Presence`](couple_core::live::Presence).
#[macro_export]
macro_rules! presence {
    ($factory:expr) => {
        $crate::checks! { $factory;
            presence: p1_for_a_lease, p2_comes_and_stays, p3_apart;
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
            blobs: o1_reads_back, o2_whole_or_not_at_all, o3_ranges, o4_missing, o5_lists, o6_deletes_folders,
                o7_many_at_once, o8_links, o9_staged_bytes_are_joined, o10_pages;
        }
    };
}
