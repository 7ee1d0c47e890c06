// Publishes entries on command, as our server does in its process: a line `RATE SECONDS` starts it (rate 0: maximum), and the number of
// published entries is printed. `say(couple, frame)` sends to the listeners of the couple.
const { createInterface } = require("node:readline");
const COUPLES = 500;

const micros = () => Math.round((performance.timeOrigin + performance.now()) * 1000);

// A frame of the same length and structure as ours.
function frame(said) {
  const text = String(micros());
  const entry = { seq: said, author: "partner", kind: "text", body: { text }, target: null };
  return {
    type: "entry",
    entry: { ...entry, created_at: "2026-11-25T01:02:03.004Z", edited_at: null, deleted_at: null, reactions: {} },
    cursor: `0123abcd.1.${said}.0.0`,
  };
}

module.exports = function talk(say) {
  createInterface({ input: process.stdin }).on("line", (line) => {
    const [rate, seconds] = line.split(" ").map(Number);
    const begun = performance.now();
    let said = 0;
    (function step() {
      const elapsed = (performance.now() - begun) / 1000;
      if (elapsed >= seconds) return console.log(said);
      const until = rate ? rate * elapsed : said + 64;
      for (; said < until; said++) say(said % COUPLES, frame(said));
      if (rate) setTimeout(step, 1);
      else setImmediate(step);
    })();
  });
};
