// Subscriptions: in order, once, or a gap; over reconnects, slow consumers and changes of mind.

import assert from "node:assert/strict";
import { test } from "node:test";
import { collect, gap, listen, message, world } from "./kit.mjs";

const position = (offset, epoch = "e") => ({ epoch, offset });

async function reconnect({ clock, server }) {
  server.socket.end();
  await clock.advance(0.2);
}

// --- in one connection ------------------------------------------------------------------------------------------------

test("iterates over messages, whole as they came", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b");
  await clock.advance(0);
  assert.deepEqual(server.socket.of("subscribe").map(({ topic, since }) => [topic, since]), [["a:b", "latest"]]);
  server.socket.say(message(1, { data: { text: "hé" }, sender: "bob" }));
  const { value, done } = await subscription.next();
  assert.deepEqual([value, done], [message(1, { data: { text: "hé" }, sender: "bob" }), false]);
  assert.deepEqual(subscription.position, position(1));
}));

test("listeners get messages and gaps as they come, each its own", world(async ({ clock, server, opened }) => {
  const client = await opened(), heard = [];
  const subscription = client.subscribe("a:b", {}, (event) => heard.push(event.data));
  const gaps = listen(subscription, "gap"), more = listen(subscription, "message"), begins = listen(subscription, "begin");
  await clock.advance(0);
  for (const offset of [1, 2, 5]) server.socket.say(message(offset));
  await clock.advance(0);
  assert.deepEqual([heard, more.map(({ offset }) => offset), gaps], [[1, 2, 5], [1, 2, 5], [gap(3, 4, "skipped")]]);
  assert.deepEqual(begins.map(({ offset }) => offset), [0]);
}));

test("a listener gets what was waiting for an iterator", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b");
  await clock.advance(0);
  for (const offset of [1, 3]) server.socket.say(message(offset));
  const gaps = listen(subscription, "gap"), messages = listen(subscription, "message");
  await clock.advance(0);
  assert.deepEqual([gaps, messages.map(({ data }) => data)], [[gap(2, 2, "skipped")], [1, 3]]);
}));

test("a subscription that comes first hears a publish that comes next", world(async ({ clock, server, open }) => {
  const client = open();
  client.publish("a:b", 1);
  client.subscribe("a:b");
  await clock.advance(0);
  assert.deepEqual(server.socket.sent.map(({ op }) => op), ["connect", "subscribe", "publish"]);
}));

test("drops duplicates, names what is missing, takes the server's gaps", world(async ({ clock, server, opened }) => {
  const client = await opened(), { events } = collect(client.subscribe("a:b"));
  await clock.advance(0);
  for (const offset of [1, 2, 2, 1, 5]) server.socket.say(message(offset));
  server.socket.say(gap(6, 8, "slow"));
  server.socket.say(gap(7, 8, "slow"));
  server.socket.say(gap(8, 10, "expired"));
  server.socket.say(message(11));
  server.socket.say(gap(1, 3, "epoch", { epoch: "f" }));
  server.socket.say(message(4, { epoch: "f" }));
  server.socket.say(message(2, { epoch: "g" }));
  server.socket.say(gap(0, 0, "epoch", { epoch: "h" }));
  server.socket.say(message(1, { epoch: "h" }));
  await clock.advance(0);
  assert.deepEqual(events, [
    1, 2, gap(3, 4, "skipped"), 5, gap(6, 8, "slow"), gap(9, 10, "expired"), 11, gap(1, 3, "epoch", { epoch: "f" }), 4,
    gap(1, 1, "epoch", { epoch: "g" }), 2, { op: "gap", topic: "a:b", from: 0, to: 0, reason: "epoch" }, 1,
  ]);
}));

