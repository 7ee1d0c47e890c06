/** Values that outlive a reload of the page. */

/**
 * A value in a storage of the browser. The browser may refuse storage: then the value is lost with the page.
 * @param {"localStorage" | "sessionStorage"} storage
 * @param {string} key
 */
export function storedValue(storage, key) {
  return {
    /** @returns {any} `null` without a value */
    read() {
      try {
        return JSON.parse(window[storage].getItem(key) ?? "null");
      } catch {
        return null;
      }
    },
    /** @param {unknown} value `null` removes it */
    write(value) {
      try {
        if (value === null) window[storage].removeItem(key);
        else window[storage].setItem(key, JSON.stringify(value));
      } catch {}
    },
  };
}
