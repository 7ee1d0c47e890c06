//! Macro that implements the read traits of a store by an inner store.

/// Implements all read traits of a [`Store`](crate::Store) by an inner store.
///
/// For stores that wrap another one, to observe it or to make it fail: they implement
/// [`Store::commit`](crate::Store::commit) themselves.
///
/// The arguments are the generic parameters in brackets, if any; the type; and the inner store of a `store`.
/// With `around`, each read is passed to a method of the type, which awaits it:
/// `async fn method<T: Send + 'static>(&self, name: &'static str, read: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error>`,
/// where `name` is the name of the read.
///
/// ```
/// use std::{sync::atomic::{AtomicU64, Ordering}, time::Instant};
///
/// use async_trait::async_trait;
/// use couple_core::{Change, CommitError, Committed, Error, Store};
///
/// /// Store that counts commits and logs the time of each read.
/// struct ObservedStore<S> {
///     inner: S,
///     commits: AtomicU64,
/// }
///
/// impl<S: Store> ObservedStore<S> {
///     async fn timed<T: Send + 'static>(
///         &self,
///         name: &'static str,
///         read: impl Future<Output = Result<T, Error>> + Send,
///     ) -> Result<T, Error> {
///         let started = Instant::now();
///         let result = read.await;
///         println!("{name} took {:?}", started.elapsed());
///         result
///     }
/// }
///
/// couple_core::delegate_reads!([S: Store] ObservedStore<S>, |store| store.inner, around: timed);
///
/// #[async_trait]
/// impl<S: Store> Store for ObservedStore<S> {
///     async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
///         self.commits.fetch_add(1, Ordering::Relaxed);
///         self.inner.commit(changes).await
///     }
///     async fn ping(&self) -> Result<(), Error> {
///         self.inner.ping().await
///     }
///     async fn close(&self) -> Result<(), Error> {
///         self.inner.close().await
///     }
/// }
/// ```
#[macro_export]
macro_rules! delegate_reads {
    ([$($generics:tt)*] $type:ty, |$store:ident| $inner:expr $(, around: $around:ident)? $(,)?) => {
        $crate::__every_read! {
            [$crate::__impl_reads!] [$($generics)*] [$type] [$store] [$inner] [$($around)?]
        }
    };
    ($type:ty, |$store:ident| $inner:expr $(, around: $around:ident)? $(,)?) => {
        $crate::delegate_reads!([] $type, |$store| $inner $(, around: $around)?);
    };
}