test("messages without positions are handed on as they are", world(async ({ clock, server, opened }) => {
  server.answers.subscribe = () => ({ op: "subscribed", topic: "a:b" });
  const client = await opened(), subscription = client.subscribe("a:b"), { events } = collect(subscription);
  await clock.advance(0);
  for (const data of [1, 1, 2]) server.socket.say({ op: "message", topic: "a:b", data, time: 1 });
  await clock.advance(0);
  assert.deepEqual([events, subscription.position], [[1, 1, 2], null]);
}));

test("since a position: what was missed, or a gap", world(async ({ clock, server, opened }) => {
  server.offset = 9;
  const client = await opened();
  const whole = collect(client.subscribe("a:b", { since: position(7) }));
  await clock.advance(0);
  assert.deepEqual(server.socket.of("subscribe")[0].since, position(7));
  for (const offset of [8, 9]) server.socket.say(message(offset));
  server.answers.subscribe = ({ topic }) => ({ op: "subscribed", topic, epoch: "e", offset: 9, recovered: false });
  const late = collect(client.subscribe("a:c", { since: position(2) }));
  await clock.advance(0);
  server.socket.say(message(10, { topic: "a:c" }));
  server.answers.subscribe = ({ topic }) => ({ op: "subscribed", topic, recovered: false });
  const none = collect(client.subscribe("a:d", { since: position(2) }));
  await clock.advance(0);
  server.answers.subscribe = ({ topic }) => ({ op: "subscribed", topic, epoch: "f", offset: 3, recovered: false });
  await clock.advance(0);
  assert.deepEqual(whole.events, [8, 9]);
  assert.deepEqual(late.events, [gap(3, 9, "expired", { topic: "a:c" }), 10]);
  assert.deepEqual(none.events.map(({ from, to, reason }) => [from, to, reason]), [[0, 0, "no_history"]]);
}));

test("since the earliest: what is kept, after a gap where something is gone", world(async ({ clock, server, opened }) => {
  server.answers.subscribe = ({ topic }) => ({ op: "subscribed", topic, epoch: "e", offset: 9, recovered: false });
  const client = await opened(), { events } = collect(client.subscribe("a:b", { since: "earliest" }));
  await clock.advance(0);
  await reconnect({ clock, server });
  assert.equal(server.socket.of("subscribe")[0].since, "earliest", "nothing had come yet");
  for (const offset of [8, 9]) server.socket.say(message(offset));
  server.answers.subscribe = ({ topic }) => ({ op: "subscribed", topic, epoch: "e", offset: 9, recovered: true });
  await reconnect({ clock, server });
  assert.deepEqual(events, [gap(1, 7, "skipped"), 8, 9]);
  assert.deepEqual(server.socket.of("subscribe")[0].since, position(9));
}));

test("joined and left are for listeners", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b"), { events } = collect(subscription);
  const joined = listen(subscription, "joined"), left = listen(subscription, "left");
  await clock.advance(0);
  server.socket.say({ op: "joined", topic: "a:b", user: "bob", session: "x" });
  server.socket.say({ op: "left", topic: "a:b", user: "bob", session: "x" });
  await clock.advance(0);
  assert.deepEqual([events, joined.map(({ user }) => user), left.length], [[], ["bob"], 1]);
}));

test("what is not given is as if it were not there", world(async ({ clock, server, opened }) => {
  const client = await opened({ heartbeat: undefined, floor: undefined });
  const { events } = collect(client.subscribe("a:b", { since: null, queue: undefined }));
  collect(client.subscribe("a:c", { since: undefined }));
  collect(client.subscribe("a:d", null));
  await clock.advance(1);
  server.socket.say(message(1));
  await clock.advance(100);
  assert.deepEqual(server.socket.of("subscribe").map(({ since }) => since), ["latest", "latest", "latest"]);
  assert.deepEqual([events, server.sockets.length, server.socket.beats.length], [[1], 1, 3]);
}));

