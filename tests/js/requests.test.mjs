// Publishing and asking: accepted once, over reconnects and refusals; every promise settles.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { watch, world } from "./kit.mjs";

test("a publish resolves when it is accepted, with a key of its own", world(async ({ server, opened }) => {
  const client = await opened();
  const { topic, epoch, offset } = await client.publish("a:b", { text: "hé" });
  assert.deepEqual([topic, epoch, offset], ["a:b", "e", 1]);
  await client.publish("a:b", null);
  await client.publish("a:b", 1, { key: "mine" });
  const [first, second, third] = server.socket.of("publish");
  assert.deepEqual(first.data, { text: "hé" });
  assert.ok(first.key.length > 20 && first.key !== second.key);
  assert.deepEqual([second.data, third.key], [null, "mine"]);
}));

test("makes keys where there is no crypto, as on a page without TLS", world(async ({ clock, server, opened }) => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "crypto");
  delete globalThis.crypto;
  try {
    const client = await opened();
    for (clock.random of [0.123456789, 0.987654321]) await client.publish("a:b", 1);
    const keys = server.socket.of("publish").map(({ key }) => key);
    assert.ok(new Set(keys).size === 2 && keys.every((key) => key.length >= 20 && key.length <= 128), String(keys));
  } finally {
    if (own) Object.defineProperty(globalThis, "crypto", own);
  }
}));

test("what was not answered is sent again with its key, in order", world(async ({ clock, server, open }) => {
  const client = open(), heard = [];
  server.answers.publish = ({ key, data }, socket) => {
    heard.push([server.sockets.indexOf(socket), data, key]);
    return server.sockets.length < 3 ? null : { op: "published", topic: "a:b" };
  };
  const published = [1, 2, 3].map((data) => watch(client.publish("a:b", data)));
  for (let end = 0; end < 2; end += 1) {
    await clock.advance(1);
    server.socket.end();
  }
  await clock.advance(1);
  assert.deepEqual(heard.map(([socket, data]) => [socket, data]), [0, 1, 2].flatMap((socket) => [1, 2, 3].map((data) => [socket, data])));
  assert.equal(new Set(heard.map(([, , key]) => key)).size, 3);
  assert.ok(published.every(({ value }) => value));
}));

test("the data is what it was when it was published", world(async ({ clock, server, open }) => {
  const client = open(), data = { n: 1 }, published = client.publish("a:b", data);
  data.n = 2;
  await clock.advance(0);
  await published;
  assert.deepEqual(server.socket.of("publish")[0].data, { n: 1 });
}));

test("data that is no JSON is refused before it is sent", world(async ({ server, opened }) => {
  const client = await opened();
  await assert.rejects(client.publish("a:b", 1n), TypeError);
  const round = {};
  round.round = round;
  await assert.rejects(client.publish("a:b", round), TypeError);
  assert.equal(server.socket.of("publish").length, 0);
}));

test("a refusal rejects with its code and reason", world(async ({ server, opened }) => {
  const client = await opened();
  server.refuse("publish", { code: 403, reason: "forbidden", message: "not this topic" });
  await assert.rejects(client.publish("a:b", 1), { name: "NotifydError", code: 403, reason: "forbidden", message: "not this topic" });
  server.refuse("history", { code: 503, reason: "unavailable" });
  await assert.rejects(client.history("a:b"), { code: 503 }, "without retry_after there is nothing to wait for");
}));

for (const code of [429, 503]) {
  test(`a ${code} with retry_after is asked again`, world(async ({ clock, server, opened }) => {
    const client = await opened(), refusals = [0.5, 2];
    server.answers.publish = () => {
      const wait = refusals.shift();
      return wait ? { op: "error", code, reason: "later", message: "", retry_after: wait } : { op: "published", topic: "a:b" };
    };
    const published = watch(client.publish("a:b", 1));
    await clock.advance(2.4);
    assert.deepEqual([published, server.socket.of("publish").length], [{}, 2]);
    await clock.advance(0.2);
    assert.ok(published.value);
    assert.equal(new Set(server.socket.of("publish").map(({ key }) => key)).size, 1);
  }));
}

