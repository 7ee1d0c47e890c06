// Large bodies that the server refuses before it has read them: the platform's fetch receives the response.
const [base, token] = process.argv.slice(2);
const json = { "content-type": "application/json" };
const signed = { authorization: `Bearer ${token}` };
const requests = [
  ["/v1/media?purpose=photo", {}],
  ["/v1/accounts", json],
  ["/v1/media?purpose=cake", signed],
];

(async () => {
  for (let round = 0; round < 5; round += 1) {
    for (const [path, headers] of requests) {
      const body = new Blob([new Uint8Array(14 << 20)]);
      const answer = await fetch(base + path, { method: "POST", headers, body });
      console.log(answer.status, (await answer.json()).code);
    }
  }
})();
