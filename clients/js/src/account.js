import { queryOf, randomId } from "./util.js";

/** @import { Core } from "./core.js" */
/** @import { Account, Couple, EntryPage, Me, PageQuery, Schemas, SessionReason } from "./types.js" */

/** @typedef {{ code: string } | { token: string } | { id: string }} InviteRef code, token or link, or id of an invite */

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
   */
  async signUp(account) {
    await this.#core.http.call("POST", "/v1/accounts", { body: account, idempotencyKey: randomId() });
  }

  /**
   * Mails another code for a pending sign-up.
   * @param {string} email
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
   * Signs out and deletes what is stored on this device, also when the server cannot be reached or the session has expired. Rejects with
   * `storage_failed` if something is left; the next call, sign-in or start deletes it.
   */
  async signOut() {
    await this.#core.endSession("signed_out", async () => this.#core.session && this.#core.http.json("DELETE", "/v1/sessions/current", { timeout: 5_000 }));
  }

  /** @returns {Promise<Schemas["SessionOut"][]>} signed-in devices, newest first */
  async sessions() {
    return (await this.#core.http.call("GET", "/v1/sessions")).sessions;
  }

  /** @param {string} id */
  async endSession(id) {
    await this.#core.http.call("DELETE", `/v1/sessions/${encodeURIComponent(id)}`);
  }

  async endOtherSessions() {
    await this.#core.http.call("DELETE", "/v1/sessions");
  }

  /**
   * Mails a link to set a new password.
   * @param {string} email
   */
  async forgotPassword(email) {
    await this.#core.http.call("POST", "/v1/password/forgot", { body: { email } });
  }

  /**
   * Sets a password. With a session, all others end, and it continues with a new token; with a link's `token`, all sessions end.
   * @param {{ new_password: string, current_password?: string, token?: string }} password
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

  /** @param {{ new_email: string, current_password?: string }} change */
  async changeEmail(change) {
    await this.#core.http.call("POST", "/v1/me/email", { body: change, idempotencyKey: randomId() });
  }

  /** @param {{ email?: string, code?: string, token?: string }} proof */
  async confirmEmail(proof) {
    await this.#core.http.call("POST", "/v1/me/email/verify", { body: proof });
  }

  /** @param {string} token */
  async cancelEmailChange(token) {
    await this.#core.http.call("POST", "/v1/me/email/cancel", { body: { token } });
  }

  /**
   * Shows an uploaded picture as avatar.
   * @param {string} mediaId
   */
  async setAvatar(mediaId) {
    await this.#core.http.call("PUT", "/v1/me/avatar", { body: { media_id: mediaId } });
  }

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
   * @returns {Promise<{ status: string, deletion_due: string | null }>} without a date if the response was lost
   */
  async remove() {
    const answer = await this.#core.endSession("deleted", () => this.#core.http.call("DELETE", "/v1/me"));
    return answer ?? { status: "deletion_scheduled", deletion_due: null };
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
    if (reason === "rotated" && this.#core.owner !== account.id) {
      // Signed out before the response arrived: the new session ends, too.
      await this.#core.http.json("DELETE", "/v1/sessions/current", { headers: { authorization: `Bearer ${session.token}` } });
    } else await this.#core.setSession({ ...session, account_id: account.id }, reason);
    return account;
  }
}

/** Invites and the couple. Arguments and results are those of the HTTP contract. */
export class PairingApi {
  #core;

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /**
   * Invites a partner by code, by link or, with `email`, by address.
   * @param {{ email?: string, message?: string }} [invite]
   * @returns {Promise<Schemas["SentOut"] | { couple: Couple }>} `couple` if the partner had invited the user already
   */
  async invite(invite = {}) {
    const answer = await this.#core.http.call("POST", "/v1/invites", { body: invite, idempotencyKey: randomId() });
    if (answer.couple) this.#paired(answer.couple);
    return answer;
  }

  /** @returns {Promise<Schemas["Invites"]>} pending invites `{ sent, received }` */
  invites() {
    return this.#core.http.call("GET", "/v1/invites");
  }

  /** @param {string} id */
  async withdraw(id) {
    await this.#core.http.call("DELETE", `/v1/invites/${encodeURIComponent(id)}`);
  }

  /**
   * @param {InviteRef} ref
   * @returns {Promise<Schemas["ReceivedOut"]>} the inviter's name, avatar and message
   */
  preview(ref) {
    return this.#core.http.call("POST", "/v1/invites/preview", { body: ref });
  }

  /**
   * @param {InviteRef} ref
   * @returns {Promise<Couple>}
   */
  async accept(ref) {
    const { couple } = await this.#core.http.call("POST", "/v1/invites/accept", { body: ref, idempotencyKey: randomId() });
    return this.#paired(couple);
  }

  /** @param {InviteRef} ref */
  async decline(ref) {
    await this.#core.http.call("POST", "/v1/invites/decline", { body: ref });
  }

  /**
   * Changes title and anniversary. Absent fields stay, null clears a field.
   * @param {{ title?: string | null, anniversary?: string | null }} patch
   * @returns {Promise<Couple>}
   */
  async describe(patch) {
    return this.#paired(await this.#core.http.call("PATCH", "/v1/couple", { headers: this.#core.namingCouple(), body: patch }));
  }

  /**
   * Ends the couple.
   * @param {{ block?: boolean }} [options] `block`: the partner cannot invite the user again
   */
  async leave({ block = false } = {}) {
    const couple = this.#core.replica.couple ?? (await this.#core.refreshCouple());
    if (!couple) return;
    const options = { headers: this.#core.namingCouple(couple.id), idempotencyKey: randomId() };
    await this.#core.http.call("DELETE", `/v1/couple?block=${block}`, options);
    this.#core.publish({ type: "couple", couple: null });
  }

  /**
   * Chooses whether to restore the earlier timeline with the same partner.
   * @param {boolean} wanted
   * @returns {Promise<Couple>}
   */
  async restore(wanted) {
    return this.#paired(await this.#core.http.call("PUT", "/v1/couple/previous", { headers: this.#core.namingCouple(), body: { wanted } }));
  }

  /**
   * A page of the earlier timeline, once both members have restored it.
   * @param {PageQuery} [query]
   * @returns {Promise<EntryPage>}
   */
  previous(query = {}) {
    return this.#core.http.call("GET", `/v1/couple/previous/entries${queryOf(query)}`);
  }

  /** @returns {Promise<Schemas["BlockOut"][]>} */
  async blocks() {
    return (await this.#core.http.call("GET", "/v1/blocks")).blocks;
  }

  /** @param {string} id */
  async unblock(id) {
    await this.#core.http.call("DELETE", `/v1/blocks/${encodeURIComponent(id)}`);
  }

  /**
   * @param {Couple} couple
   * @returns {Couple}
   */
  #paired(couple) {
    this.#core.publish({ type: "couple", couple });
    return couple;
  }
}