test("a refusal that is waited for outlives the connection", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.refuse("publish", { code: 503, retry_after: 60 });
  const published = watch(client.publish("a:b", 1));
  await clock.advance(1);
  server.answers.publish = () => ({ op: "published", topic: "a:b" });
  server.socket.end();
  await clock.advance(1);
  assert.ok(published.value);
  await clock.advance(100);
  assert.equal(server.socket.of("publish").length, 1);
}));

test("what may have been accepted too long ago is not repeated", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.answers.publish = server.answers.history = () => null;
  const sent = watch(client.publish("a:b", 1)), history = watch(client.history("a:b"));
  await clock.advance(1);
  server.accepts = false;
  server.socket.end();
  const waiting = watch(client.publish("a:b", 2));
  await clock.advance(230);
  assert.deepEqual(sent, {});
  await clock.advance(40);
  assert.equal(sent.error.reason, "answer_lost");
  assert.deepEqual([waiting, history], [{}, {}]);
  delete server.answers.publish;
  server.answers.history = () => ({ op: "history", topic: "a:b", messages: [], more: false });
  server.answers.publish = () => ({ op: "published", topic: "a:b" });
  server.accepts = true;
  await clock.advance(31);
  assert.deepEqual(server.socket.of("publish").map(({ data }) => data), [2]);
  assert.ok(waiting.value && history.value);
}));

for (const code of [1009, 4013]) {
  test(`the largest request is refused when ${code} ends the connection`, world(async ({ clock, server, opened }) => {
    const client = await opened();
    server.answers.publish = () => null;
    const asked = ["small", "x".repeat(100), "large".repeat(100), "y".repeat(99)].map((data) => watch(client.publish("a:b", data)));
    await clock.advance(0);
    server.answers.publish = () => ({ op: "published", topic: "a:b" });
    server.socket.end(code);
    await clock.advance(1);
    assert.deepEqual(asked.map(({ error, value }) => error?.code ?? Boolean(value)), [true, true, 413, true]);
  }));
}

test("no size is to blame where nothing was sent", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.socket.end(1009);
  await clock.advance(1);
  assert.equal(client.state, "connected");
}));

test("a request can be given up", world(async ({ clock, server, open, opened }) => {
  const client = await opened(), controller = new AbortController(), { signal } = controller;
  server.answers.publish = server.answers.history = server.answers.presence = () => null;
  const asked = [client.publish("a:b", 1, { signal }), client.history("a:b", { signal }), client.presence("a:b", { signal })].map(watch);
  const waiting = watch(open({ token: () => new Promise(() => {}) }).publish("a:b", 1, { signal }));
  await clock.advance(1);
  controller.abort();
  await clock.advance(0);
  for (const { error } of [...asked, waiting]) assert.equal(error.name, "AbortError");
  await assert.rejects(client.publish("a:b", 1, { signal }), { name: "AbortError" });
  server.socket.end();
  await clock.advance(1);
  assert.deepEqual(server.socket.sent.map(({ op }) => op), ["connect"]);
}));

test("history and presence", world(async ({ server, opened }) => {
  const client = await opened();
  server.answers.history = ({ topic, since, limit }) => ({ op: "history", topic, epoch: "e", messages: [{ since, limit }], more: true });
  const { epoch, messages, more } = await client.history("a:b", { since: { epoch: "e", offset: 4 }, limit: 5 });
  assert.deepEqual([epoch, messages, more], ["e", [{ since: { epoch: "e", offset: 4 }, limit: 5 }], true]);
  assert.deepEqual((await client.history("a:b")).messages, [{}]);
  assert.deepEqual(await client.presence("a:b"), [{ user: "ada", session: "s1", since: 1 }]);
}));

test("a crowd of requests is sent a hundred at a time", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.answers.publish = () => null;
  const asked = Array.from({ length: 250 }, (_, data) => watch(client.publish("a:b", data)));
  await clock.advance(0);
  assert.equal(server.socket.of("publish").length, 100);
  server.answers.publish = () => ({ op: "published", topic: "a:b" });
  for (const { id } of server.socket.of("publish")) server.socket.say({ op: "published", id, topic: "a:b" });
  await clock.advance(0);
  assert.ok(asked.every(({ value }) => value));
  assert.deepEqual(server.socket.of("publish").map(({ data }) => data), asked.map((_, data) => data));
}));

