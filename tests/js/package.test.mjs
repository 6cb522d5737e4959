// The package: small, whole, without dependencies, and described as it is.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import * as notifyd from "../../protocol/js/notifyd.js";
import { Clock, FakeServer } from "./kit.mjs";

const read = (name) => readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");
const MAX_BYTES = 6 * 1024;

test("the module as it is shipped has at most 6 KB, compressed", () => {
  const bytes = gzipSync(read("protocol/js/notifyd.js"), { level: 9 }).length;
  assert.ok(bytes <= MAX_BYTES, `${bytes} bytes, at most ${MAX_BYTES}: say it in fewer words, or do less`);
});

test("it imports nothing", () => {
  assert.doesNotMatch(read("protocol/js/notifyd.js"), /^import\b|\bimport\(|\brequire\(/m);
  const { dependencies, peerDependencies } = JSON.parse(read("protocol/js/package.json"));
  assert.deepEqual([dependencies, peerDependencies], [undefined, undefined]);
});

test("its versions are the project's", () => {
  const [, version] = read("pyproject.toml").match(/^version = "(.+)"$/m);
  assert.equal(JSON.parse(read("protocol/js/package.json")).version, version);
  assert.ok(read("protocol/js/notifyd.js").includes(`version: "${version}"`));
});

test("its package names files that are there", () => {
  const { exports, types, files, type } = JSON.parse(read("protocol/js/package.json"));
  const named = [types, ...Object.values(exports["."]), ...files];
  for (const name of named) assert.ok(read(`protocol/js/${name}`).length, name);
  assert.equal(type, "module");
});

test("its types declare what is there", () => {
  const declared = read("protocol/js/notifyd.d.ts");
  for (const [, name] of declared.matchAll(/^export (?:class|function) (\w+)/gm)) assert.ok(notifyd[name], name);
  const clock = new Clock();
  clock.install();
  try {
    const client = notifyd.connect("ws://host", { WebSocket: new FakeServer().WebSocket });
    const subscription = client.subscribe("a:b");
    for (const [name, object] of [["Client", client], ["Subscription", subscription]]) {
      const [, body] = declared.match(new RegExp(`export interface ${name}\\b[^{]*{\\n(.*?)\\n}`, "s"));
      const members = [...body.matchAll(/^ {2}(?:readonly )?(\w+)[<(:]/gm)].map(([, member]) => member);
      assert.ok(members.length > 3);
      for (const member of members) assert.ok(member in object, `${name}.${member}`);
      const own = Object.getOwnPropertyNames(Object.getPrototypeOf(object)).filter((member) => !/^_|^(constructor|next|return)$/.test(member));
      for (const member of own) assert.ok(members.includes(member), `${name}.${member} is not declared`);
    }
    client.close();
  } finally {
    clock.uninstall();
  }
});
