// Express and one GET in Redis, with the user in the session: the least that a session check can do.
const express = require("express");
const { createClient } = require("redis");
const { randomBytes } = require("crypto");

const client = createClient({ url: process.env.REDIS_URL });
const app = express();
app.disable("x-powered-by");
app.disable("etag");

app.post("/login", async (req, res) => {
  const token = randomBytes(32).toString("hex");
  await client.set(`express:${token}`, JSON.stringify({ name: "Ada" }), { EX: 3600 });
  res.set("Set-Cookie", `sid=${token}; Path=/; HttpOnly`).json({});
});

app.get("/me", async (req, res) => {
  const token = /(?:^|; )sid=([0-9a-f]{64})/.exec(req.headers.cookie ?? "")?.[1];
  const found = token && (await client.get(`express:${token}`));
  if (!found) return res.status(401).json({});
  res.json({ name: JSON.parse(found).name });
});

client.connect().then(() => app.listen(Number(process.env.PORT), "127.0.0.1"));
