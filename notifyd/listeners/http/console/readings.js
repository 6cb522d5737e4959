// Numbers in messages: what of a topic's data can be drawn.

import { bytes, bytesPerSecond, milliseconds, number, percent, perSecond } from "./format.js";

const MOST_FIELDS = 12, MOST_VALUES = 150, DEPTH = 3;
const FORMATS = [[/percent$/, percent], [/bytes_per_s$/, bytesPerSecond], [/bytes$/, bytes], [/_per_s$/, perSecond],
  [/_ms$/, milliseconds], [/_s$/, (value) => milliseconds(value * 1000)]];

function numbersIn(data, path = [], found = new Map()) {
  if (Number.isFinite(data)) found.set(path.join(".") || "value", data);
  else if (data !== null && typeof data === "object" && !Array.isArray(data) && path.length < DEPTH)
    for (const [name, value] of Object.entries(data)) if (found.size < MOST_FIELDS) numbersIn(value, [...path, name], found);
  return found;
}

export class Readings {
  fields = new Map();  // name -> [[Unix ms, value], …], by time
  unit = "";
  others = 0;          // messages without a number

  take({ data, time }) {
    const numbers = numbersIn(data);
    if (!numbers.size) this.others += 1;
    if (typeof data?.unit === "string") this.unit = data.unit.slice(0, 16);
    for (const [name, value] of numbers) {
      if (!this.fields.has(name) && this.fields.size >= MOST_FIELDS) continue;
      const values = this.fields.get(name) ?? [];
      this.fields.set(name, values);
      // History may arrive behind what is live.
      values.splice(values.findLastIndex(([before]) => before <= time) + 1, 0, [time, value]);
      if (values.length > MOST_VALUES) values.shift();
    }
  }

  get main() {
    return this.fields.has("value") ? "value" : this.fields.keys().next().value;
  }

  write(name, value = this.fields.get(name)?.at(-1)?.[1]) {
    if (this.unit && name === this.main) return `${number(value)} ${this.unit}`;
    return (FORMATS.find(([pattern]) => pattern.test(name))?.[1] ?? number)(value);
  }
}
