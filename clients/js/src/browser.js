/** The only file that knows a browser: IndexedDB, Web Locks, `BroadcastChannel`, `online` and `offline` events. */

import { createClient as createCoreClient } from "./index.js";

export { Client, CoupleError, memoryStore } from "./index.js";

/** @import { Client } from "./index.js" */
/** @import { ClientOptions, Store } from "./types.js" */

/**
 * A client with the defaults of a browser.
 * @param {ClientOptions} options `baseUrl` can be relative to the page
 * @returns {Client}
 */
export function createClient(options) {
  const name = options.name ?? "couple";
  const client = createCoreClient({
    // Absent in pages that are not a secure context: each tab then works for itself.
    locks: /** @type {any} */ (navigator.locks),
    channel: (channelName) => new BroadcastChannel(channelName),
    ...options,
    storage: options.storage ?? indexedDbStore(name),
    baseUrl: new URL(options.baseUrl, location.href).href,
    name,
  });
  addEventListener("online", () => client.setOnline(true));
  addEventListener("offline", () => client.setOnline(false));
  if (navigator.onLine === false) client.setOnline(false);
  return client;
}

/**
 * A store in IndexedDB.
 * @param {string} name name of the database
 * @returns {Store}
 */
export function indexedDbStore(name) {
  /** @type {Promise<IDBDatabase> | null} */
  let opening = null;
  const open = () => {
    opening ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore("values");
      request.onsuccess = () => {
        // The browser can close a database, for example when the user deletes the data of the site.
        request.result.onclose = () => (opening = null);
        request.result.onversionchange = () => request.result.close();
        resolve(request.result);
      };
      request.onerror = () => reject(request.error);
    });
    return opening.catch((error) => {
      opening = null;
      throw error;
    });
  };
  return {
    async entries(prefix) {
      const database = await open();
      const values = database.transaction("values").objectStore("values");
      const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
      const [keys, found] = await Promise.all([done(values.getAllKeys(range)), done(values.getAll(range))]);
      return keys.map((key, at) => [String(key), found[at]]);
    },
    async write(changes) {
      const database = await open();
      const transaction = database.transaction("values", "readwrite", { durability: "strict" });
      const values = transaction.objectStore("values");
      for (const [key, value] of changes) {
        if (value === undefined) values.delete(key);
        else values.put(value, key);
      }
      await new Promise((resolve, reject) => {
        transaction.oncomplete = () => resolve(undefined);
        transaction.onabort = transaction.onerror = () => reject(transaction.error);
      });
    },
    async close() {
      if (opening) (await opening).close();
      opening = null;
    },
  };
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
