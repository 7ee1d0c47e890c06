//! Password sign-ins per second through HTTP, compared with the bare hash.
//!
//! The hash (Argon2id, 19 MiB, two passes, memory reused) uses as many threads in the same run; interleaved rounds, medians.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod support;

use std::{sync::Arc, thread, time::Duration};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use couple::{
    Backend, RequestContext, Secret,
    account::{Proof, SignUp, Verification},
    core::{limits::Unlimited, mail::Message},
    notify::mail::MemoryMailer,
    store::sql::SqliteOptions,
};
use support::{load, median, runtime, serve};
use tokio::time::Instant;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(3);
const PASSWORD: &str = "mauve kettle orbit";

/// The bare hash on this many threads.
fn bare(threads: usize) -> f64 {
    let begun = Instant::now();
    let all: Vec<_> = (0..threads)
        .map(|_| {
            thread::spawn(move || {
                let params = Params::new(19_456, 2, 1, Some(32)).unwrap();
                let mut memory = vec![Block::new(); params.block_count()];
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let (mut out, mut done) = ([0; 32], 0);
                while begun.elapsed() < TIME {
                    argon2
                        .hash_password_into_with_memory(PASSWORD.as_bytes(), &[7; 16], &mut out, &mut memory)
                        .unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    let done: u32 = all.into_iter().map(|one| one.join().unwrap()).sum();
    f64::from(done) / begun.elapsed().as_secs_f64()
}

fn main() {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (server, generator) = (runtime(threads), runtime(1));
    let folder = support::folder();
    let backend = server.block_on(async {
        let store = SqliteOptions::new(folder.join("couple.db")).open().await.unwrap();
        let mailer = MemoryMailer::new();
        let backend = Backend::builder()
            .blobs(couple::blobs::Blobs::memory())
            .store(store)
            .keys(couple::Keyring::new([7; 32]))
            .limits(Unlimited)
            .mailer(mailer.clone())
            .build()
            .unwrap();
        let sign_up = SignUp { email: "ana@example.org".into(), display_name: "Ana".into(), locale: None };
        backend.accounts().unwrap().sign_up(&RequestContext::default(), &sign_up).await.unwrap();
        backend.worker().run_until_idle().await.unwrap();
        let Message::ConfirmSignUp { code, .. } = mailer.sent()[0].message.clone() else { panic!("no code") };
        let proof = Proof::Code { email: "ana@example.org".into(), code };
        let password = Secret::new(PASSWORD.to_owned());
        let command =
            Verification { proof, password: Some(password.clone()), display_name: None, locale: None };
        backend.accounts().unwrap().verify(&RequestContext::default(), &command).await.unwrap();
        backend
    });
    let address = serve(&server, backend);
    let body: Arc<str> = format!(r#"{{"email":"ana@example.org","password":"{PASSWORD}"}}"#).into();
    let (mut hashes, mut sign_ins, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = bare(threads);
        let body = body.clone();
        let run = load(address, 16, TIME, None, 201, move |_| ("/v1/sessions", None, body.to_string()));
        let seen = generator.block_on(run).per_second;
        ratios.push(seen / bare);
        hashes.push(bare);
        sign_ins.push(seen);
    }
    println!("bare Argon2id per second on {threads} threads: {:>6.0}", median(hashes));
    println!("password sign-ins per second:           {:>6.0}", median(sign_ins));
    println!("ratio, round by round:                  {:>6.2}", median(ratios));
    server.shutdown_background();
    drop(std::fs::remove_dir_all(folder));
}
