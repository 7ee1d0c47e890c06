//! Faults of devices.

use crate::{
    adapter::FaultyStore,
    plant::{column_faults, faults},
};

faults! { FaultyStore::new();
    "device-sandbox-is-lost": device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-session-is-lost": device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-surface-is-lost": device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-controls-are-widgets": device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-locale-is-lost": device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-time-zone-is-lost": device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-absent-version-is-empty": device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-without-a-session-is-hidden": device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-list-lacks-the-version": device::dv1_device_fields_read_back, "a listed device reads back otherwise after it was registered";
    "device-second-registration-keeps-the-session": device::dv1_device_fields_read_back, "after it was registered again";
    "device-second-registration-keeps-the-destination": device::dv1_device_fields_read_back, "after it was registered again";
    "device-second-registration-keeps-the-surface": device::dv1_device_fields_read_back, "after it was registered again";
    "device-second-registration-keeps-the-locale": device::dv1_device_fields_read_back, "after it was registered again";
    "device-second-registration-keeps-the-time-zone": device::dv1_device_fields_read_back, "after it was registered again";
    "device-second-registration-keeps-the-version": device::dv1_device_fields_read_back, "after it was registered again";
    "device-second-registration-keeps-the-time": device::dv1_device_fields_read_back, "after it was registered again";
    "device-destination-is-not-unique": device::dv2_destination_belongs_to_one_device, "stays with its former account";
    "device-destination-is-unique-within-an-account": device::dv2_destination_belongs_to_one_device, "stays with its former account";
    "device-destination-is-unique-between-accounts": device::dv2_destination_belongs_to_one_device, "stays with its former id";
    "device-destination-is-never-taken-over": device::dv2_destination_belongs_to_one_device, "a destination cannot be taken over";
    "device-destination-includes-the-app": device::dv2_destination_belongs_to_one_device, "stays with its former account";
    "device-destination-ignores-the-service": device::dv2_destination_belongs_to_one_device, "a similar token takes over a device";
    "device-former-destination-stays-taken": device::dv2_destination_belongs_to_one_device, "that it no longer has";
    "device-limit-is-ignored": device::dv3_number_of_devices_is_limited, "fewer succeed than fit";
    "device-limit-exceeds-by-one": device::dv3_number_of_devices_is_limited, "fewer succeed than fit";
    "device-limit-is-one-less": device::dv3_number_of_devices_is_limited, "fewer succeed than fit";
    "device-limit-is-of-all-accounts": device::dv3_number_of_devices_is_limited, "fewer succeed than fit";
    "device-limit-counts-the-replaced-one": device::dv3_number_of_devices_is_limited, "cannot be registered again at the limit";
    "device-limit-counts-the-destination": device::dv3_number_of_devices_is_limited, "cannot get another id at the limit";
    "device-limit-is-twenty": device::dv3_number_of_devices_is_limited, "a registration exceeds a lower limit";
    "device-session-is-not-required": device::dv4_devices_end_with_their_session, "for a session that does not exist";
    "device-session-of-any-account": device::dv4_devices_end_with_their_session, "for a session of another account";
    "device-limit-comes-before-the-session": device::dv4_devices_end_with_their_session, "a limit is checked before the session";
    "device-end-of-sessions-ignores-the-account": device::dv4_devices_end_with_their_session, "an end of sessions removes other devices";
    "device-without-a-session-ends-with-one": device::dv4_devices_end_with_their_session, "an end of sessions removes other devices";
    "device-end-of-a-session-removes-all": device::dv4_devices_end_with_their_session, "an end of sessions removes other devices";
    "end-session-keeps-its-devices": device::dv4_devices_end_with_their_session, "or leaves one of theirs";
    "end-sessions-keeps-devices": device::dv4_devices_end_with_their_session, "or leaves one of theirs";
    "end-sessions-removes-devices-of-the-excepted": device::dv4_devices_end_with_their_session, "an end of sessions removes other devices";
    "erase-keeps-devices": device::dv4_devices_end_with_their_session, "an erased account keeps devices";
    "erase-keeps-devices-without-a-session": device::dv4_devices_end_with_their_session, "an erased account keeps devices";
    "purge-sessions-keeps-devices": device::dv4_devices_end_with_their_session, "or leaves one of theirs";
    "purge-sessions-keeps-devices-of-unused-ones": device::dv4_devices_end_with_their_session, "or leaves one of theirs";
    "purge-sessions-removes-16-devices": device::dv4_devices_end_with_their_session, "or leaves one of theirs";
    "device-list-is-in-the-order-of-ids": device::dv5_devices_are_listed_by_registration, "are listed in another order";
    "device-list-has-the-latest-first": device::dv5_devices_are_listed_by_registration, "are listed in another order";
    "device-list-of-equal-times-has-the-greatest-first": device::dv5_devices_are_listed_by_registration, "are listed in another order";
    "device-list-has-the-latest-ones": device::dv5_devices_are_listed_by_registration, "lacks one of the first 200";
    "device-retirement-ignores-the-time": device::dv6_only_older_registrations_are_retired, "that was registered later is retired";
    "device-retirement-excludes-the-time": device::dv6_only_older_registrations_are_retired, "at the time is not retired";
    "device-retirement-removes-nothing": device::dv6_only_older_registrations_are_retired, "at the time is not retired";
    "device-retirement-removes-all-of-the-account": device::dv6_only_older_registrations_are_retired, "at the time is not retired";
    "device-retirement-of-a-missing-one-conflicts": device::dv6_only_older_registrations_are_retired, "retiring an unknown destination conflicts";
    "device-id-belongs-to-one-account": device::dv7_only_devices_of_the_account_are_removed, "replaces one of another account";
    "device-removal-ignores-the-account": device::dv7_only_devices_of_the_account_are_removed, "a removal removes other devices";
    "device-removal-removes-all": device::dv7_only_devices_of_the_account_are_removed, "a removal removes other devices";
    "device-removal-removes-nothing": device::dv7_only_devices_of_the_account_are_removed, "a removal removes other devices";
    "device-removal-of-a-missing-one-conflicts": device::dv7_only_devices_of_the_account_are_removed, "removing a device that does not exist";
    "device-removal-of-none-conflicts": device::dv7_only_devices_of_the_account_are_removed, "removing no devices conflicts";
    "device-removal-of-all-keeps-one": device::dv7_only_devices_of_the_account_are_removed, "a removal of all devices leaves one";
    "device-removal-of-all-is-of-all-accounts": device::dv7_only_devices_of_the_account_are_removed, "a device of another account";
}