test("an op of a later version is nothing, also on a topic", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b"), { events } = collect(subscription);
  await clock.advance(0);
  for (const op of ["typing", "constructor", "begin", "end"]) server.socket.say({ op, topic: "a:b", offset: 7, epoch: "e" });
  server.socket.say(message(1));
  await clock.advance(0);
  assert.deepEqual([events, client.state, server.sockets.length], [[1], "connected", 1]);
}));

// --- the end of a subscription ----------------------------------------------------------------------------------------

test("leaving a loop unsubscribes", world(async ({ clock, server, opened }) => {
  const client = await opened(), data = [];
  const over = (async () => {
    for await (const event of client.subscribe("a:b")) {
      data.push(event.data);
      if (event.data === 2) break;
    }
  })();
  await clock.advance(0);
  for (const offset of [1, 2, 3]) server.socket.say(message(offset));
  await over;
  await clock.advance(0);
  assert.deepEqual([data, server.socket.of("unsubscribe").map(({ topic }) => topic)], [[1, 2], ["a:b"]]);
  await reconnect({ clock, server });
  assert.equal(server.socket.of("subscribe").length, 0);
}));

test("leaving a loop says no more of what is waiting, nor of an error", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b");
  await clock.advance(0);
  for (const offset of [1, 2, 3]) server.socket.say(message(offset));
  server.socket.say({ op: "unsubscribed", topic: "a:b", reason: "forbidden" });
  assert.equal((await subscription.next()).value.data, 1);
  assert.deepEqual(await subscription.return("left"), { value: "left", done: true });
  for await (const event of subscription) if (event.data === 3) break;
  const ended = client.subscribe("a:c");
  await clock.advance(0);
  server.socket.say({ op: "unsubscribed", topic: "a:c", reason: "forbidden" });
  assert.deepEqual(await ended.return(), { value: undefined, done: true });
}));

test("a closed subscription ends its loop after what is there, and hears no more", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b"), ends = listen(subscription, "end");
  await clock.advance(0);
  server.socket.say(message(1));
  subscription.close();
  subscription.close();
  server.socket.say(message(2));
  const { events, over } = collect(subscription);
  await over;
  assert.deepEqual([events, ends], [[1], [undefined]]);
}));

test("a subscription that is closed before it began says nothing more", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b", { since: position(1) });
  const begins = listen(subscription, "begin"), gaps = listen(subscription, "gap");
  server.answers.subscribe = ({ topic }) => ({ op: "subscribed", topic, epoch: "e", offset: 9, recovered: false });
  subscription.close();
  await clock.advance(0);
  assert.deepEqual([begins, gaps], [[], []]);
  assert.deepEqual(server.socket.sent.map(({ op }) => op), ["connect", "subscribe", "unsubscribe"]);
}));

test("a refused subscription throws", world(async ({ clock, server, opened }) => {
  server.refuse("subscribe", { code: 403, reason: "forbidden" });
  const client = await opened(), errors = listen(client, "error"), subscription = client.subscribe("a:b"), ends = listen(subscription, "end");
  await assert.rejects(subscription.next(), { code: 403, reason: "forbidden" });
  assert.deepEqual([errors, ends[0].code], [[], 403]);
  client.subscribe("a:b", {}, () => {});
  await clock.advance(0);
  assert.equal(errors[0].code, 403, "a listener is told by the client's error");
  await reconnect({ clock, server });
  assert.equal(server.socket.of("subscribe").length, 0);
}));

test("a subscription that has to wait is asked for again", world(async ({ clock, server, opened }) => {
  const client = await opened(), answer = server.answers.subscribe;
  server.refuse("subscribe", { code: 503, retry_after: 5 });
  const { events } = collect(client.subscribe("a:b"));
  await clock.advance(4);
  server.answers.subscribe = answer;
  await clock.advance(2);
  server.socket.say(message(1));
  await clock.advance(0);
  assert.deepEqual([events, server.socket.of("subscribe").length], [[1], 2]);
}));

