import { CoupleError } from "./errors.js";
import { queryOf } from "./util.js";

/** @import { Core } from "./core.js" */
/** @import { Media, Schemas, Upload } from "./types.js" */

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
