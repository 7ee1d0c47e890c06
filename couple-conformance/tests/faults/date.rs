//! Faults of dates.

use crate::{
    adapter::FaultyStore,
    plant::{column_faults, faults},
};

faults! { FaultyStore::new();
    "date-version-stays": date::da1_date_fields_read_back, "reads back otherwise after it was added";
    "date-kind-is-lost": date::da1_date_fields_read_back, "reads back otherwise after it was added";
    "date-absent-title-is-empty": date::da1_date_fields_read_back, "reads back otherwise after it was added";
    "date-year-is-lost": date::da1_date_fields_read_back, "reads back otherwise after it was added";
    "date-leap-day-is-moved": date::da1_date_fields_read_back, "reads back otherwise after it was added";
    "date-repetition-is-lost": date::da1_date_fields_read_back, "reads back otherwise after it was added";
    "date-change-keeps-the-kind": date::da1_date_fields_read_back, "reads back otherwise after it was changed";
    "date-change-keeps-the-title": date::da1_date_fields_read_back, "reads back otherwise after it was changed";
    "date-change-keeps-the-day": date::da1_date_fields_read_back, "reads back otherwise after it was changed";
    "date-change-keeps-the-repetition": date::da1_date_fields_read_back, "reads back otherwise after it was changed";
    "date-change-keeps-the-time": date::da1_date_fields_read_back, "reads back otherwise after it was changed";
    "date-without-a-row-has-any-version": date::da2_dates_change_only_as_read, "nothing of its version is stored";
    "date-version-is-ignored": date::da2_dates_change_only_as_read, "nothing of its version is stored";
    "date-of-an-older-version-is-written": date::da2_dates_change_only_as_read, "nothing of its version is stored";
    "date-of-a-newer-version-is-written": date::da2_dates_change_only_as_read, "nothing of its version is stored";
    "date-removal-of-a-missing-one-succeeds": date::da2_dates_change_only_as_read, "that does not exist is removed";
    "date-removal-ignores-the-version": date::da2_dates_change_only_as_read, "that does not exist is removed";
    "date-removal-removes-nothing": date::da2_dates_change_only_as_read, "is found after it was removed";
    "date-limit-is-ignored": date::da3_number_of_dates_is_limited, "beyond a limit of none";
    "date-limit-is-of-all-couples": date::da3_number_of_dates_is_limited, "a date of another couple counts";
    "date-limit-is-one-more": date::da3_number_of_dates_is_limited, "a date is added beyond the limit";
    "date-limit-counts-the-changed-one": date::da3_number_of_dates_is_limited, "a date that is changed counts twice";
    "date-addition-ignores-the-end": date::da4_dates_of_an_ended_couple_do_not_change, "is added to an ended couple";
    "date-change-ignores-the-end": date::da4_dates_of_an_ended_couple_do_not_change, "of an ended couple is changed";
    "date-removal-ignores-the-end": date::da4_dates_of_an_ended_couple_do_not_change, "of an ended couple is removed";
    "date-version-is-checked-before-the-end": date::da4_dates_of_an_ended_couple_do_not_change, "of an ended couple";
    "date-ends-with-its-couple": date::da4_dates_of_an_ended_couple_do_not_change, "after the end of its couple";
    "date-of-a-missing-couple-is-added": date::da4_dates_of_an_ended_couple_do_not_change, "added to a missing couple";
    "date-list-has-all-couples": date::da5_dates_are_listed_by_creation, "listed in another order";
    "date-list-is-by-id": date::da5_dates_are_listed_by_creation, "listed in another order";
    "date-list-is-newest-first": date::da5_dates_are_listed_by_creation, "listed in another order";
    "date-list-of-one-time-is-unordered": date::da5_dates_are_listed_by_creation, "listed in another order";
    "date-id-has-one-couple": date::da6_date_ids_belong_to_the_couple, "after another couple added one of its id";
    "date-is-found-by-id-alone": date::da6_date_ids_belong_to_the_couple, "a date";
    "date-removal-ignores-the-couple": date::da6_date_ids_belong_to_the_couple, "after another couple removed one of its id";
    "anonymize-keeps-dates": date::da7_dates_are_removed_with_a_member, "stays after a member of its couple was replaced";
    "anonymize-keeps-one-date": date::da7_dates_are_removed_with_a_member, "stays after a member of its couple was replaced";
    "anonymize-removes-all-dates": date::da7_dates_are_removed_with_a_member, "after a member of another couple was replaced";
}

column_faults! { FaultyStore::new();
    "date-title" ["-cut-at-255-bytes" "-in-lower-case" "-trimmed" "-without-emoji"]: date::da1_date_fields_read_back, "reads back otherwise after it was added";
    "date-created-at" ["-in-seconds" "-in-milliseconds" "-since-1970" "-until-2038"]: date::da1_date_fields_read_back, "reads back otherwise after it was added";
    "date-list" ["-limit-is-one-less" "-limit-is-one-more" "-limit-is-ignored"]: date::da5_dates_are_listed_by_creation, "another number of dates than the first 200";
    "date-list" ["-has-the-last"]: date::da5_dates_are_listed_by_creation, "the list lacks one of the first 200";
}
