//! Names of all change variants, conflicts and results, and how often sequences reached them.

#[cfg(test)]
use std::collections::BTreeMap;

use couple_core::{
    Change, IdempotencyChange, account::AccountChange, date::DateChange, device::DeviceChange,
    job::JobChange, media::MediaChange, notification::NotificationChange, pairing::PairingChange,
    timeline::TimelineChange, upload::UploadChange,
};
#[cfg(test)]
use couple_core::{ChangeResult, Conflict};

#[cfg(test)]
use super::{
    outcome::{Action, Outcome},
    reads::{Method, OPTIONS},
};

/// Without a wildcard arm: a new variant does not compile until it has a name, which a sequence must reach.
macro_rules! variants {
    ($($area:ident($change:ident): $($variant:ident),+;)+) => {
        #[cfg(test)]
        pub(super) const CHANGES: &[&str] =
            &[$($(concat!(stringify!($change), "::", stringify!($variant)),)+)+ "Change::Host"];

        pub(super) const fn change_name(change: &Change) -> &'static str {
            match change {
                $(Change::$area(change) => match change {
                    $($change::$variant { .. } => concat!(stringify!($change), "::", stringify!($variant)),)+
                },)+
                Change::Host(_) => "Change::Host",
            }
        }
    };
}
variants! {
    Account(AccountChange): Insert, Update, Erase, InsertToken, RedeemToken, RequireToken, RedeemForm, CountTries,
        EndTokens, EndTokensOf, CountTally, RequireTally, PutTally, PurgeTallies, InsertSession, TouchSession,
        SetWidgetToken, EndSession, EndSessions, PurgeTokens, PurgeSessions;
    Pairing(PairingChange): InsertInvite, CloseInvite, WithdrawInvitesOf, Pair, ExpectUnpaired, Describe, Restore,
        End, Block, Unblock, Forget, SetErasure, FinishErasure, Anonymize, PurgeInvites;
    Timeline(TimelineChange): Append, Edit, Delete, React, MarkRead, Erase;
    Media(MediaChange): Insert, Finish, Reject, Use, Release, Delete, AddRendition, Touch, Forget, SetAvatar, Close;
    Upload(UploadChange): Insert, Claim, Append, TakeOver, Finish, ExpireOf, Remove;
    Device(DeviceChange): Put, Remove, RemoveOf, Retire;
    Notification(NotificationChange): Put, Remove;
    Date(DateChange): Put, Remove;
    Job(JobChange): Enqueue, Claim, ClaimAbandoned, Renew, Finish, Retry, Defer, Bury, Replay, PurgeDead;
    Idempotency(IdempotencyChange): Record, Purge;
}

#[cfg(test)]
const RESULTS: [&str; 4] = ["Applied", "Appended", "Claimed", "RowsAffected"];

#[cfg(test)]
const fn result_name(result: &ChangeResult) -> &'static str {
    match result {
        ChangeResult::Applied => RESULTS[0],
        ChangeResult::Appended { .. } => RESULTS[1],
        ChangeResult::Claimed(_) => RESULTS[2],
        ChangeResult::RowsAffected(_) => RESULTS[3],
    }
}

/// Number of times that sequences reached each change, conflict, result, read and option, by name.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Coverage(BTreeMap<String, u64>);

#[cfg(test)]
impl Coverage {
    pub(super) fn add(&mut self, action: &Action, outcome: &Outcome) {
        let mut reached = |what: String| *self.0.entry(what).or_default() += 1;
        match (action, outcome) {
            (Action::Read(read), outcome) => {
                reached(format!("read {}", read.method.name()));
                for option in &read.options {
                    reached(format!("option {option}"));
                }
                if outcome.has_rows() {
                    reached(format!("result of {}", read.method.name()));
                }
            }
            (Action::Commit(changes), Outcome::Committed(results)) => {
                for change in changes {
                    reached(format!("change {}", change_name(change)));
                }
                for result in results {
                    reached(format!("result {}", result_name(result)));
                }
            }
            (Action::Commit(changes), outcome) => {
                if let Outcome::Conflict(conflict) = outcome {
                    reached(format!("conflict {}", conflict.name()));
                }
                // Statements of the host are refused by every store.
                for host in changes.iter().filter(|change| matches!(change, Change::Host(_))) {
                    reached(format!("change {}", change_name(host)));
                }
            }
        }
    }

    /// Changes that were never committed, conflicts that never occurred, and reads, options and results of reads
    /// that were never reached.
    pub(super) fn missing(&self) -> Vec<String> {
        let changes = CHANGES.iter().map(|name| format!("change {name}"));
        let conflicts = Conflict::NAMES.iter().map(|name| format!("conflict {name}"));
        let results = RESULTS.iter().map(|name| format!("result {name}"));
        let reads = Method::ALL.iter().map(|method| format!("read {}", method.name()));
        let found = Method::ALL.iter().map(|method| format!("result of {}", method.name()));
        let options = OPTIONS.iter().map(|name| format!("option {name}"));
        let all = changes.chain(conflicts).chain(results).chain(reads).chain(found).chain(options);
        all.filter(|name| !self.0.contains_key(name)).collect()
    }

    /// Options of reads that are not in the list of options.
    pub(super) fn unknown_options(&self) -> Vec<&str> {
        let options = self.0.keys().filter_map(|name| name.strip_prefix("option "));
        options.filter(|option| !OPTIONS.contains(option)).collect()
    }
}
