// How figures are written. Every function takes null for "not known".

export const NONE = "–";

const DIGITS = [0, 1, 2].map((digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits }));
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];

const known = (write) => (value) => (Number.isFinite(value) ? write(value) : NONE);

export const number = known((value) => {
  const size = Math.abs(value);
  if (size && size < 0.01) return value.toPrecision(2);
  return size < 100_000 ? DIGITS[size >= 1000 ? 0 : size >= 10 ? 1 : 2].format(value) : SHORT.format(value).replace("B", "G");
});
export const count = known((value) => DIGITS[0].format(value));
export const perSecond = known((value) => `${number(value)}/s`);
export const percent = known((value) => `${DIGITS[Math.abs(value) < 10 ? 1 : 0].format(value)} %`);
export const milliseconds = known((value) => (value >= 1000 ? `${number(value / 1000)} s` : `${number(value)} ms`));
export const bytes = known((value) => {
  let power = 0;
  for (; Math.abs(value) >= 1024 && power < BYTES.length - 1; power += 1) value /= 1024;
  return `${DIGITS[power && Math.abs(value) < 100 ? 1 : 0].format(value)} ${BYTES[power]}`;
});
export const bytesPerSecond = known((value) => `${bytes(value)}/s`);

// A span of time, from ms.
export const span = known((ms) => {
  const s = Math.max(0, Math.round(ms / 1000)), minutes = Math.floor(s / 60), hours = Math.floor(s / 3600);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${minutes} min ${s % 60} s`;
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
});

// A time of the day, from Unix ms.
export const clock = known((ms) => TIME.format(ms));
export const exactClock = (ms) => `${clock(ms)}.${String(Math.floor(ms % 1000)).padStart(3, "0")}`;

export const plural = (amount, word) => `${count(amount)} ${word}${amount === 1 ? "" : "s"}`;

export const byName = (one, other) => one.localeCompare(other, "en", { numeric: true });
