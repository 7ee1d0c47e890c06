//! Faults of an object store.

use crate::{adapter::FaultyBlobs, plant::faults};

faults! { FaultyBlobs::open();
    "blobs-put-keeps-a-tail": blobs::o1_blob_reads_back_byte_for_byte, "a second write replaces the whole blob";
    "blobs-list-has-the-time-of-the-first-write": blobs::o5_list_contains_only_blobs_of_its_folder, "has not the time of the last write";
    "blobs-list-has-the-time-of-the-list": blobs::o5_list_contains_only_blobs_of_its_folder, "for a blob that was not written again";
    "blobs-read-follows-writes": blobs::o11_read_beside_a_write_is_not_mixed, "neither the former bytes nor the new ones";
}
