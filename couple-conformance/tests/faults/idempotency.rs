//! Faults of recorded outcomes.

use crate::{
    adapter::FaultyStore,
    plant::{column_faults, faults},
};

faults! { FaultyStore::new();
    "outcome-times-are-swapped": idempotency::i3_outcome_fields_read_back, "an outcome does not read back";
    "outcome-digests-are-swapped": idempotency::i3_outcome_fields_read_back, "an outcome is found by a similar scope";
    "outcome-blanks-are-removed": idempotency::i3_outcome_fields_read_back, "an outcome does not read back";
    "expired-outcomes-are-not-found": idempotency::i3_outcome_fields_read_back, "an outcome does not read back";
}

column_faults! { FaultyStore::new();
    "outcome-recorded-at" ["-in-milliseconds" "-in-seconds" "-before-1970" "-after-2038"]: idempotency::i3_outcome_fields_read_back, "an outcome does not read back";
    "outcome-expires-at" ["-in-milliseconds" "-in-seconds" "-before-1970" "-after-2038"]: idempotency::i3_outcome_fields_read_back, "an outcome does not read back";
    "outcome-scope" ["-cut-at-nul" "-cut-at-16" "-in-lower-case"]: idempotency::i3_outcome_fields_read_back, "an outcome does not read back";
    "outcome-scope" ["-trimmed"]: idempotency::i3_outcome_fields_read_back, "an outcome is found by a similar scope";
    "outcome-request" ["-cut-at-nul" "-cut-at-16" "-trimmed" "-in-lower-case"]: idempotency::i3_outcome_fields_read_back, "an outcome does not read back";
    "outcome-text" ["-cut-at-8" "-cut-at-32" "-cut-at-36" "-cut-at-128" "-cut-at-255" "-trimmed" "-in-lower-case" "-without-emoji" "-unescaped" "-cut-at-8-kib" "-cut-at-16-kib"]: idempotency::i3_outcome_fields_read_back, "an outcome does not read back";
    "outcome-by-scope" ["-ignores-case" "-ends-at-nul" "-reads-a-prefix"]: idempotency::i3_outcome_fields_read_back, "similar scope";
    "record" ["-replaces-a-live-one"]: idempotency::i1_outcome_is_recorded_once, "of 50 concurrent outcomes";
    "record" ["-replaces-one-of-the-same-request" "-replaces-one-that-was-recorded-before"]: idempotency::i1_outcome_is_recorded_once, "has one that has not expired";
    "record" ["-conflicts-at-the-expiry" "-conflicts-with-an-expired-one"]: idempotency::i2_expired_record_is_replaced_or_purged, "an expired outcome is not replaced";
    "record" ["-keeps-an-expired-outcome" "-keeps-an-expired-request" "-keeps-the-first-time" "-keeps-the-first-expiry"]: idempotency::i2_expired_record_is_replaced_or_purged, "by all fields of the new one";
    "purge-outcomes" ["-takes-the-same-time" "-takes-all" "-ignores-the-cap" "-returns-no-number" "-returns-one-more" "-by-the-time-of-the-request"]: idempotency::i2_expired_record_is_replaced_or_purged, "a purge of outcomes does not return the number";
    "purge-outcomes" ["-newest-first"]: idempotency::i2_expired_record_is_replaced_or_purged, "expired first";
}
