//! Blobs in S3, checked by `couple-conformance` against an S3-compatible server.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use bytes::Bytes;
use couple_core::{ErrorKind, Secret};
use couple_media::blobs::{Blobs, S3Options};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Address of the server that `./test` starts.
fn server() -> String {
    std::env::var("COUPLE_TEST_S3").expect("COUPLE_TEST_S3 is not set: ./test starts a server and sets it")
}

fn options(endpoint: &str) -> S3Options {
    // Longer timeouts than the default: the tests share the machine.
    S3Options::new("couple")
        .with_endpoint(endpoint)
        .with_credentials("test", &Secret::new("sesame".to_owned()))
        .with_timeout(Duration::from_secs(30))
}

/// Blobs in a separate folder: the checks of all tests use the same names.
fn blobs() -> Blobs {
    let name = std::thread::current().name().unwrap_or("").replace("::", "/");
    options(&server()).with_prefix(format!("{}/{name}", std::process::id())).open().unwrap()
}

couple_conformance::blobs!(async { blobs() });

/// A signed link reads its blob without credentials.
#[tokio::test]
async fn signed_link_reads_its_blob() {
    let blobs = blobs();
    blobs.ping().await.unwrap();
    blobs.put("a/b.webp", Bytes::from_static(b"picture")).await.unwrap();
    let link = blobs.signed("a/b.webp", Duration::from_mins(1)).await.unwrap().unwrap();
    assert!(link.contains("X-Amz-Expires=60") && !link.contains("sesame"), "{link}");
    let (host, path) = link.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("picture"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("content-type: image/webp"), "{answer}");
}

/// A server that is unreachable, or does not respond, causes an error in time.
#[tokio::test]
async fn unreachable_or_silent_server_is_an_error_in_time() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for address in [closed, silent.local_addr().unwrap()] {
        let blobs =
            options(&format!("http://{address}")).with_timeout(Duration::from_millis(500)).open().unwrap();
        let started = tokio::time::Instant::now();
        for error in [
            blobs.put("a", Bytes::new()).await.unwrap_err(),
            blobs.get("a", None).await.unwrap_err(),
            blobs.delete("a").await.unwrap_err(),
            blobs.delete_folder("a").await.unwrap_err(),
        ] {
            assert!(error.is_retryable(), "{error}");
            assert!(!format!("{error:?}").contains("sesame"));
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
    drop(silent);
}

#[tokio::test]
async fn errors_name_their_cause() {
    let error = S3Options::new("").with_endpoint(server()).with_prefix("a b/../c").open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    let missing = S3Options::new("no-such-bucket")
        .with_endpoint(server())
        .with_credentials("test", &Secret::new("sesame".to_owned()))
        .with_timeout(Duration::from_secs(30));
    let error = missing.open().unwrap().put("a", Bytes::new()).await.unwrap_err();
    assert!(
        error.to_string().contains("no-such-bucket") || error.to_string().contains("NoSuchBucket"),
        "{error}"
    );
    assert!(!format!("{:?}", blobs()).contains("sesame"));
}
