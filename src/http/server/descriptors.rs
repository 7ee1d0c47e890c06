//! Limit on open file descriptors, and the share of it that connections may use.

/// Minimum and maximum number of reserved descriptors; between them, an eighth of the limit.
///
/// They are for the database, picture files, Redis and the listener.
const RESERVED_RANGE: (u64, u64) = (64, 1024);

/// Raises the soft limit on open files to the hard limit, and returns the resulting limit.
///
/// None: there is no limit, or the system has no such limit.
///
/// Many systems start processes with a soft limit of 1,024. [`serve`](super::serve) accepts fewer connections than the limit that
/// applies when it starts, so call this first.
pub fn raise_descriptor_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            limit.current = limit.maximum;
            // If the limit cannot be raised, the server accepts fewer connections and logs a warning.
            if let Err(error) = setrlimit(Resource::Nofile, limit) {
                tracing::warn!(%error, "cannot raise the limit on open files");
            }
        }
    }
    descriptor_limit()
}

fn descriptor_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
    #[cfg(not(unix))]
    {
        None
    }
}

/// Number of connections, at most `wanted`, that leaves enough descriptors for the rest of the process.
pub(super) fn affordable(wanted: usize) -> usize {
    let affordable = descriptor_limit().map_or(usize::MAX, within);
    if affordable < wanted {
        tracing::warn!(
            wanted,
            affordable,
            "the limit on open files allows fewer connections than configured; raise it (ulimit -n)"
        );
    }
    wanted.min(affordable)
}

fn within(limit: u64) -> usize {
    let reserved = (limit / 8).clamp(RESERVED_RANGE.0, RESERVED_RANGE.1);
    usize::try_from(limit.saturating_sub(reserved)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_reserved_for_everything_but_connections() {
        assert_eq!([1024, 20_000, 64].map(within), [896, 18_976, 1]);
    }

    #[cfg(unix)]
    #[test]
    fn soft_limit_on_open_files_is_raised_to_the_hard_limit() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit { current: before.maximum.map_or(Some(512), |hard| Some(hard.min(512))), ..before };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(raise_descriptor_limit(), before.maximum);
    }
}
