//! Names the suites that were left out because they need servers or third-party clients.

#[expect(clippy::print_stdout, reason = "this line is the purpose of the program")]
fn main() {
    // nextest asks for a list of tests: there is none.
    let listed = std::env::args().any(|argument| argument == "--list");
    if !listed && cfg!(not(feature = "server-tests")) {
        println!(
            "left out, since they need servers: mysql, postgres, redis, shared_database, host_pool, host_statements, fault_injection, multi_process, mail_relay, fleet, clients, s3, libheif; \
             run them with ./test, or by hand with --features server-tests (docs/testing.md)"
        );
    }
}