column_faults! { FaultyStore::new();
    "device-token" ["-cut-at-64-bytes" "-cut-at-255-bytes" "-cut-at-512-bytes" "-cut-at-2048-bytes" "-in-lower-case" "-lost"]: device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-app" ["-cut-at-64-bytes" "-cut-at-128-bytes" "-in-lower-case" "-lost"]: device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-key" ["-cut-at-64-bytes" "-as-text"]: device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-auth" ["-cut-at-nul" "-as-text" "-trimmed" "-in-lower-case"]: device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-locale" ["-cut-at-16-bytes" "-cut-at-32-bytes" "-lost"]: device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-time-zone" ["-cut-at-16-bytes" "-in-lower-case" "-lost"]: device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-app-version" ["-cut-at-64-bytes" "-cut-at-128-bytes" "-trimmed" "-in-lower-case" "-without-emoji" "-in-latin-1" "-lost"]: device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-registered-at" ["-in-seconds" "-in-milliseconds" "-since-1970" "-until-2038"]: device::dv1_device_fields_read_back, "reads back otherwise after it was registered";
    "device-destination" ["-ignores-case" "-ignores-trailing-blanks" "-ignores-accents" "-reads-a-prefix"]: device::dv2_destination_belongs_to_one_device, "a similar token takes over a device";
    "device-list" ["-limit-is-one-less" "-limit-is-one-more" "-limit-is-ignored"]: device::dv5_devices_are_listed_by_registration, "another number of devices than the first 200";
}