test("a topic is subscribed once", world(async ({ clock, opened }) => {
  const client = await opened(), first = collect(client.subscribe("a:b"));
  const second = client.subscribe("a:b"), ends = listen(second, "end");
  await assert.rejects(second.next(), { code: 409, reason: "conflict" });
  await clock.advance(0);
  assert.equal(ends[0].code, 409);
  assert.equal(first.error, undefined);
}));

test("the server may end a subscription", world(async ({ clock, server, opened }) => {
  const client = await opened(), collected = collect(client.subscribe("a:b"));
  await clock.advance(0);
  server.socket.say(message(1));
  server.socket.say({ op: "unsubscribed", topic: "a:b", reason: "forbidden" });
  await clock.advance(0);
  assert.deepEqual([collected.events, collected.error.reason], [[1], "forbidden"]);
  client.subscribe("a:b");
  await clock.advance(0);
  assert.deepEqual(server.socket.sent.map(({ op }) => op), ["connect", "subscribe", "subscribe"]);
}));

test("changing one's mind quickly ends well", world(async ({ clock, server, opened }) => {
  const client = await opened();
  client.subscribe("a:b").close();
  client.subscribe("a:b").close();
  const { events } = collect(client.subscribe("a:b"));
  await clock.advance(0);
  server.socket.say(message(1));
  await clock.advance(0);
  assert.deepEqual(server.socket.sent.map(({ op }) => op), ["connect", "subscribe", "unsubscribe", "subscribe"]);
  assert.deepEqual(events, [1]);
}));

test("what comes for an earlier subscription is not for a later one", world(async ({ clock, server, opened }) => {
  const client = await opened(), earlier = client.subscribe("a:b");
  await clock.advance(0);
  server.offset = 1;
  server.answers.unsubscribe = () => null;
  earlier.close();
  const { events } = collect(client.subscribe("a:b"));
  await clock.advance(0);
  server.socket.say(message(1));
  server.socket.say({ op: "unsubscribed", topic: "a:b", id: server.socket.of("unsubscribe")[0].id });
  await clock.advance(0);
  server.socket.say(message(2));
  await clock.advance(0);
  assert.deepEqual(events, [2]);
}));

test("an unsubscribe that is refused for a while does not hurt the next subscription", world(async ({ clock, server, opened }) => {
  const client = await opened(), first = client.subscribe("a:b"), answer = server.answers.unsubscribe;
  await clock.advance(0);
  server.refuse("unsubscribe", { code: 429, retry_after: 1 });
  first.close();
  const { events } = collect(client.subscribe("a:b"));
  await clock.advance(0.5);
  server.answers.unsubscribe = answer;
  await clock.advance(1);
  server.socket.say(message(1));
  await clock.advance(0);
  assert.deepEqual(server.socket.sent.map(({ op }) => op), ["connect", "subscribe", "unsubscribe", "unsubscribe", "subscribe"]);
  assert.deepEqual(events, [1]);
}));

// --- over reconnects --------------------------------------------------------------------------------------------------

test("a resumed session goes on from its positions", world(async ({ clock, server, opened }) => {
  const client = await opened(), { events } = collect(client.subscribe("a:b"));
  await clock.advance(0);
  server.socket.say(message(1));
  Object.assign(server, { resumed: true, topics: { "a:b": { epoch: "e", offset: 3, recovered: true } } });
  await reconnect({ clock, server });
  const [{ session, positions }] = server.socket.of("connect");
  assert.deepEqual([session, positions], ["s1", { "a:b": position(1) }]);
  for (const offset of [1, 2, 3]) server.socket.say(message(offset));
  server.topics["a:b"] = { epoch: "e", offset: 9, recovered: false };
  await reconnect({ clock, server });
  server.socket.say(gap(4, 9, "expired"));
  server.socket.say(message(10));
  await clock.advance(0);
  assert.deepEqual(events, [1, 2, 3, gap(4, 9, "expired"), 10]);
  assert.deepEqual(server.socket.sent.map(({ op }) => op), ["connect"]);
}));