test("a server's rate is found, and its limit on refusals is never met", world(async ({ clock, server, opened }) => {
  let level = 200, refused = 0, seen = clock.now;
  const accepted = [];
  server.answers.publish = ({ data }) => {
    level = Math.min(200, level + (clock.now - seen) * 100);
    seen = clock.now;
    if (level < 1) {
      refused += 1;
      return { op: "error", code: 429, reason: "rate_limited", message: "", retry_after: Math.ceil((1 - level) * 10) / 1000 };
    }
    level -= 1;
    accepted.push(data);
    return { op: "published", topic: "a:b" };
  };
  const client = await opened();
  const asked = Array.from({ length: 1000 }, (_, data) => watch(client.publish("a:b", data)));
  await clock.advance(12);
  assert.ok(asked.every(({ value }) => value), `${accepted.length} in 12 s, where 1000 take 8`);
  assert.ok(refused < 2000, `${refused} refusals`);
  assert.equal(new Set(accepted).size, 1000);
}));

test("an answer that nobody waits for is nothing", world(async ({ clock, server, opened }) => {
  const client = await opened();
  server.socket.say({ op: "published", id: 99, topic: "a:b" });
  server.socket.say({ op: "error", id: 98, code: 500, reason: "internal", message: "" });
  await clock.advance(1);
  assert.equal(client.state, "connected");
}));

test("a request that is over leaves nothing at its signal", world(async ({ clock, server, opened }) => {
  const client = await opened(), { signal } = new AbortController();
  for (let n = 0; n < 5; n += 1) await client.publish("a:b", n, { signal });
  server.refuse("publish", { code: 403, reason: "forbidden" });
  await assert.rejects(client.publish("a:b", 5, { signal }), { code: 403 });
  assert.equal(getEventListeners(signal, "abort").length, 0);
  await clock.advance(1);
}));

test("requests that are given up make room for the others", world(async ({ clock, server, opened }) => {
  const client = await opened(), controller = new AbortController(), { signal } = controller;
  server.answers.publish = () => null;
  for (let n = 0; n < 100; n += 1) watch(client.publish("a:b", n, { signal }));
  const last = watch(client.publish("a:b", "last"));
  await clock.advance(0);
  server.answers.publish = () => ({ op: "published", topic: "a:b" });
  controller.abort();
  await clock.advance(0);
  assert.ok(last.value);
}));

test("a wait that is over leaves no timer", world(async ({ clock, server, opened }) => {
  const client = await opened();
  for (let n = 0; n < 50; n += 1) {
    server.refuse("publish", { code: 503, retry_after: 0.1 });
    const published = client.publish("a:b", n);
    await clock.advance(0.05);
    server.answers.publish = () => ({ op: "published", topic: "a:b" });
    await clock.advance(0.1);
    await published;
  }
  const { clearTimeout } = globalThis, cleared = [];
  globalThis.clearTimeout = (timer) => cleared.push(timer) && clearTimeout(timer);
  client.close();
  assert.ok(cleared.length < 10, `${cleared.length} timers were known`);
}));

test("what may have been accepted is not repeated when its key may be forgotten, however long it is refused", world(async ({ clock, server, opened }) => {
  const client = await opened(), began = clock.now;
  server.answers.publish = () => null;
  const published = watch(client.publish("a:b", 1));
  await clock.advance(1);
  server.refuse("publish", { code: 503, reason: "unavailable", retry_after: 5 });
  server.socket.end();
  let last = 0;
  const { hear } = server;
  server.hear = (socket, message) => {
    if (message.op === "publish") last = clock.now;
    hear.call(server, socket, message);
  };
  await clock.advance(400);
  assert.equal(published.error.reason, "answer_lost");
  assert.ok(last > began + 200 && last < began + 300, `the last time after ${last - began} s`);
}));
