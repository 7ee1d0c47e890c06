/** Small helpers. */

/**
 * Failure of a call, with the stable `code` of the server's problem (RFC 9457) or of this library: `network_error`, `bad_answer`,
 * `aborted`, `signed_out`, `storage_failed`, `unsupported`.
 */
export class CoupleError extends Error {
  /**
   * @param {string} code
   * @param {{ status?: number, message?: string, detail?: string, errors?: { field: string, code: string }[], retryAfter?: number | null,
   *   cause?: unknown }} [more]
   */
  constructor(code, { status = 0, message = code, detail, errors = [], retryAfter = null, cause } = {}) {
    super(detail ? `${message}: ${detail}` : message, { cause });
    this.name = "CoupleError";
    this.code = code;
    /** HTTP status, or 0. */
    this.status = status;
    this.detail = detail;
    /** Invalid fields of the request. */
    this.errors = errors;
    /** Milliseconds after which a retry makes sense, or null. */
    this.retryAfter = retryAfter;
  }

  /** Whether the same call can succeed later. */
  get temporary() {
    return this.code === "network_error" || this.code === "bad_answer" || [408, 423, 425, 429].includes(this.status) || this.status >= 500;
  }

  /** Whether the server may have done what was asked, although this or an earlier attempt of the call failed. */
  unsure = false;

  /** The fields that other tabs and the stored queue need. */
  toJSON() {
    return { code: this.code, status: this.status, message: this.message, errors: this.errors };
  }
}

/**
 * @param {unknown} error
 * @returns {CoupleError}
 */
export function asCoupleError(error) {
  if (error instanceof CoupleError) return error;
  return new CoupleError("network_error", { message: error instanceof Error ? error.message : String(error), cause: error });
}

/**
 * Typed listeners. `EventTarget` is not used, because React Native lacks it.
 * @template {Record<string, any>} Events
 */
export class Emitter {
  /** @type {Map<keyof Events, Set<(value: any) => void>>} */
  #listeners = new Map();

  /**
   * @template {keyof Events} Type
   * @param {Type} type
   * @param {(value: Events[Type]) => void} listener
   * @returns {() => void} removes the listener
   */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /**
   * Calls each listener. One that throws does not disturb the others: its error is reported as an uncaught one, or on the console where the
   * platform has no `reportError`.
   * @template {keyof Events} Type
   * @param {Type} type
   * @param {Events[Type]} value
   */
  emit(type, value) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        if (globalThis.reportError) globalThis.reportError(error);
        else console.error(error);
      }
    }
  }
}

/** @returns {string} 32 random hexadecimal digits */
export function randomId() {
  const bytes = new Uint8Array(16);
  // React Native has no `crypto` without a polyfill; ids need to be distinct, not secret.
  if (globalThis.crypto?.getRandomValues) globalThis.crypto.getRandomValues(bytes);
  else bytes.forEach((_, at) => (bytes[at] = Math.random() * 256));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * A number as text that sorts as the number does.
 * @param {number} number
 */
export const sortable = (number) => String(number).padStart(16, "0");

/**
 * Query of a URL, without the absent values. `URLSearchParams` of React Native has only a part of its methods.
 * @param {Record<string, string | number | boolean | null | undefined>} values
 */
export function queryOf(values) {
  const present = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  const pairs = present.map(([name, value]) => `${name}=${encodeURIComponent(/** @type {string} */ (value))}`);
  return pairs.length > 0 ? `?${pairs.join("&")}` : "";
}

/**
 * Exponential back-off with full jitter.
 * @param {number} failures failures in a row, from 1
 * @param {{ first: number, most: number }} backoff
 * @param {() => number} random
 * @returns {number} milliseconds
 */
export function backoffDelay(failures, { first, most }, random) {
  return random() * Math.min(most, first * 2 ** Math.min(failures - 1, 20));
}

/**
 * A controller that is also aborted by `signal` and, if given, after `timeout` milliseconds. Call `release` when the work has ended.
 * `AbortSignal.any` and `AbortSignal.timeout` do the same, but are missing in React Native and older browsers.
 * @param {AbortSignal | undefined} signal
 * @param {number} [timeout]
 */
export function linkedAbort(signal, timeout) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  const timer = timeout === undefined ? undefined : setTimeout(abort, timeout);
  const release = () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  };
  return { controller, signal: controller.signal, release };
}

/** A wait that `wake` ends early, as often as needed. */
export class Sleeper {
  /** @type {Set<() => void>} */
  #waiting = new Set();

  /**
   * @param {number} [milliseconds] without it: until `wake`
   * @returns {Promise<void>}
   */
  sleep(milliseconds) {
    return new Promise((resolve) => {
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let timer;
      const done = () => {
        clearTimeout(timer);
        this.#waiting.delete(done);
        resolve();
      };
      if (milliseconds !== undefined) timer = setTimeout(done, milliseconds);
      this.#waiting.add(done);
    });
  }

  wake() {
    for (const done of [...this.#waiting]) done();
  }
}