test("where the session is gone, subscribes anew since the position", world(async ({ clock, server, opened }) => {
  const client = await opened(), { events } = collect(client.subscribe("a:b"));
  await clock.advance(0);
  for (const offset of [1, 2]) server.socket.say(message(offset));
  await reconnect({ clock, server });
  assert.deepEqual(server.socket.of("subscribe")[0].since, position(2));
  server.socket.say(message(3));
  server.answers.subscribe = ({ topic }) => ({ op: "subscribed", topic, epoch: "f", offset: 2, recovered: false });
  await reconnect({ clock, server });
  server.socket.say(message(3, { epoch: "f" }));
  await clock.advance(0);
  assert.deepEqual(events, [1, 2, 3, gap(1, 2, "epoch", { epoch: "f" }), 3]);
}));

test("a topic without history tells that something may be missing", world(async ({ clock, server, opened }) => {
  server.answers.subscribe = () => ({ op: "subscribed", topic: "a:b" });
  const client = await opened(), { events } = collect(client.subscribe("a:b"));
  await clock.advance(0);
  await reconnect({ clock, server });
  assert.deepEqual(events, [{ op: "gap", topic: "a:b", from: 0, to: 0, reason: "no_history" }]);
}));

for (const [what, letter, length, token] of [["short names", "0", 20], ["names in three bytes a letter", "話", 75], ["a long token", "0", 20, "t".repeat(3000)]]) {
  test(`positions are named as far as there is room; the other topics are subscribed anew: ${what}`, world(async ({ clock, server, opened }) => {
    const client = await opened({ token }), topics = Array.from({ length: 120 }, (_, index) => `a:${String(index).padStart(length, letter)}`);
    for (const topic of topics) client.subscribe(topic);
    await clock.advance(0);
    Object.assign(server, { resumed: true, topics: Object.fromEntries(topics.map((topic) => [topic, { epoch: "e", offset: 0, recovered: true }])) });
    await reconnect({ clock, server });
    const [connect] = server.socket.of("connect"), named = Object.keys(connect.positions), bytes = Buffer.byteLength(JSON.stringify(connect));
    assert.ok(bytes > 3600 && bytes <= 4096, `${bytes} bytes, where a server takes 4096 before it says connected`);
    const anew = topics.filter((topic) => !named.includes(topic));
    for (const op of ["unsubscribe", "subscribe"]) assert.deepEqual(server.socket.of(op).map(({ topic }) => topic), anew);
    assert.ok(server.socket.of("subscribe").every(({ since }) => since.epoch === "e"));
  }));
}

test("what a restored topic sends before it is subscribed anew is not taken", world(async ({ clock, server, opened }) => {
  const client = await opened(), { events } = collect(client.subscribe("a:b"));
  await clock.advance(0);
  server.socket.say(message(1));
  server.topics = { "a:b": { epoch: "e", offset: 7 } };  // a new session, in which a token brought the topic
  server.answers.unsubscribe = () => null;
  await reconnect({ clock, server });
  server.socket.say(message(8));
  await clock.advance(0);
  assert.deepEqual(events, [1]);
}));

test("topics that a token brings belong to who subscribes to them, the others are left", world(async ({ clock, server, open }) => {
  server.topics = { "a:mine": { epoch: "e", offset: 3 }, "a:past": { epoch: "e", offset: 3 }, "a:other": {} };
  const client = open(), mine = collect(client.subscribe("a:mine"));
  client.subscribe("a:past", { since: "earliest" });
  await clock.advance(0);
  server.socket.say(message(4, { topic: "a:mine" }));
  await clock.advance(0);
  assert.deepEqual(mine.events, [4]);
  assert.deepEqual(server.socket.of("unsubscribe").map(({ topic }) => topic), ["a:past", "a:other"]);
  assert.deepEqual(server.socket.of("subscribe").map(({ topic, since }) => [topic, since]), [["a:past", "earliest"]]);
}));

