// Says what it is told to, as our own server does in its process: a line `RATE SECONDS` begins it (rate 0: as fast as it can), how many
// entries were said is answered. `say(couple, frame)` sends to whoever listens to that couple.
const { createInterface } = require("node:readline");
const COUPLES = 500;

const micros = () => Math.round((performance.timeOrigin + performance.now()) * 1000);

// A frame like ours, byte for byte but for what is in it.
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
