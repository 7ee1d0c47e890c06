import { CoupleError, Sleeper, asCoupleError, linkedAbort, queryOf, randomId, sortable } from "./util.js";

/** @import { Core } from "./core.js" */
/** @import { Changes, Media, Schemas, Upload } from "./types.js" */

/** Maximum number of full requests for one upload: a request of a large file has 1/64 of its bytes. */
const MAX_CHUNKS = 64;
const TUS = { "tus-resumable": "1.0.0" };

/**
 * Stored metadata of an upload.
 * @typedef {{ upload: Upload, order: string, url: string | null, couple_id: string | null, metadata: string, fingerprint: string | null }} UploadRecord
 */

/** Resumable uploads (tus 1.0), one after another. The leader sends them; every tab knows their progress. */
export class Uploads {
  /** @type {readonly Upload[]} unfinished uploads, in order */
  list = [];
  #core;
  #sleeper = new Sleeper();
  #stopped = false;
  /** @type {Map<string, Upload>} ended uploads of this instance */
  #ended = new Map();
  /** @type {{ id: string, controller: AbortController } | null} upload that is being sent */
  #current = null;

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /** @param {[string, any][]} stored */
  load(stored) {
    const records = stored.filter(([key]) => key.startsWith("u:")).map(([, record]) => /** @type {UploadRecord} */ (record));
    this.list = records.map(({ upload }) => ({ ...upload, state: "waiting" }));
  }

  wake() {
    this.#sleeper.wake();
  }

  stop() {
    this.#stopped = true;
    this.#current?.controller.abort();
    this.wake();
  }

  /** Forgets all uploads: the user has signed out. */
  clear() {
    for (const upload of this.list) this.apply({ ...upload, state: "cancelled" });
  }

