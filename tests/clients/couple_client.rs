//! The JavaScript client in `clients/js`: its types, size and tests, against the server example and in Chromium; and the demo made with it.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::{installed, support};

/// Time for all tests of the client or of the demo on busy cores.
const TIMEOUT: Duration = Duration::from_mins(20);

async fn node_succeeds(arguments: &[&str]) {
    let mut node = Command::new("node");
    node.args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("COUPLE_TEST_CLIENTS", installed())
        .env("COUPLE_TEST_SERVER", support::binary())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let out = timeout(TIMEOUT, node.output()).await.expect("the tests did not end").unwrap();
    let report = String::from_utf8_lossy(&out.stdout);
    println!("{report}");
    assert!(out.status.success(), "{report}{}", String::from_utf8_lossy(&out.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn couple_client_passes_its_tests() {
    node_succeeds(&["clients/js/test/run.js", "--test-reporter=spec"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_passes_its_tests() {
    node_succeeds(&["--test", "--test-reporter=spec", "clients/js/test-browser/demo.test.js"]).await;
}
