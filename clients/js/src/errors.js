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
