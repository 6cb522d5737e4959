// Puts the console of a node together, which lives by the node's own protocol and its `$sys:…` topics.

import { askKey, theKey } from "./access.js";
import { levelOf, problems, showAlerts } from "./alerts.js";
import { Connections } from "./connections.js";
import { at, mark, say } from "./dom.js";
import { Feed } from "./feeds.js";
import { Figures } from "./figures.js";
import { milliseconds } from "./format.js";
import { Link } from "./link.js";
import { Nodes } from "./nodes.js";
import { Overview } from "./overview.js";
import { Settings } from "./settings.js";
import { Topic } from "./topic.js";
import { Topics } from "./topics.js";
import { Tree } from "./tree.js";

const TICK_MS = 1000, NEWS_MS = 250;
const THEMES = ["auto", "light", "dark"], THEME = "notifyd theme";
const NEEDS_KEY = at("locked").firstChild.textContent;

const figures = new Figures(), link = new Link({ onState, onConnected, onDenied });
// `heardAt`: when the last figures came; `isRefused`: they are not for who is connected.
const app = { link, figures, own: null, heardAt: 0, connectedAt: 0, why: "", isRefused: false };
for (const name of ["topics", "connections", "tree"]) app[name] = new Feed(link, `$sys:${name}`, onRefused);
const views = { "": new Overview(app), topics: new Topics(app), topic: new Topic(app), connections: new Connections(app),
  nodes: new Nodes(app), tree: new Tree(app), settings: new Settings(app) };
let view = null, due = 0;

// #/NAME, and of a topic: #/topics/TOPIC.
function route() {
  const [, name = "", argument = ""] = /^#?\/?([^/]*)\/?(.*)$/.exec(location.hash), isMove = view !== null;
  for (const feed of view?.feeds ?? []) app[feed].close();
  view?.hide?.();
  view = views[name === "topics" && argument ? "topic" : name] ?? views[""];
  at("main").replaceChildren(view.element);
  for (const anchor of document.querySelectorAll("nav a")) mark(anchor, "aria-current", anchor.hash === `#/${name}` ? "page" : "false");
  for (const feed of view.feeds ?? []) app[feed].open(soon);
  view.show?.(decoded(argument));
  tick();
  if (!isMove) return;
  scrollTo(0, 0);
  view.element.querySelector("h1").focus({ preventScroll: true });
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function onState(state, why) {
  app.why = why;
  document.body.dataset.state = state;
  say(at("state-word"), state);
  mark(at("state"), "data-level", levelOf(state));
  tick();
}

function onConnected({ node, session }) {
  Object.assign(app, { own: session, connectedAt: Date.now() });
  say(at("node"), node);
  tick();
}

function onDenied(why) {
  needKey(`This node wants to know who you are (${why}): give an API key, or a token.`);
}

function onRefused() {
  if (app.isRefused) return;
  app.isRefused = true;
  if (!theKey()) needKey(NEEDS_KEY);
  tick();
}

async function needKey(why) {
  if (!await askKey(why)) return;
  app.isRefused = false;
  link.open(theKey());
}

// The news of a moment are drawn together.
function soon() {
  due ||= setTimeout(tick, NEWS_MS);
}

// Once a second, and with news. Without a connection, what was heard last stays, in grey.
function tick() {
  clearTimeout(due);
  due = 0;
  const now = Date.now(), isConnected = link.state === "connected", found = problems(app, now);
  showAlerts(at("alerts"), found);
  at("locked").hidden = !app.isRefused;
  document.title = found.some(([level]) => level === "bad") ? "⚠ notifyd" : "notifyd";
  document.body.classList.toggle("stale", !isConnected && app.heardAt > 0);
  document.body.classList.toggle("refused", app.isRefused);
  const trip = isConnected && link.client.roundTrip ? milliseconds(link.client.roundTrip * 1000) : "";
  say(at("round-trip"), trip);
  if (!document.hidden) view?.tick(isConnected || !app.heardAt ? now : app.heardAt);
}

// Light, dark, or as the system has it: no secret, so it may stay in the browser.
function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").title = `Colours: ${theme}`;
  at("theme").onclick = () => {
    const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(THEME, next);
    showTheme(next);
  };
}

link.follow("$sys:figures", {
  message({ data }) {
    app.heardAt = Date.now();
    figures.take(data, app.heardAt);
    soon();
  },
  refused: onRefused,
});
at("key").onclick = at("unlock").onclick = () => needKey(NEEDS_KEY);
at("skip").onclick = () => at("main").focus();
for (const button of document.querySelectorAll("[data-cancel]")) button.onclick = () => button.closest("dialog").close();
addEventListener("hashchange", route);
addEventListener("visibilitychange", tick);
setInterval(tick, TICK_MS);
route();
link.open("");
showTheme(localStorage.getItem(THEME) ?? "auto");
