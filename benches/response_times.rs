//! Time of a response for an address with an account, as a multiple of the time for an address without one.
//!
//! `tests/contract/enumeration.rs` compares the reads, writes and hashes exactly; this bench measures the time. Requests for both addresses
//! alternate. A time that reveals an account has a ratio of medians outside 0.9 to 1.1 in every round on an idle machine.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use couple::{
    Backend, ManualClock,
    account::HashCost,
    core::{limits::Unlimited, mail::Message},
    notify::mail::MemoryMailer,
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tower::ServiceExt as _;

const ROUNDS: usize = 5;
const ANA: &str = "ana@example.org";
const PASSWORD: &str = "mauve kettle orbit";

/// A back end in memory with one account.
struct Fixture {
    router: Router,
    clock: Arc<ManualClock>,
}

impl Fixture {
    async fn new(cost: HashCost) -> Self {
        let (mailer, clock) = (MemoryMailer::new(), Arc::<ManualClock>::default());
        let builder = Backend::builder().mailer(mailer.clone()).clock(clock.clone());
        let backend = builder.limits(Unlimited).hash_cost(cost).build().unwrap();
        let fixture = Self { router: couple::http::router(backend.clone()), clock };
        fixture.post("/v1/accounts", json!({ "email": ANA, "display_name": "Ana" })).await;
        backend.worker().run_until_idle().await.unwrap();
        let Message::ConfirmSignUp { code, .. } = mailer.last_to(ANA).unwrap().message else {
            panic!("no code")
        };
        let proof = json!({ "email": ANA, "code": code.expose(), "password": PASSWORD });
        assert_eq!(fixture.post("/v1/accounts/verify", proof).await, 200);
        fixture
    }

    async fn post(&self, path: &str, body: Value) -> u16 {
        let request = Request::post(path).header("content-type", "application/json");
        let request = request.body(Body::from(body.to_string())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        to_bytes(response.into_body(), 1 << 20).await.unwrap();
        status
    }

    /// Ratio of the median times for the known address and unknown ones.
    async fn ratio(&self, path: &str, extra: &Value, samples: usize) -> f64 {
        // Ends the day for which wrong passwords and codes are counted.
        self.clock.advance(Duration::from_hours(25));
        let mut took = [Vec::new(), Vec::new()];
        for n in 0..samples {
            for (who, email) in [ANA.to_owned(), format!("no{n:04}@example.org")].into_iter().enumerate() {
                let mut body = extra.clone();
                body["email"] = email.into();
                let started = Instant::now();
                self.post(path, body).await;
                took[who].push(started.elapsed());
            }
        }
        let [known, unknown] = took.map(|mut took| {
            took.sort_unstable();
            took[took.len() / 2].as_secs_f64()
        });
        known / unknown
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (cheap, real) = (Fixture::new(HashCost::FOR_TESTS).await, Fixture::new(HashCost::RECOMMENDED).await);
    // Wrong codes and passwords stay below the limit of an address and a day.
    for (fixture, path, extra, samples) in [
        (&cheap, "/v1/accounts", json!({ "display_name": "A" }), 500),
        (&cheap, "/v1/accounts/verify/resend", json!({}), 500),
        (&cheap, "/v1/sessions/code", json!({}), 500),
        (&cheap, "/v1/password/forgot", json!({}), 500),
        (&cheap, "/v1/sessions", json!({ "code": "000000" }), 90),
        (&real, "/v1/sessions", json!({ "password": "wrong password here" }), 60),
    ] {
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            ratios.push(fixture.ratio(path, &extra, samples).await);
        }
        ratios.sort_by(f64::total_cmp);
        let (least, median, most) = (ratios[0], ratios[ROUNDS / 2], ratios[ROUNDS - 1]);
        println!("{path} {extra}: known to unknown {median:.2} ({least:.2} to {most:.2})");
    }
}
