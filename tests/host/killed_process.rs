//! A test that runs as a separate process, which another test kills.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use couple::{Entropy as _, OsEntropy};

/// Variable with the folder of the files that a killed process leaves.
const FOLDER: &str = "COUPLE_KILLED_FOLDER";
/// Variable with the path or URL of its database.
const DATABASE: &str = "COUPLE_KILLED_DATABASE";
/// Line by which the process says that it works.
const READY: &str = "the process works";

/// Process that is killed, by its process id, when dropped.
pub(crate) struct KilledProcess(Child);

impl KilledProcess {
    /// Starts an ignored test of this binary, and waits until it works.
    pub(crate) fn start(test: &str, folder: &Path, database: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .env(DATABASE, database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == READY), "the process ended");
        Self(child)
    }

    /// Folder and database of this process, which [`start`](Self::start) has set.
    pub(crate) fn installation() -> [String; 2] {
        [FOLDER, DATABASE].map(|name| std::env::var(name).unwrap())
    }

    /// Says that this process works.
    pub(crate) fn announce() {
        println!("\n{READY}");
    }
}

impl Drop for KilledProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Adds a line to a file with one write, which a kill does not split.
pub(crate) fn note(folder: &Path, file: &str, line: &str) {
    let mut file = std::fs::File::options().create(true).append(true).open(folder.join(file)).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Lines that [`note`] added.
pub(crate) fn noted(folder: &Path, file: &str) -> std::collections::BTreeSet<String> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Random number below a limit.
pub(crate) fn random(limit: u64) -> u64 {
    let mut bytes = [0; 8];
    OsEntropy.fill(&mut bytes);
    u64::from_be_bytes(bytes) % limit
}
