//! Push messages to local HTTP/2 servers that check what the documents of the providers and the RFCs demand.

#![cfg(feature = "push")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod apns;
mod connections;
mod fcm;
mod jwt;
#[cfg(feature = "server-tests")]
mod node_peer;
mod scripted;
mod server;
mod web_push;

use couple_core::{
    ErrorKind, Secret,
    push::{Alert, Destination, Payload, Push, PushError, Pusher as _, Urgency},
};
use couple_notify::push::{Apns, Pushers};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Alert for a destination.
fn alert(to: Destination) -> Push {
    Push {
        id: Uuid::from_u128(0x0192_3c8a_7b1e_7000_8000_0000_0000_0017),
        to,
        payload: Payload::Alert(Alert { title: "Zoë".to_owned(), ..Alert::default() }),
        collapse: None,
        urgency: Urgency::High,
        expires_at: None,
    }
}

/// Device of Apple.
fn iphone() -> Destination {
    Destination::Apns {
        token: Secret::new("00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0".to_owned()),
        app: "org.example.couple".to_owned(),
        sandbox: false,
    }
}

/// Members of a JSON object.
fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

/// Error as a short text: kind of the failure, delay in seconds if the service asked for one.
fn outcome(result: &Result<(), PushError>) -> String {
    match result {
        Ok(()) => "sent".to_owned(),
        Err(PushError::Gone { since: None }) => "gone".to_owned(),
        Err(PushError::Gone { since: Some(at) }) => format!("gone since {}", at.micros()),
        Err(PushError::Unavailable { retry_after: None, .. }) => "unavailable".to_owned(),
        Err(PushError::Unavailable { retry_after: Some(delay), .. }) => {
            format!("unavailable for {} s", delay.as_secs())
        }
        Err(PushError::Refused(error)) if error.kind() == ErrorKind::Misconfigured => {
            "misconfigured".to_owned()
        }
        Err(PushError::Refused(_)) => "refused".to_owned(),
    }
}

#[tokio::test]
async fn message_is_routed_by_its_destination_and_refused_without_its_service() {
    let server = server::PushServer::start(|_| async { server::Reply::status(200) }).await;
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let apns = Apns::new("KEY1234567", "TEAM123456", &key, &server.options()).unwrap();
    let apns = apns.with_servers(&server.url(), &server.url()).unwrap();
    let pushers = Pushers::new();
    assert_eq!(outcome(&pushers.push(&alert(iphone())).await), "misconfigured");
    let pushers = pushers.with_apns(apns);
    assert_eq!(outcome(&pushers.push(&alert(iphone())).await), "sent");
    let fcm = Destination::Fcm { token: Secret::new("x".to_owned()), app: "y".to_owned() };
    assert_eq!(outcome(&pushers.push(&alert(fcm)).await), "misconfigured");
    assert_eq!(server.requests().len(), 1);
}
