//! The server loop: like `axum::serve`, with limits on connections and on slow clients.
//!
//! # Boundary
//!
//! [`serve`] takes a TCP listener, a router, [`ServeOptions`] and a future that completes when the server must stop. It returns when it has
//! stopped. It knows no route and no service of the back end. The rest of `http` meets it in four places:
//!
//! * Handlers find the client's address in `ConnectInfo`, as under `axum::serve`.
//! * A handler marks a response that waits for events with the extension [`StreamingResponse`]. Another server ignores the mark.
//! * A request body that arrives too slowly fails with `BodyTimedOut`; [`body_problem`] turns an error of a body into its problem.
//! * Responses that no router writes (an invalid head, too many connections) are [`Problem`](super::Problem)s, and clients are counted by
//!   [`client_network`](super::client_network).
//!
//! # Life of a connection
//!
//! 1. `accept.rs` accepts it and registers it in the table (`connection_table.rs`). At a limit the table closes a connection that waits
//!    for its client, or the new one is refused (`refusal.rs`).
//! 2. `conversation.rs` gives it to hyper, wrapped in a `Connection` (`connection.rs`), which ends when its client accepts no bytes for too
//!    long. hyper reads a head and calls the service. `activity.rs` records at each step whether the connection waits for its client.
//! 3. The service calls the router with a body that must arrive at a minimum rate (`request_body.rs`). When the handler has returned, a
//!    small rest of the body is discarded. If more remains, the response closes the connection.
//! 4. hyper writes the response, and waits for the next request: step 2.
//! 5. For a streaming response hyper writes the head only. Then the connection is taken from hyper (`body_slot.rs`), the body is written
//!    without it (`streaming_response.rs`), and a new hyper connection continues: step 2.
//! 6. At the end bytes that the client still sends are discarded for a while (`Connection::close`), so that the system does not reset the
//!    connection before the client has read the response. An upgraded connection belongs to its handler, and leaves the table when dropped.
//! 7. When the server stops, idle connections are closed, and the others end after their response.
//!
//! # Assumptions
//!
//! The steps rely on behaviour of hyper, hyper-util, axum and tokio that their documentation does not promise. Each item names the tests
//! that fail when it changes: of `hyper_tests.rs` unless another file is named; `connections.rs` and `streaming.rs` are in
//! `tests/contract`.
//!
//! 1. *One request at a time.* hyper calls the service for a pipelined request only after the response before has ended. So a connection
//!    has one phase and one `BodySlot`. Test: `pipelined_requests_are_handled_one_after_another`.
//! 2. *The head timeout* begins when hyper waits for a head: after the accept and after each response. Bytes that arrive do not extend
//!    it. The connection then ends without a response. So it is also the maximum idle time. Test: `head_timeout_also_bounds_idle_time`.
//! 3. *Invalid heads.* `max_buf_size` bounds the head. hyper's own response to an invalid head is one write, before any other of that
//!    request, with `content-length: 0`, and ends the connection. So `Connection` can write a problem in its place. Tests:
//!    `response_to_an_invalid_head_is_one_write`, `invalid_head_is_answered_with_a_problem` (`connections.rs`).
//! 4. *A body is read on request.* hyper reads from the transport only what its reader polls for, on its next turn, after at most
//!    `max_buf_size` bytes with the head. `is_end_stream` is true for a request without a body, and the lower bound of `size_hint` is the
//!    rest of `content-length`. So a slow handler slows its client, and `RequestBody` starts no timer before the second poll. Tests:
//!    `body_is_read_on_request`, `requested_body_arrives_on_the_next_turn`.
//! 5. *`100 Continue`* is sent when the body is polled first, not before. So an unread body of a client that waits for it is not polled.
//!    Test: `continue_is_sent_when_the_body_is_polled`.
//! 6. *A client that disconnects* ends its request: hyper reads from the transport while a handler runs, and drops the handler's future
//!    at the end of the stream. Test: `disconnect_drops_the_handler`.
//! 7. *The head comes first.* hyper buffers the head in the poll in which the service returns, without a flush in between, and writes it
//!    while the body is pending. A response of unknown length gets `transfer-encoding: chunked` and no `connection` header. So the first
//!    flush after `BodySlot::hold` means that the head is written, and chunks may follow. Tests:
//!    `head_is_written_before_the_next_flush`, `head_for_a_slow_client_is_not_lost` (`streaming.rs`).
//! 8. *A flush follows the last write.* hyper flushes the transport only when it has no more bytes to write. So `Connection` knows when
//!    everything is written. Test: `transport_is_flushed_only_after_all_writes`.
//! 9. *After a response* hyper drops the body, and reads from the transport until it finds nothing. So `ResponseBody` records that the
//!    response was passed on, and `Connection` that it is idle. Tests: `transport_is_read_after_a_response`,
//!    `response_that_is_being_written_is_not_idle` (`tests.rs`).
//! 10. *`into_parts`* in the middle of a response returns the transport and all bytes that were read but not used; `TokioIo` buffers
//!     nothing. Tests: `connection_can_be_taken_apart_during_a_response`, `requests_pipelined_after_a_poll_are_answered_after_it`
//!     (`streaming.rs`).
//! 11. *A response with `Connection: close`* completes the connection even if the request's body has not arrived. Tests:
//!     `response_that_closes_does_not_wait_for_the_body`, `refusal_reaches_a_client_that_sends_its_whole_body_first` (`connections.rs`).
//! 12. *An upgrade* moves the transport to the handler: `into_parts` returns none, and the transport is dropped with the upgraded
//!     connection. Test: `upgrade_moves_the_transport`.
//! 13. *`graceful_shutdown`* ends an idle connection immediately, and a connection with a request after its response. Tests:
//!     `graceful_shutdown_ends_an_idle_connection`, `requests_in_progress_end_before_shutdown` (`tests.rs`).
//! 14. *An error of the transport* ends the connection. Tests: `error_of_the_transport_ends_the_connection`,
//!     `client_that_reads_nothing_is_disconnected` (`tests.rs`).
//! 15. *Errors of a body* keep their source through axum's extractors and `to_bytes`. Tests: `stalled_body_times_out_on_every_route`
//!     (`connections.rs`), `errors_of_the_body_keep_their_code` (`paced_body.rs`).
//! 16. *tokio* drops the future of an aborted task, which closes its socket. Test:
//!     `idle_connections_of_many_clients_are_closed_for_new_requests` (`connections.rs`).

mod accept;
mod activity;
mod body_slot;
mod connection;
mod connection_table;
mod conversation;
mod descriptors;
#[cfg(test)]
mod hyper_tests;
mod options;
mod refusal;
mod request_body;
mod streaming_response;
#[cfg(test)]
mod tests;

pub use accept::{listen, serve};
pub(super) use body_slot::StreamingResponse;
pub use descriptors::raise_descriptor_limit;
pub use options::ServeOptions;
#[cfg(test)]
pub(super) use request_body::BodyTimedOut;
pub(super) use request_body::body_problem;
