//! A host builds on the back end: its own jobs.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod jobs;
