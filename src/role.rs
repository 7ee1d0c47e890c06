//! Work that a process does.

use std::str::FromStr;

use couple_core::{
    Error, ErrorKind,
    job::{Queue, Worker},
};

use crate::Backend;

/// Work that a process does.
///
/// As text: `all`, `api`, `worker`, or `worker:` and names of queues separated by commas, such as `worker:mail,media`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Role {
    /// Serves requests and runs jobs.
    #[default]
    All,
    /// Serves requests only.
    Api,
    /// Runs jobs only: of these queues, or of all if the list is empty.
    Worker(Vec<String>),
}

impl Role {
    /// Whether the process serves requests.
    #[must_use]
    pub const fn serves_requests(&self) -> bool {
        !matches!(self, Self::Worker(_))
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            None if text == "api" => Ok(Self::Api),
            None if text == "worker" => Ok(Self::Worker(Vec::new())),
            Some(("worker", names)) if names.split(',').all(|name| !name.is_empty()) => {
                Ok(Self::Worker(names.split(',').map(str::to_owned).collect()))
            }
            _ => Err(Error::new(ErrorKind::Misconfigured, "read role")
                .context(format!("{text} is none of all, api, worker, worker:QUEUE,QUEUE"))),
        }
    }
}

impl Backend {
    /// Worker for the jobs of a role; none for [`Role::Api`].
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for a queue that is not among [`queues`](Self::queues).
    pub fn worker_of(&self, role: &Role) -> Result<Option<Worker>, Error> {
        let names = match role {
            Role::Api => return Ok(None),
            Role::Worker(names) if !names.is_empty() => names,
            Role::All | Role::Worker(_) => return Ok(Some(self.worker())),
        };
        let queue = |name: &String| -> Result<Queue, Error> {
            self.queues().iter().find(|queue| queue.name == *name).cloned().ok_or_else(|| {
                let known: Vec<_> = self.queues().iter().map(|queue| queue.name.as_str()).collect();
                Error::new(ErrorKind::Misconfigured, "start worker")
                    .context(format!("there is no queue {name}; the queues are {}", known.join(", ")))
            })
        };
        Ok(Some(self.worker_for(names.iter().map(queue).collect::<Result<_, _>>()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_is_read_from_text() {
        let worker = |names: &[&str]| Role::Worker(names.iter().map(|name| (*name).to_owned()).collect());
        for (text, role) in [
            ("all", Role::All),
            ("api", Role::Api),
            ("worker", worker(&[])),
            ("worker:mail", worker(&["mail"])),
            ("worker:mail,exports", worker(&["mail", "exports"])),
        ] {
            assert_eq!(text.parse::<Role>().unwrap(), role);
        }
        for text in ["", "All", "worker:", "worker:mail,", "api:mail"] {
            assert_eq!(text.parse::<Role>().unwrap_err().kind(), ErrorKind::Misconfigured, "{text}");
        }
    }
}
