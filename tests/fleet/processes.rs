//! Server processes that share a database and Redis.

use std::{net::SocketAddr, process::Command, time::Duration};

use couple::store::sql::MySqlOptions;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    couples,
    engine::{Engine, free_port},
    support::{self, Client, Server},
};

pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    database: String,
    redis_url: String,
    _mariadb: Engine,
    pub(crate) redis: Engine,
    pub(crate) servers: Vec<Server>,
    /// Tokens of all accounts, couple by couple.
    pub(crate) tokens: Vec<String>,
}

impl Fleet {
    /// Starts processes, with couples that are signed in.
    pub(crate) async fn start(processes: usize, couples: usize) -> Self {
        let (mariadb, redis) = (Engine::start("mariadb").await, Engine::start("redis").await);
        let (folder, database) = (tempfile::tempdir().unwrap(), mariadb.fresh());
        let store = MySqlOptions::new(&database).with_max_connections(6).connect().await.unwrap();
        let tokens = couples::seed(store, &folder.path().join("couple.key"), couples).await;
        let redis_url = format!("redis://127.0.0.1:{}", redis.port);
        let mut fleet =
            Self { folder, database, redis_url, _mariadb: mariadb, redis, servers: Vec::new(), tokens };
        for _ in 0..processes {
            let server = fleet.spawn(SocketAddr::from(([127, 0, 0, 1], free_port())));
            fleet.servers.push(server);
        }
        for server in &fleet.servers {
            server.until_ready().await;
        }
        fleet
    }

    fn spawn(&self, address: SocketAddr) -> Server {
        let settings = [
            ("COUPLE_DATABASE_URL", self.database.as_str()),
            ("COUPLE_DATABASE_CONNECTIONS", "6"),
            ("COUPLE_REDIS_URL", &self.redis_url),
            ("COUPLE_KEY_FILE", "couple.key"),
            ("COUPLE_LIMITS", "off"),
            ("COUPLE_ROLE", "api"),
            // Longer than the balancer takes to notice that a process stops.
            ("COUPLE_STOP_DELAY", "1"),
            ("RUST_LOG", "error"),
        ];
        Server::spawn(&support::binary(), self.folder.path(), address, &settings)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// Kills a process with SIGKILL, and restarts it after `away`.
    pub(crate) async fn kill_one(&mut self, which: usize, away: Duration) {
        self.servers[which].kill();
        sleep(away).await;
        self.servers[which] = self.spawn(self.servers[which].address);
        self.servers[which].until_ready().await;
    }
}

impl Fleet {
    /// Stops a process by SIGTERM, as an update does, and starts it again when it has ended by itself.
    pub(crate) async fn restart_one(&mut self, which: usize) {
        let pid = self.servers[which].pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let started = Instant::now();
        while self.servers[which].is_running() {
            assert!(started.elapsed() < Duration::from_secs(30), "the process does not end");
            sleep(Duration::from_millis(20)).await;
        }
        assert!(self.servers[which].wait().success(), "the process ended with an error");
        self.servers[which] = self.spawn(self.servers[which].address);
        self.servers[which].until_ready().await;
    }
}

/// Appends an entry, repeated with the same `client_id` until it is acknowledged.
pub(crate) async fn append(client: &mut Client, token: &str, client_id: &str, text: &str) {
    let entry = json!({ "client_id": client_id, "kind": "text", "body": { "text": text } });
    for _ in 0..1_200 {
        match client.once("POST", "/v1/couple/entries", Some(token), Some(&entry), &[]).await {
            Ok(answer) if answer.status < 300 => return,
            Ok(answer) if answer.status < 500 => panic!("{answer:?}"),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("{client_id} was not accepted within a minute");
}
