import { queryOf, randomId } from "./util.js";

/** @import { Core } from "./core.js" */
/** @import { Couple, EntryPage, Schemas } from "./types.js" */

/** @typedef {{ code: string } | { token: string } | { id: string }} InviteRef code, token or link, or id of an invite */

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

  /**
   * @param {string} id
   * @returns {Promise<void>}
   */
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

  /**
   * @param {InviteRef} ref
   * @returns {Promise<void>}
   */
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
   * @returns {Promise<void>}
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
   * @param {import("./types.js").PageQuery} [query]
   * @returns {Promise<EntryPage>}
   */
  previous(query = {}) {
    return this.#core.http.call("GET", `/v1/couple/previous/entries${queryOf(query)}`);
  }

  /** @returns {Promise<Schemas["BlockOut"][]>} */
  async blocks() {
    return (await this.#core.http.call("GET", "/v1/blocks")).blocks;
  }

  /**
   * @param {string} id
   * @returns {Promise<void>}
   */
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
