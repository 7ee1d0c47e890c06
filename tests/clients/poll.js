// Consecutive long polls with the platform's fetch.
const [base, token] = process.argv.slice(2);
let cursor = "0";

async function poll() {
  const answer = await fetch(`${base}/v1/couple/live?after=${cursor}`, { headers: { authorization: `Bearer ${token}` } });
  const told = await answer.json();
  for (const frame of told.frames) {
    if (frame.type === "entry") console.log(frame.entry.seq, frame.entry.body.text);
  }
  cursor = told.cursor;
}

(async () => {
  for (;;) await poll().catch(() => new Promise((resolve) => setTimeout(resolve, 50)));
})();
