//! A database server for a single test or bench.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// A server process with its data in a folder; killed, by its process id, when dropped.
pub(crate) struct Engine {
    name: &'static str,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    child: Child,
}

fn script() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    here.map(|folder| folder.join("tests/engine")).find(|script| script.exists()).unwrap()
}

impl Engine {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::start_with(name, &[]).await
    }

    /// Starts a server with additional arguments.
    pub(crate) async fn start_with(name: &'static str, arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let folder = tempfile::tempdir().unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let port = free_port();
        let child = spawn(name, folder.path(), port, &arguments);
        let engine = Self { name, arguments, folder, port, child };
        engine.until_ready(Duration::from_secs(60)).await;
        engine
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Folder of the server's files.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// URL of a new, empty database.
    pub(crate) fn fresh(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (name, port) = (format!("fresh_{}", NEXT.fetch_add(1, Ordering::Relaxed)), self.port.to_string());
        let made = Command::new(script()).args(["database", self.name, &port, &name]).status();
        assert!(made.is_ok_and(|made| made.success()), "no database");
        let scheme = if self.name == "mariadb" { "mysql" } else { self.name };
        format!("{scheme}://root@127.0.0.1:{port}/{name}")
    }

    /// Processor seconds of the server's processes, ended ones included.
    pub(crate) fn cpu(&self) -> f64 {
        let pid = self.child.id();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        ticks(pid, 4) + children.map(cpu).sum::<f64>()
    }

    /// Whether the process is running.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGKILL to the process.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Restarts it with the same data, and waits until it responds.
    pub(crate) async fn again(&mut self) {
        let started = Instant::now();
        // PostgreSQL's child processes take a moment to notice that their parent has died.
        loop {
            self.child = spawn(self.name, self.folder.path(), self.port, &self.arguments);
            for _ in 0..50 {
                if self.ready() {
                    return;
                }
                if self.child.try_wait().unwrap().is_some() {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{} does not start again", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn ready(&self) -> bool {
        let port = self.port.to_string();
        Command::new(script()).args(["ready", self.name, &port]).status().is_ok_and(|status| status.success())
    }

    async fn until_ready(&self, limit: Duration) {
        let started = Instant::now();
        while !self.ready() {
            assert!(started.elapsed() < limit, "{} does not start", self.name);
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Processor seconds of a process from `/proc/PID/stat` (proc(5)): user and system time in hundredths.
pub(crate) fn cpu(pid: u32) -> f64 {
    ticks(pid, 2)
}

/// Processor time of a process, or also of its ended children (proc(5), fields 14 to 17).
fn ticks(pid: u32, counts: usize) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(counts).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// A free port below the range of outgoing connections, so that a killed server can use it again.
pub(crate) fn free_port() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    let random = || 10_000 + (RandomState::new().hash_one(0) % 9_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(random).find(free).unwrap()
}

fn spawn(name: &str, folder: &Path, port: u16, arguments: &[String]) -> Child {
    Command::new(script())
        .args([name.as_ref(), folder.join("data").as_os_str(), port.to_string().as_ref()])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}