  /**
   * @param {Blob} blob
   * @param {{ purpose: "photo" | "avatar", crop?: string, placeholder?: string, entry?: { body?: Record<string, any>, client_id?: string } }} options
   * @returns {Promise<Upload>} when the bytes are stored on this device
   */
  async add(blob, { purpose, crop, placeholder, entry }) {
    const { writer } = this.#core;
    const file = /** @type {Partial<File>} */ (blob);
    const fingerprint = file.name === undefined ? null : JSON.stringify([purpose, file.name, blob.size, blob.type, file.lastModified, crop]);
    const records = (await writer.read("u:")).map(([, record]) => /** @type {UploadRecord} */ (record));
    const same = fingerprint && records.find((record) => record.fingerprint === fingerprint);
    const known = same && this.list.find(({ id }) => id === same.upload.id);
    if (known) return known;
    const id = randomId();
    /** @type {Upload} */
    const upload = {
      id,
      purpose,
      name: file.name ?? "",
      size: blob.size,
      sent: 0,
      state: "waiting",
      entry: entry ? { client_id: entry.client_id ?? randomId(), body: entry.body ?? {} } : null,
      media_id: null,
      error: null,
    };
    const metadata = Object.entries({ purpose, crop, placeholder })
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${name} ${btoa(/** @type {string} */ (value))}`)
      .join(",");
    const couple_id = purpose === "photo" ? (this.#core.replica.couple?.id ?? null) : null;
    const order = `${sortable(this.#core.nextOrder())}-${id}`;
    /** @type {UploadRecord} */
    const record = { upload, order, url: null, couple_id, metadata, fingerprint };
    await writer.write([
      [`u:${order}`, record],
      [`b:${id}`, blob],
    ]);
    this.#core.publishUpload(upload);
    return upload;
  }

  /**
   * Applies a change that this or another tab has made.
   * @param {Upload} upload
   */
  apply(upload) {
    const ended = upload.state === "complete" || upload.state === "failed" || upload.state === "cancelled";
    if (ended) {
      this.list = this.list.filter(({ id }) => id !== upload.id);
      this.#ended.set(upload.id, upload);
      if (upload.state === "cancelled" && this.#current?.id === upload.id) this.#current.controller.abort();
    } else if (this.list.some(({ id }) => id === upload.id)) {
      this.list = this.list.map((known) => (known.id === upload.id ? upload : known));
    } else {
      this.list = [...this.list, upload];
      this.wake();
    }
    this.#core.events.emit("upload", upload);
  }

  /**
   * @param {string} id
   * @returns {Promise<string>} id of the picture
   */
  finished(id) {
    return new Promise((resolve, reject) => {
      const check = (/** @type {Upload | undefined} */ upload) => {
        if (upload?.id !== id) return;
        if (upload.state === "complete") resolve(/** @type {string} */ (upload.media_id));
        else if (upload.state === "failed") reject(new CoupleError(upload.error?.code ?? "network_error", { status: upload.error?.status }));
        else if (upload.state === "cancelled") reject(new CoupleError("aborted", { message: "the upload was cancelled" }));
        else return;
        off();
      };
      const off = this.#core.events.on("upload", check);
      if (!this.#ended.has(id) && !this.list.some((upload) => upload.id === id)) {
        off();
        reject(new CoupleError("upload_not_found", { message: `no upload ${id}` }));
      }
      check(this.#ended.get(id));
    });
  }

  /** @param {string} id */
  async cancel(id) {
    const upload = this.list.find((known) => known.id === id);
    if (!upload) return;
    const record = await this.#record(id);
    this.#core.publishUpload({ ...upload, state: "cancelled" });
    if (!record) return;
    await this.#core.writer.write([
      [`u:${record.order}`, undefined],
      [`b:${id}`, undefined],
    ]);
    // Without it, the server deletes the bytes after a day.
    if (record.url) await this.#core.http.json("DELETE", record.url, { headers: TUS }).catch(() => {});
  }

  /** Sends the uploads. */
  async run() {
    for (let failures = 0; !this.#stopped; ) {
      const next = this.#core.canSend() ? this.list[0] : undefined;
      if (!next) {
        failures = 0;
        await this.#sleeper.sleep();
        continue;
      }
      const controller = new AbortController();
      const { signal } = controller;
      this.#current = { id: next.id, controller };
      try {
        await this.#send(next.id, signal, () => (failures = 0));
        failures = 0;
      } catch (cause) {
        const error = asCoupleError(cause);
        await this.#core.expiring;
        if (this.#stopped || signal.aborted || !this.#core.canSend()) continue;
        const { code, status } = error;
        if (error.temporary || code === "upload_conflict" || code === "unauthenticated") {
          failures += 1;
          this.#core.publishUpload({ ...this.#named(next.id), state: "waiting", error: { code, status } });
          const until = Date.now() + (error.retryAfter ?? 0);
          await this.#sleeper.sleep(Math.max(error.retryAfter ?? 0, this.#core.delay(failures)));
          while (!this.#stopped && Date.now() < until) await this.#sleeper.sleep(until - Date.now());
        } else {
          await this.#end(next.id, { state: "failed", error: { code, status } });
        }
      } finally {
        this.#current = null;
      }
    }
  }

  /**
   * @param {string} id
   * @returns {Upload}
   */
  #named(id) {
    const upload = this.list.find((upload) => upload.id === id);
    if (!upload) throw new CoupleError("aborted");
    return upload;
  }

  /**
   * @param {string} id
   * @returns {Promise<UploadRecord | undefined>}
   */
  async #record(id) {
    const records = await this.#core.writer.read("u:");
    return records.map(([, record]) => record).find(({ upload }) => upload.id === id);
  }

  /**
   * Sends one upload from the offset that the server has.
   * @param {string} id
   * @param {AbortSignal} signal
   * @param {() => void} progressed called when the server has stored bytes
   */
  async #send(id, signal, progressed) {
    const { http, options, writer } = this.#core;
    const record = await this.#record(id);
    const blob = /** @type {Blob | undefined} */ ((await writer.read(`b:${id}`))[0]?.[1]);
    if (!record || !blob) throw new CoupleError("storage_failed", { message: `the bytes of upload ${id} are not stored` });
    let { offset, media } = await this.#offset(record, signal);
    if (!record.url) {
      // A photo is for the couple in which the user chose it.
      const headers = { ...TUS, ...this.#core.namingCouple(record.couple_id), "upload-length": String(blob.size), "upload-metadata": record.metadata };
      const response = await this.#request("POST", "/v1/uploads", headers, undefined, signal);
      record.url = absolute(response.headers.get("location") ?? "", http.url("/v1/uploads"));
      await writer.write([[`u:${record.order}`, record]]);
    }
    const chunk = Math.max(options.uploadChunk, Math.ceil(blob.size / MAX_CHUNKS));
    while (!media) {
      this.#core.publishUpload({ ...this.#named(id), state: "sending", sent: offset, error: null });
      const headers = { ...TUS, "content-type": "application/offset+octet-stream", "upload-offset": String(offset) };
      const response = await this.#request("PATCH", record.url, headers, blob.slice(offset, offset + chunk), signal);
      ({ offset, media } = stored(response));
      progressed();
    }
    await this.#end(id, { state: "complete", sent: blob.size, media_id: media, error: null });
  }

  /**
   * Offset of an upload that was begun before; 0 and no URL if the server does not have it any more.
   * @param {UploadRecord} record
   * @param {AbortSignal} signal
   */
  async #offset(record, signal) {
    if (!record.url) return { offset: 0, media: null };
    try {
      return stored(await this.#request("HEAD", record.url, TUS, undefined, signal));
    } catch (error) {
      if (![404, 410].includes(asCoupleError(error).status)) throw error;
      record.url = null;
      return { offset: 0, media: null };
    }
  }

  /**
   * @param {string} method
   * @param {string} url
   * @param {Record<string, string>} headers
   * @param {Blob | undefined} body
   * @param {AbortSignal} signal
   */
  async #request(method, url, headers, body, signal) {
    if (!this.#core.canSend()) throw new CoupleError("network_error", { message: "the session is ending" });
    const linked = linkedAbort(signal, this.#core.options.requestTimeout);
    try {
      return await this.#core.http.open(method, url, { headers, body, signal: linked.signal });
    } catch (error) {
      throw signal.aborted || asCoupleError(error).code !== "aborted" ? error : new CoupleError("network_error", { message: "the request took too long" });
    } finally {
      linked.release();
    }
  }

  /**
   * @param {string} id
   * @param {Partial<Upload>} outcome
   */
  async #end(id, outcome) {
    const upload = { ...this.#named(id), ...outcome };
    const record = await this.#record(id);
    /** @type {Changes} */
    const removed = [[`b:${id}`, undefined]];
    if (record) removed.push([`u:${record.order}`, undefined]);
    if (upload.state === "complete" && upload.entry) {
      const { client_id, body } = upload.entry;
      // In one write with the removal: the entry is appended once, whatever happens.
      const write = /** @type {const} */ ({ type: "append", key: `me:${client_id}`, client_id, kind: "photo" });
      const couple_id = record?.couple_id ?? null;
      await this.#core.enqueue({ ...write, couple_id, body: { ...body, media_id: upload.media_id } }, removed);
    } else {
      await this.#core.writer.write(removed);
    }
    this.#core.publishUpload(upload);
  }
}

/** Pictures and uploads. */
export class MediaApi {
  #core;

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /** @returns {readonly Upload[]} unfinished uploads, in order */
  get uploads() {
    return this.#core.uploads.list;
  }

  /**
   * Starts a resumable upload, or continues the unfinished one of the same file.
   * @param {Blob | Uint8Array<ArrayBuffer>} file
   * @param {object} options
   * @param {"photo" | "avatar"} options.purpose
   * @param {string} [options.crop] visible area of an avatar: `x,y,width,height` in pixels
   * @param {string} [options.placeholder] ThumbHash in base64
   * @param {{ body?: Record<string, any>, client_id?: string }} [options.entry] entry of kind `photo` to append when it is complete
   * @returns {Promise<Upload>} once the bytes are stored on this device
   */
  async upload(file, options) {
    await this.#core.ready;
    if (!this.#core.session) throw new CoupleError("signed_out", { message: "sign in first" });
    return this.#core.uploads.add(file instanceof Uint8Array ? new Blob([file]) : file, options);
  }

  /**
   * @param {string} id id of an upload
   * @returns {Promise<Media>} its picture, which the server may still be decoding
   */
  async finished(id) {
    return this.get(await this.#core.uploads.finished(id));
  }

  /**
   * Cancels an upload and deletes its bytes.
   * @param {string} id
   * @returns {Promise<void>}
   */
  cancel(id) {
    return this.#core.uploads.cancel(id);
  }

  /**
   * @param {string} mediaId
   * @returns {Promise<Media>}
   */
  get(mediaId) {
    return this.#core.http.call("GET", `/v1/media/${encodeURIComponent(mediaId)}`);
  }

  /**
   * Waits until the server has decoded a picture.
   * @param {string} mediaId
   * @param {{ timeout?: number }} [options] milliseconds
   * @returns {Promise<Media>} in state `ready` or `rejected`
   */
  async ready(mediaId, { timeout = 60_000 } = {}) {
    const until = Date.now() + timeout;
    for (let wait = 200; ; wait = Math.min(wait * 1.5, 5_000)) {
      const media = await this.get(mediaId);
      if (media.state !== "processing") return media;
      if (Date.now() + wait > until) throw new CoupleError("network_error", { message: `picture ${mediaId} is still being processed` });
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  /**
   * @param {{ purpose?: "photo" | "avatar", after?: string, limit?: number }} [query]
   * @returns {Promise<Schemas["MediaPage"]>}
   */
  list(query = {}) {
    return this.#core.http.call("GET", `/v1/media${queryOf(query)}`);
  }

  /**
   * @param {string} mediaId
   * @returns {Promise<void>}
   */
  async delete(mediaId) {
    await this.#core.http.call("DELETE", `/v1/media/${encodeURIComponent(mediaId)}`);
  }

  /** @returns {Promise<any>} limits of the server */
  capabilities() {
    return this.#core.http.call("GET", "/v1/capabilities");
  }
}

/**
 * Resolves a `Location` header. `URL` of React Native does not resolve relative ones.
 * @param {string} location
 * @param {string} base absolute URL of the request
 */
function absolute(location, base) {
  if (/^https?:/.test(location)) return location;
  const directory = location.startsWith("/") ? /^https?:\/\/[^/]*/ : /^.*\//;
  return (directory.exec(base)?.[0] ?? "") + location;
}

/**
 * @param {Response} response
 * @returns {{ offset: number, media: string | null }}
 */
function stored({ headers }) {
  const offset = Number(headers.get("upload-offset") ?? NaN);
  if (!Number.isInteger(offset)) throw new CoupleError("bad_answer", { message: "the answer has no Upload-Offset" });
  return { offset, media: /\/v1\/media\/([^/?]+)$/.exec(headers.get("content-location") ?? "")?.[1] ?? null };
}
