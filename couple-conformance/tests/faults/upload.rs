//! Faults of resumable uploads.
