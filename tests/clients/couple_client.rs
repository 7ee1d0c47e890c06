//! The JavaScript client in `clients/js`: its types, size and tests, against the server example and in Chromium.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::{installed, support};

/// Time for all tests of the client on busy cores.
const TIMEOUT: Duration = Duration::from_mins(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn couple_client_passes_its_tests() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js/test/run.js");
    let mut node = Command::new("node");
    node.arg(script)
        .arg("--test-reporter=spec")
        .env("COUPLE_TEST_CLIENTS", installed())
        .env("COUPLE_TEST_SERVER", support::binary())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let out = timeout(TIMEOUT, node.output()).await.expect("the tests did not end").unwrap();
    let report = String::from_utf8_lossy(&out.stdout);
    println!("{report}");
    assert!(out.status.success(), "{report}{}", String::from_utf8_lossy(&out.stderr));
}
