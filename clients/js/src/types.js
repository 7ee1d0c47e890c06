/**
 * Types of this library. The file has no code.
 *
 * `types/openapi.d.ts` is generated from the server's OpenAPI document, see README.md.
 */

/** @typedef {import("../types/openapi.js").components["schemas"]} Schemas */

/**
 * @typedef {Omit<Schemas["EntryOut"], "body" | "target"> & { body: Record<string, any> | null, target?: Entry | null }} Entry
 *   Entry of the log, as the server sends it.
 * @typedef {Schemas["CoupleOut"]} Couple
 * @typedef {Schemas["MediaOut"]} Media
 * @typedef {Schemas["AccountOut"]} Account
 * @typedef {Schemas["MeOut"]} Me
 */

/**
 * @typedef {{ id: string, account_id: string, token: string, expires_at: string }} Session
 * @typedef {"signed_in" | "signed_out" | "expired" | "rotated" | "deleted"} SessionReason
 * @typedef {"websocket" | "sse" | "poll"} TransportName
 */

/**
 * A frame of a live connection, in either direction; see `FrameOut` in the OpenAPI document.
 * @typedef {{ type: string, cursor?: string, entry?: Entry, reason?: string, retry_after_ms?: number, [field: string]: any }} Frame
 */

/**
 * @typedef {Omit<Entry, "seq"> & { seq: number | null, key: string, state: "waiting" | "sent" | "confirmed", changing: boolean }} TimelineEntry
 *   Entry in the local copy. `key` is the same before and after confirmation.
 */

/**
 * @typedef {{ after?: number, before?: number, limit?: number, kind?: string }} PageQuery
 * @typedef {{ entries: Entry[], next: number | null }} EntryPage `next`: `seq` for the next page in the same direction
 */

/**
 * @typedef {object} QueueItem A write that waits to be sent.
 * @property {string} id also the `Idempotency-Key`
 * @property {"append" | "edit" | "delete" | "react" | "read"} type
 * @property {string} key key of the entry that it adds or changes; empty for `read`
 * @property {string} order text by which items are sorted
 * @property {string | null} couple_id couple for which it was written
 * @property {string} [client_id] of `append`
 * @property {string} [kind] of `append`
 * @property {Record<string, any>} [body] of `append` and `edit`
 * @property {string | null} [emoji] of `react`
 * @property {number | null} seq `seq` of the entry, once it has one; the position of `read`
 * @property {string} created_at
 * @property {number} attempts
 * @property {{ code: string, status: number, retryAt: number } | null} error last temporary failure
 */

/**
 * @typedef {object} Upload
 * @property {string} id
 * @property {"photo" | "avatar"} purpose
 * @property {string} name
 * @property {number} size bytes
 * @property {number} sent bytes that the server has
 * @property {"waiting" | "sending" | "complete" | "failed" | "cancelled"} state
 * @property {{ client_id: string, body: Record<string, any> } | null} entry entry that is appended when the upload is complete
 * @property {string | null} media_id
 * @property {{ code: string, status: number } | null} error
 */

/**
 * @typedef {object} Status
 * @property {"idle" | "connecting" | "live" | "waiting" | "offline" | "signed_out" | "not_paired"} state
 * @property {TransportName | null} transport
 * @property {number | null} retryAt Unix time in milliseconds
 * @property {string | null} reason code of the last failure
 * @property {boolean} online
 * @property {boolean} leader
 */

/**
 * @typedef {object} Events Values of the events, by type.
 * @property {{ session: Session | null, reason: SessionReason }} session
 * @property {Status} status
 * @property {undefined} timeline
 * @property {Entry} entry
 * @property {Couple | null} couple
 * @property {string} presence
 * @property {{ my_read_seq: number, partner_read_seq: number }} read
 * @property {{ from: "partner" | "system" | "me", kind: string, body: Record<string, any> | null }} signal
 * @property {{ reason: string }} reset
 * @property {readonly QueueItem[]} queue
 * @property {{ item: QueueItem, error: CoupleError }} refused
 * @property {Upload} upload
 * @property {string} cursor
 * @property {{ direction: "in" | "out", transport: TransportName, frame: Frame, at: number }} frame
 * @property {CoupleError} error
 */

/** @typedef {import("./util.js").CoupleError} CoupleError */

/**
 * @typedef {[key: string, value: any][]} Changes values to store; `undefined` deletes
 * @typedef {object} Store
 * @property {(prefix: string) => Promise<[string, any][]>} entries values whose key has the prefix, in the order of keys
 * @property {(changes: Changes) => Promise<void>} write all or nothing, durable when the promise resolves
 * @property {() => Promise<void>} close
 */

/**
 * The part of Web Locks and of `BroadcastChannel` that this library uses.
 * @typedef {{ request(name: string, options: { signal?: AbortSignal }, callback: () => Promise<void>): Promise<unknown> }} Locks
 * @typedef {{ postMessage(message: unknown): void, close(): void, onmessage: ((event: any) => void) | null }} Channel
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} baseUrl address of the server with the prefix of its routes
 * @property {Store} [storage] default: `memoryStore()`
 * @property {TransportName[]} [transports] transports to try, best first
 * @property {typeof globalThis.fetch} [fetch]
 * @property {WebSocketClass} [WebSocket]
 * @property {Locks} [locks] Web Locks, for apps in several tabs
 * @property {(name: string) => Channel} [channel] opens a `BroadcastChannel`
 * @property {string} [name] name of the lock and channel
 * @property {boolean} [presence] `false`: the partner does not see this device as present
 * @property {number} [cacheSize] number of newest entries kept in storage
 * @property {{ first: number, most: number }} [backoff] milliseconds
 * @property {number} [requestTimeout] milliseconds
 * @property {number} [heartbeat] seconds, 5 to 120
 * @property {number} [uploadChunk] bytes per request of an upload
 * @property {() => number} [random] source of jitter
 */

/**
 * The part of `WebSocket` that this library uses.
 * @typedef {new (url: string, protocols: string[]) => { onmessage: ((event: any) => void) | null, onclose: ((event: any) => void) | null,
 *   onerror: ((event: any) => void) | null, readyState: number, send(text: string): void, close(): void }} WebSocketClass
 */

export {};
