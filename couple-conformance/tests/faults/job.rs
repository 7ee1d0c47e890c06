//! Faults of job queues.
