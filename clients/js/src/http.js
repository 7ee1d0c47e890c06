import { CoupleError, asCoupleError, backoffDelay, linkedAbort } from "./util.js";

/** Maximum time, in milliseconds, for which a call is repeated while the user waits for it. */
const PATIENCE = 10_000;
const MAX_REPEATS = 2;

/**
 * @typedef {object} RequestOptions
 * @property {any} [body] sent as JSON, or as it is if it is a `Blob`
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {string} [idempotencyKey] makes a `POST` safe to repeat
 * @property {number} [timeout] milliseconds
 */

/** Requests to the server: session, problems, time-outs. */
export class Http {
  #options;

  /**
   * @param {object} options
   * @param {string} options.baseUrl
   * @param {typeof globalThis.fetch} options.fetch
   * @param {number} options.timeout
   * @param {{ first: number, most: number }} options.backoff
   * @param {() => number} options.random
   * @param {() => string | undefined} options.token bearer token of the current session
   * @param {(token: string) => void} options.refused called when the server refuses the token
   * @param {() => AbortSignal} options.online aborted while the device counts as offline
   */
  constructor(options) {
    this.#options = options;
  }

  /**
   * @param {string} path path below the base URL, or an absolute URL
   */
  url(path) {
    return path.startsWith("/") ? this.#options.baseUrl + path : path;
  }

  /**
   * Sends a request and returns the response once its head has arrived.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options] `signal` must not outlive the request or connection
   * @returns {Promise<Response>} with a status of success
   * @throws {CoupleError}
   */
  async open(method, path, { body, headers = {}, signal, idempotencyKey } = {}) {
    const token = this.#options.token();
    const online = this.#options.online();
    if (online.aborted) throw new CoupleError("network_error", { message: "the device is offline" });
    if (signal?.aborted) throw new CoupleError("aborted");
    // Not released: the body may still be read, and both end with `signal`, which belongs to one request or connection.
    const linked = linkedAbort(signal);
    const offline = () => linked.controller.abort();
    online.addEventListener("abort", offline);
    const raw = typeof Blob === "function" && body instanceof Blob;
    let response;
    try {
      response = await this.#options.fetch(this.url(path), {
        method,
        headers: {
          ...(token && { authorization: `Bearer ${token}` }),
          ...(idempotencyKey && { "idempotency-key": idempotencyKey }),
          ...(body !== undefined && !raw && { "content-type": "application/json" }),
          ...headers,
        },
        body: body === undefined || raw ? body : JSON.stringify(body),
        signal: linked.signal,
        cache: "no-store",
      });
    } catch (error) {
      throw signal?.aborted ? new CoupleError("aborted", { cause: error }) : asCoupleError(error);
    } finally {
      online.removeEventListener("abort", offline);
    }
    if (response.ok) return response;
    const error = await problemOf(response);
    if (error.code === "unauthenticated" && token && !headers.authorization) this.#options.refused(token);
    throw error;
  }

  /**
   * Sends a request and returns its JSON response; `undefined` for an empty one.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   * @throws {CoupleError}
   */
  async json(method, path, options = {}) {
    const { signal, release } = linkedAbort(options.signal, options.timeout ?? this.#options.timeout);
    try {
      const response = await this.open(method, path, { ...options, signal });
      const text = await response.text();
      if (text === "") return undefined;
      if (!isJson(response)) throw new CoupleError("bad_answer", { status: response.status, message: "the answer is not JSON" });
      return JSON.parse(text);
    } catch (error) {
      if (options.signal?.aborted) throw new CoupleError("aborted", { cause: error });
      const failure = asCoupleError(error);
      throw failure.code === "aborted" ? new CoupleError("network_error", { message: "the request took too long" }) : failure;
    } finally {
      release();
    }
  }

  /**
   * As `json`, and repeats the request after a temporary failure, if that has no second effect.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   */
  async call(method, path, options = {}) {
    const repeatable = method !== "POST" || options.idempotencyKey !== undefined;
    const until = Date.now() + PATIENCE;
    for (let failures = 1, unsure = false; ; failures++) {
      try {
        return await this.json(method, path, options);
      } catch (error) {
        const failure = asCoupleError(error);
        failure.unsure = unsure ||= failure.code === "network_error" || failure.status >= 500;
        const delay = Math.max(failure.retryAfter ?? 0, backoffDelay(failures, this.#options.backoff, this.#options.random));
        const hopeless = this.#options.online().aborted || Date.now() + delay > until;
        if (!repeatable || !failure.temporary || failures > MAX_REPEATS || hopeless) throw failure;
        await new Promise((resolve) => setTimeout(resolve, delay));
      }
    }
  }
}

/**
 * Milliseconds of a `Retry-After` header, which is a number of seconds or, from some proxies, a date.
 * @param {string | null} value
 */
function retryAfterOf(value) {
  if (value === null) return null;
  const milliseconds = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(milliseconds) ? Math.max(0, milliseconds) : null;
}

/** @param {Response} response */
function isJson(response) {
  return /^application\/([\w.]+\+)?json\b/.test(response.headers.get("content-type") ?? "");
}

/**
 * Reads the problem of a response. A response without a problem comes from an intermediary, for example a captive portal.
 * @param {Response} response
 * @returns {Promise<CoupleError>}
 */
export async function problemOf(response) {
  const { status } = response;
  const retryAfter = retryAfterOf(response.headers.get("retry-after"));
  const text = await response.text().catch(() => "");
  if (text === "" && isJson(response)) {
    // The answer to a HEAD request.
    return new CoupleError(status === 401 ? "unauthenticated" : `status_${status}`, { status, retryAfter });
  }
  try {
    const problem = JSON.parse(text);
    if (typeof problem.code === "string") {
      const { code, title: message, detail, errors } = problem;
      return new CoupleError(code, { status, message, detail, errors, retryAfter });
    }
  } catch {
    // Not JSON.
  }
  return new CoupleError("bad_answer", { status, message: `the server answered ${status} without a problem`, retryAfter });
}
