// The console of a notifyd node: live by the node's own protocol, of its own `$sys:…` topics. This file puts it together.

import { askKey } from "./access.js";
import { connectionLevel, problems, showAlerts } from "./alerts.js";
import { hasKey, setKey, theKey } from "./api.js";
import { Connections } from "./connections.js";
import { beat } from "./devices.js";
import { at, mark, say } from "./dom.js";
import { Feed } from "./feeds.js";
import { Figures } from "./figures.js";
import { milliseconds } from "./format.js";
import { Link } from "./link.js";
import { Nodes } from "./nodes.js";
import { Overview } from "./overview.js";
import { Settings } from "./settings.js";
import { openTheme } from "./theme.js";
import { Topic } from "./topic.js";
import { Topics } from "./topics.js";
import { Tree } from "./tree.js";

const TICK_MS = 1000;
const NEEDS_KEY = "The figures of this node are for operators: give one of its API keys.";

const figures = new Figures();
const link = new Link({ onState, onConnected, onDenied });
const app = { link, figures, own: null, heardAt: null, connectedAt: 0, why: "", isRefused: false, needKey };
for (const name of ["topics", "connections", "tree"]) app[name] = new Feed(link, `$sys:${name}`, onRefused);

const views = { "": new Overview(app), topics: new Topics(app), topic: new Topic(app), connections: new Connections(app),
  nodes: new Nodes(app), tree: new Tree(app), settings: new Settings(app) };
let view = null;

// --- the way to a view: #/topics/NAME ----------------------------------------------------------------------------------

function route() {
  const [name = "", ...rest] = location.hash.replace(/^#?\/?/, "").split("/");
  let argument = "";
  try { argument = decodeURIComponent(rest.join("/")); } catch { /* no topic */ }
  const next = views[name === "topics" && argument ? "topic" : name] ?? views[""];
  const isMove = view !== null;
  view?.hide();
  view = next;
  at("main").replaceChildren(view.element);
  for (const anchor of document.querySelectorAll("nav a")) {
    const isHere = anchor.getAttribute("href") === `#/${name}` || (next === views[""] && anchor.getAttribute("href") === "#/");
    if (isHere) mark(anchor, "aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  view.show(argument);
  tick();
  if (isMove) {
    scrollTo(0, 0);
    view.element.querySelector("h1")?.focus({ preventScroll: true });
  }
}

// --- what the connection tells -----------------------------------------------------------------------------------------

function onState(state, why) {
  app.why = why;
  document.body.dataset.state = state;
  say(at("state-word"), state);
  mark(at("state"), "data-level", connectionLevel(state));
  tick();
}

function onConnected({ node, user, session }) {
  Object.assign(app, { own: session, connectedAt: Date.now(), isRefused: false });
  say(at("node"), node);
  mark(at("node"), "title", `Node ${node}, user ${user || "anonymous"}`);
  view?.connected?.();
  tick();
}

// The client keeps the mean of its last round trips: another mean, another beat.
function showBeat() {
  const text = link.state === "connected" && link.client.roundTrip ? milliseconds(link.client.roundTrip * 1000) : "";
  if (text && text !== at("round-trip").textContent) beat(document.querySelector("#state i"));
  say(at("round-trip"), text);
}

function onDenied(why) {
  needKey(`This node wants to know who you are${why ? ` (${why})` : ""}: give an API key, or a token.`);
}

function onRefused() {
  if (app.isRefused) return;
  app.isRefused = true;
  if (!hasKey()) needKey(NEEDS_KEY);
  tick();
}

// Asks for a key and connects anew with it; resolves with whether one was given.
async function needKey(why) {
  const isGiven = await askKey(why);
  say(at("key"), hasKey() ? "Change key" : "API key");
  if (isGiven) link.open(theKey());
  return isGiven;
}

// --- once a second -----------------------------------------------------------------------------------------------------

function tick() {
  const now = Date.now();
  const found = problems(app, now);
  showAlerts(at("alerts"), found);
  at("locked").hidden = !app.isRefused;
  document.title = found.some(([level]) => level === "bad") ? "⚠ notifyd" : "notifyd";
  document.body.classList.toggle("stale", link.state !== "connected" && app.heardAt !== null);
  showBeat();
  view?.tick(now);
}

link.follow("$sys:figures", {
  message({ data }) {
    app.heardAt = Date.now();
    figures.take(data, app.heardAt);
    tick();
  },
  refused: onRefused,
});
at("key").onclick = () => needKey(NEEDS_KEY);
at("unlock").onclick = () => needKey(NEEDS_KEY);
at("skip").onclick = () => at("main").focus();
for (const button of document.querySelectorAll("dialog [data-cancel]")) button.onclick = () => button.closest("dialog").close();
addEventListener("hashchange", route);
setInterval(tick, TICK_MS);
setKey("");
openTheme();
route();
link.open();
