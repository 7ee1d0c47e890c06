//! `clients/conformance` with the clients of this repository, and with mutants of one of them.

use std::{path::Path, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::{installed, support};

const PYTHON: [&str; 2] = ["python3", "python/conformance_client.py"];
const JAVASCRIPT: [&str; 2] = ["node", "js/conformance.js"];
const CHROMIUM: [&str; 2] = ["node", "js/conformance-chromium.js"];

/// Runs a program of `clients/conformance` and checks that it succeeds.
async fn succeeds(program: &str, arguments: impl IntoIterator<Item = String>) {
    let installed = installed();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut command = Command::new(installed.join("venv/bin/python"));
    command.arg(clients.join("conformance").join(program)).args(arguments);
    command.env("NODE_PATH", installed.join("node_modules")).env("PYTHONDONTWRITEBYTECODE", "1");
    let out = command.current_dir(clients).kill_on_drop(true).output();
    let out = timeout(Duration::from_hours(3), out).await.expect("the script did not end").unwrap();
    println!("{}", String::from_utf8_lossy(&out.stdout));
    assert!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
}

/// Arguments of `run`: the soak's size from the environment, and the client's command.
fn arguments(server: Option<&Path>, client: [&str; 2]) -> Vec<String> {
    let size = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (writes, cuts) = (size("COUPLE_CLIENT_WRITES", "300"), size("COUPLE_CLIENT_CUTS", "30"));
    let mut arguments =
        vec!["--jobs".to_owned(), "3".to_owned(), "--writes".to_owned(), writes, "--cuts".to_owned(), cuts];
    arguments.extend(server.map(|server| format!("--server={}", server.display())));
    arguments.push("--".to_owned());
    arguments.extend(client.map(ToOwned::to_owned));
    arguments
}

#[tokio::test]
async fn python_client_conforms() {
    succeeds("run", arguments(None, PYTHON)).await;
}

#[tokio::test]
async fn javascript_client_conforms() {
    succeeds("run", arguments(None, JAVASCRIPT)).await;
}

#[tokio::test]
async fn python_client_conforms_with_the_server() {
    succeeds("run", arguments(Some(&support::binary()), PYTHON)).await;
}

#[tokio::test]
async fn javascript_client_conforms_with_the_server() {
    succeeds("run", arguments(Some(&support::binary()), JAVASCRIPT)).await;
}

/// The same client in a page of Chromium: the soak against the server, or everything if `COUPLE_CLIENT_IN_CHROMIUM` is `all`.
#[tokio::test]
async fn javascript_client_in_chromium_conforms() {
    let with_server = arguments(Some(&support::binary()), CHROMIUM);
    if std::env::var("COUPLE_CLIENT_IN_CHROMIUM").is_ok_and(|scenarios| scenarios == "all") {
        succeeds("run", arguments(None, CHROMIUM)).await;
        succeeds("run", with_server).await;
    } else {
        succeeds("run", ["--only".to_owned(), "soak".to_owned()].into_iter().chain(with_server)).await;
    }
}

#[tokio::test]
async fn conformance_script_finds_faults_of_clients() {
    succeeds("self_test", []).await;
}
