//! Requests that `schemathesis` generates from the OpenAPI document, sent in three roles.
//!
//! They are valid and invalid. No response is a 5xx, and every response has a status, a content type and a body that the document
//! describes.

use std::time::Duration;

use tokio::{process::Command, time::timeout};

use crate::{
    couples, installed,
    support::{self, Client, Server, free_address},
};

/// Requests per operation and phase.
const MAX_EXAMPLES: &str = "100";
/// Operations for which no requests are generated (regular expression).
///
/// A live stream does not end, bodies of uploads are not JSON (`tests/contract` covers both), and the others end the session or the
/// couple that the role needs.
const EXCLUDED: &str =
    "^(live_.*|media_(upload|create|append)|accounts_end_.*|accounts_delete_me|pairing_leave)$";

async fn conforms(token: Option<&str>, server: &Server) {
    let mut command = Command::new(installed().join("venv/bin/schemathesis"));
    command
        .args(["run", &format!("http://{}/v1/openapi.json", server.address), "--no-color"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", MAX_EXAMPLES])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_schema_conformance", "--continue-on-failure", "--request-timeout", "30"])
        .args(["--generation-database", "none", "--exclude-operation-id-regex", EXCLUDED])
        .kill_on_drop(true);
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let ran = timeout(Duration::from_secs(900), command.output())
        .await
        .expect("schemathesis did not end within 15 minutes");
    let ran = ran.expect("schemathesis starts");
    let report = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{report}{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_conform_to_the_openapi_document_in_every_role() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), 2).await;
    let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "warn")];
    let server = Server::spawn(&support::binary(), folder.path(), free_address(), &settings);
    server.until_ready().await;
    let left = Client::new(server.address).call("DELETE", "/v1/couple", Some(&tokens[2]), None, None).await;
    assert_eq!(left.status, 204, "{left:?}");
    // Without a session; in a couple; with a session whose couple has ended.
    for token in [None, Some(&*tokens[0]), Some(&*tokens[2])] {
        conforms(token, &server).await;
    }
}
