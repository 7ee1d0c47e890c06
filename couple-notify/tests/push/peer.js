// Push services in Node.js: HTTP/2 by node:http2, tokens by jose, decryption by http_ece.
//
// node peer.js reads one line of JSON from standard input: certificate and private key of the server (PEM), public keys of APNs and of the
// service account (PEM), private key (base64url) and authentication secret of a browser. It prints its port, and one line of JSON
// for each request: the claims of its token, and the message that a device or browser sees.
"use strict";
const assert = require("node:assert");
const crypto = require("node:crypto");
const http2 = require("node:http2");
const readline = require("node:readline");
const ece = require("http_ece");
const jose = require("jose");

async function verified(token, key, algorithm, options) {
  const { payload } = await jose.jwtVerify(token, key, { algorithms: [algorithm], ...options });
  return payload;
}

async function apns(config, headers, body) {
  const [scheme, token] = headers.authorization.split(" ");
  assert.strictEqual(scheme, "bearer");
  assert.strictEqual(jose.decodeProtectedHeader(token).kid, "KEY1234567");
  const key = await jose.importSPKI(config.apns, "ES256");
  return { claims: await verified(token, key, "ES256", { issuer: "TEAM123456" }), message: JSON.parse(body) };
}

async function grant(config, origin, body) {
  const form = new URLSearchParams(body.toString());
  assert.strictEqual(form.get("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
  const key = await jose.importSPKI(config.account, "RS256");
  const options = { audience: `${origin}/token`, requiredClaims: ["iss", "scope", "iat", "exp"] };
  return { claims: await verified(form.get("assertion"), key, "RS256", options), message: null };
}

async function webPush(config, origin, headers, body) {
  const [, token, key] = /^vapid t=([^,]+), k=(.+)$/.exec(headers.authorization);
  const point = Buffer.from(key, "base64url");
  const jwk = {
    kty: "EC", crv: "P-256", x: point.subarray(1, 33).toString("base64url"), y: point.subarray(33).toString("base64url"),
  };
  const claims = await verified(token, await jose.importJWK(jwk, "ES256"), "ES256", { audience: origin });
  const browser = crypto.createECDH("prime256v1");
  browser.setPrivateKey(config.browser, "base64url");
  const plain = ece.decrypt(body, { version: "aes128gcm", privateKey: browser, authSecret: config.auth });
  return { claims, message: JSON.parse(plain) };
}

async function answer(config, stream, headers) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  const body = Buffer.concat(parts);
  const [path, origin] = [headers[":path"], `https://${headers[":authority"]}`];
  let seen, reply = {};
  if (path.startsWith("/3/device/")) {
    seen = await apns(config, headers, body);
  } else if (path === "/token") {
    seen = await grant(config, origin, body);
    reply = { access_token: "access", expires_in: 3599, token_type: "Bearer" };
  } else if (path === "/v1/projects/couple-test/messages:send") {
    assert.strictEqual(headers.authorization, "Bearer access");
    seen = { claims: null, message: JSON.parse(body) };
  } else {
    seen = await webPush(config, origin, headers, body);
  }
  console.log(JSON.stringify({ path, ...seen }));
  stream.respond({ ":status": 200, "content-type": "application/json" });
  stream.end(JSON.stringify(reply));
}

readline.createInterface(process.stdin).once("line", (line) => {
  const config = JSON.parse(line);
  const server = http2.createSecureServer({ cert: config.certificate, key: config.key });
  server.on("stream", (stream, headers) => {
    answer(config, stream, headers).catch((error) => {
      console.error(error);
      process.exit(1);
    });
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
});
// The test closes standard input when it ends.
process.stdin.on("end", () => process.exit(0));
