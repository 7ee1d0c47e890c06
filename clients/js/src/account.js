import { randomId } from "./util.js";

/** @import { Core } from "./core.js" */
/** @import { Account, Me, Schemas, SessionReason } from "./types.js" */

/** Accounts and sessions. Arguments and results are those of the HTTP contract. */
export class AccountApi {
  #core;

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /**
   * Signs up: a code and a link are mailed.
   * @param {{ email: string, display_name: string, locale?: string }} account
   * @returns {Promise<void>}
   */
  async signUp(account) {
    await this.#core.http.call("POST", "/v1/accounts", { body: account, idempotencyKey: randomId() });
  }

  /**
   * Mails another code for a pending sign-up.
   * @param {string} email
   * @returns {Promise<void>}
   */
  async resend(email) {
    await this.#core.http.call("POST", "/v1/accounts/verify/resend", { body: { email } });
  }

  /**
   * Confirms a sign-up by code or link, and starts the session.
   * @param {{ email?: string, code?: string, token?: string, password?: string, display_name?: string, locale?: string }} proof
   * @returns {Promise<Account>}
   */
  verify(proof) {
    return this.#begin("POST", "/v1/accounts/verify", proof, "signed_in");
  }

  /**
   * Mails a code and a link to sign in.
   * @param {string} email
   * @returns {Promise<void>}
   */
  async requestCode(email) {
    await this.#core.http.call("POST", "/v1/sessions/code", { body: { email } });
  }

  /**
   * Signs in by password, mailed code or mailed link.
   * @param {{ email?: string, password?: string, code?: string, token?: string }} credentials
   * @returns {Promise<Account>}
   */
  signIn(credentials) {
    return this.#begin("POST", "/v1/sessions", credentials, "signed_in");
  }

  /**
   * Signs out and deletes what is stored on this device, also when the server cannot be reached.
   * @returns {Promise<void>}
   */
  async signOut() {
    await this.#core.ready;
    if (!this.#core.session) return;
    await this.#core.endSession("signed_out", () => this.#core.http.json("DELETE", "/v1/sessions/current", { timeout: 5_000 }).catch(() => {}));
  }

  /** @returns {Promise<Schemas["SessionOut"][]>} signed-in devices, newest first */
  async sessions() {
    return (await this.#core.http.call("GET", "/v1/sessions")).sessions;
  }

  /**
   * @param {string} id
   * @returns {Promise<void>}
   */
  async endSession(id) {
    await this.#core.http.call("DELETE", `/v1/sessions/${encodeURIComponent(id)}`);
  }

  /** @returns {Promise<void>} */
  async endOtherSessions() {
    await this.#core.http.call("DELETE", "/v1/sessions");
  }

  /**
   * Mails a link to set a new password.
   * @param {string} email
   * @returns {Promise<void>}
   */
  async forgotPassword(email) {
    await this.#core.http.call("POST", "/v1/password/forgot", { body: { email } });
  }

  /**
   * Sets a password. With a session, all others end, and it continues with a new token; with a link's `token`, all sessions end.
   * @param {{ new_password: string, current_password?: string, token?: string }} password
   * @returns {Promise<void>}
   */
  async setPassword(password) {
    if (password.token) await this.#core.http.call("PUT", "/v1/password", { body: password });
    else await this.#begin("PUT", "/v1/password", password, "rotated");
  }

  /** @returns {Promise<Me>} */
  me() {
    return this.#core.http.call("GET", "/v1/me");
  }

  /**
   * Changes the profile. Absent fields stay, null clears a field.
   * @param {{ display_name?: string, locale?: string | null, time_zone?: string | null, birthday?: string | null }} patch
   * @returns {Promise<Me>}
   */
  update(patch) {
    return this.#core.http.call("PATCH", "/v1/me", { body: patch });
  }

  /**
   * @param {{ new_email: string, current_password?: string }} change
   * @returns {Promise<void>}
   */
  async changeEmail(change) {
    await this.#core.http.call("POST", "/v1/me/email", { body: change, idempotencyKey: randomId() });
  }

  /**
   * @param {{ email?: string, code?: string, token?: string }} proof
   * @returns {Promise<void>}
   */
  async confirmEmail(proof) {
    await this.#core.http.call("POST", "/v1/me/email/verify", { body: proof });
  }

  /**
   * @param {string} token
   * @returns {Promise<void>}
   */
  async cancelEmailChange(token) {
    await this.#core.http.call("POST", "/v1/me/email/cancel", { body: { token } });
  }

  /**
   * Shows an uploaded picture as avatar.
   * @param {string} mediaId
   * @returns {Promise<void>}
   */
  async setAvatar(mediaId) {
    await this.#core.http.call("PUT", "/v1/me/avatar", { body: { media_id: mediaId } });
  }

  /** @returns {Promise<void>} */
  async clearAvatar() {
    await this.#core.http.call("DELETE", "/v1/me/avatar");
  }

  /**
   * All data of the account. Needs a recent sign-in.
   * @returns {Promise<any>}
   */
  export() {
    return this.#core.http.call("GET", "/v1/me/export", { timeout: 600_000 });
  }

  /**
   * Requests the deletion of the account and ends the session. Needs a recent sign-in.
   * @returns {Promise<{ status: string, deletion_due: string }>}
   */
  remove() {
    return this.#core.endSession("deleted", () => this.#core.http.call("DELETE", "/v1/me"));
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {any} body
   * @param {SessionReason} reason
   * @returns {Promise<Account>}
   */
  async #begin(method, path, body, reason) {
    await this.#core.ready;
    const { account, session } = await this.#core.http.call(method, path, { body, idempotencyKey: randomId() });
    await this.#core.setSession({ ...session, account_id: account.id }, reason);
    return account;
  }
}
