/** Texts for codes of errors and states. */

const ERRORS = {
  network_error: "No connection to the server. Try again.",
  bad_answer: "Something else than the server answered. Check the network.",
  aborted: "Cancelled.",
  signed_out: "Sign in first.",
  storage_failed: "This browser could not store it.",
  unauthenticated: "This session has ended. Sign in again.",
  invalid_credentials: "Address, password or code is wrong.",
  unverified: "This address has not been confirmed yet.",
  invalid_token: "This code or link is wrong, used or expired.",
  recent_sign_in_required: "For this, sign out and in again first: the last sign-in is more than 10 minutes ago.",
  rate_limited: "Too many tries. Wait a little.",
  invite_not_found: "No open invite has this code.",
  invite_expired: "This invite has expired.",
  own_invite: "This is your own invite. Use it on the other phone.",
  already_paired: "One of you is in a couple already.",
  too_many_invites: "You have too many open invites. Withdraw one first.",
  not_paired: "You are in no couple.",
  entry_deleted: "This message was deleted.",
  not_author: "Only its author can change this message.",
  entry_fixed: "This message cannot be changed.",
  picture_too_large: "This picture is too large.",
  media_rejected: "The server could not use this picture.",
  media_gone: "This picture was removed.",
  unknown_type: "This is not a picture that the server knows (JPEG, PNG, WebP, GIF).",
  unsupported_media_type: "This is not a picture that the server knows (JPEG, PNG, WebP, GIF).",
  quota_exceeded: "There is no space left for pictures.",
  upload_couple_ended: "The couple has ended, so the photo was not sent.",
  corrupt: "The file is damaged.",
  truncated: "The file is incomplete.",
};

const FIELD_ERRORS = {
  required: "Fill this in.",
  too_short: "This is too short.",
  too_long: "This is too long.",
  invalid: "The server does not accept this.",
  too_common: "This password is too common. Choose another.",
  control_character: "This has a character that is not allowed.",
  in_the_future: "This date is in the future.",
};

/**
 * @param {any} error `CoupleError`
 * @returns {string}
 */
export function explain(error) {
  const [first] = error.errors ?? [];
  if (first)
    return FIELD_ERRORS[/** @type {keyof typeof FIELD_ERRORS} */ (first.code)] ?? `The server does not accept this (${first.code}).`;
  return ERRORS[/** @type {keyof typeof ERRORS} */ (error.code)] ?? (error.code ? `${error.message} (${error.code})` : error.message);
}

export const TRANSPORTS = { websocket: "WebSocket", sse: "SSE", poll: "long poll" };

/**
 * @param {any} status `Status` of a client
 * @returns {string}
 */
export function describeStatus({ state, transport, retryAt }) {
  switch (state) {
    case "live":
      return `Live over ${TRANSPORTS[/** @type {keyof typeof TRANSPORTS} */ (transport)]}`;
    case "waiting":
      return retryAt === null ? "Reconnecting" : `Reconnecting in ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))} s`;
    case "connecting":
      return "Connecting";
    case "offline":
      return "Offline";
    case "signed_out":
      return "Signed out";
    case "not_paired":
      return "Waiting for a partner";
    default:
      return "Not connected";
  }
}
