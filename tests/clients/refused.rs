//! Clients whose large body is refused before it is read receive the response.

use std::time::Duration;

use tokio::time::timeout;

use crate::{couples, program, support};

async fn gets_its_answers(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let tokens = couples::seed_folder(folder.path(), 1).await;
    let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "warn")];
    let address = support::free_address();
    let server = support::Server::spawn(&support::binary(), folder.path(), address, &settings);
    server.until_ready().await;
    let base = format!("http://{address}");
    let out =
        timeout(Duration::from_secs(120), program(name).args([base.as_str(), &tokens[0]]).output()).await;
    let out = out.expect("the client did not end within two minutes").unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    let output = String::from_utf8_lossy(&out.stdout).into_owned();
    let expected = ["401 unauthenticated", "413 body_too_large", "422 invalid_field"];
    assert_eq!(output.lines().collect::<Vec<_>>(), expected.repeat(5), "{}: {errors}", out.status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_gets_the_answer_to_a_refused_body() {
    gets_its_answers("refused.js").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_http_client_gets_the_answer_to_a_refused_body() {
    gets_its_answers("refused.py").await;
}
