/** Small helpers without state. */

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
