//! P1–P22: invites, couples and blocks.

mod couple;
mod erasure;
mod fields;
mod invite;

use couple_core::{
    Store, Timestamp,
    pairing::{Couple, Invite, InviteState, PairingChange, Side},
};

use crate::world::{World, same};

pub use self::{
    couple::{
        p1_account_is_in_at_most_one_couple, p2_both_members_are_paired_or_neither,
        p7_end_of_a_couple_unpairs_both_members, p8_change_of_an_ended_couple_conflicts,
        p11_couples_are_listed_newest_first, p13_describing_writes_only_given_fields,
        p14_restore_wish_requires_unchanged_wishes, p17_expecting_unpaired_conflicts_when_paired,
    },
    erasure::{
        p12_purge_and_forgetting_remove_at_most_cap_rows, p16_account_due_for_deletion_cannot_pair,
        p18_person_to_be_erased_cannot_pair, p19_ended_couple_forgets_a_replaced_member,
    },
    fields::{p9_invite_and_couple_fields_read_back, p10_blocks_are_found_by_id_and_by_address},
    invite::{
        p3_invite_is_closed_once, p4_address_pair_has_one_open_invite, p5_paired_account_cannot_invite,
        p6_withdrawal_closes_all_open_invites, p15_open_invites_never_exceed_the_limit,
        p20_invite_code_and_link_are_unique, p21_lists_have_the_newest_two_hundred,
        p22_invite_target_is_compared_exactly,
    },
};

/// Change that adds an invite, with a high limit of open invites.
fn insert_invite(invite: Invite) -> PairingChange {
    PairingChange::InsertInvite { invite, limit: 1000 }
}

/// Change by which a member asks to restore the previous timeline.
fn restore(couple: &Couple, side: Side, read: [bool; 2]) -> PairingChange {
    PairingChange::Restore { id: couple.id, side, wanted: true, read }
}

/// Change that ends a couple.
fn end(couple: &Couple, at: Timestamp) -> PairingChange {
    PairingChange::End { id: couple.id, members: couple.members, at, by: None }
}

/// States in which an invite is closed.
fn closed_states(world: &World) -> [InviteState; 3] {
    [
        InviteState::Accepted { by: world.account_id(), couple: world.couple_id() },
        InviteState::Declined,
        InviteState::Withdrawn,
    ]
}

/// Fails with `what` unless the members' current couple is this one.
async fn are_paired(store: &impl Store, couple: &Couple, what: &str) {
    for member in couple.members {
        same(&store.couple_of(member).await.unwrap().as_ref(), &Some(couple), what);
    }
}
