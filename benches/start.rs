//! Release server: time from start to the first response, idle memory, and size of the binary.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use support::median;
use tokio::time::Instant;

fn answers(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n");
    let mut said = String::new();
    asked.is_ok() && stream.read_to_string(&mut said).is_ok() && said.starts_with("HTTP/1.1 200")
}

/// Resident memory in KiB, from `ps` on Linux and macOS.
fn resident(pid: u32) -> f64 {
    let said = Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().unwrap().stdout;
    String::from_utf8(said).unwrap().trim().parse().unwrap()
}

fn main() {
    let build = ["build", "--release", "--quiet", "--locked", "--example", "server"];
    assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/examples/server");
    let size = server.metadata().unwrap().len();
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        let folder = support::folder();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let begun = Instant::now();
        let mut child = Command::new(&server)
            .current_dir(&folder)
            .env("COUPLE_LISTEN", &address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !answers(&address) {
            sleep(Duration::from_micros(500));
        }
        starts.push(begun.elapsed().as_secs_f64() * 1e3);
        sleep(Duration::from_secs(1));
        memory.push(resident(child.id()) / 1024.0);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(std::fs::remove_dir_all(folder));
    }
    println!("cold start to first response: {:>6.1} ms", median(starts));
    println!("idle memory:                {:>6.1} MiB", median(memory));
    println!("release binary:             {:>6.1} MB", size as f64 / 1e6);
}
