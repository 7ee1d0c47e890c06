// npm `socket.io`: a room for each couple.
const { createServer } = require("node:http");
const { Server } = require("socket.io");
const talk = require("./talk");

const server = createServer();
const io = new Server(server, { serveClient: false, transports: ["websocket", "polling"] });
io.on("connection", (socket) => socket.join(`couple-${socket.handshake.query.couple}`));
talk((couple, frame) => io.to(`couple-${couple}`).emit("entry", frame));
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => console.log(`127.0.0.1:${server.address().port}`));
