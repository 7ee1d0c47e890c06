//! Faults of the log of a couple.
