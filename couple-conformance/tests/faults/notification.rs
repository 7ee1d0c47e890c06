//! Faults of notification preferences.

use crate::{
    adapter::FaultyStore,
    plant::{column_faults, faults},
};

faults! { FaultyStore::new();
    "preferences-of-entries-are-lost": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-of-reactions-are-lost": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-of-pairing-are-lost": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-have-one-kind": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-previews-are-lost": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-time-zone-is-lost": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-quiet-hours-are-lost": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-digest-is-lost": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-digest-due-needs-a-delay": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-change-keeps-the-digest": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-change-keeps-the-time-of-the-digest": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-quiet-hours-are-ordered": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-version-stays": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-change-keeps-the-silence": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-change-keeps-quiet-hours": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-change-keeps-the-time-zone": notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-are-never-absent": notification::n1_preferences_read_back, "of a person who has changed none";
    "preferences-of-all-persons-change": notification::n1_preferences_read_back, "a change affects another person";
    "preferences-without-a-row-have-any-version": notification::n2_preferences_change_only_as_read, "nothing of their version is stored";
    "preferences-version-is-ignored": notification::n2_preferences_change_only_as_read, "nothing of their version is stored";
    "preferences-of-an-older-version-are-written": notification::n2_preferences_change_only_as_read, "another version than the stored one";
    "preferences-of-a-newer-version-are-written": notification::n2_preferences_change_only_as_read, "nothing of their version is stored";
    "preferences-removal-removes-nothing": notification::n3_preferences_are_removed_with_the_person, "stay after they were removed";
    "preferences-removal-leaves-the-version": notification::n3_preferences_are_removed_with_the_person, "stay after they were removed";
    "preferences-removal-is-of-all": notification::n3_preferences_are_removed_with_the_person, "affects another person";
    "preferences-removal-of-none-conflicts": notification::n3_preferences_are_removed_with_the_person, "removing no preferences conflicts";
    "erase-keeps-preferences": notification::n3_preferences_are_removed_with_the_person, "an erased account keeps preferences";
}

column_faults! { FaultyStore::new();
    "preferences-muted-until" ["-in-seconds" "-in-milliseconds" "-since-1970" "-until-2038"]: notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-digest-due" ["-in-seconds" "-in-milliseconds" "-since-1970" "-until-2038"]: notification::n1_preferences_read_back, "read back otherwise after they were written";
    "preferences-time-zone" ["-cut-at-16-bytes" "-cut-at-32-bytes" "-in-lower-case"]: notification::n1_preferences_read_back, "read back otherwise after they were written";
}