test("a session of an earlier page goes on where its messages ended", world(async ({ clock, server, open }) => {
  Object.assign(server, { resumed: true, topics: { "a:b": { epoch: "e", offset: 5, recovered: true } } });
  const client = open({ session: "earlier" }), { events } = collect(client.subscribe("a:b"));
  await clock.advance(0);
  for (const offset of [4, 5]) server.socket.say(message(offset));
  await clock.advance(0);
  assert.deepEqual([server.socket.of("connect")[0].session, events], ["earlier", [4, 5]]);
}));

test("names of topics mean nothing to JavaScript", world(async ({ clock, server, opened }) => {
  const client = await opened(), names = ["__proto__", "constructor", "toString", "open", "beat"];
  const collected = names.map((topic) => collect(client.subscribe(topic)));
  await clock.advance(0);
  for (const topic of names) server.socket.say(message(1, { topic }));
  await reconnect({ clock, server });
  assert.deepEqual(Object.keys(server.socket.of("connect")[0].positions), names);
  assert.deepEqual(server.socket.of("subscribe").map(({ topic }) => topic), names);
  for (const { events } of collected) assert.deepEqual(events, [1]);
}));

// --- slow consumers ---------------------------------------------------------------------------------------------------

test("a full queue lets go what comes, and gets it again when it is empty", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b", { queue: 3 });
  await clock.advance(0);
  for (let offset = 1; offset <= 10; offset += 1) server.socket.say(message(offset));
  const { events } = collect(subscription);
  await clock.advance(0);
  assert.deepEqual(server.socket.of("subscribe").map(({ since }) => since), ["latest", position(3)]);
  for (let offset = 4; offset <= 6; offset += 1) server.socket.say(message(offset));
  await clock.advance(0);
  assert.deepEqual(events, [1, 2, 3, 4, 5, 6]);
  assert.equal(server.socket.of("subscribe").length, 2);
}));

test("what is kept no more is a gap", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b", { queue: 2 });
  await clock.advance(0);
  for (let offset = 1; offset <= 10; offset += 1) server.socket.say(message(offset));
  server.answers.subscribe = ({ topic }) => ({ op: "subscribed", topic, epoch: "e", offset: 10, recovered: false });
  const { events } = collect(subscription);
  await clock.advance(0);
  assert.deepEqual(events, [1, 2, gap(3, 10, "expired")]);
}));

test("a listener never falls behind, and takes over from a full queue", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b", { queue: 2 });
  await clock.advance(0);
  for (let offset = 1; offset <= 4; offset += 1) server.socket.say(message(offset));
  const messages = listen(subscription, "message");
  await clock.advance(0);
  for (let offset = 3; offset <= 9; offset += 1) server.socket.say(message(offset));
  await clock.advance(0);
  assert.deepEqual(messages.map(({ data }) => data), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}));

test("the end of a subscription that is behind is told", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b", { queue: 1 });
  await clock.advance(0);
  for (const offset of [1, 2]) server.socket.say(message(offset));
  subscription.close();
  const { events, over } = collect(subscription);
  await over;
  assert.deepEqual(events, [1, { op: "gap", topic: "a:b", from: 0, to: 0, reason: "slow" }]);
  assert.deepEqual(subscription.position, position(1), "what was let go can still be had");
}));

test("several may wait at one iterator: each event goes to one of them", world(async ({ clock, server, opened }) => {
  const client = await opened(), subscription = client.subscribe("a:b"), waiting = [1, 2, 3].map(() => subscription.next());
  await clock.advance(0);
  for (const offset of [1, 2]) server.socket.say(message(offset));
  await clock.advance(0);
  subscription.close();
  const results = await Promise.all(waiting);
  assert.deepEqual(results.map(({ value }) => value?.data), [1, 2, undefined]);
}));
