//! A host builds on the back end: its own jobs.

mod jobs;
