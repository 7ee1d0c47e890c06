//! Compares live delivery with nginx with nchan, npm `ws` and npm `socket.io`.
//!
//! `benches/peers/run` installs them and runs this bench. Each round starts the servers one after the other, and measures memory per idle
//! connection, deliveries per second, and delay until the partner receives an entry.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod clients;
#[path = "../../tests/support/engine.rs"]
mod engine;
mod ours;
#[path = "../people/mod.rs"]
mod people;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeMap, future::Future, path::Path, pin::Pin};

use clients::{Load, Source, deliver, idle};
use couple::store::sql::{MySqlOptions, PostgresOptions};
use engine::Engine;
use server::{Peer, Server, Way};
use support::{median, runtime};

const COUPLES: usize = 500;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// Results of the rounds, by measurement.
#[derive(Default)]
struct Table(BTreeMap<(usize, String), Vec<f64>>);

impl Table {
    fn add(&mut self, place: usize, what: impl Into<String>, value: f64) {
        self.0.entry((place, what.into())).or_default().push(value);
    }

    fn print(self, title: &str) {
        println!("{title}");
        for ((_, what), values) in self.0 {
            let each: Vec<_> = values.iter().map(|value| format!("{value:.2}")).collect();
            println!("  {what:<44} {:>10.2}   ({})", median(values), each.join(", "));
        }
    }
}

/// Every server with every transport that it has.
const ALL: [(Peer, Way); 9] = [
    (Peer::Ours, Way::WebSocket),
    (Peer::Nchan, Way::WebSocket),
    (Peer::Ws, Way::WebSocket),
    (Peer::Ours, Way::Events),
    (Peer::Nchan, Way::Events),
    (Peer::Ours, Way::Poll),
    (Peer::Nchan, Way::Poll),
    (Peer::Ours, Way::SocketIo),
    (Peer::SocketIo, Way::SocketIo),
];

async fn memory(rounds: usize) {
    let connections = number("COUPLE_PEERS_CONNECTIONS", 9_000);
    let mut table = Table::default();
    for _ in 0..rounds {
        for (place, (peer, way)) in ALL.into_iter().enumerate() {
            table.add(
                place,
                format!("{} of {}", way.name(), peer.name()),
                idle(peer, way, connections).await,
            );
        }
    }
    table.print(&format!("KiB per idle connection at {connections}"));
}

/// Origins of entries: in-process, or a client over HTTP, which is the only way for nchan.
const SPOKEN: [(Peer, Way, Source); 8] = [
    (Peer::Ours, Way::WebSocket, Source::Inside),
    (Peer::Ws, Way::WebSocket, Source::Inside),
    (Peer::Ours, Way::SocketIo, Source::Inside),
    (Peer::SocketIo, Way::SocketIo, Source::Inside),
    (Peer::Ours, Way::WebSocket, Source::Http),
    (Peer::Nchan, Way::WebSocket, Source::Http),
    (Peer::Ours, Way::Events, Source::Http),
    (Peer::Nchan, Way::Events, Source::Http),
];

async fn spoken(
    rounds: usize,
    title: &str,
    load: Load,
    mut take: impl FnMut(&mut Table, usize, String, clients::Seen),
) {
    let mut table = Table::default();
    for _ in 0..rounds {
        for (place, (peer, way, source)) in SPOKEN.into_iter().enumerate() {
            let mut server = Server::start(peer);
            let seen = deliver(&mut server, None, peer, way, source, load).await;
            take(
                &mut table,
                place,
                format!("{} of {}, published {}", way.name(), peer.name(), source.name()),
                seen,
            );
        }
    }
    table.print(title);
}

async fn throughput(rounds: usize) {
    let load = Load { rate: 0, seconds: 3 };
    let title = "deliveries per second at the maximum rate, two devices in each of 500 couples";
    spoken(rounds, title, load, |table, place, what, seen| table.add(place, what, seen.per_second)).await;
}

async fn delay(rounds: usize) {
    let load = Load { rate: 2_000, seconds: 3 };
    let title = "ms from publication to arrival of an entry, at 2,000 per second";
    spoken(rounds, title, load, |table, place, what, seen| {
        table.add(2 * place, format!("{what}: p50"), seen.p50);
        table.add(2 * place + 1, format!("{what}: p99"), seen.p99);
    })
    .await;
}

/// Published in one process and received from another, notified over Redis or PostgreSQL.
async fn across(rounds: usize) {
    let load = Load { rate: 500, seconds: 3 };
    let (redis, mariadb) = (Engine::start("redis").await, Engine::start("mariadb").await);
    let postgres = Engine::start("postgres").await;
    let redis = format!("redis://127.0.0.1:{}", redis.port);
    let mut table = Table::default();
    for _ in 0..rounds {
        let mut one = Server::ours(&["two", &redis]);
        let seen = deliver(&mut one, None, Peer::Ours, Way::WebSocket, Source::Inside, load).await;
        table.add(0, "shared memory store, over Redis: p50", seen.p50);
        table.add(1, "shared memory store, over Redis: p99", seen.p99);
        drop(one);

        let (database, folder) = (mariadb.fresh(), tempfile::tempdir().unwrap());
        let store = MySqlOptions::new(&database).with_max_connections(10).connect().await.unwrap();
        ours::seed(store, folder.path()).await;
        let over = |folder: &Path| Server::ours(&["sql", &redis, &database, folder.to_str().unwrap()]);
        let (mut said, heard) = (over(folder.path()), over(folder.path()));
        let seen = deliver(&mut said, Some(&heard), Peer::Ours, Way::WebSocket, Source::Inside, load).await;
        table.add(2, "MariaDB, over Redis: p50", seen.p50);
        table.add(3, "MariaDB, over Redis: p99", seen.p99);
        drop((said, heard));

        let (database, folder) = (postgres.fresh(), tempfile::tempdir().unwrap());
        let store = PostgresOptions::new(&database).with_max_connections(10).connect().await.unwrap();
        ours::seed(store, folder.path()).await;
        let over = |folder: &Path| Server::ours(&["postgres", &database, folder.to_str().unwrap()]);
        let (mut said, heard) = (over(folder.path()), over(folder.path()));
        let seen = deliver(&mut said, Some(&heard), Peer::Ours, Way::WebSocket, Source::Inside, load).await;
        table.add(4, "PostgreSQL alone: p50", seen.p50);
        table.add(5, "PostgreSQL alone: p99", seen.p99);
    }
    table.print("ms from publication to arrival of an entry at another process, at 500 per second");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rounds = number("COUPLE_PEERS_ROUNDS", 5);
    let run = |work: Pin<Box<dyn Future<Output = ()>>>| runtime(1).block_on(work);
    match arguments.as_slice() {
        ["server", how @ ..] => ours::be_the_server(how),
        ["memory"] => run(Box::pin(memory(rounds))),
        ["throughput"] => run(Box::pin(throughput(rounds))),
        ["delay"] => run(Box::pin(delay(rounds))),
        ["across"] => run(Box::pin(across(rounds))),
        // `cargo bench` runs every bench; this one needs programs that its script installs.
        _ => println!("run benches/peers/run to compare with other servers"),
    }
}
