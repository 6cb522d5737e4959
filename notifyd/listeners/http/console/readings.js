// Numbers in messages: what of a topic's data can be drawn.

import { bytes, bytesPerSecond, number, percent } from "./format.js";

const MOST_FIELDS = 12;
const VALUES = 150;
const FORMATS = [
  [/percent$/, percent],
  [/(^|_)bytes(_in|_out)?_per_s$/, bytesPerSecond],
  [/(^|_)bytes$/, bytes],
  [/_per_s$/, (value) => `${number(value)}/s`],
  [/_ms$/, (value) => `${number(value)} ms`],
  [/_s$/, (value) => `${number(value)} s`],
];

// The numbers of one message, by name: its own, or those of its fields and of theirs.
export function numbersIn(data, prefix = "", found = new Map()) {
  if (typeof data === "number" && Number.isFinite(data)) found.set(prefix || "value", data);
  else if (data !== null && typeof data === "object" && !Array.isArray(data) && prefix.split(".").length < 3)
    for (const [name, value] of Object.entries(data)) if (found.size < MOST_FIELDS) numbersIn(value, prefix ? `${prefix}.${name}` : name, found);
  return found;
}

// What the last messages of one topic had in numbers.
export class Readings {
  constructor() {
    this.fields = new Map();  // name -> [[Unix ms, value], …]
    this.unit = "";
    this.last = 0;            // when the newest message arrived
    this.others = 0;          // messages without a number
  }

  take({ data, time }) {
    const numbers = numbersIn(data);
    if (!numbers.size) this.others += 1;
    this.last = Date.now();
    if (typeof data?.unit === "string") this.unit = data.unit.slice(0, 16);
    for (const [name, value] of numbers) {
      if (!this.fields.has(name)) {
        if (this.fields.size >= MOST_FIELDS) continue;
        this.fields.set(name, []);
      }
      const values = this.fields.get(name);
      let place = values.length;  // history may arrive behind what is live
      while (place && values[place - 1][0] > time) place -= 1;
      values.splice(place, 0, [time, value]);
      if (values.length > VALUES) values.shift();
    }
  }

  // What is drawn where nothing else is asked for: `value`, else the first number.
  get main() {
    return this.fields.has("value") ? "value" : this.fields.keys().next().value;
  }

  newest(name) {
    return this.fields.get(name)?.at(-1)?.[1] ?? null;
  }

  write(name, value = this.newest(name)) {
    if (value === null) return number(null);
    if (this.unit && name === this.main) return `${number(value)} ${this.unit}`;
    return (FORMATS.find(([pattern]) => pattern.test(name))?.[1] ?? number)(value);
  }
}