/// Calls a macro with all reads of a store: `[macro!] input`.
///
/// A new read does not compile until it is listed here, because `Arc<S>` is a store by [`delegate_reads!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __every_read {
    ([$($callback:tt)+] $($input:tt)*) => {
        $($callback)+ {
            $($input)*
            $crate::account::AccountReads {
                account(id: $crate::AccountId) -> Option<$crate::account::Account>;
                account_by_email(email: &$crate::EmailKey) -> Option<$crate::account::Account>;
                accounts_to_delete(
                    now: $crate::Timestamp,
                    after: Option<($crate::Timestamp, $crate::AccountId)>,
                    limit: u32
                ) -> Vec<$crate::account::Account>;
                token(id: $crate::TokenId) -> Option<$crate::account::Token>;
                token_by_link(link: &$crate::Digest) -> Option<$crate::account::Token>;
                open_tokens(
                    kind: $crate::account::TokenKind,
                    email: &$crate::EmailKey,
                    now: $crate::Timestamp
                ) -> Vec<$crate::account::Token>;
                session_by_token(
                    token: &$crate::Digest
                ) -> Option<($crate::account::Session, $crate::account::Account)>;
                session_and_couple(
                    token: &$crate::account::SessionToken
                ) -> Option<(
                    $crate::account::Session,
                    $crate::account::Account,
                    Option<$crate::pairing::Couple>
                )>;
                sessions_of(account: $crate::AccountId) -> Vec<$crate::account::Session>;
                tally(id: $crate::account::TallyId, now: $crate::Timestamp) -> Option<$crate::account::Tally>;
                present_sessions(tokens: &[$crate::Digest]) -> Vec<$crate::Digest>;
            }
            $crate::pairing::PairingReads {
                couple(id: $crate::CoupleId) -> Option<$crate::pairing::Couple>;
                couple_of(account: $crate::AccountId) -> Option<$crate::pairing::Couple>;
                couples_of(account: $crate::AccountId) -> Vec<$crate::pairing::Couple>;
                couples_page(
                    account: $crate::AccountId,
                    after: Option<$crate::CoupleId>,
                    limit: u32
                ) -> Vec<$crate::pairing::Couple>;
                invite(id: $crate::InviteId) -> Option<$crate::pairing::Invite>;
                invite_by_code(code: &$crate::Digest) -> Option<$crate::pairing::Invite>;
                invite_by_link(link: &$crate::Digest) -> Option<$crate::pairing::Invite>;
                invite_between(pair_key: &$crate::Digest) -> Option<$crate::pairing::Invite>;
                invites_of(inviter: $crate::AccountId) -> Vec<$crate::pairing::Invite>;
                invites_to(target: &$crate::EmailKey) -> Vec<$crate::pairing::Invite>;
                blocks_of(blocker: $crate::AccountId) -> Vec<$crate::pairing::Block>;
                is_blocked(blocker: $crate::AccountId, blocked: $crate::AccountId) -> bool;
                is_blocked_by_email(blocker: &$crate::EmailKey, blocked: $crate::AccountId) -> bool;
                erasure_of(person: $crate::AccountId) -> Option<$crate::Timestamp>;
                erasures_due(
                    now: $crate::Timestamp,
                    after: Option<($crate::Timestamp, $crate::AccountId)>,
                    limit: u32
                ) -> Vec<($crate::Timestamp, $crate::AccountId)>;
            }
            $crate::timeline::TimelineReads {
                entries(
                    couple: $crate::CoupleId,
                    page: $crate::timeline::Page,
                    limit: u32,
                    kind: Option<&str>
                ) -> Vec<$crate::timeline::Entry>;
                entry(couple: $crate::CoupleId, seq: i64) -> Option<$crate::timeline::Entry>;
                entry_by_client_id(
                    couple: $crate::CoupleId,
                    author: $crate::pairing::Side,
                    client_id: &str
                ) -> Option<$crate::timeline::Entry>;
                entries_by(
                    couple: $crate::CoupleId,
                    author: $crate::pairing::Side,
                    after: i64,
                    limit: u32
                ) -> Vec<$crate::timeline::Entry>;
                unread(
                    couple: $crate::CoupleId,
                    author: $crate::pairing::Side,
                    after: i64,
                    except: &[String]
                ) -> u32;
            }
            $crate::media::MediaReads {
                media(id: $crate::MediaId) -> Option<$crate::media::Media>;
                media_by_identity(
                    space: $crate::media::Space,
                    identity: &$crate::Digest
                ) -> Option<$crate::media::Media>;
                renditions(space: $crate::media::Space, id: $crate::MediaId) -> Vec<$crate::media::Rendition>;
                avatar_of(account: $crate::AccountId) -> Option<$crate::media::Media>;
                media_space(space: $crate::media::Space) -> $crate::media::SpaceUsage;
                media_in(
                    space: $crate::media::Space,
                    after: Option<$crate::MediaId>,
                    limit: u32
                ) -> Vec<$crate::media::Media>;
                media_spaces(after: Option<$crate::media::Space>, limit: u32) -> Vec<$crate::media::Space>;
                unused_renditions(
                    before: $crate::Timestamp,
                    limit: u32
                ) -> Vec<($crate::MediaId, $crate::media::Rendition)>;
            }
            $crate::upload::UploadReads {
                upload(id: $crate::UploadId) -> Option<$crate::upload::ResumableUpload>;
                unfinished_uploads(owner: $crate::AccountId) -> $crate::upload::UnfinishedUploads;
                unfinished_bytes() -> i64;
                expired_uploads(now: $crate::Timestamp, limit: u32) -> Vec<$crate::upload::ResumableUpload>;
            }
            $crate::device::DeviceReads {
                device(account: $crate::AccountId, id: $crate::DeviceId) -> Option<$crate::device::Device>;
                devices_of(account: $crate::AccountId) -> Vec<$crate::device::Device>;
            }
            $crate::notification::NotificationReads {
                preferences(person: $crate::AccountId) -> Option<$crate::notification::Preferences>;
            }
            $crate::date::DateReads {
                date(couple: $crate::CoupleId, id: $crate::DateId) -> Option<$crate::date::CoupleDate>;
                dates_of(couple: $crate::CoupleId) -> Vec<$crate::date::CoupleDate>;
            }
            $crate::job::JobReads {
                queue_stats(queue: &str, now: $crate::Timestamp) -> $crate::job::QueueStats;
                next_due(queue: &str) -> Option<$crate::Timestamp>;
                next_lease_end(queue: &str) -> Option<$crate::Timestamp>;
                dead_jobs(after: Option<$crate::JobId>, limit: u32) -> Vec<$crate::job::DeadJob>;
            }
            $crate::IdempotencyReads {
                outcome(scope: &$crate::Digest) -> Option<$crate::OutcomeRecord>;
            }
        }
    };
}

/// Implements traits; each function calls the inner value. A single token tree holds what every function uses.
#[doc(hidden)]
#[macro_export]
macro_rules! __impl_reads {
    (
        $generics:tt $type:tt $store:tt $inner:tt $around:tt
        $($port:path { $($name:ident($($arg:ident: $arg_type:ty),*) -> $output:ty;)+ })+
    ) => {$(
        $crate::__impl_reads!{ @port $generics $type $port { $(
            fn $name(&self $(, $arg: $arg_type)*) -> $output { $store $inner $around }
        )+ } }
    )+};
    (@port [$($generics:tt)*] [$type:ty] $port:path { $(
        fn $name:ident(&$this:ident $(, $arg:ident: $arg_type:ty)*) -> $output:ty {
            [$store:ident] [$inner:expr] $around:tt
        }
    )+ }) => {
        #[$crate::__async_trait]
        impl<$($generics)*> $port for $type {
            $(async fn $name(&$this $(, $arg: $arg_type)*) -> Result<$output, $crate::Error> {
                let $store = $this;
                $crate::__impl_reads!(@call $around $store $name ($inner).$name($($arg),*))
            })+
        }
    };
    (@call [] $store:ident $name:ident $read:expr) => { $read.await };
    (@call [$around:ident] $store:ident $name:ident $read:expr) => {
        $store.$around(stringify!($name), $read).await
    };
}
